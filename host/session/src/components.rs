//! The plugins of a session that are components.

use crate::{Environment, lazy_auth};
use dray_core::policy::{Plugin, plugin_config};
use dray_engine::{
    contract::{Credentials, Plugins},
    http::{Client, Plain, RegistrySettings, Settings, TlsSettings},
};
use dray_runtime::{METADATA, Runtime};
use std::{collections::BTreeMap, sync::Arc};

/// Those of the policy, and those that are built in.
pub(crate) struct Components(Arc<Runtime>);

impl Components {
    pub fn new(environment: &Environment, plugins: &BTreeMap<String, Plugin>) -> Self {
        let runtime = Runtime::new(dray_runtime::Settings {
            cache: environment.cache.clone(),
            plugins: plugins.clone(),
            secrets: environment.secrets.clone(),
        });
        if let Some(tracer) = &environment.tracer {
            runtime.trace(tracer.clone());
        }
        Components(runtime)
    }

    pub fn plugins(&self) -> Arc<dyn Plugins> {
        self.0.clone()
    }

    /// The login of a registry of which the policy says nothing: that of docker and podman.
    pub fn usual_auth(&self) -> Vec<Arc<dyn Credentials>> {
        vec![lazy_auth(self.plugins(), plugin_config("docker-config", Default::default()))]
    }

    /// Lets auth providers ask the hosts that are granted to them.
    pub fn lend(&self, settings: &Settings) {
        self.0.lend(Client::new(for_providers(settings)));
    }
}

/// The settings for requests of auth providers. They have no credentials, and whatever loosens TLS for registries in general
/// does not hold for them, because keys and passwords travel in them. Only a table of exactly this host does.
fn for_providers(settings: &Settings) -> Settings {
    let bare = |settings: &RegistrySettings| RegistrySettings { auth: Vec::new(), ..settings.clone() };
    let RegistrySettings { proxy, tls, .. } = &settings.default;
    let tls = TlsSettings { ca: tls.ca.clone(), ..TlsSettings::default() };
    // A machine asks for its own identity on its own link, where nobody offers TLS.
    let metadata = || RegistrySettings {
        proxy: Some("none".into()),
        tls: TlsSettings { plain: Plain::Always, ..TlsSettings::default() },
        ..RegistrySettings::default()
    };
    let metadata = METADATA.map(|address| (address.to_owned(), metadata()));
    let named = settings.registries.iter().map(|(name, own)| (name.clone(), bare(own)));
    Settings {
        registries: metadata.into_iter().chain(named).collect(),
        default: RegistrySettings { proxy: proxy.clone(), tls, ..RegistrySettings::default() },
        proxies: settings.proxies.clone(),
        system: None,
        user_agent: settings.user_agent.clone(),
    }
}
