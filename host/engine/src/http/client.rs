//! The HTTP client of a run: its hosts, and the queue of the blobs that are to move.

use super::{
    connect::Clients,
    host::Host,
    settings::{Settings, Standing},
};
use crate::{Result, lock, schedule::queue::TransferQueue};
use std::{
    collections::HashMap,
    sync::{Arc, Mutex},
};

/// Hosts that are remembered before those are forgotten to whom others led: a stranger can name many.
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
    /// A client that has not connected to anything.
    pub fn new(settings: Settings) -> Self {
        // Fails only if a provider is installed already: then that one is used.
        let _ = rustls::crypto::ring::default_provider().install_default();
        Client(Arc::new(Inner { settings, hosts: Mutex::default(), queue: Arc::default() }))
    }

    /// Short names of registries that the settings declare.
    pub fn names(&self) -> Vec<String> {
        self.0.settings.registries.keys().cloned().collect()
    }

    /// The queue of all blobs that are to move.
    pub(super) fn queue(&self) -> &Arc<TransferQueue> {
        &self.0.queue
    }

    /// The host to which another server leads: by a redirect, a Location or a token realm.
    pub(super) fn led_to(&self, authority: &str, public: bool) -> Result<Arc<Host>> {
        self.host(authority, authority, Standing::Caused { public })
    }

    /// The host behind `host[:port]`, whose settings and credentials go by the name `registry`.
    pub(super) fn host(&self, address: &str, registry: &str, standing: Standing) -> Result<Arc<Host>> {
        let mut hosts = lock(&self.0.hosts);
        // One address under two names has the settings and credentials of each.
        let key = (standing, registry.to_owned(), address.to_owned());
        if let Some(host) = hosts.get(&key) {
            return Ok(host.clone());
        }
        let settings = &self.0.settings;
        let own = standing.limit(settings.registries.get(registry).unwrap_or(&settings.default));
        let outside = standing == Standing::Caused { public: true };
        let clients = Clients::new(address, registry, &own, settings, outside)?;
        let host = Arc::new(Host::new(address, registry, own, clients));
        if hosts.len() > HOSTS {
            // Those to whom others led, and whom nobody asks any more.
            hosts.retain(|(standing, ..), host| {
                !matches!(standing, Standing::Caused { .. }) || Arc::strong_count(host) > 1
            });
        }
        hosts.insert(key, host.clone());
        Ok(host)
    }
}
