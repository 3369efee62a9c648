//! `[vars]` and `${…}`: values that a policy says once, or takes from the environment.

use super::{Problem, raw};
use std::{cell::Cell, collections::BTreeMap, ops::Range};
use toml::{
    Spanned as TomlSpanned,
    de::{DeTable, DeValue},
};

/// Looks up an environment variable.
pub type Variables<'a> = &'a dyn Fn(&str) -> Option<String>;

/// Replaces `${NAME}` and `${env:NAME}` in all strings of a policy, and in the names of its registries.
///
/// Secrets are left out, because a policy names where a secret is and never holds one.
pub(super) fn expand(root: &mut DeTable<'_>, environment: Variables<'_>, problems: &mut Vec<Problem>) {
    let mut vars = Vars { values: BTreeMap::new(), environment, declaring: true, grown: Cell::new(0) };
    let declared = root.iter_mut().find(|(key, _)| key.get_ref() == "vars");
    if let Some((_, declared)) = declared {
        let declaration = declared.span();
        let DeValue::Table(table) = declared.get_mut() else {
            problems.push(
                Problem::new("`vars` is a table of strings", declaration)
                    .help("write [vars] and below it mirror = \"registry.example.com\""),
            );
            return;
        };
        for (key, value) in table.iter_mut() {
            let span = value.span();
            if let DeValue::String(text) = value.get_mut() {
                // A variable may use the environment, but no other variable, so their order does not matter.
                if let Some(expanded) = vars.expanded(text, &span, problems) {
                    *text = expanded.into();
                }
            }
            match raw::string(value, problems) {
                Some(text) => vars.values.insert(key.get_ref().to_string(), text.value),
                None => continue,
            };
        }
    }
    vars.declaring = false;
    vars.table(root, &mut Vec::new(), problems);
}

/// Bytes of all texts whose variables are replaced, each counted again at every variable in it. More is a mistake, or an
/// attack.
const LARGEST: usize = 16 << 20;

struct Vars<'a> {
    values: BTreeMap<String, String>,
    environment: Variables<'a>,
    /// The variables themselves are being read.
    declaring: bool,
    /// Bytes that were made so far.
    grown: Cell<usize>,
}

/// Whether a path of keys leads to a secret, or to what says where one is.
fn is_secret(path: &[String]) -> bool {
    let path: Vec<&str> = path.iter().map(String::as_str).collect();
    // Who logs in and by what is no secret.
    if matches!(path.last(), Some(&("username" | "provider"))) {
        return false;
    }
    matches!(path[..], ["registry", _, "auth", ..] | ["defaults", "registry", "auth", ..])
        || matches!(path[..], ["plugin", _, "grant", "secrets", ..])
}

impl Vars<'_> {
    fn table(&self, table: &mut DeTable<'_>, path: &mut Vec<String>, problems: &mut Vec<Problem>) {
        if path == &["registry"] {
            self.names(table, problems);
        }
        for (key, value) in table.iter_mut() {
            path.push(key.get_ref().to_string());
            if path != &["vars"] {
                self.value(value, path, problems);
            }
            path.pop();
        }
    }

    /// Expands the names of registries, which are keys.
    fn names(&self, table: &mut DeTable<'_>, problems: &mut Vec<Problem>) {
        for (key, value) in std::mem::take(table) {
            let span = key.span();
            let key = match self.expanded(key.get_ref(), &span, problems) {
                Some(name) => TomlSpanned::new(span.clone(), name.into()),
                None => key,
            };
            let name = key.get_ref().to_string();
            if table.insert(key, value).is_some() {
                problems.push(Problem::new(format!("the registry `{name}` is declared twice"), span));
            }
        }
    }

    fn value(
        &self,
        value: &mut TomlSpanned<DeValue<'_>>,
        path: &mut Vec<String>,
        problems: &mut Vec<Problem>,
    ) {
        let span = value.span();
        match value.get_mut() {
            DeValue::String(text) if text.contains("${") && is_secret(path) => problems.push(
                Problem::new("`${…}` stands for nothing in what names a secret", span)
                    .help("write where the secret is: \"env:NAME\" or \"file:PATH\""),
            ),
            DeValue::String(text) => {
                if let Some(expanded) = self.expanded(text, &span, problems) {
                    *text = expanded.into();
                }
            }
            DeValue::Array(items) => {
                items.iter_mut().for_each(|item| self.value(item, path, problems));
            }
            DeValue::Table(table) => self.table(table, path, problems),
            _ => {}
        }
    }

    /// A text with its variables replaced. `None` means that it has none. `$${` stands for `${`.
    fn expanded(&self, text: &str, span: &Range<usize>, problems: &mut Vec<Problem>) -> Option<String> {
        if !text.contains("${") {
            return None;
        }
        let mut out = String::new();
        let mut rest = text;
        while let Some(at) = rest.find("${") {
            if rest[..at].ends_with('$') {
                out.push_str(&rest[..at - 1]);
                out.push_str("${");
                rest = &rest[at + 2..];
                continue;
            }
            out.push_str(&rest[..at]);
            let Some(end) = rest[at..].find('}') else {
                problems.push(
                    Problem::new(format!("`{text}` never closes its `${{`"), span.clone())
                        .help("write ${NAME}, or $${ for the characters themselves"),
                );
                return None;
            };
            let name = &rest[at + 2..at + end];
            match self.lookup(name) {
                Ok(value) => out.push_str(&value),
                Err((message, help)) => {
                    problems.push(Problem::new(message, span.clone()).help(help));
                    return None;
                }
            }
            self.grown.set(self.grown.get() + out.len());
            if self.grown.get() > LARGEST {
                let message = format!("variables make the policy grow by more than {LARGEST} bytes");
                problems.push(Problem::new(message, span.clone()).help("use smaller variables"));
                return None;
            }
            rest = &rest[at + end + 1..];
        }
        out.push_str(rest);
        Some(out)
    }

    /// The value of `NAME`, `env:NAME` or `env:NAME:-DEFAULT`.
    fn lookup(&self, name: &str) -> Result<String, (String, String)> {
        if let Some(variable) = name.strip_prefix("env:") {
            let (variable, default) = match variable.split_once(":-") {
                Some((variable, default)) => (variable, Some(default)),
                None => (variable, None),
            };
            let value = (self.environment)(variable).filter(|value| default.is_none() || !value.is_empty());
            return value.or_else(|| default.map(str::to_owned)).ok_or_else(|| {
                (
                    format!("the environment variable {variable} is not set"),
                    format!("set it, or give a default: ${{env:{variable}:-VALUE}}"),
                )
            });
        }
        if self.declaring {
            let help = format!("write the text itself, or ${{env:{name}}}");
            return Err((format!("a variable cannot use the variable `{name}`"), help));
        }
        self.values.get(name).cloned().ok_or_else(|| {
            let help = match name {
                "name" | "path" | "registry" | "tag" => {
                    format!("for a part of the source's name write {{{name}}}, without the `$`")
                }
                _ => super::suggestion(name, self.values.keys().map(String::as_str)).unwrap_or_else(|| {
                    format!("declare it: [vars] and below it {name} = \"…\"; or write ${{env:{name}}}")
                }),
            };
            (format!("the variable `{name}` is not declared"), help)
        })
    }
}
