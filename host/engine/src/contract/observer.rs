//! Observers, which hear what a run did and cannot change it.

use crate::Result;
use futures_util::future::BoxFuture;

/// Something that happened in a run. Fields that say nothing about it are empty.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Happening {
    /// `started`, `copied`, `deleted`, `refused`, `failed` or `finished`.
    pub kind: &'static str,
    /// Milliseconds since 1970.
    pub time: u64,
    /// The name of the rule.
    pub rule: String,
    /// The source, as reports show it.
    pub source: String,
    /// The destination, as reports show it.
    pub destination: String,
    /// The digest of the image.
    pub digest: Option<String>,
    /// Bytes of blobs that were sent.
    pub bytes: u64,
    /// Why it happened or failed, for people.
    pub text: String,
    /// Counts of the run, at its end.
    pub counts: Vec<(String, String)>,
}

/// Hears what a run did. It is bound to its configuration.
pub trait Observer: Send + Sync {
    /// The name of the plugin.
    fn name(&self) -> &str;
    /// Tells it. `run` is the same for all happenings of a run. Without any, it checks the configuration.
    fn observe<'a>(&'a self, run: &'a str, happened: &'a [Happening]) -> BoxFuture<'a, Result<()>>;
}
