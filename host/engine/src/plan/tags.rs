//! Determines which tags of a repository a rule wants, and which tags a destination has.

use super::bind::{BoundFilter, BoundRule};
use crate::{Kind, Result, contract::Page, error::Context, inspect::RepositoryImages, place::OpenReference};
use std::{
    collections::{HashMap, HashSet},
    sync::Arc,
};

/// Whether a tag is a list of referrers (distribution specification, "Referrers Tag Schema").
fn is_fallback(tag: &str) -> bool {
    let hash = tag.strip_prefix("sha256-").or(tag.strip_prefix("sha512-"));
    hash.is_some_and(|hash| hash.len() == 64 && hash.bytes().all(|byte| byte.is_ascii_hexdigit()))
}

/// Whether a tag is a signature, attestation or SBOM of cosign (cosign, `SIGNATURE_SPEC.md`).
fn is_cosigns(tag: &str) -> bool {
    [".sig", ".att", ".sbom"].iter().any(|kind| tag.strip_suffix(kind).is_some_and(is_fallback))
}

/// The tags of a repository, divided by a rule.
#[derive(Default)]
pub(crate) struct Tags {
    /// The tags to copy, in this order. `None` stands for the only image of a place.
    pub kept: Vec<Option<String>>,
    pub dropped: Vec<Dropped>,
    /// Number of dropped tags that hold signatures of cosign.
    pub signatures: usize,
}

/// A tag that a filter dropped.
pub(crate) struct Dropped {
    pub tag: String,
    /// The filter with its configuration.
    pub by: String,
    /// The filter's reason, if it gave one.
    pub why: Option<String>,
}

/// The tags of a repository that a rule wants. Fails if they cannot be listed, or if a filter fails.
pub(crate) async fn tags(rule: &BoundRule, source: &OpenReference) -> Result<Tags> {
    let only = |kept| Ok(Tags { kept, ..Tags::default() });
    if let Some(reference) = &source.reference {
        return only(vec![Some(reference.clone())]);
    }
    let (literals, filters) = match &rule.tags {
        Some(tags) if tags.filters.is_empty() => {
            return only(tags.literals.iter().cloned().map(Some).collect());
        }
        Some(tags) => (tags.literals.as_slice(), tags.filters.as_slice()),
        None => (&[][..], &[][..]),
    };
    let listed = source.repository.tags(&source.written.to_string()).await;
    let mut tags = match listed.context(|| format!("list the tags of {}", source.written)) {
        Ok(tags) => tags,
        // A place that does not support tags holds one image.
        Err(error) if error.kind == Kind::Unsupported => return only(vec![None]),
        // A catalog may contain repositories that are not accessible or have no tags any more.
        Err(error)
            if matches!(error.kind, Kind::NotFound | Kind::Denied | Kind::Unauthorized)
                && rule.from.iter().any(|from| from.pattern) =>
        {
            tracing::warn!("{} is left out: failed to {error}", source.written);
            return Ok(Tags::default());
        }
        Err(error) => return Err(error),
    };
    // Lists of referrers are not images. With `referrers` they are merged; otherwise they are ignored.
    tags.retain(|tag| !is_fallback(tag));
    let signatures = |tags: &[String]| tags.iter().filter(|tag| is_cosigns(tag)).count();
    let (before, mut dropped) = (signatures(&tags), Vec::new());
    let images = Arc::new(RepositoryImages(source.repository.clone()));
    for BoundFilter { filter, config, label } in filters {
        let selection = filter.select(&source.repository.name, &tags, config, images.clone()).await;
        let selection =
            selection.context(|| format!("filter the tags of {} with {label}", source.written))?;
        let chosen: HashSet<usize> = selection.kept.iter().copied().collect();
        let mut reasons: HashMap<usize, String> = selection.dropped.into_iter().collect();
        let left =
            tags.iter().enumerate().filter(|(at, tag)| !chosen.contains(at) && !literals.contains(tag));
        dropped.extend(left.map(|(at, tag)| Dropped {
            tag: tag.clone(),
            by: label.clone(),
            why: reasons.remove(&at).filter(|reason| !reason.is_empty()),
        }));
        tags = selection.kept.into_iter().map(|at| std::mem::take(&mut tags[at])).collect();
    }
    let left = before - signatures(&tags).min(before);
    let more = literals.iter().filter(|literal| !tags.contains(literal)).cloned().collect::<Vec<_>>();
    tags.extend(more);
    Ok(Tags { kept: tags.into_iter().map(Some).collect(), dropped, signatures: left })
}

/// The knowledge about a destination's tags.
pub(crate) enum KnownTags {
    Unknown,
    /// The repository does not exist.
    Nothing,
    Tags(HashSet<String>),
}

impl KnownTags {
    /// Asks the destination for its tags. They are known only if one request returns all of them.
    pub async fn of(destination: &OpenReference) -> KnownTags {
        match destination.repository.first_tags().await {
            Ok(Page { items, next: None }) => KnownTags::Tags(items.into_iter().collect()),
            Ok(Page { next: Some(_), .. }) => KnownTags::Unknown,
            Err(error) if error.kind == Kind::NotFound => KnownTags::Nothing,
            // Listing may be forbidden even if reading is allowed.
            Err(_) => KnownTags::Unknown,
        }
    }
}
