//! The HTTP client of a run: the known hosts, and the transfer queue.

use super::{
    connect::Clients,
    host::Host,
    settings::{Settings, Standing},
};
use crate::{Result, lock, schedule::queue::TransferQueue};
use std::{
    collections::HashMap,
    sync::{Arc, Mutex},
    time::Duration,
};

/// Above this number of hosts, those that only other servers led to are forgotten: a server can name any number of
/// them.
const HOSTS: usize = 256;

/// The HTTP client of a run.
#[derive(Clone)]
pub struct Client(Arc<Inner>);

struct Inner {
    settings: Settings,
    hosts: Mutex<HashMap<(Standing, String, String), Arc<Host>>>,
    queue: Arc<TransferQueue>,
}

impl Client {
    /// Creates a client. It opens no connection yet.
    pub fn new(settings: Settings) -> Self {
        // This fails only if a provider is installed already; that one is then used.
        let _ = rustls::crypto::ring::default_provider().install_default();
        Client(Arc::new(Inner { settings, hosts: Mutex::default(), queue: Arc::default() }))
    }

    /// The names of the registries that the settings declare.
    pub fn names(&self) -> Vec<String> {
        self.0.settings.registries.keys().cloned().collect()
    }

    /// The hosts that ask us to wait before the next request, each by its name, and how much longer.
    pub fn waits(&self) -> Vec<(String, Duration)> {
        let hosts = lock(&self.0.hosts);
        let waits =
            hosts.values().filter_map(|host| Some((host.registry.clone(), host.asks_for_patience()?)));
        waits.collect()
    }

    /// The transfer queue, with all blobs that are waiting to move.
    pub(super) fn queue(&self) -> &Arc<TransferQueue> {
        &self.0.queue
    }

    /// The host to which another server leads by a redirect, a `Location` header or a token realm.
    pub(super) fn led_to(&self, authority: &str, public: bool) -> Result<Arc<Host>> {
        self.host(authority, authority, Standing::Caused { public })
    }

    /// The host at `host[:port]`. Its settings and credentials are those of the name `registry`.
    pub(super) fn host(&self, address: &str, registry: &str, standing: Standing) -> Result<Arc<Host>> {
        let mut hosts = lock(&self.0.hosts);
        // One address may be used under two names, each with its own settings and credentials.
        let key = (standing, registry.to_owned(), address.to_owned());
        if let Some(host) = hosts.get(&key) {
            return Ok(host.clone());
        }
        let settings = &self.0.settings;
        let own = match standing {
            Standing::Lent => settings.strict(registry),
            _ => settings.of(registry)?,
        };
        let own = standing.limit(&own);
        let outside = standing == Standing::Caused { public: true };
        let clients = Clients::new(address, registry, &own, settings, outside)?;
        let host = Arc::new(Host::new(address, registry, own, clients));
        if hosts.len() > HOSTS {
            // Forget the hosts that other servers led to and that nothing uses any more.
            hosts.retain(|(standing, ..), host| {
                !matches!(standing, Standing::Caused { .. }) || Arc::strong_count(host) > 1
            });
        }
        hosts.insert(key, host.clone());
        Ok(host)
    }
}
