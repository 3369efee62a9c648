//! A registry: the OCI distribution specification 1.1 over the storage layout of distribution,
//! so that distribution's own registry can serve the same folder.
//!
//! Section numbers in this crate are those of the distribution specification.

mod answer;
mod blobs;
mod listing;
mod manifests;
mod route;
mod storage;
mod uploads;

use answer::{Answer, Fault};
use hyper::{Method, Request, body::Incoming, header::IF_NONE_MATCH, service::service_fn};
use hyper_util::rt::{TokioIo, TokioTimer};
use route::Route;
use std::{net::SocketAddr, path::Path, sync::Arc, time::Duration};
use storage::Storage;
use tokio::net::TcpListener;

/// A registry that listens.
pub struct Server {
    listener: TcpListener,
    address: SocketAddr,
    registry: Arc<Registry>,
}

struct Registry {
    storage: Storage,
    /// `Bearer …`, where only its holder may ask.
    authorization: Option<String>,
}

/// For a client to send its headers.
const HEADERS: Duration = Duration::from_secs(60);

impl Server {
    /// Begins to listen. With a token, only requests that bear it are answered. The folder is made
    /// when something is written to it.
    ///
    /// # Errors
    /// Where the address cannot be had.
    pub async fn bind(root: &Path, address: SocketAddr, token: Option<String>) -> std::io::Result<Self> {
        let listener = TcpListener::bind(address).await?;
        let address = listener.local_addr()?;
        let authorization = token.map(|token| format!("Bearer {token}"));
        Ok(Server {
            listener,
            address,
            registry: Arc::new(Registry { storage: Storage::new(root), authorization }),
        })
    }

    /// Where it listens.
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// Serves for as long as it is polled.
    pub async fn run(self) {
        loop {
            let stream = match self.listener.accept().await {
                Ok((stream, _)) => stream,
                Err(error) => {
                    // Out of file descriptors: those in use will come back.
                    tracing::warn!(%error, "cannot accept a connection");
                    tokio::time::sleep(Duration::from_millis(100)).await;
                    continue;
                }
            };
            if let Err(error) = stream.set_nodelay(true) {
                tracing::debug!(%error, "cannot set TCP_NODELAY");
            }
            let registry = self.registry.clone();
            tokio::spawn(async move {
                let service = service_fn(|request| {
                    let registry = registry.clone();
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
            });
        }
    }
}

impl Registry {
    async fn serve(&self, request: Request<Incoming>) -> Answer {
        let (method, uri) = (request.method().clone(), request.uri().clone());
        let head = method == Method::HEAD;
        let answered =
            if self.admits(&request) { self.answer(request).await } else { Err(Fault::unauthorized()) };
        let answer = answered.unwrap_or_else(|fault| fault.answer(head));
        tracing::debug!(%method, %uri, status = answer.status().as_u16(), "answered");
        answer
    }

    fn admits(&self, request: &Request<Incoming>) -> bool {
        let given = request.headers().get("authorization").and_then(|value| value.to_str().ok());
        self.authorization.is_none() || given == self.authorization.as_deref()
    }

    async fn answer(&self, request: Request<Incoming>) -> Result<Answer, Fault> {
        let route = route::parse(request.uri().path())?;
        let query = route::query(request.uri().query());
        let storage = &self.storage;
        match (request.method().clone(), route) {
            (Method::GET | Method::HEAD, Route::Base) => Ok(answer::json(&serde_json::json!({}))),
            (Method::GET, Route::Catalog) => listing::catalog(storage, &query).await,
            (Method::GET, Route::Tags { name }) => listing::tags(storage, &name, &query).await,
            (Method::GET, Route::Referrers { name, digest }) => {
                listing::referrers(storage, &name, &digest, &query).await
            }
            (method @ (Method::GET | Method::HEAD), Route::Manifest { name, reference }) => {
                let known = request.headers().get(IF_NONE_MATCH);
                manifests::get(storage, &name, &reference, method == Method::HEAD, known).await
            }
            (Method::PUT, Route::Manifest { name, reference }) => {
                manifests::put(storage, &name, &reference, request).await
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
