//! The one HTTP client of a run: credentials, redirects, retries, pacing, TLS.

mod action;
mod allowance;
mod auth;
mod away;
mod clients;
mod guard;
mod host;
mod line;
mod retry;
mod send;
mod settings;
mod stream;
mod window;

pub(crate) use line::{Expected, Load};
pub(crate) use retry::Backoff;
pub use send::PlaceHttp;
pub(crate) use send::{Permits, expect, permits};
pub use settings::{Client, Daemon, Origin, Plain, Proxies, RegistrySettings, Settings, TlsSettings};
pub(crate) use stream::{Download, feed, upload};
