//! Adapts auth providers to the engine.

use crate::{
    Secrets,
    adapt::calling,
    bindings::guest::{self, credentials, request_signer::Payload},
    clouds::Cloud,
    load::Loaded,
    memory::Memory,
    state::{Outside, Scope},
};
use dray_core::{Digest, policy::SecretRef};
use dray_engine::{
    Result, Secret,
    contract::{Body, Credential, Credentials, Key, Lookup, Reason, Signature, Unsigned},
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
    /// `None` means that it signs no requests.
    signer: Option<guest::request_signer::GuestIndices>,
    config: String,
    secrets: Arc<dyn Secrets>,
    granted: Vec<SecretRef>,
    /// What lends the network to providers, once it is there.
    client: Arc<OnceLock<Client>>,
    /// The hosts that the operator named.
    hosts: Vec<String>,
    may_ask: fn(&str) -> bool,
    memory: Arc<Memory>,
}

impl WasmAuth {
    pub fn new(
        plugin: Arc<Loaded>,
        config: &serde_json::Value,
        secrets: Arc<dyn Secrets>,
        client: Arc<OnceLock<Client>>,
    ) -> Result<Self> {
        let indices =
            guest::credentials::GuestIndices::new(&plugin.pre).map_err(|error| plugin.unfit(&error))?;
        // A secret that the table of a provider names is granted to the provider.
        let mut granted = plugin.grant().secrets.clone();
        named_secrets(config, &mut granted);
        let mut hosts = plugin.grant().hosts.clone();
        let cloud = Cloud::of(&plugin.name).filter(|_| plugin.builtin);
        if let Some(cloud) = cloud {
            granted.extend(cloud.secrets(config));
            hosts.extend(cloud.hosts(config));
        }
        let may_ask = cloud.map_or((|_| false) as fn(&str) -> bool, |cloud| cloud.may_ask);
        let signer = guest::request_signer::GuestIndices::new(&plugin.pre).ok();
        let memory = Arc::default();
        let config = config.to_string();
        Ok(WasmAuth { plugin, indices, signer, config, secrets, granted, client, hosts, may_ask, memory })
    }

    fn scope(&self) -> Scope {
        Scope {
            secrets: Some(self.secrets.clone()),
            granted: self.granted.clone(),
            outside: self.client.get().map(|client| Outside {
                client: client.clone(),
                named: self.hosts.clone(),
                may_ask: self.may_ask,
            }),
            memory: Some(self.memory.clone()),
            ..Scope::default()
        }
    }
}

/// The secrets that a table names, also in its arrays and its tables.
pub(crate) fn named_secrets(config: &serde_json::Value, into: &mut Vec<SecretRef>) {
    match config {
        serde_json::Value::String(text) => into.extend(text.parse::<SecretRef>().ok()),
        serde_json::Value::Array(values) => values.iter().for_each(|value| named_secrets(value, into)),
        serde_json::Value::Object(table) => table.values().for_each(|value| named_secrets(value, into)),
        _ => {}
    }
}

impl Credentials for WasmAuth {
    fn lookup<'a>(&'a self, asked: Lookup<'a>) -> BoxFuture<'a, Result<Option<Credential>>> {
        Box::pin(async move {
            let registry = asked.registry;
            let asked = credentials::Asked {
                registry: registry.to_owned(),
                repository: asked.repository.to_owned(),
                actions: asked.actions.to_vec(),
                why: match asked.why {
                    Reason::First => credentials::Reason::First,
                    Reason::Expired => credentials::Reason::Expired,
                    Reason::Refused => credentials::Reason::Refused,
                },
                extra: Vec::new(),
            };
            let scope = self.scope();
            let said = scope.clone();
            let found = calling!(self, &self.indices, scope, call_lookup, &asked, &self.config);
            let found = found
                .map_err(|error| said.safe(error).context(format!("find the credentials of {registry}")))?;
            Ok(found.map(|found| Credential {
                key: match found.secret {
                    credentials::Secret::Basic((user, password)) => Key::Basic(user, Secret::new(password)),
                    credentials::Secret::IdentityToken(token) => Key::IdentityToken(Secret::new(token)),
                    credentials::Secret::Bearer(token) => Key::Bearer(Secret::new(token)),
                },
                always: found.when == credentials::Sending::Always,
                lifetime: found.lifetime.map(Duration::from_secs),
                covers: found.covers,
                origin: said.without_secrets(found.origin),
            }))
        })
    }

    fn is_ahead(&self) -> BoxFuture<'_, Result<bool>> {
        Box::pin(async move { Ok(self.plugin.info().await?.says("sends-always")) })
    }

    fn sign<'a>(
        &'a self,
        registry: &'a str,
        request: &'a Unsigned<'a>,
    ) -> BoxFuture<'a, Result<Option<Signature>>> {
        Box::pin(async move {
            let Some(signer) = &self.signer else { return Ok(None) };
            let payload = match request.body {
                Body::Small([]) => Payload::Empty,
                Body::Small(body) => Payload::Sha256(Digest::of(body).hex()),
                Body::Blob(digest @ Digest::Sha256(_)) => Payload::Sha256(digest.hex()),
                Body::Blob(Digest::Sha512(_)) | Body::Unknown => Payload::Unknown,
            };
            let unsigned = guest::request_signer::UnsignedRequest {
                method: request.method.to_owned(),
                url: request.url.expose().to_owned(),
                headers: request.headers.to_vec(),
                payload,
                extra: Vec::new(),
            };
            let scope = self.scope();
            let said = scope.clone();
            let signed = calling!(self, signer, scope, call_sign, registry, &unsigned, &self.config);
            let signed =
                signed.map_err(|error| said.safe(error).context(format!("sign a request to {registry}")))?;
            let secret = |(name, value)| (name, Secret::new(value));
            Ok(signed.map(|headers: Vec<(String, String)>| headers.into_iter().map(secret).collect()))
        })
    }
}
