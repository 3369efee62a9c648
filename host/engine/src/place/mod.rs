//! Places: opened sources and destinations, and the repositories in them.

mod archive;
mod grants;
mod kind;
mod listing;
pub(crate) mod mounts;
mod naming;
mod places;
mod repository;
mod survey;

use crate::{
    Error, Journal, Kind, Result, blocking,
    contract::{
        Capabilities, Context, KnownTag, Listed, Plugins, Request, Response, Transport, TransportContext,
    },
    files::Root,
    http::PlaceHttp,
    schedule::{fair_share::FairShare, rate::RateLimiter, route::Route},
};
use bytes::Bytes;
use futures_util::future::BoxFuture;
use kind::Speech;
use mounts::Mounts;
use naming::Names;
pub use places::{DISK_WRITES, Local, Places};
pub use repository::Repository;
pub(crate) use repository::{OpenReference, Resolved};
use std::{
    collections::HashMap,
    path::{Path, PathBuf},
    sync::{
        Arc, Mutex, OnceLock,
        atomic::{AtomicBool, Ordering},
    },
};
pub(crate) use survey::Survey;
use tokio::sync::OnceCell;

/// What the registry knows of the tags of one repository, by their names.
type KnownTags = Arc<OnceCell<HashMap<String, KnownTag>>>;

/// So many tags are worth one request to find out whether a list says what they name.
const SEVERAL: usize = 4;

/// How many requests a place without a host handles at once.
const FILES: usize = 16;

/// One opened source or destination: a registry, a layout, a folder. Its repositories are read and written through
/// [`Repository`].
pub struct Place {
    pub(crate) transport: Arc<dyn Transport>,
    scheme: String,
    /// The canonical name, as the transport gave it.
    pub(crate) location: String,
    /// HTTP access, if the place has a host.
    pub(crate) http: Option<PlaceHttp>,
    /// The files of the place, if it has any.
    pub(crate) files: Option<Arc<Root>>,
    /// The path of its files, if it has any.
    path: Option<PathBuf>,
    /// The folder of its blobs, if they are not among its files.
    blobs: Option<PathBuf>,
    /// The local resources of the session.
    pub(crate) local: Arc<Local>,
    /// Permits for writing to the disks of this machine.
    pub(crate) disks: Arc<FairShare>,
    capabilities: OnceCell<Capabilities>,
    /// Who names images at a place that keeps all names in one document.
    names: Names,
    /// Allows one download at a time, because two readers of an image want the same archive.
    downloading: tokio::sync::Mutex<()>,
    /// Whether this session may write to the place.
    destination: AtomicBool,
    /// Whether the place links blobs between its repositories.
    pub(crate) mounts: Mounts,
    /// Whether the place has accepted an index with missing children.
    pub(crate) sparse_seen: AtomicBool,
    /// Whether its lists of tags say what they name, once one has been read.
    lists_digests: OnceLock<bool>,
    /// Whether a list is being read to find that out.
    list_tried: AtomicBool,
    /// The plugins, among which its dialect is.
    plugins: Arc<dyn Plugins>,
    speech: Speech,
    /// What the registry knows of the tags of its repositories, where that was asked for.
    known: Mutex<HashMap<String, KnownTags>>,
    /// Whether the registry keeps signatures itself, once it has been asked.
    pub(crate) signatures_seen: OnceCell<bool>,
}

impl Place {
    /// The scheme by which references name it.
    pub(crate) fn scheme(&self) -> &str {
        &self.scheme
    }

    /// The path of its files. `None` means that it has none, or that they have no path.
    pub(crate) fn path(&self) -> Option<&Path> {
        self.path.as_deref()
    }

    /// The canonical name with its scheme.
    pub(crate) fn key(&self) -> String {
        format!("{}:{}", self.scheme, self.location)
    }

    /// Identifies the store of its blobs. Two places may share one.
    pub(crate) fn blobs_key(&self) -> String {
        match &self.blobs {
            Some(folder) => format!("blobs:{}", folder.display()),
            None => self.key(),
        }
    }

    /// The context that the transport gets for one call.
    fn context(self: &Arc<Self>) -> Context {
        self.clone()
    }

    /// The capabilities of the place as a destination. The transport is asked once.
    pub(crate) async fn capabilities(self: &Arc<Self>) -> Result<Capabilities> {
        self.capabilities.get_or_try_init(|| self.transport.capabilities(self.context())).await.cloned()
    }

    /// The names of its repositories. One name may be empty if the place holds images without names. Fails if the
    /// repositories cannot be listed, or if the list does not end.
    pub(crate) async fn repositories(self: &Arc<Self>) -> Result<Vec<String>> {
        let page = |next| self.transport.repositories(self.context(), next);
        listing::names(&self.location, self.files.is_some(), page).await
    }

    /// Lets the transport clean up after the last change of the place. An archive appears then. Fails if the transport
    /// fails, or if the archive cannot be written.
    pub(crate) async fn complete(self: &Arc<Self>) -> Result<()> {
        self.transport.finish(self.context()).await?;
        let Some(files) = self.files.clone() else { return Ok(()) };
        blocking("write it", move || files.seal()).await?
    }

    /// The journal, if the place has a host. A place of local files can be asked just as fast.
    pub(crate) fn memory(&self) -> Option<&Journal> {
        self.http.as_ref().and_then(|_| self.local.journal.get())
    }

    /// Records in the journal whether the place takes an index with missing platforms.
    pub(crate) fn saw_sparse(&self, takes: bool) {
        if let Some(journal) = self.memory() {
            journal.saw_sparse(&self.key(), takes);
        }
    }

    /// Records whether the place says in a list what its tags name. An empty list tells nothing.
    pub(crate) fn saw_list(&self, tags: &[Listed]) {
        if tags.is_empty() {
            return;
        }
        let digests = tags.iter().any(|listed| listed.digest.is_some());
        if self.lists_digests.set(digests).is_ok()
            && let Some(journal) = self.memory()
        {
            journal.saw_list(&self.key(), digests);
        }
    }

    /// Whether a list spares the questions about so many tags, because it says what they name. Of a place of which that is
    /// not known, one list is tried where it can spare several. A place without a host is asked just as fast for each tag.
    pub(crate) async fn lists_digests(&self, tags: usize) -> bool {
        if self.http.is_none() || self.assumed() || tags < 2 {
            return false;
        }
        let remembered = || self.memory()?.lists_digests(&self.key());
        let known = self.lists_digests.get().copied().or_else(remembered);
        let tried = || tags >= SEVERAL && !self.list_tried.swap(true, Ordering::Relaxed);
        self.lists_in_bulk().await || known.unwrap_or_else(tried)
    }

    /// The error for a place that refuses an index with missing platforms.
    pub(crate) fn refuses_sparse(&self) -> Error {
        let place = &self.location;
        let text = format!("publish the index: {place} refuses an index whose other platforms are missing");
        Error::new(Kind::Unsupported, text).help(
            "set `index = \"trim\"` in the rule to write a smaller index, or leave `platforms` out to copy all",
        )
    }

    /// The error for a place that refused an index with missing platforms when that was last tried.
    pub(crate) fn refused_sparse(&self) -> Error {
        let place = &self.location;
        let text =
            format!("publish the index: {place} refused one whose other platforms were missing, this week");
        Error::new(Kind::Unsupported, text).help(
            "`index = \"trim\"` in the rule writes a smaller index; `dray sync` tries again whether it takes this one",
        )
    }

    /// The route from this place to another. All places without a host share one route, because there may be one such
    /// place for each repository, and files do not stall.
    pub(crate) fn route_to(&self, other: &Place) -> Route {
        let host = |place: &Place| place.http.as_ref().map(|http| http.address().to_owned());
        Route { from: host(self), to: host(other) }
    }

    /// Adds to an error of reading files what kind of files they are, and which scheme reads them.
    pub(crate) fn explained(&self, error: Error) -> Error {
        let Some(files) = self.files.as_ref().filter(|_| self.http.is_none() && error.help.is_none()) else {
            return error;
        };
        match crate::files::hint(files, &self.scheme, &self.local.scratch) {
            Some(hint) => error.help(hint),
            None => error,
        }
    }

    /// The rate limiter for transfers from and to the place.
    pub(crate) fn rate(&self) -> Option<&RateLimiter> {
        self.http.as_ref().and_then(PlaceHttp::rate)
    }

    /// How many requests the place handles at once.
    pub(crate) fn width(&self) -> usize {
        self.http.as_ref().map_or(FILES, PlaceHttp::width)
    }

    /// Whether the place is assumed to be unchanged since the last run.
    pub(crate) fn assumed(&self) -> bool {
        self.http.as_ref().is_some_and(PlaceHttp::assumed)
    }

    /// Fails if registries.conf blocks a repository of this place.
    pub(crate) fn check_blocked(&self, repository: &str) -> Result<()> {
        if self.scheme != "docker" {
            return Ok(());
        }
        let name = format!("{}/{repository}", self.location);
        match self.local.registries.blocked(&name) {
            None => Ok(()),
            Some(prefix) => {
                let text = format!("open docker://{name}: registries.conf blocks {prefix}");
                Err(Error::new(Kind::Denied, text)
                    .help("`system-config = false` in the policy does not obey it, if that is what you want"))
            }
        }
    }

    /// Whether it holds more than one image.
    pub(crate) async fn is_many(self: &Arc<Self>) -> Result<bool> {
        match self.capabilities().await {
            Ok(capabilities) => Ok(capabilities.many),
            // The transport does not support writing, so it does not say.
            Err(error) if error.kind == Kind::Unsupported => Ok(true),
            Err(error) => Err(error),
        }
    }

    /// Whether its layers can only be read as uncompressed tars.
    pub(crate) async fn unpacks(self: &Arc<Self>) -> Result<bool> {
        match self.capabilities().await {
            Ok(capabilities) => Ok(capabilities.holds.is_some_and(|holds| holds.unpacked)),
            // The transport does not support writing.
            Err(error) if error.kind == Kind::Unsupported => Ok(false),
            Err(error) => Err(error),
        }
    }
}

impl TransportContext for Place {
    fn location(&self) -> &str {
        &self.location
    }

    fn is_destination(&self) -> bool {
        self.destination.load(Ordering::Relaxed)
    }

    fn files(&self) -> Option<&Arc<Root>> {
        self.files.as_ref()
    }

    fn lend(&self, host: &str, trusted: bool) {
        if let Some(http) = &self.http {
            http.lend(host, trusted);
        }
    }

    fn send<'a>(&'a self, request: &'a Request, body: Bytes) -> BoxFuture<'a, Result<Response>> {
        Box::pin(async move {
            let none = || Error::new(Kind::Denied, "send a request: the opened place has no host");
            self.http.as_ref().ok_or_else(none)?.send(request, body).await
        })
    }

    fn download<'a>(&'a self, request: &'a Request, path: &'a str) -> BoxFuture<'a, Result<()>> {
        Box::pin(self.download_archive(request, path))
    }

    fn send_archive<'a>(&'a self, request: &'a Request) -> BoxFuture<'a, Result<Response>> {
        Box::pin(self.upload_archive(request))
    }
}
