//! The one HTTP client of a run: credentials, redirects, retries, pacing, TLS.

mod action;
mod allowance;
mod auth;
mod away;
mod clients;
mod guard;
mod host;
mod line;
mod pins;
mod proxy;
mod rate;
mod retry;
mod said;
mod send;
mod settings;
mod stream;
mod window;

#[cfg(fuzzing)]
pub use auth::challenges_of;
pub(crate) use line::{Expected, Load};
pub(crate) use retry::Backoff;
pub(crate) use said::explained;
pub use send::{HostAccess, PlaceHttp};
pub(crate) use send::{Permits, expect, permits};
pub use settings::{Client, Daemon, Origin, Plain, Proxies, RegistrySettings, Settings, TlsSettings};
pub use stream::Reader;
pub(crate) use stream::{Download, Uploaded, feed, upload};
