//! A registry: the OCI distribution specification 1.1 on the storage layout of distribution, so that distribution's own
//! registry can serve the same folder.
//!
//! [`Server::bind`] listens, and [`Server::run`] serves. [`Access`] says who may read and write, and [`Tls`] holds a
//! certificate.
//!
//! ```
//! use dray_registry::{Access, Server};
//! use tokio::io::{AsyncReadExt, AsyncWriteExt};
//!
//! # #[tokio::main(flavor = "current_thread")]
//! # async fn main() -> std::io::Result<()> {
//! let folder = tempfile::tempdir()?;
//! let server = Server::bind(folder.path(), ([127, 0, 0, 1], 0).into(), Access::default(), None).await?;
//! let address = server.address();
//! tokio::spawn(server.run());
//! let mut client = tokio::net::TcpStream::connect(address).await?;
//! client.write_all(b"GET /v2/ HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n").await?;
//! let mut answer = String::new();
//! client.read_to_string(&mut answer).await?;
//! assert!(answer.starts_with("HTTP/1.1 200 OK"));
//! # Ok(())
//! # }
//! ```
//!
//! Section numbers in this crate are those of the distribution specification.

mod access;
mod answer;
mod blobs;
mod listing;
mod manifests;
mod route;
mod storage;
mod tls;
mod uploads;

pub use access::{Access, Users};
use answer::{Answer, Fault};
use hyper::{Method, Request, body::Incoming, header::IF_NONE_MATCH, service::service_fn};
use hyper_util::rt::{TokioIo, TokioTimer};
use route::Route;
use std::{net::SocketAddr, path::Path, sync::Arc, time::Duration};
use storage::Storage;
pub use tls::Tls;
use tokio::{
    io::{AsyncRead, AsyncWrite},
    net::TcpListener,
    sync::Semaphore,
};

/// A registry that listens on an address.
pub struct Server {
    listener: TcpListener,
    address: SocketAddr,
    tls: Option<Tls>,
    registry: Arc<Registry>,
}

struct Registry {
    storage: Storage,
    access: Access,
    address: SocketAddr,
    /// Limits how many lists of referrers are made at once, because each one reads manifests.
    lists: Semaphore,
    /// Limits how many manifests are received at once, because each one is in memory as a whole.
    documents: Semaphore,
    /// Limits how many passwords are checked at once, because each check keeps a processor busy.
    passwords: Semaphore,
}

/// How long a client may take for the headers of a request, for a TLS handshake, and for sending a manifest.
const HEADERS: Duration = Duration::from_secs(60);
/// How many connections may be open at once.
const CONNECTIONS: usize = 1024;
/// How often the registry looks for abandoned uploads.
const PURGE: Duration = Duration::from_secs(3600);

impl Server {
    /// Begins to listen. The folder is created when something is first written to it.
    ///
    /// # Errors
    /// Fails if the address cannot be bound.
    pub async fn bind(
        root: &Path,
        address: SocketAddr,
        access: Access,
        tls: Option<Tls>,
    ) -> std::io::Result<Self> {
        let listener = TcpListener::bind(address).await?;
        let address = listener.local_addr()?;
        let registry = Registry {
            storage: Storage::new(root),
            access,
            address,
            lists: Semaphore::new(2),
            documents: Semaphore::new(32),
            passwords: Semaphore::new(2),
        };
        Ok(Server { listener, address, tls, registry: Arc::new(registry) })
    }

    /// The address on which it listens.
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// Serves requests for as long as the future is polled.
    pub async fn run(self) {
        let connections = Arc::new(Semaphore::new(CONNECTIONS));
        let registry = self.registry.clone();
        let purging = async {
            loop {
                // A read-only storage is not tidied up.
                if !registry.access.read_only {
                    let _ = uploads::purge(&registry.storage).await;
                }
                tokio::time::sleep(PURGE).await;
            }
        };
        tokio::select! {
            () = purging => {}
            () = self.accept(connections) => {}
        }
    }

    async fn accept(&self, connections: Arc<Semaphore>) {
        loop {
            // The semaphore is never closed.
            let Ok(place) = connections.clone().acquire_owned().await else { return };
            let stream = match self.listener.accept().await {
                Ok((stream, _)) => stream,
                Err(error) => {
                    // Probably no file descriptor is free. Some will be when other connections end.
                    tracing::warn!(%error, "cannot accept a connection");
                    tokio::time::sleep(Duration::from_millis(100)).await;
                    continue;
                }
            };
            if let Err(error) = stream.set_nodelay(true) {
                tracing::debug!(%error, "cannot set TCP_NODELAY");
            }
            let (registry, tls) = (self.registry.clone(), self.tls.clone());
            tokio::spawn(async move {
                match tls {
                    None => registry.connected(stream).await,
                    Some(tls) => match tokio::time::timeout(HEADERS, tls.accept(stream)).await {
                        Ok(Ok(stream)) => registry.connected(stream).await,
                        Ok(Err(error)) => tracing::debug!(%error, "no TLS came about"),
                        Err(_) => tracing::debug!("a handshake stood still"),
                    },
                }
                drop(place);
            });
        }
    }
}

impl Registry {
    async fn connected(self: Arc<Self>, stream: impl AsyncRead + AsyncWrite + Send + Unpin + 'static) {
        let service = service_fn(|request| {
            let registry = self.clone();
            async move { Ok::<_, std::convert::Infallible>(registry.serve(request).await) }
        });
        let mut server = hyper::server::conn::http1::Builder::new();
        let connection = server
            .timer(TokioTimer::new())
            .header_read_timeout(HEADERS)
            .serve_connection(TokioIo::new(stream), service);
        if let Err(error) = connection.await {
            tracing::debug!(%error, "a connection broke");
        }
    }

    async fn serve(self: &Arc<Self>, request: Request<Incoming>) -> Answer {
        let (method, uri) = (request.method().clone(), request.uri().clone());
        let head = method == Method::HEAD;
        let answered = match self.admits(&request).await {
            Ok(()) => self.answer(request).await,
            Err(fault) => Err(fault),
        };
        let answer = answered.unwrap_or_else(|fault| fault.answer(head));
        tracing::debug!(%method, path = uri.path(), status = answer.status().as_u16(), "answered");
        answer
    }

    async fn admits(self: &Arc<Self>, request: &Request<Incoming>) -> Result<(), Fault> {
        access::is_asked_directly(request.headers(), self.address)?;
        let admitted = match self.access.is_slow() {
            false => self.access.admits(request.headers()),
            true => {
                // The semaphore is never closed.
                let _one = self.passwords.acquire().await.map_err(|_| Fault::busy())?;
                let (registry, headers) = (self.clone(), request.headers().clone());
                tokio::task::spawn_blocking(move || registry.access.admits(&headers)).await?
            }
        };
        if admitted { Ok(()) } else { Err(Fault::unauthorized()) }
    }

    async fn answer(&self, request: Request<Incoming>) -> Result<Answer, Fault> {
        let route = route::parse(request.uri().path())?;
        let query = route::query(request.uri().query());
        let storage = &self.storage;
        self.access.allows(request.method(), &route)?;
        match (request.method().clone(), route) {
            (Method::GET | Method::HEAD, Route::Base) => Ok(answer::json(&serde_json::json!({}))),
            (Method::GET, Route::Catalog) => listing::catalog(storage, &query).await,
            (Method::GET, Route::Tags { name }) => listing::tags(storage, &name, &query).await,
            (Method::GET, Route::Referrers { name, digest }) => {
                let _one = self.lists.acquire().await.map_err(|_| Fault::busy())?;
                listing::referrers(storage, &name, &digest, &query).await
            }
            (method @ (Method::GET | Method::HEAD), Route::Manifest { name, reference }) => {
                let known = request.headers().get(IF_NONE_MATCH);
                manifests::get(storage, &name, &reference, method == Method::HEAD, known).await
            }
            (Method::PUT, Route::Manifest { name, reference }) => {
                let _one = self.documents.acquire().await.map_err(|_| Fault::busy())?;
                let putting = manifests::put(storage, &name, &reference, request);
                tokio::time::timeout(HEADERS, putting).await.map_err(|_| Fault::busy())?
            }
            (Method::DELETE, Route::Manifest { name, reference }) => {
                manifests::delete(storage, &name, &reference).await
            }
            (method @ (Method::GET | Method::HEAD), Route::Blob { name, digest }) => {
                blobs::get(storage, &name, &digest, request.headers(), method == Method::HEAD).await
            }
            (Method::DELETE, Route::Blob { name, digest }) => blobs::delete(storage, &name, &digest).await,
            (Method::POST, Route::Uploads { name }) => uploads::start(storage, &name, &query, request).await,
            (Method::GET, Route::Upload { name, id }) => uploads::status(storage, &name, &id).await,
            (Method::PATCH, Route::Upload { name, id }) => {
                uploads::append(storage, &name, &id, request).await
            }
            (Method::PUT, Route::Upload { name, id }) => {
                uploads::close(storage, &name, &id, &query, request).await
            }
            (Method::DELETE, Route::Upload { name, id }) => uploads::cancel(storage, &name, &id).await,
            _ => Err(Fault::unsupported()),
        }
    }
}

/// Entry points for fuzzing.
#[cfg(feature = "fuzzing")]
pub mod fuzzing {
    use crate::route::{self, Reference, Route};

    /// Parses an address, and returns the names in it that become paths.
    pub fn route(path: &str, query: Option<&str>) -> Vec<String> {
        let _ = route::query(query);
        match route::parse(path) {
            Ok(Route::Manifest { name, reference: Reference::Tag(tag) }) => vec![name, tag],
            Ok(Route::Upload { name, id }) => vec![name, id],
            Ok(
                Route::Manifest { name, .. }
                | Route::Blob { name, .. }
                | Route::Tags { name }
                | Route::Uploads { name }
                | Route::Referrers { name, .. },
            ) => vec![name],
            Ok(Route::Base | Route::Catalog) | Err(_) => Vec::new(),
        }
    }
}
