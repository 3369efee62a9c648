//! Which hosts a grant names.

/// Whether a grant, `host[:port]` or `*.domain[:port]`, names a host. A `*` stands for one or more names before the domain, and for no
/// other characters than those of host names, so nothing that a URL might read in another way gets through.
///
/// ```
/// use dray_core::policy::grants_host;
///
/// assert!(grants_host("*.amazonaws.com", "sts.eu-west-1.amazonaws.com"));
/// assert!(!grants_host("*.amazonaws.com", "amazonaws.com"));
/// ```
pub fn grants_host(granted: &str, host: &str) -> bool {
    let Some(domain) = granted.strip_prefix('*').filter(|domain| domain.starts_with('.')) else {
        return granted == host;
    };
    let Some(names) = host.strip_suffix(domain) else { return false };
    let plain = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'.');
    let whole = !names.starts_with('.') && !names.ends_with('.') && !names.contains("..");
    !names.is_empty() && names.bytes().all(plain) && whole
}

/// Whether a text is a grant of hosts: `host[:port]` or `*.domain[:port]`, in lower case.
///
/// ```
/// use dray_core::policy::is_host_grant;
///
/// assert!(is_host_grant("*.example.com:8443") && is_host_grant("[::1]:5000"));
/// assert!(!is_host_grant("*@evil.example\\.example.com"));
/// ```
pub fn is_host_grant(text: &str) -> bool {
    let named = text.strip_prefix("*.").unwrap_or(text);
    let (host, port) = split(named);
    let plain =
        |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit() || matches!(byte, b'-' | b'.' | b'_');
    let address = host.starts_with('[') && host.ends_with(']') && !text.starts_with('*');
    let name = !host.is_empty()
        && host.bytes().all(plain)
        && !host.starts_with('.')
        && !host.ends_with('.')
        && !host.contains("..");
    // A domain of digits alone would name addresses.
    let last = host.rsplit('.').next().unwrap_or_default();
    let numbers = text.starts_with('*') && last.bytes().all(|byte| byte.is_ascii_digit());
    (address || name) && !numbers && port.is_none_or(|port| port.parse::<u16>().is_ok())
}

/// Splits `host[:port]`. The brackets of an IPv6 address are kept.
fn split(text: &str) -> (&str, Option<&str>) {
    match text.rsplit_once(':') {
        Some((host, port)) if !text.ends_with(']') => (host, Some(port)),
        _ => (text, None),
    }
}

/// What a grant of a host and a plugin's wish for one have in common: the one that the other covers. A wish without a port is for any
/// port. `None` means that they have nothing in common. A wish is a plugin's own text, so it counts only if a policy could grant it.
///
/// ```
/// use dray_core::policy::narrower_host;
///
/// assert_eq!(narrower_host("*.example.com", "login.example.com").as_deref(), Some("login.example.com"));
/// assert_eq!(narrower_host("*.example.com", "*@evil.example\\.example.com"), None);
/// ```
pub fn narrower_host(granted: &str, wish: &str) -> Option<String> {
    if !is_host_grant(granted) || !is_host_grant(wish) {
        return None;
    }
    let wish = match (split(granted), split(wish)) {
        ((_, Some(port)), (_, None)) => format!("{wish}:{port}"),
        _ => wish.to_owned(),
    };
    let covers = |wide: &str, narrow: &str| match (wide.strip_prefix('*'), narrow.strip_prefix('*')) {
        (Some(domain), Some(beneath)) => beneath.ends_with(domain),
        _ => grants_host(wide, narrow),
    };
    match (covers(granted, &wish), covers(&wish, granted)) {
        (true, _) => Some(wish),
        (_, true) => Some(granted.to_owned()),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_grant_is_a_host_or_a_domain() {
        for good in [
            "a.example",
            "a.example:8443",
            "*.example",
            "*.b.example:8443",
            "127.0.0.1:5000",
            "[::1]:5000",
            "[::1]",
            "localhost",
        ] {
            assert!(is_host_grant(good), "{good}");
        }
        for bad in [
            "",
            "*",
            "*.",
            "*.*",
            "a*.example",
            "https://a/",
            "A.example",
            "a.example.",
            ".example",
            "a.example:port",
            "a b",
            "*.1",
        ] {
            assert!(!is_host_grant(bad), "{bad}");
        }
    }

    #[test]
    fn a_wildcard_stands_for_names_of_hosts_only() {
        for (granted, host, allowed) in [
            ("a.example", "a.example", true),
            ("a.example", "b.example", false),
            ("a.example:8443", "a.example:8443", true),
            ("a.example:8443", "a.example", false),
            ("*.example", "a.example", true),
            ("*.example", "b.a.example", true),
            ("*.example", "example", false),
            ("*.example", ".example", false),
            ("*.example", "a..example", false),
            ("*.example", "evil.org:443@x.example", false),
            ("*.example", "evil.org\\.example", false),
            ("*.example", "evil.org/.example", false),
            ("*.example", "[::1].example", false),
            ("*.example", "a.example:8443", false),
            ("*.example:8443", "a.example:8443", true),
            ("*", "a.example", false),
            ("a*.example", "ab.example", false),
            ("*.example", "a.example.evil.org", false),
        ] {
            assert_eq!(grants_host(granted, host), allowed, "{granted} {host}");
        }
    }
}
