//! The connections to one host, as the operator wants them.

use super::{
    retry,
    settings::{Daemon, Proxies, RegistrySettings, Settings},
};
use crate::{Error, Result};
use reqwest::ClientBuilder;
use std::{path::PathBuf, sync::OnceLock};

/// Which authorities are trusted beside those that the operator names.
type Trust = fn(ClientBuilder, Vec<reqwest::Certificate>) -> ClientBuilder;

pub(super) struct Clients {
    own: RegistrySettings,
    proxies: Proxies,
    user_agent: String,
    /// Trusts no authority but those that the operator names.
    plain: reqwest::Client,
    /// Trusts those of the system, too. They are some hundred files, so they are read when they are
    /// wanted.
    trusting: OnceLock<reqwest::Client>,
}

impl Clients {
    /// # Errors
    /// Where certificates, keys or proxies cannot be used.
    pub fn new(own: &RegistrySettings, settings: &Settings) -> Result<Self> {
        let Settings { proxies, user_agent, .. } = settings.clone();
        let secure = |proxy: &Option<String>| proxy.as_ref().is_some_and(|proxy| proxy.starts_with("https:"));
        let trust: Trust = match secure(&proxies.http) || secure(&proxies.https) {
            // On the way to it TLS is spoken in any case.
            true => ClientBuilder::tls_certs_merge,
            false => ClientBuilder::tls_certs_only,
        };
        let plain = build(own, &proxies, &user_agent, trust)?;
        Ok(Clients { own: own.clone(), proxies, user_agent, plain, trusting: OnceLock::new() })
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
        if let Some(trusting) = self.trusting.get() {
            return Ok(trusting);
        }
        let trusting = build(&self.own, &self.proxies, &self.user_agent, ClientBuilder::tls_certs_merge)?;
        Ok(self.trusting.get_or_init(|| trusting))
    }
}

fn build(
    own: &RegistrySettings,
    proxies: &Proxies,
    user_agent: &str,
    trust: Trust,
) -> Result<reqwest::Client> {
    let read = |path: &PathBuf| {
        std::fs::read(path).map_err(|error| Error::invalid(format!("read {}: {error}", path.display())))
    };
    let malformed = |path: &PathBuf| {
        let path = path.display().to_string();
        move |error: reqwest::Error| Error::invalid(format!("read {path}: {error}")).help("it must be PEM")
    };
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
            builder =
                builder.proxy(reqwest::Proxy::http(address).map_err(proxy(address))?.no_proxy(none.clone()));
        }
        if let Some(address) = &proxies.https {
            builder = builder.proxy(reqwest::Proxy::https(address).map_err(proxy(address))?.no_proxy(none));
        }
    }
    let authorities = match &own.tls.ca {
        Some(path) => reqwest::Certificate::from_pem_bundle(&read(path)?).map_err(malformed(path))?,
        None => Vec::new(),
    };
    builder = trust(builder, authorities);
    if let Some((certificate, key)) = &own.tls.identity {
        let mut pem = read(certificate)?;
        pem.push(b'\n');
        pem.extend(read(key)?);
        builder = builder.identity(reqwest::Identity::from_pem(&pem).map_err(malformed(certificate))?);
    }
    if !own.tls.verify {
        builder = builder.tls_danger_accept_invalid_certs(true);
    }
    builder.build().map_err(|error| Error::invalid(format!("set up TLS: {}", retry::root_cause(&error))))
}
