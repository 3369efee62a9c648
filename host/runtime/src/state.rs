//! What a store holds for the guest that runs in it.

use crate::{
    bindings::host,
    load::Loaded,
    meter::{Ceiling, Meter, SMALL},
};
use dray_core::policy::SecretRef;
use dray_engine::{
    Result, Secret,
    contract::{Context, Images},
};
use std::sync::{Arc, Mutex};

/// Where secrets come from; the caller of the runtime reads environment and files.
pub trait Secrets: Send + Sync {
    /// A granted secret.
    ///
    /// # Errors
    /// Fails if there is none.
    fn get(&self, name: &SecretRef) -> Result<Secret>;

    /// Path and content of the auth.json and config.json files, in search order.
    ///
    /// # Errors
    /// Fails if one is there and cannot be read.
    fn auth_files(&self) -> Result<Vec<(String, Secret)>>;
}

/// What a call may reach.
#[derive(Clone, Default)]
pub(crate) struct Scope {
    pub context: Option<Context>,
    pub images: Option<Arc<dyn Images>>,
    pub secrets: Option<Arc<dyn Secrets>>,
    /// Secrets that the policy grants.
    pub granted: Vec<SecretRef>,
    /// Secrets that the guest was told: none of its words may hold one.
    pub told: Arc<Mutex<Vec<Secret>>>,
}

impl Scope {
    /// A text of the guest's without the secrets that it was told.
    pub fn without_secrets(&self, text: String) -> String {
        let told = self.told.lock().unwrap_or_else(|poisoned| poisoned.into_inner());
        let secrets = told.iter().map(Secret::expose).filter(|secret| !secret.is_empty());
        secrets.fold(text, |text, secret| text.replace(secret, "…"))
    }
}

/// Requests to the host in one call, after which the guest is taken to go round in circles.
const CALLS: u32 = 20_000;

pub(crate) struct State {
    pub plugin: Arc<Loaded>,
    pub limits: Ceiling,
    pub meter: Meter,
    pub scope: Scope,
    pub calls: u32,
}

impl State {
    /// Another call begins.
    pub fn begin(&mut self, scope: Scope) {
        self.scope = scope;
        self.meter = self.plugin.meter();
        self.calls = 0;
    }

    /// Whether it has not grown much.
    pub fn is_small(&self) -> bool {
        self.limits.used <= SMALL
    }

    /// Counts a request to the host.
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
    fn a_secret_that_was_told_is_in_no_text() {
        let scope = Scope::default();
        scope.told.lock().unwrap().extend([Secret::new("hunter2"), Secret::new("")]);
        assert_eq!(scope.without_secrets("refused: bob:hunter2 (hunter2)".into()), "refused: bob:… (…)");
    }
}
