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
    let (host, port) = match named.rsplit_once(':') {
        Some((host, port)) if !named.ends_with(']') => (host, port),
        _ => (named, "443"),
    };
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
    (address || name) && !numbers && port.parse::<u16>().is_ok()
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
