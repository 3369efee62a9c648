//! Who may send requests, and which ones.

use crate::{answer::Fault, route::Route};
use base64::{Engine as _, engine::general_purpose::STANDARD};
use dray_core::Digest;
use hyper::{
    HeaderMap, Method,
    header::{AUTHORIZATION, HOST, ORIGIN},
};
use std::{
    collections::{HashMap, HashSet},
    net::{IpAddr, SocketAddr},
    sync::Mutex,
};

/// What a registry allows its clients to do.
#[derive(Default)]
pub struct Access {
    /// If set, only requests with this bearer token are answered.
    pub token: Option<String>,
    /// If set, and if there is no token, only these users are answered.
    pub users: Option<Users>,
    /// Whether everything that writes is refused.
    pub read_only: bool,
    /// Whether manifests, tags and blobs may be deleted.
    pub allow_delete: bool,
}

/// The users in a file that `htpasswd -B` writes: their names and bcrypt hashes.
pub struct Users {
    hashes: HashMap<String, String>,
    /// Digests of credentials that were right before. They are kept because bcrypt is slow.
    known: Mutex<HashSet<Digest>>,
}

/// How many right credentials are remembered.
const KNOWN: usize = 1000;
/// The highest bcrypt cost that is accepted. Hashes are slow on purpose, but an even higher cost only helps an attacker
/// who wants to keep the registry busy.
const COST: u32 = 14;

impl Users {
    /// Reads a file of users.
    ///
    /// # Errors
    /// Fails if a line is not a user with a bcrypt hash, or if the cost of the hash is too high. The error names the
    /// line by its number.
    pub fn parse(text: &str) -> Result<Self, String> {
        let mut hashes = HashMap::new();
        for (number, line) in (1..).zip(text.lines()) {
            let line = line.trim();
            if line.is_empty() || line.starts_with('#') {
                continue;
            }
            let (user, hash) = line.split_once(':').ok_or(format!("line {number} is not USER:HASH"))?;
            let cost: Option<u32> = ["$2y$", "$2a$", "$2b$"]
                .iter()
                .find_map(|kind| hash.strip_prefix(kind)?.get(..2)?.parse().ok());
            match cost {
                Some(cost) if cost <= COST => _ = hashes.insert(user.to_owned(), hash.to_owned()),
                Some(_) => return Err(format!("line {number} has a cost of more than {COST}")),
                None => return Err(format!("line {number} is no bcrypt hash: write it with `htpasswd -B`")),
            }
        }
        Ok(Users { hashes, known: Mutex::default() })
    }

    /// Whether credentials (`USER:PASSWORD` in base64) are right. Blocks while bcrypt computes.
    fn admit(&self, encoded: &str) -> bool {
        let digest = Digest::of(encoded.as_bytes());
        if self.known.lock().unwrap_or_else(|poisoned| poisoned.into_inner()).contains(&digest) {
            return true;
        }
        let decoded = STANDARD.decode(encoded).ok().and_then(|bytes| String::from_utf8(bytes).ok());
        let Some((user, password)) = decoded.as_deref().and_then(|text| text.split_once(':')) else {
            return false;
        };
        let Some(hash) = self.hashes.get(user) else { return false };
        let right = bcrypt::verify(password, hash).unwrap_or(false);
        let mut known = self.known.lock().unwrap_or_else(|poisoned| poisoned.into_inner());
        if right && known.len() < KNOWN {
            known.insert(digest);
        }
        right
    }
}

impl Access {
    /// Whether the credentials of a request are right. Blocks while bcrypt computes.
    pub fn admits(&self, headers: &HeaderMap) -> bool {
        let given = headers.get(AUTHORIZATION).and_then(|value| value.to_str().ok()).unwrap_or_default();
        let (scheme, credentials) = given.split_once(' ').unwrap_or((given, ""));
        if let Some(token) = &self.token {
            // Digests are compared, so that the time of the comparison reveals nothing about the token.
            return scheme.eq_ignore_ascii_case("bearer")
                && Digest::of(credentials.as_bytes()) == Digest::of(token.as_bytes());
        }
        match &self.users {
            Some(users) => scheme.eq_ignore_ascii_case("basic") && users.admit(credentials.trim()),
            None => true,
        }
    }

    /// Whether checking credentials is slow.
    pub fn is_slow(&self) -> bool {
        self.users.is_some()
    }

    /// Checks that the registry allows this operation, whoever asks for it.
    pub fn allows(&self, method: &Method, route: &Route) -> Result<(), Fault> {
        let reads = matches!(*method, Method::GET | Method::HEAD);
        if self.read_only && !reads {
            return Err(Fault::denied("the registry is read-only"));
        }
        // A client that began an upload may cancel it.
        let deletes = *method == Method::DELETE && !matches!(route, Route::Upload { .. });
        if deletes && !self.allow_delete {
            return Err(Fault::unsupported_because("the registry deletes nothing: --allow-delete lets it"));
        }
        Ok(())
    }
}

/// Refuses requests that a page in a browser makes: a page of another origin, or one that made its own name resolve to
/// this registry (DNS rebinding). Only a registry that listens on a loopback address has to fear the latter.
pub fn is_asked_directly(headers: &HeaderMap, listens: SocketAddr) -> Result<(), Fault> {
    let text =
        |name| headers.get(name).map(|value: &hyper::header::HeaderValue| value.to_str().unwrap_or("?"));
    let host = text(HOST).unwrap_or_default();
    if let Some(origin) = text(ORIGIN) {
        let own = origin.split_once("://").map(|(_, authority)| authority);
        if own != Some(host) {
            return Err(Fault::denied("a page of another origin may not ask this registry"));
        }
    }
    if matches!(
        text(hyper::header::HeaderName::from_static("sec-fetch-site")),
        Some("cross-site" | "same-site")
    ) {
        return Err(Fault::denied("a page of another site may not ask this registry"));
    }
    let name = match host.rsplit_once(':') {
        Some((name, _)) if !host.ends_with(']') => name,
        _ => host,
    };
    let name = name.trim_start_matches('[').trim_end_matches(']');
    let itself = name == "localhost" || name.ends_with(".localhost") || name.parse::<IpAddr>().is_ok();
    // A client of HTTP/1.0 may send no Host header.
    if listens.ip().is_loopback() && !itself && !host.is_empty() {
        return Err(Fault::denied("this registry is not known by that name"));
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn users_have_bcrypt_hashes() {
        // The same as `htpasswd -nbB -C 4 alice secret`.
        let hash = bcrypt::hash("secret", 4).unwrap();
        let users = Users::parse(&format!("# comment\n\nalice:{hash}\n")).unwrap();
        for _ in 0..2 {
            assert!(users.admit(&STANDARD.encode("alice:secret")));
            assert!(!users.admit(&STANDARD.encode("alice:Secret")));
        }
        assert!(!users.admit(&STANDARD.encode("bob:secret")) && !users.admit("!") && !users.admit(""));
        for wrong in ["alice", "alice:{SHA}x", "alice:$apr1$x", "alice:$2y$31$x"] {
            assert!(Users::parse(wrong).is_err(), "{wrong}");
        }
    }

    #[test]
    fn browsers_are_kept_out() {
        let listens = SocketAddr::from(([127, 0, 0, 1], 5000));
        let asked = |pairs: &[(&'static str, &str)]| {
            let headers = pairs.iter().map(|(name, value)| (name.parse().unwrap(), value.parse().unwrap()));
            is_asked_directly(&HeaderMap::from_iter(headers), listens).is_ok()
        };
        for fine in
            [&[("host", "127.0.0.1:5000")][..], &[("host", "[::1]:5000")], &[("host", "localhost")], &[]]
        {
            assert!(asked(fine), "{fine:?}");
        }
        assert!(asked(&[("host", "localhost:5000"), ("origin", "http://localhost:5000")]));
        for wrong in [
            &[("host", "evil.example:5000")][..],
            &[("host", "localhost:5000"), ("origin", "http://evil.example")],
            &[("host", "localhost:5000"), ("origin", "null")],
            &[("host", "localhost:5000"), ("origin", "http://localhost:8080")],
            &[("host", "localhost:5000"), ("sec-fetch-site", "cross-site")],
        ] {
            assert!(!asked(wrong), "{wrong:?}");
        }
        let everywhere = SocketAddr::from(([0, 0, 0, 0], 5000));
        let named = HeaderMap::from_iter([(HOST, "mirror.example".parse().unwrap())]);
        assert!(is_asked_directly(&named, everywhere).is_ok());
    }
}
