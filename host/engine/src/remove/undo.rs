//! Puts tags back that a run made name something else, or deleted.

use super::placeholder;
use crate::{
    Error, Kind, Places, Result, TagChanged,
    error::Context,
    place::{OpenReference, Resolved},
};
use dray_core::{Digest, Naming, Reference};
use std::sync::Arc;

/// What came of putting a tag back.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum PutBack {
    /// The tag names again what it named before.
    Done,
    /// The tag already named it.
    Needless,
}

/// Makes a tag name again what it named before a change, and records that as a change of `run`. With `dry_run`, it is only
/// found out whether that is possible.
///
/// # Errors
/// Fails without writing anything if the tag has changed again since, or if its image is not there any more.
pub async fn put_back(
    places: &Arc<Places>,
    changed: &TagChanged,
    run: Option<i64>,
    dry_run: bool,
) -> Result<PutBack> {
    let doing = || format!("put {} back", changed.reference);
    let reference: Reference =
        changed.reference.parse().map_err(|error| Error::invalid(format!("{error}"))).context(doing)?;
    let opened = match dry_run {
        true => places.source(&reference, false).await,
        false => places.destination(&reference).await,
    };
    put_back_at(&opened.context(doing)?, changed, run, dry_run).await.context(doing)
}

async fn put_back_at(
    opened: &OpenReference,
    changed: &TagChanged,
    run: Option<i64>,
    dry_run: bool,
) -> Result<PutBack> {
    let (repository, before) = (&opened.repository, &changed.before);
    let Some(tag) = opened.reference.as_deref().filter(|tag| tag.parse::<Digest>().is_err()) else {
        return Err(Error::invalid("it names no tag"));
    };
    let now = repository.resolve(Some(tag), None).await?;
    let now = now.map(|Resolved { descriptor, .. }| descriptor.digest);
    if now.as_ref() == Some(before) {
        return Ok(PutBack::Needless);
    }
    // A run that was killed may have left the placeholder of a deletion.
    let is_placeholder = match &now {
        Some(now) if changed.after.is_none() => {
            placeholder::is_one(&repository.manifest(Some(&now.to_string())).await?)
        }
        _ => false,
    };
    if now != changed.after && !is_placeholder {
        let shown = |digest: &Option<Digest>| digest.as_ref().map_or("nothing".into(), Digest::short);
        let text = format!("the run left {} there, and now it is {}", shown(&changed.after), shown(&now));
        return Err(Error::new(Kind::Conflict, text).help("somebody else has changed it since: look at it"));
    }
    let manifest =
        repository.manifest(Some(&before.to_string())).await.map_err(|error| match error.kind {
            Kind::NotFound => {
                let text = format!("its image {} is not there any more", before.short());
                Error::new(Kind::NotFound, text).help("`backup` in a rule keeps what it replaces or deletes")
            }
            _ => error,
        })?;
    if dry_run {
        return Ok(PutBack::Done);
    }
    if let Some(now) = now {
        repository.record(run, (tag, &changed.reference), now, Some(before.clone())).await;
    }
    if let Some((journal, at)) = repository.memory() {
        journal.writes_tag(&at, tag).await?;
    }
    repository.publish(&manifest, &Naming::Tag(tag.to_owned())).await?;
    opened.place().complete().await?;
    Ok(PutBack::Done)
}
