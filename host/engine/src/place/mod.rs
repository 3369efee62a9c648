//! Places: opened sources and destinations.

pub(crate) mod graph;
pub(crate) mod mounts;

use crate::{
    Error, Journal, Kind, LazyJournal, Result,
    contract::{Capabilities, Files, Found, Parsed, Plugins, Request, Response, Transport},
    error::Context,
    files::Root,
    http::{Client, Download, HostAccess, Load, PlaceHttp, Reader, Uploaded, feed, permits, upload},
    lock,
    place::mounts::Mounts,
};
use dray_core::{Descriptor, Endpoint, Manifest, Reference};
use std::{
    collections::HashMap,
    path::PathBuf,
    sync::{
        Arc, Mutex,
        atomic::{AtomicBool, Ordering},
    },
};
use tokio::{io::AsyncWriteExt, sync::OnceCell};

/// From where to where: the addresses of the hosts at both ends.
pub(crate) type Route = (Option<String>, Option<String>);

/// Questions about files that are answered at once.
const FILES: usize = 16;

/// One opened source or destination: a registry, a layout, a folder.
pub struct Place {
    /// What it speaks.
    pub transport: Arc<dyn Transport>,
    /// Its scheme.
    pub scheme: String,
    /// Canonical name, as its transport gave it.
    pub location: String,
    /// Its network.
    pub http: Option<PlaceHttp>,
    /// Its files.
    pub files: Option<Arc<Root>>,
    /// Where its blobs lie, if not among its files.
    blobs: Option<PathBuf>,
    /// What the run finds on its machine.
    pub(crate) local: Arc<Local>,
    capabilities: OnceCell<Capabilities>,
    /// One at a time: two readers of an image want the same archive.
    downloading: tokio::sync::Mutex<()>,
    /// Something is written there in this run.
    destination: AtomicBool,
    /// What it says to linking blobs between its repositories.
    pub(crate) mounts: Mounts,
    /// Whether it was seen to take an index with missing children.
    pub(crate) sparse_seen: AtomicBool,
}

impl Place {
    /// Canonical name with its scheme.
    pub fn key(&self) -> String {
        format!("{}:{}", self.scheme, self.location)
    }

    /// Whether something may be written there in this run.
    pub fn is_destination(&self) -> bool {
        self.destination.load(Ordering::Relaxed)
    }

    /// Names where its blobs are: two places may have theirs in common.
    pub(crate) fn blobs_key(&self) -> String {
        match &self.blobs {
            Some(folder) => format!("blobs:{}", folder.display()),
            None => self.key(),
        }
    }

    /// What it can do as a destination, asked once.
    pub(crate) async fn capabilities(self: &Arc<Self>) -> Result<Capabilities> {
        self.capabilities.get_or_try_init(|| self.transport.capabilities(self)).await.cloned()
    }

    /// The journal, where it can spare a request: only networks are slow to ask.
    pub(crate) fn memory(&self) -> Option<&Journal> {
        self.http.as_ref().and_then(|_| self.local.journal.get())
    }

    /// The way from here to another place: its hosts. All places without one are on one way, as there may be one
    /// for each repository, and files do not stand still.
    pub(crate) fn route_to(&self, other: &Place) -> Route {
        let host = |place: &Place| place.http.as_ref().map(|http| http.address().to_owned());
        (host(self), host(other))
    }

    /// Adds to a failure to read from files what those files are, and by which scheme they are read.
    pub(crate) fn explained(&self, error: Error) -> Error {
        let Some(files) = self.files.as_ref().filter(|_| self.http.is_none() && error.help.is_none()) else {
            return error;
        };
        match crate::files::hint(files, &self.scheme, &self.local.scratch) {
            Some(hint) => error.help(hint),
            None => error,
        }
    }

    /// How many questions it answers at once.
    pub(crate) fn width(&self) -> usize {
        self.http.as_ref().map_or(FILES, PlaceHttp::width)
    }

    /// Whether it is taken to be as the last run left it.
    pub(crate) fn assumed(&self) -> bool {
        self.http.as_ref().is_some_and(PlaceHttp::assumed)
    }

    /// Whether its layers can be read as plain tars alone.
    pub(crate) async fn unpacks(self: &Arc<Self>) -> Result<bool> {
        match self.capabilities().await {
            Ok(capabilities) => Ok(capabilities.holds.is_some_and(|holds| holds.unpacked)),
            // It can only be read.
            Err(error) if error.kind == Kind::Unsupported => Ok(false),
            Err(error) => Err(error),
        }
    }

    fn parts(&self, doing: &str) -> Result<(&PlaceHttp, Arc<Root>)> {
        match (&self.http, &self.files) {
            (Some(http), Some(files)) => Ok((http, files.clone())),
            _ => Err(Error::invalid(format!("{doing}: {} has no host, or no files", self.location))),
        }
    }

    /// Downloads an archive, once: its members are then the files beneath `path`.
    ///
    /// # Errors
    /// Where it cannot be had, or is no archive.
    pub async fn download(&self, request: &Request, path: &str) -> Result<()> {
        let (http, files) = self.parts("download")?;
        let _one = self.downloading.lock().await;
        if files.adopted(path) {
            return Ok(());
        }
        let mut file = tokio::fs::File::from_std(files.unnamed()?);
        // Every image of the place waits for it.
        let _permits = permits(Some(http), None, Load::of(u64::MAX)).await;
        let mut download = Download::open(http, request, 0, Reader::Plugin).await?;
        while let Some(chunk) = download.next().await? {
            file.write_all(&chunk).await?;
        }
        file.flush().await?;
        let (file, path) = (file.into_std().await, path.to_owned());
        let adopted = tokio::task::spawn_blocking(move || files.adopt(&path, file)).await;
        adopted.map_err(|error| Error::invalid(format!("read the download: {error}")))?
    }

    /// Sends what was written to the place's temporary archive.
    ///
    /// # Errors
    /// Where it is not taken.
    pub async fn send_archive(&self, request: &Request) -> Result<Response> {
        let (http, files) = self.parts("send the archive")?;
        let sealed = tokio::task::spawn_blocking(move || files.sealed()).await;
        let (mut chunks, size) =
            sealed.map_err(|error| Error::invalid(format!("send the archive: {error}")))??;
        let _permits = permits(None, Some(http), Load::of(size)).await;
        let sent = upload(http, request, size, false, async |sender| {
            while let Some(chunk) = chunks.recv().await {
                if !feed(&sender, chunk?).await? {
                    break;
                }
            }
            Ok(())
        });
        match sent.await? {
            Uploaded::Answer(response) => Ok(response),
            Uploaded::Again(_) => Err(Error::invalid("send the archive: it is to be sent elsewhere")),
        }
    }

    /// What tells an image from another as cheaply as can be: its digest, or a mark.
    ///
    /// # Errors
    /// Where the place cannot be asked.
    pub(crate) async fn mark(
        self: &Arc<Self>,
        repository: &str,
        reference: Option<&str>,
    ) -> Result<Option<String>> {
        Ok(match self.transport.resolve(self, repository, reference, None).await? {
            Found::Absent => None,
            Found::Unchanged => return Err(self.same()),
            Found::OpaqueId(mark) => Some(mark),
            Found::Named(descriptor) => Some(descriptor.digest.to_string()),
            Found::Manifest(held) => Some(held.read(None)?.descriptor.digest.to_string()),
        })
    }

    /// A plugin answered that something is as it was known, where nothing was.
    fn same(&self) -> Error {
        let name = self.transport.name();
        Error::new(
            Kind::Plugin,
            format!("resolve an image: the plugin {name} says that it is what nobody knew"),
        )
    }

    /// What a tag or digest names, and the manifest where that came with it. `known` is what it is likely
    /// to name, which may be cheaper to learn.
    pub async fn resolve(
        self: &Arc<Self>,
        repository: &str,
        reference: Option<&str>,
        known: Option<&Descriptor>,
    ) -> Result<Option<(Descriptor, Option<Manifest>)>> {
        let digest = known.map(|known| &known.digest);
        match self.transport.resolve(self, repository, reference, digest).await? {
            Found::Absent => Ok(None),
            Found::Unchanged => Ok(Some((known.ok_or_else(|| self.same())?.clone(), None))),
            Found::Named(descriptor) => {
                if let Some(asked) =
                    reference.and_then(|reference| reference.parse::<dray_core::Digest>().ok())
                    && asked != descriptor.digest
                {
                    return Err(Error::corrupt(format!(
                        "resolve {asked}: {} answered with {}",
                        self.location, descriptor.digest
                    )));
                }
                Ok(Some((descriptor, None)))
            }
            Found::Manifest(held) => {
                let expected = reference.and_then(|reference| reference.parse().ok());
                let manifest = held.read(expected.as_ref())?;
                Ok(Some((manifest.descriptor.clone(), Some(manifest))))
            }
            // Only reading it tells more.
            Found::OpaqueId(_) => {
                let manifest = self.transport.fetch(self, repository, reference).await?.read(None)?;
                Ok(Some((manifest.descriptor.clone(), Some(manifest))))
            }
        }
    }
}

/// A reference that has been read, and its place.
#[derive(Clone)]
pub(crate) struct OpenReference {
    pub place: Arc<Place>,
    pub repository: String,
    pub reference: Option<String>,
    /// The user's own words.
    pub written: Reference,
}

impl OpenReference {
    /// The end of a copy: this repository, with a tag or digest where it is not in the words.
    pub fn endpoint(&self, reference: Option<&str>) -> Endpoint {
        let mut display = self.written.to_string();
        if self.reference.is_none()
            && let Some(reference) = reference
        {
            display.push(if reference.contains(':') { '@' } else { ':' });
            display.push_str(reference);
        }
        Endpoint {
            place: self.place.key(),
            repository: self.repository.clone(),
            reference: reference.or(self.reference.as_deref()).map(str::to_owned),
            display,
        }
    }
}

/// What a run finds on its machine and no reference names.
pub struct Local {
    /// Folder for what is expanded or downloaded: gone with the run.
    pub scratch: PathBuf,
    /// Folders that transports know by name.
    pub known: HashMap<String, PathBuf>,
    /// File of what earlier runs learnt, opened when it is asked; none: there is none.
    pub journal: LazyJournal,
}

/// The places of a run: each is opened once.
pub struct Places {
    plugins: Arc<dyn Plugins>,
    client: Client,
    /// What relative paths in references are relative to.
    base: PathBuf,
    local: Arc<Local>,
    /// By scheme: those that read references, and open nothing.
    parsers: Mutex<HashMap<String, Arc<dyn Transport>>>,
    open: Mutex<HashMap<String, Arc<Place>>>,
}

/// Whether a reference names just this path: all of what stands behind its scheme, or what stands there before a
/// `:` or an `@`. A folder above that path is not named.
fn names_path(rest: &str, root: &str) -> bool {
    let behind = rest.strip_prefix(root);
    !root.is_empty() && behind.is_some_and(|behind| behind.is_empty() || behind.starts_with([':', '@']))
}

/// Whether a reference names this host: it stands where registries' references have theirs.
fn names_host(rest: &str, host: &str) -> bool {
    rest.trim_start_matches('/').split('/').next() == Some(host)
}

impl Local {
    /// The journal, for whoever cannot do without it.
    ///
    /// # Errors
    /// Where there is none, or it cannot be opened.
    pub fn opened(&self) -> Result<&Journal> {
        self.journal.need()
    }
}

impl Places {
    /// The journal, opened if need be; none: a run works without it.
    pub fn journal(&self) -> Option<&Journal> {
        self.local.journal.get()
    }

    /// Places that are opened as they are needed.
    pub fn new(
        plugins: Arc<dyn Plugins>,
        client: Client,
        base: impl Into<PathBuf>,
        local: Local,
    ) -> Arc<Self> {
        Arc::new(Places {
            plugins,
            client,
            base: base.into(),
            local: Arc::new(local),
            parsers: Mutex::default(),
            open: Mutex::default(),
        })
    }

    /// Where components come from.
    pub fn plugins(&self) -> &Arc<dyn Plugins> {
        &self.plugins
    }

    /// Reads a reference without opening anything.
    ///
    /// # Errors
    /// Where no transport has its scheme, or the transport cannot read it.
    pub async fn parse(&self, reference: &Reference, pattern: bool) -> Result<Parsed> {
        let known = lock(&self.parsers).get(&reference.scheme).cloned();
        let parser = match known {
            Some(parser) => parser,
            None => {
                let parser = self.plugins.transport(&reference.scheme).await?;
                lock(&self.parsers).entry(reference.scheme.clone()).or_insert(parser).clone()
            }
        };
        let parsed = parser.parse(&reference.rest, pattern, &self.client.names()).await;
        let parsed = parsed.context(|| "understand the reference")?;
        if !parser.trusted() {
            self.check(parser.as_ref(), &parsed, reference)?;
        }
        Ok(parsed)
    }

    /// A stranger's transport gets the path and the host that its user wrote or granted, and no others.
    fn check(&self, transport: &dyn Transport, parsed: &Parsed, reference: &Reference) -> Result<()> {
        let refuse = |what: &str, grant: Option<String>| {
            let name = transport.name();
            let text = format!(
                "open {reference}: the plugin {name} asks for {what}, which the reference does not name"
            );
            let error = Error::new(Kind::Denied, text);
            Err(match grant {
                Some(grant) => error.help(format!(
                    "if the plugin is to have it, grant it with `grant = {{ {grant} }}` in the table [plugin.{name}]"
                )),
                None => error,
            })
        };
        match &parsed.root {
            Some(Files::Folder(root) | Files::Archive(root))
                if !names_path(&reference.rest, root) && !self.grants_path(transport, root) =>
            {
                return refuse(&format!("the files of {root}"), Some(format!("files = [{root:?}]")));
            }
            Some(Files::Known(name)) => {
                return refuse(&format!("the folder that is known as {name}"), None);
            }
            _ => {}
        }
        if let Some(host) = &parsed.host
            && !names_host(&reference.rest, host)
            && !transport.granted_hosts().contains(host)
        {
            return refuse(&format!("the host {host}"), Some(format!("hosts = [{host:?}]")));
        }
        Ok(())
    }

    fn grants_path(&self, transport: &dyn Transport, root: &str) -> bool {
        let root = self.base.join(root);
        transport.granted_files().iter().any(|granted| self.base.join(granted) == root)
    }

    /// Reads a reference and opens its place.
    pub(crate) async fn spot(&self, reference: &Reference, pattern: bool) -> Result<OpenReference> {
        let parsed = self.parse(reference, pattern).await?;
        let place = self.open(reference, &parsed).await?;
        Ok(OpenReference {
            place,
            repository: parsed.repository,
            reference: parsed.reference,
            written: reference.clone(),
        })
    }

    /// Reads a reference and opens its place to be written to.
    pub(crate) async fn destination(&self, reference: &Reference) -> Result<OpenReference> {
        let spot = self.spot(reference, false).await?;
        spot.place.destination.store(true, Ordering::Relaxed);
        Ok(spot)
    }

    async fn open(&self, reference: &Reference, parsed: &Parsed) -> Result<Arc<Place>> {
        let scheme = &reference.scheme;
        let location = parsed.location.clone();
        let blobs = reference.blobs.as_ref().map(|blobs| self.base.join(blobs));
        let key = format!("{scheme}:{location}\n{:?}\n{:?}\n{blobs:?}", parsed.root, parsed.host);
        if let Some(place) = lock(&self.open).get(&key) {
            return Ok(place.clone());
        }
        let folder = |path: PathBuf| match scheme.as_str() {
            "containers-storage" => Root::store(path),
            _ => Root::folder(path),
        };
        let root = match &parsed.root {
            Some(Files::Folder(path)) if scheme == "oci" && blobs.is_some() => {
                Some(Root::layout(self.base.join(path), blobs.as_deref()))
            }
            _ if blobs.is_some() => {
                let text = format!("open {reference}: its blobs cannot lie in another folder");
                return Err(Error::new(Kind::Unsupported, text).help("that is for `oci:` alone"));
            }
            None => None,
            Some(Files::Folder(path)) => Some(folder(self.base.join(path))),
            Some(Files::Archive(path)) => Some(Root::archive(self.base.join(path), &self.local.scratch)),
            Some(Files::Temporary) => Some(Root::temporary(&self.local.scratch)),
            Some(Files::Known(name)) => {
                let path = self.local.known.get(name);
                let path = path
                    .ok_or_else(|| Error::invalid(format!("open {scheme}: no folder is known as {name}")))?;
                Some(folder(path.clone()))
            }
        };
        // One of its own, so that a stranger's plugin cannot carry what it saw at one place to another.
        let transport = self.plugins.transport(scheme).await?;
        let access = |host: &str| match transport.trusted() {
            true => HostAccess::Trusted { registry: location.clone() },
            // Settings and credentials go by a name that a stranger's transport cannot choose.
            false => HostAccess::Stranger {
                granted: transport.granted_hosts().to_vec(),
                named: names_host(&reference.rest, host),
            },
        };
        let http = parsed.host.as_deref().map(|host| PlaceHttp::new(&self.client, host, access(host)));
        let place = Arc::new(Place {
            transport,
            scheme: scheme.clone(),
            location,
            blobs,
            http: http.transpose()?,
            files: root.map(Arc::new),
            local: self.local.clone(),
            capabilities: OnceCell::new(),
            downloading: tokio::sync::Mutex::default(),
            destination: AtomicBool::new(false),
            mounts: Mounts::default(),
            sparse_seen: false.into(),
        });
        Ok(lock(&self.open).entry(key).or_insert(place).clone())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_reference_names_one_path_and_no_folder_above_it() {
        for (rest, root) in [
            ("./images", "./images"),
            ("./images:v1", "./images"),
            ("/srv/a@sha256:00", "/srv/a"),
            ("a:b:c", "a:b"),
        ] {
            assert!(names_path(rest, root), "{rest} {root}");
        }
        for (rest, root) in [
            ("./images", "."),
            ("/srv/a", "/srv"),
            ("/srv/a", "/"),
            ("images", ""),
            ("images", "image"),
            ("a", "../a"),
        ] {
            assert!(!names_path(rest, root), "{rest} {root}");
        }
    }

    #[test]
    fn a_reference_names_one_host() {
        assert!(names_host("//r.example:5000/a", "r.example:5000"));
        assert!(names_host("r.example/a", "r.example"));
        for host in ["example", "a", "r.example", ""] {
            assert!(!names_host("//r.example:5000/a", host), "{host}");
        }
    }
}
