//! Plans which tags of a place are deleted because nothing keeps them.

use super::{
    bind::{BoundRetain, BoundTags},
    expand::sources,
    item::{Planned, PlannedDeletion},
    tags::{belongs, is_fallback},
    untagged,
};
use crate::{
    Error, Kind, Places, Result, contract::Choice, error::Context, inspect::RepositoryImages,
    place::OpenReference,
};
use dray_core::{Deletion, Gone, may_prune, policy::Backup};
use futures_util::{StreamExt, stream};
use std::{
    collections::{HashMap, HashSet},
    sync::Arc,
};
use tokio::sync::mpsc;

/// Number of tags that are resolved at once.
const AT_ONCE: usize = 16;
/// Number of repositories that are looked at at once.
const REPOSITORIES: usize = 8;

/// Plans what is deleted, and sends the items into a channel. What cannot be planned is sent as a failure.
pub async fn plan_retention(retains: Vec<BoundRetain>, places: Arc<Places>, out: mpsc::Sender<Planned>) {
    for retain in &retains {
        for source in &retain.at {
            let found = match sources(source, &retain.repositories).await {
                Ok(found) => found,
                Err(error) => {
                    if failed(&out, retain, &source.at, error).await.is_err() {
                        return;
                    }
                    continue;
                }
            };
            let planned = stream::iter(found).map(async |at: OpenReference| {
                let due = due(retain, &at, &places).await;
                (at, due)
            });
            let mut planned = std::pin::pin!(planned.buffered(REPOSITORIES));
            while let Some((at, due)) = planned.next().await {
                let sent = match due {
                    Ok(due) => send_all(&out, due).await,
                    Err(error) => failed(&out, retain, &at, error).await,
                };
                if sent.is_err() {
                    return;
                }
            }
        }
    }
}

/// Nobody wants the plan any more.
struct Unwanted;

async fn send_all(out: &mpsc::Sender<Planned>, due: Vec<PlannedDeletion>) -> Result<(), Unwanted> {
    for deletion in due {
        out.send(Planned::Delete(Box::new(deletion))).await.map_err(|_| Unwanted)?;
    }
    Ok(())
}

async fn failed(
    out: &mpsc::Sender<Planned>,
    retain: &BoundRetain,
    at: &OpenReference,
    error: Error,
) -> Result<(), Unwanted> {
    let (rule, source) = (retain.name.clone(), at.written.to_string());
    let failed = Planned::Failed { rule, destination: source.clone(), source, error, deletes: true };
    out.send(failed).await.map_err(|_| Unwanted)
}

/// The tags of one repository that nothing keeps. Fails if a guard forbids to delete them.
async fn due(retain: &BoundRetain, at: &OpenReference, places: &Arc<Places>) -> Result<Vec<PlannedDeletion>> {
    let doing = || format!("delete what nothing keeps of {}", at.written);
    let destination = places.destination(&at.written).await.context(doing)?;
    let listed = match destination.repository.listed(&at.written.to_string()).await {
        Err(error) if error.kind == Kind::NotFound => return Ok(Vec::new()),
        listed => listed.context(doing)?,
    };
    let mut pushed = HashMap::new();
    let mut tags = Vec::new();
    for listed in listed.tags {
        pushed.extend(listed.updated.map(|updated| (listed.name.clone(), updated)));
        tags.push(listed.name);
    }
    let mut due = match retain.untagged {
        Some(time) => untagged::due(retain, &destination, time, tags.len()).await.context(doing)?,
        None => Vec::new(),
    };
    if retain.keep.is_empty() {
        return Ok(due);
    }
    // What belongs to other images is not retained by itself: lists of referrers, and what is kept beneath digests.
    tags.retain(|tag| !is_fallback(tag) && !belongs(tag, &retain.related));
    tags.retain(|tag| !retain.backup.as_ref().is_some_and(|backup| backup.made(tag)));
    let images = Arc::new(RepositoryImages::new(destination.repository.clone(), pushed));
    let mut kept: HashSet<String> = HashSet::new();
    for keep in &retain.keep {
        kept.extend(chosen(keep, &retain.name, &destination, &tags, &images).await.context(doing)?);
    }
    let total = tags.len();
    tags.retain(|tag| !kept.contains(tag));
    let gone = Gone { due: tags.len(), total, listed: total, listed_before: None };
    may_prune(gone, retain.limit).map_err(|_| too_many(gone)).context(doing)?;
    let repository = &destination.repository;
    let resolved = stream::iter(tags).map(async |tag: String| {
        let there = repository.resolve(Some(&tag), None).await?;
        Ok(there.map(|there| (tag, there.descriptor.digest)))
    });
    let resolved: Vec<Result<Option<_>>> = resolved.buffered(AT_ONCE).collect().await;
    for resolved in resolved {
        let Some((tag, digest)) = resolved.context(doing)? else { continue };
        let endpoint = destination.endpoint(Some(&tag));
        due.push(PlannedDeletion {
            deletion: Deletion {
                rule: retain.name.clone(),
                source: endpoint.clone(),
                destination: endpoint,
                digest,
                backup: retain.backup.as_ref().map(Backup::to_string),
                unkept: true,
            },
            destination: destination.clone(),
            listed: None,
        });
    }
    Ok(due)
}

fn too_many(gone: Gone) -> Error {
    let Gone { due, total, .. } = gone;
    match due >= total {
        true => Error::new(Kind::Conflict, format!("nothing keeps any of its {total} tags"))
            .help("look at `keep`; --limit all deletes even so"),
        false => {
            let text = format!("nothing keeps {due} of its {total} tags, which are more than may go at once");
            Error::new(Kind::Conflict, text)
                .help(format!("look at them with --limit {due}, which lets them go"))
        }
    }
}

/// The tags that one entry of `keep` chooses, and those of which its filters know too little: to know nothing of an image is
/// no reason to delete it.
async fn chosen(
    keep: &BoundTags,
    retain: &str,
    at: &OpenReference,
    tags: &[String],
    images: &Arc<RepositoryImages>,
) -> Result<Vec<String>> {
    let mut left = match keep.filters.is_empty() {
        true => Vec::new(),
        false => tags.to_vec(),
    };
    let mut unknown = Vec::new();
    for filter in &keep.filters {
        let name = &at.repository.name;
        let given = Choice { repository: name, tags: &left, all: tags };
        let selection = filter.filter.select(given, &filter.config, images.clone()).await;
        let selection = selection.context(|| format!("filter the tags with {}", filter.label))?;
        unknown.extend(selection.unknown.into_iter().map(|at| left[at].clone()));
        left = selection.kept.into_iter().map(|at| std::mem::take(&mut left[at])).collect();
    }
    if !unknown.is_empty() {
        let count = unknown.len();
        tracing::warn!(
            "{}: too little is known of {count} of its tags, so nothing deletes them (retain `{retain}`)",
            at.written
        );
    }
    left.append(&mut unknown);
    left.extend(keep.literals.iter().cloned());
    Ok(left)
}
