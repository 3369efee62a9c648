//! Places: opened sources and destinations, and the repositories in them.

mod archive;
mod grants;
mod listing;
pub(crate) mod mounts;
mod places;
mod repository;

use crate::{
    Error, Journal, Kind, Result,
    contract::{Capabilities, Context, Request, Response, Transport, TransportContext},
    files::Root,
    http::PlaceHttp,
    schedule::{fair_share::FairShare, rate::RateLimiter, route::Route},
};
use bytes::Bytes;
use futures_util::future::BoxFuture;
use mounts::Mounts;
pub use places::{DISK_WRITES, Local, Places};
pub use repository::Repository;
pub(crate) use repository::{OpenReference, Resolved};
use std::{
    path::PathBuf,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
};
use tokio::sync::OnceCell;

/// Questions about files that are answered at once.
const FILES: usize = 16;

/// One opened source or destination: a registry, a layout, a folder. Its repositories are read and written through
/// [`Repository`].
pub struct Place {
    pub(crate) transport: Arc<dyn Transport>,
    scheme: String,
    /// Canonical name, as its transport gave it.
    pub(crate) location: String,
    /// Its network.
    pub(crate) http: Option<PlaceHttp>,
    /// Its files.
    pub(crate) files: Option<Arc<Root>>,
    /// Where its blobs are, if not among its files.
    blobs: Option<PathBuf>,
    /// What the session finds on its machine.
    pub(crate) local: Arc<Local>,
    /// Who may write to the disks of this machine.
    pub(crate) disks: Arc<FairShare>,
    capabilities: OnceCell<Capabilities>,
    /// One at a time: two readers of an image want the same archive.
    downloading: tokio::sync::Mutex<()>,
    /// Something may be written there in this session.
    destination: AtomicBool,
    /// What it says to linking blobs between its repositories.
    pub(crate) mounts: Mounts,
    /// Whether it was seen to take an index with missing children.
    pub(crate) sparse_seen: AtomicBool,
}

impl Place {
    /// Canonical name with its scheme.
    pub(crate) fn key(&self) -> String {
        format!("{}:{}", self.scheme, self.location)
    }

    /// Names where its blobs are: two places may have theirs in common.
    pub(crate) fn blobs_key(&self) -> String {
        match &self.blobs {
            Some(folder) => format!("blobs:{}", folder.display()),
            None => self.key(),
        }
    }

    /// What its transport gets of it for one call.
    fn context(self: &Arc<Self>) -> Context {
        self.clone()
    }

    /// What it can do as a destination, asked once.
    pub(crate) async fn capabilities(self: &Arc<Self>) -> Result<Capabilities> {
        self.capabilities.get_or_try_init(|| self.transport.capabilities(self.context())).await.cloned()
    }

    /// The names of its repositories. One of them may be empty where the place holds images without names.
    ///
    /// # Errors
    /// Fails if it cannot be asked, or its list has no end.
    pub(crate) async fn repositories(self: &Arc<Self>) -> Result<Vec<String>> {
        let page = |next| self.transport.repositories(self.context(), next);
        listing::names(&self.location, self.files.is_some(), page).await
    }

    /// After the last image of a run that published something: the transport tidies up.
    ///
    /// # Errors
    /// Fails if it cannot.
    pub(crate) async fn finish(self: &Arc<Self>) -> Result<()> {
        self.transport.finish(self.context()).await
    }

    /// The journal, where it can spare a request: only networks are slow to ask.
    pub(crate) fn memory(&self) -> Option<&Journal> {
        self.http.as_ref().and_then(|_| self.local.journal.get())
    }

    /// The route from here to another place. All places without a host have one route, as there may be one for each
    /// repository, and files do not stall.
    pub(crate) fn route_to(&self, other: &Place) -> Route {
        let host = |place: &Place| place.http.as_ref().map(|http| http.address().to_owned());
        Route { from: host(self), to: host(other) }
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

    /// The cap on bytes a second from it and to it.
    pub(crate) fn rate(&self) -> Option<&RateLimiter> {
        self.http.as_ref().and_then(PlaceHttp::rate)
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
