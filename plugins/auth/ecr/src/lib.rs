//! Credentials for Amazon's registries: keys of an account are exchanged for a password that holds for hours (`ecr`
//! 2015-09-21 and `ecr-public` 2020-10-30, `GetAuthorizationToken`).

mod sign;

use base64::{Engine, engine::general_purpose::STANDARD};
use dray_plugin::encoded;
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
    registry: Option<String>,
    endpoint: Option<String>,
    sts_endpoint: Option<String>,
}

/// For how many seconds a password is kept whose end is not told. It holds for twelve hours.
const USUAL: u64 = 11 * 3600;
/// A password is not used in the last seconds of its time.
const MARGIN: u64 = 300;
/// For how many seconds a password is kept at least, whatever its end: another one would be no better.
const LEAST: u64 = 60;

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

/// A host as it stands in requests: in lower case, and without the usual port.
fn host(text: &str) -> String {
    let text = text.to_ascii_lowercase();
    text.strip_suffix(":443").map_or(text.clone(), str::to_owned)
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

/// What an error answer is called: `__type` of JSON (AWS JSON 1.1 protocol), or `Code` of XML. Nothing else of it is shown,
/// because it may repeat what was signed.
fn refusal(body: &[u8]) -> String {
    #[derive(Deserialize)]
    struct Json {
        #[serde(rename = "__type")]
        kind: String,
    }
    let text = String::from_utf8_lossy(body);
    let kind = serde_json::from_slice(body).ok().map(|json: Json| json.kind);
    let kind = kind.or_else(|| element(&text, "Code").map(str::to_owned)).unwrap_or_default();
    let name = kind.rsplit('#').next().unwrap_or_default();
    match !name.is_empty() && name.len() <= 80 && name.bytes().all(|byte| byte.is_ascii_alphanumeric()) {
        true => name.to_owned(),
        false => "it does not say why".into(),
    }
}

fn post(host: &str, headers: Vec<(String, String)>, body: &[u8]) -> Result<Vec<u8>, Error> {
    let request = Request {
        method: "POST".into(),
        url: format!("https://{host}/"),
        headers,
        expect: vec![200, 400, 401, 403],
        access: Vec::new(),
    };
    let response = http::send(&request, body)?;
    match response.status {
        200 => Ok(response.body),
        status => {
            let why = refusal(&response.body);
            Err(Error::Unauthorized(format!("exchange the keys: {host} answered {status}: {why}")))
        }
    }
}

/// Exchanges a token of another provider for keys (`sts` 2011-06-15, `AssumeRoleWithWebIdentity`), which needs no signature.
fn by_web_identity(config: &Config, token: &str, host: &str) -> Result<Keys, Error> {
    let role = config
        .role_arn
        .as_deref()
        .ok_or_else(|| Error::key("role-arn", "is needed with web-identity-token"))?;
    let body = format!(
        "Action=AssumeRoleWithWebIdentity&Version=2011-06-15&RoleSessionName=dray&RoleArn={}&WebIdentityToken={}",
        encoded(role),
        encoded(token.trim())
    );
    let headers = vec![("content-type".to_owned(), "application/x-www-form-urlencoded".to_owned())];
    let answer = post(host, headers, body.as_bytes())?;
    let answer = String::from_utf8_lossy(&answer);
    let part = |name| element(&answer, name).map(str::to_owned);
    match (part("AccessKeyId"), part("SecretAccessKey")) {
        (Some(id), Some(secret)) => Ok(Keys { id, secret, token: part("SessionToken") }),
        _ => Err(Error::Invalid(format!("exchange the web identity: {host} answered without keys"))),
    }
}

/// The keys, and where they were found. `sts` is the host at which a web identity is exchanged.
fn keys(config: &Config, sts: &str) -> Result<(Keys, String), Error> {
    if let Some(name) = &config.web_identity_token {
        return Ok((by_web_identity(config, &secrets::get(name)?, sts)?, name.clone()));
    }
    if let Some(name) = &config.credentials_file {
        let wanted = config.profile.as_deref().unwrap_or("default");
        let found = profile(&secrets::get(name)?, wanted);
        let none = || Error::key("profile", format!("{name} has no keys in its section [{wanted}]"));
        return Ok((found.ok_or_else(none)?, name.clone()));
    }
    // Keys that are named, and those of the environment, are not mixed: they may be of two accounts.
    let (id, secret, token) = match (&config.access_key_id, &config.secret_access_key) {
        (Some(id), Some(secret)) => (
            id.as_str(),
            secret.as_str(),
            config.session_token.as_ref().map(|name| secrets::get(name)).transpose()?,
        ),
        (None, None) => {
            // It is there only where the keys are of a role.
            let token = secrets::get("env:AWS_SESSION_TOKEN").ok().filter(|token| !token.is_empty());
            ("env:AWS_ACCESS_KEY_ID", "env:AWS_SECRET_ACCESS_KEY", token)
        }
        (Some(_), None) => return Err(Error::key("access-key-id", "needs `secret-access-key`")),
        (None, Some(_)) => return Err(Error::key("secret-access-key", "needs `access-key-id`")),
    };
    Ok((Keys { id: secrets::get(id)?, secret: secrets::get(secret)?, token }, id.to_owned()))
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
    Ok((user.into(), password.into(), left.saturating_sub(MARGIN).max(LEAST)))
}

impl Guest for Ecr {
    fn lookup(name: String, _repository: String, config: String) -> Result<Option<Credential>, Error> {
        let config: Config = auth::config(&config)?;
        let Some(service) = service(&name, &config)? else { return Ok(None) };
        let Service { region, name: signed_for, target, host, sts } = service;
        let (keys, origin) = keys(&config, &sts)?;
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
            service: signed_for,
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
    fn an_error_is_only_called_by_its_name() {
        for (body, name) in [
            (
                r#"{"__type":"com.amazon#UnrecognizedClientException","message":"secret"}"#,
                "UnrecognizedClientException",
            ),
            ("<ErrorResponse><Error><Code>AccessDenied</Code></Error></ErrorResponse>", "AccessDenied"),
            (r#"{"__type":"x y"}"#, "it does not say why"),
            ("", "it does not say why"),
        ] {
            assert_eq!(refusal(body.as_bytes()), name, "{body}");
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
        // A password that has ended is not asked for again at once.
        assert_eq!(password(private.as_bytes(), 2_000_000).unwrap(), expected(LEAST));
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
