//! The one HTTP client of a run: credentials, redirects, retries, pacing, TLS.

mod auth;
mod body;
mod breaker;
mod client;
mod connect;
mod explain;
mod guard;
mod host;
mod lines;
mod pace;
mod permits;
mod pins;
mod proxy;
mod rate_limit;
mod reach;
mod remedy;
mod request;
mod retry;
mod settings;
mod stream;
mod trickle;

#[cfg(feature = "fuzzing")]
pub use auth::challenges_of;
pub(crate) use body::told;
pub use client::Client;
pub(crate) use lines::{Brought, Climb, Line, MEASURED, Next, SETTLING};
pub(crate) use pace::SHORT;
pub(crate) use permits::{Permits, permits, reserve};
pub use request::{HostAccess, PlaceHttp};
pub(crate) use retry::Backoff;
pub use settings::{
    Daemon, HostTls, Origin, Plain, Proxies, RegistrySettings, Settings, SystemTls, TlsSettings,
};
pub use stream::Reader;
pub(crate) use stream::{Download, Uploaded, feed, upload};
