//! Requests on behalf of a place.

use super::{
    action::Action,
    guard,
    host::{Host, redacted},
    line::{Expected, Load, Passes},
    retry::{self, Backoff, IDLE, TROUBLE},
    settings::Client,
};
use crate::{
    DOCUMENT_LIMIT, Error, Kind, Result,
    plugin::{Request, Response},
};
use bytes::{Bytes, BytesMut};
use reqwest::{Method, header};
use serde::Deserialize;
use std::{
    collections::HashSet,
    pin::pin,
    sync::{Arc, Mutex},
    time::{Duration, Instant},
};
use tokio::sync::OwnedSemaphorePermit as Slot;
use url::Url;

const REDIRECTS: usize = 10;

/// How long a place at one host is kept for somebody who waits for a slot at another one where nothing moves.
const KEPT: Duration = Duration::from_secs(5);
/// How often that is looked at.
const AGAIN: Duration = Duration::from_millis(500);

/// HTTP as one place may use it.
pub struct PlaceHttp {
    client: Client,
    host: Arc<Host>,
    /// Hosts beside its own.
    granted: Vec<String>,
    /// Hosts to which the place itself sent us for an upload.
    learned: Mutex<HashSet<String>>,
}

/// The right to move a blob: a place in the line, and for its requests a slot at each host.
pub(crate) struct Permits {
    passes: Passes,
    _slots: Vec<Slot>,
}

impl Permits {
    /// Gives it back without a request: nothing was learnt of the hosts.
    pub fn unused(self) {
        self.passes.unused();
    }
}

/// Waits for the right to download from one place and to upload to another, for a request whose body is
/// another one's answer. Slots are taken in the order of the hosts' addresses, so that two transfers in
/// opposite directions cannot wait for each other. None: nothing goes over the network.
pub(crate) async fn permits(
    source: Option<&PlaceHttp>,
    destination: Option<&PlaceHttp>,
    load: Load,
) -> Option<Permits> {
    let ends = [(source, Action::Download), (destination, Action::Upload)];
    let ends: Vec<_> = ends.into_iter().filter_map(|(place, action)| Some((place?, action))).collect();
    let line = ends.first()?.0.client.line();
    let mut hosts: Vec<_> = ends.iter().map(|(place, _)| &place.host).collect();
    hosts.sort_by(|a, b| a.address.cmp(&b.address));
    loop {
        for host in &hosts {
            host.patience().await;
        }
        let windows = ends.iter().map(|(place, action)| place.host.windows.of(*action).clone());
        let passes = line.passes(windows.collect(), load.clone()).await;
        match slots_soon(&hosts).await {
            // One may have asked for patience meanwhile; that is waited for without a place anywhere.
            Some(slots) if hosts.iter().all(|host| host.asks_for_patience().is_none()) => {
                return Some(Permits { passes, _slots: slots });
            }
            _ => passes.unused(),
        }
        while hosts.iter().any(|host| host.stands_still(KEPT)) {
            tokio::time::sleep(AGAIN).await;
        }
    }
}

/// Blobs are going to move from one place to another, as long as this is kept. None: not over the network.
pub(crate) fn expect(source: Option<&PlaceHttp>, destination: Option<&PlaceHttp>) -> Option<Expected> {
    let ends = [(source, Action::Download), (destination, Action::Upload)];
    let windows: Vec<_> =
        ends.iter().filter_map(|(place, action)| Some((*place)?.host.windows.of(*action).clone())).collect();
    let line = source.or(destination)?.client.line();
    Some(line.expect(&windows))
}

/// Waits for slots; none: one of the hosts has stood still meanwhile.
async fn slots_soon(hosts: &[&Arc<Host>]) -> Option<Vec<Slot>> {
    let mut waiting = pin!(slots(hosts));
    loop {
        match tokio::time::timeout(AGAIN, waiting.as_mut()).await {
            Ok(slots) => return Some(slots),
            Err(_) if hosts.iter().any(|host| host.stands_still(KEPT)) => return None,
            Err(_) => {}
        }
    }
}

async fn slots(hosts: &[&Arc<Host>]) -> Vec<Slot> {
    let mut permits = Vec::new();
    if let [a, b] = hosts
        && a.address == b.address
    {
        // With one slot alone, source and destination must share it.
        let slots = 2.min(a.settings.concurrency) as u32;
        permits.extend(a.slots.clone().acquire_many_owned(slots).await);
        return permits;
    }
    for host in hosts {
        permits.extend(host.slots.clone().acquire_owned().await);
    }
    permits
}

impl PlaceHttp {
    /// For a place at `host`, known to users as `registry`.
    ///
    /// # Errors
    /// Where its TLS settings cannot be used.
    pub fn new(client: &Client, host: &str, registry: &str, granted: &[String]) -> Result<Self> {
        // As addresses write it: in lower case, without the default port.
        let url = Url::parse(&format!("https://{host}"));
        let url = url.map_err(|error| Error::invalid(format!("read the host {host}: {error}")))?;
        let host = client.host(&guard::authority(&url), registry)?;
        Ok(PlaceHttp { client: client.clone(), host, granted: granted.to_vec(), learned: Mutex::default() })
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

    pub(crate) fn pace(&self) -> Option<&crate::pace::Pace> {
        self.host.pace.as_ref()
    }

    /// Sends a small request, again and again where that can help.
    ///
    /// # Errors
    /// Where the answer is not one of those that were expected.
    pub async fn send(&self, request: &Request, body: Bytes) -> Result<Response> {
        let action = Action::of(&request.method);
        let refuses = self.host.refusals.refuses(action);
        if let Some(left) = self.host.asks_for_patience().filter(|_| refuses) {
            let (method, registry) = (&request.method, &self.host.registry);
            let text = format!("{method} {}: {registry} asks for patience", request.url);
            return Err(Backoff::once().give_up(Error::new(Kind::RateLimited(Some(left)), text)));
        }
        let mut backoff = match refuses || self.host.away.is_away() {
            true => Backoff::once(),
            false => Backoff::new(),
        };
        loop {
            let error = match self.attempt(request, body.clone()).await {
                Ok(response) => {
                    self.host.refusals.passed(action);
                    return Ok(response);
                }
                Err(error) => error,
            };
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
            // It may have asked for patience meanwhile; that is waited for without a place in the window.
            if self.host.asks_for_patience().is_none() {
                pass.begins();
                break (pass, permit);
            }
            pass.unused();
        };
        let answering = async {
            let (response, url) =
                self.follow(request, action, &[], &|| body.clone().into(), Some(IDLE * 2)).await?;
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
        if !request.expect.contains(&status.as_u16()) {
            let said = explanation(response).await;
            return Err(retry::refusal(&request.method, &self.host.shown(url), status, &headers, &said));
        }
        self.learn(&headers, url, &real);
        let body = bounded(response, DOCUMENT_LIMIT).await?;
        let text = |value: &header::HeaderValue| String::from_utf8_lossy(value.as_bytes()).into_owned();
        Ok(Response {
            status: status.as_u16(),
            headers: headers.iter().map(|(name, value)| (name.as_str().to_owned(), text(value))).collect(),
            body,
            url: url.to_string(),
        })
    }

    /// Sends one request, through challenges and redirects. Gives the answer and its address. Each answer is to begin
    /// within the limit; what tokens take is not counted.
    pub(super) async fn follow(
        &self,
        request: &Request,
        action: Action,
        headers: &[(&str, String)],
        body: &(dyn Fn() -> reqwest::Body + Sync),
        limit: Option<Duration>,
    ) -> Result<(reqwest::Response, Url)> {
        let malformed = |why: &str| Error::invalid(format!("{} {}: {why}", request.method, request.url));
        let method =
            Method::from_bytes(request.method.as_bytes()).map_err(|_| malformed("no such method"))?;
        let mut url = Url::parse(&request.url).map_err(|error| malformed(&error.to_string()))?;
        if request
            .url
            .split(['?', '#'])
            .next()
            .unwrap_or_default()
            .split('/')
            .any(|part| matches!(part, "." | ".."))
        {
            return Err(malformed("its path leads upwards"));
        }
        self.check(&url)?;
        let (mut challenged, mut redirects) = (false, 0);
        loop {
            let authority = guard::authority(&url);
            // Credentials go to the host of the place and no other, whoever names it.
            let own = authority == self.host.address;
            let host = if own { self.host.clone() } else { self.client.host(&authority, &authority)? };
            let real = if own || url.scheme() == "https" { host.real(&url).await? } else { url.clone() };
            let mut builder = host.clients.of(real.scheme())?.request(method.clone(), real);
            for (name, value) in request
                .headers
                .iter()
                .map(|(name, value)| (name.as_str(), value))
                .chain(headers.iter().map(|(name, value)| (*name, value)))
            {
                if is_forbidden(name) {
                    return Err(malformed(&format!("plugins cannot set the header {name}")));
                }
                builder = builder.header(name, value);
            }
            let authorization = if own { self.host.authorization(&request.access).await? } else { None };
            let anonymous = authorization.is_none();
            if let Some(value) = authorization {
                builder = builder.header(header::AUTHORIZATION, value);
            }
            let answer = builder.body(body()).send();
            let answer = match limit {
                Some(limit) => {
                    tokio::time::timeout(limit, answer).await.map_err(|_| unanswered(request, limit))?
                }
                None => answer.await,
            };
            let response = answer.map_err(|error| host.broken(&request.method, &url, &error))?;
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
                continue;
            }
            let location = response.headers().get(header::LOCATION).and_then(|value| value.to_str().ok());
            match location {
                Some(location)
                    if response.status().is_redirection()
                        && response.status() != 304
                        && matches!(method, Method::GET | Method::HEAD) =>
                {
                    redirects += 1;
                    if redirects > REDIRECTS {
                        return Err(malformed("too many redirects"));
                    }
                    let next = url.join(location).map_err(|error| malformed(&error.to_string()))?;
                    guard::check(response.url(), &next).or_else(|error| {
                        // A redirect back to the place itself is no way out.
                        if guard::authority(&next) == self.host.address { Ok(()) } else { Err(error) }
                    })?;
                    url = next;
                }
                _ => return Ok((response, url)),
            }
        }
    }

    /// Whether the plugin may ask this host at all.
    fn check(&self, url: &Url) -> Result<()> {
        let authority = guard::authority(url);
        let learned = self.learned.lock().unwrap_or_else(|poisoned| poisoned.into_inner());
        if authority == self.host.address
            || self.granted.contains(&authority)
            || learned.contains(&url.origin().ascii_serialization())
        {
            return Ok(());
        }
        let text = format!("ask {authority}: the plugin may only ask {}", self.host.address);
        Err(Error::new(Kind::Denied, text)
            .help(format!("grant it with `grant = {{ hosts = [\"{authority}\"] }}` in the plugin's table")))
    }

    /// An upload may go on elsewhere, where the place says so.
    fn learn(&self, headers: &header::HeaderMap, url: &Url, real: &Url) {
        let location = headers.get(header::LOCATION).and_then(|value| value.to_str().ok());
        let Some(target) = location.and_then(|location| url.join(location).ok()) else { return };
        if guard::authority(&target) != self.host.address && guard::check(real, &target).is_ok() {
            let mut learned = self.learned.lock().unwrap_or_else(|poisoned| poisoned.into_inner());
            learned.insert(target.origin().ascii_serialization());
        }
    }

    /// What came of a request that was begun then.
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

    /// The host.
    pub(super) fn host(&self) -> &Arc<Host> {
        &self.host
    }
}

pub(super) fn unanswered(request: &Request, limit: Duration) -> Error {
    Error::transient(format!("{} {}: no answer in {} s", request.method, request.url, limit.as_secs()))
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

/// Reads an answer into memory, up to a limit.
pub(super) async fn bounded(mut response: reqwest::Response, limit: usize) -> Result<Bytes> {
    let shown = redacted(response.url());
    let too_long = || Error::corrupt(format!("read the answer of {shown}: it is longer than {limit} bytes"));
    if response.content_length().is_some_and(|length| length > limit as u64) {
        return Err(too_long());
    }
    let mut body = BytesMut::new();
    loop {
        let chunk = tokio::time::timeout(IDLE, response.chunk()).await;
        let chunk = chunk.map_err(|_| Error::transient(format!("read the answer of {shown}: it stalled")))?;
        match chunk.map_err(|error| {
            Error::transient(format!("read the answer of {shown}: {}", retry::root_cause(&error)))
        })? {
            Some(chunk) if body.len() + chunk.len() > limit => return Err(too_long()),
            Some(chunk) => body.extend_from_slice(&chunk),
            None => return Ok(body.freeze()),
        }
    }
}

/// The error document of a registry (distribution specification, "Error Codes").
#[derive(Deserialize)]
struct Faults {
    errors: Vec<Fault>,
}

#[derive(Deserialize)]
struct Fault {
    code: Option<String>,
    message: Option<String>,
}

/// What a registry says about its refusal: its error codes, or the beginning of what else it says.
pub(super) async fn explanation(response: reqwest::Response) -> String {
    let Ok(body) = bounded(response, 64 << 10).await else { return String::new() };
    if let Ok(faults) = serde_json::from_slice::<Faults>(&body) {
        let told = faults.errors.into_iter().map(|fault| {
            let parts = [fault.code, fault.message];
            parts.into_iter().flatten().filter(|part| !part.is_empty()).collect::<Vec<_>>().join(": ")
        });
        return told.collect::<Vec<_>>().join("; ");
    }
    let text = String::from_utf8_lossy(&body);
    let visible = text.chars().map(|character| if character.is_control() { ' ' } else { character });
    visible.take(200).collect::<String>().trim().to_owned()
}
