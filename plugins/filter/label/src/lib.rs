//! Keeps the tags of images that have all of some labels: those that people gave them at the registry (Harbor), or
//! those of the image's configuration.

use dray_plugin_filter::{
    Choice, Error, OneOrMany, Selection, TagFilter,
    dray::plugin::{
        images::{self, Facts},
        knowledge::{self, Known},
    },
};
use serde::Deserialize;

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Config {
    /// `name` is a label of the registry, or a key of the configuration; `key=value` is one of the configuration.
    label: OneOrMany<String>,
    /// Keep the others instead.
    #[serde(default)]
    exclude: bool,
}

struct Filter;

/// Whether a label of the registry is meant, if the registry has labels.
fn at_registry<'a>(label: &str, known: &'a Known) -> Option<&'a [String]> {
    known.labels.as_deref().filter(|_| !label.contains('='))
}

/// Whether the configuration of an image has a label.
fn in_config(label: &str, facts: &Facts) -> bool {
    match label.split_once('=') {
        Some((key, value)) => facts.labels.iter().any(|(k, v)| k == key && v == value),
        None => facts.labels.iter().any(|(key, _)| key == label),
    }
}

impl TagFilter for Filter {
    type Config = Config;
    const NAME: &str = "label";
    const VERSION: &str = env!("CARGO_PKG_VERSION");
    const SUMMARY: &str = "Keeps the tags whose image has labels, at the registry or in its configuration";
    const CONFIG_SCHEMA: &str = include_str!("schema.json");

    fn select(Choice { tags, .. }: &Choice, config: &Config) -> Result<Selection, Error> {
        let labels: Vec<&str> = config.label.as_slice().iter().map(String::as_str).collect();
        if labels.is_empty() || labels.iter().any(|label| label.is_empty() || label.starts_with('=')) {
            return Err(Error::key("label", "name a label, or write key=value"));
        }
        if tags.is_empty() {
            return Ok(Vec::new().into());
        }
        let known = knowledge::look_up(tags)?;
        // Configurations are read only where the registry's labels do not decide.
        let open = |known: &Known| {
            let refused = |label: &&str| {
                at_registry(label, known).is_some_and(|labels| !labels.iter().any(|one| one == label))
            };
            !labels.iter().any(refused) && labels.iter().any(|label| at_registry(label, known).is_none())
        };
        let unread: Vec<String> =
            tags.iter().zip(&known).filter(|(_, known)| open(known)).map(|(tag, _)| tag.clone()).collect();
        let mut facts = if unread.is_empty() { Vec::new() } else { images::inspect(&unread)? }.into_iter();
        let mut selection = Selection::from(Vec::new());
        for (index, known) in (0u32..).zip(&known) {
            let facts = if open(known) { facts.next() } else { None };
            let missing = labels.iter().find(|label| match at_registry(label, known) {
                Some(labels) => !labels.iter().any(|one| one == *label),
                None => !facts.as_ref().is_some_and(|facts| in_config(label, facts)),
            });
            match (missing, config.exclude) {
                (None, false) | (Some(_), true) => selection.kept.push(index),
                (Some(label), false) => selection.drop(index, &format!("without the label {label}")),
                (None, true) => selection.drop(index, &format!("with the label {}", labels.join(", "))),
            }
        }
        Ok(selection)
    }
}

dray_plugin_filter::export!(Filter with_types_in dray_plugin_filter);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_label_is_a_key_or_a_key_with_its_value() {
        let facts = Facts {
            media_type: String::new(),
            artifact_type: None,
            size: None,
            annotations: Vec::new(),
            extra: Vec::new(),
            digest: String::new(),
            created: None,
            labels: vec![("team".into(), "blue=1".into())],
            platforms: Vec::new(),
        };
        for (label, there) in [("team", true), ("team=blue=1", true), ("team=blue", false), ("blue", false)] {
            assert_eq!(in_config(label, &facts), there, "{label}");
        }
    }

    #[test]
    fn an_empty_label_is_an_error_of_its_key() {
        for label in ["", "=x"] {
            let config = serde_json_of(label);
            let Err(Error::Invalid(text)) = Filter::select(&Choice::of::<&str>("", &[]), &config) else {
                panic!("taken")
            };
            assert!(text.starts_with("label: "), "{text}");
        }
    }

    fn serde_json_of(label: &str) -> Config {
        dray_plugin_filter::config(&format!(r#"{{"label":"{label}"}}"#)).unwrap()
    }
}
