//! What plugins are to the engine: the vocabulary of `wit/` as traits.

use crate::{Place, Result, Secret, Unpacked};
use bytes::Bytes;
use dray_core::{Address, Descriptor, Digest, Manifest};
use futures_util::future::BoxFuture;
use std::{sync::Arc, time::Duration};

/// An HTTP request as a plugin wants it made.
#[derive(Clone, Debug, Default)]
pub struct Request {
    /// `GET`, …
    pub method: String,
    /// Always `https:`.
    pub url: Address,
    /// Without credentials.
    pub headers: Vec<(String, String)>,
    /// Statuses that are answers.
    pub expect: Vec<u16>,
    /// What it touches.
    pub access: Vec<Access>,
}

/// A repository and what is done to it.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Access {
    /// Its name.
    pub repository: String,
    /// `pull`, `push`, `delete`.
    pub actions: Vec<String>,
}

/// A small answer.
#[derive(Clone, Debug)]
pub struct Response {
    /// Status code.
    pub status: u16,
    /// Names in lower case.
    pub headers: Vec<(String, String)>,
    /// At most [`crate::DOCUMENT_LIMIT`] bytes.
    pub body: Bytes,
    /// Where it came from, after redirects.
    pub url: Address,
}

impl Response {
    /// What it says, for people.
    pub(crate) fn told(&self) -> String {
        let said = crate::http::explained(&self.body);
        let colon = if said.is_empty() { "" } else { ": " };
        // Plugins write `https` whatever is spoken.
        let shown = self.url.shown();
        let shown = shown.split_once("://").map_or(shown.as_str(), |(_, rest)| rest);
        format!("{shown} answered {}{colon}{said}", self.status)
    }
}

/// A piece of a blob.
#[derive(Clone, Debug)]
pub enum Segment {
    /// The bytes themselves.
    Inline(Bytes),
    /// A stretch of a file of the place; no length: to its end.
    File {
        /// Relative to the place's root.
        path: String,
        /// Bytes from its beginning.
        offset: u64,
        /// Bytes.
        length: Option<u64>,
    },
    /// The body of an answer.
    Http(Request),
    /// The tar of a layer that was unpacked, whatever compression the blob's type tells of.
    Unpacked {
        /// Folder of its files, relative to the place's root.
        folder: String,
        /// What tar-split recorded of it.
        recipe: String,
        /// Bytes of the tar.
        size: u64,
    },
}

/// What the files of a place are.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Files {
    /// Those of a folder.
    Folder(String),
    /// The members of a tar archive.
    Archive(String),
    /// An archive that only this run knows.
    Temporary,
    /// Those of a folder that the host knows by this name.
    Known(String),
}

/// How a transport reads a reference.
#[derive(Clone, Debug)]
pub struct Parsed {
    /// Canonical name of the place.
    pub location: String,
    /// Unique in its place.
    pub repository: String,
    /// Tag or digest.
    pub reference: Option<String>,
    /// The place's files.
    pub root: Option<Files>,
    /// `host[:port]` of the place.
    pub host: Option<String>,
}

/// What a tag or digest names.
#[derive(Clone, Debug)]
pub enum Found {
    /// Nothing.
    Absent,
    /// A manifest by its digest.
    Named(Descriptor),
    /// The manifest itself.
    Manifest(RawManifest),
    /// What was known.
    Unchanged,
    /// Something that tells only this of itself without being read.
    OpaqueId(String),
}

/// A manifest as a plugin gives it: not verified yet.
#[derive(Clone, Debug)]
pub struct RawManifest {
    /// What the place calls it; it may say nothing.
    pub media_type: String,
    /// The exact bytes.
    pub body: Vec<u8>,
    /// What is kept beside it.
    pub signatures: Vec<Vec<u8>>,
}

impl RawManifest {
    /// Verifies it against the digest that was asked for, and reads it.
    pub(crate) fn read(self, expected: Option<&Digest>) -> Result<Manifest> {
        let RawManifest { media_type, body, signatures } = self;
        Ok(Manifest { signatures, ..Manifest::parse(&media_type, body, expected)? })
    }
}

/// A part of a list.
#[derive(Clone, Debug)]
pub struct Page<T> {
    /// The entries.
    pub items: Vec<T>,
    /// How to ask for the next part.
    pub next: Option<String>,
}

/// What a place can do as a destination.
#[derive(Clone, Debug)]
pub struct Capabilities {
    /// A blob can be linked from another repository.
    pub mount: bool,
    /// An index may name children that are not there; none: it must be tried.
    pub sparse: Option<bool>,
    /// Blobs belong to the place, not to a repository in it.
    pub shared: bool,
    /// It holds more than one image.
    pub many: bool,
    /// It keeps signatures beside manifests.
    pub signatures: bool,
    /// What it holds; none: everything.
    pub holds: Option<Holdings>,
}

/// What a place holds that does not hold everything.
#[derive(Clone, Debug)]
pub struct Holdings {
    /// Media types of manifests, the preferred one first.
    pub manifests: Vec<String>,
    /// Layers are plain tar.
    pub plain: bool,
    /// Layers are unpacked when they are stored: manifests stay as they are, and what can be read
    /// again are plain tars.
    pub unpacked: bool,
}

/// A blob that is to be stored.
#[derive(Clone, Debug)]
pub struct Incoming {
    /// What it is.
    pub blob: Descriptor,
    /// Repositories to mount it from.
    pub siblings: Vec<String>,
    /// Its size is known; otherwise it is decompressed on its way.
    pub sized: bool,
    /// It is known not to be in this repository.
    pub absent: bool,
}

/// One step of storing a blob.
#[derive(Clone, Debug)]
pub enum Step {
    /// A request without a body.
    Ask(Request),
    /// A request whose body is the blob's bytes from `offset` on.
    Send {
        /// The request.
        request: Request,
        /// Bytes from the blob's beginning.
        offset: u64,
        /// Bytes; none: to its end.
        length: Option<u64>,
    },
    /// The blob becomes a file.
    Write(String),
    /// The blob is a layer, and is unpacked into a folder.
    Unpack(String),
    /// It is there.
    Finished(Arrival),
}

/// How a blob came to be there.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Arrival {
    /// It was there.
    Present,
    /// It was linked from another repository.
    Mounted,
    /// It was sent.
    Stored,
}

/// What came of a step.
#[derive(Clone, Debug)]
pub enum Outcome {
    /// The answer to a request.
    Response(Response),
    /// The file is there.
    Written,
    /// The folder is there.
    Unpacked(Unpacked),
    /// The step broke.
    Interrupted(String),
}

/// A step, and what the plugin wants to find again when it hears of its outcome.
#[derive(Clone, Debug)]
pub struct NextStep {
    /// What to do.
    pub step: Step,
    /// Opaque.
    pub state: Vec<u8>,
}

/// How a manifest is published.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Naming {
    /// By digest, for a parent that follows.
    Child,
    /// By digest.
    Root,
    /// Under a tag.
    Tag(String),
}

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
        place: &'a Arc<Place>,
        next: Option<String>,
    ) -> BoxFuture<'a, Result<Page<String>>>;
    /// Tags of a repository.
    fn tags<'a>(
        &'a self,
        place: &'a Arc<Place>,
        repository: &'a str,
        next: Option<String>,
    ) -> BoxFuture<'a, Result<Page<String>>>;
    /// What a tag or digest names now; `known` is what it is likely to name.
    fn resolve<'a>(
        &'a self,
        place: &'a Arc<Place>,
        repository: &'a str,
        reference: Option<&'a str>,
        known: Option<&'a Digest>,
    ) -> BoxFuture<'a, Result<Found>>;
    /// A manifest.
    fn fetch<'a>(
        &'a self,
        place: &'a Arc<Place>,
        repository: &'a str,
        reference: Option<&'a str>,
    ) -> BoxFuture<'a, Result<RawManifest>>;
    /// Manifests whose subject is this digest.
    fn referrers<'a>(
        &'a self,
        place: &'a Arc<Place>,
        repository: &'a str,
        subject: &'a Digest,
        next: Option<String>,
    ) -> BoxFuture<'a, Result<Page<Descriptor>>>;
    /// Where the bytes of a blob lie.
    fn locate<'a>(
        &'a self,
        place: &'a Arc<Place>,
        repository: &'a str,
        blob: &'a Descriptor,
    ) -> BoxFuture<'a, Result<Vec<Segment>>>;
    /// What the place can do as a destination.
    fn capabilities<'a>(&'a self, place: &'a Arc<Place>) -> BoxFuture<'a, Result<Capabilities>>;
    /// The next step of storing a blob.
    fn store<'a>(
        &'a self,
        place: &'a Arc<Place>,
        repository: &'a str,
        incoming: &'a Incoming,
        state: Option<Vec<u8>>,
        last: Option<Outcome>,
    ) -> BoxFuture<'a, Result<NextStep>>;
    /// Publishes a manifest.
    fn publish<'a>(
        &'a self,
        place: &'a Arc<Place>,
        repository: &'a str,
        manifest: &'a Manifest,
        naming: &'a Naming,
    ) -> BoxFuture<'a, Result<()>>;
    /// After the last image of a run that published something.
    fn finish<'a>(&'a self, place: &'a Arc<Place>) -> BoxFuture<'a, Result<()>>;
}

/// Facts about an image, for filters.
#[derive(Clone, Debug)]
pub struct Facts {
    /// Of the manifest.
    pub digest: String,
    /// Milliseconds since 1970.
    pub created: Option<i64>,
    /// Of the config.
    pub labels: Vec<(String, String)>,
    /// `os/architecture[/variant]`
    pub platforms: Vec<String>,
}

/// Where a filter learns facts about images.
pub trait Images: Send + Sync {
    /// As many facts as tags, in their order.
    fn inspect(&self, tags: Vec<String>) -> BoxFuture<'_, Result<Vec<Facts>>>;
}

/// Chooses tags.
pub trait Filter: Send + Sync {
    /// Indices of the tags to keep, in the order in which to copy; checked by the adapter.
    fn select<'a>(
        &'a self,
        repository: &'a str,
        tags: &'a [String],
        config: &'a str,
        images: Arc<dyn Images>,
    ) -> BoxFuture<'a, Result<Vec<usize>>>;
}

/// What opens a registry.
#[derive(Clone, Debug)]
pub enum Key {
    /// User and password.
    Basic(String, Secret),
    /// Traded for an access token at the registry's token endpoint.
    IdentityToken(Secret),
    /// Sent as it is.
    Bearer(Secret),
}

/// A key and where it is good.
#[derive(Clone, Debug)]
pub struct Credential {
    /// The key.
    pub key: Key,
    /// How long it may be kept.
    pub lifetime: Option<Duration>,
    /// The repository prefix that it serves; none: the whole registry.
    pub covers: Option<String>,
    /// Where it was found.
    pub origin: String,
}

/// Where credentials come from: a provider with its configuration bound to it.
pub trait Credentials: Send + Sync {
    /// None: nothing for that registry here.
    fn lookup<'a>(
        &'a self,
        registry: &'a str,
        repository: &'a str,
    ) -> BoxFuture<'a, Result<Option<Credential>>>;
}

/// Loads plugins by what they are needed for.
pub trait Plugins: Send + Sync {
    /// The transport of a scheme.
    fn transport<'a>(&'a self, scheme: &'a str) -> BoxFuture<'a, Result<Arc<dyn Transport>>>;
    /// A filter by name. Its configuration is checked against its schema.
    fn filter<'a>(
        &'a self,
        name: &'a str,
        config: &'a serde_json::Value,
    ) -> BoxFuture<'a, Result<Arc<dyn Filter>>>;
    /// An auth provider by name. Its configuration is checked against its schema.
    fn auth<'a>(
        &'a self,
        name: &'a str,
        config: &'a serde_json::Value,
    ) -> BoxFuture<'a, Result<Arc<dyn Credentials>>>;
}
