//! The operator's settings for HTTP.

use crate::{Result, Secret, contract::Credentials};
use std::{collections::HashMap, path::PathBuf, sync::Arc};

/// The operator's settings for HTTP.
#[derive(Clone, Default)]
pub struct Settings {
    /// The settings of each registry, by its name.
    pub registries: HashMap<String, RegistrySettings>,
    /// The settings of registries that are not named.
    pub default: RegistrySettings,
    /// The proxies of the environment.
    pub proxies: Proxies,
    /// What this machine's files say about the connection to a host. `None` means that they are not asked.
    pub system: Option<SystemTls>,
    /// The `User-Agent` header; Docker Hub refuses requests without one.
    pub user_agent: String,
}

/// How to communicate with one registry.
#[derive(Clone)]
pub struct RegistrySettings {
    /// Maximum number of requests under way at once.
    pub concurrency: usize,
    /// Bandwidth limit in bytes per second. `None` means that there is no limit.
    pub bandwidth: Option<u64>,
    /// Nobody else writes to this registry, so tags that are in the journal are not requested again.
    pub assume_unchanged: bool,
    /// The kind of the registry. `None` means that it is recognised, and `none` that it has no dialect.
    pub kind: Option<String>,
    /// TLS settings of the connection.
    pub tls: TlsSettings,
    /// Sources of credentials, in the order in which they are asked.
    pub auth: Vec<Arc<dyn Credentials>>,
    /// Whether the operator named the sources of credentials. Otherwise they are the default ones.
    pub auth_named: bool,
    /// The real address of a registry that dray serves itself.
    pub origin: Option<Origin>,
    /// The real address of Docker's daemon.
    pub daemon: Option<Daemon>,
    /// The proxy for this registry; `"none"` disables it. `None` means that the environment decides.
    pub proxy: Option<String>,
    /// The lowest rate of a download, in bytes per second over a minute. A slower one counts as stalled.
    pub least_rate: u64,
}

/// Default number of requests under way at once to a registry.
const CONCURRENCY: usize = 32;
/// Default lowest rate in bytes per second. Even the slowest links in use are faster.
const LEAST_RATE: u64 = 256;

impl Default for RegistrySettings {
    fn default() -> Self {
        RegistrySettings {
            concurrency: CONCURRENCY,
            bandwidth: None,
            assume_unchanged: false,
            kind: None,
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

/// TLS settings of a connection.
#[derive(Clone, Debug)]
pub struct TlsSettings {
    /// PEM files with additional trusted authorities.
    pub ca: Vec<PathBuf>,
    /// PEM files of a client certificate and its key.
    pub identity: Option<(PathBuf, PathBuf)>,
    /// Whether certificates are verified. If false, any certificate is accepted.
    pub verify: bool,
    /// When plain HTTP is used.
    pub plain: Plain,
    /// Whether the operator said how to connect, so that the machine's files do not loosen it.
    pub explicit: bool,
}

impl Default for TlsSettings {
    fn default() -> Self {
        TlsSettings { ca: Vec::new(), identity: None, verify: true, plain: Plain::Loopback, explicit: false }
    }
}

/// What the files of this machine say about the connection to one host.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct HostTls {
    /// PEM files with additional trusted authorities.
    pub ca: Vec<PathBuf>,
    /// PEM files of a client certificate and its key.
    pub identity: Option<(PathBuf, PathBuf)>,
    /// Whether any certificate is accepted, and plain HTTP where there is no TLS.
    pub insecure: bool,
}

/// Asks the files of this machine about a host, `host[:port]`.
pub type AskHost = dyn Fn(&str) -> Result<HostTls> + Send + Sync;

/// What the files of this machine say about the connection to each host.
#[derive(Clone)]
pub struct SystemTls(pub Arc<AskHost>);

impl Settings {
    /// The settings of a host that gets credentials without being a registry of the operator's: TLS holds for it unless a table
    /// names exactly this host.
    pub(super) fn strict(&self, host: &str) -> RegistrySettings {
        let mut own = self.registries.get(host).unwrap_or(&self.default).clone();
        if !self.registries.contains_key(host) {
            own.tls = TlsSettings { ca: own.tls.ca, ..TlsSettings::default() };
        }
        own
    }

    /// The settings of a registry, with what the machine's files say where the operator said nothing.
    ///
    /// # Errors
    /// Fails if the machine's files for the host cannot be used.
    pub(super) fn of(&self, registry: &str) -> Result<RegistrySettings> {
        let mut own = self.registries.get(registry).unwrap_or(&self.default).clone();
        let silent = own.origin.is_none() && own.daemon.is_none();
        if let Some(SystemTls(system)) =
            self.system.as_ref().filter(|_| silent && own.tls.plain != Plain::Always)
        {
            let HostTls { ca, identity, insecure } = system(registry)?;
            let tls = &mut own.tls;
            if tls.ca.is_empty() {
                tls.ca = ca;
            }
            tls.identity = tls.identity.take().or(identity);
            if insecure && !tls.explicit {
                tracing::info!("registries.conf says that {registry} is insecure");
                (tls.verify, tls.plain) = (false, Plain::Fallback);
            }
        }
        Ok(own)
    }
}

/// When plain HTTP is used.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Plain {
    /// Plain HTTP is never used.
    Never,
    /// Plain HTTP is used for a loopback address that does not answer to TLS, as Docker does.
    Loopback,
    /// Plain HTTP is used for any host that does not answer to TLS.
    Fallback,
    /// Plain HTTP is always used.
    Always,
}

/// On whose behalf a host is contacted.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(super) enum Standing {
    /// The user named the host, so all of its settings apply.
    Own,
    /// A plugin chose the host, so it gets no credentials and no client certificate.
    Chosen,
    /// The host belongs to a registry, and gets the registry's login or a signature. What loosens TLS for registries in general
    /// does not hold for it; only a table of exactly this host does. It gets no credentials of its own and no client
    /// certificate.
    Lent,
    /// Another server leads to the host (by a redirect, a `Location` or a token realm). It gets no credentials and no
    /// client certificate, and cannot be a registry that dray serves itself or a daemon. A `public` server cannot lead
    /// to an internal address.
    Caused { public: bool },
}

impl Standing {
    /// The part of a host's settings that applies to this standing.
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

/// The real address of a registry that dray serves itself.
#[derive(Clone, Debug)]
pub struct Origin {
    /// The address, such as `127.0.0.1:5000`. It is reached over plain HTTP.
    pub address: String,
    /// The secret that is sent as a bearer token.
    pub token: Secret,
}

/// The address at which Docker's daemon listens.
#[derive(Clone, Debug)]
pub enum Daemon {
    /// A Unix socket.
    Unix(PathBuf),
    /// A TCP address.
    Tcp {
        /// The address as `host:port`.
        address: String,
        /// Whether the daemon uses TLS.
        tls: bool,
    },
}

/// The proxies that the environment names.
#[derive(Clone, Debug, Default)]
pub struct Proxies {
    /// The proxy for `http:` addresses.
    pub http: Option<String>,
    /// The proxy for `https:` addresses.
    pub https: Option<String>,
    /// Hosts that are reached without a proxy (`NO_PROXY`).
    pub none: Option<String>,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_loosens_tls_in_general_does_not_hold_for_a_host_that_gets_credentials() {
        let loose = |ca: &str| RegistrySettings {
            tls: TlsSettings {
                plain: Plain::Always,
                verify: false,
                ca: vec![ca.into()],
                ..TlsSettings::default()
            },
            ..RegistrySettings::default()
        };
        let settings = Settings {
            default: loose("default.pem"),
            registries: [("api.internal.example".to_owned(), loose("own.pem"))].into(),
            ..Settings::default()
        };
        let api = settings.strict("api.github.com");
        assert!(api.tls.verify && api.tls.plain != Plain::Always, "{:?}", api.tls.plain);
        // Authorities that are trusted in general are trusted here, too.
        assert_eq!(api.tls.ca, [PathBuf::from("default.pem")]);
        assert_eq!(settings.strict("api.internal.example").tls.plain, Plain::Always);
    }

    #[test]
    fn what_another_server_caused_has_no_identity() {
        let own = RegistrySettings {
            tls: TlsSettings {
                identity: Some(("c".into(), "k".into())),
                ca: vec!["ca".into()],
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
            // The authorities that are trusted are a setting of the host itself, so they are kept.
            assert_eq!(limited.tls.ca, own.tls.ca);
        }
        assert!(Standing::Own.limit(&own).tls.identity.is_some());
    }
}
