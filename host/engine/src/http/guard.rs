//! Where requests may go that the other side asked for: redirects, upload locations, token realms.

use crate::{Error, Kind, Result};
use std::net::IpAddr;
use url::{Host, Url};

/// `host[:port]` of an address, as references write it.
pub(super) fn authority(url: &Url) -> String {
    match (url.host_str(), url.port()) {
        (Some(host), Some(port)) => format!("{host}:{port}"),
        (Some(host), None) => host.into(),
        (None, _) => String::new(),
    }
}

/// Whether the host of an address is this machine.
pub(super) fn is_loopback(authority: &str) -> bool {
    let Ok(url) = Url::parse(&format!("http://{authority}")) else { return false };
    match url.host() {
        Some(Host::Domain(name)) => name == "localhost" || name.ends_with(".localhost"),
        Some(Host::Ipv4(address)) => address.is_loopback(),
        Some(Host::Ipv6(address)) => address.is_loopback(),
        None => false,
    }
}

/// Whether an address is reachable only from inside: loopback, private, link-local (cloud
/// metadata services).
fn is_internal(url: &Url) -> bool {
    let internal = |address: IpAddr| match address.to_canonical() {
        IpAddr::V4(v4) => v4.is_loopback() || v4.is_private() || v4.is_link_local() || v4.is_unspecified(),
        IpAddr::V6(v6) => {
            v6.is_loopback() || v6.is_unique_local() || v6.is_unicast_link_local() || v6.is_unspecified()
        }
    };
    match url.host() {
        Some(Host::Domain(name)) => {
            let name = name.trim_end_matches('.');
            name == "localhost" || name.ends_with(".localhost")
        }
        Some(Host::Ipv4(address)) => internal(address.into()),
        Some(Host::Ipv6(address)) => internal(address.into()),
        None => true,
    }
}

/// Checks that `from` may send dray to `to`.
///
/// # Errors
/// Where it would lead to another protocol, from TLS to none, or from outside to inside.
pub(super) fn check(from: &Url, to: &Url) -> Result<()> {
    let refuse = |why: &str| {
        let (from, to) = (authority(from), to.origin().ascii_serialization());
        Err(Error::new(Kind::Denied, format!("follow {from} to {to}: {why}")))
    };
    match (from.scheme(), to.scheme()) {
        (_, "https") | ("http", "http") => {}
        ("https", "http") => return refuse("it leads from TLS to plain HTTP"),
        _ => return refuse("it leads to another protocol"),
    }
    if is_internal(to) && !is_internal(from) {
        return refuse("it leads to an internal address");
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nobody_outside_sends_us_inside() {
        let verdict =
            |from: &str, to: &str| check(&Url::parse(from).unwrap(), &Url::parse(to).unwrap()).is_ok();
        assert!(verdict("https://r.example/v2/", "https://cdn.example/blob"));
        assert!(verdict("https://10.0.0.1/v2/", "https://10.0.0.2/blob"));
        assert!(verdict("http://127.0.0.1:5000/v2/", "http://127.0.0.1:9000/blob"));
        for inside in [
            "https://127.0.0.1/",
            "https://169.254.169.254/latest",
            "https://[::1]/",
            "https://10.1.2.3/",
            "https://localhost/",
            "https://[::ffff:10.0.0.1]/",
            "https://2130706433/",
        ] {
            assert!(!verdict("https://r.example/v2/", inside), "{inside}");
        }
        assert!(!verdict("https://r.example/v2/", "http://r.example/v2/"));
        assert!(!verdict("https://r.example/v2/", "file:///etc/passwd"));
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
