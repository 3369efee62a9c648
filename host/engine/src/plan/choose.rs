//! What of a source's image is to be written: all of it, one platform's image, or a smaller index.

use super::before::{Absent, Before, tag_of};
use crate::{
    Error, Kind, Result,
    error::Context,
    place::{OpenReference, Resolved},
};
use dray_core::{
    Children, Descriptor, Digest, ImageChoice, Manifest, NESTING, Wanted, media_type, policy::IndexMode,
    select, trim,
};

/// An image of a source as it is to be written.
pub(crate) struct Chosen {
    /// What the tag names, before anything was chosen of it.
    pub named: Digest,
    /// What is to be written.
    pub descriptor: Descriptor,
    /// What is to be written, where it had to be read.
    pub manifest: Option<Manifest>,
}

/// Learns what is to be written for a tag of the source. Where it is known to be absent at the destination, its
/// manifest will be wanted, so that is read at once.
///
/// # Errors
/// Fails if the source has no such image, or cannot be read.
pub(crate) async fn choose(
    source: &OpenReference,
    reference: Option<&str>,
    wanted: &Wanted,
    before: &Before,
) -> Result<Chosen> {
    let shown = source.endpoint(reference).display;
    if before.absent != Absent::Unknown && source.place().http.is_some() {
        let read = source.repository.manifest(reference).await;
        let manifest = read.context(|| format!("resolve {shown}"))?;
        return part(source, reference, &shown, wanted, manifest.into()).await;
    }
    let found = source.repository.resolve(reference, before.known()).await;
    let found =
        found.map_err(|error| source.place().explained(error)).context(|| format!("resolve {shown}"))?;
    let Resolved { descriptor, manifest } = match found {
        Some(found) => found,
        // Some registries answer a cheap question so of everything: the full one tells.
        None if source.place().http.is_some() => {
            let read = source.repository.manifest(reference).await;
            let read = read.map_err(|error| match error.kind {
                Kind::NotFound => Error::new(Kind::NotFound, "there is no such image"),
                _ => error,
            });
            let manifest = read.context(|| format!("resolve {shown}"))?;
            manifest.into()
        }
        None => {
            let error = Error::new(Kind::NotFound, format!("resolve {shown}: there is no such image"));
            return Err(source.place().explained(error));
        }
    };
    let read = async |manifest: Option<Manifest>| match manifest {
        Some(manifest) => Ok(manifest),
        None => source.repository.manifest_named(tag_of(reference), &descriptor).await,
    };
    if !media_type::is_manifest(&descriptor.media_type) {
        // A type that tells nothing (`application/json`): the manifest tells more.
        let manifest = read(manifest).await?;
        return part(source, reference, &shown, wanted, manifest.into()).await;
    }
    part(source, reference, &shown, wanted, Resolved { descriptor, manifest }).await
}

/// What of an image is to be written.
async fn part(
    source: &OpenReference,
    reference: Option<&str>,
    shown: &str,
    wanted: &Wanted,
    resolved: Resolved,
) -> Result<Chosen> {
    let Resolved { descriptor, manifest } = resolved;
    let named = descriptor.digest.clone();
    if !media_type::is_index(&descriptor.media_type) {
        return Ok(Chosen { named, descriptor, manifest });
    }
    let read = async |manifest: Option<Manifest>| match manifest {
        Some(manifest) => Ok(manifest),
        None => source.repository.manifest_named(tag_of(reference), &descriptor).await,
    };
    match &wanted.choice {
        ImageChoice::Some(platforms, IndexMode::Keep) => {
            // If the index is at hand, the plan need not promise what the run would refuse.
            if let Some(Children::Index(children)) = manifest.as_ref().map(|index| &index.children) {
                select(children, platforms).map_err(Error::from).context(|| format!("plan {shown}"))?;
            }
            Ok(Chosen { named, descriptor, manifest })
        }
        ImageChoice::All => Ok(Chosen { named, descriptor, manifest }),
        ImageChoice::Some(platforms, IndexMode::Trim) => {
            let index = read(manifest).await?;
            let trimmed = trim(&index, platforms).map_err(Error::from).context(|| format!("plan {shown}"))?;
            Ok(Chosen { named, descriptor: trimmed.descriptor.clone(), manifest: Some(trimmed) })
        }
        ImageChoice::One(platform) => {
            let mut index = read(manifest).await?;
            for _ in 0..NESTING {
                let Children::Index(children) = &index.children else { break };
                let selection = select(children, std::slice::from_ref(platform)).map_err(Error::from);
                let selection = selection
                    .context(|| shown)
                    .map_err(|error| error.help("--all copies every platform, --platform chooses others"))?;
                if let Some(descriptor) = selection.kept.iter().find(|child| child.platform.is_some()) {
                    return Ok(Chosen { named, descriptor: descriptor.clone(), manifest: None });
                }
                // Its platforms are those of the indexes in it.
                let nested = selection.kept.iter().find(|child| media_type::is_index(&child.media_type));
                let Some(nested) = nested else { break };
                index = source.repository.manifest_of(nested).await?;
            }
            Ok(Chosen { named, descriptor: index.descriptor.clone(), manifest: Some(index) })
        }
    }
}
