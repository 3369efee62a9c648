//! `oci:`: OCI image layouts (OCI image specification, image layout).

mod remove;

use dray_plugin_transport::{
    Error, Info, Meta, at_path,
    dray::plugin::{
        files,
        types::{Descriptor, Manifest, Segment, TagPage},
        writing,
    },
    export,
    exports::dray::plugin::{
        catalog::{self, Found, Page},
        listing,
        references::{self, Parsed, Root},
        removal,
        sink::{self, Capabilities, Incoming, Naming, NextStep, Outcome},
        source::{self, ReferrersPage},
    },
    info, is_digest, last,
    layout::{
        self as index, DOCKER_LIST, DOCKER_MANIFEST, INDEX, Index, LAYOUT, LAYOUT_CONTENT, OCI_INDEX,
        OCI_MANIFEST, blob_file, tag_entry,
    },
    named, only_name, read, store_file,
    together::{self, NewName},
    unsigned, whole,
};
use std::collections::BTreeSet;

struct Oci;

impl Meta for Oci {
    fn describe() -> Info {
        let summary = "OCI image layouts, as folders and archives: oci:PATH[:NAME|@DIGEST], oci-archive:FILE[:NAME|@DIGEST]";
        info("oci", env!("CARGO_PKG_VERSION"), summary, &["oci", "oci-archive"])
    }
}

impl references::Guest for Oci {
    /// As in skopeo, the path ends at the first colon. The text after it is a tag, or a whole image name,
    /// which then also gives the repository.
    fn parse(scheme: String, rest: String, pattern: bool, _registries: Vec<String>) -> Result<Parsed, Error> {
        let (path, name) = index::split_reference(&rest);
        let path = path.trim_end_matches('/');
        if path.is_empty() {
            return Err(Error::Invalid(format!("`{scheme}:{rest}` names no path: {scheme}:PATH[:TAG]")));
        }
        if name.is_some_and(str::is_empty) {
            return Err(Error::Invalid(format!(
                "`{scheme}:{rest}` ends with a colon: write the tag behind it, or leave it out"
            )));
        }
        let root = if scheme == "oci" { Root::Folder(path.into()) } else { Root::Archive(path.into()) };
        let mut parsed = at_path(path, root, None);
        // Only folders can keep their blobs elsewhere (`--shared-blob-dir`).
        parsed.separate_blobs = scheme == "oci";
        (parsed.repository, parsed.reference) = index::repository_of(&parsed.repository, name, pattern);
        Ok(parsed)
    }
}

/// The index of a layout, and its bytes. `None` means that the layout has no index.
fn read_index(location: &str) -> Result<Option<(Index, Vec<u8>)>, Error> {
    match read(INDEX)? {
        Some(bytes) => Ok(Some((Index::parse(location, &bytes)?, bytes))),
        None => Ok(None),
    }
}

/// The kind of an entry of an index, as far as this plugin knows it.
#[derive(PartialEq)]
enum Kind {
    Manifest,
    /// A layer or a config by itself, which names nothing (BuildKit's caches have such entries).
    Blob,
}

impl Kind {
    /// `None` means that it is not known what the entry names.
    fn of(media_type: &str) -> Option<Kind> {
        match media_type {
            OCI_MANIFEST | OCI_INDEX | DOCKER_MANIFEST | DOCKER_LIST => Some(Kind::Manifest),
            other if other.contains("manifest") || other.contains("index") => None,
            other if other.contains(".layer.") || other.contains(".diff.") || other.contains("config") => {
                Some(Kind::Blob)
            }
            _ => None,
        }
    }
}

/// Refuses an archive that `docker save` wrote. It names its blobs in two ways, and dray would update only
/// one.
fn of_docker(location: &str) -> Result<(), Error> {
    match files::stat("manifest.json")? {
        Some(_) => Err(Error::Denied(format!(
            "{location} is an archive of docker save, to which dray adds nothing: choose another file"
        ))),
        None => Ok(()),
    }
}

fn no_layout(location: &str) -> Error {
    Error::NotFound(format!("{location} holds no OCI layout: there is no {INDEX}"))
}

impl catalog::Guest for Oci {
    fn repositories(location: String, _next: Option<String>) -> Result<Page, Error> {
        let (index, _) = read_index(&location)?.ok_or_else(|| no_layout(&location))?;
        let names: BTreeSet<String> = index.repositories(last(&location)).into_iter().collect();
        Ok(Page { names: names.into_iter().collect(), next: None })
    }

    fn tags(location: String, repository: String, _next: Option<String>) -> Result<Page, Error> {
        let (index, _) = read_index(&location)?.ok_or_else(|| no_layout(&location))?;
        let names = index.images(last(&location), &repository, |digest| read(&blob_file(digest)?))?;
        Ok(Page { names, next: None })
    }

    fn resolve(
        location: String,
        repository: String,
        reference: Option<String>,
        _known: Option<String>,
    ) -> Result<Found, Error> {
        if let Some(digest) = reference.as_deref().filter(|reference| is_digest(reference)) {
            // A child is among the blobs, whether or not the index names it.
            return Ok(match read(&blob_file(digest)?)? {
                Some(body) => Found::Manifest(unsigned("", body)),
                None => Found::Absent,
            });
        }
        let Some((index, _)) = read_index(&location)? else { return Ok(Found::Absent) };
        Ok(match index.find(&location, &repository, reference.as_deref())? {
            // If the manifest of a tag was lost, the tag names nothing, and can be written again.
            Some(descriptor) if files::stat(&blob_file(&descriptor.digest)?)?.is_some() => {
                Found::Named(descriptor)
            }
            _ => Found::Absent,
        })
    }
}

impl listing::Guest for Oci {
    fn tags(location: String, repository: String, _next: Option<String>) -> Result<TagPage, Error> {
        let (index, _) = read_index(&location)?.ok_or_else(|| no_layout(&location))?;
        let named = index.named(last(&location), &repository);
        let page = <Oci as catalog::Guest>::tags(location, repository, None)?;
        let entry = |name: String| {
            // If the manifest of a tag was lost, the tag names nothing, and can be written again.
            let descriptor = match named.get(&name) {
                Some(descriptor) if files::stat(&blob_file(&descriptor.digest)?)?.is_some() => descriptor,
                _ => return Ok(only_name(name)),
            };
            Ok(tag_entry(name, descriptor))
        };
        let entries = page.names.into_iter().map(entry).collect::<Result<_, Error>>()?;
        Ok(TagPage { entries, next: page.next, behind: None })
    }
}

impl source::Guest for Oci {
    fn fetch(location: String, repository: String, reference: Option<String>) -> Result<Manifest, Error> {
        let missing = || {
            Error::NotFound(format!("{location} holds no image {}", reference.as_deref().unwrap_or_default()))
        };
        let (digest, media_type) = match reference.as_deref().filter(|reference| is_digest(reference)) {
            Some(digest) => (digest.to_owned(), String::new()),
            None => {
                let (index, _) = read_index(&location)?.ok_or_else(missing)?;
                let found = index.find(&location, &repository, reference.as_deref())?.ok_or_else(missing)?;
                (found.digest, found.media_type)
            }
        };
        let body = read(&blob_file(&digest)?)?.ok_or_else(missing)?;
        Ok(unsigned(media_type, body))
    }

    /// Referrers are in the index, and their manifests name the subject.
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
    of_docker(location)?;
    match read(LAYOUT)? {
        Some(layout) if layout.trim_ascii() == LAYOUT_CONTENT || index::is_layout(&layout) => Ok(()),
        Some(_) => Err(Error::Denied(format!("{location} holds a layout of a version that is not known"))),
        None => {
            // What another writer has begun, in this run or in another one, counts as ours.
            let ours = |name: &str| name.starts_with(".dray-") || matches!(name, "blobs" | LAYOUT);
            let strange = files::entries("")?.iter().any(|entry| !ours(&entry.name));
            // Another writer may have claimed it since, and gone on.
            if strange && read(LAYOUT)?.is_none() {
                return Err(Error::Denied(format!(
                    "{location} is not empty and holds no OCI layout: choose an empty folder"
                )));
            }
            // If two writers do this at once, one comes too late. This does no harm, since both want the
            // same.
            writing::replace(LAYOUT, None, LAYOUT_CONTENT).map(|_| ())
        }
    }
}

/// The files of these images, with all that they name. `None` means that this is not known of one of them, so
/// that it may need any file.
fn files_of(mut open: Vec<Descriptor>) -> Result<Option<BTreeSet<String>>, Error> {
    let mut found = BTreeSet::new();
    while let Some(entry) = open.pop() {
        let path = blob_file(&entry.digest)?;
        if !found.insert(path.clone()) {
            continue;
        }
        let Some(kind) = Kind::of(&entry.media_type) else { return Ok(None) };
        // If an index was copied in part, children may be missing.
        let Some(body) = (kind == Kind::Manifest).then(|| read(&path)).transpose()?.flatten() else {
            continue;
        };
        let Some(named) = named(&body) else { return Ok(None) };
        open.extend(named.manifests);
        found.extend(named.blobs.iter().filter_map(|digest| blob_file(digest).ok()));
    }
    Ok(Some(found))
}

/// Adds images to the index, all in one step.
fn add(location: &str, names: &[NewName]) -> Result<(), Error> {
    for _ in 0..RACES {
        let (mut index, bytes) = match read_index(location)? {
            Some((index, bytes)) => (index, Some(bytes)),
            None => (Index::default(), None),
        };
        if !index.name(location, names) || writing::replace(INDEX, bytes.as_deref(), &index.bytes())? {
            return Ok(());
        }
    }
    Err(Error::Transient(format!("{location}/{INDEX} is written by others all the time")))
}

impl together::Guest for Oci {
    fn name(location: String, names: Vec<NewName>) -> Result<Vec<Result<(), Error>>, Error> {
        add(&location, &names)?;
        Ok(names.iter().map(|_| Ok(())).collect())
    }
}

/// How often the index is written before it is an error that other writers are always faster.
const RACES: usize = 1000;

impl sink::Guest for Oci {
    fn get_capabilities(_location: String) -> Capabilities {
        Capabilities {
            exclusive: true,
            extra: Vec::new(),
            mount: false,
            sparse: Some(true),
            shared: true,
            many: true,
            signatures: false,
            holds: None,
        }
    }

    fn store_blob(
        location: String,
        _repository: String,
        incoming: Incoming,
        _state: Option<Vec<u8>>,
        last: Option<Outcome>,
    ) -> Result<NextStep, Error> {
        store_file(blob_file(&incoming.blob.digest)?, &incoming, last, || claim(&location))
    }

    fn publish(
        location: String,
        repository: String,
        digest: String,
        manifest: Manifest,
        naming: Naming,
    ) -> Result<(), Error> {
        claim(&location)?;
        let path = blob_file(&digest)?;
        let current = read(&path)?;
        if current.as_deref() != Some(&manifest.body) {
            writing::replace(&path, current.as_deref(), &manifest.body)?;
        }
        match index::to_name(repository, digest, &manifest, naming) {
            Some(name) => add(&location, &[name]),
            None => Ok(()),
        }
    }

    fn finish(location: String, alone: bool) -> Result<(), Error> {
        if !alone {
            // Another writer of the folder may have stored blobs that no manifest names yet.
            return Ok(());
        }
        let Some((index, _)) = read_index(&location)? else { return Ok(()) };
        let Some(wanted) = files_of(index.roots()?)? else { return Ok(()) };
        let mut unwanted = Vec::new();
        for algorithm in ["sha256", "sha512"] {
            let folder = format!("blobs/{algorithm}");
            let paths = files::entries(&folder)?.into_iter().map(|entry| format!("{folder}/{}", entry.name));
            unwanted.extend(paths.filter(|path| !wanted.contains(path)));
        }
        writing::remove(&unwanted)
    }
}

impl removal::Guest for Oci {
    fn delete_tag(
        location: String,
        repository: String,
        tag: String,
        expected: Option<String>,
    ) -> Result<(), Error> {
        remove::tag(&location, &repository, &tag, expected.as_deref())
    }

    fn delete_manifest(location: String, repository: String, digest: String) -> Result<(), Error> {
        remove::manifest(&location, &repository, &digest)
    }
}

dray_plugin_transport::prepares_nothing!(Oci);
export!(Oci with_types_in dray_plugin_transport);
together::export!(Oci with_types_in dray_plugin_transport::together);

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(rest: &str, pattern: bool) -> Result<(String, String, Option<String>), Error> {
        let parsed = <Oci as references::Guest>::parse("oci".into(), rest.into(), pattern, Vec::new())?;
        Ok((parsed.location, parsed.repository, parsed.reference))
    }

    #[test]
    fn references_end_their_path_at_the_first_colon() {
        let expect = |location: &str, repository: &str, reference: Option<&str>| {
            Ok((location.to_owned(), repository.to_owned(), reference.map(str::to_owned)))
        };
        assert_eq!(parse("a/b", false), expect("a/b", "b", None));
        assert_eq!(parse("a/b", true), expect("a/b", "**", None));
        assert_eq!(parse("/a/b:1.0", true), expect("/a/b", "b", Some("1.0")));
        assert_eq!(parse("b:r.example/x:1", false), expect("b", "r.example/x", Some("1")));
        assert_eq!(parse("b:r.example:5000/x", false), expect("b", "r.example:5000/x", None));
        let digest = format!("sha256:{}", "a".repeat(64));
        assert_eq!(parse(&format!("b@{digest}"), true), expect("b", "b", Some(&digest)));
        for bad in ["", ":1", "a:"] {
            assert!(parse(bad, false).is_err(), "{bad}");
        }
    }

    #[test]
    fn digests_cannot_lead_elsewhere() {
        for digest in ["sha256:../../x", "sha256", "md5:00", "../x:y"] {
            assert!(blob_file(digest).is_err(), "{digest}");
        }
    }
}
