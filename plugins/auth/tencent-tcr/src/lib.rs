//! Credentials for Tencent's registries of the enterprise edition (Tencent Container Registry, API of 2019-09-24): keys of an
//! account are exchanged for a password that holds for an hour (`CreateInstanceToken`).

use dray_plugin_auth::{
    self as auth, Asked, Credential, Error, Keys, KeysAt, Lookup, Provider, Secret, Sending, Unsigned, host,
    kept, now, remembered, rfc3339,
};
use dray_plugin_sign::{Request, Scheme, sha256};
use serde::Deserialize;
use serde_json::{Value, json};

#[derive(Default, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
struct Config {
    secret_id: Option<String>,
    secret_key: Option<String>,
    session_token: Option<String>,
    instance_id: Option<String>,
    region: Option<String>,
    registry: Option<String>,
    endpoint: Option<String>,
}

const VERSION: &str = "2019-09-24";
/// The region that is asked where an instance is; any would do.
const ANY_REGION: &str = "ap-guangzhou";

/// The name of an instance: `NAME[-vpc].tencentcloudcr.com`.
fn instance(name: &str) -> Option<&str> {
    let instance = name.strip_suffix(".tencentcloudcr.com")?;
    let instance = instance.strip_suffix("-vpc").unwrap_or(instance);
    (!instance.contains('.')).then_some(instance)
}

fn is_tencents(name: &str, config: &Config) -> bool {
    instance(name).is_some() || config.registry.as_deref() == Some(name)
}

fn api(config: &Config) -> String {
    config.endpoint.as_deref().map_or("tcr.tencentcloudapi.com".into(), host)
}

fn keys(config: &Config) -> Result<Keys, Error> {
    let at = KeysAt {
        id: ("secret-id", config.secret_id.as_deref()),
        secret: ("secret-key", config.secret_key.as_deref()),
        token: config.session_token.as_deref(),
        usual: [
            "env:TENCENTCLOUD_SECRET_ID",
            "env:TENCENTCLOUD_SECRET_KEY",
            "env:TENCENTCLOUD_SESSION_TOKEN",
        ],
    };
    at.read()
}

/// Signs a `POST` to the API (TC3-HMAC-SHA256, "Signature v3"). Returns the headers that are to be added.
fn signed(keys: &Keys, host: &str, content_type: &str, body: &str, now: u64) -> Vec<(String, String)> {
    let (seconds, date) = ((now / 1000).to_string(), rfc3339(now)[..10].to_owned());
    let headers = [("content-type", content_type.to_owned()), ("host", host.to_owned())];
    let scope = [date.as_str(), "tcr", "tc3_request"];
    let scheme = Scheme { algorithm: "TC3-HMAC-SHA256", time: Some(&seconds), prefix: "TC3", scope: &scope };
    let request = Request { method: "POST", path: "/", query: "", headers: &headers, body };
    let signature = scheme.sign(&keys.secret, &request);
    let authorization = format!(
        "TC3-HMAC-SHA256 Credential={}/{}, SignedHeaders={}, Signature={}",
        keys.id, signature.scope, signature.headers, signature.signature
    );
    let mut added = vec![("x-tc-timestamp".to_owned(), seconds), ("authorization".to_owned(), authorization)];
    added.extend(keys.token.clone().map(|token| ("x-tc-token".to_owned(), token)));
    added
}

/// Calls an action of the API.
fn call(keys: &Keys, host: &str, region: &str, action: &str, body: &Value) -> Result<Asked, Error> {
    const JSON: &str = "application/json";
    let body = body.to_string();
    let mut headers: Vec<(String, String)> =
        [("content-type", JSON), ("x-tc-action", action), ("x-tc-version", VERSION), ("x-tc-region", region)]
            .map(|(name, value)| (name.to_owned(), value.to_owned()))
            .to_vec();
    headers.extend(signed(keys, host, JSON, &sha256(body.as_bytes()), now()));
    Asked::send("POST", host, "/", headers, body.as_bytes())
}

#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
struct Answer<T> {
    response: T,
}

#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
struct Instances {
    registries: Vec<Instance>,
}

#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
struct Instance {
    registry_id: String,
    region_name: String,
    public_domain: Option<String>,
}

#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
struct Token {
    username: String,
    token: String,
    /// Milliseconds since 1970.
    exp_time: Option<u64>,
}

/// The ID and the region of the instance behind a registry.
fn found(name: &str, config: &Config, keys: &Keys, api: &str) -> Result<(String, String), Error> {
    if let (Some(id), Some(region)) = (&config.instance_id, &config.region) {
        return Ok((id.clone(), region.clone()));
    }
    let wanted = instance(name).ok_or_else(|| Error::key("instance-id", "is needed, with region"))?;
    let text = remembered(&format!("instance {name}"), || {
        // `-vpc` is the end of a name, or says that it is the internal name of another instance.
        let public = format!("{wanted}.tencentcloudcr.com");
        let own = name.split('.').next().unwrap_or(wanted);
        let filter = json!([{ "Name": "RegistryName", "Values": [own, wanted] }]);
        let body = json!({ "AllRegion": true, "Filters": filter, "Offset": 0, "Limit": 100 });
        let asked = call(keys, api, ANY_REGION, "DescribeInstances", &body)?;
        let mut all = asked.json::<Answer<Instances>>()?.response.registries.into_iter();
        let is_it = |instance: &Instance| {
            instance.public_domain.as_deref().is_some_and(|domain| domain == name || domain == public)
        };
        match (all.find(is_it), all.find(is_it)) {
            (Some(one), None) => Ok((format!("{} {}", one.registry_id, one.region_name), 86_400)),
            (Some(_), Some(_)) => Err(Error::key(
                "instance-id",
                format!("is needed, with region: two registries may be {name}"),
            )),
            (None, _) => Err(Error::NotFound(format!("the account has no registry {name}"))),
        }
    })?;
    let (id, region) = text.split_once(' ').unwrap_or((&text, ANY_REGION));
    Ok((id.to_owned(), region.to_owned()))
}

struct TencentTcr;

impl Provider for TencentTcr {
    const NAME: &str = "tencent-tcr";
    const VERSION: &str = env!("CARGO_PKG_VERSION");
    const SUMMARY: &str = "Tencent's registries (enterprise edition), by the keys of an account";
    const SCHEMA: &str = include_str!("schema.json");
    type Config = Config;

    fn lookup(Lookup { registry: name, .. }: &Lookup, config: Config) -> Result<Option<Credential>, Error> {
        if !is_tencents(name, &config) {
            return Ok(None);
        }
        let (keys, api) = (keys(&config)?, api(&config));
        let (id, region) = found(name, &config, &keys, &api)?;
        let body = json!({ "RegistryId": id, "TokenType": "temp", "Desc": "dray" });
        let asked = call(&keys, &api, &region, "CreateInstanceToken", &body)?;
        let token = asked.json::<Answer<Token>>()?.response;
        let left = token.exp_time.map_or(3600, |end| end.saturating_sub(now()) / 1000);
        Ok(Some(Credential {
            extra: Vec::new(),
            when: Sending::Challenged,
            secret: Secret::Basic((token.username, token.token)),
            lifetime: Some(kept(left)),
            covers: None,
            origin: format!("{}, exchanged at {api}", keys.origin),
        }))
    }

    fn sign(name: &str, request: &Unsigned, config: Config) -> Result<Option<Vec<(String, String)>>, Error> {
        let api = api(&config);
        let is_api = auth::target(request).is_some_and(|(at, ..)| at == api);
        if !is_tencents(name, &config) || !is_api || request.method != "POST" {
            return Ok(None);
        }
        let body = auth::hash(request)?;
        let content_type = request.headers.iter().find(|(name, _)| name == "content-type");
        let content_type = content_type.map_or("application/json", |(_, value)| value.as_str());
        Ok(Some(signed(&keys(&config)?, &api, content_type, body, now())))
    }
}

auth::export!(TencentTcr);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn registries_are_known_by_their_names() {
        assert_eq!(instance("team.tencentcloudcr.com"), Some("team"));
        assert_eq!(instance("team-vpc.tencentcloudcr.com"), Some("team"));
        assert_eq!(instance("a.b.tencentcloudcr.com"), None);
        assert_eq!(instance("team.tencentcloudcr.com.evil.example"), None);
    }
}
