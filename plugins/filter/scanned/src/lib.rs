//! Keeps the tags of images in which the registry's scanner found nothing worse than allowed.

use dray_plugin_filter::{Choice, Error, Selection, TagFilter, dray::plugin::knowledge};
use serde::Deserialize;

#[derive(Clone, Copy, Debug, Default, Deserialize, PartialEq, Eq, PartialOrd, Ord)]
#[serde(rename_all = "lowercase")]
enum Severity {
    None,
    Unknown,
    Negligible,
    Low,
    Medium,
    #[default]
    High,
    Critical,
}

#[derive(Clone, Copy, Debug, Deserialize, PartialEq, Eq)]
#[serde(rename_all = "lowercase")]
enum Unscanned {
    Drop,
    Keep,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Config {
    /// Images with a vulnerability of this severity, or a worse one, are dropped.
    #[serde(default)]
    severity: Severity,
    /// `None` drops them too, but nothing is deleted because nobody has scanned it.
    unscanned: Option<Unscanned>,
}

struct Filter;

/// The severity that a registry tells. What is not understood is not known.
fn severity(text: &str) -> Severity {
    match text {
        "none" => Severity::None,
        "negligible" => Severity::Negligible,
        "low" => Severity::Low,
        "medium" => Severity::Medium,
        "high" => Severity::High,
        "critical" => Severity::Critical,
        _ => Severity::Unknown,
    }
}

impl TagFilter for Filter {
    type Config = Config;
    const NAME: &str = "scanned";
    const VERSION: &str = env!("CARGO_PKG_VERSION");
    const SUMMARY: &str = "Keeps the tags in whose image the registry's scanner found nothing bad";
    const CONFIG_SCHEMA: &str = include_str!("schema.json");

    fn select(Choice { tags, .. }: &Choice, config: &Config) -> Result<Selection, Error> {
        if config.severity == Severity::None {
            return Err(Error::key("severity", "every image would be dropped; write \"low\" or a worse one"));
        }
        if tags.is_empty() {
            return Ok(Vec::new().into());
        }
        let mut selection = Selection::from(Vec::new());
        for (index, known) in (0u32..).zip(knowledge::look_up(tags)?) {
            match known.severity.as_deref() {
                None => match config.unscanned {
                    Some(Unscanned::Keep) => selection.kept.push(index),
                    Some(Unscanned::Drop) => selection.drop(index, "it was not scanned"),
                    None => selection.drop_unknown(index, "it was not scanned"),
                },
                Some(found) if severity(found) >= config.severity => {
                    selection
                        .drop(index, &format!("a scanner found a vulnerability of the severity {found}"));
                }
                Some(_) => selection.kept.push(index),
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
    fn severities_are_in_order() {
        let all = ["none", "odd", "negligible", "low", "medium", "high", "critical"].map(severity);
        assert!(all.windows(2).all(|two| two[0] < two[1]), "{all:?}");
        let config = Config { severity: Severity::None, unscanned: None };
        assert!(
            matches!(Filter::select(&Choice::of::<&str>("", &[]), &config), Err(Error::Invalid(text)) if text.starts_with("severity: "))
        );
    }
}
