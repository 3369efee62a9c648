//! Tells watchers how far a single blob is.

use crate::{BlobProgress, Event, Watcher};
use dray_core::Digest;
use std::sync::atomic::{AtomicU64, Ordering};

/// A blob that moves, as watchers see it. When it is dropped, they are told that it does not move any more.
pub(crate) struct ShownBlob<'a> {
    watcher: &'a dyn Watcher,
    image: &'a str,
    digest: &'a Digest,
    size: u64,
    /// Number of the transfer, unique in the process.
    transfer: u64,
    ends: bool,
}

impl<'a> ShownBlob<'a> {
    /// A blob of an image. `size` is in bytes.
    pub fn new(watcher: &'a dyn Watcher, image: &'a str, digest: &'a Digest, size: u64) -> Self {
        static NUMBER: AtomicU64 = AtomicU64::new(0);
        let transfer = NUMBER.fetch_add(1, Ordering::Relaxed);
        ShownBlob { watcher, image, digest, size, transfer, ends: true }
    }

    /// The same transfer, of which another number of bytes is read: those of the compressed layer.
    pub fn of_size(&self, size: u64) -> Self {
        ShownBlob { size, ends: false, ..*self }
    }

    /// Tells that so many bytes have moved.
    pub fn stands_at(&self, position: u64) {
        let ShownBlob { image, digest, size, transfer, .. } = *self;
        self.watcher.event(Event::Blob(BlobProgress { transfer, image, digest, size, position }));
    }
}

impl Drop for ShownBlob<'_> {
    fn drop(&mut self) {
        if self.ends {
            self.watcher.event(Event::BlobEnded(self.transfer));
        }
    }
}
