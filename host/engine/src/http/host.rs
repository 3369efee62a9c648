//! One host and what was learnt about it: its protocol, its challenges, its tokens.

use super::{
    auth::{self, Challenge, Token},
    breaker::{CircuitBreaker, Refusals},
    connect::Clients,
    explain::{self, Broken, Meaning},
    guard::{self, redacted},
    lines::KnownLines,
    pace::Pace,
    rate_limit::Allowance,
    retry::{self, IDLE},
    settings::{Daemon, Plain, RegistrySettings},
};
use crate::schedule::action::{Action, Windows};
use crate::{
    Error, Kind, Result,
    contract::{Access, Body, Credential, Key, Lookup, Reason, Request, Unsigned},
    lock,
    schedule::rate::RateLimiter,
};
use dray_core::{Address, shown_proxy};
use reqwest::header::{HeaderMap, HeaderName, HeaderValue};
use std::{
    collections::HashMap,
    sync::{
        Arc, Mutex,
        atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering},
    },
    time::{Duration, Instant, SystemTime},
};
use tokio::sync::{OnceCell, Semaphore};
use url::Url;

/// Finds the host of a token realm by its `host[:port]`. The flag says whether a public server named it.
pub(super) type Elsewhere<'a> = &'a (dyn Fn(&str, bool) -> Result<Arc<Host>> + Sync);

pub(super) struct Host {
    /// The `host[:port]` of the host.
    pub address: String,
    /// The name by which users know the host.
    pub registry: String,
    pub settings: RegistrySettings,
    pub clients: Clients,
    /// Limits the requests of all actions together.
    pub slots: Arc<Semaphore>,
    /// Limits the requests of each action, because registries limit each action separately.
    pub windows: Windows,
    pub rate: Option<RateLimiter>,
    /// How fast blobs are sent to the host.
    pub pace: Pace,
    /// Over how many connections at once a blob is read from the host.
    pub lines: KnownLines,
    scheme: OnceCell<&'static str>,
    challenges: Mutex<Challenges>,
    /// What the host asks for, if dray supports none of it.
    unknown_schemes: Mutex<String>,
    /// Tokens by server and scopes. Each has its own lock, so that it is fetched once for all who wait for it.
    tokens: Mutex<HashMap<String, Arc<tokio::sync::Mutex<Option<Token>>>>>,
    credentials: tokio::sync::Mutex<Vec<CachedCredential>>,
    /// Why the auth providers failed the last time, and when. They are not asked again at once, because many requests may wait
    /// for a service that does not answer.
    /// Credentials that the registry refused, and for which the providers have no others.
    given_up: Mutex<Vec<Key>>,
    /// Those that are sent before the registry asks.
    ahead_credentials: tokio::sync::Mutex<Vec<CachedCredential>>,
    /// Held while another credential is looked for.
    replacing: tokio::sync::Mutex<()>,
    /// How often another credential was looked for.
    replacements: AtomicUsize,
    unusable: Mutex<Option<(Instant, Error)>>,
    /// The host asked us to send no request before this time (Retry-After).
    patience: Mutex<Option<Instant>>,
    /// When this value was created.
    made: Instant,
    /// When bytes last moved, in milliseconds since `made`.
    moved: AtomicU64,
    /// Whether the user was warned that the host allows few more requests.
    told: AtomicBool,
    /// Whether the user was warned that requests to the host fail.
    in_trouble: AtomicBool,
    pub away: CircuitBreaker,
    pub refusals: Refusals,
    /// The circuit breaker of the server that issues tokens for this host.
    token_server: CircuitBreaker,
}

/// The user is told of waits that are at least this long.
const LONG_WAIT: Duration = Duration::from_secs(3);

/// For how long auth providers that failed are not asked again.
const FAILED: Duration = Duration::from_secs(60);

/// The longest lifetime of a cached credential. No run takes longer.
const LONG: Duration = Duration::from_secs(365 * 86_400);

/// The challenge of a registry, and whether the registry is public.
#[derive(Clone, Debug, PartialEq)]
struct Asked {
    challenge: Challenge,
    public: bool,
}

/// The known challenges of a host. Several registries may share one address, each with its own token server.
#[derive(Default)]
struct Challenges {
    /// The challenge that is assumed for repositories that are not in `others`.
    usual: Option<Asked>,
    /// Challenges of repositories that differ from the usual one.
    others: HashMap<String, Asked>,
}

impl Challenges {
    fn of(&self, repository: &str) -> Option<Asked> {
        self.others.get(repository).or(self.usual.as_ref()).cloned()
    }

    /// Stores the challenge of a repository. Returns the one that was known before.
    fn learn(&mut self, repository: &str, asked: Asked) -> Option<Asked> {
        let before = self.of(repository);
        let mut usual = asked.clone();
        if let Challenge::Bearer { scopes, .. } = &mut usual.challenge {
            // The scopes that one repository needs do not apply to others.
            scopes.clear();
        }
        let usual = self.usual.get_or_insert(usual);
        match *usual == asked {
            true => _ = self.others.remove(repository),
            false => _ = self.others.insert(repository.into(), asked),
        }
        before
    }
}

/// Whether an action is among those of a request. `login`, `sign` and `none` are those of requests that are none of the
/// distribution specification: they need the user name and the password themselves, a signature, or nothing.
fn acts(access: &[Access], wanted: &str) -> bool {
    access.iter().any(|access| access.actions.iter().any(|action| action == wanted))
}

/// What a request does to its first repository.
fn actions(access: &[Access]) -> &[String] {
    access.first().map_or(&[], |access| &access.actions)
}

fn first(access: &[Access]) -> &str {
    access.first().map_or("", |access| access.repository.as_str())
}

/// How often a run asks the providers of one registry for another credential. A provider that alternates between two wrong
/// ones is not asked for ever.
const REPLACEMENTS: usize = 64;

/// An Authorization header.
pub struct Sent {
    pub header: HeaderValue,
    /// The credential in it. `None` means that it is an access token, which is not refused for good.
    pub key: Option<Key>,
    /// Whether the registry has not asked for it.
    pub ahead: bool,
}

impl Sent {
    fn token(token: &str) -> Result<Option<Self>> {
        Ok(Some(Sent { header: auth::header("Bearer", token)?, key: None, ahead: false }))
    }

    /// A credential that is sent as it is. An identity token is not.
    fn as_it_is(credential: Option<Credential>, ahead: bool) -> Result<Option<Self>> {
        let Some(Credential { key, .. }) = credential else { return Ok(None) };
        let header = match &key {
            Key::Basic(user, password) => auth::basic(user, password)?,
            Key::Bearer(token) => auth::header("Bearer", token.expose())?,
            Key::IdentityToken(_) => return Ok(None),
        };
        Ok(Some(Sent { header, key: Some(key), ahead }))
    }
}

/// The answer of the auth providers for repositories with a prefix. A `covers` of `None` means all repositories.
struct CachedCredential {
    covers: Option<String>,
    credential: Option<Credential>,
    until: Option<Instant>,
}

impl CachedCredential {
    /// A credential that was found just now.
    fn new(credential: &Credential) -> Self {
        CachedCredential {
            covers: credential.covers.clone(),
            until: credential.lifetime.map(|lifetime| Instant::now() + lifetime.min(LONG)),
            credential: Some(credential.clone()),
        }
    }

    fn is_for(&self, repository: &str) -> bool {
        self.covers.as_deref().is_none_or(|prefix| {
            repository == prefix || repository.strip_prefix(prefix).is_some_and(|rest| rest.starts_with('/'))
        })
    }
}

/// Turns an auth provider's error into `Invalid`: missing credentials do not tell whether an image exists.
fn unusable(error: Error) -> Error {
    let error = match error.help {
        Some(_) => error,
        None => error.help("mend what it names, or log in again; `auth` of the registry in the policy names other credentials"),
    };
    match error.kind {
        Kind::Plugin | Kind::Cancelled => error,
        _ => error.of_kind(Kind::Invalid),
    }
}

/// The key of a token in the cache: its server and its scopes.
fn slot(challenge: &Challenge, scopes: &[String]) -> String {
    match challenge {
        Challenge::Basic => String::new(),
        Challenge::Bearer { realm, service, .. } => {
            format!("{realm}\n{}\n{}", service.as_deref().unwrap_or_default(), scopes.join(" "))
        }
    }
}

impl Host {
    pub fn new(address: &str, registry: &str, settings: RegistrySettings, clients: Clients) -> Self {
        let windows = Windows::new(settings.concurrency);
        Host {
            address: address.into(),
            registry: registry.into(),
            slots: Arc::new(Semaphore::new(settings.concurrency)),
            windows,
            rate: settings.bandwidth.map(RateLimiter::new),
            pace: Pace::default(),
            lines: KnownLines::default(),
            settings,
            clients,
            scheme: OnceCell::new(),
            challenges: Mutex::default(),
            unknown_schemes: Mutex::default(),
            tokens: Mutex::default(),
            credentials: tokio::sync::Mutex::default(),
            unusable: Mutex::default(),
            given_up: Mutex::default(),
            ahead_credentials: tokio::sync::Mutex::default(),
            replacing: tokio::sync::Mutex::default(),
            replacements: AtomicUsize::default(),
            patience: Mutex::default(),
            made: Instant::now(),
            moved: AtomicU64::default(),
            told: AtomicBool::default(),
            in_trouble: AtomicBool::default(),
            away: CircuitBreaker::default(),
            refusals: Refusals::default(),
            token_server: CircuitBreaker::default(),
        }
    }

    /// The address to which a request is actually sent, with the detected protocol, and with the real address of a
    /// daemon or of a registry that dray serves itself.
    pub async fn real(&self, url: &Url) -> Result<Url> {
        if let Some(daemon) = &self.settings.daemon {
            let base = match daemon {
                Daemon::Unix(_) => "http://localhost".to_owned(),
                Daemon::Tcp { address, tls } => {
                    format!("{}://{address}", if *tls { "https" } else { "http" })
                }
            };
            let rest = &url[url::Position::BeforePath..];
            return Url::parse(&format!("{base}{rest}"))
                .map_err(|_| Error::invalid(format!("read the address {base}")));
        }
        let scheme = self.scheme().await?;
        let mut real = url.clone();
        let malformed = |_| Error::invalid(format!("read the address {}", redacted(url)));
        if let Some(origin) = &self.settings.origin {
            let (host, port) = origin.address.rsplit_once(':').unwrap_or((&origin.address, "80"));
            real.set_scheme("http").map_err(malformed)?;
            real.set_host(Some(host)).map_err(|_| malformed(()))?;
            real.set_port(port.parse().ok()).map_err(malformed)?;
        } else if scheme != real.scheme() {
            let port = real.port();
            real.set_scheme(scheme).map_err(malformed)?;
            real.set_port(port).map_err(malformed)?;
        }
        Ok(real)
    }

    /// The scheme of the host. A host that may use plain HTTP is probed once: it does so if it does not answer to TLS.
    async fn scheme(&self) -> Result<&'static str> {
        let fallback = match self.settings.tls.plain {
            Plain::Never => return Ok("https"),
            Plain::Always => return Ok("http"),
            Plain::Loopback => guard::is_loopback(&self.address),
            Plain::Fallback => true,
        };
        if !fallback {
            return Ok("https");
        }
        let probe = async || {
            let url = format!("https://{}/v2/", self.address);
            match self.clients.plain().head(&url).timeout(IDLE).send().await {
                // No connection was established, so we learnt nothing about the protocol.
                Err(error) if retry::is_unreachable(&error) => Err(self.unreachable(&url, &error)),
                Err(error) if error.is_connect() && !retry::is_certificate(&error) => Ok("http"),
                _ => Ok("https"),
            }
        };
        self.scheme.get_or_try_init(probe).await.copied()
    }

    /// The Authorization header, if the host wants one.
    pub async fn authorization(&self, elsewhere: Elsewhere<'_>, access: &[Access]) -> Result<Option<Sent>> {
        if let Some(origin) = &self.settings.origin {
            return Sent::token(origin.token.expose());
        }
        let repository = first(access);
        if acts(access, "none") || acts(access, "sign") {
            return Ok(None);
        }
        if acts(access, "login") {
            // A password goes only where nobody can listen, unless the registry itself asks for it in that way.
            if !self.is_safe().await? && !self.wants_password(repository) {
                return Ok(None);
            }
            return Sent::as_it_is(self.credential(access).await?, false);
        }
        let Some(asked) = lock(&self.challenges).of(repository) else { return self.ahead(access).await };
        let credential = self.credential(access).await?;
        match (&asked.challenge, credential.as_ref().map(|credential| &credential.key)) {
            (_, Some(Key::Bearer(_))) | (Challenge::Basic, Some(Key::Basic(..)) | None) => {
                Sent::as_it_is(credential, false)
            }
            (Challenge::Basic, Some(Key::IdentityToken(_))) => {
                let text = format!(
                    "log in to {}: it wants a password, and there is an identity token",
                    self.registry
                );
                Err(Error::new(Kind::Unauthorized, text)
                    .help("write `username` and `password`, or `credentials`, in its `auth`"))
            }
            (Challenge::Bearer { realm, service, scopes }, key) => {
                let scopes = auth::together(auth::scopes(access), scopes);
                let slot = lock(&self.tokens).entry(slot(&asked.challenge, &scopes)).or_default().clone();
                let mut token = slot.lock().await;
                if let Some(token) = token.as_ref().filter(|token| token.is_fresh()) {
                    return Sent::token(token.secret.expose());
                }
                let from = Url::parse(&format!("{}://{}", self.scheme().await?, self.address));
                let from = from.map_err(|_| Error::invalid(format!("read the address {}", self.address)))?;
                let doing = |error: Error| error.context(format!("log in to {}", self.registry));
                guard::check(&from, realm, asked.public).map_err(doing)?;
                // The realm may be on another host, which has its own trusted authorities and client certificate.
                let authority = guard::authority(realm);
                let elsewhere = match authority == self.address {
                    true => None,
                    false => Some(elsewhere(&authority, asked.public)?),
                };
                let clients = elsewhere.as_ref().map_or(&self.clients, |host| &host.clients);
                let server = &self.token_server;
                let service = service.as_deref();
                let mut fresh = auth::fetch(clients, server, realm, service, &scopes, key).await;
                if fresh.as_ref().is_err_and(|error| error.kind == Kind::Unauthorized)
                    && let Some(refused) = &credential
                    && let Some(other) = self.other_credential(access, &refused.key, false).await?
                {
                    fresh = auth::fetch(clients, server, realm, service, &scopes, Some(&other.key)).await;
                }
                let fresh = fresh.map_err(|error| self.explain(error, credential.as_ref()))?;
                let sent = Sent::token(fresh.secret.expose());
                *token = Some(fresh);
                sent
            }
        }
    }

    /// Whether nobody can listen to what is sent.
    async fn is_safe(&self) -> Result<bool> {
        Ok(guard::is_loopback(&self.address) || self.scheme().await? == "https")
    }

    /// The header that is sent although the registry has not asked for a login. `None` means that there is none. Only what the
    /// policy names for this registry is asked before the registry asks.
    async fn ahead(&self, access: &[Access]) -> Result<Option<Sent>> {
        if !self.settings.auth_named {
            return Ok(None);
        }
        let found = self.looked_up(access, Reason::First, true).await?.filter(|found| found.always);
        if found.is_some() && !self.is_safe().await? {
            let text = format!("send a login to {} unasked: it would travel over plain HTTP", self.registry);
            return Err(
                Error::new(Kind::Unauthorized, text).help("leave `when = \"always\"` out, or tls = \"off\"")
            );
        }
        Sent::as_it_is(found, true)
    }

    /// Whether the registry would get the same header again, now that it has asked for a login.
    pub async fn repeats(&self, access: &[Access], sent: &Key) -> Result<bool> {
        let asked = lock(&self.challenges).of(first(access));
        let basic = asked.is_some_and(|asked| asked.challenge == Challenge::Basic);
        let next = self.credential(access).await?.map(|credential| credential.key);
        Ok((basic || matches!(sent, Key::Bearer(_))) && next.as_ref() == Some(sent))
    }

    /// Another credential than the one that the registry refused. `None` means that the providers have no other, so that no
    /// request sends the same password twice.
    async fn other_credential(
        &self,
        access: &[Access],
        refused: &Key,
        ahead: bool,
    ) -> Result<Option<Credential>> {
        // One refusal leads to one question, also if many requests are refused at once.
        let _one = self.replacing.lock().await;
        let current = self.looked_up(access, Reason::First, ahead).await?;
        if current.as_ref().is_some_and(|current| current.key != *refused) {
            return Ok(current);
        }
        if lock(&self.given_up).contains(refused)
            || self.replacements.fetch_add(1, Ordering::Relaxed) >= REPLACEMENTS
        {
            return Ok(None);
        }
        let found = self.looked_up(access, Reason::Refused, ahead).await?;
        let other = found.filter(|found| found.key != *refused);
        match &other {
            None => lock(&self.given_up).push(refused.clone()),
            // By now the registry has asked, so the next request takes what is kept for that.
            Some(other) if ahead => {
                let mut known = self.credentials.lock().await;
                known.retain(|known| !known.is_for(first(access)));
                known.push(CachedCredential::new(other));
            }
            Some(_) => {}
        }
        Ok(other)
    }

    /// Whether there is another credential, after the registry refused one that was sent as it is.
    pub async fn replaced(&self, access: &[Access], sent: &Sent) -> Result<bool> {
        let Some(key) = &sent.key else { return Ok(false) };
        if ["login", "none", "sign"].iter().any(|action| acts(access, action)) {
            return Ok(false);
        }
        Ok(self.other_credential(access, key, sent.ahead).await?.is_some())
    }

    /// The registry's login for an API of it at another host, which is reached over TLS. `None` means that the request does
    /// not ask for it, or that there is none.
    pub async fn login_beside(&self, access: &[Access]) -> Result<Option<HeaderValue>> {
        if !acts(access, "login") {
            return Ok(None);
        }
        let credential = self.credential(access).await?;
        match credential.as_ref().map(|credential| &credential.key) {
            Some(Key::Basic(user, password)) => auth::basic(user, password).map(Some),
            Some(Key::Bearer(_) | Key::IdentityToken(_)) | None => Ok(None),
        }
    }

    /// The headers by which an auth provider of the registry signs a request. There are none if its access does not say
    /// `sign`. `is_safe` says that nobody can listen. Fails if somebody can, or if no provider signs it.
    pub async fn signature(
        &self,
        request: &Request,
        url: &Url,
        body: Body<'_>,
        is_safe: bool,
    ) -> Result<HeaderMap> {
        let mut signed = HeaderMap::new();
        if !acts(&request.access, "sign") {
            return Ok(signed);
        }
        let url = Address::new(url.as_str());
        if !is_safe {
            let text = format!("sign a request to {}: it would travel over plain HTTP", url.shown());
            return Err(
                Error::new(Kind::Unauthorized, text).help("its API needs TLS: leave tls = \"off\" out")
            );
        }
        let unsigned = Unsigned { method: &request.method, url: &url, headers: &request.headers, body };
        for provider in &self.settings.auth {
            let Some(headers) = provider.sign(&self.registry, &unsigned).await.map_err(unusable)? else {
                continue;
            };
            for (name, value) in headers {
                let odd =
                    || Error::invalid(format!("sign a request to {}: a header is malformed", url.shown()));
                let name = HeaderName::try_from(&name).map_err(|_| odd())?;
                let mut value = HeaderValue::from_str(value.expose()).map_err(|_| odd())?;
                value.set_sensitive(true);
                signed.insert(name, value);
            }
            return Ok(signed);
        }
        let text = format!("sign a request to {}: no auth provider of {} does", url.shown(), self.registry);
        Err(Error::new(Kind::Unauthorized, text)
            .help(format!("name the provider of its cloud in `auth` of [registry.\"{}\"]", self.registry)))
    }

    /// The service that the host named when it asked for a token.
    pub fn service(&self) -> Option<String> {
        match lock(&self.challenges).usual.as_ref().map(|asked| &asked.challenge) {
            Some(Challenge::Bearer { service, .. }) => service.clone(),
            Some(Challenge::Basic) | None => None,
        }
    }

    /// Learns the challenge of a 401. Returns whether another attempt may succeed.
    pub fn challenged(
        &self,
        response: &reqwest::Response,
        access: &[Access],
        anonymous: bool,
    ) -> Result<bool> {
        if ["login", "none", "sign"].iter().any(|action| acts(access, action)) {
            // What an API beside the distribution specification asks for says nothing of that specification.
            return Ok(false);
        }
        let Some(challenge) = auth::challenge(response)? else {
            *lock(&self.unknown_schemes) = auth::unknown_schemes(response);
            return Ok(false);
        };
        lock(&self.unknown_schemes).clear();
        let public = self.is_public(response);
        let fresh = Asked { challenge, public };
        let before = lock(&self.challenges).learn(first(access), fresh.clone());
        // Drop the token, because it was refused.
        for asked in before.iter().chain([&fresh]) {
            if let Challenge::Bearer { scopes, .. } = &asked.challenge {
                let scopes = auth::together(auth::scopes(access), scopes);
                lock(&self.tokens).remove(&slot(&asked.challenge, &scopes));
            }
        }
        // This request may have been sent without credentials while another one was learning the challenge.
        Ok(anonymous || matches!(fresh.challenge, Challenge::Bearer { .. }) || before != Some(fresh))
    }

    async fn credential(&self, access: &[Access]) -> Result<Option<Credential>> {
        self.looked_up(access, Reason::First, false).await
    }

    /// The credentials that are kept: those for a registry that asks, or those that are sent ahead.
    fn kept(&self, ahead: bool) -> &tokio::sync::Mutex<Vec<CachedCredential>> {
        if ahead { &self.ahead_credentials } else { &self.credentials }
    }

    /// The credential that is kept, or that the providers have; `ahead` asks only those that say so of themselves. Among kept
    /// ones, one that is over makes the reason `Expired`.
    async fn looked_up(&self, access: &[Access], mut why: Reason, ahead: bool) -> Result<Option<Credential>> {
        let repository = first(access);
        let mut known = self.kept(ahead).lock().await;
        let now = Instant::now();
        let is_over = |known: &CachedCredential| known.until.is_some_and(|until| until <= now);
        if why == Reason::First && known.iter().any(|known| is_over(known) && known.is_for(repository)) {
            why = Reason::Expired;
        }
        known.retain(|known| !is_over(known));
        if why == Reason::Refused {
            known.retain(|known| !known.is_for(repository));
        }
        if let Some(known) = known.iter().find(|known| known.is_for(repository)) {
            return Ok(known.credential.clone());
        }
        if let Some((since, error)) = lock(&self.unusable).as_ref()
            && since.elapsed() < FAILED
        {
            return Err(error.clone());
        }
        for provider in &self.settings.auth {
            if ahead && !provider.is_ahead().await? {
                continue;
            }
            let asked = Lookup { registry: &self.registry, repository, actions: actions(access), why };
            let found = provider.lookup(asked).await.map_err(unusable);
            if let Err(error) = &found {
                *lock(&self.unusable) = Some((Instant::now(), error.clone()));
            }
            let found = found?;
            if let Some(credential) = found {
                known.push(CachedCredential::new(&credential));
                return Ok(Some(credential));
            }
        }
        known.push(CachedCredential { covers: Some(repository.into()), credential: None, until: None });
        Ok(None)
    }

    /// Whether the host has asked for a user name and a password.
    pub fn wants_password(&self, repository: &str) -> bool {
        let asked = lock(&self.challenges).of(repository);
        asked.is_some_and(|asked| asked.challenge == Challenge::Basic)
    }

    /// Whether the host has asked for a login.
    pub fn asks_for_login(&self, repository: &str) -> bool {
        lock(&self.challenges).of(repository).is_some()
    }

    /// Adds help to a refusal: where the credentials came from, or how to provide some.
    pub async fn refused(&self, error: Error, access: &[Access]) -> Error {
        if error.kind != Kind::Unauthorized {
            return error;
        }
        let credential = self.credential(access).await.ok().flatten();
        self.explain(error, credential.as_ref())
    }

    fn explain(&self, error: Error, credential: Option<&Credential>) -> Error {
        if error.kind != Kind::Unauthorized || error.help.is_some() {
            return error;
        }
        let registry = &self.registry;
        let unknown = lock(&self.unknown_schemes).clone();
        if !unknown.is_empty() {
            let unknown = dray_core::harmless(&unknown, 80);
            return error.help(format!(
                "{registry} asks for a login of the kind {unknown}; dray knows Basic and Bearer"
            ));
        }
        match credential {
            Some(credential) => error.help(format!("{registry} refused the credentials from {}", credential.origin)),
            None if self.settings.auth_named => error.help(format!(
                "the auth providers that the policy names for {registry} were asked, and know no credentials for it"
            )),
            None => error.help(format!("no credentials for {registry} were found: `dray login {registry}` logs in, and so does `docker login`; a policy may name other credentials in `auth`")),
        }
    }

    /// Whether the server that answered is public. Behind a proxy only the host name can tell.
    pub fn is_public(&self, response: &reqwest::Response) -> bool {
        let direct = self.clients.proxy(response.url().scheme()).is_none();
        let peer = response.remote_addr().filter(|_| direct).map(|peer| peer.ip());
        guard::is_public(response.url(), peer)
    }

    /// Remembers that the host asked us to wait, and sends fewer requests at once.
    pub fn slow_down(&self, action: Action, begun: Instant, error: &Error) {
        if matches!(error.kind, Kind::RateLimited(_)) {
            self.windows.of(action).cut(begun);
        }
        if let Kind::RateLimited(Some(told)) = error.kind {
            self.wait(told);
        }
    }

    fn wait(&self, told: Duration) {
        if told > retry::PATIENCE {
            return;
        }
        let (now, mut patience) = (Instant::now(), lock(&self.patience));
        if patience.is_some_and(|until| until >= now + told) {
            return;
        }
        let before = patience.replace(now + told);
        if told >= LONG_WAIT && before.is_none_or(|until| until < now) {
            tracing::warn!("{} asks for {} s of patience", self.registry, told.as_secs());
        }
    }

    /// Warns the user that requests fail repeatedly. This happens once per host.
    pub fn trouble(&self, error: &Error) {
        if !self.in_trouble.swap(true, Ordering::Relaxed) {
            tracing::warn!("{} fails, and is asked again for a while: {error}", self.registry);
        }
    }

    /// Adapts to the number of requests that an answer still allows, before the host has to refuse some.
    pub fn heed(&self, action: Action, headers: &HeaderMap) {
        let Some(allowance) = Allowance::read(headers, SystemTime::now()) else { return };
        self.windows.of(action).at_most(allowance.remaining);
        if let (0, Some(reset)) = (allowance.remaining, allowance.reset) {
            self.wait(reset);
        }
        if allowance.is_low() && !self.told.swap(true, Ordering::Relaxed) {
            let (registry, remaining) = (&self.registry, allowance.remaining);
            tracing::warn!(
                "{registry} lets {remaining} more requests pass before it refuses them for a while"
            );
        }
    }

    /// Waits as long as the host asked us to (Retry-After).
    pub async fn patience(&self) {
        let until = *lock(&self.patience);
        if let Some(until) = until.filter(|until| *until > Instant::now()) {
            tokio::time::sleep_until(until.into()).await;
        }
    }

    /// How much longer the host asks us to wait (Retry-After). `None` means that we need not wait.
    pub fn asks_for_patience(&self) -> Option<Duration> {
        let until = (*lock(&self.patience))?;
        Some(until.saturating_duration_since(Instant::now())).filter(|left| !left.is_zero())
    }

    /// Records that the host answered, or that bytes were sent to it or received from it.
    pub fn moves(&self) {
        self.away.answers();
        self.moved.store(self.made.elapsed().as_millis() as u64, Ordering::Relaxed);
    }

    /// Whether the host has no free slot, and nothing has moved for at least this long.
    pub fn stands_still(&self, long: Duration) -> bool {
        let since =
            (self.made.elapsed().as_millis() as u64).saturating_sub(self.moved.load(Ordering::Relaxed));
        self.slots.available_permits() == 0 && Duration::from_millis(since) >= long
    }

    /// The error for a host that cannot be reached, so that its protocol could not be detected.
    fn unreachable(&self, url: &str, error: &reqwest::Error) -> Error {
        match Url::parse(url) {
            Ok(url) => self.broken("HEAD", &url, error),
            Err(_) => retry::broken("HEAD", url, error),
        }
    }

    /// The error for a failure below HTTP, explained for people.
    pub fn broken(&self, method: &str, url: &Url, error: &reqwest::Error) -> Error {
        let causes = retry::causes(error);
        let socket = self.settings.daemon.as_ref().and_then(|daemon| match daemon {
            Daemon::Unix(path) => Some(path.as_path()),
            Daemon::Tcp { .. } => None,
        });
        let authority = match &self.settings.daemon {
            Some(Daemon::Tcp { address, .. }) => address.clone(),
            _ => guard::authority(url),
        };
        let proxy = self.clients.proxy(url.scheme()).map(shown_proxy);
        let plain = self.shown(url).starts_with("http:");
        let known = Broken {
            causes: &causes,
            host: &authority,
            plain,
            socket,
            daemon: self.settings.daemon.is_some(),
            proxy: proxy.as_deref(),
        };
        let meaning = explain::meaning(&known);
        let broken = retry::broken(method, &self.shown(url), error);
        let broken = match meaning {
            Some(Meaning { why, help }) => {
                broken.retold(format!("{method} {}: {why}", self.shown(url))).help(help)
            }
            None => broken,
        };
        match proxy.filter(|_| error.is_connect() && broken.help.is_none()) {
            Some(proxy) => {
                let text = format!("{} (through the proxy {proxy})", broken.text);
                broken.retold(text)
            }
            None => broken,
        }
    }

    /// An address as it is shown to people: without its query, which may contain signatures, and with the scheme in
    /// use.
    pub fn shown(&self, url: &Url) -> String {
        let plain = self.settings.tls.plain == Plain::Always || self.scheme.get() == Some(&"http");
        let (mine, shown) = (guard::authority(url) == self.address, redacted(url));
        match shown.strip_prefix("https:") {
            Some(rest) if mine && plain && self.settings.origin.is_none() => format!("http:{rest}"),
            _ => shown,
        }
    }
}
