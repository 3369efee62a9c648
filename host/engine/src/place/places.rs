//! The places of a session. Each is opened once.

use super::{OpenReference, Place, Repository, grants, kind::Speech, mounts::Mounts, naming::Names};
use crate::{
    Error, Journal, Kind, LazyJournal, Result,
    contract::{Files, Parsed, Plugins, Transport},
    error::Context,
    files::Root,
    http::{Client, HostAccess, PlaceHttp},
    lock,
    schedule::fair_share::FairShare,
};
use dray_core::{Manifest, PullFrom, Reference, RegistriesConf};
use dray_trust::Trust;
use std::{
    collections::HashMap,
    path::{Path, PathBuf},
    sync::{
        Arc, Mutex, OnceLock,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};
use tokio::sync::OnceCell;

/// The local resources of a session that no reference names.
#[derive(Clone)]
pub struct Local {
    /// Folder for files that are expanded or downloaded. It is removed at the end of the session.
    pub scratch: PathBuf,
    /// Folders that transports know by name.
    pub known: HashMap<String, PathBuf>,
    /// The journal of earlier runs. It is opened on first use.
    pub journal: LazyJournal,
    /// How many blobs are written to disks at once: [`DISK_WRITES`], or fewer if the process may open few files. Each
    /// write uses threads that wait for each other, so the threads of all writes together must fit into the runtime's
    /// pool.
    pub disk_writes: usize,
    /// What this machine says about signatures.
    pub trust: Trust,
    /// What registries.conf says.
    pub registries: RegistriesConf,
    /// A folder with reports of scanners, each named by the digest of its image (`sha256-….json`).
    pub scan_reports: Option<PathBuf>,
}

/// Default number of blobs that are written to disks at once, if the process may open enough files.
pub const DISK_WRITES: usize = 64;

impl Local {
    /// The journal, for callers that cannot work without it. Fails if there is no journal, or if it cannot be opened.
    pub fn opened(&self) -> Result<&Journal> {
        self.journal.need()
    }
}

/// The places of a session. Each is opened once.
pub struct Places {
    plugins: Arc<dyn Plugins>,
    client: Client,
    /// The folder to which relative paths in references are relative.
    base: PathBuf,
    local: Arc<Local>,
    disks: Arc<FairShare>,
    /// Transports by scheme, used only for parsing references. They open nothing.
    parsers: Mutex<HashMap<String, Arc<dyn Transport>>>,
    /// Whether no plugin may change any place.
    only_looks: AtomicBool,
    open: Mutex<HashMap<String, Arc<Place>>>,
}

impl Places {
    /// The folder for temporary files.
    pub fn scratch(&self) -> &Path {
        &self.local.scratch
    }

    /// The registries that ask us to wait before the next request, and how much longer.
    pub fn waits(&self) -> Vec<(String, Duration)> {
        self.client.waits()
    }

    /// Creates an empty collection. Places are opened when they are needed.
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
            disks: FairShare::new(local.disk_writes.max(1)),
            local: Arc::new(local),
            parsers: Mutex::default(),
            only_looks: AtomicBool::default(),
            open: Mutex::default(),
        })
    }

    /// Lets no plugin change anything from now on, because only a plan is made.
    pub fn only_look(&self) {
        self.only_looks.store(true, Ordering::Relaxed);
    }

    /// The journal, opened on first use. `None` means that it is not available; a run works without it.
    pub fn journal(&self) -> Option<&Journal> {
        self.local.journal.get()
    }

    /// The folder to which relative paths are relative.
    pub(crate) fn base(&self) -> &Path {
        &self.base
    }

    /// The plugins from which transports and other components are loaded.
    pub fn plugins(&self) -> &Arc<dyn Plugins> {
        &self.plugins
    }

    /// What this machine says about signatures.
    pub fn trust(&self) -> &Trust {
        &self.local.trust
    }

    /// Parses a reference without opening anything. Fails if no transport has its scheme, or if the transport cannot
    /// read it.
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
            grants::check(parser.as_ref(), &parsed, reference, &self.base)?;
        }
        Ok(parsed)
    }

    /// Parses a reference and opens its place for reading. With `pattern`, its repository may be a glob. Fails if the
    /// reference cannot be parsed or the place cannot be opened.
    pub(crate) async fn source(&self, reference: &Reference, pattern: bool) -> Result<OpenReference> {
        let parsed = self.parse(reference, pattern).await?;
        let place = self.open(reference, &parsed).await?;
        let repository = Repository::new(place, parsed.repository);
        let opened = OpenReference {
            repository,
            reference: parsed.reference,
            written: reference.clone(),
            stands_for: None,
        };
        opened.place().check_blocked(&opened.repository.name)?;
        Ok(opened)
    }

    /// `host[:port]/path` of a registry's image. `None` means that registries.conf does not speak of it.
    fn full_name(&self, opened: &OpenReference) -> Option<String> {
        let place = opened.place();
        (place.scheme() == "docker").then(|| format!("{}/{}", place.location, opened.repository.name))
    }

    /// Where an image is read: at the mirrors that registries.conf names, in their order, and then at the place that it
    /// means. Fails if a mirror cannot be opened.
    pub(crate) async fn reads(
        &self,
        source: &OpenReference,
        reference: Option<&str>,
    ) -> Result<Vec<OpenReference>> {
        let name = self.full_name(source).filter(|_| source.stands_for.is_none());
        let Some(sources) = name.as_ref().and_then(|name| self.local.registries.sources(name)) else {
            return Ok(vec![source.clone()]);
        };
        let by_digest = reference.is_some_and(|reference| reference.contains(':'));
        let asked = sources.into_iter().filter(|source| match source.pull {
            PullFrom::All => true,
            PullFrom::DigestOnly => by_digest,
            PullFrom::TagOnly => !by_digest,
        });
        let mut found = Vec::new();
        for at in asked {
            if Some(&at.name) == name.as_ref() {
                found.push(source.clone());
                continue;
            }
            let moved: Reference = format!("docker://{}", at.name)
                .parse()
                .map_err(|error| Error::invalid(format!("read registries.conf: {}: {error}", at.name)))?;
            let parsed = self.parse(&moved, false).await?;
            let place = self.open(&moved, &parsed).await?;
            place.check_blocked(&parsed.repository)?;
            tracing::info!("registries.conf: {} is read at {}", source.written, at.name);
            found.push(OpenReference {
                repository: Repository::new(place, parsed.repository),
                stands_for: Some(Box::new(source.repository.clone())),
                ..source.clone()
            });
        }
        Ok(found)
    }

    /// Reads the manifest of an opened reference at the first of its mirrors that has it. Also returns where it was read. Fails
    /// with the error of the last place that was asked.
    pub(crate) async fn manifest(&self, opened: &OpenReference) -> Result<(OpenReference, Manifest)> {
        let tag = opened.reference.as_deref();
        let mut last = Error::internal("no place was asked");
        for at in self.reads(opened, tag).await? {
            match at.repository.manifest(tag).await {
                Ok(manifest) => return Ok((at, manifest)),
                Err(error) => last = at.repository.instead(tag, error).await,
            }
        }
        Err(last)
    }

    /// Parses a reference and opens its place for writing. Fails if the reference cannot be parsed or the place cannot
    /// be opened.
    pub(crate) async fn destination(&self, reference: &Reference) -> Result<OpenReference> {
        let opened = self.source(reference, false).await?;
        let changes = !self.only_looks.load(Ordering::Relaxed);
        opened.place().destination.store(changes, Ordering::Relaxed);
        Ok(opened)
    }

    /// Checks the credentials for a registry by asking it. `repository` limits what they are for; an empty one stands for
    /// the whole registry. Returns false if the registry asked for no login, so that nobody checked them.
    ///
    /// # Errors
    /// Fails if the registry refuses the credentials, cannot be reached, or is none.
    pub async fn log_in(&self, registry: &str, repository: &str) -> Result<bool> {
        let named = if repository.is_empty() { "library/any" } else { repository };
        let rest = format!("//{registry}/{named}");
        let reference: Reference =
            format!("docker:{rest}").parse().map_err(|error| Error::invalid(format!("{error}")))?;
        let opened = self.source(&reference, false).await?;
        let none = || Error::invalid(format!("log in to {registry}: it names no host"));
        let http = opened.place().http.as_ref().ok_or_else(none)?;
        http.log_in(repository).await.context(|| format!("log in to {registry}"))
    }

    async fn open(&self, reference: &Reference, parsed: &Parsed) -> Result<Arc<Place>> {
        let scheme = &reference.scheme;
        let location = parsed.location.clone();
        let blobs = reference.blobs.as_ref().map(|blobs| self.base.join(blobs));
        let key = format!("{scheme}:{location}\n{:?}\n{:?}\n{blobs:?}", parsed.root, parsed.host);
        if let Some(place) = lock(&self.open).get(&key) {
            return Ok(place.clone());
        }
        let folder = |path: PathBuf| match parsed.private {
            true => Root::store(path),
            false => Root::folder(path),
        };
        let root = match &parsed.root {
            Some(Files::Folder(path)) if parsed.separate_blobs && blobs.is_some() => {
                Some(Root::layout(self.base.join(path), blobs.as_deref()))
            }
            _ if blobs.is_some() => {
                let text = format!("open {reference}: its blobs cannot lie in another folder");
                return Err(
                    Error::new(Kind::Unsupported, text).help("that is for layouts such as `oci:` alone")
                );
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
        // Each place has its own instance, so that a plugin cannot carry what it saw at one place to another.
        let transport = self.plugins.transport(scheme).await?;
        let access = |host: &str| match transport.trusted() {
            true => HostAccess::Trusted { registry: location.clone() },
            // A plugin cannot choose the name that selects settings and credentials.
            false => HostAccess::Stranger {
                granted: transport.granted_hosts().to_vec(),
                named: grants::names_host(&reference.rest, host),
            },
        };
        let http = parsed.host.as_deref().map(|host| PlaceHttp::new(&self.client, host, access(host)));
        let place = Arc::new(Place {
            transport,
            scheme: scheme.clone(),
            location,
            path: match &parsed.root {
                Some(Files::Folder(path) | Files::Archive(path)) => Some(self.base.join(path)),
                Some(Files::Temporary | Files::Known(_)) | None => None,
            },
            blobs,
            http: http.transpose()?,
            files: root.map(Arc::new),
            local: self.local.clone(),
            disks: self.disks.clone(),
            capabilities: OnceCell::new(),
            names: Names::default(),
            downloading: tokio::sync::Mutex::default(),
            destination: AtomicBool::new(false),
            mounts: Mounts::default(),
            sparse_seen: false.into(),
            lists_digests: OnceLock::new(),
            list_tried: AtomicBool::new(false),
            plugins: self.plugins.clone(),
            speech: Speech::default(),
            known: Mutex::default(),
            signatures_seen: OnceCell::new(),
        });
        Ok(lock(&self.open).entry(key).or_insert(place).clone())
    }
}
