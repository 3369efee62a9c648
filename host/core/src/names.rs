//! The small languages of `from` and `to`: `{a,b}`, globs, and `{name}`, `{path}`, `{registry}`,
//! `{tag}`.

/// What the placeholders of a `to` stand for.
#[derive(Clone, Debug)]
pub struct Names<'a> {
    /// `{registry}`: the place of the source.
    pub registry: &'a str,
    /// `{path}`: the whole repository of the source; its last component is `{name}`.
    pub repository: &'a str,
}

impl Names<'_> {
    /// Puts the names into a template. `{tag}` stays: it is known later.
    ///
    /// # Errors
    /// The placeholder that does not exist, or a brace that is never closed.
    pub fn fill(&self, template: &str) -> Result<String, String> {
        let name = self.repository.rsplit('/').next().unwrap_or(self.repository);
        let mut out = String::with_capacity(template.len());
        let mut rest = template;
        while let Some(open) = rest.find('{') {
            let Some(close) = rest[open..].find('}') else { return Err(rest[open..].into()) };
            out.push_str(&rest[..open]);
            match &rest[open + 1..open + close] {
                "name" => out.push_str(name),
                "path" => out.push_str(self.repository),
                "registry" => out.push_str(self.registry),
                "tag" => out.push_str("{tag}"),
                other => return Err(format!("{{{other}}}")),
            }
            rest = &rest[open + close + 1..];
        }
        out.push_str(rest);
        Ok(out)
    }
}

/// `a/{b,c}` → `a/b`, `a/c`. Braces nest.
///
/// # Errors
/// Where a brace is never closed.
pub fn expand_braces(text: &str) -> Result<Vec<String>, String> {
    let Some(open) = text.find('{') else { return Ok(vec![text.into()]) };
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
    let close = close.ok_or_else(|| text[open..].to_owned())?;
    cuts.push(close);
    let mut out = Vec::new();
    for pair in cuts.windows(2) {
        let choice = format!("{}{}{}", &text[..open], &text[pair[0] + 1..pair[1]], &text[close + 1..]);
        out.extend(expand_braces(&choice)?);
    }
    Ok(out)
}

/// Whether a repository matches a glob; `*` stays within one component, `**` does not.
pub fn matches(pattern: &str, repository: &str) -> bool {
    fast_glob::glob_match(pattern, repository)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn placeholders() {
        let names = Names { registry: "r.example", repository: "a/b" };
        assert_eq!(
            names.fill("docker://m/{registry}/{path}-{name}:{tag}").unwrap(),
            "docker://m/r.example/a/b-b:{tag}"
        );
        assert_eq!(names.fill("x{nmae}"), Err("{nmae}".into()));
        assert_eq!(names.fill("x{name"), Err("{name".into()));
    }

    #[test]
    fn braces() {
        assert_eq!(expand_braces("a/{b,c{d,e}}/f").unwrap(), ["a/b/f", "a/cd/f", "a/ce/f"]);
        assert_eq!(expand_braces("a").unwrap(), ["a"]);
        assert!(expand_braces("a/{b").is_err());
    }

    #[test]
    fn globs_stay_in_their_component() {
        assert!(matches("lib/*", "lib/a"));
        assert!(!matches("lib/*", "lib/a/b"));
        assert!(matches("lib/**", "lib/a/b"));
    }
}
