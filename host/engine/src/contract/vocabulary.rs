//! The types that transports and the host exchange: requests, segments, steps and their outcomes.

use crate::{Result, Unpacked};
use bytes::Bytes;
use dray_core::{Address, Descriptor, Digest, Manifest};
use std::time::Duration;

/// An HTTP request that the host makes for a plugin.
#[derive(Clone, Debug, Default)]
pub struct Request {
    /// The method, for example `GET`.
    pub method: String,
    /// The URL. It is always `https:`.
    pub url: Address,
    /// Headers without credentials.
    pub headers: Vec<(String, String)>,
    /// The status codes that the plugin takes as answers.
    pub expect: Vec<u16>,
    /// The repositories that the request touches.
    pub access: Vec<Access>,
}

/// A repository, and what a request does to it.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Access {
    /// Name of the repository.
    pub repository: String,
    /// `pull`, `push` or `delete`.
    pub actions: Vec<String>,
}

/// A small HTTP response.
#[derive(Clone, Debug)]
pub struct Response {
    /// Status code.
    pub status: u16,
    /// Headers. The names are in lower case.
    pub headers: Vec<(String, String)>,
    /// Body of at most [`crate::DOCUMENT_LIMIT`] bytes.
    pub body: Bytes,
    /// Where the response came from, after redirects.
    pub url: Address,
}

/// A piece of a blob.
#[derive(Clone, Debug)]
pub enum Segment {
    /// The bytes themselves.
    Inline(Bytes),
    /// A range of a file of the place.
    File {
        /// Path, relative to the root of the place.
        path: String,
        /// Offset in bytes.
        offset: u64,
        /// Length in bytes. `None` means to the end of the file.
        length: Option<u64>,
    },
    /// The body of the response to a request.
    Http(Request),
    /// The tar of an unpacked layer. It is not compressed, whatever the media type of the blob says.
    Unpacked {
        /// Folder of its files, relative to the root of the place.
        folder: String,
        /// Path of its tar-split file.
        tar_split: String,
        /// Size of the tar in bytes.
        size: u64,
    },
}

/// Where the files of a place are.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Files {
    /// In the folder at this path.
    Folder(String),
    /// In the tar archive at this path.
    Archive(String),
    /// In a temporary archive of this run.
    Temporary,
    /// In the folder that the host knows by this name.
    Known(String),
}

/// A reference as a transport reads it.
#[derive(Clone, Debug)]
pub struct Parsed {
    /// Canonical name of the place.
    pub location: String,
    /// Name of the repository, which is unique in its place.
    pub repository: String,
    /// Tag or digest.
    pub reference: Option<String>,
    /// Where the files of the place are. `None` means that it has no files.
    pub root: Option<Files>,
    /// `host[:port]` of the place. `None` means that it has no host.
    pub host: Option<String>,
    /// Whether only the owner of the files may look into them.
    pub private: bool,
    /// Whether its blobs may be in another folder than its other files.
    pub separate_blobs: bool,
}

/// What a tag or digest names.
#[derive(Clone, Debug)]
pub enum Found {
    /// It names nothing.
    Absent,
    /// It names the manifest with this digest.
    Named(Descriptor),
    /// It names this manifest.
    Manifest(RawManifest),
    /// It names the digest that was passed as `known`.
    Unchanged,
    /// It names an image that the place identifies only by this opaque identifier until the image is read.
    OpaqueId(String),
}

/// A manifest as a plugin returns it. It is not verified yet.
#[derive(Clone, Debug)]
pub struct RawManifest {
    /// Media type that the place reports. It may be empty.
    pub media_type: String,
    /// The exact bytes.
    pub body: Vec<u8>,
    /// Signatures that the place keeps beside the manifest.
    pub signatures: Vec<Vec<u8>>,
}

impl RawManifest {
    /// Parses the manifest, and verifies it if a digest was asked for.
    pub(crate) fn read(self, expected: Option<&Digest>) -> Result<Manifest> {
        let RawManifest { media_type, body, signatures } = self;
        Ok(Manifest { signatures, ..Manifest::parse(&media_type, body, expected)? })
    }
}

/// A page of a list.
#[derive(Clone, Debug)]
pub struct Page<T> {
    /// The entries.
    pub items: Vec<T>,
    /// The token that gets the next page. `None` means that this is the last one.
    pub next: Option<String>,
}

/// A tag in a list, with what the list says of it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Listed {
    /// The tag.
    pub name: String,
    /// The digest of the manifest that it names.
    pub digest: Option<Digest>,
    /// The media type of that manifest.
    pub media_type: Option<String>,
    /// The size of that manifest in bytes.
    pub size: Option<u64>,
    /// When the tag was last set, in milliseconds since 1970.
    pub updated: Option<u64>,
}

impl Listed {
    /// A tag of which nothing else is known.
    pub fn name(name: impl Into<String>) -> Self {
        Listed { name: name.into(), digest: None, media_type: None, size: None, updated: None }
    }
}

/// A page of the tags of a repository.
#[derive(Clone, Debug)]
pub struct TagPage {
    /// The tags.
    pub items: Vec<Listed>,
    /// As in [`Page`].
    pub next: Option<String>,
    /// For how long a change may be missing in the list. `None` means that it is current.
    pub behind: Option<Duration>,
}

/// What a place can do as a destination.
#[derive(Clone, Debug)]
pub struct Capabilities {
    /// A blob can be mounted from another repository.
    pub mount: bool,
    /// An index may name children that the place does not hold. `None` means that only trying tells.
    pub sparse: Option<bool>,
    /// All repositories of the place share their blobs.
    pub shared: bool,
    /// The place holds more than one image.
    pub many: bool,
    /// The place keeps signatures beside manifests.
    pub signatures: bool,
    /// Only one image may be published at a time.
    pub exclusive: bool,
    /// The forms that the place holds. `None` means that it holds every form.
    pub holds: Option<Holdings>,
}

/// The forms that a place holds if it does not hold every form.
#[derive(Clone, Debug)]
pub struct Holdings {
    /// Media types of manifests, in the order of preference.
    pub manifests: Vec<String>,
    /// Layers must be uncompressed tars.
    pub plain: bool,
    /// The place unpacks layers when it stores them. Manifests stay as they are, and what can be read of a layer later
    /// is its uncompressed tar.
    pub unpacked: bool,
}

/// A name that an image gets whose manifest the place holds.
#[derive(Clone, Debug)]
pub struct NewName {
    /// Repository in which the image gets it.
    pub repository: String,
    /// The manifest.
    pub manifest: Descriptor,
    /// `None` means that it becomes an image without a tag.
    pub tag: Option<String>,
}

/// A blob that is to be stored.
#[derive(Clone, Debug)]
pub struct Incoming {
    /// Descriptor of the blob.
    pub blob: Descriptor,
    /// Repositories of the place from which the blob can be mounted.
    pub siblings: Vec<String>,
    /// Whether the size is known. If it is not, the blob is decompressed while it is stored.
    pub sized: bool,
    /// Whether it is known that this repository does not hold the blob.
    pub absent: bool,
    /// How many bytes a request should carry at most, because the line is slow. `None` means as many as the place
    /// likes.
    pub piece: Option<u64>,
}

/// One step of storing a blob.
#[derive(Clone, Debug)]
pub enum Step {
    /// A request with a small body, which may be empty.
    Ask {
        /// The request.
        request: Request,
        /// Its body.
        body: Bytes,
    },
    /// A request with a range of the blob as its body.
    Send {
        /// The request.
        request: Request,
        /// Where the range begins, in bytes from the beginning of the blob.
        offset: u64,
        /// Length in bytes. `None` means to the end of the blob.
        length: Option<u64>,
    },
    /// The blob is written to the file at this path.
    Write(String),
    /// The blob is a layer, and is unpacked into the folder at this path.
    Unpack(String),
    /// The repository holds the blob.
    Finished(Arrival),
}

/// How a blob came to be in a repository.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Arrival {
    /// It was there before.
    Present,
    /// It was mounted from another repository.
    Mounted,
    /// It was stored.
    Stored,
}

/// The result of a step.
#[derive(Clone, Debug)]
pub enum Outcome {
    /// The response to a request.
    Response(Response),
    /// The file has been written.
    Written,
    /// The layer has been unpacked.
    Unpacked(Unpacked),
    /// The step was interrupted. The text says why.
    Interrupted(String),
}

/// A step, and the state that the plugin gets back with the outcome of the step.
#[derive(Clone, Debug)]
pub struct NextStep {
    /// The step to carry out.
    pub step: Step,
    /// The state of the plugin. Only the plugin can read it.
    pub state: Vec<u8>,
}
