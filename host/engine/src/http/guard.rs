//! Checks the addresses that another server sends us to: redirects, upload locations, token realms.

use crate::{Error, Kind, Result};
use dray_core::Address;
use std::net::{IpAddr, SocketAddr};
use url::{Host, Url};

/// An address as it is shown to people: without its query, user and password.
pub(super) fn redacted(url: &Url) -> String {
    Address::new(url.as_str()).shown()
}

/// `host[:port]` of an address, as references write it.
pub(super) fn authority(url: &Url) -> String {
    match (url.host_str(), url.port()) {
        (Some(host), Some(port)) => format!("{host}:{port}"),
        (Some(host), None) => host.into(),
        (None, _) => String::new(),
    }
}

/// Splits `host[:port]`. The brackets of an IPv6 address are kept.
pub(super) fn split(authority: &str) -> (&str, Option<u16>) {
    match authority.rsplit_once(':') {
        Some((host, port)) if !host.contains(':') || host.ends_with(']') => (host, port.parse().ok()),
        _ => (authority, None),
    }
}

/// Whether the address is on the loopback interface.
pub(super) fn is_loopback(authority: &str) -> bool {
    let Ok(url) = Url::parse(&format!("http://{authority}")) else { return false };
    match url.host() {
        Some(Host::Domain(name)) => name == "localhost" || name.ends_with(".localhost"),
        Some(Host::Ipv4(address)) => address.is_loopback(),
        Some(Host::Ipv6(address)) => address.is_loopback(),
        None => false,
    }
}

/// Whether an address is internal: loopback, private, shared (RFC 6598), link-local (cloud metadata services), other
/// special-purpose addresses (IANA's registries), and IPv6 addresses that embed such an IPv4 address.
pub(super) fn is_inside(address: IpAddr) -> bool {
    match address.to_canonical() {
        IpAddr::V4(v4) => {
            let [a, b, c, _] = v4.octets();
            v4.is_loopback()
                || v4.is_private()
                || v4.is_link_local()
                || v4.is_broadcast()
                || v4.is_multicast()
                || a == 0
                || a >= 240
                || (a, b & 0xc0) == (100, 64)
                || (a, b & 0xfe) == (198, 18)
                || (a, b, c) == (192, 0, 0)
        }
        IpAddr::V6(v6) => {
            let [a, b, c, .., y, z] = v6.segments();
            let four = |high: u16, low: u16| {
                is_inside(IpAddr::V4(std::net::Ipv4Addr::from_bits(u32::from(high) << 16 | u32::from(low))))
            };
            v6.is_loopback()
                || v6.is_unspecified()
                || v6.is_unique_local()
                || v6.is_unicast_link_local()
                || v6.is_multicast()
                // Site-local, deprecated (RFC 3879).
                || a & 0xffc0 == 0xfec0
                // NAT64 (RFC 6052), 6to4 (RFC 3056), IPv4-compatible (RFC 4291).
                || ((a, b) == (0x64, 0xff9b) && four(y, z))
                || (a == 0x2002 && four(b, c))
                || (v6.to_bits() >> 32 == 0 && four(y, z))
        }
    }
}

/// Whether the host of an address is internal, as far as its name alone tells.
fn is_internal(url: &Url) -> bool {
    match url.host() {
        Some(Host::Domain(name)) => {
            let name = name.trim_end_matches('.');
            name == "localhost" || name.ends_with(".localhost")
        }
        Some(Host::Ipv4(address)) => is_inside(address.into()),
        Some(Host::Ipv6(address)) => is_inside(address.into()),
        None => true,
    }
}

/// Whether the server at an address is public, and must therefore not lead us to internal ones. `peer` is the IP
/// address that answered.
pub(super) fn is_public(url: &Url, peer: Option<IpAddr>) -> bool {
    let named = matches!(url.host(), Some(Host::Domain(_)));
    let inside = is_internal(url) || named && peer.is_some_and(is_inside);
    !inside
}

/// Checks that `from` may lead us to `to`. If `from` is `public`, the host name of `to` is checked again when it is
/// resolved (see [`Outside`]). Fails if the step leads to another protocol, from TLS to plain HTTP, or from a public
/// server to an internal address.
pub(super) fn check(from: &Url, to: &Url, public: bool) -> Result<()> {
    let refuse = |why: &str| {
        let (from, to) = (authority(from), to.origin().ascii_serialization());
        Err(Error::new(Kind::Denied, format!("follow {from} to {to}: {why}")))
    };
    match (from.scheme(), to.scheme()) {
        (_, "https") | ("http", "http") => {}
        ("https", "http") => return refuse("it leads from TLS to plain HTTP"),
        _ => return refuse("it leads to another protocol"),
    }
    if public && is_internal(to) {
        return refuse("it leads to an internal address");
    }
    Ok(())
}

/// Resolves names to which a public server has led us. Internal addresses are removed from the result.
pub(super) struct Outside;

impl reqwest::dns::Resolve for Outside {
    fn resolve(&self, name: reqwest::dns::Name) -> reqwest::dns::Resolving {
        Box::pin(async move {
            let found = tokio::net::lookup_host((name.as_str(), 0)).await?;
            let found = outside(name.as_str(), found.collect())?;
            Ok(Box::new(found.into_iter()) as reqwest::dns::Addrs)
        })
    }
}

fn outside(name: &str, found: Vec<SocketAddr>) -> std::io::Result<Vec<SocketAddr>> {
    let kept: Vec<_> = found.iter().copied().filter(|address| !is_inside(address.ip())).collect();
    match kept.is_empty() && !found.is_empty() {
        true => Err(std::io::Error::new(
            std::io::ErrorKind::PermissionDenied,
            format!("a public server leads to {name}, which is an internal address"),
        )),
        false => Ok(kept),
    }
}

pub(super) fn granting(host: &str) -> String {
    format!(
        "if the plugin is to ask it, grant it with `grant = {{ hosts = [{host:?}] }}` in the plugin's table"
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    fn url(text: &str) -> Url {
        Url::parse(text).unwrap()
    }

    #[test]
    fn nobody_outside_sends_us_inside() {
        let verdict = |from: &str, to: &str| check(&url(from), &url(to), is_public(&url(from), None)).is_ok();
        assert!(verdict("https://r.example/v2/", "https://cdn.example/blob"));
        assert!(verdict("https://10.0.0.1/v2/", "https://10.0.0.2/blob"));
        assert!(verdict("http://127.0.0.1:5000/v2/", "http://127.0.0.1:9000/blob"));
        for inside in [
            "https://127.0.0.1/",
            "https://169.254.169.254/latest",
            "https://[::1]/",
            "https://10.1.2.3/",
            "https://100.64.0.1/",
            "https://0.0.0.0/",
            "https://localhost/",
            "https://[::ffff:10.0.0.1]/",
            "https://[64:ff9b::a00:1]/",
            "https://[2002:7f00:1::]/",
            "https://2130706433/",
        ] {
            assert!(!verdict("https://r.example/v2/", inside), "{inside}");
        }
        assert!(!verdict("https://r.example/v2/", "http://r.example/v2/"));
        assert!(!verdict("https://r.example/v2/", "file:///etc/passwd"));
    }

    #[test]
    fn a_name_is_judged_by_who_answers_to_it() {
        let registry = url("https://registry.corp/v2/");
        assert!(!is_public(&registry, Some([10, 0, 0, 1].into())));
        assert!(is_public(&registry, Some([1, 1, 1, 1].into())));
        // A literal address counts as it is written, even if an internal proxy answers.
        assert!(is_public(&url("https://1.1.1.1/"), Some([10, 0, 0, 1].into())));
    }

    #[test]
    fn names_that_resolve_to_the_inside_are_refused() {
        let at = |octets: [u8; 4]| SocketAddr::from((octets, 443));
        assert_eq!(outside("x", vec![at([10, 0, 0, 1]), at([1, 1, 1, 1])]).unwrap(), [at([1, 1, 1, 1])]);
        assert!(outside("x", vec![at([127, 0, 0, 1]), at([169, 254, 169, 254])]).is_err());
    }

    #[test]
    fn loopback_by_name_and_number() {
        for host in ["localhost:5000", "127.0.0.1", "127.9.9.9:1", "[::1]:5000"] {
            assert!(is_loopback(host), "{host}");
        }
        for host in ["r.example", "10.0.0.1", "localhost.example"] {
            assert!(!is_loopback(host), "{host}");
        }
    }
}
