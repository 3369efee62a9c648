//! The templates of destinations: what `{name}` and its like stand for.

use crate::{Error, Places, Result, place::OpenReference};
use dray_core::{FillError, Names, Reference};
use std::sync::Arc;

/// What `{name}` and its like stand for.
pub(crate) fn names(source: &OpenReference) -> Names<'_> {
    // Where a place holds images of many registries, their names begin with their registries'.
    let named = source.repository.name.split_once('/').filter(|(first, _)| {
        let registry = first.contains(['.', ':']) || *first == "localhost";
        registry && source.place().files.is_some()
    });
    let (registry, repository) = named.unwrap_or((&source.place().location, &source.repository.name));
    Names { registry, repository, tag: None }
}

/// The destination for some names.
pub(crate) async fn destination(
    names: &Names<'_>,
    to: &Reference,
    places: &Arc<Places>,
) -> Result<OpenReference> {
    let filled = names.fill(&to.rest).map_err(|error| {
        let refused = Error::invalid(format!("fill in {to}: {error}"));
        match error {
            FillError::Unsafe { .. } => refused.help(
                "the source gives that name; narrow the rule's `from` or `tags`, or write the destination out",
            ),
            FillError::Unknown(_) => refused,
        }
    })?;
    places.destination(&to.with(filled)).await
}
