//! `dir:`: skopeo's directory format, with one image in a folder (containers-transports(5)).

use dray_plugin_transport::{
    Error, Info, Meta, Named, at_path,
    dray::plugin::{
        files,
        types::{Descriptor, Manifest, Segment},
        writing,
    },
    export,
    exports::dray::plugin::{
        catalog::{self, Found, Page},
        references::{self, Parsed, Root},
        sink::{self, Capabilities, Incoming, Naming, NextStep, Outcome},
        source::{self, ReferrersPage},
    },
    info, is_digest, named, read, store_file, whole,
};
use std::collections::BTreeSet;

const VERSION: &str = "version";
const MARK: &str = "Directory Transport Version: ";
/// Version 1.2 means that not every digest is SHA-256.
const V1_1: &[u8] = b"Directory Transport Version: 1.1\n";
const V1_2: &[u8] = b"Directory Transport Version: 1.2\n";

struct Dir;

impl Meta for Dir {
    fn describe() -> Info {
        let summary = "One image in a folder, as skopeo writes it: dir:PATH";
        info("dir", env!("CARGO_PKG_VERSION"), summary, &["dir"])
    }
}

impl references::Guest for Dir {
    fn parse(
        _scheme: String,
        rest: String,
        _pattern: bool,
        _registries: Vec<String>,
    ) -> Result<Parsed, Error> {
        let path = rest.trim_end_matches('/');
        if path.is_empty() {
            return Err(Error::Invalid("`dir:` needs the path of a folder: dir:PATH".into()));
        }
        Ok(at_path(path, Root::Folder(path.into()), None))
    }
}

/// The name of a blob's file: bare hexadecimal digits for SHA-256, otherwise `algorithm-hex`.
fn blob_file(digest: &str) -> String {
    match digest.strip_prefix("sha256:") {
        Some(hex) => hex.into(),
        None => digest.replace(':', "-"),
    }
}

fn manifest_file(reference: Option<&str>) -> String {
    match reference {
        Some(digest) => format!("{}.manifest.json", blob_file(digest)),
        None => "manifest.json".into(),
    }
}

/// The name of the file of a manifest's signature. Signatures are counted from 1.
fn signature_file(reference: Option<&str>, number: usize) -> String {
    match reference {
        Some(digest) => format!("{}.signature-{number}", blob_file(digest)),
        None => format!("signature-{number}"),
    }
}

/// The signatures of a manifest. They end at the first number that has no file.
fn signatures(reference: Option<&str>) -> Result<Vec<Vec<u8>>, Error> {
    let mut signatures = Vec::new();
    while let Some(signature) = read(&signature_file(reference, signatures.len() + 1))? {
        signatures.push(signature);
    }
    Ok(signatures)
}

/// The top manifest, or a child by its digest. The format does not store media types, so the manifests have
/// to tell theirs.
fn manifest(reference: Option<&str>) -> Result<Option<Manifest>, Error> {
    let Some(body) = read(&manifest_file(reference))? else { return Ok(None) };
    Ok(Some(Manifest { media_type: String::new(), body, signatures: signatures(reference)? }))
}

impl catalog::Guest for Dir {
    fn repositories(_location: String, _next: Option<String>) -> Result<Page, Error> {
        Err(Error::Unsupported("a folder holds one image, not repositories".into()))
    }

    fn tags(_location: String, _repository: String, _next: Option<String>) -> Result<Page, Error> {
        Err(Error::Unsupported("a folder holds one image, not tags".into()))
    }

    fn resolve(
        _location: String,
        _repository: String,
        reference: Option<String>,
        _known: Option<String>,
    ) -> Result<Found, Error> {
        Ok(match manifest(reference.as_deref())? {
            Some(manifest) => Found::Manifest(manifest),
            None => Found::Absent,
        })
    }
}

dray_plugin_transport::lists_names!(Dir);

impl source::Guest for Dir {
    fn fetch(location: String, _repository: String, reference: Option<String>) -> Result<Manifest, Error> {
        // The top manifest may also be requested by its digest. The host verifies it.
        let found = match manifest(reference.as_deref())? {
            None => manifest(None)?,
            found => found,
        };
        found.ok_or_else(|| Error::NotFound(format!("{location} holds no such manifest")))
    }

    fn referrers(
        _location: String,
        _repository: String,
        _subject: String,
        _next: Option<String>,
    ) -> Result<ReferrersPage, Error> {
        Ok(ReferrersPage { descriptors: Vec::new(), next: None })
    }

    fn locate(_location: String, _repository: String, blob: Descriptor) -> Result<Vec<Segment>, Error> {
        Ok(vec![Segment::File(whole(&blob_file(&blob.digest)))])
    }
}

/// Writes the version, unless the folder holds something that is not an image.
fn claim(location: &str, digest: &str) -> Result<(), Error> {
    let current = read(VERSION)?;
    let wanted = if digest.starts_with("sha256:") { V1_1 } else { V1_2 };
    match &current {
        Some(version) if !version.starts_with(MARK.as_bytes()) => {
            return Err(Error::Denied(format!(
                "{location} holds a file `version` that no image has: choose an empty folder"
            )));
        }
        Some(version) if version == wanted || version == V1_2 => return Ok(()),
        Some(_) => {}
        // Unfinished files of dray begin with `.dray-`, and another writer of this image may have claimed the
        // folder by now. Any other file belongs to somebody else.
        None if files::entries("")?.iter().any(|entry| !entry.name.starts_with(".dray-"))
            && read(VERSION)?.is_none() =>
        {
            return Err(Error::Denied(format!(
                "{location} is not empty and holds no image: choose an empty folder"
            )));
        }
        None => {}
    }
    // If two writers write the same version, one comes too late. This does no harm, since both want the same.
    writing::replace(VERSION, current.as_deref(), wanted).map(|_| ())
}

/// Adds signatures to those beside a manifest. The result is false if another writer added one meanwhile.
fn sign(reference: Option<&str>, mut kept: Vec<Vec<u8>>, signatures: Vec<Vec<u8>>) -> Result<bool, Error> {
    for signature in signatures {
        if kept.contains(&signature) {
            continue;
        }
        if !writing::replace(&signature_file(reference, kept.len() + 1), None, &signature)? {
            return Ok(false);
        }
        kept.push(signature);
    }
    Ok(true)
}

impl sink::Guest for Dir {
    fn get_capabilities(_location: String) -> Capabilities {
        Capabilities {
            exclusive: false,
            extra: Vec::new(),
            mount: false,
            sparse: Some(true),
            shared: true,
            many: false,
            signatures: true,
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
        store_file(blob_file(&incoming.blob.digest), &incoming, last, || {
            claim(&location, &incoming.blob.digest)
        })
    }

    fn publish(
        location: String,
        _repository: String,
        digest: String,
        manifest: Manifest,
        naming: Naming,
    ) -> Result<(), Error> {
        claim(&location, &digest)?;
        let reference = match naming {
            Naming::Child => Some(digest.as_str()),
            Naming::Root | Naming::Tag(_) => None,
        };
        let path = manifest_file(reference);
        let current = read(&path)?;
        let mut kept = signatures(reference)?;
        let same = current.as_deref() == Some(&manifest.body);
        if !same && !kept.is_empty() {
            // They belong to the manifest that is replaced. No signatures are better than wrong ones.
            let stale: Vec<String> =
                (1..=kept.len()).map(|number| signature_file(reference, number)).collect();
            writing::remove(&stale)?;
            kept.clear();
        }
        if !same && !writing::replace(&path, current.as_deref(), &manifest.body)? {
            return Err(crowded(&location));
        }
        if !sign(reference, kept, manifest.signatures)? {
            return Err(crowded(&location));
        }
        match (reference, &current) {
            (None, Some(before)) if !same => replaced(&location, before, &manifest.body),
            (None, _) => complete(&location, &manifest.body),
            _ => Ok(()),
        }
    }

    fn finish(_location: String, _alone: bool) -> Result<(), Error> {
        Ok(())
    }
}

/// The files of an image, without its top manifest. `None` means that it is not known what a manifest names.
fn files_of(top: &[u8]) -> Result<Option<BTreeSet<String>>, Error> {
    let mut all = BTreeSet::new();
    let mut open = vec![top.to_vec()];
    while let Some(body) = open.pop() {
        let Some(Named { manifests, blobs }) = named(&body) else { return Ok(None) };
        // A text that is not a digest could name another file in the folder.
        if !blobs.iter().chain(manifests.iter().map(|child| &child.digest)).all(|digest| is_digest(digest)) {
            return Ok(None);
        }
        all.extend(blobs.iter().map(|digest| blob_file(digest)));
        for child in manifests {
            let reference = Some(child.digest.as_str());
            if let Some(body) = read(&manifest_file(reference))? {
                open.push(body);
                all.insert(manifest_file(reference));
                all.extend(
                    (1..=signatures(reference)?.len()).map(|number| signature_file(reference, number)),
                );
            }
        }
    }
    Ok(Some(all))
}

/// Removes the files of the previous image that the new one does not have, and no others, because another
/// writer may have added them.
fn replaced(location: &str, before: &[u8], after: &[u8]) -> Result<(), Error> {
    let (Some(old), Some(new)) = (files_of(before)?, files_of(after)?) else { return Ok(()) };
    let ours = || Ok::<_, Error>(read(&manifest_file(None))?.as_deref() == Some(after));
    // If another writer came in between, it takes care of its own image.
    if ours()? {
        writing::remove(&old.difference(&new).cloned().collect::<Vec<_>>())?;
        if !ours()? {
            // The other writer's image may need what was just removed, so at least this one has to report it.
            return Err(crowded(location));
        }
    }
    complete(location, after)
}

/// Fails if another writer has removed what an image needs.
fn complete(location: &str, top: &[u8]) -> Result<(), Error> {
    for file in files_of(top)?.into_iter().flatten() {
        if files::stat(&file)?.is_none() {
            return Err(crowded(location));
        }
    }
    Ok(())
}

fn crowded(location: &str) -> Error {
    Error::Transient(format!("{location} is written by somebody else at the same time"))
}

dray_plugin_transport::prepares_nothing!(Dir);
dray_plugin_transport::removes_nothing!(Dir, "a directory holds one image: remove the folder");

export!(Dir with_types_in dray_plugin_transport);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn files_are_named_as_skopeo_names_them() {
        assert_eq!(blob_file("sha256:ab"), "ab");
        assert_eq!(blob_file("sha512:ab"), "sha512-ab");
        assert_eq!(manifest_file(Some("sha256:ab")), "ab.manifest.json");
        assert_eq!(signature_file(Some("sha256:ab"), 2), "ab.signature-2");
        assert_eq!(signature_file(None, 1), "signature-1");
    }

    #[test]
    fn references_are_paths() {
        let parsed =
            <Dir as references::Guest>::parse("dir".into(), "/a/b:1/".into(), false, Vec::new()).unwrap();
        assert_eq!(
            (parsed.location.as_str(), parsed.repository.as_str(), parsed.reference),
            ("/a/b:1", "b:1", None)
        );
    }
}
