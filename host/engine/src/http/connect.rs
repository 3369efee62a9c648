//! The connections to one host, as the operator wants them.

use super::{
    guard, pins, proxy, retry,
    settings::{Daemon, Proxies, RegistrySettings, Settings},
};
use crate::{Error, Result};
use dray_core::shown_proxy;
use reqwest::ClientBuilder;
use std::{
    path::{Path, PathBuf},
    sync::{
        OnceLock,
        atomic::{AtomicBool, Ordering},
    },
};

/// Which authorities are trusted beside those that the operator names.
type Trust = fn(ClientBuilder, Vec<reqwest::Certificate>) -> ClientBuilder;

pub(super) struct Clients {
    wishes: Wishes,
    /// Trusts no authority of the system's, unless there is a proxy behind TLS.
    plain: reqwest::Client,
    /// Trusts those of the system, too. They are some hundred files, so they are read when they are
    /// wanted.
    trusting: OnceLock<Result<reqwest::Client>>,
    /// Trusts just the certificates that the operator gave.
    pinning: OnceLock<Result<reqwest::Client>>,
    /// Its certificate is no authority's, and is one that the operator gave.
    pinned: AtomicBool,
}

/// What the operator wants of connections.
struct Wishes {
    own: RegistrySettings,
    proxies: Proxies,
    user_agent: String,
    registry: String,
    /// `host[:port]`
    address: String,
    /// A public server leads there: what its name resolves to must be public, too.
    outside: bool,
    /// PEM, as the operator gave it.
    authorities: Option<Vec<u8>>,
    /// PEM of certificate and key.
    identity: Option<Vec<u8>>,
}

impl Clients {
    /// Reads the operator's certificates and keys. `outside`: a public server leads there.
    ///
    /// # Errors
    /// Fails if certificates, keys or proxies cannot be used.
    pub fn new(
        address: &str,
        registry: &str,
        own: &RegistrySettings,
        settings: &Settings,
        outside: bool,
    ) -> Result<Self> {
        let wishes = Wishes {
            own: own.clone(),
            proxies: settings.proxies.clone(),
            user_agent: settings.user_agent.clone(),
            registry: registry.into(),
            address: address.into(),
            outside,
            authorities: own
                .tls
                .ca
                .as_ref()
                .map(read)
                .transpose()
                .map_err(|error| preparing(registry, error))?,
            identity: identity(own).map_err(|error| preparing(registry, error))?,
        };
        let secure = |scheme| wishes.proxy(scheme).is_some_and(|proxy| proxy.starts_with("https:"));
        let plain = wishes.client(match secure("http") || secure("https") {
            // On the way to it TLS is spoken in any case.
            true => ClientBuilder::tls_certs_merge,
            false => ClientBuilder::tls_certs_only,
        })?;
        Ok(Clients {
            wishes,
            plain,
            trusting: OnceLock::new(),
            pinning: OnceLock::new(),
            pinned: AtomicBool::new(false),
        })
    }

    /// For plain HTTP, and to find out whether TLS is spoken.
    pub fn plain(&self) -> &reqwest::Client {
        &self.plain
    }

    /// For addresses of this scheme.
    pub fn of(&self, scheme: &str) -> Result<&reqwest::Client> {
        if scheme == "http" {
            return Ok(&self.plain);
        }
        let client = match self.is_pinned() {
            true => self.pinning.get_or_init(|| self.wishes.pinning()),
            false => self.trusting.get_or_init(|| self.wishes.client(ClientBuilder::tls_certs_merge)),
        };
        client.as_ref().map_err(Clone::clone)
    }

    /// Whether certificates are taken for what they are. Who asks for it before a request can tell by it whether a
    /// refusal was of the usual trust ([`Clients::pin`]).
    pub fn is_pinned(&self) -> bool {
        self.pinned.load(Ordering::Relaxed)
    }

    /// A certificate was refused: tells whether those that the operator gave are to be tried for what they are.
    /// `before`: they were when the request began. Others may have failed at the same moment, and each is tried again.
    pub fn pin(&self, before: bool) -> bool {
        let may = !before && self.wishes.authorities.is_some() && self.wishes.own.tls.verify;
        if may {
            self.pinned.store(true, Ordering::Relaxed);
        }
        may
    }

    /// The proxy through which addresses of this scheme are asked.
    pub fn proxy(&self, scheme: &str) -> Option<&str> {
        self.wishes.proxy(scheme)
    }
}

fn preparing(registry: &str, error: Error) -> Error {
    error.context(format!("prepare the connection to {registry}"))
}

fn read(path: &PathBuf) -> Result<Vec<u8>> {
    std::fs::read(path).map_err(|error| Error::io(format!("read {}", path.display()), error))
}

fn malformed(path: &Path) -> impl Fn(reqwest::Error) -> Error {
    move |error| Error::invalid(format!("read {}: {error}", path.display())).help("it must be PEM")
}

fn identity(own: &RegistrySettings) -> Result<Option<Vec<u8>>> {
    let Some((certificate, key)) = &own.tls.identity else { return Ok(None) };
    let mut pem = read(certificate)?;
    pem.push(b'\n');
    pem.extend(read(key)?);
    reqwest::Identity::from_pem(&pem).map_err(malformed(certificate))?;
    Ok(Some(pem))
}

impl Wishes {
    fn client(&self, trust: Trust) -> Result<reqwest::Client> {
        self.build(trust).map_err(|error| preparing(&self.registry, error))
    }

    fn proxy(&self, scheme: &str) -> Option<&str> {
        if self.own.origin.is_some() || self.own.daemon.is_some() {
            return None;
        }
        match self.own.proxy.as_deref() {
            Some("none") => None,
            Some(own) => Some(own),
            None => proxy::choose(&self.proxies, scheme, &self.address),
        }
    }

    fn base(&self) -> Result<ClientBuilder> {
        let Wishes { own, user_agent, .. } = self;
        let mut builder = reqwest::Client::builder()
            .user_agent(user_agent)
            .redirect(reqwest::redirect::Policy::none())
            .retry(reqwest::retry::never())
            // Blobs share no connection: over HTTP/2 all of them would go through one.
            .http1_only()
            .tcp_nodelay(true)
            .connect_timeout(retry::CONNECT)
            .pool_max_idle_per_host(own.concurrency)
            .no_proxy();
        if let Some(Daemon::Unix(path)) = &own.daemon {
            builder = builder.unix_socket(path.clone());
        }
        if self.outside {
            builder = builder.dns_resolver(guard::Outside);
        }
        // What the error itself says may be the address.
        let broken = |address: &str| {
            Error::invalid(format!("use the proxy {}: it is no proper address", shown_proxy(address)))
        };
        for (scheme, proxy) in
            [("http", reqwest::Proxy::http as fn(_) -> _), ("https", reqwest::Proxy::https)]
        {
            if let Some(address) = self.proxy(scheme) {
                builder = builder.proxy(proxy(address.to_owned()).map_err(|_| broken(address))?);
            }
        }
        Ok(builder)
    }

    fn build(&self, trust: Trust) -> Result<reqwest::Client> {
        let authorities = match (&self.authorities, &self.own.tls.ca) {
            (Some(pem), Some(path)) => {
                let found = reqwest::Certificate::from_pem_bundle(pem).map_err(malformed(path))?;
                if found.is_empty() {
                    let text = format!("read {}: it holds no certificate", path.display());
                    return Err(Error::invalid(text).help("it must be PEM: -----BEGIN CERTIFICATE-----"));
                }
                found
            }
            _ => Vec::new(),
        };
        let mut builder = trust(self.base()?, authorities);
        if let Some(identity) = &self.identity {
            let unusable = |error| Error::invalid(format!("use the client certificate: {error}"));
            builder = builder.identity(reqwest::Identity::from_pem(identity).map_err(unusable)?);
        }
        if !self.own.tls.verify {
            builder = builder.tls_danger_accept_invalid_certs(true);
        }
        builder.build().map_err(|error| Error::invalid(format!("set up TLS: {}", retry::root_cause(&error))))
    }

    fn pinning(&self) -> Result<reqwest::Client> {
        let pems = (self.authorities.as_deref().unwrap_or_default(), self.identity.as_deref());
        let failed = |why: String| preparing(&self.registry, Error::invalid(format!("set up TLS: {why}")));
        let tls = pins::tls(pems.0, pems.1).map_err(failed)?;
        let client = self.base()?.tls_backend_preconfigured(tls).build();
        client.map_err(|error| failed(retry::root_cause(&error)))
    }
}
