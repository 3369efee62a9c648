//! Reading manifests, referrers and configs of a place.

use crate::{
    DOCUMENT_LIMIT, Error, Place, Result,
    blob::BlobReader,
    error::Context,
    http::Load,
    plugin::{Facts, Held, Images, Page},
};
use dray_core::{Children, Descriptor, Digest, Manifest, Platform, media_type};
use futures_util::{FutureExt, StreamExt, TryStreamExt, future::BoxFuture, stream};
use serde::Deserialize;
use std::{collections::HashMap, collections::HashSet, sync::Arc};

/// Pages of a list after which a place is taken to go round in circles.
const PAGES: usize = 10_000;
/// Entries of a list after which a place is taken to have no end.
const ENTRIES: usize = 2_000_000;

/// Reads and verifies a manifest.
///
/// # Errors
/// Where it is not there, or not what was asked for.
pub(crate) async fn read_manifest(
    place: &Arc<Place>,
    repository: &str,
    reference: Option<&str>,
    descriptor: Option<&Descriptor>,
) -> Result<Manifest> {
    let named = descriptor.map(|descriptor| descriptor.digest.to_string());
    let shown = named.as_deref().or(reference).unwrap_or("the image").to_owned();
    let read = async {
        if let Some(data) = descriptor.and_then(|descriptor| descriptor.data.clone()) {
            let media_type = descriptor.map(|descriptor| descriptor.media_type.clone()).unwrap_or_default();
            return Ok(Held { media_type, body: data, signatures: Vec::new() });
        }
        place.transport.fetch(place, repository, named.as_deref().or(reference)).await
    };
    let mut held = read.await.context(|| format!("read the manifest {shown}"))?;
    // Some registries name no type; the descriptor that led here does.
    if let Some(descriptor) = descriptor.filter(|_| !media_type::is_manifest(&held.media_type)) {
        held.media_type.clone_from(&descriptor.media_type);
    }
    let expected = match descriptor {
        Some(descriptor) => Some(descriptor.digest.clone()),
        None => reference.and_then(|reference| reference.parse().ok()),
    };
    let manifest = held.read(expected.as_ref())?;
    if let Some(descriptor) = descriptor
        && descriptor.size != manifest.descriptor.size
    {
        let (said, is) = (descriptor.size, manifest.descriptor.size);
        return Err(Error::corrupt(format!(
            "verify the manifest {shown}: it has {is} bytes where {said} were named"
        )));
    }
    Ok(manifest)
}

/// Reads a whole list, page by page.
pub(crate) async fn pages<'a, T>(
    mut page: impl FnMut(Option<String>) -> BoxFuture<'a, Result<Page<T>>>,
) -> Result<Vec<T>> {
    let (mut items, mut next) = (Vec::new(), None);
    let mut seen = HashSet::new();
    loop {
        let got = page(next).await?;
        items.extend(got.items);
        if items.len() > ENTRIES {
            return Err(Error::invalid(format!("read a list: it has more than {ENTRIES} entries")));
        }
        match got.next {
            None => return Ok(items),
            Some(link) => {
                if !seen.insert(link.clone()) || seen.len() > PAGES {
                    return Err(Error::invalid(format!("read a list: its pages lead back to {link}")));
                }
                next = Some(link);
            }
        }
    }
}

/// All manifests whose subject is this digest.
pub(crate) async fn referrers(
    place: &Arc<Place>,
    repository: &str,
    subject: &Digest,
) -> Result<Vec<Descriptor>> {
    let listed = pages(|next| place.transport.referrers(place, repository, subject, next)).await;
    listed.context(|| format!("list the referrers of {}", subject.short()))
}

/// Reads a small blob into memory, verified.
pub(crate) async fn read_blob(place: &Arc<Place>, repository: &str, blob: &Descriptor) -> Result<Vec<u8>> {
    if blob.size > DOCUMENT_LIMIT as u64 {
        return Err(Error::invalid(format!(
            "read {}: {} bytes are too many for a config",
            blob.digest, blob.size
        )));
    }
    let mut reader = BlobReader::open(place, repository, blob).await?;
    let _permits = reader.start(None, &Load::of(blob.size), None).await?;
    let mut bytes = Vec::new();
    while let Some(chunk) = reader.next(u64::MAX).await? {
        bytes.extend_from_slice(&chunk);
    }
    Ok(bytes)
}

/// What of an image's config filters ask for (OCI image specification, configuration).
#[derive(Default, Deserialize)]
struct Config {
    created: Option<String>,
    os: Option<String>,
    architecture: Option<String>,
    variant: Option<String>,
    config: Option<Inner>,
}

#[derive(Default, Deserialize)]
struct Inner {
    #[serde(rename = "Labels")]
    labels: Option<HashMap<String, String>>,
}

/// The images of one repository, for filters.
pub(crate) struct RepositoryImages {
    pub place: Arc<Place>,
    pub repository: String,
}

/// Images that a filter's question reads at once.
const AT_ONCE: usize = 16;

impl Images for RepositoryImages {
    fn inspect(&self, tags: Vec<String>) -> BoxFuture<'_, Result<Vec<Facts>>> {
        let facts = stream::iter(tags).map(|tag| self.facts(tag)).buffered(AT_ONCE);
        facts.try_collect().boxed()
    }
}

impl RepositoryImages {
    async fn facts(&self, tag: String) -> Result<Facts> {
        let top = read_manifest(&self.place, &self.repository, Some(&tag), None).await?;
        let digest = top.descriptor.digest.to_string();
        let mut platforms = Vec::new();
        let mut image = top;
        for _ in 0..8 {
            let Children::Index(children) = &image.children else { break };
            let real =
                |child: &&Descriptor| child.platform.as_ref().is_none_or(|platform| platform.os != "unknown");
            if platforms.is_empty() {
                platforms.extend(
                    children
                        .iter()
                        .filter(real)
                        .filter_map(|child| child.platform.as_ref())
                        .map(Platform::to_string),
                );
            }
            let Some(child) = children.iter().find(real) else { break };
            image = read_manifest(&self.place, &self.repository, None, Some(child)).await?;
        }
        let config = match &image.children {
            Children::Image { config, .. } => {
                let bytes = read_blob(&self.place, &self.repository, config).await?;
                // An artifact's config may be anything: then it says nothing.
                serde_json::from_slice::<Config>(&bytes).unwrap_or_default()
            }
            // What it says of itself needs no layer.
            Children::Schema1(old) => serde_json::from_slice(&old.config(&[])).unwrap_or_default(),
            Children::Index(_) => Config::default(),
        };
        if platforms.is_empty()
            && let (Some(os), Some(architecture)) = (config.os, config.architecture)
        {
            platforms.push(Platform { os, architecture, variant: config.variant }.to_string());
        }
        let created = config.created.and_then(|text| text.parse::<jiff::Timestamp>().ok());
        Ok(Facts {
            digest,
            created: created.map(|created| created.as_millisecond()),
            labels: config.config.and_then(|inner| inner.labels).unwrap_or_default().into_iter().collect(),
            platforms,
        })
    }
}
