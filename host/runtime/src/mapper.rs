//! Adapts mappers to the engine.

use crate::{adapt::calling, bindings::guest, load::Loaded, state::Scope};
use dray_core::is_tag;
use dray_engine::{Error, Kind, Result, contract::Mapper};
use futures_core::future::BoxFuture;
use std::sync::Arc;

/// A mapper, bound to its configuration.
pub(crate) struct WasmMapper {
    plugin: Arc<Loaded>,
    indices: guest::tag_mapping::GuestIndices,
    config: String,
}

impl WasmMapper {
    pub fn new(plugin: Arc<Loaded>, config: &serde_json::Value) -> Result<Self> {
        let indices = guest::tag_mapping::GuestIndices::new(&plugin.pre);
        let indices = indices.map_err(|error| {
            Error::new(Kind::Plugin, format!("load the plugin {}: {error:#}", plugin.name))
        })?;
        Ok(WasmMapper { plugin, indices, config: config.to_string() })
    }
}

impl Mapper for WasmMapper {
    fn rename<'a>(
        &'a self,
        repository: &'a str,
        tags: &'a [String],
    ) -> BoxFuture<'a, Result<Vec<Option<String>>>> {
        Box::pin(async move {
            let given = guest::tag_mapping::Mapping {
                repository: repository.to_owned(),
                tags: tags.to_vec(),
                extra: Vec::new(),
            };
            let names = calling!(self, &self.indices, Scope::default(), call_rename, &given, &self.config)?;
            checked(names, tags).map_err(|why| {
                Error::new(Kind::Plugin, format!("call the plugin {}: {why}", self.plugin.name))
            })
        })
    }
}

/// Checks the names that a mapper gave to these tags.
fn checked(names: Vec<Option<String>>, tags: &[String]) -> Result<Vec<Option<String>>, String> {
    if names.len() != tags.len() {
        return Err(format!("it gave {} names to {} tags", names.len(), tags.len()));
    }
    let wrong = names.iter().zip(tags).find(|(name, _)| name.as_deref().is_some_and(|name| !is_tag(name)));
    match wrong {
        Some((name, tag)) => {
            let name = dray_core::harmless(name.as_deref().unwrap_or_default(), 150);
            Err(format!("it renamed {tag} to `{name}`, which is no tag"))
        }
        None => Ok(names),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_is_a_tag_and_each_tag_has_one() {
        let tags = ["v1".to_owned(), "v2".to_owned()];
        let names = |names: &[Option<&str>]| names.iter().map(|name| name.map(str::to_owned)).collect();
        assert!(checked(names(&[Some("1"), None]), &tags).is_ok());
        assert!(checked(names(&[Some("1")]), &tags).unwrap_err().contains("1 names to 2 tags"));
        for bad in ["", "a/b", "..", "-x", "a:b", "a b", "ä"] {
            assert!(checked(names(&[Some(bad), None]), &tags).unwrap_err().contains("no tag"), "{bad}");
        }
    }
}
