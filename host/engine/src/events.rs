use crate::Error;
use dray_core::{Copy, CopyReport};
use std::time::Duration;

/// What happens during planning and running.
#[derive(Debug)]
#[non_exhaustive]
pub enum Event<'a> {
    /// An image's blobs begin to move.
    Started(&'a Copy),
    /// Blobs of so many bytes are about to be sent.
    Expected(u64),
    /// So many bytes were sent.
    Sent(u64),
    /// Bytes that had been expected need not be sent after all.
    Spared(u64),
    /// A blob was mounted instead of being sent.
    Mounted(u64),
    /// Something failed and is tried again.
    Retrying {
        /// What went wrong.
        error: &'a Error,
        /// Until the next attempt.
        after: Duration,
    },
    /// The result of a copy.
    Finished(&'a CopyReport),
}

/// Hears of events. Called often, from many tasks: it must be quick.
pub trait Observer: Send + Sync {
    /// Something happened.
    fn event(&self, event: Event<'_>);
}
