//! From a policy to a run. A [`Session`] brings a policy together with the machine that it finds itself on (an
//! [`Environment`]): plugins are loaded, places opened as they are needed, and folders that the policy names as
//! registries served. It then plans ([`Session::plan`]), carries a plan out ([`Session::run`]), and carries out a plan
//! that was saved ([`PlanFile`], [`Session::apply`]). dray's own command line, a daemon and anybody's program use it
//! alike.
//!
//! A program that embeds dray needs little more than this:
//!
//! ```
//! use dray_engine::{Event, Watcher};
//! use dray_session::{Environment, Session};
//! use std::{path::Path, sync::Arc};
//!
//! struct Silent;
//! impl Watcher for Silent {
//!     fn event(&self, _: Event<'_>) {}
//! }
//!
//! # #[tokio::main(flavor = "multi_thread")]
//! # async fn main() -> Result<(), Box<dyn std::error::Error>> {
//! # let folder = tempfile::tempdir()?;
//! # let path = folder.path().join("dray.toml");
//! # std::fs::write(&path, "version = 1\n")?;
//! let environment = Environment::bare(folder.path());
//! // What `${env:NAME}` in the policy stands for.
//! let variables = |_name: &str| None;
//! let session = Session::from_policy(&path, &variables, environment).await?;
//! // Whoever sends `true` stops the run.
//! let (_stop, stopped) = tokio::sync::watch::channel(false);
//! let report = session.sync(Arc::new(Silent), stopped).await;
//! assert_eq!((report.summary.copied, report.summary.failed), (0, 0));
//! # Ok(())
//! # }
//! ```
//!
//! [`Session::open`] takes a policy that is built in code, [`Session::copy`] copies one image, [`Session::plan`] and [`Session::run`] stand
//! apart for programs that look at a plan first, and `Environment::transports` has transports in Rust
//! (`examples/embed/src/banner.rs`). Without the feature `plugins`, a program has only such transports: it needs no wasmtime then,
//! and runs no component, not even those that are built into dray. What this crate offers changes only with its version, as SemVer has it; the crates beneath it change
//! as dray needs.

#[cfg(feature = "plugins")]
pub mod artifact;
#[cfg_attr(not(feature = "plugins"), path = "no_components.rs")]
mod components;
mod environment;
mod facade;
mod files;
mod lazy;
mod native;
mod observing;
mod open;
mod record;
mod saved;
pub mod system;

pub use environment::{Environment, NoSecrets, USER_AGENT};
pub use files::{PolicyText, PolicyTexts, ReadPolicyError, read_policy};
pub use lazy::lazy_auth;
pub use open::{OpenError, Session, planning};
pub use record::{Record, run};
pub use saved::{PlanFile, SavedPlan};
