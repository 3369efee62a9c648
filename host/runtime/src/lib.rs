//! Runs the plugins of dray: the only crate that names wasmtime. It loads components, links to
//! each what its kind may use, limits them, and adapts `wit/` to the traits of the engine.

mod adapt;
mod auth;
mod bindings;
mod builtin;
mod cache;
mod convert;
mod filter;
mod hosts;
mod load;
mod meter;
mod plugins;
mod schema;
mod state;
mod transport;

pub use cache::{Compiled, compiled, trim};
pub use load::{Info, Role};
pub use plugins::{Listed, Runtime, Settings};
pub use state::Secrets;
