//! What the operator says about HTTP.

use crate::{Secret, contract::Credentials};
use std::{collections::HashMap, path::PathBuf, sync::Arc};

/// What the operator says about HTTP.
#[derive(Clone, Default)]
pub struct Settings {
    /// By the registry's name.
    pub registries: HashMap<String, RegistrySettings>,
    /// For registries that are not named.
    pub default: RegistrySettings,
    /// Proxies.
    pub proxies: Proxies,
    /// The `User-Agent` header; Docker Hub refuses requests without one.
    pub user_agent: String,
}

/// How one registry is talked to.
#[derive(Clone)]
pub struct RegistrySettings {
    /// Requests under way at once.
    pub concurrency: usize,
    /// Bytes a second.
    pub bandwidth: Option<u64>,
    /// Nobody else writes to it: tags that the journal knows are not asked for.
    pub assume_unchanged: bool,
    /// How the connection is secured.
    pub tls: TlsSettings,
    /// Asked in order.
    pub auth: Vec<Arc<dyn Credentials>>,
    /// The operator named them; otherwise they are dray's usual ones.
    pub auth_named: bool,
    /// Where it really is, for registries that dray serves itself.
    pub origin: Option<Origin>,
    /// Where it really is, for Docker's daemon.
    pub daemon: Option<Daemon>,
    /// The proxy through which it is reached; `none`: no proxy. `None` means that the environment says.
    pub proxy: Option<String>,
    /// The least bytes a second, over a minute, at which a blob may move before it is taken to be stalled.
    pub least_rate: u64,
}

/// Requests under way at once to a registry, where the policy does not say.
const CONCURRENCY: usize = 32;
/// Bytes a second, where the policy does not say. The slowest links that people sync over bring more.
const LEAST_RATE: u64 = 256;

impl Default for RegistrySettings {
    fn default() -> Self {
        RegistrySettings {
            concurrency: CONCURRENCY,
            bandwidth: None,
            assume_unchanged: false,
            tls: TlsSettings::default(),
            auth: Vec::new(),
            auth_named: false,
            origin: None,
            daemon: None,
            proxy: None,
            least_rate: LEAST_RATE,
        }
    }
}

/// How a connection is secured.
#[derive(Clone, Debug)]
pub struct TlsSettings {
    /// PEM file of further trusted authorities.
    pub ca: Option<PathBuf>,
    /// PEM files of a client certificate and its key.
    pub identity: Option<(PathBuf, PathBuf)>,
    /// False: any certificate is taken.
    pub verify: bool,
    /// When plain HTTP is spoken.
    pub plain: Plain,
}

impl Default for TlsSettings {
    fn default() -> Self {
        TlsSettings { ca: None, identity: None, verify: true, plain: Plain::Loopback }
    }
}

/// When plain HTTP is spoken.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Plain {
    /// Never.
    Never,
    /// To a loopback address that does not speak TLS, as Docker does.
    Loopback,
    /// To any host that does not speak TLS.
    Fallback,
    /// Always.
    Always,
}

/// For whom a host is asked.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(super) enum Standing {
    /// The user named it: it has all of its settings.
    Own,
    /// A plugin chose it: it gets no credentials and no client certificate.
    Chosen,
    /// Another server leads there (a redirect, a Location, a realm): it gets neither, and is nothing that dray serves
    /// itself or that is behind a socket. From a `public` server nothing leads inside.
    Caused { public: bool },
}

impl Standing {
    /// What of a host's settings applies.
    pub fn limit(self, settings: &RegistrySettings) -> RegistrySettings {
        let mut settings = settings.clone();
        if self != Standing::Own {
            settings.auth = Vec::new();
            settings.tls.identity = None;
            (settings.origin, settings.daemon) = (None, None);
        }
        settings
    }
}

/// Where a registry really is.
#[derive(Clone, Debug)]
pub struct Origin {
    /// `127.0.0.1:5000`; spoken to in plain HTTP.
    pub address: String,
    /// Sent as a bearer token.
    pub token: Secret,
}

/// Where Docker's daemon listens.
#[derive(Clone, Debug)]
pub enum Daemon {
    /// At a socket.
    Unix(PathBuf),
    /// At an address.
    Tcp {
        /// `host:port`
        address: String,
        /// Whether TLS is spoken.
        tls: bool,
    },
}

/// Proxies, as the environment names them.
#[derive(Clone, Debug, Default)]
pub struct Proxies {
    /// For `http:` addresses.
    pub http: Option<String>,
    /// For `https:` addresses.
    pub https: Option<String>,
    /// Hosts that are reached without one.
    pub none: Option<String>,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_another_server_caused_has_no_identity() {
        let own = RegistrySettings {
            tls: TlsSettings {
                identity: Some(("c".into(), "k".into())),
                ca: Some("ca".into()),
                ..TlsSettings::default()
            },
            origin: Some(Origin { address: "127.0.0.1:1".into(), token: Secret::new("t") }),
            daemon: Some(Daemon::Unix("/var/run/docker.sock".into())),
            ..RegistrySettings::default()
        };
        for standing in
            [Standing::Chosen, Standing::Caused { public: false }, Standing::Caused { public: true }]
        {
            let limited = standing.limit(&own);
            assert!(limited.auth.is_empty() && limited.tls.identity.is_none(), "{standing:?}");
            assert!(limited.origin.is_none() && limited.daemon.is_none(), "{standing:?}");
            // Whom to trust there is the host's own setting.
            assert_eq!(limited.tls.ca, own.tls.ca);
        }
        assert!(Standing::Own.limit(&own).tls.identity.is_some());
    }
}
