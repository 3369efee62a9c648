//! What a store holds for the guest that runs in it.

use crate::{
    bindings::host,
    load::Loaded,
    memory::Memory,
    meter::{Ceiling, Meter, SMALL},
    record::Heard,
    trial::Script,
};
use dray_core::policy::{SecretRef, grants_host, is_host_grant};
use dray_engine::{
    Error, Kind, Result, Secret,
    contract::{Context, Images, Secrets},
    http::{Client, HostAccess, PlaceHttp},
};
use std::sync::{Arc, Mutex};

/// What a call has access to.
#[derive(Clone, Default)]
pub(crate) struct Scope {
    pub context: Option<Context>,
    pub images: Option<Arc<dyn Images>>,
    pub secrets: Option<Arc<dyn Secrets>>,
    /// Secrets that the policy grants.
    pub granted: Vec<SecretRef>,
    /// The hosts that an auth provider may ask. `None` means that it may ask nobody.
    pub outside: Option<Outside>,
    /// What answers instead of the network while a plugin is tried.
    pub script: Option<Arc<Script>>,
    /// What the clock says while a plugin is tried, in milliseconds since 1970.
    pub now: Option<u64>,
    /// What an auth provider remembers.
    pub memory: Option<Arc<Memory>>,
    /// Secrets that the guest was given. None of its texts may contain one.
    pub told: Arc<Mutex<Vec<Secret>>>,
}

/// Hosts of the network, which are asked without anybody's credentials.
#[derive(Clone)]
pub(crate) struct Outside {
    pub client: Client,
    /// Hosts, each with its port if that is not 443, that the operator named or granted.
    pub named: Vec<String>,
    /// Whether it may ask a further host.
    pub may_ask: fn(&str) -> bool,
}

impl Outside {
    /// The access of a host. Fails if the guest may not ask it.
    pub fn access(&self, host: &str, access: HostAccess) -> Result<PlaceHttp> {
        // Nothing that a URL reads in another way than as a host is one, whoever named it.
        let is_host = is_host_grant(&host.to_ascii_lowercase()) && !host.contains('*');
        let named = is_host && self.named.iter().any(|named| grants_host(named, host));
        // Nothing that a URL might read in another way is compared.
        let plain = host.bytes().all(|byte| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'.'));
        if !(named || plain && (self.may_ask)(host)) {
            let text = format!("send a request to {host}: the policy does not grant that host");
            return Err(Error::new(Kind::Denied, text).help(
                "a plugin gets the hosts of `grant.hosts` that it asks for: `dray check` compares them",
            ));
        }
        PlaceHttp::new(&self.client, host, access)
    }
}

impl Scope {
    /// Remembers a secret that the guest is given. A file ends with a newline, which guests take away.
    pub fn tell(&self, secret: &Secret) {
        self.told
            .lock()
            .unwrap_or_else(|poisoned| poisoned.into_inner())
            .push(Secret::new(secret.expose().trim()));
    }

    /// An error of the guest, without the secrets that the guest was given.
    pub fn safe(&self, error: Error) -> Error {
        let told = Error::new(error.kind, self.without_secrets(error.text));
        match error.help {
            Some(help) => told.help(self.without_secrets(help)),
            None => told,
        }
    }

    /// A text of the guest, without the secrets that the guest was given.
    pub fn without_secrets(&self, text: String) -> String {
        let told = self.told.lock().unwrap_or_else(|poisoned| poisoned.into_inner());
        let secrets = told.iter().map(Secret::expose).filter(|secret| !secret.is_empty());
        secrets.fold(text, |text, secret| text.replace(secret, "…"))
    }
}

/// How often a guest may call the host in one call. A guest that does so more often probably never ends.
const CALLS: u32 = 20_000;

pub(crate) struct State {
    pub plugin: Arc<Loaded>,
    pub limits: Ceiling,
    pub meter: Meter,
    pub scope: Scope,
    pub calls: u32,
    /// The beginning of what the plugin last logged as an error in this call.
    pub complaint: Option<String>,
    /// What the guest asked for in this call, if its calls are recorded.
    pub heard: Vec<Heard>,
}

impl State {
    /// Prepares the state for another call.
    pub fn begin(&mut self, scope: Scope) {
        self.scope = scope;
        self.meter = self.plugin.meter();
        self.calls = 0;
        self.complaint = None;
        self.heard.clear();
    }

    /// Whether the calls of the guest are recorded.
    pub fn records(&self) -> bool {
        self.plugin.tracer.as_ref().is_some_and(|tracer| tracer.records(&self.plugin.name))
    }

    /// Keeps what the guest asked for, if its calls are recorded.
    pub fn hear(&mut self, heard: impl FnOnce() -> Heard) {
        if self.records() {
            self.heard.push(heard());
        }
    }

    /// Whether the instance has stayed small.
    pub fn is_small(&self) -> bool {
        self.limits.used <= SMALL
    }

    /// Counts a call to the host.
    pub fn called(&mut self) -> Result<(), host::types::Error> {
        self.calls += 1;
        if self.calls > CALLS {
            return Err(host::types::Error::Denied(format!(
                "the plugin asked the host more than {CALLS} times in one call"
            )));
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_provider_asks_only_hosts_that_somebody_named() {
        let outside = Outside {
            client: Client::new(dray_engine::http::Settings::default()),
            named: vec!["login.example.com:8443".into(), "*@127.0.0.1:8123\\.b".into()],
            may_ask: |host| host.ends_with(".amazonaws.com"),
        };
        for (host, allowed) in [
            ("login.example.com:8443", true),
            ("login.example.com", false),
            ("sts.eu-west-1.amazonaws.com", true),
            ("sts.amazonaws.com.evil.example", false),
            ("sts.evil.example\\.amazonaws.com", false),
            ("sts.evil.example:443@x.amazonaws.com", false),
            ("*@127.0.0.1:8123\\.b", false),
            ("", false),
        ] {
            assert_eq!(outside.access(host, HostAccess::Provider).is_ok(), allowed, "{host}");
        }
    }

    #[test]
    fn a_secret_that_was_told_is_in_no_text() {
        let scope = Scope::default();
        scope.told.lock().unwrap().extend([Secret::new("hunter2"), Secret::new("")]);
        assert_eq!(scope.without_secrets("refused: bob:hunter2 (hunter2)".into()), "refused: bob:… (…)");
    }
}
