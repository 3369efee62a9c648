//! Texts from untrusted sources: tag names, error texts of registries, names in archives, logs of plugins. They are
//! made harmless where they leave dray ([`harmless`]), and addresses in them are shown without secrets
//! ([`without_secrets`]).

use std::fmt::Write;

/// Makes a text safe to print as one line. Characters that move the cursor of a terminal, begin a line, change the
/// direction of writing, or are invisible are written as escapes such as `\u{…}`. A text of more than `most` characters
/// is cut off there and ends in `…`.
///
/// ```
/// assert_eq!(dray_core::harmless("a\u{1b}[2Jb\n", 99), r"a\u{1b}[2Jb\n");
/// assert_eq!(dray_core::harmless("abcdef", 3), "abc…");
/// ```
pub fn harmless(text: &str, most: usize) -> String {
    let mut out = String::with_capacity(text.len().min(most));
    for (at, character) in text.chars().enumerate() {
        if at == most {
            out.push('…');
            break;
        }
        match character {
            '\n' => out.push_str("\\n"),
            '\r' => out.push_str("\\r"),
            '\t' => out.push_str("\\t"),
            // Writing to a string never fails.
            _ if misleads(character) => _ = write!(out, "\\u{{{:x}}}", u32::from(character)),
            _ => out.push(character),
        }
    }
    out
}

/// Whether a character steers a terminal or changes how the text around it reads (Unicode Standard, 23.1 and 23.2:
/// controls; UAX #9: directional formatting characters).
pub fn misleads(character: char) -> bool {
    character.is_control()
        || matches!(character,
            '\u{ad}' | '\u{61c}' | '\u{180e}' | '\u{200b}'..='\u{200f}' | '\u{2028}'..='\u{202e}'
            | '\u{2060}'..='\u{206f}' | '\u{feff}' | '\u{fff9}'..='\u{fffb}' | '\u{e0000}'..='\u{e007f}')
}

/// Removes the user, password, query and fragment from every address in a text, because the queries of signed addresses
/// are credentials.
///
/// ```
/// let shown = dray_core::without_secrets("GET https://u:p@cdn.example/blob?X-Amz-Signature=00: no answer");
/// assert_eq!(shown, "GET https://cdn.example/blob no answer");
/// ```
pub fn without_secrets(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    let mut rest = text;
    while let Some(at) = rest.find("://") {
        let (before, after) = rest.split_at(at + 3);
        out.push_str(before);
        let end = after.find(ends_address).unwrap_or(after.len());
        let (address, behind) = after.split_at(end);
        out.push_str(plain(address));
        rest = behind;
    }
    out.push_str(rest);
    out
}

/// The part of an address without its scheme that may be shown: without user, query and fragment.
fn plain(address: &str) -> &str {
    let shown = address.split(['?', '#']).next().unwrap_or_default();
    // `docker://busybox@sha256:…` names a digest, not a user.
    let digest = shown.find("@sha256:").or(shown.find("@sha512:")).unwrap_or(shown.len());
    let authority = shown.find('/').unwrap_or(shown.len());
    let port = shown[..authority].rsplit_once(':').map(|(_, port)| port);
    // If the text in the place of a port is not a number, it is a part of a password that contains an unescaped slash.
    let is_port =
        port.is_none_or(|port| port.ends_with(']') || port.bytes().all(|byte| byte.is_ascii_digit()));
    let until = if is_port { authority.min(digest) } else { digest };
    match shown[..until].rfind('@') {
        Some(at) => &shown[at + 1..],
        None => shown,
    }
}

/// Whether a character ends an address, because no address contains it.
fn ends_address(character: char) -> bool {
    character.is_whitespace() || matches!(character, '"' | '<' | '>')
}

/// A proxy as people may see it: without user and password, in whatever form it is written.
pub fn shown_proxy(proxy: &str) -> String {
    let (scheme, rest) = proxy.split_once("://").map_or(("", proxy), |(scheme, rest)| (scheme, rest));
    let host = rest.rsplit_once('@').map_or(rest, |(_, host)| host);
    if scheme.is_empty() { host.into() } else { format!("{scheme}://{host}") }
}

/// An address as it is sent. Its query may be a signature and its user a credential, so it has no `Display`.
/// [`Address::shown`] is the text for people.
#[derive(Clone, Default, PartialEq, Eq, Hash)]
pub struct Address(String);

impl Address {
    /// Wraps the text of an address.
    pub fn new(text: impl Into<String>) -> Self {
        Address(text.into())
    }

    /// The whole address, for the code that sends it.
    pub fn expose(&self) -> &str {
        &self.0
    }

    /// The part of the address that people may see.
    pub fn shown(&self) -> String {
        // The whole text is one address, whatever characters it contains.
        match self.0.split_once("://") {
            Some((scheme, address)) => format!("{scheme}://{}", plain(address)),
            None => plain(&self.0).into(),
        }
    }
}

impl std::fmt::Debug for Address {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(&self.shown())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nothing_that_steers_a_terminal_gets_through() {
        for text in ["\u{1b}]0;x\u{7}", "\u{9b}2J", "\u{202e}gpj", "a\u{200b}b", "\r\n", "\u{2028}", "\0"] {
            let shown = harmless(text, 100);
            assert!(!shown.chars().any(misleads), "{shown:?}");
        }
        assert_eq!(harmless("größe 日本 🦀", 100), "größe 日本 🦀");
    }

    #[test]
    fn addresses_lose_their_secrets_and_references_stay() {
        for (text, shown) in [
            (
                "https://a.example/x?sig=1 and http://b.example?t=2#f.",
                "https://a.example/x and http://b.example",
            ),
            ("proxy http://me:pw@p.example:3128: refused", "proxy http://p.example:3128: refused"),
            ("docker://busybox@sha256:00", "docker://busybox@sha256:00"),
            ("docker://me:pw@r.example/a:1", "docker://r.example/a:1"),
            ("\"https://u@h/a?b\" <https://h/?c>", "\"https://h/a\" <https://h/>"),
            ("PUT https://h/u?name=(x)|&Signature=TOP: no", "PUT https://h/u no"),
            ("proxy http://me:pa(ss'w|rd@p:1", "proxy http://p:1"),
            ("http://me:pass/w0rd@p:1/x", "http://p:1/x"),
            ("docker://me:p/a@r.example/a:1", "docker://r.example/a:1"),
            ("docker://r.example:5000/a@sha256:00", "docker://r.example:5000/a@sha256:00"),
            ("no address? none", "no address? none"),
        ] {
            assert_eq!(without_secrets(text), shown);
        }
        assert_eq!(format!("{:?}", Address::new("https://u@h/a b?token=\"x")), "https://h/a b");
        for (proxy, shown) in [
            ("http://me:pa(ss@p:3128", "http://p:3128"),
            ("me:pass@p:3128", "p:3128"),
            ("http://me:pass/x@p", "http://p"),
            ("p:3128", "p:3128"),
        ] {
            assert_eq!(shown_proxy(proxy), shown);
        }
    }
}
