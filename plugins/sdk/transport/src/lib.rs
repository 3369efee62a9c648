//! Write transports for dray: kinds of place from which images are read and to which they are written.
//!
//! A transport that can only be read uses the crate `dray-plugin-source` instead.
#![allow(missing_docs)]

dray_plugin::role!("transport", "dray_plugin_transport");

mod docker_names;
pub mod layout;
pub mod together;

pub use docker_names::{full, tagged};
pub use dray_plugin::{serde, serde_json};

use dray::plugin::{
    files,
    types::{Descriptor, FileRange, Manifest, TagEntry},
};
use exports::dray::plugin::{
    references::{Parsed, Root},
    sink::{Arrival, Asking, Incoming, NextStep, Outcome, Step},
};

/// The description of a transport that has no configuration.
pub fn info(name: &str, version: &str, summary: &str, schemes: &[&str]) -> Info {
    Info {
        name: name.into(),
        version: version.into(),
        summary: summary.into(),
        schemes: schemes.iter().map(ToString::to_string).collect(),
        config_schema: r#"{"type":"object","additionalProperties":false}"#.into(),
        wishes: Vec::new(),
        extra: Vec::new(),
    }
}

/// An entry of a list of which only the name is known.
pub fn only_name(name: String) -> TagEntry {
    TagEntry { name, digest: None, media_type: None, size: None, updated: None, extra: Vec::new() }
}

/// Implements `listing` for a transport whose lists have only names, by its `catalog`.
#[macro_export]
macro_rules! lists_names {
    ($transport:ident) => {
        impl $crate::exports::dray::plugin::listing::Guest for $transport {
            fn tags(
                location: String,
                repository: String,
                next: Option<String>,
            ) -> Result<$crate::dray::plugin::types::TagPage, $crate::Error> {
                use $crate::{dray::plugin::types::TagPage, exports::dray::plugin::catalog::Guest};
                let page = <$transport as Guest>::tags(location, repository, next)?;
                let entries = page.names.into_iter().map($crate::only_name).collect();
                Ok(TagPage { entries, next: page.next, behind: None })
            }
        }
    };
}

/// Implements `provision` for a transport whose repositories need nothing before they are written to.
#[macro_export]
macro_rules! prepares_nothing {
    ($transport:ident) => {
        impl $crate::exports::dray::plugin::provision::Guest for $transport {
            fn prepare(_location: String, _repository: String) -> Result<String, $crate::Error> {
                Err($crate::Error::Unsupported("prepare a repository: it needs nothing".into()))
            }
        }
    };
}

/// Implements `removal` for a transport that removes no images. `$why` says what to do instead.
#[macro_export]
macro_rules! removes_nothing {
    ($transport:ident, $why:expr) => {
        impl $crate::exports::dray::plugin::removal::Guest for $transport {
            fn delete_tag(
                _location: String,
                _repository: String,
                _tag: String,
                _expected: Option<String>,
            ) -> Result<(), $crate::Error> {
                Err($crate::Error::Unsupported(concat!("remove images: ", $why).into()))
            }

            fn delete_manifest(
                _location: String,
                _repository: String,
                _digest: String,
            ) -> Result<(), $crate::Error> {
                Err($crate::Error::Unsupported(concat!("remove images: ", $why).into()))
            }
        }
    };
}

/// A step that sends a request without a body.
pub fn ask(request: dray::plugin::types::Request) -> Step {
    Step::Ask(Asking { request, body: Vec::new() })
}

/// The value of a header, by its name in lower case.
pub fn header<'a>(response: &'a dray::plugin::types::Response, name: &str) -> Option<&'a str> {
    response.headers.iter().find(|(key, _)| key == name).map(|(_, value)| value.as_str())
}

/// The last component of a path.
pub fn last(path: &str) -> &str {
    path.rsplit('/').next().unwrap_or(path)
}

/// A place with its files at a path. It holds one repository, which has the name of the last component.
pub fn at_path(path: &str, root: Root, reference: Option<&str>) -> Parsed {
    Parsed {
        extra: Vec::new(),
        location: path.into(),
        repository: last(path).into(),
        reference: reference.map(str::to_owned),
        root: Some(root),
        host: None,
        private: false,
        separate_blobs: false,
    }
}

/// A manifest without signatures beside it.
pub fn unsigned(media_type: impl Into<String>, body: Vec<u8>) -> Manifest {
    Manifest { media_type: media_type.into(), body, signatures: Vec::new() }
}

/// The range of a whole file.
pub fn whole(path: &str) -> FileRange {
    FileRange { path: path.into(), offset: 0, length: None }
}

/// The content of a small file. `None` means that the file does not exist.
pub fn read(path: &str) -> Result<Option<Vec<u8>>, Error> {
    match files::read(&whole(path)) {
        Ok(bytes) => Ok(Some(bytes)),
        Err(Error::NotFound(_)) => Ok(None),
        Err(error) => Err(error),
    }
}

/// Splits a digest into its algorithm and its hash. It is checked, so it cannot lead elsewhere as part of a
/// path.
pub fn digest(digest: &str) -> Result<(&str, &str), Error> {
    let good = digest.split_once(':').filter(|(algorithm, hex)| {
        matches!((*algorithm, hex.len()), ("sha256", 64) | ("sha512", 128))
            && hex.bytes().all(|byte| matches!(byte, b'0'..=b'9' | b'a'..=b'f'))
    });
    good.ok_or_else(|| Error::Invalid(format!("`{digest}` is no digest")))
}

/// What a manifest names: manifests, and blobs.
#[derive(Debug, Default, PartialEq)]
pub struct Named {
    pub manifests: Vec<Descriptor>,
    pub blobs: Vec<String>,
}

/// What a manifest names. `None` means that it is neither an image nor an index, so this is not known.
pub fn named(body: &[u8]) -> Option<Named> {
    let manifest: serde_json::Value = serde_json::from_slice(body).ok()?;
    let digest = |entry: &serde_json::Value| entry.get("digest")?.as_str().map(str::to_owned);
    if let Some(children) = manifest.get("manifests").and_then(|children| children.as_array()) {
        let child = |entry: &serde_json::Value| {
            Some(Descriptor {
                extra: Vec::new(),
                media_type: entry.get("mediaType")?.as_str()?.into(),
                digest: digest(entry)?,
                size: entry.get("size")?.as_u64()?,
                artifact_type: None,
                annotations: Vec::new(),
            })
        };
        return Some(Named {
            manifests: children.iter().map(child).collect::<Option<_>>()?,
            blobs: Vec::new(),
        });
    }
    let layers = manifest.get("layers")?.as_array()?;
    let blobs = layers.iter().chain(manifest.get("config")).map(digest).collect::<Option<_>>()?;
    Some(Named { manifests: Vec::new(), blobs })
}

/// The SHA-256 digest of some bytes.
pub fn sha256(bytes: &[u8]) -> String {
    use sha2::Digest;
    format!("sha256:{}", hex::encode(sha2::Sha256::digest(bytes)))
}

/// Whether a reference is a digest rather than a tag.
pub fn is_digest(reference: &str) -> bool {
    digest(reference).is_ok()
}

/// The next step of storing a blob as a file, for every place that consists of files. `prepare` is called
/// before the file is written.
pub fn store_file(
    path: String,
    incoming: &Incoming,
    last: Option<Outcome>,
    prepare: impl FnOnce() -> Result<(), Error>,
) -> Result<NextStep, Error> {
    let there = |size| !incoming.sized || size == incoming.blob.size;
    let step = match last {
        Some(Outcome::Written) => Step::Finished(Arrival::Stored),
        _ if files::stat(&path)?.is_some_and(there) => Step::Finished(Arrival::Present),
        _ => {
            prepare()?;
            Step::Write(path)
        }
    };
    Ok(NextStep { step, state: Vec::new() })
}

/// Splits `name:tag` into the name and the tag, if there is one. The name may begin with a host and its port.
pub fn split_tag(name: &str) -> (&str, Option<&str>) {
    let start = name.rfind('/').map_or(0, |slash| slash + 1);
    match name[start..].split_once(':') {
        Some((last, tag)) => (&name[..start + last.len()], Some(tag)),
        None => (name, None),
    }
}
