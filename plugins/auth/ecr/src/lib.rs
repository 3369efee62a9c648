//! Credentials for Amazon's registries: keys of an account are exchanged for a password that holds for hours (`ecr`
//! 2015-09-21 and `ecr-public` 2020-10-30, `GetAuthorizationToken`).

mod keys;

use base64::{Engine, engine::general_purpose::STANDARD};
use dray_plugin_auth::{
    self as auth, Asked, Credential, Error, Lookup, Provider, Secret, Sending, Unsigned, host, kept, now,
    stamp,
};
use dray_plugin_sign::{Amazon, sha256};
use keys::Keys;
use serde::Deserialize;

#[derive(Default, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
struct Config {
    access_key_id: Option<String>,
    secret_access_key: Option<String>,
    session_token: Option<String>,
    credentials_file: Option<String>,
    profile: Option<String>,
    web_identity_token: Option<String>,
    role_arn: Option<String>,
    region: Option<String>,
    registry: Option<String>,
    endpoint: Option<String>,
    sts_endpoint: Option<String>,
    identity: Option<Identity>,
    metadata_endpoint: Option<String>,
}

/// Whose identity is used where no keys are named.
#[derive(Clone, Copy, Deserialize, PartialEq, Eq)]
#[serde(rename_all = "kebab-case")]
enum Identity {
    /// That of the machine (Amazon EC2).
    Instance,
    /// That of the container (Amazon ECS, and EKS Pod Identity).
    Container,
}

/// For how many seconds a password holds whose end is not told: a little less than twelve hours.
const USUAL: u64 = 11 * 3600;

struct Ecr;

/// One of Amazon's registries, by its name.
#[derive(Debug, PartialEq)]
enum Registry<'a> {
    /// A private one: its region, the end of its names (another one in China), and whether it is reached by FIPS.
    Private(&'a str, &'a str, bool),
    Public,
}

/// Understands `ACCOUNT.dkr.ecr[-fips].REGION.amazonaws.com[.cn]` and `public.ecr.aws`.
fn registry(name: &str) -> Option<Registry<'_>> {
    if name == "public.ecr.aws" {
        return Some(Registry::Public);
    }
    let (_account, rest) = name.split_once(".dkr.ecr")?;
    let (rest, fips) = match rest.strip_prefix("-fips") {
        Some(rest) => (rest, true),
        None => (rest, false),
    };
    let (region, end) = rest.strip_prefix('.')?.split_once('.')?;
    matches!(end, "amazonaws.com" | "amazonaws.com.cn").then_some(Registry::Private(region, end, fips))
}

/// Who gives a password.
#[derive(Debug, PartialEq)]
struct Service {
    region: String,
    /// As signatures name it.
    name: &'static str,
    /// The API, as requests name it.
    target: &'static str,
    host: String,
    /// The host of the security token service.
    sts: String,
}

/// Who gives a password for a registry. `None` means that the registry is not Amazon's.
fn service(name: &str, config: &Config) -> Result<Option<Service>, Error> {
    const PRIVATE: (&str, &str) = ("ecr", "AmazonEC2ContainerRegistry_V20150921");
    const PUBLIC: (&str, &str) = ("ecr-public", "SpencerFrontendService");
    let endpoint = config.endpoint.as_deref().map(host);
    let ((named, target), region, api, end) = match registry(name) {
        Some(Registry::Private(region, end, fips)) => {
            let region = config.region.clone().unwrap_or_else(|| region.to_owned());
            let usual = if fips { "ecr-fips" } else { "api.ecr" };
            let api = endpoint.unwrap_or_else(|| format!("{usual}.{region}.{end}"));
            (PRIVATE, region, api, end)
        }
        Some(Registry::Public) => {
            let region = "us-east-1".to_owned();
            (PUBLIC, region, "api.ecr-public.us-east-1.amazonaws.com".into(), "amazonaws.com")
        }
        // Nobody else's registry gets the password, so a name that does not tell must be named.
        None if config.registry.as_deref() == Some(name) => {
            let region = config.region.clone();
            let region = region.ok_or_else(|| Error::key("registry", "needs `region` and `endpoint`"))?;
            let api = endpoint.ok_or_else(|| Error::key("registry", "needs `region` and `endpoint`"))?;
            (PRIVATE, region, api, "amazonaws.com")
        }
        None => return Ok(None),
    };
    let sts = config.sts_endpoint.as_deref().map(host).unwrap_or_else(|| format!("sts.{region}.{end}"));
    Ok(Some(Service { region, name: named, target, host: api, sts }))
}

/// The answer of either API: one token, in a list where a list of registries could be asked for.
#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Answer {
    authorization_data: Data,
}

#[derive(Deserialize)]
#[serde(untagged)]
enum Data {
    Many(Vec<Token>),
    One(Token),
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Token {
    authorization_token: String,
    /// Seconds since 1970.
    expires_at: Option<f64>,
}

/// The password in an answer, and for how many seconds it may be kept.
fn password(answer: Answer, now: u64) -> Result<(String, String, u64), &'static str> {
    let token = match answer.authorization_data {
        Data::One(token) => token,
        Data::Many(tokens) => tokens.into_iter().next().ok_or("it holds no token")?,
    };
    let plain = STANDARD.decode(&token.authorization_token).map_err(|_| "its token is not in Base64")?;
    let plain = String::from_utf8(plain).map_err(|_| "its token is no text")?;
    let (user, password) = plain.split_once(':').ok_or("its token has no password")?;
    let left = token.expires_at.map_or(USUAL, |end| (end as u64).saturating_sub(now / 1000));
    Ok((user.into(), password.into(), kept(left)))
}

/// Signs a request. Returns the headers that are to be added to those that it has.
fn signed(
    keys: &Keys,
    service: &Service,
    target: (&str, &str, &str),
    own: &[(String, String)],
    body: &str,
    now: u64,
) -> Vec<(String, String)> {
    let signer = Amazon {
        id: &keys.id,
        secret: &keys.secret,
        token: keys.token.as_deref(),
        region: &service.region,
        service: service.name,
        host: &service.host,
    };
    signer.headers(target, own, body, &stamp(now))
}

impl Provider for Ecr {
    const NAME: &str = "ecr";
    const VERSION: &str = env!("CARGO_PKG_VERSION");
    const SUMMARY: &str =
        "Amazon's registries, by keys, a profile, a web identity or the role of the machine";
    const SCHEMA: &str = include_str!("schema.json");
    type Config = Config;

    fn lookup(Lookup { registry: name, .. }: &Lookup, config: Config) -> Result<Option<Credential>, Error> {
        let Some(service) = service(name, &config)? else { return Ok(None) };
        let (keys, origin) = keys::keys(&config, &service)?;
        let now = now();
        let body = b"{}";
        let mut headers = vec![
            ("content-type".to_owned(), "application/x-amz-json-1.1".to_owned()),
            ("x-amz-target".to_owned(), format!("{}.GetAuthorizationToken", service.target)),
        ];
        headers.extend(signed(&keys, &service, ("POST", "/", ""), &headers, &sha256(body), now));
        let asked = Asked::send("POST", &service.host, "/", headers, body)?;
        let (user, password, lifetime) = password(asked.json()?, now).map_err(|why| asked.odd(why))?;
        Ok(Some(Credential {
            extra: Vec::new(),
            when: Sending::Challenged,
            secret: Secret::Basic((user, password)),
            lifetime: Some(lifetime),
            covers: None,
            origin: format!("{origin}, exchanged at {}", service.host),
        }))
    }

    fn sign(name: &str, request: &Unsigned, config: Config) -> Result<Option<Vec<(String, String)>>, Error> {
        let Some(service) = service(name, &config)? else { return Ok(None) };
        let Some((at, path, query)) = auth::target(request) else { return Ok(None) };
        // Only the API of the registry itself gets a signature.
        if at != service.host {
            return Ok(None);
        }
        let (keys, _) = keys::keys(&config, &service)?;
        let body = auth::hash(request)?;
        let target = (request.method.as_str(), path.as_str(), query);
        Ok(Some(signed(&keys, &service, target, &request.headers, body, now())))
    }
}

auth::export!(Ecr);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn registries_are_known_by_their_names() {
        let none = Config::default();
        for (name, expected) in [
            (
                "123456789012.dkr.ecr.eu-west-1.amazonaws.com",
                Some(("eu-west-1", "api.ecr.eu-west-1.amazonaws.com", "sts.eu-west-1.amazonaws.com")),
            ),
            (
                "1.dkr.ecr-fips.us-gov-west-1.amazonaws.com",
                Some((
                    "us-gov-west-1",
                    "ecr-fips.us-gov-west-1.amazonaws.com",
                    "sts.us-gov-west-1.amazonaws.com",
                )),
            ),
            (
                "1.dkr.ecr.cn-north-1.amazonaws.com.cn",
                Some((
                    "cn-north-1",
                    "api.ecr.cn-north-1.amazonaws.com.cn",
                    "sts.cn-north-1.amazonaws.com.cn",
                )),
            ),
            (
                "public.ecr.aws",
                Some(("us-east-1", "api.ecr-public.us-east-1.amazonaws.com", "sts.us-east-1.amazonaws.com")),
            ),
            ("1.dkr.ecr.eu-west-1.amazonaws.com.evil.example", None),
            ("registry.example.com", None),
        ] {
            let found = service(name, &none).unwrap();
            let found = found.as_ref().map(|one| (one.region.as_str(), one.host.as_str(), one.sts.as_str()));
            assert_eq!(found, expected, "{name}");
        }
        // Another name gets the password only if it is the one that was named.
        let named = |registry: &str| Config {
            registry: Some(registry.into()),
            region: Some("eu-west-1".into()),
            endpoint: Some("API.example.com:443".into()),
            ..Config::default()
        };
        assert_eq!(service("evil.example", &named("mine.example")).unwrap(), None);
        assert_eq!(service("mine.example", &named("mine.example")).unwrap().unwrap().host, "api.example.com");
        let lacking = Config { endpoint: None, ..named("mine.example") };
        assert!(service("mine.example", &lacking).is_err());
        assert_eq!(service("evil.example", &lacking).unwrap(), None);
    }

    #[test]
    fn answers_are_read() {
        let read = |text: &str, now| password(serde_json::from_str(text).unwrap(), now);
        let token = STANDARD.encode("AWS:secret:more");
        let private =
            format!(r#"{{"authorizationData":[{{"authorizationToken":"{token}","expiresAt":1000.5}}]}}"#);
        let public = format!(r#"{{"authorizationData":{{"authorizationToken":"{token}"}}}}"#);
        let expected = |left| Ok(("AWS".to_owned(), "secret:more".to_owned(), left));
        assert_eq!(read(&private, 100_000), expected(600));
        // A password that has ended is not asked for again at once.
        assert_eq!(read(&private, 2_000_000), expected(60));
        assert_eq!(read(&public, 0), expected(USUAL - 300));
        for wrong in [r#"{"authorizationData":[]}"#, r#"{"authorizationData":{"authorizationToken":"?"}}"#] {
            assert!(read(wrong, 0).is_err(), "{wrong}");
        }
    }
}
