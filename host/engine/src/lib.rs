//! Moves the bytes of dray: HTTP, files, blobs, the planning and the run. It knows plugins as
//! traits; it never prints, reads the environment or exits.

mod blob;
pub mod contract;
pub mod decode;
mod error;
mod events;
pub mod files;
pub mod http;
mod inspect;
mod journal;
mod layer;
mod limits;
mod place;
mod plan;
mod run;
mod schedule;
mod secret;
pub mod tar;

pub use error::{Error, Kind, Result};
pub use events::{Event, Observer};
pub use inspect::{Image, list_repositories, list_tags, tag_digests};
pub use journal::{Journal, LazyJournal, RunRecord, Trimmed, Usage};
pub use layer::Unpacked;
#[cfg(fuzzing)]
pub use layer::fuzzing;
pub use limits::DOCUMENT_LIMIT;
pub use place::{DISK_WRITES, Local, Places, Repository};
pub use plan::{
    BoundRule, CopyRequest, Planned, PlannedCopy, bind, in_call, observe_again, plan, plan_copy, unknown,
};
pub use run::{Run, RunOptions};
pub use secret::Secret;

/// Locks, also where a panic left the lock behind: what it guards is never half changed.
fn lock<T>(mutex: &std::sync::Mutex<T>) -> std::sync::MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(|poisoned| poisoned.into_inner())
}

/// Does work that blocks on a thread of its own. `doing` says what it is, for the case that dray itself fails there.
///
/// # Errors
/// Fails with `Internal` if the work panics.
async fn blocking<T: Send + 'static>(doing: &str, work: impl FnOnce() -> T + Send + 'static) -> Result<T> {
    tokio::task::spawn_blocking(work).await.map_err(|error| Error::internal(format!("{doing}: {error}")))
}
