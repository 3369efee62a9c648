//! Requests on behalf of a place.

use super::{
    body::{bounded, decoded, explanation},
    client::Client,
    guard::{self, redacted},
    host::Host,
    reach::granting,
    retry::{self, Backoff, IDLE, TROUBLE},
    settings::Standing,
};
use crate::schedule::action::Action;
use crate::{
    DOCUMENT_LIMIT, Error, Kind, Result,
    contract::{Request, Response},
    lock,
    schedule::rate::RateLimiter,
};
use bytes::Bytes;
use dray_core::Address;
use reqwest::{Method, header};
use std::{
    collections::HashMap,
    sync::{Arc, Mutex},
    time::{Duration, Instant},
};
use url::Url;

const REDIRECTS: usize = 10;

/// HTTP as one place may use it.
pub struct PlaceHttp {
    pub(super) client: Client,
    pub(super) host: Arc<Host>,
    /// Hosts beside its own.
    pub(super) granted: Vec<String>,
    /// Its transport is not dray's own: it hears of no host that was not granted.
    pub(super) stranger: bool,
    /// Where the place itself sent us for an upload: by origin, whether it is a public server.
    pub(super) learned: Mutex<HashMap<String, bool>>,
    /// Why we do not follow it to other origins.
    pub(super) refused: Mutex<HashMap<String, String>>,
}

/// What a place's transport may do with its host.
pub enum HostAccess {
    /// Built into dray.
    Trusted {
        /// The name by which users know the registry; its settings and credentials go by it.
        registry: String,
    },
    /// Somebody else's.
    Stranger {
        /// Hosts that the policy grants it.
        granted: Vec<String>,
        /// The user named the host; otherwise the plugin chose it, and gets nobody's credentials for it.
        named: bool,
    },
}

/// The body of a request.
pub(super) enum Sending<'a> {
    /// It can be sent again.
    Small(&'a Bytes),
    /// It is taken once: another attempt is the caller's business.
    Once {
        /// Makes it.
        body: &'a (dyn Fn() -> reqwest::Body + Sync),
        /// A token was refused before: it is not renewed once more.
        renewed: bool,
    },
}

/// The result of a request.
pub(super) enum Followed {
    /// An answer, and its address.
    Answer(reqwest::Response, Url),
    /// The body was sent, or begun, without success: it is to be sent again, to this address.
    Again(Url),
}

impl PlaceHttp {
    /// For a place at `host`.
    ///
    /// # Errors
    /// Fails if its TLS settings cannot be used.
    pub fn new(client: &Client, host: &str, access: HostAccess) -> Result<Self> {
        // As addresses write it: in lower case, without the default port.
        let url = Url::parse(&format!("https://{host}"));
        let url = url.map_err(|error| Error::invalid(format!("read the host {host}: {error}")))?;
        let (registry, granted, standing, stranger) = match access {
            HostAccess::Trusted { registry } => (registry, Vec::new(), Standing::Own, false),
            HostAccess::Stranger { granted, named } => {
                let standing = if named { Standing::Own } else { Standing::Chosen };
                (host.to_owned(), granted, standing, true)
            }
        };
        let host = client.host(&guard::authority(&url), &registry, standing)?;
        Ok(PlaceHttp {
            client: client.clone(),
            host,
            granted,
            stranger,
            learned: Mutex::default(),
            refused: Mutex::default(),
        })
    }

    /// Whether it is taken to be as the last run left it.
    pub(crate) fn assumed(&self) -> bool {
        self.host.settings.assume_unchanged
    }

    /// The host's address.
    pub(crate) fn address(&self) -> &str {
        &self.host.address
    }

    /// How many documents the host is asked for at once, now.
    pub(crate) fn width(&self) -> usize {
        self.host.windows.of(Action::Read).size()
    }

    pub(crate) fn rate(&self) -> Option<&RateLimiter> {
        self.host.rate.as_ref()
    }

    /// Sends a small request, again and again where that can help.
    ///
    /// # Errors
    /// Fails if the answer is not one of those that were expected.
    pub async fn send(&self, request: &Request, body: Bytes) -> Result<Response> {
        let action = Action::of(&request.method);
        let refuses = self.host.refusals.refuses(action);
        if let Some(left) = self.host.asks_for_patience().filter(|_| refuses) {
            let (method, registry) = (&request.method, &self.host.registry);
            let text = format!("{method} {}: {registry} asks for patience", request.url.shown());
            return Err(Backoff::once().give_up(Error::new(Kind::RateLimited(Some(left)), text)));
        }
        let mut backoff = if refuses { Backoff::once() } else { self.host.away.backoff() };
        loop {
            let error = match self.attempt(request, body.clone()).await {
                Ok(response) => {
                    self.host.refusals.passed(action);
                    return Ok(response);
                }
                Err(error) => error,
            };
            if matches!(action, Action::Write) && error.kind == Kind::Transient {
                // It may have been done, and the answer lost: that is looked for before it is done again.
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
                        // Any other answer is one.
                        _ => self.host.refusals.passed(action),
                    }
                    return Err(self.host.refused(backoff.give_up(error), &request.access).await);
                }
            }
        }
    }

    async fn attempt(&self, request: &Request, body: Bytes) -> Result<Response> {
        let action = Action::of(&request.method);
        let (pass, permit) = loop {
            self.host.patience().await;
            let mut pass = self.host.windows.of(action).small().await;
            let permit = self.host.slots.clone().acquire_owned().await;
            // It may have asked us to wait meanwhile; that is waited for without a place in the window.
            if self.host.asks_for_patience().is_none() {
                pass.begins();
                break (pass, permit);
            }
            pass.unused();
        };
        let answering = async {
            let sending = Sending::Small(&body);
            let followed = self.follow(request, action, &[], sending, Some(IDLE * 2), self.stranger).await?;
            // Only what can be sent once is to be sent again.
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

    /// Reads the whole of an answer that was expected; makes an error of another.
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
            return Err(retry::refusal(&request.method, &self.host.shown(url), status, &headers, &said));
        }
        self.learn(&headers, url, &real, public);
        let body = decoded(&headers, bounded(response, DOCUMENT_LIMIT).await?)
            .map_err(|why| Error::invalid(format!("read the answer of {}: {why}", self.host.shown(url))))?;
        let text = |value: &header::HeaderValue| String::from_utf8_lossy(value.as_bytes()).into_owned();
        Ok(Response {
            status: status.as_u16(),
            headers: headers.iter().map(|(name, value)| (name.as_str().to_owned(), text(value))).collect(),
            body,
            url: Address::new(url.as_str()),
        })
    }

    /// Sends one request, through challenges and redirects. Gives the answer and its address. Each answer is to begin
    /// within the limit; what tokens take is not counted. `confined`: the answer is for a stranger's plugin, so no host
    /// is followed that it was not granted.
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
        let mut redirects = 0;
        loop {
            let authority = guard::authority(&url);
            // Credentials go to the host of the place and no other, whoever names it.
            let own = authority == self.host.address;
            let host = match own {
                true => self.host.clone(),
                false => {
                    let granted = redirects == 0 && self.granted.contains(&authority);
                    let standing = if granted { Standing::Chosen } else { Standing::Caused { public } };
                    self.client.host(&authority, &authority, standing)?
                }
            };
            let real = if own || url.scheme() == "https" { host.real(&url).await? } else { url.clone() };
            let pinned = host.clients.is_pinned();
            let mut builder = host.clients.of(real.scheme())?.request(method.clone(), real);
            let own_headers = request.headers.iter().map(|(name, value)| (name.as_str(), value));
            for (name, value) in own_headers.chain(headers.iter().map(|(name, value)| (*name, value))) {
                if is_forbidden(name) {
                    return Err(malformed(&format!("plugins cannot set the header {name}")));
                }
                builder = builder.header(name, value);
            }
            let authorization = if own {
                self.host.authorization(&|at, public| self.client.led_to(at, public), &request.access).await?
            } else {
                None
            };
            let anonymous = authorization.is_none();
            if let Some(value) = authorization {
                builder = builder.header(header::AUTHORIZATION, value);
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
                    Sending::Small(_) => continue,
                    Sending::Once { .. } => return Ok(Followed::Again(url)),
                },
                Err(error) => return Err(host.broken(&request.method, &url, &error)),
            };
            self.host.moves();
            tracing::trace!(method = %request.method, url = %redacted(&url), status = response.status().as_u16(), "answered");
            if own {
                self.host.heed(action, response.headers());
            }
            if own
                && response.status() == 401
                && !challenged
                && self.host.challenged(&response, &request.access, anonymous)?
            {
                challenged = true;
                match &body {
                    Sending::Small(_) => continue,
                    Sending::Once { .. } => return Ok(Followed::Again(url)),
                }
            }
            let Some(next) = onward(&response, &url, &method).map_err(|why| malformed(&why))? else {
                return Ok(Followed::Answer(response, url));
            };
            redirects += 1;
            if redirects > REDIRECTS {
                return Err(malformed("too many redirects"));
            }
            public = host.is_public(&response);
            // A redirect back to the place itself is no way out.
            let home = guard::authority(&next) == self.host.address;
            if !home {
                guard::check(response.url(), &next, public)?;
                if confined && !self.granted.contains(&guard::authority(&next)) {
                    let (from, to) = (authority, guard::authority(&next));
                    let text = format!("follow {from} to {to}: the plugin is not granted that host");
                    return Err(Error::new(Kind::Denied, text).help(granting(&to)));
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

    /// Explains the failure of a request that was begun then, and slows down if the host asks for it.
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

    /// Waits for as long as the host asked for.
    pub(super) async fn patience(&self) {
        self.host.patience().await;
    }

    /// How much patience the host asks for still.
    pub(crate) fn asks_for_patience(&self) -> Option<Duration> {
        self.host.asks_for_patience()
    }

    /// Whether its transport is not dray's own.
    pub(super) fn is_strangers(&self) -> bool {
        self.stranger
    }

    /// The host.
    pub(super) fn host(&self) -> &Arc<Host> {
        &self.host
    }
}

pub(super) fn unanswered(request: &Request, limit: Duration) -> Error {
    let (method, shown) = (&request.method, request.url.shown());
    Error::transient(format!("{method} {shown}: no answer in {} s", limit.as_secs()))
}

/// Methods by which things are asked for, written and deleted; no others (CONNECT opens tunnels).
fn method(name: &str) -> Option<Method> {
    [Method::GET, Method::HEAD, Method::POST, Method::PUT, Method::PATCH, Method::DELETE]
        .into_iter()
        .find(|method| method.as_str() == name)
}

/// Where an answer sends the same request; none: it is the answer. A request with a body is sent on only by those that
/// keep its method (RFC 9110, 15.4.8 and 15.4.9).
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

/// Headers that say how a message travels, or who sends it: the host's business.
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
