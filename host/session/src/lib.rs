//! From a policy to a run. A [`Session`] brings a policy together with the machine that it finds itself on (an
//! [`Environment`]): plugins are loaded, places opened as they are needed, and folders that the policy names as
//! registries served. It then plans ([`Session::plan`]), carries a plan out ([`Session::run`]), and carries out a plan
//! that was saved ([`PlanFile`], [`Session::apply`]). dray's own command line, a daemon and anybody's program use it
//! alike.
//!
//! ```
//! use dray_engine::{Event, Observer, RunOptions};
//! use dray_session::{Environment, Record, Session};
//! use std::sync::Arc;
//!
//! struct Silent;
//! impl Observer for Silent {
//!     fn event(&self, _: Event<'_>) {}
//! }
//!
//! # #[tokio::main(flavor = "multi_thread")]
//! # async fn main() -> Result<(), Box<dyn std::error::Error>> {
//! # let folder = std::env::temp_dir();
//! let policy = dray_core::policy::parse("version = 1\n")?;
//! let session = Session::open(policy, &folder, Environment::bare(&folder)).await?;
//! let (_stop, stopped) = tokio::sync::watch::channel(false);
//! let record = Record { command: "embedded", policy: None };
//! let report = session.run(session.plan(), Arc::new(Silent), RunOptions::default(), record, stopped).await;
//! assert_eq!((report.summary.copied, report.summary.failed), (0, 0));
//! # Ok(())
//! # }
//! ```

pub mod artifact;
mod environment;
mod files;
mod open;
mod record;
mod saved;
pub mod system;

pub use environment::{Environment, NoSecrets, USER_AGENT, lazy_auth};
pub use files::{PolicyText, PolicyTexts, ReadPolicyError, read_policy};
pub use open::{OpenError, Session, planning};
pub use record::{Record, run};
pub use saved::{PlanFile, SavedPlan};
