//! Keeps the tags of images that are young enough.

use dray_plugin_filter::{
    self as filter, Choice, Error, Selection, TagFilter,
    dray::plugin::{clock, images},
};
use serde::Deserialize;

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Config {
    within: String,
}

struct Filter;

impl TagFilter for Filter {
    type Config = Config;
    const NAME: &str = "age";
    const VERSION: &str = env!("CARGO_PKG_VERSION");
    const SUMMARY: &str = "Keeps the tags whose image is young enough";
    const CONFIG_SCHEMA: &str = include_str!("schema.json");

    fn select(Choice { tags, .. }: &Choice, config: &Config) -> Result<Selection, Error> {
        let within = humantime::parse_duration(&config.within)
            .map_err(|error| Error::key("within", format!("{error}; write \"90d\" or \"12h\"")))?;
        if tags.is_empty() {
            return Ok(Vec::new().into());
        }
        let facts = images::inspect(tags)?;
        let reason = format!("older than {}", config.within);
        let oldest = clock::now().saturating_sub(within.as_millis() as u64);
        let mut selection = Selection::from(Vec::new());
        for (index, (fact, tag)) in (0u32..).zip(facts.iter().zip(tags)) {
            match fact.created {
                Some(created) if created >= oldest => selection.kept.push(index),
                Some(_) => selection.drop(index, &reason),
                None => {
                    filter::warn(&format!("{tag} does not say when it was created, so age drops it"));
                    selection.drop_unknown(index, "it does not say when it was created");
                }
            }
        }
        Ok(selection)
    }
}

filter::export!(Filter with_types_in filter);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_malformed_duration_is_an_error_of_its_key() {
        let config = Config { within: "soon".into() };
        let Err(Error::Invalid(text)) = Filter::select(&Choice::of::<&str>("", &[]), &config) else {
            panic!("taken")
        };
        assert!(text.starts_with("within: "), "{text}");
    }
}
