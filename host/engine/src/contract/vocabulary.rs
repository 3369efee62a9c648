//! The words in which transports and the host talk: requests, segments, steps and their outcomes.

use crate::{Result, Unpacked};
use bytes::Bytes;
use dray_core::{Address, Descriptor, Digest, Manifest};

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

/// A piece of a blob.
#[derive(Clone, Debug)]
pub enum Segment {
    /// The bytes themselves.
    Inline(Bytes),
    /// A range of a file of the place; no length: to its end.
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
        tar_split: String,
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
    /// Nobody but their owner may look into its files.
    pub private: bool,
    /// Its blobs may lie in another folder than its other files.
    pub separate_blobs: bool,
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
    /// An index may name children that are not there. `None` means that only trying tells.
    pub sparse: Option<bool>,
    /// Blobs belong to the place, not to a repository in it.
    pub shared: bool,
    /// It holds more than one image.
    pub many: bool,
    /// It keeps signatures beside manifests.
    pub signatures: bool,
    /// What it holds. `None` means everything.
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
        /// In bytes. `None` means to the end.
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

/// The result of a step.
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
