//! Adapts observers to the engine.

use crate::{
    Secrets,
    adapt::calling,
    auth::named_secrets,
    bindings::guest::{self, observation},
    hosts::host_of,
    load::Loaded,
    state::{Outside, Scope},
};
use dray_core::policy::SecretRef;
use dray_engine::{
    Error, Result,
    contract::{Happening, Observer},
    http::Client,
};
use futures_core::future::BoxFuture;
use serde_json::Value;
use std::sync::{Arc, OnceLock};

/// An observer, bound to its configuration.
pub(crate) struct WasmObserver {
    plugin: Arc<Loaded>,
    indices: guest::observation::GuestIndices,
    config: String,
    secrets: Arc<dyn Secrets>,
    granted: Vec<SecretRef>,
    client: Arc<OnceLock<Client>>,
    hosts: Vec<String>,
}

impl WasmObserver {
    pub fn new(
        plugin: Arc<Loaded>,
        config: &Value,
        secrets: Arc<dyn Secrets>,
        client: Arc<OnceLock<Client>>,
    ) -> Result<Self> {
        let indices =
            guest::observation::GuestIndices::new(&plugin.pre).map_err(|error| plugin.unfit(&error))?;
        // What the table of an observer names is granted to it: secrets, and the hosts of addresses, also of those that are
        // secrets themselves, as the addresses of chat rooms are.
        let (mut named, mut hosts) = (Vec::new(), plugin.grant().hosts.clone());
        named_secrets(config, &mut named);
        named_hosts(config, &mut hosts);
        for name in &named {
            // One that is missing is told when the observer asks for it.
            if let Ok(secret) = secrets.get(name) {
                named_hosts(&Value::String(secret.expose().trim().to_owned()), &mut hosts);
            }
        }
        let granted = plugin.grant().secrets.iter().cloned().chain(named).collect();
        Ok(WasmObserver { plugin, indices, config: config.to_string(), secrets, granted, client, hosts })
    }

    fn scope(&self) -> Scope {
        Scope {
            secrets: Some(self.secrets.clone()),
            granted: self.granted.clone(),
            outside: self.client.get().map(|client| Outside {
                client: client.clone(),
                named: self.hosts.clone(),
                may_ask: |_| false,
            }),
            ..Scope::default()
        }
    }
}

/// The hosts of the addresses that a table names, also in its arrays and its tables.
fn named_hosts(config: &Value, into: &mut Vec<String>) {
    match config {
        // `*` is a wildcard in a grant, and no host has it in its name.
        Value::String(text) => into.extend(
            Some(host_of(text)).filter(|host| !host.is_empty() && !host.contains('*')).map(str::to_owned),
        ),
        Value::Array(values) => values.iter().for_each(|value| named_hosts(value, into)),
        Value::Object(table) => table.values().for_each(|value| named_hosts(value, into)),
        _ => {}
    }
}

impl Observer for WasmObserver {
    fn name(&self) -> &str {
        &self.plugin.name
    }

    fn observe<'a>(&'a self, run: &'a str, happened: &'a [Happening]) -> BoxFuture<'a, Result<()>> {
        Box::pin(async move {
            let event = |one: &Happening| observation::Event {
                kind: one.kind.to_owned(),
                time: one.time,
                rule: one.rule.clone(),
                source: one.source.clone(),
                destination: one.destination.clone(),
                digest: one.digest.clone(),
                bytes: one.bytes,
                text: one.text.clone(),
                extra: one.counts.clone(),
            };
            let events: Vec<observation::Event> = happened.iter().map(event).collect();
            let scope = self.scope();
            let said = scope.clone();
            let heard = calling!(self, &self.indices, scope, call_observe, run, &events, &self.config);
            // The hints of requests are about registries.
            heard.map_err(|error: Error| said.safe(Error::new(error.kind, error.text)))
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_hosts_of_a_table_are_those_of_its_addresses() {
        let config = serde_json::json!({
            "url": "https://hooks.example.com:8443/services/x?y",
            "more": [{ "at": "https://b.example/" }, "http://plain.example/", "b.example", "https://*.example/"],
        });
        let mut hosts = Vec::new();
        named_hosts(&config, &mut hosts);
        hosts.sort();
        assert_eq!(hosts, ["b.example", "hooks.example.com:8443"]);
    }
}
