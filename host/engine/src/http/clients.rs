//! The connections to one host, as the operator wants them.

use super::{
    retry,
    settings::{Daemon, Proxies, RegistrySettings, Settings},
};
use crate::{Error, Result};
use reqwest::ClientBuilder;
use std::{
    path::{Path, PathBuf},
    sync::OnceLock,
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
}

/// What the operator wants of connections.
struct Wishes {
    own: RegistrySettings,
    proxies: Proxies,
    user_agent: String,
    registry: String,
    authorities: Vec<reqwest::Certificate>,
    identity: Option<reqwest::Identity>,
}

impl Clients {
    /// Reads the operator's certificates and keys.
    ///
    /// # Errors
    /// Where certificates, keys or proxies cannot be used.
    pub fn new(registry: &str, own: &RegistrySettings, settings: &Settings) -> Result<Self> {
        let wishes = Wishes {
            own: own.clone(),
            proxies: settings.proxies.clone(),
            user_agent: settings.user_agent.clone(),
            registry: registry.into(),
            authorities: authorities(own).map_err(|error| preparing(registry, error))?,
            identity: identity(own).map_err(|error| preparing(registry, error))?,
        };
        let secure = |proxy: &Option<String>| proxy.as_ref().is_some_and(|proxy| proxy.starts_with("https:"));
        let plain =
            wishes.client(match secure(&settings.proxies.http) || secure(&settings.proxies.https) {
                // On the way to it TLS is spoken in any case.
                true => ClientBuilder::tls_certs_merge,
                false => ClientBuilder::tls_certs_only,
            })?;
        Ok(Clients { wishes, plain, trusting: OnceLock::new() })
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
        self.trusting
            .get_or_init(|| self.wishes.client(ClientBuilder::tls_certs_merge))
            .as_ref()
            .map_err(Clone::clone)
    }
}

fn preparing(registry: &str, error: Error) -> Error {
    error.context(format!("prepare the connection to {registry}"))
}

fn read(path: &PathBuf) -> Result<Vec<u8>> {
    std::fs::read(path).map_err(|error| Error::invalid(format!("read {}: {error}", path.display())))
}

fn malformed(path: &Path) -> impl Fn(reqwest::Error) -> Error {
    move |error| Error::invalid(format!("read {}: {error}", path.display())).help("it must be PEM")
}

fn authorities(own: &RegistrySettings) -> Result<Vec<reqwest::Certificate>> {
    match &own.tls.ca {
        Some(path) => reqwest::Certificate::from_pem_bundle(&read(path)?).map_err(malformed(path)),
        None => Ok(Vec::new()),
    }
}

fn identity(own: &RegistrySettings) -> Result<Option<reqwest::Identity>> {
    let Some((certificate, key)) = &own.tls.identity else { return Ok(None) };
    let mut pem = read(certificate)?;
    pem.push(b'\n');
    pem.extend(read(key)?);
    reqwest::Identity::from_pem(&pem).map(Some).map_err(malformed(certificate))
}

impl Wishes {
    fn client(&self, trust: Trust) -> Result<reqwest::Client> {
        self.build(trust).map_err(|error| preparing(&self.registry, error))
    }

    fn build(&self, trust: Trust) -> Result<reqwest::Client> {
        let Wishes { own, proxies, user_agent, .. } = self;
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
        if own.origin.is_none() && own.daemon.is_none() {
            let none = proxies.none.as_deref().and_then(reqwest::NoProxy::from_string);
            let proxy = |address: &str| {
                let address = address.to_owned();
                move |error: reqwest::Error| Error::invalid(format!("use the proxy {address}: {error}"))
            };
            if let Some(address) = &proxies.http {
                builder = builder
                    .proxy(reqwest::Proxy::http(address).map_err(proxy(address))?.no_proxy(none.clone()));
            }
            if let Some(address) = &proxies.https {
                builder =
                    builder.proxy(reqwest::Proxy::https(address).map_err(proxy(address))?.no_proxy(none));
            }
        }
        builder = trust(builder, self.authorities.clone());
        if let Some(identity) = &self.identity {
            builder = builder.identity(identity.clone());
        }
        if !own.tls.verify {
            builder = builder.tls_danger_accept_invalid_certs(true);
        }
        builder.build().map_err(|error| Error::invalid(format!("set up TLS: {}", retry::root_cause(&error))))
    }
}
