//! Challenges and tokens (distribution's token authentication specification; RFC 6750, RFC 7617).

use super::{
    breaker::CircuitBreaker,
    connect::Clients,
    guard,
    retry::{self, IDLE},
};
use crate::{
    Error, Kind, Result, Secret,
    contract::{Access, Key},
};
use base64::{Engine as _, engine::general_purpose::STANDARD};
use reqwest::header::{HeaderValue, WWW_AUTHENTICATE};
use serde::Deserialize;
use std::time::{Duration, Instant};
use url::Url;

/// The authentication that a registry requires.
#[derive(Clone, Debug, PartialEq)]
pub(super) enum Challenge {
    Basic,
    Bearer {
        realm: Url,
        service: Option<String>,
        /// The scopes that the registry says the refused request needs.
        scopes: Vec<String>,
    },
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

/// The lifetime of a token, in seconds, if the server does not tell it (distribution, token specification).
const LIFETIME: u64 = 60;
/// A token is no longer used when less than this is left of its lifetime.
const MARGIN: Duration = Duration::from_secs(10);
/// Maximum number of scopes of one challenge that are requested.
const SCOPES: usize = 16;

/// The answer of a token server. Servers write the lifetime as a number, as text, below zero, or not at all.
#[derive(Deserialize)]
struct Answer {
    token: Option<String>,
    access_token: Option<String>,
    expires_in: Option<serde_json::Value>,
}

impl Answer {
    fn token(&self) -> Option<&str> {
        [&self.token, &self.access_token]
            .into_iter()
            .flatten()
            .map(String::as_str)
            .find(|token| !token.is_empty())
    }

    fn lifetime(&self) -> Duration {
        let told =
            self.expires_in.as_ref().and_then(|told| told.as_f64().or_else(|| told.as_str()?.parse().ok()));
        // `as` turns negative values and NaN into 0.
        Duration::from_secs((told.map_or(LIFETIME, |told| told as u64)).clamp(LIFETIME, 86_400))
    }
}

/// One challenge of a `WWW-Authenticate` header: its scheme and its parameters.
pub type Asked = (String, Vec<(String, String)>);

/// The first challenge of a 401 that dray supports. Bearer is preferred to Basic.
pub(super) fn challenge(response: &reqwest::Response) -> Result<Option<Challenge>> {
    let values = response.headers().get_all(WWW_AUTHENTICATE).iter().filter_map(|value| value.to_str().ok());
    let asked: Vec<Asked> = values.flat_map(challenges_of).collect();
    choose(&asked).map_err(|()| {
        let shown = guard::redacted(response.url());
        Error::invalid(format!("log in: {shown} sent a challenge without a proper realm"))
    })
}

/// The schemes of a 401 of which dray supports none: `Negotiate`. Empty if it names none.
pub(super) fn unknown_schemes(response: &reqwest::Response) -> String {
    let values = response.headers().get_all(WWW_AUTHENTICATE).iter().filter_map(|value| value.to_str().ok());
    let schemes: Vec<String> = values.flat_map(challenges_of).map(|(scheme, _)| scheme).collect();
    schemes.join(", ")
}

fn choose(asked: &[Asked]) -> Result<Option<Challenge>, ()> {
    let mut malformed = false;
    for (_, parameters) in asked.iter().filter(|(scheme, _)| scheme.eq_ignore_ascii_case("bearer")) {
        let named = |name: &str| {
            let found = parameters.iter().find(|(key, _)| key.eq_ignore_ascii_case(name));
            found.map(|(_, value)| value.clone()).filter(|value| !value.is_empty())
        };
        let Some(realm) = named("realm").and_then(|realm| Url::parse(&realm).ok()) else {
            malformed = true;
            continue;
        };
        let scopes = named("scope").unwrap_or_default();
        let scopes = scopes.split_ascii_whitespace().take(SCOPES).map(str::to_owned).collect();
        return Ok(Some(Challenge::Bearer { realm, service: named("service"), scopes }));
    }
    match asked.iter().any(|(scheme, _)| scheme.eq_ignore_ascii_case("basic")) {
        true => Ok(Some(Challenge::Basic)),
        false if malformed => Err(()),
        false => Ok(None),
    }
}

/// Parses the challenges of one header: `Bearer a="b,\"c", d=e, Basic realm="x"` (RFC 9110, 11.6.1).
pub fn challenges_of(header: &str) -> Vec<Asked> {
    let mut challenges: Vec<Asked> = Vec::new();
    let mut rest = header.trim_start_matches([' ', '\t', ',']);
    while !rest.is_empty() {
        let end = rest.find([' ', '\t', ',', '=']).unwrap_or(rest.len());
        let (token, after) = rest.split_at(end);
        let value = after.trim_start_matches([' ', '\t']).strip_prefix('=');
        rest = match (value, challenges.last_mut()) {
            (Some(value), Some((_, parameters))) if !token.is_empty() => {
                let (value, after) = value_of(value.trim_start_matches([' ', '\t']));
                parameters.push((token.to_owned(), value));
                after
            }
            // A parameter without a challenge is ignored.
            (Some(value), _) => value,
            (None, _) => {
                challenges.push((token.to_owned(), Vec::new()));
                after
            }
        };
        rest = rest.trim_start_matches([' ', '\t', ',']);
    }
    challenges
}

/// Reads a parameter's value, quoted or not. Returns it with the text that follows it.
fn value_of(text: &str) -> (String, &str) {
    let Some(quoted) = text.strip_prefix('"') else {
        let end = text.find([',', ' ', '\t']).unwrap_or(text.len());
        return (text[..end].to_owned(), &text[end..]);
    };
    let (mut value, mut escaped) = (String::new(), false);
    for (at, character) in quoted.char_indices() {
        match character {
            _ if escaped => {
                escaped = false;
                value.push(character);
            }
            '\\' => escaped = true,
            '"' => return (value, &quoted[at + 1..]),
            _ => value.push(character),
        }
    }
    // The closing quote is missing.
    (value, "")
}

/// The token scopes for these accesses.
pub(super) fn scopes(access: &[Access]) -> Vec<String> {
    if access.is_empty() {
        return vec!["registry:catalog:*".into()];
    }
    access
        .iter()
        // An empty name stands for the registry itself, for which a token needs no scope.
        .filter(|access| !access.repository.is_empty())
        .map(|access| format!("repository:{}:{}", access.repository, access.actions.join(",")))
        .collect()
}

/// Adds to our scopes those of the challenge that ours do not cover (`repository:a:pull,push` covers
/// `repository:a:pull`).
pub(super) fn together(mut ours: Vec<String>, theirs: &[String]) -> Vec<String> {
    let covers = |ours: &String, theirs: &str| {
        let (Some((a, have)), Some((b, want))) = (ours.rsplit_once(':'), theirs.rsplit_once(':')) else {
            return false;
        };
        a == b && want.split(',').all(|action| have.split(',').any(|had| had == action))
    };
    for scope in theirs {
        if !ours.iter().any(|own| covers(own, scope)) {
            ours.push(scope.clone());
        }
    }
    ours
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

/// Fetches an access token. It makes all attempts itself, so callers need not try again.
pub(super) async fn fetch(
    clients: &Clients,
    server: &CircuitBreaker,
    realm: &Url,
    service: Option<&str>,
    scopes: &[String],
    key: Option<&Key>,
) -> Result<Token> {
    let mut backoff = server.backoff();
    loop {
        let error = match fetch_once(clients, server, realm, service, scopes, key).await {
            Ok(token) => {
                server.answers();
                return Ok(token);
            }
            Err(error) => error.context("log in"),
        };
        server.extend(&mut backoff);
        let Some(wait) = backoff.after(&error) else {
            match error.is_transient() {
                true => server.given_up(),
                // A refusal shows that the server answers.
                false => server.answers(),
            }
            return Err(backoff.give_up(error));
        };
        tokio::time::sleep(wait).await;
    }
}

async fn fetch_once(
    clients: &Clients,
    server: &CircuitBreaker,
    realm: &Url,
    service: Option<&str>,
    scopes: &[String],
    key: Option<&Key>,
) -> Result<Token> {
    let service = service.map(|service| ("service", service));
    let pinned = clients.is_pinned();
    let http = clients.of(realm.scheme())?;
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
    let shown = guard::redacted(&url);
    let response = request.timeout(IDLE).send().await.map_err(|error| {
        match retry::is_certificate(&error) && clients.pin(pinned) {
            true => Error::transient(format!("{method} {shown}: its certificate is no authority's")),
            false => retry::broken(method, &shown, &error),
        }
    })?;
    server.answers();
    let (status, headers) = (response.status(), response.headers().clone());
    if !status.is_success() {
        let said = super::body::explanation(response).await;
        let error = retry::refusal(method, &shown, status, &headers, &said);
        return Err(match error.kind {
            // Whatever the status, this concerns the credentials: it does not mean that an image is missing.
            Kind::NotFound | Kind::Invalid | Kind::Unsupported => error.of_kind(Kind::Unauthorized),
            Kind::Denied => error.help(match key {
                Some(_) => {
                    "the token server gives this login no right to the repository: check its name, and the login's rights"
                }
                None => "no login was sent, and the repository may be private: `dray login` logs in; or check its name",
            }),
            _ => error,
        });
    }
    let body = super::body::bounded(response, 1 << 20).await?;
    let answer: Answer = serde_json::from_slice(&body).map_err(|error| {
        Error::invalid(format!("read the token of {shown}: it is no JSON: {error}"))
            .help("the registry sends its users there for tokens; what answers is no token server")
    })?;
    let token = answer.token().ok_or_else(|| {
        Error::new(Kind::Unauthorized, format!("{method} {shown} answered without a token"))
            .help("the registry's token server is broken, or is none")
    })?;
    Ok(Token { secret: Secret::new(token), until: Instant::now() + answer.lifetime() - MARGIN })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parameters(pairs: &[(&str, &str)]) -> Vec<(String, String)> {
        pairs.iter().map(|(key, value)| (key.to_string(), value.to_string())).collect()
    }

    #[test]
    fn reads_challenges_in_every_legal_form() {
        let realm = ("realm", "https://a.example/token?x=1,2");
        for (header, expected) in [
            (
                r#"Bearer realm="https://a.example/token?x=1,2",service=r.example, scope="a:b:c,d""#,
                vec![("Bearer", parameters(&[realm, ("service", "r.example"), ("scope", "a:b:c,d")]))],
            ),
            (
                r#"Basic realm="x", Bearer realm = "https://a.example/token?x=1,2""#,
                vec![("Basic", parameters(&[("realm", "x")])), ("Bearer", parameters(&[realm]))],
            ),
            (
                r#"Bearer service="say \"hi\", \\you",realm="https://a.example/token?x=1,2",Negotiate, Basic"#,
                vec![
                    ("Bearer", parameters(&[("service", r#"say "hi", \you"#), realm])),
                    ("Negotiate", Vec::new()),
                    ("Basic", Vec::new()),
                ],
            ),
            (
                r#", ,=x Bearer realm="never closed"#,
                vec![("x", Vec::new()), ("Bearer", parameters(&[("realm", "never closed")]))],
            ),
            ("", Vec::new()),
        ] {
            let read = challenges_of(header);
            let expected: Vec<Asked> =
                expected.into_iter().map(|(scheme, parameters)| (scheme.to_owned(), parameters)).collect();
            assert_eq!(read, expected, "{header}");
        }
    }

    #[test]
    fn bearer_goes_first_and_a_broken_one_leaves_basic() {
        let chosen = |header: &str| choose(&challenges_of(header));
        let Ok(Some(Challenge::Bearer { service, .. })) =
            chosen(r#"Basic realm="x", Bearer realm="https://a.example/",service="""#)
        else {
            panic!()
        };
        assert_eq!(service, None);
        assert_eq!(chosen("Bearer realm=nowhere, Basic realm=x"), Ok(Some(Challenge::Basic)));
        assert_eq!(chosen("Bearer realm=nowhere"), Err(()));
        assert_eq!(chosen("Negotiate"), Ok(None));
    }

    #[test]
    fn answers_of_token_servers_are_odd() {
        let read = |text: &str| {
            let answer: Answer = serde_json::from_str(text).unwrap();
            (answer.token().map(str::to_owned), answer.lifetime().as_secs())
        };
        assert_eq!(read(r#"{"token":"","access_token":"a","expires_in":-5}"#), (Some("a".into()), 60));
        assert_eq!(read(r#"{"token":"t","expires_in":"300"}"#), (Some("t".into()), 300));
        assert_eq!(read(r#"{"token":null,"expires_in":3600.9}"#), (None, 3600));
        assert_eq!(read(r#"{"access_token":"a","expires_in":1e300}"#), (Some("a".into()), 86_400));
    }

    #[test]
    fn scopes_of_the_challenge_are_asked_for_too() {
        let all = |ours: &[&str], theirs: &[&str]| {
            let owned = |texts: &[&str]| texts.iter().map(|text| text.to_string()).collect::<Vec<_>>();
            together(owned(ours), &owned(theirs))
        };
        let push = "repository:a:pull,push";
        assert_eq!(all(&[push], &["repository:a:pull"]), [push]);
        assert_eq!(all(&[push], &["repository:x/a:pull,push"]), [push, "repository:x/a:pull,push"]);
        assert_eq!(all(&[push], &["registry:catalog:*", "odd"]), [push, "registry:catalog:*", "odd"]);
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
