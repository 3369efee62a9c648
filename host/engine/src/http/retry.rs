//! Backoff: decides whether to try again, and how long to wait before that.

use crate::{Error, Kind};
use reqwest::{StatusCode, header::HeaderMap};
use std::time::{Duration, SystemTime};

/// Timeout for establishing a connection.
pub(super) const CONNECT: Duration = Duration::from_secs(15);
/// Timeout for an answer to begin, for its next bytes to arrive, and for an upload to accept its next bytes.
pub(super) const IDLE: Duration = Duration::from_secs(60);
/// Timeout for the answer to an upload: registries verify the whole blob before they answer.
pub(super) const VERIFY: Duration = Duration::from_secs(600);

const FIRST: Duration = Duration::from_millis(200);
const LONGEST: Duration = Duration::from_secs(20);
/// A request is given up if the registry asks us to wait longer than this in total (Retry-After).
pub(super) const PATIENCE: Duration = Duration::from_secs(300);
const ATTEMPTS: u32 = 8;

/// Counts attempts. The wait doubles each time, with jitter, so that many clients do not come back at once.
pub(crate) struct Backoff {
    failures: u32,
    /// The maximum number of attempts.
    most: u32,
    /// The sum of the waits that the server has asked for (Retry-After).
    waited: Duration,
}

/// After this many failures in a row, a warning is logged.
pub(super) const TROUBLE: u32 = 3;

impl Backoff {
    pub fn new() -> Self {
        Backoff { failures: 0, most: ATTEMPTS, waited: Duration::ZERO }
    }

    /// A single attempt, for a server that was given up just before.
    pub fn once() -> Self {
        Backoff { failures: 0, most: 1, waited: Duration::ZERO }
    }

    /// Two attempts, for a server that may not exist.
    pub fn twice() -> Self {
        Backoff { failures: 0, most: 2, waited: Duration::ZERO }
    }

    /// Allows all attempts: the server exists after all.
    pub fn extend(&mut self) {
        self.most = ATTEMPTS;
    }

    /// How long to wait before another attempt. `None` means that there is no further attempt.
    pub fn after(&mut self, error: &Error) -> Option<Duration> {
        if !error.is_transient() {
            return None;
        }
        self.failures += 1;
        if self.failures >= self.most {
            return None;
        }
        match error.kind {
            Kind::RateLimited(Some(told)) => {
                self.waited = self.waited.saturating_add(told);
                // A registry may ask for a short wait and still refuse: the wait is never shorter than our own backoff.
                (self.waited <= PATIENCE).then(|| told.max(self.step()) + jitter(FIRST))
            }
            _ => Some(self.step()),
        }
    }

    fn step(&self) -> Duration {
        (FIRST * (1 << (self.failures - 1))).min(LONGEST).mul_f64(0.5 + fastrand::f64())
    }

    /// The number of failures since the last progress.
    pub fn failures(&self) -> u32 {
        self.failures
    }

    /// Turns the last error into one that is not transient, so that callers do not start all over.
    pub fn give_up(&self, error: Error) -> Error {
        if !error.is_transient() {
            return error;
        }
        let why = match (&error.kind, self.failures.max(1)) {
            (Kind::RateLimited(Some(told)), _) if *told > PATIENCE => {
                format!("it asks to come back in {} minutes", told.as_secs().div_ceil(60))
            }
            (_, 1) if self.most == 1 => "it was given up just before".into(),
            (_, 1) => "given up after one attempt".into(),
            (_, failures) => format!("given up after {failures} attempts"),
        };
        let text = format!("{} ({why})", error.text);
        error.retold(text).of_kind(Kind::Exhausted)
    }

    /// Records progress: the counts of failures and waits start again.
    pub fn progress(&mut self) {
        (self.failures, self.waited) = (0, Duration::ZERO);
    }
}

fn jitter(most: Duration) -> Duration {
    most.mul_f64(fastrand::f64())
}

/// The error for an unexpected status. `said` is the registry's own explanation.
pub(super) fn refusal(method: &str, url: &str, status: StatusCode, headers: &HeaderMap, said: &str) -> Error {
    let said = if said.is_empty() { String::new() } else { format!(": {said}") };
    let text = format!("{method} {url} answered {status}{said}");
    match status.as_u16() {
        401 => Error::new(Kind::Unauthorized, text),
        403 => Error::new(Kind::Denied, text),
        404 | 410 => Error::new(Kind::NotFound, text),
        429 => Error::new(Kind::RateLimited(retry_after(headers, SystemTime::now())), text),
        503 if headers.contains_key("retry-after") => {
            Error::new(Kind::RateLimited(retry_after(headers, SystemTime::now())), text)
        }
        405 | 501 => Error::new(Kind::Unsupported, text),
        // docker-registry answers 500 if it cannot find a manifest; another attempt cannot help.
        500 if said.contains("MANIFEST_") => Error::invalid(text),
        408 | 425 | 500..=599 => Error::transient(text),
        _ => Error::invalid(text),
    }
}

/// Reads `Retry-After`, which is a number of seconds or a date (RFC 9110, 10.2.3).
fn retry_after(headers: &HeaderMap, now: SystemTime) -> Option<Duration> {
    let value = headers.get("retry-after")?.to_str().ok()?.trim();
    if let Ok(seconds) = value.parse() {
        return Some(Duration::from_secs(seconds));
    }
    let date = httpdate::parse_http_date(value).ok()?;
    Some(date.duration_since(now).unwrap_or_default())
}

/// The error for a failure below HTTP. A broken connection is transient, so another attempt may help.
pub(super) fn broken(method: &str, url: &str, error: &reqwest::Error) -> Error {
    let text = format!("{method} {url}: {}", root_cause(error));
    if error.is_builder() {
        return Error::invalid(format!("{method} {url}: {}", builder_cause(error)));
    }
    if error.is_request() && is_certificate(error) {
        let help = "trust its authority with `tls = { ca = \"…\" }` in the policy or --tls-ca";
        return Error::invalid(text).help(help);
    }
    // A server that does not speak HTTP now will not do so at the next attempt.
    match text.contains("message head is too large") {
        true => Error::invalid(text),
        false => Error::transient(text),
    }
}

/// The reason why a request could not be built: its address or one of its headers is malformed.
fn builder_cause(error: &reqwest::Error) -> String {
    let causes = causes(error);
    match causes.len() {
        // The only text would show the address in full, with its secrets.
        0 | 1 => "it cannot be written as a request: a header or its address is malformed".into(),
        _ => causes.last().cloned().unwrap_or_default(),
    }
}

/// Whether no connection was established at all, so that nothing was learnt about the server.
pub(super) fn is_unreachable(error: &reqwest::Error) -> bool {
    use std::io::ErrorKind::{ConnectionRefused, HostUnreachable, NetworkUnreachable, TimedOut};
    let mut cause: Option<&dyn std::error::Error> = Some(error);
    while let Some(error) = cause {
        let kind = error.downcast_ref::<std::io::Error>().map(std::io::Error::kind);
        if matches!(kind, Some(ConnectionRefused | HostUnreachable | NetworkUnreachable | TimedOut)) {
            return true;
        }
        cause = error.source();
    }
    error.is_timeout()
}

/// Whether the server uses TLS with a certificate that is not trusted.
pub(super) fn is_certificate(error: &reqwest::Error) -> bool {
    causes(error).iter().any(|cause| cause.contains("certificate"))
}

/// The texts of an error and of what caused it, from the outermost to the innermost.
pub(super) fn causes(error: &reqwest::Error) -> Vec<String> {
    let mut causes = Vec::new();
    let mut cause: Option<&dyn std::error::Error> = Some(error);
    while let Some(error) = cause {
        causes.push(error.to_string());
        cause = error.source();
    }
    causes
}

/// The innermost cause, because the outer ones only say that there was an error.
pub(super) fn root_cause(error: &reqwest::Error) -> String {
    causes(error).pop().unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn retry_after_is_seconds_or_a_date() {
        let now = httpdate::parse_http_date("Sun, 06 Nov 1994 08:49:37 GMT").unwrap();
        let headers =
            |value: &str| HeaderMap::from_iter([("retry-after".parse().unwrap(), value.parse().unwrap())]);
        assert_eq!(retry_after(&headers("7"), now), Some(Duration::from_secs(7)));
        assert_eq!(
            retry_after(&headers("Sun, 06 Nov 1994 08:49:47 GMT"), now),
            Some(Duration::from_secs(10))
        );
        assert_eq!(retry_after(&headers("Sun, 06 Nov 1994 08:00:00 GMT"), now), Some(Duration::ZERO));
        assert_eq!(retry_after(&headers("soon"), now), None);
    }

    #[test]
    fn waits_grow_and_end() {
        let mut backoff = Backoff::new();
        let error = Error::transient("x");
        let waits: Vec<Duration> = std::iter::from_fn(|| backoff.after(&error)).collect();
        assert_eq!(waits.len(), 7);
        assert!(waits[6] > waits[0] && waits[6] <= Duration::from_millis(19_200), "{waits:?}");
        assert_eq!(Backoff::new().after(&Error::invalid("x")), None);
        let patient = Error::new(Kind::RateLimited(Some(Duration::from_secs(3))), "x");
        assert!(Backoff::new().after(&patient).unwrap() >= Duration::from_secs(3));
        assert_eq!(Backoff::once().after(&error), None);
        let mut once = Backoff::once();
        once.after(&error);
        assert!(once.give_up(error).text.ends_with("(it was given up just before)"));
        let slow = Error::new(Kind::RateLimited(Some(Duration::from_secs(70))), "x");
        let mut patience = Backoff::new();
        let waits: Vec<Duration> = std::iter::from_fn(|| patience.after(&slow)).collect();
        assert_eq!(waits.len(), 4);
        let never = Error::new(Kind::RateLimited(Some(Duration::MAX)), "x");
        assert_eq!(patience.after(&never), None);
        let endless = Error::new(Kind::RateLimited(Some(Duration::from_secs(86400))), "x");
        assert_eq!(Backoff::new().after(&endless), None);
    }
}
