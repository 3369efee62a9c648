//! Keeps the tags whose image is young enough.

use dray_plugin_filter::{
    self as filter, Error, Info, Meta,
    dray::plugin::{clock, images},
    exports::dray::plugin::tag_filter::Guest,
};
use serde::Deserialize;

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Config {
    within: String,
}

fn select(tags: &[String], config: &Config) -> Result<Vec<u32>, Error> {
    let within = humantime::parse_duration(&config.within)
        .map_err(|error| Error::key("within", format!("{error}; write \"90d\" or \"12h\"")))?;
    if tags.is_empty() {
        return Ok(Vec::new());
    }
    let facts = images::inspect(tags)?;
    let oldest = clock::now().saturating_sub(within.as_millis() as u64);
    let mut kept = Vec::new();
    for (index, (fact, tag)) in (0u32..).zip(facts.iter().zip(tags)) {
        match fact.created {
            Some(created) if created >= oldest => kept.push(index),
            Some(_) => {}
            None => filter::warn(&format!("{tag} does not say when it was created, so age drops it")),
        }
    }
    Ok(kept)
}

struct Filter;

impl Meta for Filter {
    fn describe() -> Info {
        Info {
            name: "age".into(),
            version: env!("CARGO_PKG_VERSION").into(),
            summary: "Keeps the tags whose image is young enough".into(),
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

    #[test]
    fn a_malformed_duration_is_an_error_of_its_key() {
        let config = Config { within: "soon".into() };
        let Err(Error::Invalid(text)) = select(&[], &config) else { panic!("taken") };
        assert!(text.starts_with("within: "), "{text}");
    }
}
