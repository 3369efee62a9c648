//! Runs the plugins of dray, and is the only crate that uses wasmtime. It loads components, links to each one what its
//! kind may use, limits its resources, and adapts `wit/` to the traits of the engine.
//!
//! A [`Runtime`] implements [`dray_engine::contract::Plugins`]: it finds a plugin by its name, or by the scheme that it
//! serves, among those of the policy and those that are built in. [`Settings`] say where compiled plugins are cached
//! and where secrets come from ([`Secrets`]).
//!
//! ```
//! use dray_core::policy::SecretRef;
//! use dray_engine::{Error, Kind, Result, Secret, contract::Plugins};
//! use dray_runtime::{Runtime, Secrets, Settings};
//! use std::sync::Arc;
//!
//! struct NoSecrets;
//!
//! impl Secrets for NoSecrets {
//!     fn get(&self, name: &SecretRef) -> Result<Secret> {
//!         Err(Error::new(Kind::NotFound, format!("read the secret {name}: there are none")))
//!     }
//!     fn auth_files(&self) -> Result<Vec<(String, Secret)>> {
//!         Ok(Vec::new())
//!     }
//! }
//!
//! # #[tokio::main(flavor = "multi_thread")]
//! # async fn main() -> Result<()> {
//! let runtime =
//!     Runtime::new(Settings { cache: None, plugins: Default::default(), secrets: Arc::new(NoSecrets) });
//! let transport = runtime.transport("oci").await?;
//! let parsed = transport.parse("images:1.2.0", false, &[]).await?;
//! assert_eq!((parsed.repository.as_str(), parsed.reference.as_deref()), ("images", Some("1.2.0")));
//! # Ok(())
//! # }
//! ```

mod adapt;
mod auth;
mod bindings;
mod builtin;
mod cache;
mod clouds;
mod convert;
mod dialect;
mod filter;
mod hosts;
mod load;
mod mapper;
mod memory;
mod meter;
mod observer;
mod plugins;
mod record;
mod schema;
mod state;
mod trace;
mod transport;
pub mod trial;
mod verifier;
mod wishes;

pub use cache::{Compiled, compiled, trim};
pub use clouds::METADATA;
pub use dray_engine::contract::Secrets;
pub use load::{Info, Role};
pub use plugins::{Listed, Runtime, Settings};
pub use record::{Answered, Heard, Recorded};
pub use trace::{Call, Tracer};
pub use wishes::{Wish, WishKind, narrowed};
