//! Replaces what a regular expression finds in a tag.

use dray_plugin_mapper::{self as mapper, Error, Mapping, TagMapper};
use regex_lite::Regex;
use serde::Deserialize;

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Config {
    pattern: String,
    replace: String,
}

struct Mapper;

impl TagMapper for Mapper {
    type Config = Config;
    const NAME: &str = "regex";
    const VERSION: &str = env!("CARGO_PKG_VERSION");
    const SUMMARY: &str = "Replaces what a regular expression finds in a tag";
    const CONFIG_SCHEMA: &str = include_str!("schema.json");

    fn rename(given: &Mapping, config: &Config) -> Result<Vec<Option<String>>, Error> {
        let pattern = Regex::new(&config.pattern).map_err(|error| Error::key("pattern", error))?;
        let name = |tag: &String| {
            pattern.is_match(tag).then(|| pattern.replace(tag, config.replace.as_str()).into_owned())
        };
        Ok(given.tags.iter().map(name).collect())
    }
}

mapper::export!(Mapper with_types_in mapper);

#[cfg(test)]
mod tests {
    use super::*;

    fn named(tag: &str, pattern: &str, replace: &str) -> Option<String> {
        let config = Config { pattern: pattern.into(), replace: replace.into() };
        let given = Mapping { repository: String::new(), tags: vec![tag.into()], extra: Vec::new() };
        Mapper::rename(&given, &config).unwrap().remove(0)
    }

    #[test]
    fn what_is_found_is_replaced_and_other_tags_keep_their_names() {
        assert_eq!(named("v1.27", "^v", "").as_deref(), Some("1.27"));
        assert_eq!(named("1.27-alpine", "^(.*)-alpine$", "alpine-$1").as_deref(), Some("alpine-1.27"));
        assert_eq!(named("v1-v2", "v", "w").as_deref(), Some("w1-v2"));
        assert_eq!(named("latest", "^v", ""), None);
    }

    #[test]
    fn a_malformed_pattern_is_an_error_of_its_key() {
        let config = Config { pattern: "(".into(), replace: String::new() };
        let given = Mapping { repository: String::new(), tags: Vec::new(), extra: Vec::new() };
        let wrong = Mapper::rename(&given, &config);
        assert!(matches!(wrong, Err(Error::Invalid(text)) if text.starts_with("pattern: ")));
    }
}
