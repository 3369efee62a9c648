use crate::Error;
use dray_core::{Copy, CopyReport, Digest};
use std::time::Duration;

/// What happens during planning and running, for watchers.
#[derive(Debug)]
#[non_exhaustive]
pub enum Event<'a> {
    /// The transfer of an image's blobs begins.
    Started(&'a Copy),
    /// A blob begins to move, or has moved further. It is told with [`Event::Sent`], for those who show single blobs.
    Blob(BlobProgress<'a>),
    /// The transfer of this number does not move any more.
    BlobEnded(u64),
    /// Blobs of this many bytes are about to be sent.
    Expected(u64),
    /// This many bytes were sent.
    Sent(u64),
    /// This many expected bytes need not be sent after all.
    Spared(u64),
    /// A blob of this many bytes was mounted instead of being sent.
    Mounted(u64),
    /// Something failed and will be tried again.
    Retrying {
        /// The image, at the destination, for people. `None` means that what failed may be of several images.
        image: Option<&'a str>,
        /// What went wrong.
        error: &'a Error,
        /// Time until the next attempt.
        after: Duration,
    },
    /// The result of a copy.
    Finished(&'a CopyReport),
}

/// How far a blob is.
#[derive(Clone, Copy, Debug)]
pub struct BlobProgress<'a> {
    /// Number of the transfer, unique in the process.
    pub transfer: u64,
    /// The image with which the blob comes, at the destination, for people.
    pub image: &'a str,
    /// Digest of the blob.
    pub digest: &'a Digest,
    /// Size of the blob in bytes.
    pub size: u64,
    /// Bytes that have moved.
    pub position: u64,
}

/// Receives events. It is called often and from many tasks, so it must be quick.
pub trait Watcher: Send + Sync {
    /// Handles an event.
    fn event(&self, event: Event<'_>);
}
