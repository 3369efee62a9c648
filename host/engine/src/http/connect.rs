//! The HTTP connections to one host, set up as the operator wants them.

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

/// Sets the trusted certificate authorities: the given ones, with or without those of the system.
type Trust = fn(ClientBuilder, Vec<reqwest::Certificate>) -> ClientBuilder;

pub(super) struct Clients {
    wishes: Wishes,
    /// Does not trust the authorities of the system, unless a proxy is reached over TLS.
    plain: reqwest::Client,
    /// Trusts the authorities of the system, too. It is created on first use, because they are more than a hundred
    /// files.
    trusting: OnceLock<Result<reqwest::Client>>,
    /// Accepts only the certificates that the operator gave, byte for byte (see [`pins`]).
    pinning: OnceLock<Result<reqwest::Client>>,
    /// Whether the server's certificate did not verify against an authority, so that `pinning` is used from now on.
    pinned: AtomicBool,
}

/// The operator's settings for the connections.
struct Wishes {
    own: RegistrySettings,
    proxies: Proxies,
    user_agent: String,
    registry: String,
    /// `host[:port]`
    address: String,
    /// Whether a public server leads to this host: its name must then resolve to public addresses.
    outside: bool,
    /// The authorities, in PEM, as the operator gave them.
    authorities: Option<Vec<u8>>,
    /// The client certificate and its key, in PEM.
    identity: Option<Vec<u8>>,
}

impl Clients {
    /// Reads the operator's certificates and keys. `outside` says that a public server leads to this host. Fails if the
    /// certificates, keys or proxies cannot be used.
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
            authorities: authorities(&own.tls.ca).map_err(|error| preparing(registry, error))?,
            identity: identity(own).map_err(|error| preparing(registry, error))?,
        };
        let secure = |scheme| wishes.proxy(scheme).is_some_and(|proxy| proxy.starts_with("https:"));
        let plain = wishes.client(match secure("http") || secure("https") {
            // The connection to the proxy uses TLS in any case.
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

    /// The client for plain HTTP, and for finding out whether the host uses TLS.
    pub fn plain(&self) -> &reqwest::Client {
        &self.plain
    }

    /// The client for addresses of this scheme.
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

    /// Whether certificates are pinned. Callers read it before a request, and pass it to [`Clients::pin`] if the
    /// certificate was refused.
    pub fn is_pinned(&self) -> bool {
        self.pinned.load(Ordering::Relaxed)
    }

    /// Called after a certificate was refused: returns whether the request should be repeated with the operator's
    /// certificates pinned. `before` is [`Clients::is_pinned`] from before the request: several requests may fail at
    /// the same moment, and each of them is repeated.
    pub fn pin(&self, before: bool) -> bool {
        let may = !before && self.wishes.authorities.is_some() && self.wishes.own.tls.verify;
        if may {
            self.pinned.store(true, Ordering::Relaxed);
        }
        may
    }

    /// The proxy for requests to addresses of this scheme.
    pub fn proxy(&self, scheme: &str) -> Option<&str> {
        self.wishes.proxy(scheme)
    }
}

fn preparing(registry: &str, error: Error) -> Error {
    error.context(format!("prepare the connection to {registry}"))
}

/// The authorities of all files. `None` means that no file is named.
fn authorities(paths: &[PathBuf]) -> Result<Option<Vec<u8>>> {
    let mut all = Vec::new();
    for path in paths {
        let pem = read(path)?;
        let found = reqwest::Certificate::from_pem_bundle(&pem).map_err(malformed(path))?;
        if found.is_empty() {
            let text = format!("read {}: it holds no certificate", path.display());
            return Err(Error::invalid(text).help("it must be PEM: -----BEGIN CERTIFICATE-----"));
        }
        all.extend(pem);
        all.push(b'\n');
    }
    Ok((!paths.is_empty()).then_some(all))
}

fn read(path: &PathBuf) -> Result<Vec<u8>> {
    std::fs::read(path).map_err(|error| {
        Error::io(format!("read {}", path.display()), error)
            .help("`tls` of the registry names it; paths are relative to the policy's folder")
    })
}

fn malformed(path: &Path) -> impl Fn(reqwest::Error) -> Error {
    move |_| {
        let text = format!("read {}: it holds no certificates and keys", path.display());
        Error::invalid(text).help("it must be PEM: -----BEGIN CERTIFICATE-----, -----BEGIN PRIVATE KEY-----")
    }
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
            // Over HTTP/2 all blobs would share one connection; over HTTP/1.1 each has its own.
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
        // The error's own text may contain the address with its password, so it is left out.
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
        let authorities = match (&self.authorities, self.own.tls.ca.first()) {
            (Some(pem), Some(path)) => reqwest::Certificate::from_pem_bundle(pem).map_err(malformed(path))?,
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
