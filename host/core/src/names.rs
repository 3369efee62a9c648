//! The syntax of `from` and `to`: braces (`{a,b}`), globs, and the placeholders `{name}`, `{path}`, `{registry}` and
//! `{tag}`.

/// The values of the placeholders in a `to`.
#[derive(Clone, Debug)]
pub struct Names<'a> {
    /// `{registry}`: the place of the source.
    pub registry: &'a str,
    /// `{path}`: the whole repository of the source. Its last component is `{name}`, and `{path|strip:N}` is what is left of
    /// it without its first N components.
    pub repository: &'a str,
    /// `{tag}`. `None` means that the tag is not known yet, so the placeholder stays in the text.
    pub tag: Option<&'a str>,
}

/// Why a template cannot be filled in.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum FillError {
    /// A placeholder that does not exist, or a brace that is never closed.
    #[error("`{0}` stands for nothing")]
    Unknown(String),
    /// A repository that has too few components to take some away.
    #[error("{placeholder} takes away all of `{repository}`")]
    Short {
        /// The placeholder, for example `{path|strip:2}`.
        placeholder: String,
        /// The repository of the source, with control characters escaped.
        repository: String,
    },
    /// The value of a placeholder comes from the source and would lead out of the destination.
    #[error("{placeholder} stands for `{value}`, which {why}")]
    Unsafe {
        /// The placeholder, for example `{name}`.
        placeholder: String,
        /// The value that the source gave, with control characters escaped.
        value: String,
        /// What is wrong with the value.
        why: &'static str,
    },
}

/// Whether a text is a tag (OCI distribution specification 1.1, "Pulling manifests").
///
/// ```
/// assert!(dray_core::is_tag("v1.27_x-y"));
/// assert!(!dray_core::is_tag("") && !dray_core::is_tag("-1") && !dray_core::is_tag("a/b"));
/// ```
pub fn is_tag(text: &str) -> bool {
    let fits = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'_' | b'.' | b'-');
    text.len() <= 128
        && text.bytes().all(fits)
        && text.bytes().next().is_some_and(|first| first.is_ascii_alphanumeric() || first == b'_')
}

impl Names<'_> {
    /// The value of `{path|strip:N}`.
    fn stripped(&self, placeholder: &str) -> Result<&str, FillError> {
        let number = placeholder.strip_prefix("{path|strip:").and_then(|rest| rest.strip_suffix('}'));
        let number = number.and_then(|number| number.parse::<u8>().ok());
        let number = number.ok_or_else(|| FillError::Unknown(placeholder.into()))?;
        let mut rest = self.repository;
        for _ in 0..number {
            rest = rest.split_once('/').map(|(_, rest)| rest).ok_or_else(|| FillError::Short {
                placeholder: placeholder.into(),
                repository: crate::harmless(self.repository, 200),
            })?;
        }
        Ok(rest)
    }

    /// Replaces the placeholders in a template with their values.
    ///
    /// # Errors
    /// Fails if a placeholder does not exist, or if its value could lead out of the destination.
    pub fn fill(&self, template: &str) -> Result<String, FillError> {
        let name = self.repository.rsplit('/').next().unwrap_or(self.repository);
        let mut out = String::with_capacity(template.len());
        let mut rest = template;
        while let Some(open) = rest.find('{') {
            let Some(close) = rest[open..].find('}') else {
                return Err(FillError::Unknown(rest[open..].into()));
            };
            let placeholder = &rest[open..=open + close];
            let value = match placeholder {
                "{name}" => Some(name),
                "{path}" => Some(self.repository),
                "{registry}" => Some(self.registry),
                "{tag}" => self.tag,
                other => Some(self.stripped(other)?),
            };
            out.push_str(&rest[..open]);
            match value {
                None => out.push_str(placeholder),
                Some(value) => {
                    check(placeholder, value).map_err(|why| FillError::Unsafe {
                        placeholder: placeholder.into(),
                        value: crate::harmless(value, 200),
                        why,
                    })?;
                    // Behind the host of a reference, the colon before a port would begin a tag.
                    match placeholder == "{registry}" && !out.ends_with("//") {
                        true => out.push_str(&value.replace(':', "-")),
                        false => out.push_str(value),
                    }
                }
            }
            rest = &rest[open + close + 1..];
        }
        out.push_str(rest);
        Ok(out)
    }
}

/// Checks that a value from a source can become a part of a reference without leading elsewhere: as a path it stays in
/// its folder, and no character in it has a meaning for a transport (`@`, `[`, or a colon that does not precede a
/// port).
fn check(placeholder: &str, value: &str) -> Result<(), &'static str> {
    if value.chars().any(crate::misleads) {
        return Err("holds control characters");
    }
    if value.contains(['\\', '@', '[', ']', '{', '}', '*', '?', '#', '%']) {
        return Err("holds a character that no name has");
    }
    let mut components = value.split('/');
    if components.clone().any(str::is_empty) {
        return Err(if value.starts_with('/') { "is an absolute path" } else { "has an empty component" });
    }
    if components.clone().any(|component| component == "." || component == "..") {
        return Err("leads upwards");
    }
    // A repository may begin with the name of its registry, which may end with a port. A tag may not.
    let first = components.next().unwrap_or_default();
    let has_port = first.split_once(':').is_some_and(|(host, port)| {
        !host.is_empty() && !port.is_empty() && port.bytes().all(|byte| byte.is_ascii_digit())
    });
    let named = if has_port && placeholder != "{tag}" { &value[first.len()..] } else { value };
    if named.contains(':') {
        return Err("holds a colon");
    }
    Ok(())
}

/// Expands braces: `a/{b,c}` becomes `a/b` and `a/c`. Braces can be nested.
///
/// # Errors
/// Fails if the text is too long, if a brace is never closed, or if the text stands for more than [`CHOICES`] texts.
pub fn expand_braces(text: &str) -> Result<Vec<String>, String> {
    if text.contains('{') && text.len() > BRACED {
        return Err(format!("a text with braces has at most {BRACED} bytes"));
    }
    let mut out = Vec::new();
    expand(text, &mut out)?;
    Ok(out)
}

/// How many texts one text with braces may stand for. Ten times `{a,b}` already stands for 1024.
pub const CHOICES: usize = 10_000;

/// Bytes of a text with braces, so that all of its choices together stay small.
const BRACED: usize = 2048;

fn expand(text: &str, out: &mut Vec<String>) -> Result<(), String> {
    if out.len() >= CHOICES {
        return Err(format!("it stands for more than {CHOICES} references"));
    }
    let Some(open) = text.find('{') else {
        out.push(text.into());
        return Ok(());
    };
    let mut depth = 0;
    let mut cuts = vec![open];
    let mut close = None;
    for (at, character) in text.char_indices().skip_while(|(at, _)| *at < open) {
        match character {
            '{' => depth += 1,
            '}' if depth == 1 => {
                close = Some(at);
                break;
            }
            '}' => depth -= 1,
            ',' if depth == 1 => cuts.push(at),
            _ => {}
        }
    }
    let close = close.ok_or_else(|| format!("`{}` is never closed", &text[open..]))?;
    cuts.push(close);
    for pair in cuts.windows(2) {
        let choice = format!("{}{}{}", &text[..open], &text[pair[0] + 1..pair[1]], &text[close + 1..]);
        expand(&choice, out)?;
    }
    Ok(())
}

/// Whether a repository matches a glob. `*` matches within one component, and `**` matches across components.
pub fn matches(pattern: &str, repository: &str) -> bool {
    fast_glob::glob_match(pattern, repository)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn placeholders() {
        let names = Names { registry: "r.example:5000", repository: "a/b", tag: None };
        assert_eq!(
            names.fill("docker://m/{registry}/{path}-{name}:{tag}").unwrap(),
            "docker://m/r.example-5000/a/b-b:{tag}"
        );
        assert_eq!(names.fill("docker://{registry}/b/{path}").unwrap(), "docker://r.example:5000/b/a/b");
        assert_eq!(names.fill("x{nmae}"), Err(FillError::Unknown("{nmae}".into())));
        assert_eq!(names.fill("x{name"), Err(FillError::Unknown("{name".into())));
        let deep = Names { registry: "r", repository: "a/b/c", tag: None };
        for (number, left) in [(0, "a/b/c"), (1, "b/c"), (2, "c")] {
            assert_eq!(deep.fill(&format!("{{path|strip:{number}}}")).unwrap(), left);
        }
        assert!(matches!(deep.fill("{path|strip:3}"), Err(FillError::Short { .. })));
        for unknown in ["{path|strip:}", "{path|strip:x}", "{path|drop:1}", "{name|strip:1}"] {
            assert_eq!(deep.fill(unknown), Err(FillError::Unknown(unknown.into())));
        }
        assert_eq!(Names { tag: Some("1.0"), ..names }.fill("{name}:{tag}").unwrap(), "b:1.0");
    }

    #[test]
    fn names_of_strangers_stay_in_their_destination() {
        for value in [
            "",
            "/",
            "/etc",
            "..",
            "../x",
            "a/../b",
            "a/..",
            "./a",
            "a/.",
            "a//b",
            "a/",
            "a\nb",
            "a\u{1b}[2J",
            "a\\b",
            "a:b",
            "a/b:c",
            "[/etc]a",
            "a@sha256:00",
            "{tag}",
            "a:80:90",
            ":80",
            "a\u{202e}b",
            "..%2fa",
            "a?b",
            "a#b",
        ] {
            let names = Names { registry: value, repository: value, tag: Some(value) };
            for placeholder in ["{path}", "{registry}", "{tag}"] {
                let filled = names.fill(placeholder);
                assert!(
                    matches!(filled, Err(FillError::Unsafe { .. })),
                    "{placeholder} {value:?} {filled:?}"
                );
            }
        }
        for value in ["a", "a/b-c_d.e", "R.example:5000/a", "a+b", "v1.0", "...", "a..b"] {
            let names = Names { registry: value, repository: value, tag: None };
            assert_eq!(names.fill("{path} //{registry}").unwrap(), format!("{value} //{value}"));
        }
        let last = Names { registry: "r", repository: "../..", tag: None };
        assert!(last.fill("{name}").is_err());
        let port = Names { registry: "r", repository: "r", tag: Some("a:80") };
        assert!(port.fill("{tag}").is_err());
    }

    #[test]
    fn braces() {
        assert_eq!(expand_braces("a/{b,c{d,e}}/f").unwrap(), ["a/b/f", "a/cd/f", "a/ce/f"]);
        assert_eq!(expand_braces("a").unwrap(), ["a"]);
        assert!(expand_braces("a/{b").is_err());
        assert!(expand_braces(&"{a,b}".repeat(24)).is_err());
    }

    #[test]
    fn globs_stay_in_their_component() {
        assert!(matches("lib/*", "lib/a"));
        assert!(!matches("lib/*", "lib/a/b"));
        assert!(matches("lib/**", "lib/a/b"));
    }
}
