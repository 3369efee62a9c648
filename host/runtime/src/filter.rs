//! Adapts filters to the engine.

use crate::{adapt::calling, bindings::guest, load::Loaded, state::Scope};
use dray_engine::{
    Error, Kind, Result,
    contract::{Choice, Filter, Images, Selection},
};
use futures_core::future::BoxFuture;
use std::sync::Arc;

pub(crate) struct WasmFilter {
    plugin: Arc<Loaded>,
    indices: guest::tag_filter::GuestIndices,
}

impl WasmFilter {
    pub fn new(plugin: Arc<Loaded>) -> Result<Self> {
        let indices =
            guest::tag_filter::GuestIndices::new(&plugin.pre).map_err(|error| plugin.unfit(&error))?;
        Ok(WasmFilter { plugin, indices })
    }
}

impl Filter for WasmFilter {
    fn select<'a>(
        &'a self,
        given: Choice<'a>,
        config: &'a str,
        images: Arc<dyn Images>,
    ) -> BoxFuture<'a, Result<Selection>> {
        Box::pin(async move {
            let scope = Scope { images: Some(images), ..Scope::default() };
            let tags = given.tags.len();
            let given = guest::tag_filter::Choice {
                repository: given.repository.to_owned(),
                tags: given.tags.to_vec(),
                // Most rules have one filter, and to hand the same list over twice takes twice the time.
                all: (given.all != given.tags).then(|| given.all.to_vec()),
                extra: Vec::new(),
            };
            let chosen = calling!(self, &self.indices, scope, call_select, &given, config)?;
            selection(chosen, tags).map_err(|why| {
                Error::new(Kind::Plugin, format!("call the plugin {}: {why}", self.plugin.name))
            })
        })
    }
}

/// Longest reason that is kept, in characters.
const REASON: usize = 200;

/// Checks what a filter chose among so many tags.
fn selection(chosen: guest::tag_filter::Selection, tags: usize) -> Result<Selection, String> {
    let mut seen = vec![false; tags];
    let mut once = |index: u32, what: &str| match seen.get_mut(index as usize) {
        Some(seen) => match std::mem::replace(seen, true) {
            false => Ok(index as usize),
            true => Err(format!("it {what} tag {index} after it had decided on it")),
        },
        None => Err(format!("it {what} tag {index} of {tags}")),
    };
    let kept = chosen.kept.into_iter().map(|index| once(index, "kept")).collect::<Result<_, _>>()?;
    let (mut dropped, mut unknown) = (Vec::new(), Vec::new());
    for group in chosen.dropped {
        let reason: String = group.reason.chars().filter(|one| !one.is_control()).take(REASON).collect();
        for index in group.tags {
            let index = once(index, "dropped")?;
            dropped.push((index, reason.clone()));
            unknown.extend(group.unknown.then_some(index));
        }
    }
    Ok(Selection { kept, dropped, unknown })
}
