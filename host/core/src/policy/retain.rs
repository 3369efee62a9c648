//! `[[retain]]`: which tags of a place stay, and all others are deleted.

use super::raw::{list, one_or_many, string, table};
use super::rule::{reference, repositories};
use super::tags::tags;
use super::{Problem, Retain, Spanned, Tags};
use std::time::Duration;
use toml::{Spanned as TomlSpanned, de::DeValue};

type Value<'a> = TomlSpanned<DeValue<'a>>;

/// Reads all tables.
pub(super) fn retains(value: &Value<'_>, problems: &mut Vec<Problem>) -> Vec<Retain> {
    let mut all: Vec<Retain> = Vec::new();
    for value in list(value, problems) {
        let Some(found) = retain(value, problems) else { continue };
        if all.iter().any(|other| other.name.value == found.name.value) {
            let text = format!("two tables of `retain` are named `{}`", found.name.value);
            problems
                .push(Problem::new(text, found.name.span.clone()).help("names tell them apart in reports"));
        }
        all.push(found);
    }
    all
}

fn retain(value: &Value<'_>, problems: &mut Vec<Problem>) -> Option<Retain> {
    let mut entry = table("`retain`", value, problems)?;
    let name = entry.take("name").and_then(|value| string(value, problems));
    let at = entry.require("at", problems).map(one_or_many).unwrap_or_default();
    let texts: Vec<_> = at.into_iter().filter_map(|value| string(value, problems)).collect();
    let at = texts.into_iter().filter_map(|text| reference(text, problems)).collect();
    let keep = entry.take("keep");
    let keep: Vec<Tags> =
        keep.map(one_or_many).unwrap_or_default().into_iter().map(|value| kept(value, problems)).collect();
    let untagged = entry.take("untagged");
    let is_said = untagged.is_some();
    let untagged = untagged.and_then(|value| untagged_for(value, problems));
    let limit =
        entry.take("limit").map(|value| super::order::limit(value, "limit", problems)).unwrap_or_default();
    let backup = super::order::backup(&mut entry, problems);
    let repositories = repositories(&mut entry, problems);
    let span = entry.span.clone();
    entry.end(problems);
    if keep.is_empty() && !is_said {
        let help = "write keep = [{ latest = 10 }]; every tag that one of its entries chooses stays. Or untagged = \"30d\"";
        problems.push(Problem::new("`keep` keeps nothing", span.clone()).help(help));
    }
    for tags in &keep {
        if let Some((tag, _)) = tags.pins.iter().next() {
            problems.push(Problem::new(
                format!("`keep` names tags, and {tag} is pinned to a digest"),
                span.clone(),
            ));
        }
    }
    let name = name.unwrap_or_else(|| Spanned { value: "retain".into(), span });
    Some(Retain { name, at, repositories, keep, untagged, limit, backup, related: Vec::new() })
}

/// The shortest time for which a manifest without a tag stays: what is being pushed has no tag yet.
const LEAST: Duration = Duration::from_secs(3600);

fn untagged_for(value: &Value<'_>, problems: &mut Vec<Problem>) -> Option<Duration> {
    let help = "write a time, such as untagged = \"30d\": manifests that no tag names go when they are older";
    let text = string(value, problems)?;
    let span = text.span.clone();
    let time = super::limits::duration(text, help, problems)?;
    if time < LEAST {
        let text = "`untagged` is at least 1h: what is being pushed has no tag yet";
        problems.push(Problem::new(text, span));
        return None;
    }
    Some(time)
}

/// One entry of `keep`: what `tags` of a rule takes, or one filter.
fn kept(value: &Value<'_>, problems: &mut Vec<Problem>) -> Tags {
    let is_filter = value.get_ref().as_table().is_some_and(|table| table.contains_key("filter"));
    if !is_filter {
        return tags(value, problems);
    }
    let filters = super::call::call(value, "a filter", "filter", problems).into_iter().collect();
    Tags { filters, ..Tags::default() }
}
