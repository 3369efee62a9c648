//! Keeps (or with `exclude` drops) the tags that match a glob.

use dray_plugin_filter::{self as filter, Choice, Error, OneOrMany, Selection, TagFilter, keep_unless};
use serde::Deserialize;

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Config {
    pattern: OneOrMany<String>,
    #[serde(default)]
    exclude: bool,
}

struct Filter;

impl TagFilter for Filter {
    type Config = Config;
    const NAME: &str = "glob";
    const VERSION: &str = env!("CARGO_PKG_VERSION");
    const SUMMARY: &str = "Keeps the tags that match a glob";
    const CONFIG_SCHEMA: &str = include_str!("schema.json");

    fn select(Choice { tags, .. }: &Choice, config: &Config) -> Result<Selection, Error> {
        for pattern in config.pattern.as_slice() {
            check(pattern)?;
        }
        let matches = |tag: &str| {
            let patterns = config.pattern.as_slice();
            patterns.iter().any(|pattern| fast_glob::glob_match(pattern, tag))
        };
        let patterns = config.pattern.as_slice().join("`, `");
        let reason = format!("{} `{patterns}`", if config.exclude { "matches" } else { "does not match" });
        Ok(keep_unless(tags, |tag| (matches(tag) == config.exclude).then_some(reason.as_str())))
    }
}

filter::export!(Filter with_types_in filter);

/// Checks a pattern, because fast-glob treats a malformed one as a pattern that matches nothing.
fn check(pattern: &str) -> Result<(), Error> {
    let (mut class, mut braces, mut escaped) = (false, 0u32, false);
    for character in pattern.chars() {
        match character {
            _ if escaped => escaped = false,
            '\\' => escaped = true,
            ']' => class = false,
            _ if class => {}
            '[' => class = true,
            '{' => braces += 1,
            '}' if braces == 0 => {
                return Err(Error::key("pattern", format!("`{pattern}` closes a {{ that it never opened")));
            }
            '}' => braces -= 1,
            _ => {}
        }
    }
    if class || braces > 0 {
        let open = if class { '[' } else { '{' };
        return Err(Error::key("pattern", format!("`{pattern}` never closes its {open}")));
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn kept(tags: &[&str], config: &str) -> Vec<u32> {
        let tags: Vec<String> = tags.iter().map(|tag| tag.to_string()).collect();
        Filter::select(&Choice::of("", &tags), &filter::config(config).unwrap()).unwrap().kept
    }

    #[test]
    fn keeps_what_matches_in_the_given_order() {
        assert_eq!(kept(&["v2", "latest", "v1"], r#"{"pattern":"v*"}"#), [0, 2]);
        assert_eq!(kept(&["v2", "latest", "v1"], r#"{"pattern":["late*","v1"]}"#), [1, 2]);
        assert_eq!(kept(&["1.2", "1.30", "2.1"], r#"{"pattern":"{1,2}.[0-9]"}"#), [0, 2]);
    }

    #[test]
    fn exclude_turns_it_round() {
        assert_eq!(kept(&["v2", "latest"], r#"{"pattern":"v*","exclude":true}"#), [1]);
    }

    #[test]
    fn malformed_patterns_are_errors_of_their_key() {
        for bad in ["[a", "{a,b", "a}"] {
            let config = Config { pattern: OneOrMany::One(bad.into()), exclude: false };
            let Err(Error::Invalid(text)) = Filter::select(&Choice::of::<&str>("", &[]), &config) else {
                panic!("{bad} was taken")
            };
            assert!(text.starts_with("pattern: "), "{text}");
        }
    }
}
