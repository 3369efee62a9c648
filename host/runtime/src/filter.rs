//! Adapts filters to the engine.

use crate::{adapt::calling, bindings::guest, load::Loaded, state::Scope};
use dray_engine::{
    Error, Kind, Result,
    contract::{Filter, Images},
};
use futures_core::future::BoxFuture;
use std::sync::Arc;

pub(crate) struct WasmFilter {
    plugin: Arc<Loaded>,
    indices: guest::tag_filter::GuestIndices,
}

impl WasmFilter {
    pub fn new(plugin: Arc<Loaded>) -> Result<Self> {
        let indices = guest::tag_filter::GuestIndices::new(&plugin.pre);
        let indices = indices.map_err(|error| {
            Error::new(Kind::Plugin, format!("load the plugin {}: {error:#}", plugin.name))
        })?;
        Ok(WasmFilter { plugin, indices })
    }
}

impl Filter for WasmFilter {
    fn select<'a>(
        &'a self,
        repository: &'a str,
        tags: &'a [String],
        config: &'a str,
        images: Arc<dyn Images>,
    ) -> BoxFuture<'a, Result<Vec<usize>>> {
        Box::pin(async move {
            let scope = Scope { images: Some(images), ..Scope::default() };
            let kept = calling!(self, &self.indices, scope, call_select, repository, tags, config)?;
            let wrong = |why: String| {
                Error::new(Kind::Plugin, format!("call the plugin {}: {why}", self.plugin.name))
            };
            let mut seen = vec![false; tags.len()];
            for index in &kept {
                match seen.get_mut(*index as usize) {
                    Some(seen) if !*seen => *seen = true,
                    Some(_) => return Err(wrong(format!("it kept tag {index} twice"))),
                    None => return Err(wrong(format!("it kept tag {index} of {}", tags.len()))),
                }
            }
            Ok(kept.into_iter().map(|index| index as usize).collect())
        })
    }
}
