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
mod place;
mod plan;
mod run;
mod schedule;
mod secret;
pub mod tar;

pub use error::{Error, Kind, Result};
pub use events::{Event, Observer};
pub use inspect::{Image, list_tags};
pub use journal::{Journal, LazyJournal, RunRecord, Trimmed, Usage};
pub use layer::Unpacked;
#[cfg(fuzzing)]
pub use layer::fuzzing;
pub use place::{Local, Place, Places};
pub use plan::bind::{BoundRule, bind, in_call, unknown};
pub use plan::compare::{ImageChoice, Planned, PlannedCopy};
pub use plan::planner::plan;
pub use plan::single::{CopyRequest, plan_copy};
pub use run::{Run, RunOptions};
pub use secret::Secret;

/// The most bytes of an answer or file that dray holds in memory: manifests, configs, lists.
/// Registries must take manifests of 4 MiB (distribution specification, 4.4).
pub const DOCUMENT_LIMIT: usize = 8 << 20;

/// Locks, also where a panic left the lock behind: what it guards is never half changed.
fn lock<T>(mutex: &std::sync::Mutex<T>) -> std::sync::MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(|poisoned| poisoned.into_inner())
}
