//! `registry-storage:`: the folder in which the distribution registry keeps its images (distribution 2.8,
//! registry/storage/paths.go), without the registry.

use dray_plugin_transport::{
    Error, Info, Meta, digest,
    dray::plugin::{
        files,
        types::{Descriptor, Manifest, Segment, TagEntry, TagPage},
        writing,
    },
    export,
    exports::dray::plugin::{
        catalog::{self, Found, Page},
        listing,
        references::{self, Parsed, Root},
        sink::{self, Arrival, Capabilities, Incoming, Naming, NextStep, Outcome, Step},
        source::{self, ReferrersPage},
    },
    info, is_digest, last, only_name, read, serde_json, split_tag, store_file, unsigned, whole,
};

const TOP: &str = "docker/registry/v2";

/// The path of the registry's files. The root of the place is the folder above, where Harbor can be
/// recognised.
fn top(location: &str) -> String {
    format!("{}/{TOP}", last(location))
}

struct RegistryStorage;

impl Meta for RegistryStorage {
    fn describe() -> Info {
        let summary = "The storage of a registry: registry-storage:[FOLDER]REPOSITORY[:TAG|@DIGEST]";
        info("registry-storage", env!("CARGO_PKG_VERSION"), summary, &["registry-storage"])
    }
}

impl references::Guest for RegistryStorage {
    fn parse(scheme: String, rest: String, pattern: bool, _registries: Vec<String>) -> Result<Parsed, Error> {
        let form = || {
            Error::Invalid(format!("`{scheme}:{rest}` is not of the form {scheme}:[FOLDER]REPOSITORY[:TAG]"))
        };
        let (folder, name) = rest.strip_prefix('[').and_then(|rest| rest.split_once(']')).ok_or_else(form)?;
        let folder = folder.trim_end_matches('/');
        if folder.is_empty() {
            return Err(form());
        }
        let (repository, reference) = match name.split_once('@') {
            Some((name, wanted)) => {
                digest(wanted)?;
                (name, Some(wanted))
            }
            None => split_tag(name),
        };
        let repository = match repository {
            "" if pattern => "**",
            "" => return Err(form()),
            other => other,
        };
        let component = |part: &str| {
            let globs = if pattern { "*?[]{},!" } else { "" };
            let good =
                |byte: char| matches!(byte, 'a'..='z' | '0'..='9' | '.' | '_' | '-') || globs.contains(byte);
            !part.is_empty() && !part.starts_with(['.', '_', '-']) && part.chars().all(good)
        };
        let tag = |tag: &str| {
            let good = |byte: char| byte.is_ascii_alphanumeric() || matches!(byte, '.' | '_' | '-');
            is_digest(tag)
                || (1..=128).contains(&tag.len()) && !tag.starts_with(['.', '-']) && tag.chars().all(good)
        };
        if !repository.split('/').all(component) || reference.is_some_and(|reference| !tag(reference)) {
            return Err(Error::Invalid(format!(
                "`{name}` is no name of a registry's image: lower-case letters, digits and . _ - between slashes"
            )));
        }
        Ok(Parsed {
            extra: Vec::new(),
            location: folder.into(),
            repository: repository.into(),
            reference: reference.map(str::to_owned),
            root: Some(Root::Folder(above(folder))),
            host: None,
            private: false,
            separate_blobs: false,
        })
    }
}

/// The folder that contains a folder.
fn above(folder: &str) -> String {
    match folder.rsplit_once('/') {
        Some(("", _)) => "/".into(),
        Some((above, _)) => above.into(),
        None => ".".into(),
    }
}

fn blob(location: &str, digest: &str) -> Result<String, Error> {
    let (algorithm, hex) = dray_plugin_transport::digest(digest)?;
    Ok(format!("{}/blobs/{algorithm}/{}/{hex}/data", top(location), &hex[..2]))
}

fn within(location: &str, repository: &str, path: &str) -> String {
    format!("{}/repositories/{repository}/{path}", top(location))
}

/// The path of a link: `algorithm/hex/link`.
fn link(digest: &str) -> String {
    format!("{}/link", digest.replacen(':', "/", 1))
}

fn revision(location: &str, repository: &str, digest: &str) -> Result<String, Error> {
    dray_plugin_transport::digest(digest)?;
    Ok(within(location, repository, &format!("_manifests/revisions/{}", link(digest))))
}

fn current(location: &str, repository: &str, tag: &str) -> String {
    within(location, repository, &format!("_manifests/tags/{tag}/current/link"))
}

/// The digest that a link holds. `None` means that the link does not exist.
fn follow(path: &str) -> Result<Option<String>, Error> {
    let Some(bytes) = read(path)? else { return Ok(None) };
    let digest = String::from_utf8_lossy(&bytes).trim().to_owned();
    match is_digest(&digest) {
        true => Ok(Some(digest)),
        false => Err(Error::Invalid(format!("{path} holds no digest"))),
    }
}

fn write(path: &str, content: &[u8]) -> Result<(), Error> {
    loop {
        let now = read(path)?;
        if now.as_deref() == Some(content) || writing::replace(path, now.as_deref(), content)? {
            return Ok(());
        }
    }
}

/// The digest that a reference names in a repository.
fn named(location: &str, repository: &str, reference: Option<&str>) -> Result<Option<String>, Error> {
    match reference {
        Some(digest) if is_digest(digest) => {
            Ok(follow(&revision(location, repository, digest)?)?.map(|_| digest.into()))
        }
        tag => follow(&current(location, repository, tag.unwrap_or("latest"))),
    }
}

/// Finds the repositories beneath a folder. A repository has manifests.
fn walk(location: &str, folder: &str, found: &mut Vec<String>) -> Result<(), Error> {
    let path = format!("{}/repositories/{folder}", top(location));
    for entry in files::entries(path.trim_end_matches('/'))? {
        if entry.name == "_manifests" && !folder.is_empty() {
            found.push(folder.trim_end_matches('/').into());
        } else if entry.directory && !entry.name.starts_with('_') {
            walk(location, &format!("{folder}{}/", entry.name), found)?;
        }
    }
    Ok(())
}

impl catalog::Guest for RegistryStorage {
    fn repositories(location: String, _next: Option<String>) -> Result<Page, Error> {
        if files::entries(&top(&location))?.is_empty() {
            return Err(Error::NotFound(format!("{location} holds no registry: there is no {TOP} in it")));
        }
        let mut names = Vec::new();
        walk(&location, "", &mut names)?;
        Ok(Page { names, next: None })
    }

    fn tags(location: String, repository: String, _next: Option<String>) -> Result<Page, Error> {
        let entries = files::entries(&within(&location, &repository, "_manifests/tags"))?;
        if entries.is_empty() && files::entries(&within(&location, &repository, "_manifests"))?.is_empty() {
            return Err(Error::NotFound(format!("{location} has no repository {repository}")));
        }
        Ok(Page { names: entries.into_iter().map(|entry| entry.name).collect(), next: None })
    }

    fn resolve(
        location: String,
        repository: String,
        reference: Option<String>,
        _known: Option<String>,
    ) -> Result<Found, Error> {
        let Some(digest) = named(&location, &repository, reference.as_deref())? else {
            return Ok(Found::Absent);
        };
        Ok(match read(&blob(&location, &digest)?)? {
            Some(body) => Found::Manifest(unsigned("", body)),
            None => Found::Absent,
        })
    }
}

impl listing::Guest for RegistryStorage {
    fn tags(location: String, repository: String, next: Option<String>) -> Result<TagPage, Error> {
        let page = <RegistryStorage as catalog::Guest>::tags(location.clone(), repository.clone(), next)?;
        let entry = |name: String| {
            let digest = match named(&location, &repository, Some(&name))? {
                // If the manifest of a tag was lost, the tag names nothing, and can be written again.
                Some(digest) if files::stat(&blob(&location, &digest)?)?.is_some() => Some(digest),
                _ => None,
            };
            Ok(TagEntry { digest, ..only_name(name) })
        };
        let entries = page.names.into_iter().map(entry).collect::<Result<_, Error>>()?;
        Ok(TagPage { entries, next: None, behind: None })
    }
}

impl source::Guest for RegistryStorage {
    fn fetch(location: String, repository: String, reference: Option<String>) -> Result<Manifest, Error> {
        let missing = || {
            let shown = reference.as_deref().unwrap_or("latest");
            Error::NotFound(format!("{location} holds no {repository}:{shown}"))
        };
        let digest = named(&location, &repository, reference.as_deref())?.ok_or_else(missing)?;
        // The media type is not stored, so the manifest has to tell it.
        Ok(unsigned("", read(&blob(&location, &digest)?)?.ok_or_else(missing)?))
    }

    /// Lists what dray's own registry records of referrers.
    fn referrers(
        location: String,
        repository: String,
        subject: String,
        _next: Option<String>,
    ) -> Result<ReferrersPage, Error> {
        let (algorithm, hex) = digest(&subject)?;
        let mut descriptors = Vec::new();
        for entry in
            files::entries(&within(&location, &repository, &format!("_referrers/{algorithm}/{hex}/sha256")))?
        {
            let digest = format!("sha256:{}", entry.name);
            let Some(body) = read(&blob(&location, &digest)?)? else { continue };
            let manifest: serde_json::Value = serde_json::from_slice(&body).unwrap_or_default();
            let text = |key: &str| manifest.get(key).and_then(|value| value.as_str()).map(str::to_owned);
            descriptors.push(Descriptor {
                extra: Vec::new(),
                media_type: text("mediaType").unwrap_or_default(),
                digest,
                size: body.len() as u64,
                artifact_type: text("artifactType"),
                annotations: Vec::new(),
            });
        }
        Ok(ReferrersPage { descriptors, next: None })
    }

    fn locate(location: String, _repository: String, wanted: Descriptor) -> Result<Vec<Segment>, Error> {
        Ok(vec![Segment::File(whole(&blob(&location, &wanted.digest)?))])
    }
}

/// Refuses folders that must not be written to. Harbor keeps what it knows of its images in a database, so it
/// would never show an image that is written to its storage.
fn claim(location: &str) -> Result<(), Error> {
    let names = |folder: &str| Ok::<_, Error>(files::entries(folder)?.into_iter().map(|entry| entry.name));
    let beside: Vec<String> = names("")?.collect();
    // Harbor's installer makes these folders in its data volume.
    if ["database", "job_logs", "secret"]
        .iter()
        .filter(|name| beside.iter().any(|there| there == *name))
        .count()
        > 1
    {
        return Err(Error::Denied(format!(
            "{location} is the storage of a Harbor, which would not know of images written there: push to it with docker://"
        )));
    }
    let inside: Vec<String> = names(last(location))?.collect();
    match inside.iter().any(|name| name == "docker") || inside.iter().all(|name| name.starts_with('.')) {
        true => Ok(()),
        false => Err(Error::Denied(format!(
            "{location} is not empty and holds no registry: choose the folder that holds {TOP}, or an empty one"
        ))),
    }
}

impl sink::Guest for RegistryStorage {
    fn get_capabilities(_location: String) -> Capabilities {
        // Blobs are shared, but each repository has its own links to them.
        Capabilities {
            exclusive: false,
            extra: Vec::new(),
            mount: false,
            sparse: Some(true),
            shared: false,
            many: true,
            signatures: false,
            holds: None,
        }
    }

    fn store_blob(
        location: String,
        repository: String,
        incoming: Incoming,
        _state: Option<Vec<u8>>,
        last: Option<Outcome>,
    ) -> Result<NextStep, Error> {
        let named = incoming.blob.digest.clone();
        let turn = store_file(blob(&location, &named)?, &incoming, last, || claim(&location))?;
        if let Step::Finished(Arrival::Stored | Arrival::Present) = turn.step {
            write(&within(&location, &repository, &format!("_layers/{}", link(&named))), named.as_bytes())?;
        }
        Ok(turn)
    }

    /// The order of the writes makes sure that a registry that serves the folder never sees an incomplete
    /// image.
    fn publish(
        location: String,
        repository: String,
        digest: String,
        manifest: Manifest,
        naming: Naming,
    ) -> Result<(), Error> {
        claim(&location)?;
        write(&blob(&location, &digest)?, &manifest.body)?;
        write(&revision(&location, &repository, &digest)?, digest.as_bytes())?;
        let parsed: serde_json::Value = serde_json::from_slice(&manifest.body).unwrap_or_default();
        let subject =
            parsed.get("subject").and_then(|subject| subject.get("digest")).and_then(|value| value.as_str());
        if let Some(subject) = subject.filter(|subject| is_digest(subject)) {
            let of = subject.replacen(':', "/", 1);
            write(
                &within(&location, &repository, &format!("_referrers/{of}/{}", link(&digest))),
                digest.as_bytes(),
            )?;
        }
        if let Naming::Tag(tag) = naming {
            write(
                &within(&location, &repository, &format!("_manifests/tags/{tag}/index/{}", link(&digest))),
                digest.as_bytes(),
            )?;
            write(&current(&location, &repository, &tag), digest.as_bytes())?;
        }
        Ok(())
    }

    fn finish(_location: String, _alone: bool) -> Result<(), Error> {
        Ok(())
    }
}

dray_plugin_transport::prepares_nothing!(RegistryStorage);
dray_plugin_transport::removes_nothing!(
    RegistryStorage,
    "a registry's garbage collection removes what is in its storage: serve it, and delete there"
);

export!(RegistryStorage with_types_in dray_plugin_transport);

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(rest: &str, pattern: bool) -> Result<(String, String, Option<String>), Error> {
        let parsed = <RegistryStorage as references::Guest>::parse(
            "registry-storage".into(),
            rest.into(),
            pattern,
            Vec::new(),
        )?;
        Ok((parsed.location, parsed.repository, parsed.reference))
    }

    #[test]
    fn references_name_a_folder_and_an_image() {
        let expect = |location: &str, repository: &str, reference: Option<&str>| {
            Ok((location.to_owned(), repository.to_owned(), reference.map(str::to_owned)))
        };
        assert_eq!(parse("[/var/lib/registry/]a/b:1", false), expect("/var/lib/registry", "a/b", Some("1")));
        assert_eq!(parse("[r]", true), expect("r", "**", None));
        assert_eq!(parse("[r]a/*", true), expect("r", "a/*", None));
        for bad in
            ["r", "[r]", "[]a", "[r]../a", "[r]a/_layers", "[r]A", "[r]a:../x", "[r]a@sha256:0", "[r]a/"]
        {
            assert!(parse(bad, false).is_err(), "{bad}");
        }
    }
}
