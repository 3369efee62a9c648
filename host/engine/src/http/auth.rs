//! Challenges and tokens (distribution's token authentication specification; RFC 6750, RFC 7617).

use super::{
    away::Away,
    retry::{self, IDLE},
};
use crate::{
    Error, Kind, Result, Secret,
    plugin::{Access, Key},
};
use base64::{Engine as _, engine::general_purpose::STANDARD};
use reqwest::header::{HeaderValue, WWW_AUTHENTICATE};
use serde::Deserialize;
use std::time::{Duration, Instant};
use url::Url;

/// What a registry asks for.
#[derive(Clone, Debug, PartialEq)]
pub(super) enum Challenge {
    Basic,
    Bearer { realm: Url, service: Option<String> },
}

/// An access token.
pub(super) struct Token {
    pub secret: Secret,
    until: Instant,
}

impl Token {
    pub fn is_fresh(&self) -> bool {
        Instant::now() < self.until
    }
}

/// Servers may leave the lifetime out, and then mean 60 seconds.
const LIFETIME: u64 = 60;
/// A token this near its end is not used any more.
const MARGIN: Duration = Duration::from_secs(10);

#[derive(Deserialize)]
struct Answer {
    token: Option<String>,
    access_token: Option<String>,
    expires_in: Option<u64>,
}

/// The first challenge of a 401 that dray can meet; Bearer goes before Basic.
pub(super) fn challenge(response: &reqwest::Response) -> Result<Option<Challenge>> {
    let mut basic = None;
    for value in response.headers().get_all(WWW_AUTHENTICATE) {
        let Ok(value) = value.to_str() else { continue };
        let (scheme, parameters) = value.split_once(' ').unwrap_or((value, ""));
        if scheme.eq_ignore_ascii_case("basic") {
            basic = Some(Challenge::Basic);
        }
        if scheme.eq_ignore_ascii_case("bearer") {
            let parameters = parameters_of(parameters);
            let named = |name: &str| {
                parameters
                    .iter()
                    .find(|(key, _)| key.eq_ignore_ascii_case(name))
                    .map(|(_, value)| value.clone())
            };
            let malformed = || {
                Error::invalid(format!("log in: {} sent a challenge without a proper realm", response.url()))
            };
            let realm = named("realm").ok_or_else(malformed)?;
            let realm = Url::parse(&realm).map_err(|_| malformed())?;
            return Ok(Some(Challenge::Bearer { realm, service: named("service") }));
        }
    }
    Ok(basic)
}

/// `a="b", c=d`; quoted values may hold commas (RFC 9110, 11.2).
fn parameters_of(text: &str) -> Vec<(String, String)> {
    let mut parameters = Vec::new();
    let mut rest = text.trim();
    while let Some((key, value)) = rest.split_once('=') {
        let key = key.trim_matches([' ', ',']).to_owned();
        let (value, after) = match value.strip_prefix('"') {
            Some(quoted) => quoted.split_once('"').unwrap_or((quoted, "")),
            None => value.split_once(',').unwrap_or((value, "")),
        };
        parameters.push((key, value.trim().to_owned()));
        rest = after.trim_start_matches([' ', ',']);
    }
    parameters
}

/// The scopes for what is touched.
pub(super) fn scopes(access: &[Access]) -> Vec<String> {
    if access.is_empty() {
        return vec!["registry:catalog:*".into()];
    }
    access
        .iter()
        .map(|access| format!("repository:{}:{}", access.repository, access.actions.join(",")))
        .collect()
}

pub(super) fn basic(user: &str, password: &Secret) -> Result<HeaderValue> {
    header("Basic", &STANDARD.encode(format!("{user}:{}", password.expose())))
}

pub(super) fn header(scheme: &str, credentials: &str) -> Result<HeaderValue> {
    let value = HeaderValue::from_str(&format!("{scheme} {credentials}"));
    let mut value =
        value.map_err(|_| Error::invalid("send the credentials: they hold characters that no header can"))?;
    value.set_sensitive(true);
    Ok(value)
}

/// Fetches an access token. Whoever asks need not try again where that fails: it was tried.
pub(super) async fn fetch(
    http: &reqwest::Client,
    server: &Away,
    realm: &Url,
    service: Option<&str>,
    scopes: &[String],
    key: Option<&Key>,
) -> Result<Token> {
    let mut backoff = server.backoff();
    loop {
        let error = match fetch_once(http, realm, service, scopes, key).await {
            Ok(token) => {
                server.answers();
                return Ok(token);
            }
            Err(error) => error.context("log in"),
        };
        let Some(wait) = backoff.after(&error) else {
            match error.is_transient() {
                true => server.given_up(),
                // A refusal is an answer.
                false => server.answers(),
            }
            return Err(backoff.give_up(error));
        };
        tokio::time::sleep(wait).await;
    }
}

async fn fetch_once(
    http: &reqwest::Client,
    realm: &Url,
    service: Option<&str>,
    scopes: &[String],
    key: Option<&Key>,
) -> Result<Token> {
    let service = service.map(|service| ("service", service));
    let mut url = realm.clone();
    let request = if let Some(Key::IdentityToken(token)) = key {
        // OAuth2 (distribution, token specification, "Using OAuth2").
        let scope = scopes.join(" ");
        let fields = [
            ("grant_type", "refresh_token"),
            ("client_id", "dray"),
            ("scope", &scope),
            ("refresh_token", token.expose()),
        ];
        let mut form = url::form_urlencoded::Serializer::new(String::new());
        form.extend_pairs(fields).extend_pairs(service);
        http.post(url.clone()).header("content-type", "application/x-www-form-urlencoded").body(form.finish())
    } else {
        url.query_pairs_mut().extend_pairs(service).extend_pairs(scopes.iter().map(|scope| ("scope", scope)));
        let request = http.get(url.clone());
        match key {
            Some(Key::Basic(user, password)) => request.header("authorization", basic(user, password)?),
            _ => request,
        }
    };
    let method = if matches!(key, Some(Key::IdentityToken(_))) { "POST" } else { "GET" };
    let shown = super::host::redacted(&url);
    let response =
        request.timeout(IDLE).send().await.map_err(|error| retry::broken(method, &shown, &error))?;
    let (status, headers) = (response.status(), response.headers().clone());
    if !status.is_success() {
        return Err(retry::refusal(method, &shown, status, &headers, ""));
    }
    let body = super::send::bounded(response, 1 << 20).await?;
    let answer: Answer = serde_json::from_slice(&body)
        .map_err(|error| Error::invalid(format!("read the token of {shown}: {error}")))?;
    let token = answer.token.or(answer.access_token).filter(|token| !token.is_empty());
    let token = token.ok_or_else(|| {
        Error::new(Kind::Unauthorized, format!("{method} {shown} answered without a token"))
    })?;
    let lifetime = Duration::from_secs(answer.expires_in.unwrap_or(LIFETIME).clamp(LIFETIME, 86_400));
    Ok(Token { secret: Secret::new(token), until: Instant::now() + lifetime - MARGIN })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reads_parameters() {
        let read =
            parameters_of(r#"realm="https://a.example/token?x=1,2",service=r.example, scope="a:b:c,d""#);
        let expected =
            [("realm", "https://a.example/token?x=1,2"), ("service", "r.example"), ("scope", "a:b:c,d")];
        assert_eq!(read, expected.map(|(key, value)| (key.to_owned(), value.to_owned())));
    }

    #[test]
    fn scopes_name_what_is_touched() {
        let access = |repository: &str, actions: &[&str]| Access {
            repository: repository.into(),
            actions: actions.iter().map(|action| action.to_string()).collect(),
        };
        assert_eq!(
            scopes(&[access("a/b", &["pull", "push"]), access("c", &["pull"])]),
            ["repository:a/b:pull,push", "repository:c:pull"]
        );
        assert_eq!(scopes(&[]), ["registry:catalog:*"]);
    }
}
