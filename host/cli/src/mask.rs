//! A policy's text as it is shown with a mistake underlined: a secret that was written into it by mistake is not.

use std::ops::Range;
use toml::{
    Spanned,
    de::{DeTable, DeValue},
};

/// Keys whose values lie elsewhere, so that a literal is a mistake.
const KEYS: [&str; 6] = ["password", "token", "identity-token", "credentials", "secrets", "proxy"];

/// The text with literal secrets and the users of addresses blotted out; every byte stays at its place.
pub fn masked(text: &str) -> String {
    let mut bytes = text.as_bytes().to_vec();
    for span in by_path(text) {
        // The quotes stay, if there are some.
        let quoted = text[span.clone()].starts_with(['"', '\'']);
        let (from, to) =
            if quoted { (span.start + 1, span.end.saturating_sub(1)) } else { (span.start, span.end) };
        if let Some(secret) = bytes.get_mut(from..to) {
            secret.iter_mut().filter(|byte| **byte != b'\n').for_each(|byte| *byte = b'*');
        }
    }
    let shown = String::from_utf8(bytes).unwrap_or_default();
    let (text, mut bytes) = (shown.as_str(), shown.clone().into_bytes());
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
            // The user and the password of an address; behind the `@` of a reference is a digest.
            let digest =
                |at: &usize| value[at + 1..].starts_with("sha256:") || value[at + 1..].starts_with("sha512:");
            let user = value.rfind('@').filter(|at| !digest(at)).map(|to| {
                let from = value[..to].find("://").map_or(0, |at| at + 3);
                (start + from, start + to)
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

/// What stands at paths of keys that lead to secrets, as far as the text can be read as TOML.
fn by_path(text: &str) -> Vec<Range<usize>> {
    let (document, _) = DeTable::parse_recoverable(text);
    let mut found = Vec::new();
    walk(document.get_ref(), &mut Vec::new(), &mut found);
    found
}

fn walk<'a>(table: &'a DeTable<'_>, path: &mut Vec<&'a str>, found: &mut Vec<Range<usize>>) {
    for (key, value) in table.iter() {
        path.push(key.get_ref());
        blot(value, path, found);
        path.pop();
    }
}

fn blot<'a>(value: &'a Spanned<DeValue<'_>>, path: &mut Vec<&'a str>, found: &mut Vec<Range<usize>>) {
    match value.get_ref() {
        DeValue::Table(table) => walk(table, path, found),
        DeValue::Array(items) => items.iter().for_each(|item| blot(item, path, found)),
        DeValue::String(text) if !is_secret(path, text) => {}
        _ if !is_secret(path, "") => {}
        _ => found.push(value.span()),
    }
}

/// Whether a value at a path of keys may be a secret. What says where a secret is, is none.
fn is_secret(path: &[&str], text: &str) -> bool {
    if text.starts_with("env:") || text.starts_with("file:") {
        return false;
    }
    let below = match path {
        ["registry", _, rest @ ..] | ["defaults", "registry", rest @ ..] => rest,
        ["plugin", _, "grant", key, ..] => return !matches!(*key, "hosts" | "files"),
        _ => return false,
    };
    match below {
        ["auth", .., "username"] => text.contains(':'),
        ["auth", .., "provider"] => false,
        ["auth", ..] => true,
        [key, ..] => !SHOWN.contains(key),
        [] => false,
    }
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
const SHOWN: [&str; 13] = [
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
    "kind",
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
            ("[\"registry\".r]\npasword = 'hunter2'", "[\"registry\".r]\npasword = '*******'"),
            ("registry = { r = { pasword = \"hunter2\" } }", "registry = { r = { pasword = \"*******\" } }"),
            ("[registry.r.auth]\nkey = \"hunter2\"", "[registry.r.auth]\nkey = \"*******\""),
            ("[defaults]\nregistry.auth = \"a:b\"", "[defaults]\nregistry.auth = \"***\""),
            ("from = \"docker://bob:hun/ter2@r/a\"", "from = \"docker://************@r/a\""),
            ("tags = [\"1@sha256:ab\"]", "tags = [\"1@sha256:ab\"]"),
            ("[registry.r]\nauth = \"bob:hunter2\"", "[registry.r]\nauth = \"***********\""),
            ("[[rule]]\nform = \"oci\"", "[[rule]]\nform = \"oci\""),
            ("password = \"\"\"\nhunter2\"\"\"\nx = 1", "password =****\n**********\nx = 1"),
        ] {
            assert_eq!(masked(text), shown);
            assert_eq!(shown.len(), text.len());
        }
    }
}
