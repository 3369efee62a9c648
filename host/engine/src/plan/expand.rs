//! Expands rules to pairs of repositories.

use super::{
    bind::{BoundRule, Source},
    template::{destination, names},
};
use crate::{Error, Kind, Places, Repository, Result, error::Context, place::OpenReference};
use dray_core::{matches, policy::Repositories};
use std::sync::Arc;

/// A source repository and the destination of its tags.
pub(crate) struct Pair {
    pub rule: usize,
    pub source: OpenReference,
    pub to: Target,
    /// Whether the catalog of the source no longer lists the repository, so that nothing is copied.
    pub gone: bool,
}

/// The destination of a repository's tags.
pub(crate) enum Target {
    /// All tags go to one repository.
    Repository(OpenReference),
    /// The destination depends on the tag (`{tag}`).
    ByTag,
}

impl Source {
    /// A repository that the glob of the source matches.
    pub(super) fn matched(&self, repository: String) -> OpenReference {
        let (place, glob) = (self.at.place(), &self.at.repository.name);
        let mut at = self.at.clone();
        let written = &mut at.written.rest;
        if written.contains(glob) {
            *written = written.replace(glob, &repository);
        } else if written == "*" {
            written.clone_from(&repository);
        } else if !repository.is_empty() && place.location.rsplit('/').next() != Some(&repository) {
            // The reference names the place as a whole.
            *written = match written.ends_with(']') {
                true => format!("{written}{repository}"),
                false => format!("{written}:{repository}"),
            };
        }
        at.repository = Repository::new(place.clone(), repository);
        at
    }
}

/// The repositories of a rule's source: the named one, or all that match its glob.
pub(crate) async fn sources(source: &Source, wanted: &Repositories) -> Result<Vec<OpenReference>> {
    let mut found = Vec::new();
    if source.pattern {
        let place = source.at.place();
        let glob = &source.at.repository.name;
        let listed = place.repositories().await;
        let listed = listed.context(|| format!("list the repositories of {}", place.location))?;
        let matching = |repository: &String| matches(glob, repository) && wanted.wants(repository);
        for repository in listed.into_iter().filter(matching) {
            if let Err(error) = place.check_blocked(&repository) {
                tracing::warn!("{repository} is left out: failed to {error}");
                continue;
            }
            found.push(source.matched(repository));
        }
        if found.is_empty() {
            let text = format!("find repositories: none of {} matches `{glob}`", place.location);
            let error = Error::new(Kind::NotFound, text);
            return Err(match *wanted == Repositories::default() {
                true => error,
                false => error.help("`repositories` of the rule leaves some out, perhaps all"),
            });
        }
    } else {
        found.push(source.at.clone());
    }
    Ok(found)
}

/// The pairs of a rule's source: one, or one for each repository that matches its glob.
pub(crate) async fn pairs(
    index: usize,
    rule: &BoundRule,
    source: &Source,
    places: &Arc<Places>,
) -> Result<Vec<Result<Pair, (OpenReference, Error)>>> {
    let found = sources(source, &rule.repositories).await?;
    let mut pairs = Vec::new();
    for source in found {
        let to = match rule.to.rest.contains("{tag}") {
            true => Ok(Target::ByTag),
            false => destination(&names(&source), &rule.to, places).await.map(Target::Repository),
        };
        // A repository whose name does not fit fails alone: others of the glob are not its maker's to stop.
        pairs.push(match to {
            Ok(to) => Ok(Pair { rule: index, source, to, gone: false }),
            Err(error) => Err((source, error)),
        });
    }
    Ok(pairs)
}
