//! The engine of dray, which moves the bytes: HTTP, files, blobs, planning and running. It knows plugins as traits. It
//! never prints, reads the environment or exits.
//!
//! [`contract`] says what a plugin is. [`Places`] opens places through transports, and everything in a place is read
//! and written through a [`Repository`]. [`bind`] brings a policy and its plugins together, [`plan()`] makes a stream
//! of [`Planned`] items, and a [`Run`] carries them out and reports to a [`Watcher`]. The [`Journal`] remembers runs.
//! `dray_session` puts all of this together; use it unless you bring your own plugins.
//!
//! ```
//! use dray_core::{Report, policy::{Policy, PolicyError}};
//! use dray_engine::{Event, Local, Watcher, Places, Run, RunOptions, bind, contract::Plugins, http::Client, plan};
//! use std::{path::Path, sync::{Arc, atomic::{AtomicU64, Ordering}}};
//! use tokio::sync::{mpsc, watch};
//!
//! /// Counts the bytes that are sent.
//! #[derive(Default)]
//! struct Counter(AtomicU64);
//!
//! impl Watcher for Counter {
//!     fn event(&self, event: Event<'_>) {
//!         if let Event::Sent(bytes) = event {
//!             self.0.fetch_add(bytes, Ordering::Relaxed);
//!         }
//!     }
//! }
//!
//! /// Carries out a policy with custom plugins.
//! async fn sync(policy: &Policy, plugins: Arc<dyn Plugins>, local: Local) -> Result<Report, PolicyError> {
//!     let client = Client::new(Default::default());
//!     let places = Places::new(plugins, client, Path::new("/srv/mirror"), local);
//!     let rules = bind(policy, &places).await?;
//!     let (sender, items) = mpsc::channel(64);
//!     tokio::spawn(plan(rules, places, None, sender));
//!     let (_stop, stopped) = watch::channel(false);
//!     let run = Run::new(Arc::new(Counter::default()), RunOptions::default());
//!     Ok(run.carry_out(items, stopped).await)
//! }
//! ```

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
mod remove;
mod run;
mod schedule;
mod secret;
pub mod tar;
mod trust;

pub use blob::STOP_GRACE;
pub use error::{Error, Kind, Result};
pub use events::{BlobProgress, Event, Watcher};
pub use inspect::{Image, RegistryInfo, list_repositories, list_tags, registry_info, tag_digests};
pub use journal::{Journal, LazyJournal, RunRecord, TagChanged, Trimmed, Usage};
pub use layer::Unpacked;
#[cfg(feature = "fuzzing")]
pub use layer::fuzzing;
pub use limits::DOCUMENT_LIMIT;
pub use place::{DISK_WRITES, Local, Places, Repository};
pub use plan::{
    BoundRetain, BoundRule, CopyRequest, Planned, PlannedCopy, PlannedDeletion, SourceTags, SparseIndex,
    bind, bind_retains, delete_again, in_call, observe_again, plan, plan_copy, plan_retention, source_tags,
    unknown,
};
pub use remove::{PutBack, RemoveOptions, Removed, put_back, remove};
pub use run::{Run, RunOptions};
pub use secret::Secret;
pub use trust::{
    Demand, FoundSignature, Verified, attach, check_attachable, check_demands, forget_signatures,
    is_demanded, kept_signatures, manifests_of, read_key, signatures, signed, verify,
};

/// Locks a mutex, even if a thread panicked while it held the lock: what it protects is never left half changed.
fn lock<T>(mutex: &std::sync::Mutex<T>) -> std::sync::MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(|poisoned| poisoned.into_inner())
}

/// Seconds since 1970.
fn now() -> i64 {
    let since = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH);
    since.map_or(0, |since| since.as_secs() as i64)
}

/// Does blocking work on a thread of its own. `doing` names the work in the error that is returned if it panics.
///
/// # Errors
/// Fails with `Internal` if the work panics.
async fn blocking<T: Send + 'static>(doing: &str, work: impl FnOnce() -> T + Send + 'static) -> Result<T> {
    tokio::task::spawn_blocking(work).await.map_err(|error| Error::internal(format!("{doing}: {error}")))
}
