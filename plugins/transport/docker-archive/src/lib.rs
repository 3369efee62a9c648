//! `docker-archive:`, which are the archives that `docker save` writes, and `docker-daemon:`, which exchanges
//! the same archives with a daemon.

mod daemon;
mod name;
mod saved;

use dray_plugin_transport::{
    Error, Info, Meta,
    dray::plugin::{
        files,
        types::{Descriptor, Manifest, Segment},
        writing,
    },
    export,
    exports::dray::plugin::{
        catalog::{self, Found, Page},
        references::{self, Parsed},
        sink::{self, Capabilities, Holdings, Incoming, Naming, NextStep, Outcome},
        source::{self, ReferrersPage},
    },
    info, is_digest, read, store_file, whole,
};
use name::DAEMON;
use saved::{DOCKER_MANIFEST, MANIFEST, Saved};
use std::collections::BTreeSet;

struct DockerArchive;

impl Meta for DockerArchive {
    fn describe() -> Info {
        let summary = "Archives of docker save, and Docker daemons: docker-archive:FILE[:NAME[:TAG]|:@N], docker-daemon:NAME[:TAG]";
        info("docker-archive", env!("CARGO_PKG_VERSION"), summary, &["docker-archive", "docker-daemon"])
    }
}

impl references::Guest for DockerArchive {
    fn parse(scheme: String, rest: String, pattern: bool, _registries: Vec<String>) -> Result<Parsed, Error> {
        name::parse(&scheme, &rest, pattern)
    }
}

/// Endings of archives inside an archive that are searched, too. Harbor's offline installer holds such an
/// archive.
const INNER: [&str; 3] = [".tar.gz", ".tgz", ".tar"];

/// The archive of a place. `None` means that the place is still empty.
fn archive(location: &str) -> Result<Option<Saved>, Error> {
    if let Some(saved) = Saved::at(location, "")? {
        return Ok(Some(saved));
    }
    let top = files::entries("")?;
    let mut candidates = Vec::new();
    for entry in &top {
        if entry.directory {
            let inner = files::entries(&entry.name)?;
            candidates.extend(inner.into_iter().map(|inner| format!("{}/{}", entry.name, inner.name)));
        } else {
            candidates.push(entry.name.clone());
        }
    }
    for name in candidates.iter().filter(|name| INNER.iter().any(|ending| name.ends_with(ending))) {
        if let Some(saved) = Saved::at(location, &format!("{name}/"))? {
            return Ok(Some(saved));
        }
    }
    match top.is_empty() {
        true => Ok(None),
        false if top.iter().any(|entry| entry.name == "oci-layout") => {
            Err(Error::Invalid(format!("{location} is an OCI archive: read it as oci-archive:{location}")))
        }
        false => Err(Error::Invalid(format!(
            "{location} is no archive of docker save: there is no {MANIFEST} in it"
        ))),
    }
}

fn there(location: &str) -> Result<Saved, Error> {
    archive(location)?.ok_or_else(|| Error::NotFound(format!("{location} is not there, or empty")))
}

impl catalog::Guest for DockerArchive {
    fn repositories(location: String, _next: Option<String>) -> Result<Page, Error> {
        let names: BTreeSet<String> = match location.as_str() {
            DAEMON => daemon::names()?.into_iter().map(|(repository, _)| repository).collect(),
            _ => {
                let saved = there(&location)?;
                // Images without a name are in a repository that has an empty name.
                let unnamed = saved.items.iter().any(|item| item.repo_tags.is_empty());
                let names = saved.items.iter().flat_map(|item| item.names().collect::<Vec<_>>());
                names.map(|(repository, _)| repository).chain(unnamed.then(String::new)).collect()
            }
        };
        Ok(Page { names: names.into_iter().collect(), next: None })
    }

    fn tags(location: String, repository: String, _next: Option<String>) -> Result<Page, Error> {
        let of = |(name, tag): (String, String)| (name == repository).then_some(tag);
        let names = match location.as_str() {
            DAEMON => daemon::names()?.into_iter().filter_map(of).collect(),
            _ => {
                let items = there(&location)?.items;
                match repository.is_empty() {
                    false => items
                        .iter()
                        .flat_map(|item| item.names().collect::<Vec<_>>())
                        .filter_map(of)
                        .collect(),
                    true => {
                        let unnamed = |(_, item): &(usize, &saved::Item)| item.repo_tags.is_empty();
                        items.iter().enumerate().filter(unnamed).map(|(at, _)| format!("@{at}")).collect()
                    }
                }
            }
        };
        Ok(Page { names, next: None })
    }

    fn resolve(
        location: String,
        repository: String,
        reference: Option<String>,
        _known: Option<String>,
    ) -> Result<Found, Error> {
        if location == DAEMON {
            let id = daemon::id(&daemon::name(&repository, reference.as_deref()))?;
            return Ok(id.map_or(Found::Absent, Found::OpaqueId));
        }
        let Some(saved) = archive(&location)? else { return Ok(Found::Absent) };
        if let Some(digest) = reference.as_deref().filter(|reference| is_digest(reference)) {
            return Ok(by_digest(&location, &saved, digest)?.map_or(Found::Absent, Found::Manifest));
        }
        Ok(match saved.find(&location, &repository, reference.as_deref())? {
            Some(item) => Found::Manifest(saved.manifest(&location, item)?),
            None => Found::Absent,
        })
    }
}

/// The manifest with this digest. A manifest has to be made before its digest is known.
fn by_digest(location: &str, saved: &Saved, digest: &str) -> Result<Option<Manifest>, Error> {
    for item in &saved.items {
        let manifest = saved.manifest(location, item)?;
        if dray_plugin_transport::sha256(&manifest.body) == digest {
            return Ok(Some(manifest));
        }
    }
    Ok(None)
}

dray_plugin_transport::lists_names!(DockerArchive);

impl source::Guest for DockerArchive {
    fn fetch(location: String, repository: String, reference: Option<String>) -> Result<Manifest, Error> {
        let missing = || {
            let shown = daemon::name(&repository, reference.as_deref());
            Error::NotFound(format!("{location} holds no image {shown}"))
        };
        if let Some(digest) = reference.as_deref().filter(|reference| is_digest(reference)) {
            for saved in archives(&location)? {
                if let Some(manifest) = by_digest(&location, &saved, digest)? {
                    return Ok(manifest);
                }
            }
            if location != DAEMON {
                return Err(missing());
            }
        }
        if location == DAEMON {
            let folder = daemon::save(&daemon::name(&repository, reference.as_deref()))?;
            let saved = Saved::at("the daemon's archive", &format!("{folder}/"))?.ok_or_else(missing)?;
            let item = saved.items.first().ok_or_else(missing)?;
            return saved.manifest("the daemon's archive", item);
        }
        let saved = there(&location)?;
        let item = saved.find(&location, &repository, reference.as_deref())?.ok_or_else(missing)?;
        saved.manifest(&location, item)
    }

    fn referrers(
        _location: String,
        _repository: String,
        _subject: String,
        _next: Option<String>,
    ) -> Result<ReferrersPage, Error> {
        Ok(ReferrersPage { descriptors: Vec::new(), next: None })
    }

    fn locate(location: String, repository: String, blob: Descriptor) -> Result<Vec<Segment>, Error> {
        for saved in archives(&location)? {
            match saved.locate(&location, &repository, &blob)? {
                Some(saved::Place::Member(path)) => return Ok(vec![Segment::File(whole(&path))]),
                Some(saved::Place::Zeros(size)) => return Ok(vec![Segment::Inline(vec![0; size as usize])]),
                None => {}
            }
        }
        Err(Error::NotFound(format!("{location} does not hold {}", blob.digest)))
    }
}

/// The archives of a place: one, or those that a daemon saved.
fn archives(location: &str) -> Result<Vec<Saved>, Error> {
    if location != DAEMON {
        return Ok(vec![there(location)?]);
    }
    let folders = files::entries("")?.into_iter().filter(|entry| entry.directory);
    let saved = folders.map(|entry| Saved::at("the daemon's archive", &format!("{}/", entry.name)));
    saved.filter_map(Result::transpose).collect()
}

impl sink::Guest for DockerArchive {
    fn get_capabilities(_location: String) -> Capabilities {
        let holds = Holdings { manifests: vec![DOCKER_MANIFEST.into()], plain: true, unpacked: false };
        Capabilities {
            exclusive: false,
            extra: Vec::new(),
            mount: false,
            sparse: None,
            shared: true,
            many: true,
            signatures: false,
            holds: Some(holds),
        }
    }

    fn store_blob(
        location: String,
        _repository: String,
        incoming: Incoming,
        _state: Option<Vec<u8>>,
        last: Option<Outcome>,
    ) -> Result<NextStep, Error> {
        let (_, hex) = dray_plugin_transport::digest(&incoming.blob.digest)?;
        let config = incoming.blob.media_type.ends_with("+json");
        let path = format!("{hex}.{}", if config { "json" } else { "tar" });
        // If there already is a file, it must be an archive of images.
        store_file(path, &incoming, last, || match location.as_str() {
            DAEMON => Ok(()),
            _ => archive_to_write(&location).map(|_| ()),
        })
    }

    fn publish(
        location: String,
        repository: String,
        _digest: String,
        manifest: Manifest,
        naming: Naming,
    ) -> Result<(), Error> {
        let name = match &naming {
            Naming::Child => return Ok(()),
            Naming::Root => saved::kept_name(&repository, None),
            Naming::Tag(tag) => saved::kept_name(&repository, Some(tag)),
        };
        if location == DAEMON && name.is_none() {
            return Err(Error::Invalid("a daemon's image needs a name: docker-daemon:NAME:TAG".into()));
        }
        loop {
            let current = if location == DAEMON { read(MANIFEST)? } else { archive_to_write(&location)? };
            let mut items = match &current {
                Some(bytes) => saved::items(&location, bytes)?,
                None => Vec::new(),
            };
            let item = saved::item(&manifest)?;
            if name.is_none() && items.iter().any(|other| other.config != item.config) {
                return Err(Error::Invalid(format!(
                    "{location} holds another image, so this one needs a name: docker-archive:{location}:NAME:TAG"
                )));
            }
            saved::add(&mut items, item, name.as_deref());
            // Serialising items never fails.
            let bytes = serde_json::to_vec(&items).unwrap_or_default();
            if writing::replace(MANIFEST, current.as_deref(), &bytes)? {
                return Ok(());
            }
        }
    }

    /// Removes the blobs that no image names any more. A daemon gets its archive instead.
    fn finish(location: String, _alone: bool) -> Result<(), Error> {
        if location == DAEMON {
            return daemon::load();
        }
        let Some(bytes) = archive_to_write(&location)? else { return Ok(()) };
        let items = saved::items(&location, &bytes)?;
        let named: BTreeSet<&str> = items
            .iter()
            .flat_map(|item| item.layers.iter().chain([&item.config]))
            .map(String::as_str)
            .collect();
        let names = files::entries("")?.into_iter().map(|entry| entry.name);
        writing::remove(
            &names.filter(|name| is_blob(name) && !named.contains(name.as_str())).collect::<Vec<_>>(),
        )
    }
}

/// Whether this is a name under which dray or skopeo keeps a blob.
fn is_blob(name: &str) -> bool {
    let hex = name.strip_suffix(".json").or_else(|| name.strip_suffix(".tar"));
    hex.is_some_and(|hex| is_digest(&format!("sha256:{hex}")))
}

/// The `manifest.json` of an archive to which images may be added. `None` means that the archive is empty, or
/// that it only holds blobs of the first image.
fn archive_to_write(location: &str) -> Result<Option<Vec<u8>>, Error> {
    if let Some(bytes) = read(MANIFEST)? {
        if files::stat("oci-layout")?.is_some() {
            // Docker's own tools may read the images from the layout, which dray would not change.
            return Err(Error::Denied(format!(
                "{location} holds an OCI layout beside its images, as Docker 25 saves them, and dray adds nothing to that: choose another file"
            )));
        }
        return Ok(Some(bytes));
    }
    if files::entries("")?.iter().all(|entry| is_blob(&entry.name)) {
        return Ok(None);
    }
    match archive(location)? {
        None => Ok(None),
        // Another image of the same run was published between the two looks.
        Some(_) if files::stat(MANIFEST)?.is_some() => archive_to_write(location),
        Some(_) => {
            Err(Error::Denied(format!("{location} is an archive within an archive: choose another file")))
        }
    }
}

dray_plugin_transport::prepares_nothing!(DockerArchive);
dray_plugin_transport::removes_nothing!(
    DockerArchive,
    "archives of docker save and daemons only take images: `docker rmi` removes them from a daemon"
);

export!(DockerArchive with_types_in dray_plugin_transport);
