//! Moves artifacts between registries and this machine, as every other image is moved.

use super::format::{Packed, component_of};
use crate::facade::whole;
use dray_core::{Digest, Reference, Report, policy::ArtifactSource};
use dray_engine::{
    CopyRequest, Error, Event, Image, Kind, Places, Planned, Result, Run, RunOptions, Watcher, plan_copy,
    signatures,
};
use dray_trust::Signature;
use serde_json::json;
use std::{fs, path::Path, sync::Arc};
use tokio::sync::{mpsc, watch};

/// The tag in the layouts through which artifacts pass.
const TAG: &str = "plugin";

/// An artifact that was read.
#[derive(Clone, Debug)]
pub struct Pulled {
    /// The digest of its manifest.
    pub digest: Digest,
    /// The bytes of its manifest.
    pub manifest: Vec<u8>,
    /// The component. It has the digest that the manifest gives.
    pub component: Vec<u8>,
    /// The sigstore bundles that are attached to it, not checked.
    pub bundles: Vec<Vec<u8>>,
}

/// Passes on how many bytes have moved. That something goes to a temporary folder, or comes from one, is nobody's news.
struct BytesOnly(Arc<dyn Watcher>);

impl Watcher for BytesOnly {
    fn event(&self, event: Event<'_>) {
        if !matches!(event, Event::Started(_) | Event::Finished(_)) {
            self.0.event(event);
        }
    }
}

async fn copy(places: &Arc<Places>, request: &CopyRequest, watcher: Arc<dyn Watcher>) -> Result<()> {
    let planned = plan_copy(places, request).await?;
    let (sender, receiver) = mpsc::channel(1);
    // The channel has room for it.
    let _ = sender.send(Planned::Copy(Box::new(planned))).await;
    drop(sender);
    let (_stop, stopped) = watch::channel(false);
    let report =
        Run::new(Arc::new(BytesOnly(watcher)), RunOptions::default()).carry_out(receiver, stopped).await;
    outcome(report)
}

/// The failure of the only copy of a run.
fn outcome(report: Report) -> Result<()> {
    let failed = report.copies.into_iter().find_map(|copy| copy.error.map(|error| (error, copy.help)));
    match failed {
        None => Ok(()),
        Some((text, help)) => {
            let text = text.strip_prefix("failed to ").unwrap_or(&text).to_owned();
            let error = Error::new(Kind::Exhausted, text);
            Err(match help {
                Some(help) => error.help(help),
                None => error,
            })
        }
    }
}

fn scratch(places: &Places) -> Result<(tempfile::TempDir, Reference)> {
    let failed = |error| Error::new(Kind::Io, format!("make a temporary folder: {error}"));
    let folder = tempfile::tempdir_in(places.scratch()).map_err(failed)?;
    let path = folder.path().display().to_string();
    if path.contains([':', '@']) {
        let text = format!("make a temporary layout in {path}: a reference cannot name it");
        return Err(Error::new(Kind::Invalid, text).help("set TMPDIR to a path without `:` and `@`"));
    }
    let rest = format!("{path}:{TAG}");
    Ok((folder, Reference { scheme: "oci".into(), rest, blobs: None }))
}

/// Writes an artifact to a place.
///
/// # Errors
/// Fails if the place cannot be written to.
pub async fn push(
    places: &Arc<Places>,
    packed: &Packed,
    destination: &Reference,
    watcher: Arc<dyn Watcher>,
) -> Result<Digest> {
    let (folder, layout) = scratch(places)?;
    let digest = packed.digest();
    write_layout(folder.path(), packed, &digest)
        .map_err(|error| Error::new(Kind::Io, format!("write a temporary layout: {error}")))?;
    copy(places, &whole(layout, destination.clone()), watcher).await?;
    Ok(digest)
}

/// Writes an OCI image layout with one image (OCI image specification 1.1, "Image Layout").
fn write_layout(folder: &Path, packed: &Packed, digest: &Digest) -> std::io::Result<()> {
    let blobs = folder.join("blobs/sha256");
    fs::create_dir_all(&blobs)?;
    for bytes in [&packed.manifest, &packed.config, &packed.component] {
        fs::write(blobs.join(Digest::of(bytes).hex()), bytes)?;
    }
    let index = json!({
        "schemaVersion": 2,
        "mediaType": "application/vnd.oci.image.index.v1+json",
        "manifests": [{
            "mediaType": "application/vnd.oci.image.manifest.v1+json",
            "digest": digest,
            "size": packed.manifest.len(),
            "annotations": { "org.opencontainers.image.ref.name": TAG },
        }],
    });
    fs::write(folder.join("index.json"), index.to_string())?;
    fs::write(folder.join("oci-layout"), r#"{"imageLayoutVersion":"1.0.0"}"#)
}

/// Reads an artifact from a place, `with_signatures` if somebody asks for them.
///
/// # Errors
/// Fails if it is no plugin, or if it cannot be read.
pub async fn pull(
    places: &Arc<Places>,
    source: &ArtifactSource,
    with_signatures: bool,
    watcher: Arc<dyn Watcher>,
) -> Result<Pulled> {
    // What it is is seen before anything of it is fetched, and the tag is not looked at again.
    let manifest = Image::open(places, &source.reference).await?.manifest;
    let layer = component_of(&manifest)?;
    let digest = manifest.descriptor.digest.clone();
    let reference = &source.pinned(&digest);
    let (folder, layout) = scratch(places)?;
    copy(places, &whole(reference.clone(), layout), watcher).await?;
    let blob = |digest: &Digest| folder.path().join("blobs").join(digest.algorithm_name()).join(digest.hex());
    let read = |digest: &Digest| {
        let bytes = fs::read(blob(digest));
        let bytes = bytes.map_err(|error| {
            Error::new(Kind::Io, format!("read what was fetched of {reference}: {error}"))
        })?;
        match digest.alike(&bytes) == *digest {
            true => Ok(bytes),
            false => Err(Error::new(Kind::Corrupt, format!("read {reference}: a blob is not {digest}"))),
        }
    };
    let component = read(&layer.digest)?;
    let bundles = match with_signatures {
        true => bundles(places, reference).await?,
        false => Vec::new(),
    };
    Ok(Pulled { digest, manifest: manifest.body, component, bundles })
}

/// The sigstore bundles that are attached to an artifact, not checked.
///
/// # Errors
/// Fails if they cannot be read.
pub async fn bundles(places: &Arc<Places>, reference: &Reference) -> Result<Vec<Vec<u8>>> {
    let (_, found) = signatures(places, reference).await?;
    let bundles = found.into_iter().filter_map(|found| match found.signature {
        Signature::Bundle(json) => Some(json),
        _ => None,
    });
    Ok(bundles.collect())
}
