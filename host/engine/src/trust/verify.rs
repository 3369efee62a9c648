//! Checks and lists the signatures of one image, without copying it.

use super::{Demand, Judge, Verified, gather::Gathered, image_of, lookaside};
use crate::{Places, Result, error::Context, place::OpenReference};
use dray_core::{Children, Descriptor, Digest, Manifest, Reference, is_blob};
use dray_trust::{Kinds, Signature};
use std::sync::Arc;

/// A signature that an image has, not checked.
#[derive(Clone, Debug)]
pub struct FoundSignature {
    /// The signature.
    pub signature: Signature,
    /// What it says of itself, for people.
    pub shown: String,
}

async fn read(places: &Arc<Places>, reference: &Reference) -> Result<(OpenReference, Manifest)> {
    let opened = places.source(reference, false).await?;
    places.manifest(&opened).await
}

/// Checks what this machine's policy and `require` demand of an image.
///
/// # Errors
/// Fails if a demand is not fulfilled, or if the image cannot be read.
pub async fn verify(places: &Arc<Places>, reference: &Reference, require: &[Demand]) -> Result<Verified> {
    let doing = || format!("verify {reference}");
    let (at, manifest) = read(places, reference).await.context(doing)?;
    let (digest, descriptor) = (manifest.descriptor.digest.clone(), manifest.descriptor.clone());
    let named = (&digest, &descriptor, false);
    let tag = at.reference.clone();
    let judge = Judge(places.trust());
    let verified =
        judge.check(&at, tag.as_deref(), named, &mut Some(manifest), ("the command", require)).await?;
    Ok(Verified { digest: Some(digest), ..verified })
}

/// Whether this machine's policy demands anything of an image.
///
/// # Errors
/// Fails if the reference cannot be opened.
pub async fn is_demanded(places: &Arc<Places>, reference: &Reference) -> Result<bool> {
    let opened = places.source(reference, false).await?;
    let image = image_of(&opened, opened.reference.as_deref())?;
    Ok(!Judge(places.trust()).demands(&image, ("", &[])).is_empty())
}

/// All signatures that an image has, not checked.
///
/// # Errors
/// Fails if the image cannot be read.
pub async fn signatures(
    places: &Arc<Places>,
    reference: &Reference,
) -> Result<(Digest, Vec<FoundSignature>)> {
    let doing = || format!("list the signatures of {reference}");
    let (at, manifest) = read(places, reference).await.context(doing)?;
    let mut gathered = Gathered::new(&at, &places.trust().lookasides, &manifest)?;
    let all = Kinds { simple: true, sigstore: true };
    while gathered.more(all).await.context(doing)? {}
    let found = gathered
        .found()
        .iter()
        .map(|signature| FoundSignature { signature: signature.clone(), shown: signature.shown() });
    Ok((manifest.descriptor.digest.clone(), found.collect()))
}

/// The signatures that travel with an image, as skopeo copies them: those that its place or a lookaside keeps, and those of
/// a tag if registries.d says that sigstore's attachments are used. `digest` is what of the image is copied.
///
/// # Errors
/// Fails if they cannot be read.
pub async fn kept_signatures(
    places: &Arc<Places>,
    reference: &Reference,
    digest: &Digest,
) -> Result<Vec<Signature>> {
    let doing = || format!("read the signatures of {reference}");
    let (opened, whole) = read(places, reference).await.context(doing)?;
    let image = image_of(&opened, opened.reference.as_deref())?;
    let lookaside = places.trust().lookasides.of(&image);
    let kinds = Kinds { simple: true, sigstore: lookaside.attachments == Some(true) };
    let manifest = match whole.descriptor.digest == *digest {
        true => whole,
        false => opened.repository.manifest(Some(&digest.to_string())).await.context(doing)?,
    };
    let mut gathered = Gathered::new(&opened, &places.trust().lookasides, &manifest)?;
    while gathered.more(kinds).await.context(doing)? {}
    Ok(gathered.found().to_vec())
}

/// Removes the signatures that this machine keeps of an image beside its registry, in a folder. Signatures on a web server
/// stay.
///
/// # Errors
/// Fails if a file cannot be removed.
pub async fn forget_signatures(places: &Arc<Places>, reference: &Reference, digest: &Digest) -> Result<()> {
    let opened = places.source(reference, false).await?;
    if opened.place().scheme() != "docker" {
        return Ok(());
    }
    let image = image_of(&opened, opened.reference.as_deref())?;
    match places.trust().lookasides.of(&image).write {
        Some(base) => lookaside::remove(&base, &image, digest).await,
        None => Ok(()),
    }
}

/// The digests to sign of an image: its own, and with `recursive` those of all images in it. `digest` is that of the image,
/// if it is known; what the reference names now does not matter then.
///
/// # Errors
/// Fails if the image cannot be read.
pub async fn manifests_of(
    places: &Arc<Places>,
    reference: &Reference,
    digest: Option<&Digest>,
    recursive: bool,
) -> Result<Vec<Digest>> {
    let doing = || format!("read {reference}");
    let opened = places.source(reference, false).await?;
    let named = digest.map(Digest::to_string);
    let read = opened.repository.manifest(named.as_deref().or(opened.reference.as_deref())).await;
    let manifest = read.context(doing)?;
    let mut digests = vec![manifest.descriptor.digest.clone()];
    let mut open = vec![manifest];
    while let Some(manifest) = open.pop().filter(|_| recursive) {
        let Children::Index(children) = &manifest.children else { continue };
        let images = children.iter().filter(|child: &&Descriptor| !is_blob(&child.media_type));
        for child in images {
            // A child that a sparse index names and the place does not hold cannot be signed.
            let Some(_) = opened.repository.resolve(Some(&child.digest.to_string()), None).await? else {
                continue;
            };
            if !digests.contains(&child.digest) {
                digests.push(child.digest.clone());
                if dray_core::media_type::is_index(&child.media_type) {
                    open.push(opened.repository.manifest_of(child).await.context(doing)?);
                }
            }
        }
    }
    Ok(digests)
}
