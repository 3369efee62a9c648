//! A policy's text as it is shown with a mistake underlined: a secret that was written into it by mistake is not.

/// Keys whose values lie elsewhere, so that a literal is a mistake.
const KEYS: [&str; 6] = ["password", "token", "identity-token", "credentials", "secrets", "proxy"];

/// The text with literal secrets and the users of addresses blotted out; every byte stays at its place.
pub fn masked(text: &str) -> String {
    let mut bytes = text.as_bytes().to_vec();
    // In the table of a registry, what a key that is not known holds may be a secret whose key is mistyped.
    let mut in_registry = false;
    // A list or a text of such a key that goes on in the next line.
    let mut open: Option<&str> = None;
    for line in lines(text) {
        let content = &text[line.clone()];
        if let Some(end) = open {
            bytes[line.clone()].fill(b'*');
            if content.contains(end) {
                open = None;
            }
            continue;
        }
        if let Some(header) = content.trim_start().strip_prefix('[') {
            let header = header.trim_start_matches('[').trim_start();
            in_registry = header.starts_with("registry") || header.starts_with("defaults.registry");
        }
        if let Some(start) = value_of_key(content) {
            let value = content[start..].trim();
            open = match value {
                _ if value.starts_with("\"\"\"") && !value[3..].contains("\"\"\"") => Some("\"\"\""),
                _ if value.starts_with("'''") && !value[3..].contains("'''") => Some("'''"),
                _ if value.starts_with('[') && !value.contains(']') => Some("]"),
                _ => None,
            };
            if !value.starts_with(['"', '\'', '[', '{'])
                || value.starts_with("\"\"\"")
                || value.starts_with("'''")
            {
                bytes[line.start + start..line.end].fill(b'*');
            }
        }
        for (start, end) in strings(&text[line.clone()]) {
            let (start, end) = (line.start + start, line.start + end);
            let value = &text[start..end];
            let before = &text[line.start..start];
            let is_secret = (is_named(before) || (in_registry && is_unknown(before)))
                && !value.starts_with("env:")
                && !value.starts_with("file:");
            // The user and the password of an address.
            let user = value.find("://").map(|at| at + 3).and_then(|from| {
                let authority = value[from..].split('/').next().unwrap_or_default();
                authority.rfind('@').map(|to| (start + from, start + from + to))
            });
            let (from, to) = if is_secret { (start, end) } else { user.unwrap_or((start, start)) };
            bytes[from..to].fill(b'*');
        }
        for byte in &mut bytes[line] {
            if byte.is_ascii_control() && *byte != b'\t' {
                *byte = b'?';
            }
        }
    }
    String::from_utf8(bytes).unwrap_or_default()
}

/// Where the value of such a key begins in a line that sets it.
fn value_of_key(line: &str) -> Option<usize> {
    line.match_indices('=').map(|(at, _)| at + 1).find(|at| is_named(&line[..*at]))
}

fn lines(text: &str) -> impl Iterator<Item = std::ops::Range<usize>> + '_ {
    let mut start = 0;
    text.split('\n').map(move |line| {
        let range = start..start + line.len();
        start = range.end + 1;
        range
    })
}

/// Where the strings of a line lie, without their quotes.
fn strings(line: &str) -> Vec<(usize, usize)> {
    let mut found = Vec::new();
    let mut open: Option<(char, usize)> = None;
    let mut escaped = false;
    for (at, character) in line.char_indices() {
        match open {
            Some((quote, start)) if character == quote && !escaped => {
                found.push((start, at));
                open = None;
            }
            Some((quote, _)) => escaped = character == '\\' && quote == '"' && !escaped,
            None if matches!(character, '"' | '\'') => (open, escaped) = (Some((character, at + 1)), false),
            None if character == '#' => break,
            None => {}
        }
    }
    // It is never closed.
    found.extend(open.map(|(_, start)| (start, line.len())));
    found
}

/// Keys of a registry whose values are shown.
const SHOWN: [&str; 12] = [
    "bandwidth",
    "least-rate",
    "tls",
    "storage",
    "ca",
    "cert",
    "key",
    "provider",
    "username",
    "concurrency",
    "assume-unchanged",
    "verify",
];

/// Whether what stands before a string makes it the value of a key that a registry does not have, or of `auth` itself.
fn is_unknown(before: &str) -> bool {
    let Some((key, _)) = before.rsplit_once('=') else { return false };
    let key = key.trim_end().trim_end_matches(['"', '\'']);
    let word = |character: char| character.is_alphanumeric() || matches!(character, '-' | '_');
    let start = key.rfind(|character| !word(character)).map_or(0, |at| at + 1);
    !SHOWN.contains(&&key[start..])
}

/// Whether what stands before a string makes it the value of such a key, alone or in a list.
fn is_named(before: &str) -> bool {
    let Some((key, between)) = before.rsplit_once('=') else { return false };
    let key = key.trim_end().trim_end_matches(['"', '\'']);
    let in_list = between.contains('[') && !between.contains(']');
    let alone = between.trim_matches([' ', '\t', '"', '\'']).is_empty();
    (alone || in_list)
        && KEYS.iter().any(|known| {
            key.strip_suffix(known)
                .is_some_and(|rest| !rest.ends_with(|before: char| before.is_alphanumeric() || before == '-'))
        })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn secrets_are_blotted_out_and_all_else_stays() {
        for (text, shown) in [
            (
                "auth = { username = \"bob\", password = \"hünter2\" }",
                "auth = { username = \"bob\", password = \"********\" }",
            ),
            ("password = \"env:P\"", "password = \"env:P\""),
            (
                "grant = { secrets = [\"env:A\", \"hunter2\"] }",
                "grant = { secrets = [\"env:A\", \"*******\"] }",
            ),
            ("token='abc' # token = \"x\"", "token='***' # token = \"x\""),
            ("to = \"docker://me:pw@r/a\"", "to = \"docker://*****@r/a\""),
            ("name = \"my-password = x\"", "name = \"my-password = x\""),
            ("password = \"never", "password = \"*****"),
            ("a\u{1b}[2J\n", "a?[2J\n"),
            ("password = hunter2\nx = 1", "password =********\nx = 1"),
            ("secrets = [\n  \"hunter2\"\n]\nx = 1", "secrets = [\n***********\n*\nx = 1"),
            (
                "[registry.\"r\"]\nauth = { username = \"bob\", pasword = \"hunter2\" }",
                "[registry.\"r\"]\nauth = { username = \"bob\", pasword = \"*******\" }",
            ),
            ("[registry.r]\nauth = \"bob:hunter2\"", "[registry.r]\nauth = \"***********\""),
            ("[[rule]]\nform = \"oci\"", "[[rule]]\nform = \"oci\""),
            ("password = \"\"\"\nhunter2\"\"\"\nx = 1", "password =****\n**********\nx = 1"),
        ] {
            assert_eq!(masked(text), shown);
            assert_eq!(shown.len(), text.len());
        }
    }
}
