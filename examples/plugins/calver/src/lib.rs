//! A tag filter for dray: keeps calendar versions (`2026.04`, `2026.04.1`), newest first.
//!
//! ```toml
//! [plugin.calver]
//! source = "plugins/calver/calver.wasm"
//!
//! [[rule]]
//! # …
//! tags = [{ filter = "calver", since = "2026.02" }]
//! ```

use dray_plugin_filter::{self as filter, Choice, Error, Selection, TagFilter, keep_unless};
use serde::Deserialize;
use std::cmp::Reverse;

/// The keys of the filter's table in the policy.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Config {
    since: Option<String>,
}

/// `2026.04.1` → year, month, patch.
fn version(tag: &str) -> Option<(u16, u8, u32)> {
    let mut parts = tag.split('.');
    let year = parts.next().filter(|year| year.len() == 4)?.parse().ok()?;
    let month = parts.next()?.parse().ok().filter(|month| (1..=12).contains(month))?;
    let patch = parts.next().map_or(Some(0), |patch| patch.parse().ok())?;
    parts.next().is_none().then_some((year, month, patch))
}

struct Calver;

impl TagFilter for Calver {
    type Config = Config;
    const NAME: &str = "calver";
    const VERSION: &str = env!("CARGO_PKG_VERSION");
    const SUMMARY: &str = "Keeps calendar versions, newest first";
    const CONFIG_SCHEMA: &str = include_str!("schema.json");

    fn select(Choice { tags, .. }: &Choice, config: &Config) -> Result<Selection, Error> {
        let since = match &config.since {
            Some(text) => {
                Some(version(text).ok_or_else(|| Error::key("since", "write YEAR.MONTH, as in 2026.02"))?)
            }
            None => None,
        };
        let mut selection = keep_unless(tags, |tag| match (version(tag), since) {
            (None, _) => Some("no calendar version"),
            (Some(version), Some(since)) if version < since => Some("older than `since`"),
            _ => None,
        });
        selection.kept.sort_by_key(|index| Reverse(version(&tags[*index as usize])));
        Ok(selection)
    }
}

filter::export!(Calver with_types_in filter);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn newest_first() {
        let tags = ["2026.01", "latest", "2026.04.2", "2026.13", "2025.12", "2026.04"].map(str::to_owned);
        assert_eq!(
            Calver::select(&Choice::of("", &tags), &Config { since: None }).unwrap().kept,
            [2, 5, 0, 4]
        );
        let selection =
            Calver::select(&Choice::of("", &tags), &Config { since: Some("2026.02".into()) }).unwrap();
        assert_eq!(selection.kept, [2, 5]);
        let dropped: Vec<_> =
            selection.dropped.iter().map(|one| (one.reason.as_str(), &one.tags[..])).collect();
        assert_eq!(dropped, [("older than `since`", &[0, 4][..]), ("no calendar version", &[1, 3][..])]);
        assert!(Calver::select(&Choice::of("", &tags), &Config { since: Some("spring".into()) }).is_err());
    }
}
