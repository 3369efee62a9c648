//! Credentials for GitLab's registries: in a job, those that GitLab gives to it; elsewhere a deploy token, or an access token.

use dray_plugin_auth::{
    self as auth, Credential, Error, KeysAt, Lookup, Provider, Secret, Sending, optional,
};
use serde::Deserialize;

#[derive(Default, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
struct Config {
    username: Option<String>,
    password: Option<String>,
    registry: Option<String>,
}

/// The variables of a job (GitLab, "Predefined CI/CD variables"): whose registry, who, and by what.
const REGISTRY: &str = "env:CI_REGISTRY";
const USER: &str = "env:CI_REGISTRY_USER";
const PASSWORD: &str = "env:CI_REGISTRY_PASSWORD";
const DEPLOY: [&str; 2] = ["env:CI_DEPLOY_USER", "env:CI_DEPLOY_PASSWORD"];

struct GitLab;

impl Provider for GitLab {
    const NAME: &str = "gitlab";
    const VERSION: &str = env!("CARGO_PKG_VERSION");
    const SUMMARY: &str = "GitLab's registries, by the token of a job, a deploy token or an access token";
    const SCHEMA: &str = include_str!("schema.json");
    type Config = Config;

    fn lookup(Lookup { registry, .. }: &Lookup, config: Config) -> Result<Option<Credential>, Error> {
        // The credentials of a job are for the registry of its GitLab alone.
        let own = optional(REGISTRY);
        let mine = [Some("registry.gitlab.com"), config.registry.as_deref(), own.as_deref()];
        if !mine.contains(&Some(registry)) {
            return Ok(None);
        }
        let is_jobs = own.as_deref() == Some(registry);
        if config.password.is_none() && config.username.is_none() && !is_jobs {
            let text =
                format!("is needed: {registry} is not the registry of a job that runs here (CI_REGISTRY)");
            return Err(Error::key("username", text));
        }
        // A deploy token holds longer than the token of a job, and where a project has one it is meant for this.
        let deploys = DEPLOY.iter().all(|name| optional(name).is_some());
        let [user, password] = if deploys { DEPLOY } else { [USER, PASSWORD] };
        let at = KeysAt {
            id: ("username", config.username.as_deref()),
            secret: ("password", config.password.as_deref()),
            token: None,
            usual: [user, password, ""],
        };
        let keys = at.read()?;
        let origin = if config.password.is_some() { keys.origin } else { password.to_owned() };
        let secret = Secret::Basic((keys.id, keys.secret));
        Ok(Some(Credential {
            extra: Vec::new(),
            when: Sending::Challenged,
            secret,
            lifetime: None,
            covers: None,
            origin,
        }))
    }
}

auth::export!(GitLab);
