//! Credentials for Huawei's registries (Software Repository for Container): the password is computed from keys of an account
//! (user manual, "Obtaining a long-term docker login command"), so nobody is asked for it.

use dray_plugin_auth::{
    self as auth, Credential, Error, Keys, KeysAt, Lookup, Provider, Secret, Sending, Unsigned, host, now,
    stamp,
};
use dray_plugin_sign::{Request, Scheme, mac};
use serde::Deserialize;

#[derive(Default, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
struct Config {
    access_key_id: Option<String>,
    secret_access_key: Option<String>,
    project: Option<String>,
    registry: Option<String>,
    endpoint: Option<String>,
}

/// The region of a registry: `swr.REGION.myhuaweicloud.com`.
fn region(name: &str) -> Option<&str> {
    let rest = name.strip_prefix("swr.")?;
    let region =
        rest.strip_suffix(".myhuaweicloud.com").or_else(|| rest.strip_suffix(".myhuaweicloud.eu"))?;
    (!region.contains('.')).then_some(region)
}

fn is_huaweis(name: &str, config: &Config) -> bool {
    region(name).is_some() || config.registry.as_deref() == Some(name)
}

fn keys(config: &Config) -> Result<Keys, Error> {
    let at = KeysAt {
        id: ("access-key-id", config.access_key_id.as_deref()),
        secret: ("secret-access-key", config.secret_access_key.as_deref()),
        token: None,
        usual: ["env:HUAWEICLOUD_SDK_AK", "env:HUAWEICLOUD_SDK_SK", ""],
    };
    at.read()
}

/// The password of a key: the key's ID, authenticated by the key.
fn password(id: &str, secret: &str) -> String {
    hex::encode(mac(secret.as_bytes(), id.as_bytes()))
}

struct HuaweiSwr;

impl Provider for HuaweiSwr {
    const NAME: &str = "huawei-swr";
    const VERSION: &str = env!("CARGO_PKG_VERSION");
    const SUMMARY: &str = "Huawei's registries, by the keys of an account";
    const SCHEMA: &str = include_str!("schema.json");
    type Config = Config;

    fn lookup(Lookup { registry: name, .. }: &Lookup, config: Config) -> Result<Option<Credential>, Error> {
        if !is_huaweis(name, &config) {
            return Ok(None);
        }
        let project = config.project.as_deref().or_else(|| region(name));
        let project =
            project.ok_or_else(|| Error::key("project", "is needed, because the name tells no region"))?;
        let keys = keys(&config)?;
        let login = (format!("{project}@{}", keys.id), password(&keys.id, &keys.secret));
        Ok(Some(Credential {
            extra: Vec::new(),
            when: Sending::Challenged,
            secret: Secret::Basic(login),
            lifetime: None,
            covers: None,
            origin: keys.origin,
        }))
    }

    fn sign(name: &str, request: &Unsigned, config: Config) -> Result<Option<Vec<(String, String)>>, Error> {
        let Some((at, path, query)) = auth::target(request) else { return Ok(None) };
        let api = config.endpoint.as_deref().map_or_else(|| name.replacen("swr.", "swr-api.", 1), host);
        if !is_huaweis(name, &config) || at != api {
            return Ok(None);
        }
        let body = auth::hash(request)?;
        let (keys, time) = (keys(&config)?, stamp(now()));
        let headers = [("host", at.to_owned()), ("x-sdk-date", time.clone())];
        // The path of the signed text always ends in a slash, whatever is sent.
        let path = format!("{}/", path.trim_end_matches('/'));
        let scheme = Scheme { algorithm: "SDK-HMAC-SHA256", time: Some(&time), prefix: "", scope: &[] };
        let request = Request { method: &request.method, path: &path, query, headers: &headers, body };
        let signature = scheme.sign(&keys.secret, &request);
        let authorization = format!(
            "SDK-HMAC-SHA256 Access={}, SignedHeaders={}, Signature={}",
            keys.id, signature.headers, signature.signature
        );
        Ok(Some(vec![("x-sdk-date".to_owned(), time), ("authorization".to_owned(), authorization)]))
    }
}

auth::export!(HuaweiSwr);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_password_is_what_the_manuals_command_prints() {
        // printf "AK" | openssl dgst -binary -sha256 -hmac "SK" | od -An -vtx1
        assert_eq!(password("AK", "SK"), "32d633d480c6d326ddd8f439f4fbfc7c9a4e0fa3fc0565ccd56e027700d41b14");
    }

    #[test]
    fn registries_are_known_by_their_names() {
        assert_eq!(region("swr.cn-north-4.myhuaweicloud.com"), Some("cn-north-4"));
        assert_eq!(region("swr.eu-west-101.myhuaweicloud.eu"), Some("eu-west-101"));
        assert_eq!(region("swr.x.myhuaweicloud.com.evil.example"), None);
    }
}
