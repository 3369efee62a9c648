//! Fills in the templates of destinations, such as `{name}`.

use crate::{Error, Places, Result, place::OpenReference};
use dray_core::{FillError, Names, Reference};
use std::sync::Arc;

/// The values of `{name}` and the other variables for a source.
pub(crate) fn names(source: &OpenReference) -> Names<'_> {
    // If a place holds images of several registries, their names begin with the registry.
    let named = source.repository.name.split_once('/').filter(|(first, _)| {
        let registry = first.contains(['.', ':']) || *first == "localhost";
        registry && source.place().files.is_some()
    });
    let (registry, repository) = named.unwrap_or((&source.place().location, &source.repository.name));
    Names { registry, repository, tag: None }
}

/// Fills in a destination template and opens its place.
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
            FillError::Short { .. } => refused.help(
                "take fewer components away, or narrow the rule by `from` or `repositories`",
            ),
            FillError::Unknown(_) => refused,
        }
    })?;
    places.destination(&to.with(filled)).await
}
