//! Keeps the tags that were pushed lately, or that were not. Only some registries tell when: those whose dialect lists it.

use dray_plugin_filter::{
    self as filter, Choice, Error, Selection, TagFilter,
    dray::plugin::{clock, knowledge},
};
use serde::Deserialize;

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Config {
    within: Option<String>,
    before: Option<String>,
}

struct Filter;

/// A duration of a key in milliseconds.
fn duration(key: &str, text: Option<&str>) -> Result<Option<u64>, Error> {
    let Some(text) = text else { return Ok(None) };
    let duration = humantime::parse_duration(text);
    let duration = duration.map_err(|error| Error::key(key, format!("{error}; write \"90d\" or \"12h\"")))?;
    Ok(Some(duration.as_millis() as u64))
}

impl TagFilter for Filter {
    type Config = Config;
    const NAME: &str = "pushed";
    const VERSION: &str = env!("CARGO_PKG_VERSION");
    const SUMMARY: &str = "Keeps the tags that were pushed within a time, or before it";
    const CONFIG_SCHEMA: &str = include_str!("schema.json");

    fn select(Choice { tags, .. }: &Choice, config: &Config) -> Result<Selection, Error> {
        let within = duration("within", config.within.as_deref())?;
        let before = duration("before", config.before.as_deref())?;
        if within.is_none() && before.is_none() {
            return Err(Error::Invalid("`pushed` needs `within` or `before`".into()));
        }
        if tags.is_empty() {
            return Ok(Vec::new().into());
        }
        let now = clock::now();
        let mut selection = Selection::from(Vec::new());
        let mut unknown = 0;
        for (index, known) in (0u32..).zip(knowledge::look_up(tags)?) {
            let Some(pushed) = known.pushed else {
                unknown += 1;
                selection.drop_unknown(index, "the registry does not say when it was pushed");
                continue;
            };
            let age = now.saturating_sub(pushed);
            if within.is_some_and(|within| age > within) {
                selection.drop(
                    index,
                    &format!("not pushed within {}", config.within.as_deref().unwrap_or_default()),
                );
            } else if before.is_some_and(|before| age < before) {
                selection.drop(
                    index,
                    &format!("pushed less than {} ago", config.before.as_deref().unwrap_or_default()),
                );
            } else {
                selection.kept.push(index);
            }
        }
        if unknown > 0 {
            filter::warn(&format!(
                "the registry does not say when {unknown} of {} tags were pushed",
                tags.len()
            ));
        }
        Ok(selection)
    }
}

filter::export!(Filter with_types_in filter);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_malformed_or_missing_time_is_an_error() {
        let config = |within: Option<&str>| Config { within: within.map(str::to_owned), before: None };
        let Err(Error::Invalid(text)) = Filter::select(&Choice::of::<&str>("", &[]), &config(Some("soon")))
        else {
            panic!("taken")
        };
        assert!(text.starts_with("within: "), "{text}");
        assert!(Filter::select(&Choice::of::<&str>("", &[]), &config(None)).is_err());
        assert!(Filter::select(&Choice::of::<&str>("", &[]), &config(Some("90d"))).is_ok());
    }
}
