//! Keeps the newest tags, newest first.

use dray_plugin::version;
use dray_plugin_filter::{
    self as filter, Choice, Error, Selection, TagFilter,
    dray::plugin::{images, knowledge},
};
use serde::Deserialize;
use std::cmp::Reverse;

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Config {
    count: u32,
    #[serde(default)]
    by: By,
}

#[derive(Default, Deserialize)]
#[serde(rename_all = "lowercase")]
enum By {
    #[default]
    Semver,
    Created,
    Pushed,
    Name,
}

struct Filter;

impl TagFilter for Filter {
    type Config = Config;
    const NAME: &str = "latest";
    const VERSION: &str = env!("CARGO_PKG_VERSION");
    const SUMMARY: &str = "Keeps the newest tags";
    const CONFIG_SCHEMA: &str = include_str!("schema.json");

    fn select(Choice { tags, .. }: &Choice, config: &Config) -> Result<Selection, Error> {
        if config.count == 0 {
            return Err(Error::key("count", "at least 1"));
        }
        let indices = 0u32..tags.len() as u32;
        let kept = match config.by {
            By::Semver => {
                let versions = indices.zip(tags);
                newest(versions.filter_map(|(index, tag)| Some((version(tag)?, index))))
            }
            By::Name => newest(tags.iter().zip(indices)),
            By::Created | By::Pushed if tags.is_empty() => Vec::new(),
            By::Created => {
                let facts = images::inspect(tags)?;
                let dated = facts.iter().zip(indices);
                newest(dated.filter_map(|(fact, index)| Some((fact.created?, index))))
            }
            By::Pushed => {
                let known = knowledge::look_up(tags)?;
                let dated = known.iter().zip(indices);
                newest(dated.filter_map(|(known, index)| Some((known.pushed?, index))))
            }
        };
        Ok(chosen(kept, config, tags.len()))
    }
}

filter::export!(Filter with_types_in filter);

/// Keeps the first ones of what was put in order, and says of the others why they are dropped.
fn chosen(mut ordered: Vec<u32>, config: &Config, tags: usize) -> Selection {
    let mut seen = vec![false; tags];
    ordered.iter().for_each(|index| seen[*index as usize] = true);
    let older = ordered.split_off(ordered.len().min(config.count as usize));
    let mut selection = Selection::from(ordered);
    let reason = format!("older than the newest {}", config.count);
    older.into_iter().for_each(|index| selection.drop(index, &reason));
    let others = (0u32..).zip(seen).filter(|(_, seen)| !seen).map(|(index, _)| index);
    for other in others {
        match config.by {
            By::Semver => selection.drop(other, "not a version"),
            By::Created => selection.drop_unknown(other, "it does not say when it was created"),
            By::Pushed => selection.drop_unknown(other, "the registry does not say when it was pushed"),
            By::Name => {}
        }
    }
    selection
}

fn newest<K: Ord>(keyed: impl Iterator<Item = (K, u32)>) -> Vec<u32> {
    let mut keyed: Vec<_> = keyed.collect();
    keyed.sort_by(|a, b| Reverse(&a.0).cmp(&Reverse(&b.0)));
    keyed.into_iter().map(|(_, index)| index).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn kept<'a>(tags: &[&'a str], config: &str) -> Vec<&'a str> {
        let names: Vec<String> = tags.iter().map(|tag| tag.to_string()).collect();
        let kept = Filter::select(&Choice::of("", &names), &filter::config(config).unwrap()).unwrap().kept;
        kept.into_iter().map(|index| tags[index as usize]).collect()
    }

    #[test]
    fn by_version_newest_first() {
        let tags = ["1.9", "v1.10.0", "latest", "1.10.0-rc.1", "0.1"];
        assert_eq!(kept(&tags, r#"{"count":3}"#), ["v1.10.0", "1.10.0-rc.1", "1.9"]);
    }

    #[test]
    fn by_name() {
        assert_eq!(kept(&["a", "c", "b"], r#"{"count":2,"by":"name"}"#), ["c", "b"]);
    }
}
