//! Credentials for Amazon's registries: keys of an account are exchanged for a password that holds for hours (`ecr`
//! 2015-09-21 and `ecr-public` 2020-10-30, `GetAuthorizationToken`).

mod sign;

use base64::{Engine, engine::general_purpose::STANDARD};
use dray_plugin_auth::{
    self as auth, Error, Info, Meta,
    dray::plugin::{clock, http, secrets, types::Request},
    exports::dray::plugin::credentials::{Credential, Guest, Secret},
};
use serde::Deserialize;
use sign::{Keys, Signed};

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
    endpoint: Option<String>,
    sts_endpoint: Option<String>,
}

/// For how many seconds a password is kept whose end is not told. It holds for twelve hours.
const USUAL: u64 = 11 * 3600;
/// A password is not used in the last seconds of its time.
const MARGIN: u64 = 300;

struct Ecr;

impl Meta for Ecr {
    fn describe() -> Info {
        Info {
            name: "ecr".into(),
            version: env!("CARGO_PKG_VERSION").into(),
            summary: "Amazon's registries, by keys, a profile or a web identity".into(),
            schemes: Vec::new(),
            config_schema: include_str!("schema.json").into(),
        }
    }
}

/// One of Amazon's registries, by its name.
#[derive(Debug, PartialEq)]
enum Registry<'a> {
    /// A private one, in a region; the end of its names (`amazonaws.com`, or another one in China).
    Private(&'a str, &'a str),
    Public,
}

/// Understands `ACCOUNT.dkr.ecr[-fips].REGION.amazonaws.com[.cn]` and `public.ecr.aws`.
fn registry(name: &str) -> Option<Registry<'_>> {
    if name == "public.ecr.aws" {
        return Some(Registry::Public);
    }
    let (_account, rest) = name.split_once(".dkr.ecr")?;
    let rest = rest.strip_prefix("-fips").unwrap_or(rest).strip_prefix('.')?;
    let (region, end) = rest.split_once('.')?;
    matches!(end, "amazonaws.com" | "amazonaws.com.cn").then_some(Registry::Private(region, end))
}

/// A section of a credentials file.
fn profile(text: &str, wanted: &str) -> Option<Keys> {
    let (mut inside, mut id, mut secret, mut token) = (false, None, None, None);
    for line in text.lines().map(str::trim) {
        if let Some(name) = line.strip_prefix('[').and_then(|line| line.strip_suffix(']')) {
            inside = name.trim() == wanted;
        } else if let (true, Some((key, value))) = (inside, line.split_once('=')) {
            let value = value.trim().to_owned();
            match key.trim() {
                "aws_access_key_id" => id = Some(value),
                "aws_secret_access_key" => secret = Some(value),
                "aws_session_token" => token = Some(value),
                _ => {}
            }
        }
    }
    Some(Keys { id: id?, secret: secret?, token })
}

/// The text of an element of an answer in XML, which has no attributes.
fn element<'a>(text: &'a str, name: &str) -> Option<&'a str> {
    text.split_once(&format!("<{name}>"))?.1.split_once(&format!("</{name}>")).map(|(value, _)| value)
}

/// A value of a form (RFC 3986, 2.1).
fn encoded(text: &str) -> String {
    let plain = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'.' | b'_' | b'~');
    text.bytes()
        .map(|byte| if plain(byte) { (byte as char).to_string() } else { format!("%{byte:02X}") })
        .collect()
}

fn post(host: &str, headers: Vec<(String, String)>, body: &[u8]) -> Result<Vec<u8>, Error> {
    let request = Request {
        method: "POST".into(),
        url: format!("https://{host}/"),
        headers,
        expect: vec![200],
        access: Vec::new(),
    };
    Ok(http::send(&request, body)?.body)
}

/// Exchanges a token of another provider for keys (`sts` 2011-06-15, `AssumeRoleWithWebIdentity`), which needs no signature.
fn by_web_identity(config: &Config, token: &str, region: &str) -> Result<Keys, Error> {
    let role = config
        .role_arn
        .as_deref()
        .ok_or_else(|| Error::key("role-arn", "is needed with web-identity-token"))?;
    let host = config.sts_endpoint.clone().unwrap_or_else(|| format!("sts.{region}.amazonaws.com"));
    let body = format!(
        "Action=AssumeRoleWithWebIdentity&Version=2011-06-15&RoleSessionName=dray&RoleArn={}&WebIdentityToken={}",
        encoded(role),
        encoded(token.trim())
    );
    let headers = vec![("content-type".to_owned(), "application/x-www-form-urlencoded".to_owned())];
    let answer = post(&host, headers, body.as_bytes())?;
    let answer = String::from_utf8_lossy(&answer);
    let part = |name| element(&answer, name).map(str::to_owned);
    match (part("AccessKeyId"), part("SecretAccessKey")) {
        (Some(id), Some(secret)) => Ok(Keys { id, secret, token: part("SessionToken") }),
        _ => Err(Error::Invalid(format!("exchange the web identity: {host} answered without keys"))),
    }
}

/// The keys, and where they were found.
fn keys(config: &Config, region: &str) -> Result<(Keys, String), Error> {
    if let Some(name) = &config.web_identity_token {
        return Ok((by_web_identity(config, &secrets::get(name)?, region)?, name.clone()));
    }
    if let Some(name) = &config.credentials_file {
        let wanted = config.profile.as_deref().unwrap_or("default");
        let found = profile(&secrets::get(name)?, wanted);
        let none = || Error::key("profile", format!("{name} has no keys in its section [{wanted}]"));
        return Ok((found.ok_or_else(none)?, name.clone()));
    }
    let named = |name: &Option<String>, usual: &str| name.clone().unwrap_or_else(|| usual.to_owned());
    let id = named(&config.access_key_id, "env:AWS_ACCESS_KEY_ID");
    let token = match &config.session_token {
        Some(name) => Some(secrets::get(name)?),
        // It is there only where keys are of a role.
        None => secrets::get("env:AWS_SESSION_TOKEN").ok().filter(|token| !token.is_empty()),
    };
    let secret = secrets::get(&named(&config.secret_access_key, "env:AWS_SECRET_ACCESS_KEY"))?;
    Ok((Keys { id: secrets::get(&id)?, secret, token }, id))
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
fn password(answer: &[u8], now: u64) -> Result<(String, String, u64), Error> {
    let wrong = |why: &str| Error::Invalid(format!("read the answer of Amazon's registry: {why}"));
    let answer: Answer = serde_json::from_slice(answer).map_err(|error| wrong(&error.to_string()))?;
    let token = match answer.authorization_data {
        Data::One(token) => token,
        Data::Many(tokens) => tokens.into_iter().next().ok_or_else(|| wrong("it holds no token"))?,
    };
    let plain =
        STANDARD.decode(&token.authorization_token).map_err(|_| wrong("its token is not in Base64"))?;
    let plain = String::from_utf8(plain).map_err(|_| wrong("its token is no text"))?;
    let (user, password) = plain.split_once(':').ok_or_else(|| wrong("its token has no password"))?;
    let left = token.expires_at.map_or(USUAL, |end| (end as u64).saturating_sub(now / 1000));
    Ok((user.into(), password.into(), left.saturating_sub(MARGIN)))
}

impl Guest for Ecr {
    fn lookup(name: String, _repository: String, config: String) -> Result<Option<Credential>, Error> {
        let config: Config = auth::config(&config)?;
        let said = config.region.clone();
        let (region, service, target, host) = match registry(&name) {
            Some(Registry::Private(region, end)) => {
                let region = said.unwrap_or_else(|| region.to_owned());
                let host = format!("api.ecr.{region}.{end}");
                (region, "ecr", "AmazonEC2ContainerRegistry_V20150921", host)
            }
            Some(Registry::Public) => {
                let host = "api.ecr-public.us-east-1.amazonaws.com".to_owned();
                ("us-east-1".to_owned(), "ecr-public", "SpencerFrontendService", host)
            }
            // A name of one's own for a registry needs the region.
            None => match (said, &config.endpoint) {
                (Some(region), Some(_)) => {
                    (region, "ecr", "AmazonEC2ContainerRegistry_V20150921", String::new())
                }
                _ => return Ok(None),
            },
        };
        let host = config.endpoint.clone().unwrap_or(host);
        let (keys, origin) = keys(&config, &region)?;
        let now = clock::now();
        let time = sign::time(now);
        let body = b"{}";
        let mut headers = vec![
            ("content-type", "application/x-amz-json-1.1".to_owned()),
            ("host", host.clone()),
            ("x-amz-date", time.clone()),
        ];
        headers.extend(keys.token.clone().map(|token| ("x-amz-security-token", token)));
        headers.push(("x-amz-target", format!("{target}.GetAuthorizationToken")));
        let signed = Signed {
            method: "POST",
            path: "/",
            headers: &headers,
            body,
            region: &region,
            service,
            time: &time,
        };
        let authorization = signed.authorization(&keys);
        // The host of a request is written by whoever sends it.
        let sent = headers.into_iter().filter(|(name, _)| *name != "host");
        let mut sent: Vec<(String, String)> = sent.map(|(name, value)| (name.to_owned(), value)).collect();
        sent.push(("authorization".into(), authorization));
        let (user, password, lifetime) = password(&post(&host, sent, body)?, now)?;
        Ok(Some(Credential {
            secret: Secret::Basic((user, password)),
            lifetime: Some(lifetime),
            covers: None,
            origin: format!("{origin}, exchanged at {host}"),
        }))
    }
}

auth::export!(Ecr);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn registries_are_known_by_their_names() {
        for (name, expected) in [
            (
                "123456789012.dkr.ecr.eu-west-1.amazonaws.com",
                Some(Registry::Private("eu-west-1", "amazonaws.com")),
            ),
            (
                "1.dkr.ecr-fips.us-gov-west-1.amazonaws.com",
                Some(Registry::Private("us-gov-west-1", "amazonaws.com")),
            ),
            (
                "1.dkr.ecr.cn-north-1.amazonaws.com.cn",
                Some(Registry::Private("cn-north-1", "amazonaws.com.cn")),
            ),
            ("public.ecr.aws", Some(Registry::Public)),
            ("1.dkr.ecr.eu-west-1.amazonaws.com.evil.example", None),
            ("registry.example.com", None),
        ] {
            assert_eq!(registry(name), expected, "{name}");
        }
    }

    #[test]
    fn files_and_answers_are_read() {
        let file = "# mine\n[default]\naws_access_key_id = a\naws_secret_access_key=b\n\n[other]\naws_access_key_id=c\n\
                    aws_secret_access_key = d=\naws_session_token = e\n[empty]\n";
        let keys = |id: &str, secret: &str, token: Option<&str>| Keys {
            id: id.into(),
            secret: secret.into(),
            token: token.map(str::to_owned),
        };
        assert!(profile(file, "default") == Some(keys("a", "b", None)));
        assert!(profile(file, "other") == Some(keys("c", "d=", Some("e"))));
        assert!(profile(file, "empty").is_none() && profile(file, "none").is_none());
        let token = STANDARD.encode("AWS:secret:more");
        let private =
            format!(r#"{{"authorizationData":[{{"authorizationToken":"{token}","expiresAt":1000.5}}]}}"#);
        let public = format!(r#"{{"authorizationData":{{"authorizationToken":"{token}"}}}}"#);
        let expected = |left| ("AWS".to_owned(), "secret:more".to_owned(), left);
        assert_eq!(password(private.as_bytes(), 100_000).unwrap(), expected(600));
        assert_eq!(password(public.as_bytes(), 0).unwrap(), expected(USUAL - MARGIN));
        for wrong in
            ["", "{}", r#"{"authorizationData":[]}"#, r#"{"authorizationData":{"authorizationToken":"?"}}"#]
        {
            assert!(password(wrong.as_bytes(), 0).is_err(), "{wrong}");
        }
        assert_eq!(element("<a><AccessKeyId>x</AccessKeyId></a>", "AccessKeyId"), Some("x"));
        assert_eq!(encoded("arn:aws/é"), "arn%3Aaws%2F%C3%A9");
    }
}
