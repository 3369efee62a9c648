//! Transports: what a kind of place can be asked, and what the host lends it for that.

use super::vocabulary::{
    Capabilities, Found, Incoming, NextStep, Outcome, Page, Parsed, RawManifest, Request, Response, Segment,
};
use crate::{Result, files::Root};
use bytes::Bytes;
use dray_core::{Descriptor, Digest, Manifest, Naming};
use futures_util::future::BoxFuture;
use std::sync::Arc;

/// What the host lends a transport while it answers for one place: the place's name, its host and its files, and
/// nothing of any other place.
pub trait TransportContext: Send + Sync {
    /// Canonical name of the place, as the transport gave it.
    fn location(&self) -> &str;
    /// Whether this run may change the place.
    fn is_destination(&self) -> bool;
    /// Its files, where it has any.
    fn files(&self) -> Option<&Arc<Root>>;
    /// Sends a small request to the host of the place, or to one that was granted.
    fn send<'a>(&'a self, request: &'a Request, body: Bytes) -> BoxFuture<'a, Result<Response>>;
    /// Downloads an archive, once a run: its members are then the files beneath `path`.
    fn download<'a>(&'a self, request: &'a Request, path: &'a str) -> BoxFuture<'a, Result<()>>;
    /// Sends what was written to the temporary archive of the place.
    fn send_archive<'a>(&'a self, request: &'a Request) -> BoxFuture<'a, Result<Response>>;
}

/// The context of one call.
pub type Context = Arc<dyn TransportContext>;

/// A kind of place. Functions that a plugin does not offer fail as unsupported.
pub trait Transport: Send + Sync {
    /// Name of the plugin.
    fn name(&self) -> &str;
    /// Built into dray: its roots and hosts need no grant.
    fn trusted(&self) -> bool;
    /// Hosts granted to the plugin beside those of its places.
    fn granted_hosts(&self) -> &[String];
    /// Folders and archives granted to the plugin beside those that references name.
    fn granted_files(&self) -> &[std::path::PathBuf] {
        &[]
    }
    /// Reads what stands behind `scheme:`.
    fn parse<'a>(
        &'a self,
        rest: &'a str,
        pattern: bool,
        registries: &'a [String],
    ) -> BoxFuture<'a, Result<Parsed>>;
    /// Repositories of a place.
    fn repositories<'a>(
        &'a self,
        context: Context,
        next: Option<String>,
    ) -> BoxFuture<'a, Result<Page<String>>>;
    /// Tags of a repository.
    fn tags<'a>(
        &'a self,
        context: Context,
        repository: &'a str,
        next: Option<String>,
    ) -> BoxFuture<'a, Result<Page<String>>>;
    /// What a tag or digest names now; `known` is what it is likely to name.
    fn resolve<'a>(
        &'a self,
        context: Context,
        repository: &'a str,
        reference: Option<&'a str>,
        known: Option<&'a Digest>,
    ) -> BoxFuture<'a, Result<Found>>;
    /// A manifest.
    fn fetch<'a>(
        &'a self,
        context: Context,
        repository: &'a str,
        reference: Option<&'a str>,
    ) -> BoxFuture<'a, Result<RawManifest>>;
    /// Manifests whose subject is this digest.
    fn referrers<'a>(
        &'a self,
        context: Context,
        repository: &'a str,
        subject: &'a Digest,
        next: Option<String>,
    ) -> BoxFuture<'a, Result<Page<Descriptor>>>;
    /// Where the bytes of a blob are.
    fn locate<'a>(
        &'a self,
        context: Context,
        repository: &'a str,
        blob: &'a Descriptor,
    ) -> BoxFuture<'a, Result<Vec<Segment>>>;
    /// What the place can do as a destination.
    fn capabilities<'a>(&'a self, context: Context) -> BoxFuture<'a, Result<Capabilities>>;
    /// The next step of storing a blob.
    fn store<'a>(
        &'a self,
        context: Context,
        repository: &'a str,
        incoming: &'a Incoming,
        state: Option<Vec<u8>>,
        last: Option<Outcome>,
    ) -> BoxFuture<'a, Result<NextStep>>;
    /// Publishes a manifest.
    fn publish<'a>(
        &'a self,
        context: Context,
        repository: &'a str,
        manifest: &'a Manifest,
        naming: &'a Naming,
    ) -> BoxFuture<'a, Result<()>>;
    /// After the last image of a run that published something.
    fn finish<'a>(&'a self, context: Context) -> BoxFuture<'a, Result<()>>;
}
