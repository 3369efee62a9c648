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
    !names.is_empty() && names.bytes().all(plain) && !names.starts_with('.') && !names.contains("..")
}

#[cfg(test)]
mod tests {
    use super::*;

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
