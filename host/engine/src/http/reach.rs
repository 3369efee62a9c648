//! Which addresses a place may send requests to: its own host, the hosts that were granted to it, and those to which
//! the place itself redirects an upload.

use super::{guard, request::PlaceHttp};
use crate::{Error, Kind, Result, contract::Request, lock};
use dray_core::policy::grants_host;
use reqwest::header;
use url::Url;

impl PlaceHttp {
    /// Whether a host was granted, and whether it gets the place's login then. `None` means that it was not.
    pub(super) fn grant_of(&self, authority: &str) -> Option<bool> {
        let granted = lock(&self.granted);
        let exact = granted.get(authority).copied();
        exact.or_else(|| {
            granted.iter().find(|(named, _)| grants_host(named, authority)).map(|(_, trusted)| *trusted)
        })
    }

    /// The first address of a request. Fails if the place may not send requests to that host.
    pub(super) fn target(&self, request: &Request) -> Result<Url> {
        let malformed =
            |why: &str| Error::invalid(format!("{} {}: {why}", request.method, request.url.shown()));
        let text = request.url.expose();
        let mut url = Url::parse(text).map_err(|error| malformed(&error.to_string()))?;
        let mut parts = text.split(['?', '#']).next().unwrap_or_default().split(['/', '\\']);
        let upwards = |part: &str| {
            let part = part.to_ascii_lowercase().replace("%2e", ".");
            matches!(part.as_str(), "." | "..")
        };
        if parts.any(upwards) {
            return Err(malformed("its path leads upwards"));
        }
        if !matches!(url.scheme(), "https" | "http") || url.host_str().is_none() {
            return Err(malformed("its protocol is neither https nor http"));
        }
        let _ = (url.set_username(""), url.set_password(None));
        let authority = guard::authority(&url);
        let origin = url.origin().ascii_serialization();
        if authority == self.host.address || self.grant_of(&authority).is_some() && is_granted_so(&url) {
            return Ok(url);
        }
        // Registries behind a proxy may name themselves by the inner address: another host or port, or plain HTTP.
        let itself = guard::split(&authority).0 == guard::split(&self.host.address).0;
        let learned = lock(&self.learned).contains_key(&origin);
        if !self.stranger && url.path().starts_with("/v2/") && (itself || !learned) {
            let (host, port) = match Url::parse(&format!("https://{}", self.host.address)) {
                Ok(own) => (own.host_str().map(str::to_owned), own.port()),
                Err(_) => (None, None),
            };
            tracing::debug!("{authority} is asked as {}, which led there", self.host.address);
            let moved = url.set_scheme("https").is_ok() && url.set_host(host.as_deref()).is_ok();
            if moved && url.set_port(port).is_ok() {
                return Ok(url);
            }
        }
        if learned {
            return Ok(url);
        }
        if let Some(why) = lock(&self.refused).get(&origin) {
            return Err(Error::new(Kind::Denied, why.clone()));
        }
        let text = format!("ask {authority}: the plugin may only ask {}", self.host.address);
        let error = Error::new(Kind::Denied, text);
        Err(if self.stranger { error.help(guard::granting(&authority)) } else { error })
    }

    /// Remembers the `Location` of an answer, because an upload may continue on another host that the place names.
    pub(super) fn learn(&self, headers: &header::HeaderMap, url: &Url, real: &Url, public: bool) {
        let location = headers.get(header::LOCATION).and_then(|value| value.to_str().ok());
        let Some(target) = location.and_then(|location| url.join(location).ok()) else { return };
        if self.stranger || guard::authority(&target) == self.host.address {
            return;
        }
        let origin = target.origin().ascii_serialization();
        match guard::check(real, &target, public) {
            Ok(()) => _ = lock(&self.learned).insert(origin, public),
            Err(error) => _ = lock(&self.refused).insert(origin, error.text),
        }
    }
}

/// Whether the scheme is allowed for a granted host: HTTPS always, HTTP only on the loopback interface.
fn is_granted_so(url: &Url) -> bool {
    url.scheme() == "https" || guard::is_loopback(&guard::authority(url))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::http::{Client, HostAccess};
    use dray_core::Address;

    #[test]
    fn a_registry_s_api_at_another_host_is_asked_only_if_it_is_lent() {
        let request = |url: &str| Request {
            method: "GET".into(),
            url: Address::new(url.to_owned()),
            headers: Vec::new(),
            expect: vec![200],
            access: Vec::new(),
        };
        let client = Client::new(Default::default());
        let access = HostAccess::Trusted { registry: "docker.io".into() };
        let place = PlaceHttp::new(&client, "registry-1.docker.io", access).unwrap();
        let api = request("https://hub.docker.com/v2/namespaces/library/repositories/nginx/tags");
        // What looks like an address of the registry itself is asked of the registry.
        assert_eq!(place.target(&api).unwrap().host_str(), Some("registry-1.docker.io"));
        let other = request("https://hub.docker.com/api");
        assert!(place.target(&other).is_err());
        place.lend("hub.docker.com", true);
        assert_eq!(place.target(&api).unwrap().host_str(), Some("hub.docker.com"));
        assert_eq!(place.target(&other).unwrap().host_str(), Some("hub.docker.com"));
        assert!(place.target(&request("http://hub.docker.com/api")).is_err());
    }
}
