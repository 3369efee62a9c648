//! Credentials for Azure's registries: an access token of the directory is exchanged for a refresh token of the registry
//! (Azure/acr, `docs/AAD-OAuth.md`, `POST /oauth2/exchange`), which is an identity token.

use dray_plugin_auth::{
    self as auth, Asked, Credential, Error, Lookup, Provider, Secret, Sending, encoded, host, optional,
    remembered, secrets, value,
};
use serde::{Deserialize, Deserializer};

#[derive(Clone, Copy, Deserialize, PartialEq, Eq)]
#[serde(rename_all = "kebab-case")]
enum Identity {
    /// That of the machine.
    Instance,
}

#[derive(Default, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
struct Config {
    tenant: Option<String>,
    client_id: Option<String>,
    client_secret: Option<String>,
    federated_token: Option<String>,
    identity: Option<Identity>,
    resource: Option<String>,
    registry: Option<String>,
    authority: Option<String>,
    metadata_endpoint: Option<String>,
}

/// For how many seconds a refresh token is kept: it holds for three hours.
const REFRESH: u64 = 3 * 3600;

/// Whether a registry is Azure's by its name.
fn is_azures(name: &str) -> bool {
    [".azurecr.io", ".azurecr.cn", ".azurecr.us"].iter().any(|end| name.ends_with(end))
}

/// An answer of the directory, or of the machine, which writes numbers as texts.
#[derive(Deserialize)]
struct Token {
    access_token: String,
    #[serde(default, deserialize_with = "seconds")]
    expires_in: Option<u64>,
}

fn seconds<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Option<u64>, D::Error> {
    #[derive(Deserialize)]
    #[serde(untagged)]
    enum Number {
        Number(u64),
        Text(String),
    }
    Ok(match Number::deserialize(deserializer)? {
        Number::Number(number) => Some(number),
        Number::Text(text) => text.parse().ok(),
    })
}

impl From<Token> for (String, u64) {
    fn from(token: Token) -> Self {
        (token.access_token, token.expires_in.unwrap_or(3600))
    }
}

/// A value of the table, or of the environment.
fn setting(key: &str, text: Option<&str>, usual: &str) -> Result<String, Error> {
    match text {
        Some(text) => value(text),
        None => optional(usual).ok_or_else(|| {
            let name = usual.trim_start_matches("env:");
            Error::key(key, format!("is needed, here or in the environment as {name}"))
        }),
    }
}

/// Where the other provider's token lies in a pod with a workload identity.
const POD: &str = "file:/var/run/secrets/azure/tokens/azure-identity-token";

/// An access token of the directory, its tenant, and where it comes from.
fn of_directory(config: &Config) -> Result<(String, Option<String>, String), Error> {
    let resource = config.resource.as_deref().unwrap_or("https://containerregistry.azure.net");
    if config.identity == Some(Identity::Instance) {
        let at = config.metadata_endpoint.as_deref().map_or("169.254.169.254".into(), host);
        let mut path =
            format!("/metadata/identity/oauth2/token?api-version=2018-02-01&resource={}", encoded(resource));
        if let Some(id) = &config.client_id {
            path += &format!("&client_id={}", encoded(&value(id)?));
        }
        let fetch = || Ok(Asked::get(&at, &path, &[("metadata", "true")])?.json::<Token>()?.into());
        return Ok((remembered("instance", fetch)?, None, "the managed identity of the machine".into()));
    }
    let tenant = setting("tenant", config.tenant.as_deref(), "env:AZURE_TENANT_ID")?;
    let client = setting("client-id", config.client_id.as_deref(), "env:AZURE_CLIENT_ID")?;
    let scope = format!("{}/.default", resource.trim_end_matches('/'));
    let mut fields =
        vec![("grant_type", "client_credentials"), ("client_id", client.as_str()), ("scope", scope.as_str())];
    let federated = match (&config.federated_token, &config.client_secret) {
        (Some(name), _) => Some((secrets::get(name)?, name.clone())),
        (None, Some(_)) => None,
        (None, None) => optional(POD).map(|token| (token, POD.to_owned())),
    };
    let (secret, origin) = match federated {
        Some((token, origin)) => {
            fields.push(("client_assertion_type", "urn:ietf:params:oauth:client-assertion-type:jwt-bearer"));
            (("client_assertion", token.trim().to_owned()), origin)
        }
        None => {
            let name = config.client_secret.as_deref().unwrap_or("env:AZURE_CLIENT_SECRET");
            (("client_secret", secrets::get(name)?.trim().to_owned()), name.to_owned())
        }
    };
    fields.push((secret.0, secret.1.as_str()));
    let authority = host(config.authority.as_deref().unwrap_or("login.microsoftonline.com"));
    let path = format!("/{}/oauth2/v2.0/token", encoded(&tenant));
    let fetch = || Ok(Asked::post_form(&authority, &path, &fields)?.json::<Token>()?.into());
    let token = remembered(&format!("directory {tenant} {client}"), fetch)?;
    Ok((token, Some(tenant), origin))
}

struct Acr;

impl Provider for Acr {
    const NAME: &str = "acr";
    const VERSION: &str = env!("CARGO_PKG_VERSION");
    const SUMMARY: &str = "Azure's registries, by a service principal, a federated identity or a managed one";
    const SCHEMA: &str = include_str!("schema.json");
    type Config = Config;

    fn lookup(Lookup { registry, .. }: &Lookup, config: Config) -> Result<Option<Credential>, Error> {
        #[derive(Deserialize)]
        struct Exchanged {
            refresh_token: String,
        }
        if !is_azures(registry) && config.registry.as_deref() != Some(registry) {
            return Ok(None);
        }
        let (token, tenant, origin) = of_directory(&config)?;
        let mut fields = vec![("grant_type", "access_token"), ("service", registry)];
        fields.extend(tenant.as_deref().map(|tenant| ("tenant", tenant)));
        fields.push(("access_token", &token));
        let exchanged: Exchanged = Asked::post_form(&host(registry), "/oauth2/exchange", &fields)?.json()?;
        Ok(Some(Credential {
            extra: Vec::new(),
            when: Sending::Challenged,
            secret: Secret::IdentityToken(exchanged.refresh_token),
            lifetime: Some(auth::kept(REFRESH)),
            covers: None,
            origin: format!("{origin}, exchanged at {registry}"),
        }))
    }
}

auth::export!(Acr);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn registries_and_answers_are_azures() {
        assert!(is_azures("team.azurecr.io") && !is_azures("azurecr.io.evil.example"));
        let left = |text: &str| serde_json::from_str::<Token>(text).unwrap().expires_in;
        assert_eq!(left(r#"{"access_token":"a","expires_in":"86399"}"#), Some(86_399));
        assert_eq!(left(r#"{"access_token":"a","expires_in":3599,"token_type":"Bearer"}"#), Some(3_599));
        assert_eq!(left(r#"{"access_token":"a"}"#), None);
    }
}
