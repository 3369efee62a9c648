//! Reading manifests, referrers and configs of a place.

use crate::{
    DOCUMENT_LIMIT, Error, Kind, Place, Result,
    blob::reader::BlobReader,
    contract::{Facts, Images, Page, RawManifest},
    error::Context,
    http::Load,
};
use dray_core::{Children, Descriptor, Digest, Manifest, Platform, media_type, misleads};
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
    read(place, repository, reference, descriptor, true).await
}

async fn read(
    place: &Arc<Place>,
    repository: &str,
    reference: Option<&str>,
    descriptor: Option<&Descriptor>,
    sized: bool,
) -> Result<Manifest> {
    let named = descriptor.map(|descriptor| descriptor.digest.to_string());
    let shown = match named.as_deref().or(reference) {
        Some(name) => format!("the manifest {name}"),
        None => "the image's manifest".to_owned(),
    };
    let read_held = async {
        if let Some(data) = descriptor.and_then(|descriptor| descriptor.data.clone()) {
            let media_type = descriptor.map(|descriptor| descriptor.media_type.clone()).unwrap_or_default();
            return Ok(RawManifest { media_type, body: data, signatures: Vec::new() });
        }
        place.transport.fetch(place, repository, named.as_deref().or(reference)).await
    };
    let mut held = read_held.await.context(|| format!("read {shown}"))?;
    // Some registries name no type; the descriptor that led here does.
    if let Some(descriptor) = descriptor.filter(|_| !media_type::is_manifest(&held.media_type)) {
        held.media_type.clone_from(&descriptor.media_type);
    }
    let expected = match descriptor {
        Some(descriptor) => Some(descriptor.digest.clone()),
        None => reference.and_then(|reference| reference.parse().ok()),
    };
    let manifest = held.read(expected.as_ref())?;
    if let Some(descriptor) = descriptor.filter(|_| sized)
        && descriptor.size != manifest.descriptor.size
    {
        let (said, is) = (descriptor.size, manifest.descriptor.size);
        return Err(Error::corrupt(format!("verify {shown}: it has {is} bytes where {said} were named")));
    }
    Ok(manifest)
}

/// Reads the manifest that a tag was found to name. What was said of its size is a hint. Where it is not to be had by
/// its digest, it is read by the tag: caches know some manifests by their tags alone, and what a registry says of a tag
/// may be older than the tag.
///
/// # Errors
/// Where it is not there, or not what was asked for.
pub(crate) async fn read_named(
    place: &Arc<Place>,
    repository: &str,
    tag: Option<&str>,
    named: &Descriptor,
) -> Result<Manifest> {
    let by_digest = read(place, repository, None, Some(named), false).await;
    match (by_digest, tag) {
        (Err(error), Some(tag))
            if matches!(error.kind, Kind::NotFound | Kind::Denied | Kind::Unsupported) =>
        {
            let digest = named.digest.short();
            tracing::debug!(%error, "{digest} is read by its tag {tag}");
            match read_manifest(place, repository, Some(tag), None).await {
                Ok(manifest) => Ok(manifest),
                // By its digest it was asked for first.
                Err(other) if other.kind == error.kind => Err(error),
                Err(other) => Err(other),
            }
        }
        (read, _) => read,
    }
}

/// Bytes of a list, its links included, after which a place is taken to have no end.
const BYTES: usize = 128 << 20;

/// What an entry of a list takes of memory.
pub(crate) trait Weight {
    /// Bytes, about.
    fn weight(&self) -> usize;
}

impl Weight for String {
    fn weight(&self) -> usize {
        self.len() + size_of::<String>()
    }
}

impl Weight for Descriptor {
    fn weight(&self) -> usize {
        let notes: usize = self.annotations.iter().map(|(key, value)| key.len() + value.len()).sum();
        self.media_type.len() + self.artifact_type.as_ref().map_or(0, String::len) + notes + size_of::<Self>()
    }
}

/// Reads a whole list, page by page.
pub(crate) async fn pages<'a, T: Weight>(
    mut page: impl FnMut(Option<String>) -> BoxFuture<'a, Result<Page<T>>>,
) -> Result<Vec<T>> {
    let (mut items, mut next) = (Vec::new(), None);
    let mut seen = HashSet::new();
    let mut bytes = 0;
    loop {
        let got = page(next).await?;
        bytes +=
            got.items.iter().map(Weight::weight).sum::<usize>() + got.next.as_ref().map_or(0, String::len);
        items.extend(got.items);
        if items.len() > ENTRIES {
            return Err(Error::invalid(format!("read a list: it has more than {ENTRIES} entries")));
        }
        if bytes > BYTES {
            return Err(Error::invalid(format!("read a list: it has more than {} MiB", BYTES >> 20)));
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
    let mut listed = listed.context(|| format!("list the referrers of {}", subject.short()))?;
    let mut known = HashSet::new();
    listed.retain(|referrer| known.insert(referrer.digest.clone()));
    Ok(listed)
}

/// The names of a list: what comes twice is taken once, and what is none is left out with a word. `nameless`: an empty
/// one is that of images without a name.
pub(crate) async fn names<'a>(
    what: &str,
    nameless: bool,
    page: impl FnMut(Option<String>) -> BoxFuture<'a, Result<Page<String>>>,
) -> Result<Vec<String>> {
    let mut listed = pages(page).await?;
    let (mut known, mut odd) = (HashSet::new(), None);
    listed.retain(|name| {
        // What it may look like is its transport's business, as long as it can stand in a line.
        let good = (nameless || !name.is_empty()) && name.len() <= 1024 && !name.chars().any(misleads);
        if !good {
            odd.get_or_insert_with(|| name.clone());
        }
        good && known.insert(name.clone())
    });
    if let Some(odd) = odd {
        tracing::warn!("{what} lists what is no name, such as {odd:.80?}: it is left out");
    }
    Ok(listed)
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
        let facts = stream::iter(tags).map(|tag| self.facts_if_there(tag)).buffered(AT_ONCE);
        facts.try_collect().boxed()
    }
}

impl RepositoryImages {
    /// A tag may go between the list and the look at it, or name what is no image: it has no facts then.
    async fn facts_if_there(&self, tag: String) -> Result<Facts> {
        match self.facts(tag.clone()).await {
            Err(error) if matches!(error.kind, Kind::NotFound | Kind::Unsupported | Kind::Corrupt) => {
                tracing::warn!(
                    "nothing is known of {}:{tag}, which is listed: failed to {error}",
                    self.repository
                );
                Ok(Facts { digest: String::new(), created: None, labels: Vec::new(), platforms: Vec::new() })
            }
            facts => facts,
        }
    }

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
