//! `tags`: one text, a table, or a list of literal tags and filters.

use super::raw::{self, Table, boolean, integer, one_or_many, string, table};
use super::{Call, Problem, Spanned, Tags};
use crate::Digest;
use std::ops::Range;
use toml::{Spanned as TomlSpanned, de::DeValue};

type Value<'a> = TomlSpanned<DeValue<'a>>;

/// Reads the value of `tags`.
pub(super) fn tags(value: &Value<'_>, problems: &mut Vec<Problem>) -> Tags {
    let before = problems.len();
    let tags = match value.get_ref() {
        DeValue::String(_) => short(value, problems),
        DeValue::Table(_) => from_table(value, problems),
        DeValue::Array(_) => from_list(value, problems),
        _ => {
            problems.push(
                Problem::new(
                    format!("expected a text, a table or a list, found {}", value.get_ref().type_str()),
                    value.span(),
                )
                .help(HELP),
            );
            Tags::default()
        }
    };
    if tags.literals.is_empty() && tags.filters.is_empty() && problems.len() == before {
        problems.push(
            Problem::new("`tags` is empty", value.span())
                .help("leave it out to copy every tag, or those of `[defaults.rule]`"),
        );
    }
    tags
}

const HELP: &str = "write tags = \"1.*\", tags = \">=1.30\", tags = [\"1.27\", \"1.28\"], or \
                    tags = { semver = \">=1.30\", latest = 5 }";

/// What one text means.
#[derive(Debug, PartialEq)]
enum Meaning {
    Literal,
    Glob,
    Range,
}

fn meaning(text: &str) -> Meaning {
    let text = text.split('@').next().unwrap_or(text);
    let comparison = text.trim_start().starts_with(['<', '>', '=', '^', '~']);
    if comparison || text.contains("||") || (text.contains(',') && !text.contains('{')) {
        Meaning::Range
    } else if text.contains(['*', '?', '[', '{']) {
        Meaning::Glob
    } else {
        Meaning::Literal
    }
}

/// `tags = "…"`: a literal tag, a glob, or a range of versions.
fn short(value: &Value<'_>, problems: &mut Vec<Problem>) -> Tags {
    let mut tags = Tags::default();
    let Some(text) = string(value, problems) else { return tags };
    match meaning(&text.value) {
        Meaning::Literal => literal(&mut tags, text, problems),
        Meaning::Glob => tags.filters.push(built_in("glob", "tags", &[("pattern", value)], &value.span())),
        Meaning::Range => tags.filters.push(built_in("semver", "tags", &[("range", value)], &value.span())),
    }
    tags
}

/// A list of literal tags and of filters that narrow the others.
fn from_list(value: &Value<'_>, problems: &mut Vec<Problem>) -> Tags {
    let mut tags = Tags::default();
    for item in one_or_many(value) {
        match item.get_ref() {
            DeValue::Table(_) => {
                tags.filters.extend(super::call::call(item, "a filter", "filter", problems));
            }
            _ => {
                if let Some(text) = string(item, problems) {
                    literal(&mut tags, text, problems);
                }
            }
        }
    }
    tags
}

/// Takes in a literal tag, `tag@digest`, or a digest.
fn literal(tags: &mut Tags, text: Spanned<String>, problems: &mut Vec<Problem>) {
    let wrong = match meaning(&text.value) {
        Meaning::Literal => None,
        Meaning::Glob => Some(("a pattern", "match")),
        Meaning::Range => Some(("a range of versions", "semver")),
    };
    if let Some((what, key)) = wrong {
        let message = format!("`{}` stands for a literal tag here, and looks like {what}", text.value);
        let help = format!("write tags = {{ {key} = \"{}\", include = [\"other-tag\"] }}", text.value);
        problems.push(Problem::new(message, text.span).help(help));
        return;
    }
    if text.value.is_empty() || text.value.contains(|odd: char| odd.is_whitespace() || odd == '!') {
        let message = format!("`{}` is no tag", text.value);
        problems.push(Problem::new(message, text.span).help("a tag has letters, digits, `_`, `.` and `-`"));
        return;
    }
    let (tag, pin) = match text.value.split_once('@') {
        Some((tag, pin)) => (tag.to_owned(), Some(pin)),
        None => (text.value.clone(), None),
    };
    let known = tags.literals.iter().any(|literal| literal.value == tag);
    match pin.map(str::parse::<Digest>) {
        None if known => {}
        None => tags.literals.push(text),
        Some(Ok(digest)) if !tag.is_empty() => {
            let before = tags.pins.insert(tag.clone(), digest.clone());
            if before.is_some_and(|before| before != digest) {
                let message = format!("`{tag}` is pinned to two digests");
                problems.push(Problem::new(message, text.span.clone()).help("keep one of them"));
            }
            if !known {
                tags.literals.push(Spanned { value: tag, span: text.span });
            }
        }
        _ => problems.push(
            Problem::new(format!("`{}` pins a tag to what is no digest", text.value), text.span)
                .help("write TAG@sha256: and 64 hexadecimal digits, as `dray lock` does"),
        ),
    }
}

/// A filter that is built in, with values of the policy as its configuration.
///
/// `written` is the key by which the policy names the filter's main setting, for messages.
fn built_in(name: &str, written: &str, given: &[(&str, &Value<'_>)], span: &Range<usize>) -> Call {
    let config = given.iter().map(|(key, value)| ((*key).to_owned(), raw::json(value.get_ref())));
    Call {
        plugin: Spanned { value: name.into(), span: span.clone() },
        config: serde_json::Value::Object(config.collect()),
        keys: given.iter().map(|(key, value)| ((*key).to_owned(), value.span())).collect(),
        written: given.first().map(|(key, _)| ((*key).to_owned(), written.to_owned())),
        span: span.clone(),
    }
}

/// Adds a setting that no value of the policy gives.
fn set(mut call: Call, key: &str, value: impl Into<serde_json::Value>) -> Call {
    if let Some(config) = call.config.as_object_mut() {
        config.insert(key.into(), value.into());
    }
    call
}

/// `tags = { … }`. The keys narrow in this order, whatever the order in which they are written: `match`, `regex`,
/// `semver`, `exclude`, `age`, `latest`. `include` is added at the end.
fn from_table(value: &Value<'_>, problems: &mut Vec<Problem>) -> Tags {
    let mut tags = Tags::default();
    let Some(mut entry) = table("`tags`", value, problems) else { return tags };
    if let Some(filter) = entry.take("filter") {
        problems.push(
            Problem::new("a filter stands in a list", filter.span())
                .help("write tags = [{ filter = \"…\", … }], or use the keys of `tags`"),
        );
        return tags;
    }
    let mut add = |call: Call| tags.filters.push(call);
    if let Some(value) = texts(&mut entry, "match", problems) {
        add(built_in("glob", "match", &[("pattern", value)], &value.span()));
    }
    if let Some(value) = texts(&mut entry, "regex", problems) {
        add(built_in("regex", "regex", &[("pattern", value)], &value.span()));
    }
    let prerelease = entry.take("prerelease");
    let wanted = prerelease.and_then(|value| boolean(value, problems));
    if let Some(value) = entry.take("semver") {
        let call = built_in("semver", "semver", &[("range", value)], &value.span());
        if string(value, problems).is_some() {
            add(if wanted == Some(true) { set(call, "prerelease", true) } else { call });
        }
    } else if let Some(value) = prerelease {
        problems.push(
            Problem::new("`prerelease` belongs to `semver`, and there is none", value.span())
                .help("add semver = \">=0\", or leave `prerelease` out"),
        );
    }
    if let Some(value) = texts(&mut entry, "exclude", problems) {
        add(set(built_in("glob", "exclude", &[("pattern", value)], &value.span()), "exclude", true));
    }
    if let Some(value) = entry.take("age")
        && string(value, problems).is_some()
    {
        add(built_in("age", "age", &[("within", value)], &value.span()));
    }
    let by = entry.take("by");
    if let Some(value) = entry.take("latest") {
        let mut given = vec![("count", value)];
        given.extend(by.map(|by| ("by", by)));
        if integer(value, problems).is_some() {
            add(built_in("latest", "latest", &given, &value.span()));
        }
    } else if let Some(by) = by {
        problems.push(
            Problem::new("`by` belongs to `latest`, and there is none", by.span())
                .help("add latest = 5, or leave `by` out"),
        );
    }
    if let Some(value) = entry.take("include") {
        for item in one_or_many(value) {
            if let Some(text) = string(item, problems) {
                literal(&mut tags, text, problems);
            }
        }
    }
    entry.end(problems);
    tags
}

/// A text or a list of texts.
fn texts<'a>(entry: &mut Table<'a>, key: &'static str, problems: &mut Vec<Problem>) -> Option<&'a Value<'a>> {
    let value = entry.take(key)?;
    let before = problems.len();
    let items = one_or_many(value);
    if items.is_empty() {
        let message = format!("`{key}` is empty");
        problems.push(Problem::new(message, value.span()).help("leave it out, or write a text in it"));
    }
    for item in items {
        string(item, problems);
    }
    (problems.len() == before).then_some(value)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_text_says_what_it_is() {
        for (text, expected) in [
            ("1.27", Meaning::Literal),
            ("latest", Meaning::Literal),
            ("v1.*", Meaning::Glob),
            ("1.2?", Meaning::Glob),
            ("{1,2}.0", Meaning::Glob),
            (">=1.30", Meaning::Range),
            ("^1.2", Meaning::Range),
            ("1.2 || 1.4", Meaning::Range),
            ("1.2, <1.2.5", Meaning::Range),
        ] {
            assert_eq!(meaning(text), expected, "{text}");
        }
    }
}
