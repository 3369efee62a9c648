//! Credentials for Alibaba's registries of the enterprise edition (Container Registry, API of 2018-12-01): keys of an account
//! are exchanged for a password that holds for an hour (`GetAuthorizationToken`).

use dray_plugin_auth::{
    self as auth, Asked, Credential, Error, Keys, KeysAt, Lookup, Provider, Secret, Sending, Unsigned,
    encoded, host, kept, now, rfc3339,
};
use dray_plugin_sign::{EMPTY, Request, Scheme, sha256};
use serde::Deserialize;

#[derive(Default, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
struct Config {
    access_key_id: Option<String>,
    access_key_secret: Option<String>,
    security_token: Option<String>,
    instance_id: Option<String>,
    registry: Option<String>,
    region: Option<String>,
    endpoint: Option<String>,
}

/// The region of a registry, and the host of its API.
struct Service {
    region: String,
    host: String,
}

/// The region of a registry of the enterprise edition: `NAME-registry[-vpc].REGION.cr.aliyuncs.com`.
fn region(name: &str) -> Option<&str> {
    let (instance, region) = name.strip_suffix(".cr.aliyuncs.com")?.split_once('.')?;
    let is_registry = instance.ends_with("-registry") || instance.ends_with("-registry-vpc");
    (is_registry && !region.contains('.')).then_some(region)
}

fn service(name: &str, config: &Config) -> Option<Service> {
    let own = config.registry.as_deref() == Some(name);
    let region = region(name).or_else(|| config.region.as_deref().filter(|_| own))?.to_owned();
    let host = config.endpoint.as_deref().map_or_else(|| format!("cr.{region}.aliyuncs.com"), host);
    Some(Service { region, host })
}

fn keys(config: &Config) -> Result<Keys, Error> {
    let at = KeysAt {
        id: ("access-key-id", config.access_key_id.as_deref()),
        secret: ("access-key-secret", config.access_key_secret.as_deref()),
        token: config.security_token.as_deref(),
        usual: [
            "env:ALIBABA_CLOUD_ACCESS_KEY_ID",
            "env:ALIBABA_CLOUD_ACCESS_KEY_SECRET",
            "env:ALIBABA_CLOUD_SECURITY_TOKEN",
        ],
    };
    at.read()
}

/// Signs a request (ACS3-HMAC-SHA256, "V3 request structure and signature"). Returns the headers that are to be added.
fn signed(
    keys: &Keys,
    host: &str,
    (method, path, query): (&str, &str, &str),
    own: &[(String, String)],
    body: &str,
    now: u64,
) -> Vec<(String, String)> {
    // The same request is not sent twice in a millisecond, so this is used once, as a nonce must be.
    let nonce = sha256(format!("{now} {query} {body} {}", keys.secret).as_bytes());
    let mut added = vec![
        ("x-acs-content-sha256", body.to_owned()),
        ("x-acs-date", rfc3339(now)),
        ("x-acs-signature-nonce", nonce[..32].to_owned()),
    ];
    added.extend(keys.token.clone().map(|token| ("x-acs-security-token", token)));
    let is_signed = |name: &str| name == "content-type" || name.starts_with("x-acs-");
    let own = own.iter().filter(|(name, _)| is_signed(name));
    let mut headers: Vec<(&str, String)> = own
        .map(|(name, value)| (name.as_str(), value.clone()))
        .chain(added.iter().cloned())
        .chain([("host", host.to_owned())])
        .collect();
    headers.sort();
    let scheme = Scheme { algorithm: "ACS3-HMAC-SHA256", time: None, prefix: "", scope: &[] };
    let signature = scheme.sign(&keys.secret, &Request { method, path, query, headers: &headers, body });
    let authorization = format!(
        "ACS3-HMAC-SHA256 Credential={},SignedHeaders={},Signature={}",
        keys.id, signature.headers, signature.signature
    );
    let added = added.into_iter().map(|(name, value)| (name.to_owned(), value));
    added.chain([("authorization".to_owned(), authorization)]).collect()
}

/// The answer of `GetAuthorizationToken`.
#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
struct Answer {
    temp_username: String,
    authorization_token: String,
    /// Milliseconds since 1970.
    expire_time: Option<u64>,
}

struct AliAcr;

impl Provider for AliAcr {
    const NAME: &str = "ali-acr";
    const VERSION: &str = env!("CARGO_PKG_VERSION");
    const SUMMARY: &str = "Alibaba's registries (enterprise edition), by the keys of an account";
    const SCHEMA: &str = include_str!("schema.json");
    type Config = Config;

    fn lookup(Lookup { registry: name, .. }: &Lookup, config: Config) -> Result<Option<Credential>, Error> {
        let Some(service) = service(name, &config) else { return Ok(None) };
        let instance = config.instance_id.as_deref();
        let instance = instance
            .ok_or_else(|| Error::key("instance-id", "is needed: it begins with cri-, in the console"))?;
        let (keys, now) = (keys(&config)?, now());
        let query = format!("InstanceId={}&RegionId={}", encoded(instance), encoded(&service.region));
        let mut headers = vec![
            ("x-acs-action".to_owned(), "GetAuthorizationToken".to_owned()),
            ("x-acs-version".to_owned(), "2018-12-01".to_owned()),
        ];
        headers.extend(signed(&keys, &service.host, ("POST", "/", &query), &headers, EMPTY, now));
        let answer: Answer =
            Asked::send("POST", &service.host, &format!("/?{query}"), headers, &[])?.json()?;
        let left = answer.expire_time.map_or(3600, |end| end.saturating_sub(now) / 1000);
        Ok(Some(Credential {
            extra: Vec::new(),
            when: Sending::Challenged,
            secret: Secret::Basic((answer.temp_username, answer.authorization_token)),
            lifetime: Some(kept(left)),
            covers: None,
            origin: format!("{}, exchanged at {}", keys.origin, service.host),
        }))
    }

    fn sign(name: &str, request: &Unsigned, config: Config) -> Result<Option<Vec<(String, String)>>, Error> {
        let Some(service) = service(name, &config) else { return Ok(None) };
        let Some((at, path, query)) = auth::target(request) else { return Ok(None) };
        if at != service.host {
            return Ok(None);
        }
        let body = auth::hash(request)?;
        let target = (request.method.as_str(), path.as_str(), query);
        Ok(Some(signed(&keys(&config)?, at, target, &request.headers, body, now())))
    }
}

auth::export!(AliAcr);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn registries_are_known_by_their_names() {
        for (name, expected) in [
            ("team-registry.cn-hangzhou.cr.aliyuncs.com", Some("cn-hangzhou")),
            ("team-registry-vpc.cn-hangzhou.cr.aliyuncs.com", Some("cn-hangzhou")),
            ("registry.cn-hangzhou.aliyuncs.com", None),
            ("team-registry.cn-hangzhou.cr.aliyuncs.com.evil.example", None),
        ] {
            assert_eq!(region(name), expected, "{name}");
        }
    }
}
