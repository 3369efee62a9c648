//! Adapts mappers to the engine.

use crate::{adapt::calling, bindings::guest, load::Loaded, state::Scope};
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
        let indices =
            guest::tag_mapping::GuestIndices::new(&plugin.pre).map_err(|error| plugin.unfit(&error))?;
        Ok(WasmMapper { plugin, indices, config: config.to_string() })
    }
}

impl Mapper for WasmMapper {
    fn name(&self) -> &str {
        &self.plugin.name
    }

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
            let names: Vec<Option<String>> =
                calling!(self, &self.indices, Scope::default(), call_rename, &given, &self.config)?;
            match names.len() == tags.len() {
                true => Ok(names),
                false => {
                    let (plugin, names, tags) = (&self.plugin.name, names.len(), tags.len());
                    let text = format!("call the plugin {plugin}: it gave {names} names to {tags} tags");
                    Err(Error::new(Kind::Plugin, text))
                }
            }
        })
    }
}
