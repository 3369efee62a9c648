//! Chooses the part of a source image to write: all of it, the image of one platform, or a smaller index.

use super::before::{Absent, Before, tag_of};
use crate::{
    Error, Kind, Places, Result,
    error::Context,
    place::{OpenReference, Resolved},
};
use dray_core::{
    Children, Descriptor, Digest, ImageChoice, Manifest, NESTING, Wanted, media_type, policy::IndexMode,
    select, trim,
};

/// The part of a source image that is to be written.
pub(crate) struct Chosen {
    /// The digest that the tag names, before a part was chosen.
    pub named: Digest,
    /// The descriptor of what is to be written.
    pub descriptor: Descriptor,
    /// The manifest of what is to be written, if it had to be read.
    pub manifest: Option<Manifest>,
}

/// Determines what is to be written for a tag of the source, which is read at the first of its mirrors that has it. Also
/// returns where it was read. Fails with the error of the last place that was asked.
pub(crate) async fn choose_at(
    places: &Places,
    source: &OpenReference,
    reference: Option<&str>,
    wanted: &Wanted,
    (before, listed): (&Before, Option<&Descriptor>),
) -> Result<(Chosen, OpenReference)> {
    let mut reads = places.reads(source, reference).await?;
    let last = reads.pop().unwrap_or_else(|| source.clone());
    // What is listed at one place says nothing of its mirrors.
    let listed = listed.filter(|_| reads.is_empty());
    for at in reads {
        match choose(&at, reference, wanted, (before, None)).await {
            Ok(chosen) => return Ok((chosen, at)),
            Err(error) => tracing::info!("the mirror {} is left out: failed to {error}", at.place().location),
        }
    }
    let chosen = choose(&last, reference, wanted, (before, listed)).await?;
    Ok((chosen, last))
}

/// Determines what is to be written for a tag of the source. If the tag is known to be absent at the destination, the
/// manifest will be needed, so it is read at once. `listed` is what a list of the source says, which spares the question.
/// Fails if the source does not have the image, or cannot be read.
async fn choose(
    source: &OpenReference,
    reference: Option<&str>,
    wanted: &Wanted,
    (before, listed): (&Before, Option<&Descriptor>),
) -> Result<Chosen> {
    let shown = source.endpoint(reference).display;
    // A registry reads a manifest by its tag at no more cost. Others would look the tag up in their document, which was listed.
    let by_tag = listed.is_none() || source.place().transport.has_dialects();
    if before.absent != Absent::Unknown && source.place().http.is_some() && by_tag {
        let read = Box::pin(source.repository.manifest(reference)).await;
        let manifest = read.context(|| format!("resolve {shown}"))?;
        return part(source, reference, &shown, wanted, manifest.into()).await;
    }
    if let Some(descriptor) = listed.and_then(|listed| before.of_list(listed)) {
        return part(source, reference, &shown, wanted, Resolved { descriptor, manifest: None }).await;
    }
    let found = Box::pin(source.repository.resolve(reference, before.known())).await;
    let found =
        found.map_err(|error| source.place().explained(error)).context(|| format!("resolve {shown}"))?;
    let Resolved { descriptor, manifest } = match found {
        Some(found) => found,
        // Some registries report every image as absent in this cheap request, so the manifest itself is requested.
        None if source.place().http.is_some() => {
            let read = Box::pin(source.repository.manifest(reference)).await;
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
        None => Box::pin(source.repository.manifest_now(tag_of(reference), &descriptor)).await,
    };
    if !media_type::is_manifest(&descriptor.media_type) {
        // A media type such as `application/json` tells nothing, so the manifest must be read.
        let manifest = read(manifest).await?;
        return part(source, reference, &shown, wanted, manifest.into()).await;
    }
    part(source, reference, &shown, wanted, Resolved { descriptor, manifest }).await
}

/// Chooses the wanted part of a resolved image.
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
        None => Box::pin(source.repository.manifest_now(tag_of(reference), &descriptor)).await,
    };
    match &wanted.choice {
        ImageChoice::Some(platforms, IndexMode::Keep) => {
            // If the index was read already, an error that the run would find is reported in the plan.
            if let Some(Children::Index(children)) = manifest.as_ref().map(|index| &index.children) {
                select(children, platforms).map_err(Error::from).context(|| format!("plan {shown}"))?;
            }
            Ok(Chosen { named, descriptor, manifest })
        }
        ImageChoice::All | ImageChoice::Index => Ok(Chosen { named, descriptor, manifest }),
        ImageChoice::Some(platforms, IndexMode::Trim) => {
            let index = read(manifest).await?;
            // The tag may name another index than it was said to.
            let named = index.descriptor.digest.clone();
            let trimmed = trim(&index, platforms).map_err(Error::from).context(|| format!("plan {shown}"))?;
            Ok(Chosen { named, descriptor: trimmed.descriptor.clone(), manifest: Some(trimmed) })
        }
        ImageChoice::One(platform) => {
            let mut index = read(manifest).await?;
            let named = index.descriptor.digest.clone();
            for _ in 0..NESTING {
                let Children::Index(children) = &index.children else { break };
                let selection = select(children, std::slice::from_ref(platform)).map_err(Error::from);
                let selection = selection
                    .context(|| format!("copy {shown}"))
                    .map_err(|error| error.help("--all copies every platform, --platform chooses others"))?;
                if let Some(descriptor) = selection.kept.iter().find(|child| child.platform.is_some()) {
                    return Ok(Chosen { named, descriptor: descriptor.clone(), manifest: None });
                }
                // No child has a platform of its own, so the platforms are those of a nested index.
                let nested = selection.kept.iter().find(|child| media_type::is_index(&child.media_type));
                let Some(nested) = nested else { break };
                index = Box::pin(source.repository.manifest_of(nested)).await?;
            }
            Ok(Chosen { named, descriptor: index.descriptor.clone(), manifest: Some(index) })
        }
    }
}
