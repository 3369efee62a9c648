//! Tag filters, and where they learn facts about images.

use crate::Result;
use futures_util::future::BoxFuture;
use std::sync::Arc;

/// Facts about an image, for filters.
#[derive(Clone, Debug)]
pub struct Facts {
    /// Of the manifest.
    pub digest: String,
    /// Milliseconds since 1970.
    pub created: Option<i64>,
    /// Of the config.
    pub labels: Vec<(String, String)>,
    /// `os/architecture[/variant]`
    pub platforms: Vec<String>,
}

/// Where a filter learns facts about images.
pub trait Images: Send + Sync {
    /// As many facts as tags, in their order.
    fn inspect(&self, tags: Vec<String>) -> BoxFuture<'_, Result<Vec<Facts>>>;
}

/// Chooses tags.
pub trait Filter: Send + Sync {
    /// Indices of the tags to keep, in the order in which to copy; checked by the adapter.
    fn select<'a>(
        &'a self,
        repository: &'a str,
        tags: &'a [String],
        config: &'a str,
        images: Arc<dyn Images>,
    ) -> BoxFuture<'a, Result<Vec<usize>>>;
}
