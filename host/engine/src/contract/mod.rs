//! The contract between the engine and its plugins: the vocabulary of `wit/` as types and traits.

mod credentials;
mod dialect;
mod filter;
mod mapper;
mod observer;
mod secrets;
mod transport;
mod verifier;
mod vocabulary;

use crate::Result;
pub use credentials::{Body, Credential, Credentials, Key, Lookup, Reason, Signature, Unsigned};
pub use dialect::{Dialect, KnownBy, KnownTag, Offers, ScanReport, UntaggedManifest};
pub(crate) use filter::no_destination;
pub use filter::{Choice, Facts, Filter, Images, Known, Selection};
use futures_util::future::BoxFuture;
pub use mapper::Mapper;
pub use observer::{Happening, Observer};
pub use secrets::Secrets;
use std::sync::Arc;
pub use transport::{Context, Transport, TransportContext};
pub use verifier::{Evidence, Judgement, Verifier};
pub use vocabulary::{
    Access, Arrival, Capabilities, Files, Found, Holdings, Incoming, Listed, NewName, NextStep, Outcome,
    Page, Parsed, RawManifest, Request, Response, Segment, Step, TagPage,
};

/// Loads plugins by the scheme or the name by which they are used.
pub trait Plugins: Send + Sync {
    /// The transport for a scheme.
    fn transport<'a>(&'a self, scheme: &'a str) -> BoxFuture<'a, Result<Arc<dyn Transport>>>;
    /// The filter of a name. Its configuration is checked against its schema.
    fn filter<'a>(
        &'a self,
        name: &'a str,
        config: &'a serde_json::Value,
    ) -> BoxFuture<'a, Result<Arc<dyn Filter>>>;
    /// The mapper of a name. Its configuration is checked against its schema.
    fn mapper<'a>(
        &'a self,
        name: &'a str,
        config: &'a serde_json::Value,
    ) -> BoxFuture<'a, Result<Arc<dyn Mapper>>>;
    /// The observer of a name. Its configuration is checked against its schema.
    fn observer<'a>(
        &'a self,
        name: &'a str,
        config: &'a serde_json::Value,
    ) -> BoxFuture<'a, Result<Arc<dyn Observer>>>;
    /// The verifier of a name. Its configuration is checked against its schema.
    fn verifier<'a>(
        &'a self,
        name: &'a str,
        config: &'a serde_json::Value,
    ) -> BoxFuture<'a, Result<Arc<dyn Verifier>>>;
    /// The dialect of a registry. `None` means that the registry is of no known kind. Fails if the operator names a kind
    /// that does not exist.
    fn dialect<'a>(&'a self, by: KnownBy<'a>) -> BoxFuture<'a, Result<Option<Arc<dyn Dialect>>>>;
    /// The auth provider of a name. Its configuration is checked against its schema.
    fn auth<'a>(
        &'a self,
        name: &'a str,
        config: &'a serde_json::Value,
    ) -> BoxFuture<'a, Result<Arc<dyn Credentials>>>;
}
