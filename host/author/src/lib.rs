//! The way of a plugin's author: makes a project that builds and passes its test as it is, and builds it.
//!
//! A project is a folder with `dray-plugin.toml` ([`Project`]). [`create()`] writes one, with the contract and the sources of the SDK, so
//! that no clone of dray is needed, and [`vendor`] writes those again; [`build`] calls the compiler of its language, and makes the component here.
//! Nothing in this crate runs a plugin: `dray-runtime` does (`trial`).

mod bindings;
mod compile;
mod component;
mod create;
mod project;
mod toolchain;

pub use compile::{Building, build};
pub use component::component;
pub use create::{Creation, create, vendor};
pub use project::{Kind, Language, Project};
pub use toolchain::{DEBIAN, TARGET, Toolchain};

/// A failure. Its text is a fragment that fits "failed to {text}".
#[derive(Debug, thiserror::Error)]
#[error("{text}")]
pub struct Error {
    /// What failed and why.
    pub text: String,
    /// What the user can do about it.
    pub help: Option<String>,
}

/// The result of this crate's functions.
pub type Result<T> = std::result::Result<T, Error>;

impl Error {
    fn new(text: impl Into<String>) -> Self {
        Error { text: text.into(), help: None }
    }

    fn help(self, help: impl Into<String>) -> Self {
        Error { help: Some(help.into()), ..self }
    }

    fn io(doing: impl std::fmt::Display, error: &std::io::Error) -> Self {
        Error::new(format!("{doing}: {error}"))
    }
}
