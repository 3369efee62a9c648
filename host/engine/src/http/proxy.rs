//! Chooses the proxy for a host from the environment and the policy, by the conventions of curl and of Go's
//! `golang.org/x/net/http/httpproxy`.

use super::guard::{self, split};
use super::settings::Proxies;
use std::net::IpAddr;

/// The proxy for addresses of `scheme` at `host[:port]`. A loopback host is reached without a proxy.
pub(super) fn choose<'a>(proxies: &'a Proxies, scheme: &str, authority: &str) -> Option<&'a str> {
    let proxy = if scheme == "http" { &proxies.http } else { &proxies.https };
    let proxy = proxy.as_deref().filter(|proxy| !proxy.is_empty())?;
    let port = if scheme == "http" { 80 } else { 443 };
    let spared = proxies.none.as_deref().is_some_and(|none| is_spared(none, authority, port));
    (!spared && !guard::is_loopback(authority)).then_some(proxy)
}

fn unbracketed(host: &str) -> &str {
    host.strip_prefix('[').and_then(|host| host.strip_suffix(']')).unwrap_or(host)
}

/// Whether a list such as `.corp,10.0.0.0/8,r.example:5000` (`NO_PROXY`) contains a host.
fn is_spared(none: &str, authority: &str, default: u16) -> bool {
    let (host, port) = split(authority);
    let (host, port) =
        (unbracketed(host).trim_end_matches('.').to_ascii_lowercase(), port.unwrap_or(default));
    none.split([',', ' ']).map(str::trim).filter(|entry| !entry.is_empty()).any(|entry| {
        if entry == "*" {
            return true;
        }
        if let (Some((network, bits)), Ok(address)) = (entry.split_once('/'), host.parse::<IpAddr>()) {
            return is_within(address, network, bits);
        }
        let (entry, only) = split(entry);
        if only.is_some_and(|only| only != port) {
            return false;
        }
        let entry = unbracketed(entry).trim_end_matches('.').to_ascii_lowercase();
        match entry.strip_prefix("*.").or(entry.strip_prefix('.')) {
            Some(above) => host.strip_suffix(above).is_some_and(|rest| rest.ends_with('.')),
            None => host.strip_suffix(&entry).is_some_and(|rest| rest.is_empty() || rest.ends_with('.')),
        }
    })
}

fn is_within(address: IpAddr, network: &str, bits: &str) -> bool {
    let (Ok(network), Ok(bits)) = (network.parse::<IpAddr>(), bits.parse::<u32>()) else { return false };
    match (address, network) {
        (IpAddr::V4(address), IpAddr::V4(network)) if bits <= 32 => {
            let mask = u32::MAX.checked_shl(32 - bits).unwrap_or(0);
            u32::from(address) & mask == u32::from(network) & mask
        }
        (IpAddr::V6(address), IpAddr::V6(network)) if bits <= 128 => {
            let mask = u128::MAX.checked_shl(128 - bits).unwrap_or(0);
            u128::from(address) & mask == u128::from(network) & mask
        }
        _ => false,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn loopback_and_what_is_named_are_reached_directly() {
        let proxies = |none: &str| Proxies {
            http: Some("http://p.example:3128".into()),
            https: Some("http://s.example:3128".into()),
            none: Some(none.into()),
        };
        let spared = |none: &str, authority: &str| choose(&proxies(none), "https", authority).is_none();
        for (none, authority) in [
            ("", "127.0.0.1:5000"),
            ("", "localhost"),
            ("", "[::1]:5000"),
            ("r.example", "r.example"),
            ("R.example.", "a.r.example:5000"),
            (".example", "r.example"),
            ("*.example", "r.example"),
            ("x, r.example:5000", "r.example:5000"),
            ("r.example:443", "r.example"),
            ("10.0.0.0/8", "10.9.8.7:1"),
            ("fd00::/8", "[fd12::1]:5000"),
            ("*", "r.example"),
        ] {
            assert!(spared(none, authority), "{none} {authority}");
        }
        for (none, authority) in [
            ("", "r.example"),
            ("example.r", "r.example"),
            ("r.example:5001", "r.example:5000"),
            ("ample", "r.example"),
            (".r.example", "r.example"),
            ("10.0.0.0/8", "11.0.0.1"),
            ("0.0.0.0/40", "11.0.0.1"),
        ] {
            assert!(!spared(none, authority), "{none} {authority}");
        }
        assert_eq!(choose(&proxies(""), "http", "r.example"), Some("http://p.example:3128"));
    }
}
