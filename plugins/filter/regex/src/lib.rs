//! Keeps (or with `exclude` drops) the tags that match a regular expression.

use dray_plugin_filter::{
    self as filter, Error, Info, Meta, OneOrMany, exports::dray::plugin::tag_filter::Guest,
};
use regex_lite::Regex;
use serde::Deserialize;

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Config {
    pattern: OneOrMany<String>,
    #[serde(default)]
    exclude: bool,
}

fn select(tags: &[String], config: &Config) -> Result<Vec<u32>, Error> {
    let patterns = config
        .pattern
        .as_slice()
        .iter()
        .map(|pattern| Regex::new(pattern).map_err(|error| Error::key("pattern", error)))
        .collect::<Result<Vec<_>, _>>()?;
    let matches = |tag: &str| patterns.iter().any(|pattern| pattern.is_match(tag));
    let kept = (0u32..).zip(tags).filter(|(_, tag)| matches(tag) != config.exclude);
    Ok(kept.map(|(index, _)| index).collect())
}

struct Filter;

impl Meta for Filter {
    fn describe() -> Info {
        Info {
            name: "regex".into(),
            version: env!("CARGO_PKG_VERSION").into(),
            summary: "Keeps the tags that match a regular expression".into(),
            schemes: Vec::new(),
            config_schema: include_str!("schema.json").into(),
        }
    }
}

impl Guest for Filter {
    fn select(_repository: String, tags: Vec<String>, config: String) -> Result<Vec<u32>, Error> {
        select(&tags, &filter::config(&config)?)
    }
}

filter::export!(Filter);

#[cfg(test)]
mod tests {
    use super::*;

    fn kept(tags: &[&str], config: &str) -> Vec<u32> {
        let tags: Vec<String> = tags.iter().map(|tag| tag.to_string()).collect();
        select(&tags, &filter::config(config).unwrap()).unwrap()
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
        let Err(Error::Invalid(text)) = select(&[], &config) else { panic!("taken") };
        assert!(text.starts_with("pattern: "), "{text}");
    }
}
