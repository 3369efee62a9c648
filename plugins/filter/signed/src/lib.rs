//! Keeps the tags of images that have a signature, which nobody has checked: `require` checks signatures.

use dray_plugin_filter::{Choice, Error, Selection, TagFilter, dray::plugin::knowledge};
use serde::Deserialize;

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Config {
    /// Keep the others instead.
    #[serde(default)]
    exclude: bool,
}

struct Filter;

impl TagFilter for Filter {
    type Config = Config;
    const NAME: &str = "signed";
    const VERSION: &str = env!("CARGO_PKG_VERSION");
    const SUMMARY: &str = "Keeps the tags whose image has a signature, without checking it";
    const CONFIG_SCHEMA: &str = include_str!("schema.json");

    fn select(Choice { tags, .. }: &Choice, config: &Config) -> Result<Selection, Error> {
        if tags.is_empty() {
            return Ok(Vec::new().into());
        }
        let mut selection = Selection::from(Vec::new());
        for (index, known) in (0u32..).zip(knowledge::look_up(tags)?) {
            match known.signed {
                Some(signed) if signed != config.exclude => selection.kept.push(index),
                Some(true) => selection.drop(index, "it has a signature"),
                Some(false) => selection.drop(index, "it has no signature"),
                None => selection.drop_unknown(index, "whether it has a signature is not known"),
            }
        }
        Ok(selection)
    }
}

dray_plugin_filter::export!(Filter with_types_in dray_plugin_filter);
