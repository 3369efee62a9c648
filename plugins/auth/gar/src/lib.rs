//! Credentials for Google's registries (Artifact Registry, and what stands for gcr.io): keys, or the identity of a machine,
//! are exchanged for an access token, which is the password of the user `oauth2accesstoken`.

use base64::{Engine, engine::general_purpose::URL_SAFE_NO_PAD};
use dray_plugin_auth::{
    self as auth, Asked, Credential, Error, Lookup, Provider, Secret, Sending, Unsigned, host, now, optional,
    remembered, secrets, time,
};
use rsa::{
    RsaPrivateKey,
    pkcs1v15::SigningKey,
    pkcs8::DecodePrivateKey,
    sha2::Sha256,
    signature::{SignatureEncoding, Signer},
};
use serde::Deserialize;
use serde_json::json;

#[derive(Clone, Copy, Deserialize, PartialEq, Eq)]
#[serde(rename_all = "kebab-case")]
enum Identity {
    /// That of the machine.
    Instance,
}

#[derive(Default, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
struct Config {
    key: Option<String>,
    subject_token: Option<String>,
    access_token: Option<String>,
    identity: Option<Identity>,
    registry: Option<String>,
    token_endpoint: Option<String>,
    metadata_endpoint: Option<String>,
}

/// A file of credentials, by its `type` (Google Cloud, "Application Default Credentials").
#[derive(Deserialize)]
#[serde(tag = "type", rename_all = "snake_case")]
enum Key {
    ServiceAccount {
        client_email: String,
        private_key: String,
        private_key_id: String,
        token_uri: String,
    },
    AuthorizedUser {
        client_id: String,
        client_secret: String,
        refresh_token: String,
    },
    ExternalAccount {
        audience: String,
        subject_token_type: String,
        token_url: String,
        service_account_impersonation_url: Option<String>,
    },
}

/// What the token may do. What it may in earnest, the roles of its account decide.
const SCOPE: &str = "https://www.googleapis.com/auth/cloud-platform";
/// For how many seconds a token is asked for.
const HOUR: u64 = 3600;

/// An answer of a token server (RFC 6749, 5.1).
#[derive(Deserialize)]
struct Token {
    access_token: String,
    expires_in: Option<u64>,
}

impl From<Token> for (String, u64) {
    fn from(token: Token) -> Self {
        (token.access_token, token.expires_in.unwrap_or(HOUR))
    }
}

/// Whether a registry is Google's by its name.
fn is_googles(name: &str) -> bool {
    name == "gcr.io" || name.ends_with(".gcr.io") || name.ends_with("-docker.pkg.dev")
}

/// The host and the path of an address.
fn parts(url: &str) -> Result<(&str, String), Error> {
    let rest = url
        .strip_prefix("https://")
        .ok_or_else(|| Error::key("key", "names an address that is not https"))?;
    let (at, path) = rest.split_once('/').unwrap_or((rest, ""));
    Ok((at, format!("/{path}")))
}

/// The assertion of a service account (RFC 7523): a token of its own, signed by its key.
fn assertion(email: &str, key: &str, id: &str, audience: &str, now: u64) -> Result<String, Error> {
    let part = |json: serde_json::Value| URL_SAFE_NO_PAD.encode(json.to_string());
    let seconds = now / 1000;
    let claims =
        json!({ "iss": email, "scope": SCOPE, "aud": audience, "iat": seconds, "exp": seconds + HOUR });
    let text = format!("{}.{}", part(json!({ "alg": "RS256", "typ": "JWT", "kid": id })), part(claims));
    // What is wrong with a key is not told, because it may show parts of it.
    let key = RsaPrivateKey::from_pkcs8_pem(key);
    let key = key.map_err(|_| Error::key("key", "its `private_key` is no RSA key in PKCS #8"))?;
    let signature = SigningKey::<Sha256>::new(key).try_sign(text.as_bytes());
    let signature = signature.map_err(|_| Error::key("key", "its `private_key` is too small"))?;
    Ok(format!("{text}.{}", URL_SAFE_NO_PAD.encode(signature.to_bytes())))
}

fn by_key(config: &Config, name: &str) -> Result<(String, u64), Error> {
    let text = secrets::get(name)?;
    let odd =
        "is no file of credentials that is known here: service_account, authorized_user or external_account";
    let key: Key = serde_json::from_str(&text).map_err(|_| Error::key("key", format!("{name} {odd}")))?;
    let at = |host: &str| config.token_endpoint.clone().unwrap_or_else(|| host.to_owned());
    match key {
        Key::ServiceAccount { client_email, private_key, private_key_id, token_uri } => {
            let assertion = assertion(&client_email, &private_key, &private_key_id, &token_uri, now())?;
            let (server, path) = parts(&token_uri)?;
            let grant = "urn:ietf:params:oauth:grant-type:jwt-bearer";
            let fields = [("grant_type", grant), ("assertion", &assertion)];
            Ok(Asked::post_form(&host(&at(server)), &path, &fields)?.json::<Token>()?.into())
        }
        Key::AuthorizedUser { client_id, client_secret, refresh_token } => {
            let fields = [
                ("grant_type", "refresh_token"),
                ("client_id", &client_id),
                ("client_secret", &client_secret),
                ("refresh_token", &refresh_token),
            ];
            Ok(Asked::post_form(&host(&at("oauth2.googleapis.com")), "/token", &fields)?
                .json::<Token>()?
                .into())
        }
        Key::ExternalAccount {
            audience,
            subject_token_type,
            token_url,
            service_account_impersonation_url,
        } => {
            let subject = config.subject_token.as_deref();
            let subject = subject
                .ok_or_else(|| Error::key("subject-token", "is needed: the key is that of a federation"))?;
            let (server, path) = parts(&token_url)?;
            let subject = secrets::get(subject)?;
            let fields = [
                ("grant_type", "urn:ietf:params:oauth:grant-type:token-exchange"),
                ("audience", &audience),
                ("scope", SCOPE),
                ("requested_token_type", "urn:ietf:params:oauth:token-type:access_token"),
                ("subject_token", subject.trim()),
                ("subject_token_type", &subject_token_type),
            ];
            let token: Token = Asked::post_form(&host(&at(server)), &path, &fields)?.json()?;
            let Some(url) = service_account_impersonation_url else { return Ok(token.into()) };
            impersonated(config, &token, &url)
        }
    }
}

/// An access token of the service account for which a federated identity may speak (`generateAccessToken`).
fn impersonated(config: &Config, token: &Token, url: &str) -> Result<(String, u64), Error> {
    #[derive(Deserialize)]
    #[serde(rename_all = "camelCase")]
    struct Generated {
        access_token: String,
        expire_time: String,
    }
    let (server, path) = parts(url)?;
    let server = config.token_endpoint.clone().unwrap_or_else(|| server.to_owned());
    let headers = vec![
        ("authorization".to_owned(), format!("Bearer {}", token.access_token)),
        ("content-type".to_owned(), "application/json".to_owned()),
    ];
    let body = json!({ "scope": [SCOPE], "lifetime": format!("{HOUR}s") }).to_string();
    let generated: Generated =
        Asked::send("POST", &host(&server), &path, headers, body.as_bytes())?.json()?;
    let end = time(&generated.expire_time);
    Ok((generated.access_token, end.map_or(HOUR, |end| end.saturating_sub(now()) / 1000)))
}

/// An access token, and where it comes from.
fn token(config: &Config) -> Result<Option<(String, String)>, Error> {
    if let Some(name) = &config.key {
        return Ok(Some((remembered(name, || by_key(config, name))?, name.clone())));
    }
    if config.identity == Some(Identity::Instance) {
        let at = config.metadata_endpoint.as_deref().map_or("metadata.google.internal".into(), host);
        let path = "/computeMetadata/v1/instance/service-accounts/default/token";
        let fetch = || Ok(Asked::get(&at, path, &[("metadata-flavor", "Google")])?.json::<Token>()?.into());
        return Ok(Some((remembered("instance", fetch)?, "the service account of the machine".into())));
    }
    if let Some(name) = &config.access_token {
        return Ok(Some((secrets::get(name)?, name.clone())));
    }
    let usual = "env:CLOUDSDK_AUTH_ACCESS_TOKEN";
    Ok(optional(usual).map(|token| (token, usual.to_owned())))
}

struct Gar;

impl Provider for Gar {
    const NAME: &str = "gar";
    const VERSION: &str = env!("CARGO_PKG_VERSION");
    const SUMMARY: &str =
        "Google's registries, by a key, a federated identity or the service account of the machine";
    const SCHEMA: &str = include_str!("schema.json");
    type Config = Config;

    fn lookup(Lookup { registry, .. }: &Lookup, config: Config) -> Result<Option<Credential>, Error> {
        if !is_googles(registry) && config.registry.as_deref() != Some(registry) {
            return Ok(None);
        }
        let Some((token, origin)) = token(&config)? else { return Ok(None) };
        Ok(Some(Credential {
            extra: Vec::new(),
            when: Sending::Challenged,
            secret: Secret::Basic(("oauth2accesstoken".into(), token)),
            // The token may have been got some time ago. Asking again costs nothing while it is remembered.
            lifetime: Some(60),
            covers: None,
            origin,
        }))
    }

    fn sign(
        registry: &str,
        request: &Unsigned,
        config: Config,
    ) -> Result<Option<Vec<(String, String)>>, Error> {
        let Some((at, ..)) = auth::target(request) else { return Ok(None) };
        let own = config.registry.as_deref() == Some(registry) && at == registry;
        let apis = ["artifactregistry.googleapis.com", "containeranalysis.googleapis.com"];
        let googles = is_googles(registry) && apis.contains(&at);
        if !own && !googles {
            return Ok(None);
        }
        let token = token(&config)?;
        Ok(token.map(|(token, _)| vec![("authorization".to_owned(), format!("Bearer {token}"))]))
    }
}

auth::export!(Gar);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn registries_are_known_by_their_names() {
        for (name, known) in [
            ("gcr.io", true),
            ("eu.gcr.io", true),
            ("europe-west1-docker.pkg.dev", true),
            ("evilgcr.io", false),
            ("docker.pkg.dev.evil.example", false),
        ] {
            assert_eq!(is_googles(name), known, "{name}");
        }
    }

    #[test]
    fn files_of_credentials_are_known_by_their_type() {
        let kind = |text: &str| match serde_json::from_str(text) {
            Ok(Key::ServiceAccount { .. }) => "account",
            Ok(Key::AuthorizedUser { .. }) => "user",
            Ok(Key::ExternalAccount { .. }) => "external",
            Err(_) => "none",
        };
        let user = r#"{"type":"authorized_user","client_id":"a","client_secret":"b","refresh_token":"c","quota_project_id":"d"}"#;
        assert_eq!(kind(user), "user");
        let external = r#"{"type":"external_account","audience":"a","subject_token_type":"b","token_url":"https://sts.googleapis.com/v1/token","credential_source":{"file":"/x"}}"#;
        assert_eq!(kind(external), "external");
        assert_eq!(kind(r#"{"type":"impersonated_service_account"}"#), "none");
        assert_eq!(
            parts("https://oauth2.googleapis.com/token").unwrap(),
            ("oauth2.googleapis.com", "/token".into())
        );
        assert!(parts("http://oauth2.googleapis.com/token").is_err());
    }
}
