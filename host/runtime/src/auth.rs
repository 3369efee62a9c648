//! Adapts auth providers to the engine.

use crate::{
    adapt::calling,
    bindings::guest::{self, credentials},
    load::Loaded,
    state::{Outside, Scope, Secrets},
};
use dray_core::policy::SecretRef;
use dray_engine::{
    Error, Kind, Result, Secret,
    contract::{Credential, Credentials, Key},
    http::Client,
};
use futures_core::future::BoxFuture;
use std::{
    sync::{Arc, OnceLock},
    time::Duration,
};

/// A provider, bound to its configuration.
pub(crate) struct WasmAuth {
    plugin: Arc<Loaded>,
    indices: guest::credentials::GuestIndices,
    config: String,
    secrets: Arc<dyn Secrets>,
    granted: Vec<SecretRef>,
    /// What lends the network to providers, once it is there.
    client: Arc<OnceLock<Client>>,
    /// The hosts that the operator named.
    hosts: Vec<String>,
    may_ask: fn(&str) -> bool,
}

/// Secrets that the provider for Amazon's registries reads without being told where they lie, as every tool of Amazon does.
const AMAZON: [&str; 3] = ["env:AWS_ACCESS_KEY_ID", "env:AWS_SECRET_ACCESS_KEY", "env:AWS_SESSION_TOKEN"];
/// Keys of its table that name others.
const NAMING: [&str; 4] = ["access-key-id", "secret-access-key", "credentials-file", "web-identity-token"];

/// Whether a host is one at which it exchanges them. Other names in the same domain are of Amazon's customers.
pub(crate) fn is_amazons(host: &str) -> bool {
    let service =
        ["api.ecr.", "api.ecr-public.", "ecr-fips.", "sts."].iter().any(|start| host.starts_with(start));
    service && [".amazonaws.com", ".amazonaws.com.cn"].iter().any(|end| host.ends_with(end))
}

impl WasmAuth {
    pub fn new(
        plugin: Arc<Loaded>,
        config: &serde_json::Value,
        secrets: Arc<dyn Secrets>,
        client: Arc<OnceLock<Client>>,
    ) -> Result<Self> {
        let indices = guest::credentials::GuestIndices::new(&plugin.pre);
        let indices = indices.map_err(|error| {
            Error::new(Kind::Plugin, format!("load the plugin {}: {error:#}", plugin.name))
        })?;
        // A secret that the table of a provider names is granted to the provider.
        let mut granted = plugin.grant.secrets.clone();
        granted.extend(
            config
                .as_object()
                .into_iter()
                .flat_map(|table| table.values())
                .filter_map(|value| value.as_str()?.parse().ok()),
        );
        let (mut hosts, mut may_ask): (_, fn(&str) -> bool) = (plugin.grant.hosts.clone(), |_| false);
        if plugin.builtin && plugin.name == "ecr" {
            // Somebody else's keys are not mixed with those that the table names.
            if NAMING.iter().all(|key| config.get(key).is_none()) {
                granted.extend(AMAZON.iter().filter_map(|name| name.parse().ok()));
            }
            let named = ["endpoint", "sts-endpoint"].iter().filter_map(|key| config.get(key)?.as_str());
            hosts.extend(named.map(str::to_owned));
            may_ask = is_amazons;
        }
        Ok(WasmAuth { plugin, indices, config: config.to_string(), secrets, granted, client, hosts, may_ask })
    }
}

impl Credentials for WasmAuth {
    fn lookup<'a>(
        &'a self,
        registry: &'a str,
        repository: &'a str,
    ) -> BoxFuture<'a, Result<Option<Credential>>> {
        Box::pin(async move {
            let scope = Scope {
                secrets: Some(self.secrets.clone()),
                granted: self.granted.clone(),
                outside: self.client.get().map(|client| Outside {
                    client: client.clone(),
                    named: self.hosts.clone(),
                    may_ask: self.may_ask,
                }),
                ..Scope::default()
            };
            let said = scope.clone();
            let found = calling!(self, &self.indices, scope, call_lookup, registry, repository, &self.config);
            let found = found.map_err(|error: Error| {
                let text = said.without_secrets(error.text);
                let help = error.help.map(|help| said.without_secrets(help));
                let told =
                    Error::new(error.kind, text).context(format!("find the credentials of {registry}"));
                match help {
                    Some(help) => told.help(help),
                    None => told,
                }
            })?;
            Ok(found.map(|found| Credential {
                key: match found.secret {
                    credentials::Secret::Basic((user, password)) => Key::Basic(user, Secret::new(password)),
                    credentials::Secret::IdentityToken(token) => Key::IdentityToken(Secret::new(token)),
                    credentials::Secret::Bearer(token) => Key::Bearer(Secret::new(token)),
                },
                lifetime: found.lifetime.map(Duration::from_secs),
                covers: found.covers,
                origin: said.without_secrets(found.origin),
            }))
        })
    }
}
