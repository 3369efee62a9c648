//! Transports: what a kind of place can be asked, and what the host offers a transport for that.

use super::vocabulary::{
    Capabilities, Found, Incoming, NewName, NextStep, Outcome, Page, Parsed, RawManifest, Request, Response,
    Segment, TagPage,
};
use crate::{Result, files::Root};
use bytes::Bytes;
use dray_core::{Descriptor, Digest, Manifest, Naming};
use futures_util::future::BoxFuture;
use std::sync::Arc;

/// What the host offers a transport while it answers for one place: the name of the place, its host and its files, and
/// nothing of any other place.
pub trait TransportContext: Send + Sync {
    /// Canonical name of the place, as the transport returned it.
    fn location(&self) -> &str;
    /// Whether this run may change the place.
    fn is_destination(&self) -> bool;
    /// The files of the place. `None` means that the place has no files.
    fn files(&self) -> Option<&Arc<Root>>;
    /// Lets the place ask a host that belongs to its registry, such as that of a cloud's API. `trusted` says that it gets the
    /// login of the registry, if a request asks for that.
    fn lend(&self, host: &str, trusted: bool);
    /// Sends a small request to the host of the place, or to a host that was granted to the plugin.
    fn send<'a>(&'a self, request: &'a Request, body: Bytes) -> BoxFuture<'a, Result<Response>>;
    /// Downloads an archive, at most once in a run. Its members are then the files beneath `path`.
    fn download<'a>(&'a self, request: &'a Request, path: &'a str) -> BoxFuture<'a, Result<()>>;
    /// Sends the content of the place's temporary archive as the body of a request.
    fn send_archive<'a>(&'a self, request: &'a Request) -> BoxFuture<'a, Result<Response>>;
}

/// The context of one call of a transport.
pub type Context = Arc<dyn TransportContext>;

/// A kind of place. A function that a plugin does not offer fails with `Unsupported`.
pub trait Transport: Send + Sync {
    /// Name of the plugin.
    fn name(&self) -> &str;
    /// Whether the transport is built into dray, so that its folders and hosts need no grant.
    fn trusted(&self) -> bool;
    /// Hosts that are granted to the plugin in addition to the hosts that references name.
    fn granted_hosts(&self) -> &[String];
    /// Folders and archives that are granted to the plugin in addition to those that references name.
    fn granted_files(&self) -> &[std::path::PathBuf] {
        &[]
    }
    /// Whether its places are registries of the distribution specification, which may speak a dialect.
    fn has_dialects(&self) -> bool {
        false
    }
    /// Reads the part of a reference after `scheme:`. With `pattern`, the repository may contain glob characters.
    fn parse<'a>(
        &'a self,
        rest: &'a str,
        pattern: bool,
        registries: &'a [String],
    ) -> BoxFuture<'a, Result<Parsed>>;
    /// Lists the repositories of a place.
    fn repositories<'a>(
        &'a self,
        context: Context,
        next: Option<String>,
    ) -> BoxFuture<'a, Result<Page<String>>>;
    /// Lists the tags of a repository, with what they name as far as the place says that in a list.
    fn tags<'a>(
        &'a self,
        context: Context,
        repository: &'a str,
        next: Option<String>,
    ) -> BoxFuture<'a, Result<TagPage>>;
    /// Finds out what a tag or digest names now. `known` is the digest that it probably names.
    fn resolve<'a>(
        &'a self,
        context: Context,
        repository: &'a str,
        reference: Option<&'a str>,
        known: Option<&'a Digest>,
    ) -> BoxFuture<'a, Result<Found>>;
    /// Reads a manifest.
    fn fetch<'a>(
        &'a self,
        context: Context,
        repository: &'a str,
        reference: Option<&'a str>,
    ) -> BoxFuture<'a, Result<RawManifest>>;
    /// Lists the manifests that have this digest as their subject.
    fn referrers<'a>(
        &'a self,
        context: Context,
        repository: &'a str,
        subject: &'a Digest,
        next: Option<String>,
    ) -> BoxFuture<'a, Result<Page<Descriptor>>>;
    /// Says where the bytes of a blob are.
    fn locate<'a>(
        &'a self,
        context: Context,
        repository: &'a str,
        blob: &'a Descriptor,
    ) -> BoxFuture<'a, Result<Vec<Segment>>>;
    /// What the place can do as a destination.
    fn capabilities<'a>(&'a self, context: Context) -> BoxFuture<'a, Result<Capabilities>>;
    /// Decides on the next step of storing a blob.
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
    /// Whether several images can be named in one step.
    fn names_together(&self) -> bool {
        false
    }
    /// Names several images, whose manifests were published as children. The results are in the same order. Fails if it is not
    /// known which of them were named.
    fn name_together<'a>(
        &'a self,
        _context: Context,
        _names: &'a [NewName],
    ) -> BoxFuture<'a, Result<Vec<Result<()>>>> {
        Box::pin(async { Err(crate::Error::new(crate::Kind::Unsupported, "name several images at once")) })
    }
    /// Whether something may have to be made before a repository can be written to.
    fn provisions(&self) -> bool {
        false
    }
    /// Makes what must exist before a repository can be written to. Returns for what it exists now: a prefix that ends with a
    /// slash, or the repository. Fails with `Unsupported` if nothing ever has to be made.
    fn prepare<'a>(&'a self, _context: Context, _repository: &'a str) -> BoxFuture<'a, Result<String>> {
        Box::pin(async { Err(crate::Error::new(crate::Kind::Unsupported, "prepare a repository")) })
    }
    /// Takes a tag away. Fails with `Unsupported` if the place removes tags only together with their manifest, and may fail
    /// with `Conflict` if the tag does not name `expected`.
    fn delete_tag<'a>(
        &'a self,
        context: Context,
        repository: &'a str,
        tag: &'a str,
        expected: Option<&'a Digest>,
    ) -> BoxFuture<'a, Result<()>>;
    /// Removes a manifest with all tags that name it.
    fn delete_manifest<'a>(
        &'a self,
        context: Context,
        repository: &'a str,
        digest: &'a Digest,
    ) -> BoxFuture<'a, Result<()>>;
    /// Tidies up after the last image of a run that published something.
    fn finish<'a>(&'a self, context: Context) -> BoxFuture<'a, Result<()>>;
}
