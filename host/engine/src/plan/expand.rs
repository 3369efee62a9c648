//! Rules to pairs of repositories.

use crate::{
    BoundRule, Error, Places, Result,
    error::Context,
    place::OpenReference,
    place::graph::names as listed_names,
    plan::bind::{Source, destination},
};
use dray_core::{Names, matches};
use std::sync::Arc;

/// A repository and where its tags go.
pub(crate) struct Pair {
    pub rule: usize,
    pub source: OpenReference,
    pub to: Target,
}

/// Where tags go.
pub(crate) enum Target {
    /// All into one repository.
    Repository(OpenReference),
    /// `{tag}` decides.
    ByTag,
}

/// The pairs of a rule's source: one, or one for each repository that its glob matches.
pub(crate) async fn pairs(
    index: usize,
    rule: &BoundRule,
    source: &Source,
    places: &Arc<Places>,
) -> Result<Vec<Pair>> {
    let mut spots = Vec::new();
    if source.pattern {
        let place = &source.spot.place;
        let listed = listed_names(&place.location, place.files.is_some(), |next| {
            place.transport.repositories(place, next)
        })
        .await;
        let listed = listed.context(|| format!("list the repositories of {}", place.location))?;
        for repository in listed.into_iter().filter(|repository| matches(&source.spot.repository, repository))
        {
            let mut spot = source.spot.clone();
            let written = &mut spot.written.rest;
            if written.contains(&source.spot.repository) {
                *written = written.replace(&source.spot.repository, &repository);
            } else if written == "*" {
                written.clone_from(&repository);
            } else if !repository.is_empty() && place.location.rsplit('/').next() != Some(&repository) {
                // The reference names the place as a whole.
                *written = format!("{written}:{repository}");
            }
            spot.repository = repository;
            spots.push(spot);
        }
        if spots.is_empty() {
            return Err(Error::new(
                crate::Kind::NotFound,
                format!("find repositories: none of {} matches `{}`", place.location, source.spot.repository),
            ));
        }
    } else {
        spots.push(source.spot.clone());
    }
    let mut pairs = Vec::new();
    for source in spots {
        let to = match rule.to.rest.contains("{tag}") {
            true => Target::ByTag,
            false => Target::Repository(destination(&names(&source), &rule.to, places).await?),
        };
        pairs.push(Pair { rule: index, source, to });
    }
    Ok(pairs)
}

/// What `{name}` and its like stand for.
pub(crate) fn names(source: &OpenReference) -> Names<'_> {
    // Where a place holds images of many registries, their names begin with their registries'.
    let named = source.repository.split_once('/').filter(|(first, _)| {
        let registry = first.contains(['.', ':']) || *first == "localhost";
        registry && source.place.files.is_some()
    });
    let (registry, repository) = named.unwrap_or((&source.place.location, &source.repository));
    Names { registry, repository, tag: None }
}
