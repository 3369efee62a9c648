//! Keeps (or with `exclude` drops) the tags with a version in a range.

mod range;

use dray_plugin_filter::{self as filter, Choice, Error, Selection, TagFilter, keep_unless};
use serde::Deserialize;

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Config {
    range: String,
    #[serde(default)]
    prerelease: bool,
    #[serde(default)]
    exclude: bool,
}

struct Filter;

impl TagFilter for Filter {
    type Config = Config;
    const NAME: &str = "semver";
    const VERSION: &str = env!("CARGO_PKG_VERSION");
    const SUMMARY: &str = "Keeps the tags whose version is in a range";
    const CONFIG_SCHEMA: &str = include_str!("schema.json");

    /// Tags that are not versions are in no range, so `exclude` keeps them.
    fn select(Choice { tags, .. }: &Choice, config: &Config) -> Result<Selection, Error> {
        let range = range::Range::parse(&config.range).map_err(|why| Error::key("range", why))?;
        let outside = |tag: &str| match dray_plugin::version(tag) {
            None => Some("not a version"),
            Some(version) if range.contains(&version, config.prerelease) => None,
            Some(version) if range.contains(&version, true) => {
                Some("a prerelease, and `prerelease` is false")
            }
            Some(_) => Some("outside the range"),
        };
        Ok(match config.exclude {
            true => keep_unless(tags, |tag| outside(tag).is_none().then_some("inside the range")),
            false => keep_unless(tags, outside),
        })
    }
}

filter::export!(Filter with_types_in filter);

#[cfg(test)]
mod tests {
    use super::*;

    fn kept<'a>(tags: &[&'a str], config: &str) -> Vec<&'a str> {
        let names: Vec<String> = tags.iter().map(|tag| tag.to_string()).collect();
        let kept = Filter::select(&Choice::of("", &names), &filter::config(config).unwrap()).unwrap().kept;
        kept.into_iter().map(|index| tags[index as usize]).collect()
    }

    #[test]
    fn takes_versions_as_tags_write_them() {
        let tags = ["1.17.4", "v1.17.5", "1.19", "v1.20.0", "latest", "2", "1.18.0-rc.1"];
        assert_eq!(kept(&tags, r#"{"range":">=1.17.5, <1.20"}"#), ["v1.17.5", "1.19"]);
        assert_eq!(kept(&tags, r#"{"range":"1.17 || 2"}"#), ["1.17.4", "v1.17.5", "2"]);
        assert_eq!(kept(&tags, r#"{"range":"<1.18", "prerelease":true}"#), ["1.17.4", "v1.17.5"]);
        assert_eq!(
            kept(&tags, r#"{"range":">=1.17.5 <1.20", "prerelease":true}"#),
            ["v1.17.5", "1.19", "1.18.0-rc.1"]
        );
    }

    #[test]
    fn each_dropped_tag_has_its_reason() {
        let tags = ["latest", "1.0.0", "3.0.0-rc.1", "2.0.0"].map(str::to_owned);
        let config = Config { range: ">=2".into(), prerelease: false, exclude: false };
        let dropped = Filter::select(&Choice::of("", &tags), &config).unwrap().dropped;
        let dropped: Vec<_> = dropped.iter().map(|one| (one.reason.as_str(), one.tags[0])).collect();
        let prerelease = "a prerelease, and `prerelease` is false";
        assert_eq!(dropped, [("not a version", 0), ("outside the range", 1), (prerelease, 2)]);
    }

    #[test]
    fn exclude_keeps_what_is_no_version() {
        assert_eq!(kept(&["1.0", "2.0", "latest"], r#"{"range":"<2","exclude":true}"#), ["2.0", "latest"]);
    }

    #[test]
    fn a_malformed_range_is_an_error_of_its_key() {
        let config = Config { range: ">=x.y".into(), prerelease: false, exclude: false };
        let Err(Error::Invalid(text)) = Filter::select(&Choice::of::<&str>("", &[]), &config) else {
            panic!("taken")
        };
        assert!(text.starts_with("range: "), "{text}");
    }
}
