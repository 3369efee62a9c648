//! Converts between the types of the contract and those of the engine.

use crate::bindings::{
    guest,
    host::{types, writing},
};
use dray_core::{Address, Descriptor, Digest, Naming};
use dray_engine::{
    Error, Kind, Result, Unpacked,
    contract::{
        self, Access, Arrival, Capabilities, Files, Found, Holdings, Incoming, NextStep, Outcome,
        RawManifest, Segment, Step,
    },
    files::Change,
};
use std::time::Duration;

pub(crate) fn error(error: types::Error) -> Error {
    let (kind, text) = match error {
        types::Error::NotFound(text) | types::Error::NameUnknown(text) => (Kind::NotFound, text),
        types::Error::Missing(digests) => {
            let digests: Vec<String> =
                digests.into_iter().filter(|digest| digest.len() <= 200).take(1000).collect();
            let shown = digests.iter().take(3).cloned().collect::<Vec<_>>().join(", ");
            let text = format!("the destination misses what it names ({shown})");
            (Kind::Missing(digests), text)
        }
        types::Error::Unauthorized(text) => (Kind::Unauthorized, text),
        types::Error::Denied(text) | types::Error::Quota(text) => (Kind::Denied, text),
        types::Error::Conflict(text) => (Kind::Conflict, text),
        types::Error::Other((code, text)) => (Kind::Invalid, format!("{text} ({code})")),
        types::Error::RateLimited(wait) => {
            (Kind::RateLimited(wait.map(Duration::from_millis)), "too many requests".into())
        }
        types::Error::Transient(text) => (Kind::Transient, text),
        types::Error::Unsupported(text) => (Kind::Unsupported, text),
        types::Error::Invalid(text) | types::Error::TooLarge(text) => (Kind::Invalid, text),
    };
    // If the plugin passes on an error of the host, the text still contains the help of that error.
    match text.split_once(REMEDY) {
        Some((text, help)) => Error::new(kind, text).help(help),
        None => Error::new(kind, text),
    }
}

/// Separates the text of the host's error from its help while they pass through a guest (U+001F, unit separator).
const REMEDY: char = '\u{1f}';

/// The engine's error for a guest. The help is appended to the text, so that it is still there when the error comes
/// back.
pub(crate) fn to_guest(error: Error) -> types::Error {
    let text = match error.help {
        Some(help) => format!("{}{REMEDY}{help}", error.text),
        None => error.text,
    };
    match error.kind {
        Kind::NotFound => types::Error::NotFound(text),
        Kind::Missing(digests) => types::Error::Missing(digests),
        Kind::Unauthorized => types::Error::Unauthorized(text),
        Kind::Denied | Kind::Refused => types::Error::Denied(text),
        Kind::RateLimited(wait) => types::Error::RateLimited(wait.map(|wait| wait.as_millis() as u64)),
        Kind::Transient => types::Error::Transient(text),
        Kind::Conflict => types::Error::Conflict(text),
        Kind::Invalid
        | Kind::Corrupt
        | Kind::Io
        | Kind::Exhausted
        | Kind::Plugin
        | Kind::Cancelled
        | Kind::Internal => types::Error::Invalid(text),
        Kind::Unsupported => types::Error::Unsupported(text),
    }
}

/// A page of tags. A digest that is none counts as not told, because what a list says is only a hint.
pub(crate) fn tag_page(page: types::TagPage) -> contract::TagPage {
    let entry = |entry: types::TagEntry| contract::Listed {
        name: entry.name,
        digest: entry.digest.and_then(|digest| digest.parse().ok()),
        media_type: entry.media_type,
        size: entry.size,
        updated: entry.updated,
    };
    contract::TagPage {
        items: page.entries.into_iter().map(entry).collect(),
        next: page.next,
        behind: page.behind.map(Duration::from_millis),
    }
}

/// A tag of a list, for guests.
pub(crate) fn tag_entry(listed: contract::Listed) -> types::TagEntry {
    types::TagEntry {
        name: listed.name,
        digest: listed.digest.map(|digest| digest.to_string()),
        media_type: listed.media_type,
        size: listed.size,
        updated: listed.updated,
        extra: Vec::new(),
    }
}

pub(crate) fn request(request: types::Request) -> contract::Request {
    let access = request
        .access
        .into_iter()
        .map(|access| Access { repository: access.repository, actions: access.actions });
    contract::Request {
        method: request.method,
        url: Address::new(request.url),
        headers: request.headers,
        expect: request.expect,
        access: access.collect(),
    }
}

pub(crate) fn response(response: contract::Response) -> types::Response {
    types::Response {
        status: response.status,
        headers: response.headers,
        body: response.body.into(),
        url: response.url.expose().to_owned(),
    }
}

pub(crate) fn descriptor(descriptor: types::Descriptor) -> Result<Descriptor> {
    let digest: Digest = descriptor.digest.parse()?;
    let mut converted = Descriptor::new(descriptor.media_type, digest, descriptor.size);
    converted.artifact_type = descriptor.artifact_type;
    converted.annotations = descriptor.annotations.into_iter().collect();
    Ok(converted)
}

pub(crate) fn descriptor_to_guest(descriptor: &Descriptor) -> types::Descriptor {
    types::Descriptor {
        media_type: descriptor.media_type.clone(),
        digest: descriptor.digest.to_string(),
        size: descriptor.size,
        artifact_type: descriptor.artifact_type.clone(),
        annotations: descriptor.annotations.iter().map(|(key, value)| (key.clone(), value.clone())).collect(),
        extra: Vec::new(),
    }
}

pub(crate) fn found(found: guest::catalog::Found) -> Result<Found> {
    Ok(match found {
        guest::catalog::Found::Absent => Found::Absent,
        guest::catalog::Found::Named(named) => Found::Named(descriptor(named)?),
        guest::catalog::Found::Manifest(body) => Found::Manifest(manifest(body)),
        guest::catalog::Found::Unchanged => Found::Unchanged,
        guest::catalog::Found::OpaqueId(mark) => Found::OpaqueId(mark),
    })
}

pub(crate) fn manifest(body: types::Manifest) -> RawManifest {
    let types::Manifest { media_type, body, signatures } = body;
    RawManifest { media_type, body, signatures }
}

pub(crate) fn root(root: guest::references::Root) -> Files {
    match root {
        guest::references::Root::Folder(path) => Files::Folder(path),
        guest::references::Root::Archive(path) => Files::Archive(path),
        guest::references::Root::Temporary => Files::Temporary,
        guest::references::Root::Known(name) => Files::Known(name),
    }
}

pub(crate) fn capabilities(given: guest::sink::Capabilities) -> Capabilities {
    let holds = given.holds.map(|holds| Holdings {
        manifests: holds.manifests,
        plain: holds.plain,
        unpacked: holds.unpacked,
    });
    Capabilities {
        mount: given.mount,
        sparse: given.sparse,
        shared: given.shared,
        many: given.many,
        signatures: given.signatures,
        exclusive: given.exclusive,
        holds,
    }
}

pub(crate) fn segment(segment: types::Segment) -> Segment {
    match segment {
        types::Segment::Inline(bytes) => Segment::Inline(bytes.into()),
        types::Segment::File(range) => {
            Segment::File { path: range.path, offset: range.offset, length: range.length }
        }
        types::Segment::Http(asked) => Segment::Http(request(asked)),
        types::Segment::Unpacked(layer) => {
            Segment::Unpacked { folder: layer.folder, tar_split: layer.tar_split, size: layer.size }
        }
    }
}

pub(crate) fn incoming(incoming: &Incoming) -> guest::sink::Incoming {
    guest::sink::Incoming {
        blob: descriptor_to_guest(&incoming.blob),
        siblings: incoming.siblings.clone(),
        sized: incoming.sized,
        absent: incoming.absent,
        piece: incoming.piece,
        extra: Vec::new(),
    }
}

pub(crate) fn outcome(outcome: Outcome) -> guest::sink::Outcome {
    match outcome {
        Outcome::Response(answer) => guest::sink::Outcome::Response(response(answer)),
        Outcome::Written => guest::sink::Outcome::Written,
        Outcome::Unpacked(layer) => guest::sink::Outcome::Unpacked(facts(layer)),
        Outcome::Interrupted(why) => guest::sink::Outcome::Interrupted(why),
    }
}

pub(crate) fn facts(layer: Unpacked) -> types::LayerFacts {
    types::LayerFacts {
        digest: layer.digest.to_string(),
        size: layer.size,
        uids: layer.uids.into_iter().collect(),
        gids: layer.gids.into_iter().collect(),
    }
}

pub(crate) fn change(change: writing::Change) -> Change {
    match change {
        writing::Change::Replace((path, expected, content)) => Change::Replace { path, expected, content },
        writing::Change::Folder(path) => Change::Folder(path),
        writing::Change::Move((from, to)) => Change::Move(from, to),
        writing::Change::Symlink((path, target)) => Change::Symlink(path, target),
        writing::Change::Remove(path) => Change::Remove(path),
    }
}

pub(crate) fn next_step(next: guest::sink::NextStep) -> NextStep {
    let step = match next.step {
        guest::sink::Step::Ask(asked) => {
            Step::Ask { request: request(asked.request), body: asked.body.into() }
        }
        guest::sink::Step::Send(sending) => {
            Step::Send { request: request(sending.request), offset: sending.offset, length: sending.length }
        }
        guest::sink::Step::Write(path) => Step::Write(path),
        guest::sink::Step::Unpack(path) => Step::Unpack(path),
        guest::sink::Step::Finished(arrival) => Step::Finished(match arrival {
            guest::sink::Arrival::Present => Arrival::Present,
            guest::sink::Arrival::Mounted => Arrival::Mounted,
            guest::sink::Arrival::Stored => Arrival::Stored,
        }),
    };
    NextStep { step, state: next.state }
}

pub(crate) fn new_name(name: &contract::NewName) -> guest::naming_together::NewName {
    guest::naming_together::NewName {
        repository: name.repository.clone(),
        manifest: descriptor_to_guest(&name.manifest),
        tag: name.tag.clone(),
    }
}

pub(crate) fn naming(naming: &Naming) -> guest::sink::Naming {
    match naming {
        Naming::Child => guest::sink::Naming::Child,
        Naming::Root => guest::sink::Naming::Root,
        Naming::Tag(tag) => guest::sink::Naming::Tag(tag.clone()),
    }
}
