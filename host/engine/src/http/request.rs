//! Requests on behalf of a place.

use super::{
    body::{bounded, decoded, explanation},
    client::Client,
    guard::{self, redacted},
    host::Host,
    remedy,
    retry::{self, Backoff, IDLE, TROUBLE},
    settings::Standing,
};
use crate::schedule::action::Action;
use crate::{
    DOCUMENT_LIMIT, Error, Kind, Result,
    contract::{Body, Request, Response},
    lock,
    schedule::rate::RateLimiter,
};
use bytes::Bytes;
use dray_core::Address;
use reqwest::{
    Method, StatusCode,
    header::{self, HeaderMap},
};
use std::{
    collections::HashMap,
    sync::{Arc, Mutex},
    time::{Duration, Instant},
};
use url::Url;

const REDIRECTS: usize = 10;

/// The HTTP access of one place.
pub struct PlaceHttp {
    pub(super) client: Client,
    pub(super) host: Arc<Host>,
    /// Hosts that the place may contact beside its own, and whether they get the login of the registry if a request asks
    /// for it.
    pub(super) granted: Mutex<HashMap<String, bool>>,
    /// Whether the transport is a plugin and not part of dray. A plugin may only contact hosts that were granted.
    pub(super) stranger: bool,
    /// Whether the authorization of a request is written by whoever makes it. Such a request is sent to no other host.
    authorizes: bool,
    /// Whether the addresses of its requests may be secrets, so that no text shows more of them than the host.
    hides: bool,
    /// Origins to which the place itself sent an upload, and whether the server that named each one is public.
    pub(super) learned: Mutex<HashMap<String, bool>>,
    /// Origins to which we refused to follow the place, and the reason.
    pub(super) refused: Mutex<HashMap<String, String>>,
}

/// What a place's transport may do with its host.
pub enum HostAccess {
    /// The transport is part of dray.
    Trusted {
        /// The name by which users know the registry. It selects the settings and credentials.
        registry: String,
    },
    /// The transport is a plugin.
    Stranger {
        /// Hosts that the policy grants to the plugin.
        granted: Vec<String>,
        /// Whether the user named the host. Otherwise the plugin chose it, and gets no credentials for it.
        named: bool,
    },
    /// A source of credentials asks the host. It writes the authorization of its requests itself, and no other host gets them.
    Provider,
    /// As a provider, and the addresses of its requests may be secrets.
    Observer,
}

/// The body of a request.
pub(super) enum Sending<'a> {
    /// A body that can be sent again.
    Small(&'a Bytes),
    /// A body that can be sent only once; the caller has to make another attempt.
    Once {
        /// Creates the body.
        body: &'a (dyn Fn() -> reqwest::Body + Sync),
        /// Whether a token was refused before. It is then not renewed a second time.
        renewed: bool,
        /// What is known of the body.
        known: Body<'a>,
    },
}

/// The result of a request.
pub(super) enum Followed {
    /// An answer, and the address that gave it.
    Answer(reqwest::Response, Url),
    /// The body was sent at least in part, but without success. It must be sent again, to this address.
    Again(Url),
}

impl PlaceHttp {
    /// Creates the access of a place at `host`. Fails if the TLS settings of the host cannot be used.
    pub fn new(client: &Client, host: &str, access: HostAccess) -> Result<Self> {
        // Normalise the host as addresses write it: in lower case, without the default port.
        let url = Url::parse(&format!("https://{host}"));
        let url = url.map_err(|error| Error::invalid(format!("read the host {host}: {error}")))?;
        let hides = matches!(access, HostAccess::Observer);
        let authorizes = hides || matches!(access, HostAccess::Provider);
        let (registry, granted, standing, stranger) = match access {
            HostAccess::Trusted { registry } => (registry, Vec::new(), Standing::Own, false),
            // No client certificate goes along either, and nothing of a registry that dray serves.
            HostAccess::Provider | HostAccess::Observer => {
                (host.to_owned(), Vec::new(), Standing::Chosen, true)
            }
            HostAccess::Stranger { granted, named } => {
                let standing = if named { Standing::Own } else { Standing::Chosen };
                (host.to_owned(), granted, standing, true)
            }
        };
        let host = client.host(&guard::authority(&url), &registry, standing)?;
        Ok(PlaceHttp {
            client: client.clone(),
            host,
            granted: Mutex::new(granted.into_iter().map(|host| (host, false)).collect()),
            stranger,
            authorizes,
            hides,
            learned: Mutex::default(),
            refused: Mutex::default(),
        })
    }

    /// The access of a web server that keeps something beside a registry: no credentials are sent. `origin` is
    /// `http://host[:port]` or `https://…`, and the name of its settings. Fails if it cannot be used.
    pub(crate) fn beside(client: &Client, origin: &str) -> Result<Self> {
        let url = Url::parse(origin).map_err(|error| Error::invalid(format!("read {origin}: {error}")))?;
        let host = client.host(&guard::authority(&url), origin, Standing::Chosen)?;
        Ok(PlaceHttp {
            client: client.clone(),
            host,
            granted: Mutex::default(),
            stranger: true,
            authorizes: false,
            hides: false,
            learned: Mutex::default(),
            refused: Mutex::default(),
        })
    }

    /// Lets the place ask a host that belongs to its registry. `trusted` says that it gets the login of the registry, if a
    /// request asks for that.
    pub(crate) fn lend(&self, host: &str, trusted: bool) {
        lock(&self.granted).insert(host.to_owned(), trusted);
    }

    /// The client of the run.
    pub(crate) fn client(&self) -> &Client {
        &self.client
    }

    /// Whether the registry is assumed to be unchanged since the last run.
    pub(crate) fn assumed(&self) -> bool {
        self.host.settings.assume_unchanged
    }

    /// The kind of the registry, if the operator says it.
    pub(crate) fn kind(&self) -> Option<&str> {
        self.host.settings.kind.as_deref()
    }

    /// The service that the host named when it asked for a token. `None` means that it has not done so yet.
    pub(crate) fn service(&self) -> Option<String> {
        self.host.service()
    }

    /// The `host[:port]` of the host.
    pub(crate) fn address(&self) -> &str {
        &self.host.address
    }

    /// How many documents can be requested from the host at once, at the moment.
    pub(crate) fn width(&self) -> usize {
        self.host.windows.of(Action::Read).size()
    }

    pub(crate) fn rate(&self) -> Option<&RateLimiter> {
        self.host.rate.as_ref()
    }

    /// How many bytes of a blob a request should carry, if so many are left. `None` means all of them.
    pub(crate) fn piece(&self, left: u64) -> Option<u64> {
        self.host.pace.piece(left)
    }

    /// Sends blobs whole from now on, because the host took no pieces, or lost them.
    pub(crate) fn no_pieces(&self) {
        self.host.pace.no_pieces();
    }

    /// Gets what authorises writing to a repository, if the host has asked for that before. A host that wants a user name
    /// and a password is asked whether they are right; tokens are checked by whom they are fetched from.
    pub(crate) async fn check_login(&self, repository: &str) -> Result<()> {
        let actions = ["pull", "push"].map(str::to_owned).to_vec();
        let access = [crate::contract::Access { repository: repository.into(), actions }];
        let elsewhere = |at: &str, public| self.client.led_to(at, public);
        self.host.authorization(&elsewhere, &access).await?;
        if !self.host.wants_password(repository) {
            return Ok(());
        }
        let request = Request {
            method: "GET".into(),
            url: Address::new(format!("https://{}/v2/", self.host.address)),
            headers: Vec::new(),
            expect: vec![200, 403, 404, 405],
            access: access.to_vec(),
        };
        self.send(&request, Bytes::new()).await.map(drop)
    }

    /// Asks whether the host takes the credentials for reading a repository; an empty name stands for the host itself.
    /// Returns false if the host asked for none, so that nobody checked them.
    pub(crate) async fn log_in(&self, repository: &str) -> Result<bool> {
        let request = Request {
            method: "GET".into(),
            url: Address::new(format!("https://{}/v2/", self.host.address)),
            headers: Vec::new(),
            expect: vec![200],
            access: vec![crate::contract::Access {
                repository: repository.into(),
                actions: vec!["pull".to_owned()],
            }],
        };
        self.send(&request, Bytes::new()).await?;
        Ok(self.host.asks_for_login(repository))
    }

    /// Sends a small request, and repeats it if that can help. Fails if the status of the answer is not one of those
    /// that were expected.
    pub async fn send(&self, request: &Request, body: Bytes) -> Result<Response> {
        let action = Action::of(&request.method);
        let refuses = self.host.refusals.refuses(action);
        if let Some(left) = self.host.asks_for_patience().filter(|_| refuses) {
            let (method, registry) = (&request.method, &self.host.registry);
            let text = format!("{method} {}: {registry} asks for patience", request.url.shown());
            let error = self.without_address(request, Error::new(Kind::RateLimited(Some(left)), text));
            return Err(Backoff::once().give_up(error));
        }
        let mut backoff = if refuses { Backoff::once() } else { self.host.away.backoff() };
        loop {
            let error = match self.attempt(request, body.clone()).await {
                Ok(response) => {
                    self.host.refusals.passed(action);
                    return Ok(response);
                }
                Err(error) => self.without_address(request, error),
            };
            // An observer's server may have heard of what it did not acknowledge, too.
            if (matches!(action, Action::Write) || self.hides) && error.kind == Kind::Transient {
                // The write may have succeeded although its answer was lost. The caller checks this before it writes
                // again.
                return Err(error);
            }
            if !refuses {
                self.host.away.extend(&mut backoff);
            }
            match backoff.after(&error) {
                Some(wait) => {
                    tracing::debug!(%error, ?wait, "trying again");
                    if backoff.failures() == TROUBLE {
                        self.host.trouble(&error);
                    }
                    tokio::time::sleep(wait).await;
                }
                None => {
                    match error.kind {
                        Kind::Transient => self.host.away.given_up(),
                        Kind::RateLimited(_) => self.host.refusals.given_up(action),
                        // Any other error is an answer to the request, so the host lets this action pass.
                        _ => self.host.refusals.passed(action),
                    }
                    return Err(self.host.refused(backoff.give_up(error), &request.access).await);
                }
            }
        }
    }

    /// An error of a request, without what stands behind the host in its address if that may be a secret.
    fn without_address(&self, request: &Request, error: Error) -> Error {
        let Some(url) = Url::parse(request.url.expose()).ok().filter(|_| self.hides) else { return error };
        let written = request.url.expose().split_once("://").and_then(|(_, rest)| rest.split_once('/'));
        let written = written.map(|(_, rest)| format!("/{rest}")).unwrap_or_default();
        let hidden = [written.as_str(), &url[url::Position::BeforePath..], url.path()].into_iter();
        let text = hidden
            .filter(|part| part.len() > 1)
            .fold(error.text.clone(), |text, part| text.replace(part, "/…"));
        error.retold(text)
    }

    async fn attempt(&self, request: &Request, body: Bytes) -> Result<Response> {
        let action = Action::of(&request.method);
        let (pass, permit) = loop {
            self.host.patience().await;
            let mut pass = self.host.windows.of(action).small().await;
            let permit = self.host.slots.clone().acquire_owned().await;
            // The host may have asked us to wait in the meantime. We then wait without holding a permit.
            if self.host.asks_for_patience().is_none() {
                pass.begins();
                break (pass, permit);
            }
            pass.unused();
        };
        let answering = async {
            let sending = Sending::Small(&body);
            let followed = self.follow(request, action, &[], sending, Some(IDLE * 2), self.stranger).await?;
            // `follow` returns `Again` only for a body that can be sent once.
            let Followed::Answer(response, url) = followed else { return Err(unanswered(request, IDLE)) };
            let read = tokio::time::timeout(IDLE * 2, self.finish(request, response, &url)).await;
            read.map_err(|_| unanswered(request, IDLE * 2))?
        };
        let response = answering.await;
        if let Err(error) = &response {
            self.host.slow_down(action, pass.begun(), error);
        }
        drop((permit, pass));
        response
    }

    /// Reads the whole body of an expected answer. Fails if the status is not one of the expected ones.
    pub(super) async fn finish(
        &self,
        request: &Request,
        response: reqwest::Response,
        url: &Url,
    ) -> Result<Response> {
        let (status, headers, real) = (response.status(), response.headers().clone(), response.url().clone());
        let public = self.host.is_public(&response);
        if !request.expect.contains(&status.as_u16()) {
            let said = explanation(response).await;
            return Err(self.refusal(request, url, status, &headers, &said));
        }
        self.learn(&headers, url, &real, public);
        let body = decoded(&headers, bounded(response, DOCUMENT_LIMIT).await?)
            .map_err(|why| Error::invalid(format!("read the answer of {}: {why}", self.host.shown(url))))?;
        if status == StatusCode::BAD_REQUEST
            && let Some(error) = self.wants_tls(request, url, status, &String::from_utf8_lossy(&body))
        {
            return Err(error);
        }
        let text = |value: &header::HeaderValue| String::from_utf8_lossy(value.as_bytes()).into_owned();
        Ok(Response {
            status: status.as_u16(),
            headers: headers.iter().map(|(name, value)| (name.as_str().to_owned(), text(value))).collect(),
            body,
            url: Address::new(url.as_str()),
        })
    }

    /// The error for an answer to plain HTTP of a server that speaks TLS. `None` means that it is another answer.
    fn wants_tls(&self, request: &Request, url: &Url, status: StatusCode, said: &str) -> Option<Error> {
        let (shown, host) = (self.host.shown(url), &self.host.address);
        if !shown.starts_with("http:") || !remedy::wants_tls(status.as_u16(), said) {
            return None;
        }
        let error = Error::invalid(format!("{} {shown}: {host} speaks TLS", request.method));
        Some(error.help(format!("leave tls = \"off\" out of [registry.\"{host}\"], or --insecure")))
    }

    /// The error for a refusal, with what to do about it.
    pub(super) fn refusal(
        &self,
        request: &Request,
        url: &Url,
        status: StatusCode,
        headers: &HeaderMap,
        said: &str,
    ) -> Error {
        if let Some(error) = self.wants_tls(request, url, status, said) {
            return error;
        }
        let (method, shown) = (&request.method, self.host.shown(url));
        let error = retry::refusal(method, &shown, status, headers, said);
        let repository = request.access.first().map_or("", |access| access.repository.as_str());
        let (status, path) = (status.as_u16(), url.path());
        let known = remedy::Refusal { method, status, said, repository, path };
        match remedy::remedy(&known).filter(|_| error.help.is_none() && error.kind != Kind::Unauthorized) {
            Some(help) => error.help(help),
            None => error,
        }
    }

    /// Sends one request, and follows challenges and redirects. Returns the answer and its address. Each answer must
    /// begin within `limit`, not counting the time to fetch tokens. `confined` says that a plugin will read the answer,
    /// so redirects are followed only to hosts that it was granted.
    ///
    /// It is long because it is one loop: a challenge, a certificate that is tried again and a redirect each lead back to
    /// its beginning.
    pub(super) async fn follow(
        &self,
        request: &Request,
        action: Action,
        headers: &[(&str, String)],
        body: Sending<'_>,
        limit: Option<Duration>,
        confined: bool,
    ) -> Result<Followed> {
        let malformed =
            |why: &str| Error::invalid(format!("{} {}: {why}", request.method, request.url.shown()));
        let method = method(&request.method).ok_or_else(|| malformed("plugins cannot use that method"))?;
        let mut url = self.target(request)?;
        let mut public =
            lock(&self.learned).get(&url.origin().ascii_serialization()).copied().unwrap_or(false);
        let mut challenged = matches!(&body, Sending::Once { renewed: true, .. });
        // A body that can be sent only once was tried again already.
        let mut replaced = challenged;
        let (mut redirects, mut untrusted) = (0, None);
        loop {
            let authority = guard::authority(&url);
            // Credentials are sent only to the host of the place, whoever names another one.
            let own = authority == self.host.address;
            if self.authorizes && !own {
                return Err(malformed(&format!(
                    "it was led to {authority}, which must not get its credentials"
                )));
            }
            let granted = self.grant_of(&authority).filter(|_| redirects == 0);
            let host = match (own, granted) {
                (true, _) => self.host.clone(),
                // What a plugin of the operator's may ask is the operator's matter; what is lent gets credentials.
                (false, Some(_)) if self.stranger => {
                    self.client.host(&authority, &authority, Standing::Chosen)?
                }
                (false, Some(_)) => self.client.host(&authority, &authority, Standing::Lent)?,
                (false, None) => self.client.host(&authority, &authority, Standing::Caused { public })?,
            };
            let real = if own || url.scheme() == "https" { host.real(&url).await? } else { url.clone() };
            let is_safe = real.scheme() == "https" || guard::is_loopback(&guard::authority(&real));
            let pinned = host.clients.is_pinned();
            let mut builder = host.clients.of(real.scheme())?.request(method.clone(), real);
            let own_headers = request.headers.iter().map(|(name, value)| (name.as_str(), value));
            for (name, value) in own_headers.chain(headers.iter().map(|(name, value)| (*name, value))) {
                let is_own = self.authorizes && name.eq_ignore_ascii_case("authorization");
                if is_forbidden(name) && !is_own {
                    return Err(malformed(&format!("plugins cannot set the header {name}")));
                }
                builder = builder.header(name, value);
            }
            let mut sent = None;
            let authorization = if own && !self.authorizes {
                let led_to = |at: &str, public| self.client.led_to(at, public);
                sent = self.host.authorization(&led_to, &request.access).await?;
                sent.as_ref().map(|sent| sent.header.clone())
            } else if granted == Some(true) && is_safe {
                self.host.login_beside(&request.access).await?
            } else {
                None
            };
            let anonymous = authorization.is_none();
            if let Some(value) = authorization {
                builder = builder.header(header::AUTHORIZATION, value);
            }
            if redirects == 0 && (own || granted.is_some()) {
                let known = match &body {
                    Sending::Small(bytes) => Body::Small(bytes),
                    Sending::Once { known, .. } => *known,
                };
                builder = builder.headers(self.host.signature(request, &url, known, is_safe).await?);
            }
            let content = match &body {
                Sending::Small(bytes) => reqwest::Body::from((*bytes).clone()),
                Sending::Once { body, .. } => body(),
            };
            let answer = builder.body(content).send();
            let answer = match limit {
                Some(limit) => {
                    tokio::time::timeout(limit, answer).await.map_err(|_| unanswered(request, limit))?
                }
                None => answer.await,
            };
            let response = match answer {
                Ok(response) => response,
                Err(error) if retry::is_certificate(&error) && host.clients.pin(pinned) => match &body {
                    Sending::Small(_) => {
                        untrusted = Some(host.broken(&request.method, &url, &error));
                        continue;
                    }
                    Sending::Once { .. } => return Ok(Followed::Again(url)),
                },
                Err(error) => {
                    let broken = host.broken(&request.method, &url, &error);
                    // Pinned certificates are known or unknown, so the first refusal says more.
                    return Err(untrusted.filter(|_| retry::is_certificate(&error)).unwrap_or(broken));
                }
            };
            self.host.moves();
            let shown = if self.hides { authority.clone() } else { redacted(&url) };
            tracing::trace!(method = %request.method, url = %shown, status = response.status().as_u16(), "answered");
            if own {
                self.host.heed(action, response.headers());
            }
            // An answer of its own kind is for the provider, and leads to no server of tokens.
            if own && !self.authorizes && response.status() == 401 {
                let key = sent.as_ref().and_then(|sent| sent.key.as_ref());
                let mut learnt =
                    !challenged && self.host.challenged(&response, &request.access, anonymous)?;
                if let Some(key) = key.filter(|_| learnt) {
                    learnt = !self.host.repeats(&request.access, key).await?;
                }
                // What was just sent may be a credential that is no longer right.
                let other = match &sent {
                    Some(sent) if !learnt && !replaced => self.host.replaced(&request.access, sent).await?,
                    _ => false,
                };
                challenged |= learnt;
                replaced |= other;
                if learnt || other {
                    match &body {
                        Sending::Small(_) => continue,
                        Sending::Once { .. } => return Ok(Followed::Again(url)),
                    }
                }
            }
            let Some(next) = onward(&response, &url, &method).map_err(|why| malformed(&why))? else {
                return Ok(Followed::Answer(response, url));
            };
            redirects += 1;
            if redirects > REDIRECTS {
                let help = "the registry, or a proxy before it, redirects in a circle: check its address for clients";
                return Err(malformed("too many redirects").help(help));
            }
            public = host.is_public(&response);
            // A redirect back to the place's own host needs no check.
            let home = guard::authority(&next) == self.host.address;
            if !home {
                guard::check(response.url(), &next, public)?;
                if confined && self.grant_of(&guard::authority(&next)).is_none() {
                    let (from, to) = (authority, guard::authority(&next));
                    let text = format!("follow {from} to {to}: the plugin is not granted that host");
                    return Err(Error::new(Kind::Denied, text).help(guard::granting(&to)));
                }
            }
            url = next;
            if let Sending::Once { .. } = &body {
                if !home {
                    lock(&self.learned).insert(url.origin().ascii_serialization(), public);
                }
                return Ok(Followed::Again(url));
            }
        }
    }

    /// Adds help to the error of a request that began at `begun`, and slows down if the host asked us to.
    pub(super) async fn explain(
        &self,
        error: Error,
        request: &Request,
        action: Action,
        begun: Instant,
    ) -> Error {
        self.host.slow_down(action, begun, &error);
        self.host.refused(error, &request.access).await
    }

    /// Waits as long as the host asked us to (Retry-After).
    pub(super) async fn patience(&self) {
        self.host.patience().await;
    }

    /// How much longer the host asks us to wait. `None` means that it does not.
    pub(crate) fn asks_for_patience(&self) -> Option<Duration> {
        self.host.asks_for_patience()
    }

    /// Whether the transport is a plugin.
    pub(crate) fn is_strangers(&self) -> bool {
        self.stranger
    }

    /// The host of the place.
    pub(super) fn host(&self) -> &Arc<Host> {
        &self.host
    }
}

pub(super) fn unanswered(request: &Request, limit: Duration) -> Error {
    let (method, shown) = (&request.method, request.url.shown());
    Error::transient(format!("{method} {shown}: no answer in {} s", limit.as_secs()))
}

/// The allowed methods: those that read, write and delete. Others are refused (CONNECT, for instance, opens tunnels).
fn method(name: &str) -> Option<Method> {
    [Method::GET, Method::HEAD, Method::POST, Method::PUT, Method::PATCH, Method::DELETE]
        .into_iter()
        .find(|method| method.as_str() == name)
}

/// The address to which an answer redirects the request. `None` means that this is the final answer. A request with a
/// body is repeated only for a status that keeps its method (RFC 9110, 15.4.8 and 15.4.9).
fn onward(response: &reqwest::Response, url: &Url, method: &Method) -> Result<Option<Url>, String> {
    let status = response.status().as_u16();
    let reads = matches!(*method, Method::GET | Method::HEAD);
    let follows = match status {
        301..=303 => reads,
        307 | 308 => true,
        _ => return Ok(None),
    };
    let Some(location) = response.headers().get(header::LOCATION) else { return Ok(None) };
    let location = location.to_str().map_err(|_| "it is sent to no proper address".to_owned())?;
    let next = url.join(location).map_err(|error| format!("it is sent to no proper address: {error}"))?;
    match follows {
        true => Ok(Some(next)),
        false => Err(format!(
            "the registry answered {status} and leads to {}, where a {method} does not follow: name the address that it leads to",
            redacted(&next)
        )),
    }
}

/// Headers that describe the connection or the sender. Only dray itself may set them.
fn is_forbidden(name: &str) -> bool {
    let name = name.to_ascii_lowercase();
    matches!(
        name.as_str(),
        "authorization"
            | "proxy-authorization"
            | "cookie"
            | "host"
            | "connection"
            | "keep-alive"
            | "te"
            | "trailer"
            | "transfer-encoding"
            | "upgrade"
            | "content-length"
    )
}
