//! A transport for dray: OCI image layouts in buckets of S3, and of what speaks like it (MinIO, Ceph, R2 and others).
//!
//! ```toml
//! [plugin.bucket]
//! source = "plugins/bucket/bucket.wasm"
//!
//! [[rule]]
//! from = "docker://docker.io/library/alpine"
//! to = "bucket:s3.eu-west-1.amazonaws.com/my-bucket/images"
//! ```
//!
//! The objects are those of a layout (OCI image specification, image layout): `oci-layout`, `index.json`, and `blobs/…`. The
//! bucket must exist. Whoever signs the requests is an auth provider, such as `bucket-login`: this plugin sees no secret.

mod objects;
mod upload;

use dray_plugin_transport::{
    Error, Info, Meta,
    dray::plugin::types::{Descriptor, Manifest, Segment, TagPage},
    export,
    exports::dray::plugin::{
        catalog::{self, Found, Page},
        listing,
        references::{self, Parsed},
        removal,
        sink::{self, Capabilities, Incoming, Naming, NextStep, Outcome},
        source::{self, ReferrersPage},
    },
    header, is_digest, last,
    layout::{self, INDEX, Index, LAYOUT, LAYOUT_CONTENT, blob_file},
    together::{self, NewName},
    unsigned,
};
use objects::{Objects, Written};
use upload::Upload;

struct Bucket;

impl Meta for Bucket {
    fn describe() -> Info {
        Info {
            name: env!("CARGO_PKG_NAME").into(),
            version: env!("CARGO_PKG_VERSION").into(),
            summary: "OCI image layouts in S3-style buckets: bucket:HOST/BUCKET/PATH[:NAME|@DIGEST]".into(),
            schemes: vec!["bucket".into()],
            config_schema: include_str!("schema.json").into(),
            wishes: Vec::new(),
            extra: Vec::new(),
        }
    }
}

impl references::Guest for Bucket {
    /// As with `oci:`, the path ends at its first colon. The text after it is a tag, or a whole image name, which then also
    /// gives the repository.
    fn parse(
        _scheme: String,
        rest: String,
        pattern: bool,
        _registries: Vec<String>,
    ) -> Result<Parsed, Error> {
        let wrong =
            |why: &str| Error::Invalid(format!("`bucket:{rest}` {why}: bucket:HOST/BUCKET/PATH[:TAG]"));
        let (host, path) = rest.split_once('/').ok_or_else(|| wrong("names no bucket"))?;
        let (path, name) = layout::split_reference(path);
        let path = path.trim_end_matches('/');
        if host.is_empty() || path.is_empty() {
            return Err(wrong("names no bucket"));
        }
        if path.split('/').any(|part| matches!(part, "" | "." | "..")) {
            return Err(wrong("has a path with an empty part, or one that leads elsewhere"));
        }
        if name.is_some_and(str::is_empty) {
            return Err(wrong("ends with a colon"));
        }
        let location = format!("{}/{path}", host.to_ascii_lowercase());
        let (repository, reference) = layout::repository_of(last(path), name, pattern);
        Ok(Parsed {
            location,
            repository,
            reference,
            root: None,
            host: Some(host.to_ascii_lowercase()),
            private: false,
            separate_blobs: false,
            extra: Vec::new(),
        })
    }
}

/// The index of a layout, and the ETag of its object, by which a write can tell whether it is still the same.
struct Seen {
    index: Index,
    etag: String,
}

/// Reads the index. `None` means that there is no layout.
fn read_index(objects: Objects) -> Result<Option<Seen>, Error> {
    let Some(response) = objects.get(INDEX)? else { return Ok(None) };
    let index = Index::parse(objects.location, &response.body)?;
    let none = || Error::Invalid(format!("read {INDEX}: the store gave no ETag"));
    let etag = header(&response, "etag").ok_or_else(none)?.to_owned();
    Ok(Some(Seen { index, etag }))
}

/// The index of a layout that must be there.
fn index(objects: Objects) -> Result<Index, Error> {
    let none = || Error::NotFound(format!("{} holds no OCI layout: there is no {INDEX}", objects.location));
    Ok(read_index(objects)?.ok_or_else(none)?.index)
}

/// The manifest with a digest.
fn manifest(objects: Objects, digest: &str) -> Result<Option<Vec<u8>>, Error> {
    Ok(objects.get(&blob_file(digest)?)?.map(|response| response.body))
}

/// The tags of a repository. Entries that have a digest instead of a name may be signatures of others, which are copied with
/// their subject and are no images by themselves.
fn tags(objects: Objects) -> Result<(Index, Vec<String>), Error> {
    let index = index(objects)?;
    let names =
        index.images(last(objects.location), objects.repository, |digest| manifest(objects, digest))?;
    Ok((index, names))
}

impl catalog::Guest for Bucket {
    fn repositories(location: String, _next: Option<String>) -> Result<Page, Error> {
        let objects = Objects { location: &location, repository: "" };
        let mut names = index(objects)?.repositories(last(&location));
        names.sort();
        names.dedup();
        Ok(Page { names, next: None })
    }

    fn tags(location: String, repository: String, _next: Option<String>) -> Result<Page, Error> {
        let (_, names) = tags(Objects { location: &location, repository: &repository })?;
        Ok(Page { names, next: None })
    }

    fn resolve(
        location: String,
        repository: String,
        reference: Option<String>,
        _known: Option<String>,
    ) -> Result<Found, Error> {
        let objects = Objects { location: &location, repository: &repository };
        if let Some(digest) = reference.as_deref().filter(|reference| is_digest(reference)) {
            return Ok(match manifest(objects, digest)? {
                Some(body) => Found::Manifest(unsigned("", body)),
                None => Found::Absent,
            });
        }
        let Some(Seen { index, .. }) = read_index(objects)? else { return Ok(Found::Absent) };
        Ok(match index.find(&location, &repository, reference.as_deref())? {
            // If the manifest of a tag was lost, the tag names nothing, and can be written again.
            Some(found) if objects.has(&blob_file(&found.digest)?)? => Found::Named(found),
            _ => Found::Absent,
        })
    }
}

impl listing::Guest for Bucket {
    fn tags(location: String, repository: String, _next: Option<String>) -> Result<TagPage, Error> {
        let (index, names) = tags(Objects { location: &location, repository: &repository })?;
        let named = index.named(last(&location), &repository);
        let entry = |name: String| match named.get(&name) {
            None => dray_plugin_transport::only_name(name),
            Some(descriptor) => layout::tag_entry(name, descriptor),
        };
        Ok(TagPage { entries: names.into_iter().map(entry).collect(), next: None, behind: None })
    }
}

impl source::Guest for Bucket {
    fn fetch(location: String, repository: String, reference: Option<String>) -> Result<Manifest, Error> {
        let objects = Objects { location: &location, repository: &repository };
        let missing = || {
            Error::NotFound(format!("{location} holds no image {}", reference.as_deref().unwrap_or_default()))
        };
        let (digest, media_type) = match reference.as_deref().filter(|reference| is_digest(reference)) {
            Some(digest) => (digest.to_owned(), String::new()),
            None => {
                let Seen { index, .. } = read_index(objects)?.ok_or_else(missing)?;
                let found = index.find(&location, &repository, reference.as_deref())?.ok_or_else(missing)?;
                (found.digest, found.media_type)
            }
        };
        Ok(unsigned(media_type, manifest(objects, &digest)?.ok_or_else(missing)?))
    }

    /// Referrers have no name in the index, and their manifests name the subject.
    fn referrers(
        location: String,
        repository: String,
        subject: String,
        _next: Option<String>,
    ) -> Result<ReferrersPage, Error> {
        let objects = Objects { location: &location, repository: &repository };
        let mut descriptors = Vec::new();
        for descriptor in read_index(objects)?.map_or(Vec::new(), |seen| seen.index.unnamed()) {
            // An entry with an odd digest is another writer's matter.
            if !is_digest(&descriptor.digest) {
                continue;
            }
            let body = manifest(objects, &descriptor.digest)?;
            if body.is_some_and(|body| layout::subject(&body).as_deref() == Some(&subject)) {
                descriptors.push(descriptor);
            }
        }
        Ok(ReferrersPage { descriptors, next: None })
    }

    fn locate(location: String, repository: String, blob: Descriptor) -> Result<Vec<Segment>, Error> {
        let objects = Objects { location: &location, repository: &repository };
        Ok(vec![Segment::Http(objects.request("GET", &blob_file(&blob.digest)?, "", &[200, 206])?)])
    }
}

/// How often the index is written before it is an error that other writers are always faster.
const RACES: usize = 100;

/// Makes the path a layout, unless it is one of a version that is not known.
fn claim(objects: Objects) -> Result<(), Error> {
    match objects.get(LAYOUT)? {
        Some(there) if layout::is_layout(&there.body) => Ok(()),
        Some(_) => Err(Error::Denied(format!(
            "write to {}: it holds a layout of a version that is not known",
            objects.location
        ))),
        None => objects.put(LAYOUT, LAYOUT_CONTENT),
    }
}

/// Changes the index as it is at that moment. `change` says whether anything is to be written.
fn change(objects: Objects, mut change: impl FnMut(&mut Index) -> Result<bool, Error>) -> Result<(), Error> {
    for _ in 0..RACES {
        let (mut index, etag) = match read_index(objects)? {
            Some(Seen { index, etag }) => (index, Some(etag)),
            None => {
                claim(objects)?;
                (Index::default(), None)
            }
        };
        if !change(&mut index)? || objects.replace(INDEX, etag.as_deref(), &index.bytes())? == Written::Yes {
            return Ok(());
        }
    }
    Err(Error::Transient(format!("write {}/{INDEX}: others write it all the time", objects.location)))
}

impl sink::Guest for Bucket {
    fn get_capabilities(_location: String) -> Capabilities {
        Capabilities {
            // All tags are in one object.
            exclusive: true,
            mount: false,
            sparse: Some(true),
            shared: true,
            many: true,
            signatures: false,
            holds: None,
            extra: Vec::new(),
        }
    }

    fn store_blob(
        location: String,
        repository: String,
        incoming: Incoming,
        state: Option<Vec<u8>>,
        last: Option<Outcome>,
    ) -> Result<NextStep, Error> {
        let objects = Objects { location: &location, repository: &repository };
        let key = blob_file(&incoming.blob.digest)?;
        Upload { objects, key: &key, incoming: &incoming }.next(state.as_deref(), last)
    }

    fn publish(
        location: String,
        repository: String,
        digest: String,
        manifest: Manifest,
        naming: Naming,
    ) -> Result<(), Error> {
        let objects = Objects { location: &location, repository: &repository };
        objects.put(&blob_file(&digest)?, &manifest.body)?;
        match layout::to_name(repository.clone(), digest, &manifest, naming) {
            Some(name) => change(objects, |index| Ok(index.name(&location, std::slice::from_ref(&name)))),
            None => Ok(()),
        }
    }

    fn finish(_location: String, _alone: bool) -> Result<(), Error> {
        Ok(())
    }
}

impl together::Guest for Bucket {
    fn name(location: String, names: Vec<NewName>) -> Result<Vec<Result<(), Error>>, Error> {
        let Some(first) = names.first() else { return Ok(Vec::new()) };
        let objects = Objects { location: &location, repository: &first.repository };
        change(objects, |index| Ok(index.name(&location, &names)))?;
        Ok(names.iter().map(|_| Ok(())).collect())
    }
}

impl removal::Guest for Bucket {
    fn delete_tag(
        location: String,
        repository: String,
        tag: String,
        expected: Option<String>,
    ) -> Result<(), Error> {
        let objects = Objects { location: &location, repository: &repository };
        change(objects, |index| {
            index.remove_tag(&location, &repository, &tag, expected.as_deref()).map(|_| true)
        })
    }

    /// Takes the entries away. The content stays, because another writer may have found it there: a rule of the bucket, or
    /// somebody who knows that nobody writes, may remove it.
    fn delete_manifest(location: String, repository: String, digest: String) -> Result<(), Error> {
        let objects = Objects { location: &location, repository: &repository };
        change(objects, |index| index.remove_manifest(&location, &repository, &digest).map(|_| true))
    }
}

dray_plugin_transport::prepares_nothing!(Bucket);
export!(Bucket with_types_in dray_plugin_transport);
together::export!(Bucket with_types_in dray_plugin_transport::together);

#[cfg(test)]
mod tests {
    use super::*;
    use references::Guest;

    #[test]
    fn references_name_a_host_a_path_and_a_tag() {
        let parse = |rest: &str, pattern| {
            let parsed = Bucket::parse("bucket".into(), rest.into(), pattern, Vec::new())?;
            Ok::<_, Error>((parsed.location, parsed.repository, parsed.reference))
        };
        let expect = |location: &str, repository: &str, reference: Option<&str>| {
            Ok((location.to_owned(), repository.to_owned(), reference.map(str::to_owned)))
        };
        assert_eq!(
            parse("S3.example:9000/b/images", false),
            expect("s3.example:9000/b/images", "images", None)
        );
        assert_eq!(parse("s3.example/b", true), expect("s3.example/b", "**", None));
        assert_eq!(parse("s3.example/b/x:1.0", true), expect("s3.example/b/x", "x", Some("1.0")));
        assert_eq!(parse("h/b:r.example/x:1", false), expect("h/b", "r.example/x", Some("1")));
        let digest = format!("sha256:{}", "a".repeat(64));
        assert_eq!(parse(&format!("h/b@{digest}"), true), expect("h/b", "b", Some(&digest)));
        for bad in ["", "h", "/b", "h/", "h/b:", "h/../b", "h/a//b", "h/b/."] {
            assert!(parse(bad, false).is_err(), "{bad}");
        }
    }
}
