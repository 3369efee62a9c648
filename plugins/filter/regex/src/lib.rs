//! Keeps (or with `exclude` drops) the tags that match a regular expression.

use dray_plugin_filter::{self as filter, Choice, Error, OneOrMany, Selection, TagFilter, keep_unless};
use regex_lite::Regex;
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
    const NAME: &str = "regex";
    const VERSION: &str = env!("CARGO_PKG_VERSION");
    const SUMMARY: &str = "Keeps the tags that match a regular expression";
    const CONFIG_SCHEMA: &str = include_str!("schema.json");

    fn select(Choice { tags, .. }: &Choice, config: &Config) -> Result<Selection, Error> {
        let patterns = config
            .pattern
            .as_slice()
            .iter()
            .map(|pattern| Regex::new(pattern).map_err(|error| Error::key("pattern", error)))
            .collect::<Result<Vec<_>, _>>()?;
        let matches = |tag: &str| patterns.iter().any(|pattern| pattern.is_match(tag));
        let patterns = config.pattern.as_slice().join("`, `");
        let reason = format!("{} `{patterns}`", if config.exclude { "matches" } else { "does not match" });
        Ok(keep_unless(tags, |tag| (matches(tag) == config.exclude).then_some(reason.as_str())))
    }
}

filter::export!(Filter with_types_in filter);

#[cfg(test)]
mod tests {
    use super::*;

    fn kept(tags: &[&str], config: &str) -> Vec<u32> {
        let tags: Vec<String> = tags.iter().map(|tag| tag.to_string()).collect();
        Filter::select(&Choice::of("", &tags), &filter::config(config).unwrap()).unwrap().kept
    }

    #[test]
    fn is_unanchored_and_takes_lists() {
        assert_eq!(kept(&["v1", "xv1", "w"], r#"{"pattern":"v1"}"#), [0, 1]);
        assert_eq!(kept(&["v1", "xv1", "w"], r#"{"pattern":["^v1","^w$"]}"#), [0, 2]);
        assert_eq!(kept(&["v1", "xv1"], r#"{"pattern":"^v","exclude":true}"#), [1]);
    }

    #[test]
    fn a_malformed_pattern_is_an_error_of_its_key() {
        let config = Config { pattern: OneOrMany::One("(".into()), exclude: false };
        let Err(Error::Invalid(text)) = Filter::select(&Choice::of::<&str>("", &[]), &config) else {
            panic!("taken")
        };
        assert!(text.starts_with("pattern: "), "{text}");
    }
}
