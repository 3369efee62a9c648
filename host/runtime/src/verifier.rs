//! Adapts verifiers to the engine.

use crate::{
    Secrets,
    adapt::calling,
    auth::named_secrets,
    bindings::guest::{self, verification},
    load::Loaded,
    state::Scope,
};
use dray_core::{Manifest, policy::SecretRef};
use dray_engine::{
    Error, Result,
    contract::{Evidence, Judgement, Verifier},
};
use futures_core::future::BoxFuture;
use std::sync::Arc;

/// The most texts of a verdict that are kept, and the longest one in characters.
const TEXTS: usize = 20;
const TEXT: usize = 300;

/// A verifier, bound to its configuration.
pub(crate) struct WasmVerifier {
    plugin: Arc<Loaded>,
    indices: guest::verification::GuestIndices,
    config: String,
    secrets: Arc<dyn Secrets>,
    granted: Vec<SecretRef>,
}

impl WasmVerifier {
    pub fn new(plugin: Arc<Loaded>, config: &serde_json::Value, secrets: Arc<dyn Secrets>) -> Result<Self> {
        let indices =
            guest::verification::GuestIndices::new(&plugin.pre).map_err(|error| plugin.unfit(&error))?;
        // A file that the table of a verifier names, such as a key, is granted to it.
        let mut granted = plugin.grant().secrets.clone();
        named_secrets(config, &mut granted);
        Ok(WasmVerifier { plugin, indices, config: config.to_string(), secrets, granted })
    }

    fn scope(&self) -> Scope {
        Scope { secrets: Some(self.secrets.clone()), granted: self.granted.clone(), ..Scope::default() }
    }
}

/// A text of a plugin, as it may be shown.
fn text(said: &Scope, text: String) -> String {
    dray_core::harmless(&said.without_secrets(text), TEXT)
}

impl Verifier for WasmVerifier {
    fn name(&self) -> &str {
        &self.plugin.name
    }

    fn wants(&self) -> BoxFuture<'_, Result<Vec<String>>> {
        Box::pin(async move {
            let scope = self.scope();
            let said = scope.clone();
            let wanted = calling!(self, &self.indices, scope, call_wants, &self.config);
            wanted.map_err(|error: Error| said.safe(error))
        })
    }

    fn verify<'a>(
        &'a self,
        reference: Option<&'a str>,
        manifest: &'a Manifest,
        evidence: Vec<Evidence>,
    ) -> BoxFuture<'a, Result<Judgement>> {
        Box::pin(async move {
            let subject = verification::Subject {
                reference: reference.map(str::to_owned),
                media_type: manifest.descriptor.media_type.clone(),
                digest: manifest.descriptor.digest.to_string(),
                body: manifest.body.clone(),
                extra: Vec::new(),
            };
            let evidence: Vec<verification::Evidence> = evidence
                .into_iter()
                .map(|Evidence { kind, content, annotations }| verification::Evidence {
                    kind,
                    content,
                    annotations,
                })
                .collect();
            let scope = self.scope();
            let said = scope.clone();
            let judged = calling!(self, &self.indices, scope, call_verify, &subject, &evidence, &self.config);
            let judged = judged.map_err(|error: Error| said.safe(error))?;
            Ok(match judged {
                verification::Verdict::Accepted(by) => Judgement::Accepted(text(&said, by)),
                verification::Verdict::Refused(why) => {
                    Judgement::Refused(why.into_iter().take(TEXTS).map(|why| text(&said, why)).collect())
                }
            })
        })
    }
}
