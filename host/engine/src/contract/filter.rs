//! Tag filters, and the facts about images that they can ask for.

use super::Listed;
use crate::{Error, Kind, Result};
use futures_util::future::BoxFuture;
use std::sync::Arc;

/// Facts about an image, for filters.
#[derive(Clone, Debug, Default)]
pub struct Facts {
    /// Digest of the manifest.
    pub digest: String,
    /// Media type of the manifest.
    pub media_type: String,
    /// The artifact type, if the manifest is of an artifact.
    pub artifact_type: Option<String>,
    /// Size in bytes of the layers and the config of the first platform. `None` if the manifest is no image.
    pub size: Option<u64>,
    /// Annotations of the manifest.
    pub annotations: Vec<(String, String)>,
    /// Time of creation in milliseconds since 1970. `None` means that the image does not say.
    pub created: Option<i64>,
    /// Labels of the config.
    pub labels: Vec<(String, String)>,
    /// Platforms, each as `os/architecture[/variant]`.
    pub platforms: Vec<String>,
}

/// What a registry knows of an image without anybody reading it, for filters.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Known {
    /// When the tag was last pushed, in milliseconds since 1970.
    pub pushed: Option<u64>,
    /// Labels that people gave the image at the registry. `None` means that the registry has no labels.
    pub labels: Option<Vec<String>>,
    /// Whether signatures of the image are there, unchecked.
    pub signed: Option<bool>,
    /// The worst vulnerability that a scanner found, as `wit/plugin.wit` words it. `None` means that nobody has scanned it.
    pub severity: Option<String>,
}

/// The source of facts about images for a filter.
pub trait Images: Send + Sync {
    /// Returns one entry for each tag, in the order of the tags.
    fn inspect(&self, tags: Vec<String>) -> BoxFuture<'_, Result<Vec<Facts>>>;
    /// Returns what is known of each tag, in the order of the tags. Without a registry, nothing is.
    fn look_up(&self, tags: Vec<String>) -> BoxFuture<'_, Result<Vec<Known>>> {
        Box::pin(async move { Ok(vec![Known::default(); tags.len()]) })
    }
    /// Returns the tags of the destination, sorted by name. Fails as unsupported if there is no one destination.
    fn at_destination(&self) -> BoxFuture<'_, Result<Vec<Listed>>> {
        Box::pin(async { Err(no_destination()) })
    }
}

/// The error for a filter that asks for the tags of a destination where there is no one destination.
pub(crate) fn no_destination() -> Error {
    let text = "list the tags of the destination: no one repository is the destination here";
    Error::new(Kind::Unsupported, text)
}

/// What a filter chose.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Selection {
    /// The indices of the tags to keep, each once, in the order in which to copy them.
    pub kept: Vec<usize>,
    /// Why tags were dropped, by their indices. The filter need not say so of all of them.
    pub dropped: Vec<(usize, String)>,
    /// The indices of dropped tags of which the filter knows too little to judge them.
    pub unknown: Vec<usize>,
}

/// What a filter chooses among.
#[derive(Clone, Copy, Debug, Default)]
pub struct Choice<'a> {
    /// The repository.
    pub repository: &'a str,
    /// The tags that earlier filters kept.
    pub tags: &'a [String],
    /// All tags of the repository.
    pub all: &'a [String],
}

/// Selects tags.
pub trait Filter: Send + Sync {
    /// Chooses among tags. The host has checked that the indices are valid.
    fn select<'a>(
        &'a self,
        given: Choice<'a>,
        config: &'a str,
        images: Arc<dyn Images>,
    ) -> BoxFuture<'a, Result<Selection>>;
}
