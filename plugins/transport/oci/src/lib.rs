//! `oci:`: OCI image layouts (OCI image specification, image layout).

mod index;

use dray_plugin_transport::{
    Error, Info, Meta,
    dray::plugin::{
        files,
        types::{Descriptor, FileRange, Manifest, Segment},
    },
    export,
    exports::dray::plugin::{
        catalog::{self, Found, Page},
        references::{self, Parsed},
        sink::{self, Abilities, Finish, Incoming, Naming, Outcome, Step, Turn},
        source::{self, ReferrersPage},
    },
};
use index::{Index, entry};

const LAYOUT: &str = "oci-layout";
const LAYOUT_CONTENT: &[u8] = br#"{"imageLayoutVersion":"1.0.0"}"#;
const INDEX: &str = "index.json";

struct Oci;

impl Meta for Oci {
    fn describe() -> Info {
        Info {
            name: "oci".into(),
            version: env!("CARGO_PKG_VERSION").into(),
            summary: "OCI image layouts: oci:PATH[:TAG|@DIGEST]".into(),
            schemes: vec!["oci".into()],
            config_schema: r#"{"type":"object","additionalProperties":false}"#.into(),
        }
    }
}

impl references::Guest for Oci {
    /// As in skopeo, the path ends at the first colon, and a tag may hold more of them.
    fn parse(rest: String, _pattern: bool, _registries: Vec<String>) -> Result<Parsed, Error> {
        let digest = rest.find("@sha256:").or_else(|| rest.find("@sha512:"));
        let (path, reference) = match (digest, rest.split_once(':')) {
            (Some(at), _) => (&rest[..at], Some(&rest[at + 1..])),
            (None, Some((path, tag))) => (path, Some(tag)),
            (None, None) => (rest.as_str(), None),
        };
        let path = path.trim_end_matches('/');
        if path.is_empty() {
            return Err(Error::Invalid(format!("`oci:{rest}` names no folder: oci:PATH[:TAG]")));
        }
        if reference.is_some_and(str::is_empty) {
            return Err(Error::Invalid(format!(
                "`oci:{rest}` ends with a colon: write the tag behind it, or leave it out"
            )));
        }
        let name = path.rsplit('/').next().unwrap_or(path);
        Ok(Parsed {
            location: path.into(),
            repository: name.into(),
            reference: reference.map(str::to_owned),
            root: Some(path.into()),
            host: None,
        })
    }
}

/// Where a digest's content lies. The digest is checked, so that it cannot lead elsewhere.
fn blob_file(digest: &str) -> Result<String, Error> {
    let good = digest.split_once(':').filter(|(algorithm, hex)| {
        matches!((*algorithm, hex.len()), ("sha256", 64) | ("sha512", 128))
            && hex.bytes().all(|byte| matches!(byte, b'0'..=b'9' | b'a'..=b'f'))
    });
    match good {
        Some((algorithm, hex)) => Ok(format!("blobs/{algorithm}/{hex}")),
        None => Err(Error::Invalid(format!("`{digest}` is no digest"))),
    }
}

fn whole(path: &str) -> FileRange {
    FileRange { path: path.into(), offset: 0, length: None }
}

/// None: there is no such file.
fn read(path: &str) -> Result<Option<Vec<u8>>, Error> {
    match files::read(&whole(path)) {
        Ok(bytes) => Ok(Some(bytes)),
        Err(Error::NotFound(_)) => Ok(None),
        Err(error) => Err(error),
    }
}

/// The index of a layout that is there, and its bytes.
fn read_index(location: &str) -> Result<Option<(Index, Vec<u8>)>, Error> {
    match read(INDEX)? {
        Some(bytes) => Ok(Some((Index::parse(location, &bytes)?, bytes))),
        None => Ok(None),
    }
}

fn is_digest(reference: &str) -> bool {
    reference.contains(':') && blob_file(reference).is_ok()
}

impl catalog::Guest for Oci {
    fn repositories(_location: String, _next: Option<String>) -> Result<Page, Error> {
        Err(Error::Unsupported("an OCI layout has no repositories; name its folder".into()))
    }

    fn tags(location: String, _repository: String, _next: Option<String>) -> Result<Page, Error> {
        match read_index(&location)? {
            Some((index, _)) => Ok(Page { names: index.tags(), next: None }),
            None => Err(Error::NotFound(format!("{location} holds no OCI layout: there is no {INDEX}"))),
        }
    }

    fn resolve(location: String, _repository: String, reference: Option<String>) -> Result<Found, Error> {
        if let Some(digest) = reference.as_deref().filter(|reference| is_digest(reference)) {
            // A child lies among the blobs, whether or not the index names it.
            return Ok(match read(&blob_file(digest)?)? {
                Some(body) => Found::Held(Manifest { media_type: String::new(), body }),
                None => Found::Absent,
            });
        }
        let Some((index, _)) = read_index(&location)? else { return Ok(Found::Absent) };
        Ok(match index.find(&location, reference.as_deref())? {
            Some(descriptor) => Found::Named(descriptor),
            None => Found::Absent,
        })
    }
}

impl source::Guest for Oci {
    fn fetch(location: String, _repository: String, reference: Option<String>) -> Result<Manifest, Error> {
        let missing = || {
            Error::NotFound(format!("{location} holds no image {}", reference.as_deref().unwrap_or_default()))
        };
        let (digest, media_type) = match reference.as_deref().filter(|reference| is_digest(reference)) {
            Some(digest) => (digest.to_owned(), String::new()),
            None => {
                let (index, _) = read_index(&location)?.ok_or_else(missing)?;
                let found = index.find(&location, reference.as_deref())?.ok_or_else(missing)?;
                (found.digest, found.media_type)
            }
        };
        let body = read(&blob_file(&digest)?)?.ok_or_else(missing)?;
        Ok(Manifest { media_type, body })
    }

    /// Referrers stand in the index, and their manifests name the subject.
    fn referrers(
        location: String,
        _repository: String,
        subject: String,
        _next: Option<String>,
    ) -> Result<ReferrersPage, Error> {
        let mut descriptors = Vec::new();
        if let Some((index, _)) = read_index(&location)? {
            for descriptor in index.roots()? {
                let body = read(&blob_file(&descriptor.digest)?)?;
                if body.is_some_and(|body| index::subject(&body).as_deref() == Some(&subject)) {
                    descriptors.push(descriptor);
                }
            }
        }
        Ok(ReferrersPage { descriptors, next: None })
    }

    fn locate(_location: String, _repository: String, blob: Descriptor) -> Result<Vec<Segment>, Error> {
        Ok(vec![Segment::File(whole(&blob_file(&blob.digest)?))])
    }
}

/// Makes the folder a layout, unless it holds something else.
fn claim(location: &str) -> Result<(), Error> {
    match read(LAYOUT)? {
        Some(layout) if layout.trim_ascii() == LAYOUT_CONTENT || index::is_layout(&layout) => Ok(()),
        Some(_) => Err(Error::Denied(format!("{location} holds a layout of a version that is not known"))),
        None => {
            // What another writer of this run or of another has begun counts as ours.
            let ours = |name: &str| name.starts_with(".dray-") || matches!(name, "blobs" | LAYOUT);
            if files::entries("")?.iter().any(|entry| !ours(&entry.name)) {
                return Err(Error::Denied(format!(
                    "{location} is not empty and holds no OCI layout: choose an empty folder"
                )));
            }
            // Of two writers, one comes late: both want the same.
            files::replace(LAYOUT, None, LAYOUT_CONTENT).map(|_| ())
        }
    }
}

/// Writers that each lose a race again and again, before it is called an error.
const RACES: usize = 1000;

impl sink::Guest for Oci {
    fn able(_location: String) -> Abilities {
        Abilities { mount: false, sparse: Some(true), shared: true, many: true }
    }

    fn store_blob(
        location: String,
        _repository: String,
        incoming: Incoming,
        _state: Option<Vec<u8>>,
        last: Option<Outcome>,
    ) -> Result<Turn, Error> {
        let path = blob_file(&incoming.blob.digest)?;
        let step = match last {
            Some(Outcome::Written) => Step::Finished(Finish::Stored),
            _ if files::stat(&path)? == Some(incoming.blob.size) => Step::Finished(Finish::Present),
            _ => {
                claim(&location)?;
                Step::Write(path)
            }
        };
        Ok(Turn { step, state: Vec::new() })
    }

    fn publish(
        location: String,
        _repository: String,
        digest: String,
        manifest: Manifest,
        naming: Naming,
    ) -> Result<(), Error> {
        claim(&location)?;
        let path = blob_file(&digest)?;
        let current = read(&path)?;
        if current.as_deref() != Some(&manifest.body) {
            files::replace(&path, current.as_deref(), &manifest.body)?;
        }
        let tag = match &naming {
            Naming::Child => return Ok(()),
            Naming::Root => None,
            Naming::Tag(tag) => Some(tag.as_str()),
        };
        for _ in 0..RACES {
            let (mut index, bytes) = match read_index(&location)? {
                Some((index, bytes)) => (index, Some(bytes)),
                None => (Index::default(), None),
            };
            if !index.add(entry(&digest, &manifest), tag) {
                return Ok(());
            }
            if files::replace(INDEX, bytes.as_deref(), &index.bytes())? {
                return Ok(());
            }
        }
        Err(Error::Transient(format!("{location}/{INDEX} is written by others all the time")))
    }
}

export!(Oci with_types_in dray_plugin_transport);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn references_end_their_path_at_the_first_colon() {
        let parse = |rest: &str| {
            let parsed = <Oci as references::Guest>::parse(rest.into(), false, Vec::new()).unwrap();
            (parsed.location, parsed.repository, parsed.reference)
        };
        let expect = |location: &str, repository: &str, reference: Option<&str>| {
            (location.to_owned(), repository.to_owned(), reference.map(str::to_owned))
        };
        assert_eq!(parse("a/b"), expect("a/b", "b", None));
        assert_eq!(parse("/a/b:1.0"), expect("/a/b", "b", Some("1.0")));
        assert_eq!(parse("b:r.example/x:1"), expect("b", "b", Some("r.example/x:1")));
        let digest = format!("sha256:{}", "a".repeat(64));
        assert_eq!(parse(&format!("b@{digest}")), expect("b", "b", Some(&digest)));
        for bad in ["", ":1", "a:"] {
            assert!(<Oci as references::Guest>::parse(bad.into(), false, Vec::new()).is_err(), "{bad}");
        }
    }

    #[test]
    fn digests_cannot_lead_elsewhere() {
        for digest in ["sha256:../../x", "sha256", "md5:00", "../x:y"] {
            assert!(blob_file(digest).is_err(), "{digest}");
        }
    }
}
