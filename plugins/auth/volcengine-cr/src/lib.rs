//! Credentials for Volcengine's registries (Container Registry, API of 2022-05-12): keys of an account are exchanged for a
//! password that holds for an hour (`GetAuthorizationToken`).

use dray_plugin_auth::{
    self as auth, Asked, Credential, Error, Keys, KeysAt, Lookup, Provider, Secret, Sending, Unsigned, host,
    kept, now, stamp, time,
};
use dray_plugin_sign::{Request, Scheme, sha256};
use serde::Deserialize;
use serde_json::json;

#[derive(Default, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
struct Config {
    access_key_id: Option<String>,
    secret_access_key: Option<String>,
    session_token: Option<String>,
    instance: Option<String>,
    region: Option<String>,
    registry: Option<String>,
    endpoint: Option<String>,
}

/// The instance of a registry, its region, and the host of its API.
#[derive(Debug, PartialEq)]
struct Service {
    instance: String,
    region: String,
    host: String,
}

/// The instance and the region in a name: `INSTANCE-REGION.cr.volces.com`, where regions begin with `cn-`.
fn parts(name: &str) -> Option<(&str, &str)> {
    let name = name.strip_suffix(".cr.volces.com").or_else(|| name.strip_suffix(".cr.ivolces.com"))?;
    let at = name.rfind("-cn-")?;
    let (instance, region) = (&name[..at], &name[at + 1..]);
    (!name.contains('.') && !instance.is_empty()).then_some((instance, region))
}

fn service(name: &str, config: &Config) -> Result<Option<Service>, Error> {
    let (instance, region) = match parts(name) {
        Some((instance, region)) => (instance.to_owned(), region.to_owned()),
        None if config.registry.as_deref() == Some(name) => match (&config.instance, &config.region) {
            (Some(instance), Some(region)) => (instance.clone(), region.clone()),
            _ => return Err(Error::key("registry", "needs `instance` and `region`")),
        },
        None => return Ok(None),
    };
    let host = config.endpoint.as_deref().map_or_else(|| format!("cr.{region}.volcengineapi.com"), host);
    Ok(Some(Service { instance, region, host }))
}

fn keys(config: &Config) -> Result<Keys, Error> {
    let at = KeysAt {
        id: ("access-key-id", config.access_key_id.as_deref()),
        secret: ("secret-access-key", config.secret_access_key.as_deref()),
        token: config.session_token.as_deref(),
        usual: ["env:VOLC_ACCESSKEY", "env:VOLC_SECRETKEY", "env:VOLC_SESSION_TOKEN"],
    };
    at.read()
}

/// Signs a request (HMAC-SHA256, "Signature method"). Returns the headers that are to be added.
fn signed(
    keys: &Keys,
    service: &Service,
    (method, path, query): (&str, &str, &str),
    body: &str,
    now: u64,
) -> Vec<(String, String)> {
    let time = stamp(now);
    let headers = [("host", service.host.clone()), ("x-date", time.clone())];
    let scope = [&time[..8], service.region.as_str(), "cr", "request"];
    let scheme = Scheme { algorithm: "HMAC-SHA256", time: Some(&time), prefix: "", scope: &scope };
    let signature = scheme.sign(&keys.secret, &Request { method, path, query, headers: &headers, body });
    let authorization = format!(
        "HMAC-SHA256 Credential={}/{}, SignedHeaders={}, Signature={}",
        keys.id, signature.scope, signature.headers, signature.signature
    );
    let mut added = vec![("x-date".to_owned(), time), ("authorization".to_owned(), authorization)];
    added.extend(keys.token.clone().map(|token| ("x-security-token".to_owned(), token)));
    added
}

#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
struct Answer {
    result: Token,
}

#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
struct Token {
    username: String,
    token: String,
    /// A time of RFC 3339.
    expire_time: Option<String>,
}

struct VolcengineCr;

impl Provider for VolcengineCr {
    const NAME: &str = "volcengine-cr";
    const VERSION: &str = env!("CARGO_PKG_VERSION");
    const SUMMARY: &str = "Volcengine's registries, by the keys of an account";
    const SCHEMA: &str = include_str!("schema.json");
    type Config = Config;

    fn lookup(Lookup { registry: name, .. }: &Lookup, config: Config) -> Result<Option<Credential>, Error> {
        let Some(service) = service(name, &config)? else { return Ok(None) };
        let (keys, now) = (keys(&config)?, now());
        let body = json!({ "Registry": service.instance }).to_string();
        let query = "Action=GetAuthorizationToken&Version=2022-05-12";
        let mut headers = vec![("content-type".to_owned(), "application/json; charset=utf-8".to_owned())];
        headers.extend(signed(&keys, &service, ("POST", "/", query), &sha256(body.as_bytes()), now));
        let asked = Asked::send("POST", &service.host, &format!("/?{query}"), headers, body.as_bytes())?;
        let token = asked.json::<Answer>()?.result;
        let end = token.expire_time.as_deref().and_then(time);
        let left = end.map_or(3600, |end| end.saturating_sub(now) / 1000);
        Ok(Some(Credential {
            extra: Vec::new(),
            when: Sending::Challenged,
            secret: Secret::Basic((token.username, token.token)),
            lifetime: Some(kept(left)),
            covers: None,
            origin: format!("{}, exchanged at {}", keys.origin, service.host),
        }))
    }

    fn sign(name: &str, request: &Unsigned, config: Config) -> Result<Option<Vec<(String, String)>>, Error> {
        let Some(service) = service(name, &config)? else { return Ok(None) };
        let Some((at, path, query)) = auth::target(request) else { return Ok(None) };
        if at != service.host {
            return Ok(None);
        }
        let body = auth::hash(request)?;
        let target = (request.method.as_str(), path.as_str(), query);
        Ok(Some(signed(&keys(&config)?, &service, target, body, now())))
    }
}

auth::export!(VolcengineCr);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn registries_are_known_by_their_names() {
        for (name, expected) in [
            ("team-cn-beijing.cr.volces.com", Some(("team", "cn-beijing"))),
            ("my-cn-team-cn-shanghai.cr.ivolces.com", Some(("my-cn-team", "cn-shanghai"))),
            ("team.cr.volces.com", None),
            ("team-cn-beijing.cr.volces.com.evil.example", None),
        ] {
            assert_eq!(parts(name), expected, "{name}");
        }
    }
}
