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
        if let Some(unknown) = unknown_group(&config.replace, &pattern) {
            let why = format!(
                "the pattern has no group `{unknown}`; ${{1}}a puts an a behind the first group, and $$ is a dollar"
            );
            return Err(Error::key("replace", why));
        }
        let name = |tag: &String| {
            pattern.is_match(tag).then(|| pattern.replace(tag, config.replace.as_str()).into_owned())
        };
        Ok(given.tags.iter().map(name).collect())
    }
}

/// The first group that a replacement names and a pattern does not have (syntax of `regex_lite::Captures::expand`).
fn unknown_group<'a>(replace: &'a str, pattern: &Regex) -> Option<&'a str> {
    let mut rest = replace;
    while let Some((_, behind)) = rest.split_once('$') {
        let (group, left) = match behind.strip_prefix('{') {
            Some(braced) => braced.split_once('}').unwrap_or((braced, "")),
            None => {
                let is_name = |byte: &u8| byte.is_ascii_alphanumeric() || *byte == b'_';
                behind.split_at(behind.bytes().take_while(is_name).count())
            }
        };
        let known = match group.parse::<usize>() {
            Ok(number) => number < pattern.captures_len(),
            Err(_) => group.is_empty() || pattern.capture_names().flatten().any(|name| name == group),
        };
        if !known {
            return Some(group);
        }
        // `$$` stands for a dollar.
        rest = if group.is_empty() { left.strip_prefix('$').unwrap_or(left) } else { left };
    }
    None
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
    fn a_replacement_names_groups_of_the_pattern() {
        let unknown = |replace| unknown_group(replace, &Regex::new("^v(?<minor>.)(.)$").unwrap());
        for good in ["", "$1", "$2-x", "${1}a", "$minor", "$$1a", "$", "1$$", "$0"] {
            assert_eq!(unknown(good), None, "{good}");
        }
        assert_eq!((unknown("$1a"), unknown("x${3}"), unknown("$$$3")), (Some("1a"), Some("3"), Some("3")));
    }

    #[test]
    fn a_malformed_pattern_is_an_error_of_its_key() {
        let config = Config { pattern: "(".into(), replace: String::new() };
        let given = Mapping { repository: String::new(), tags: Vec::new(), extra: Vec::new() };
        let wrong = Mapper::rename(&given, &config);
        assert!(matches!(wrong, Err(Error::Invalid(text)) if text.starts_with("pattern: ")));
    }
}
