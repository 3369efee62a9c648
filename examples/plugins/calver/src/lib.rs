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

use dray_plugin_filter::{self as filter, Error, TagFilter};
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

    fn select(_repository: &str, tags: &[String], config: &Config) -> Result<Vec<u32>, Error> {
        let since = match &config.since {
            Some(text) => {
                Some(version(text).ok_or_else(|| Error::key("since", "write YEAR.MONTH, as in 2026.02"))?)
            }
            None => None,
        };
        let versions = (0u32..).zip(tags).filter_map(|(index, tag)| Some((version(tag)?, index)));
        let mut kept: Vec<_> =
            versions.filter(|(version, _)| since.is_none_or(|since| *version >= since)).collect();
        kept.sort_by_key(|(version, _)| Reverse(*version));
        Ok(kept.into_iter().map(|(_, index)| index).collect())
    }
}

filter::export!(Calver with_types_in filter);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn newest_first() {
        let tags = ["2026.01", "latest", "2026.04.2", "2026.13", "2025.12", "2026.04"].map(str::to_owned);
        assert_eq!(Calver::select("", &tags, &Config { since: None }).unwrap(), [2, 5, 0, 4]);
        assert_eq!(Calver::select("", &tags, &Config { since: Some("2026.02".into()) }).unwrap(), [2, 5]);
        assert!(Calver::select("", &tags, &Config { since: Some("spring".into()) }).is_err());
    }
}
