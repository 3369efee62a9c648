//! Moves the bytes of dray: HTTP, files, blobs, the planning and the run. It knows plugins as
//! traits; it never prints, reads the environment or exits.

pub mod bind;
mod blob;
mod claims;
mod compare;
mod conclude;
mod convert;
mod copy;
pub mod decode;
mod error;
mod events;
mod expand;
pub mod files;
mod graph;
pub mod http;
mod image;
mod journal;
mod mounts;
mod pace;
mod place;
mod planner;
pub mod plugin;
mod reach;
mod run;
mod secret;
mod shares;
pub mod tar;
mod transfer;
mod unpacked;

pub use bind::{BoundRule, bind};
pub use compare::{ImageChoice, Planned, PlannedCopy};
pub use copy::{CopyRequest, plan_copy};
pub use error::{Error, Kind, Result};
pub use events::{Event, Observer};
pub use image::{Image, list_tags};
pub use journal::{Journal, LazyJournal, RunRecord, Trimmed, Usage};
pub use place::{Local, Place, Places};
pub use planner::plan;
pub use run::{Run, RunOptions};
pub use secret::Secret;
pub use unpacked::Unpacked;
#[cfg(fuzzing)]
pub use unpacked::fuzzing;

/// The most bytes of an answer or file that dray holds in memory: manifests, configs, lists.
/// Registries must take manifests of 4 MiB (distribution specification, 4.4).
pub const DOCUMENT_LIMIT: usize = 8 << 20;

/// Locks, also where a panic left the lock behind: what it guards is never half changed.
fn lock<T>(mutex: &std::sync::Mutex<T>) -> std::sync::MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(|poisoned| poisoned.into_inner())
}
