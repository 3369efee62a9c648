//! Credentials from auth.json and config.json, which containers-auth.json(5) and Docker describe.

mod files;

use dray_plugin_auth::{
    self as auth, Credential, Error, Lookup, Provider, Secret, Sending, dray::plugin::helpers, secrets,
};
use files::{Entry, File};
use serde::Deserialize;

struct DockerConfig;

/// The answer of a credential helper to `get` (docker-credential-helpers).
#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
struct Answer {
    #[serde(default)]
    username: String,
    #[serde(default)]
    secret: String,
}

fn ask(helper: &str, server: &str) -> Result<Option<Secret>, Error> {
    let answer = match helpers::call(helper, "get", server) {
        Ok(answer) => answer,
        // The helper is not installed, or it has no credential for that server.
        Err(Error::NotFound(_)) => return Ok(None),
        Err(error) => return Err(error),
    };
    if answer.trim().is_empty() {
        return Ok(None);
    }
    // The error does not show the answer, because it may contain a secret.
    let answer: Answer = serde_json::from_str(&answer)
        .map_err(|_| Error::Invalid(format!("docker-credential-{helper} answered what is no credential")))?;
    if answer.secret.is_empty() {
        return Ok(None);
    }
    Ok(Some(match answer.username.as_str() {
        "<token>" => Secret::IdentityToken(answer.secret),
        _ => Secret::Basic((answer.username, answer.secret)),
    }))
}

/// Its table is empty: which files are read is said on the command line, or by the environment.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Config {}

impl Provider for DockerConfig {
    const NAME: &str = "docker-config";
    const VERSION: &str = env!("CARGO_PKG_VERSION");
    const SUMMARY: &str = "Credentials from auth.json, config.json and credential helpers";
    const SCHEMA: &str = r#"{"type":"object","additionalProperties":false}"#;
    type Config = Config;

    fn lookup(
        Lookup { registry, repository, .. }: &Lookup,
        _config: Config,
    ) -> Result<Option<Credential>, Error> {
        for (path, content) in secrets::auth_files()? {
            let file = File::parse(&content).map_err(|why| Error::Invalid(format!("read {path}: {why}")))?;
            let from = |secret, covers, origin| {
                Ok(Some(Credential {
                    extra: Vec::new(),
                    when: Sending::Challenged,
                    secret,
                    lifetime: None,
                    covers,
                    origin,
                }))
            };
            if let Some(helper) = file.helper(registry)
                && let Some(secret) = ask(helper, files::server(registry))?
            {
                return from(secret, None, format!("docker-credential-{helper} (named in {path})"));
            }
            if let Some(Entry { secret, covers }) = file
                .entry(registry, repository)
                .map_err(|why| Error::Invalid(format!("read {path}: {why}")))?
            {
                return from(secret, covers, path);
            }
            if let Some(helper) = &file.creds_store
                && let Some(secret) = ask(helper, files::server(registry))?
            {
                return from(secret, None, format!("docker-credential-{helper} (named in {path})"));
            }
        }
        Ok(None)
    }
}

auth::export!(DockerConfig);
