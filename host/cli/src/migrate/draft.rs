//! A policy that is being made, with what could not be said.

use super::Wrong;
use crate::args::MigrateKind;
use clap::ValueEnum;
use dray_core::Yaml;
use serde_json::{Value, json};
use std::{collections::BTreeMap, path::Path};

/// A policy that is being made.
#[derive(Default)]
pub struct Draft {
    file: String,
    header: Vec<String>,
    registries: BTreeMap<String, Vec<(String, Value)>>,
    /// Its rules, in order.
    pub rules: Vec<Rule>,
    /// What cannot be said, with its place.
    left: Vec<(String, String)>,
}

/// A rule that is being made: its comments and its keys.
#[derive(Default)]
pub struct Rule {
    comments: Vec<String>,
    keys: Vec<(&'static str, Value)>,
}

impl Rule {
    /// A rule from one place to another.
    pub fn new(from: impl Into<Value>, to: impl Into<Value>) -> Self {
        Rule { comments: Vec::new(), keys: vec![("from", from.into()), ("to", to.into())] }
    }

    /// A rule with other keys than `from` and `to`.
    pub fn of(keys: Vec<(&'static str, Value)>) -> Self {
        Rule { comments: Vec::new(), keys }
    }

    /// Adds a key. Nothing is added for `null`.
    pub fn set(&mut self, key: &'static str, value: Value) {
        if !value.is_null() {
            self.keys.push((key, value));
        }
    }

    /// Adds a comment.
    pub fn comment(&mut self, text: impl Into<String>) {
        self.comments.push(text.into());
    }
}

impl Draft {
    /// Begins with another file.
    pub fn source(&mut self, file: &Path, kind: MigrateKind) {
        self.file = file.display().to_string();
        let kind = kind.to_possible_value();
        let kind = kind.as_ref().map_or("", |kind| kind.get_name());
        self.header.push(format!("Made by `dray migrate` from {} ({kind}).", self.file));
    }

    /// Adds a rule that comes from a value of the file.
    pub fn add(&mut self, mut rule: Rule, from: &Yaml, what: &str) {
        let comment = format!("{}:{}: {what}", self.file, from.line);
        rule.comments.insert(0, comment);
        self.rules.push(rule);
    }

    /// Remembers what cannot be said.
    pub fn leave(&mut self, value: &Yaml, why: impl Into<String>) {
        self.left.push((format!("{}:{}", self.file, value.line), why.into()));
    }

    /// Adds a setting of a registry. A second one must be the same.
    pub fn registry(&mut self, host: &str, key: &str, value: Value) {
        let entry = self.registries.entry(host.to_owned()).or_default();
        match entry.iter_mut().find(|(name, _)| name == key) {
            Some((_, there)) if there.is_object() && value.is_object() => {
                if let (Some(there), Value::Object(more)) = (there.as_object_mut(), value) {
                    there.extend(more);
                }
            }
            Some(_) => {}
            None => entry.push((key.to_owned(), value)),
        }
    }

    /// Adds a login. Its password is not written: a policy holds no secrets.
    pub fn login(&mut self, host: &str, user: &str, at: &Yaml) {
        let name: String = host
            .chars()
            .map(|character| if character.is_ascii_alphanumeric() { character } else { '_' })
            .collect();
        let digit = name.starts_with(|first: char| first.is_ascii_digit());
        let variable = format!("{}{}_PASSWORD", if digit { "REGISTRY_" } else { "" }, name.to_uppercase());
        self.registry(
            host,
            "auth",
            json!({ "username": from_environment(user), "password": format!("env:{variable}") }),
        );
        self.leave(at, format!("the password for {host} is not written: set {variable}, or leave `auth` out and use `dray login`"));
    }

    /// What cannot be said, one line each.
    pub fn left(&self) -> Vec<String> {
        self.left.iter().map(|(at, why)| format!("{at}: {}", one_line(why))).collect()
    }

    /// The policy.
    pub fn text(&self) -> String {
        let mut out = String::new();
        for line in &self.header {
            comment(&mut out, line);
        }
        if !self.left.is_empty() {
            comment(&mut out, "");
            comment(&mut out, "What this policy does not say:");
            for line in self.left() {
                comment(&mut out, &line);
            }
        }
        out.push_str("version = 1\n");
        for (host, keys) in &self.registries {
            out.push_str(&format!("\n[registry.{}]\n", text(host)));
            for (key, value) in keys {
                out.push_str(&format!("{key} = {}\n", inline(value)));
            }
        }
        let mut names: BTreeMap<String, usize> = BTreeMap::new();
        for rule in &self.rules {
            out.push('\n');
            for line in &rule.comments {
                comment(&mut out, line);
            }
            out.push_str("[[rule]]\n");
            // Several rules of one repository would have the same name otherwise.
            if let Some(name) = rule.name() {
                let count = names.entry(name.clone()).or_default();
                *count += 1;
                let name = if *count > 1 { format!("{name}-{count}") } else { name };
                out.push_str(&format!("name = {}\n", text(&name)));
            }
            for (key, value) in &rule.keys {
                out.push_str(&format!("{key} = {}\n", inline(value)));
            }
        }
        out
    }
}

impl Rule {
    /// A name for the rule: the last part of its source.
    fn name(&self) -> Option<String> {
        let (_, from) = self.keys.iter().find(|(key, _)| *key == "from")?;
        let from = from.as_str().or_else(|| from.get(0)?.as_str())?;
        let path = from.split('@').next().unwrap_or(from);
        let last = path.rsplit('/').next().unwrap_or(path);
        let name: String = last
            .split(':')
            .next()
            .unwrap_or(last)
            .chars()
            .filter(|c| c.is_ascii_alphanumeric() || "-_.".contains(*c))
            .collect();
        Some(if name.is_empty() { "images".into() } else { name })
    }
}

/// Begins a text that is written as it is, because its variable is meant.
const VARIABLE: char = '\u{1}';

/// A text in which other tools' ways to name a variable of the environment (`{{env "NAME"}}`, `${NAME}`) are dray's.
fn from_environment(text: &str) -> String {
    let inner = text.trim().strip_prefix("{{").and_then(|text| text.strip_suffix("}}"));
    let named = inner
        .and_then(|inner| inner.trim().strip_prefix("env"))
        .map(|name| name.trim().trim_matches(['"', '`']));
    let named = named.or_else(|| text.trim().strip_prefix("${").and_then(|text| text.strip_suffix('}')));
    match named {
        Some(name) if name.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'_') => {
            format!("{VARIABLE}${{env:{name}}}")
        }
        _ => text.to_owned(),
    }
}

fn one_line(text: &str) -> String {
    dray_core::harmless(text, 2_000)
}

fn comment(out: &mut String, line: &str) {
    out.push('#');
    if !line.is_empty() {
        out.push(' ');
        out.push_str(&one_line(line));
    }
    out.push('\n');
}

/// A text as TOML writes it, in which variables are replaced. A text with backslashes is written in single quotes, as
/// expressions are easier to read so.
fn text(text: &str) -> String {
    if let Some(variable) = text.strip_prefix(VARIABLE) {
        return json!(variable).to_string();
    }
    let text = text.replace("${", "$${");
    let plain = text.chars().all(|character| !character.is_control() && character != '\'');
    match text.contains('\\') && plain {
        true => format!("'{text}'"),
        false => json!(text).to_string(),
    }
}

fn inline(value: &Value) -> String {
    match value {
        Value::String(string) => text(string),
        Value::Array(items) => format!("[{}]", items.iter().map(inline).collect::<Vec<_>>().join(", ")),
        Value::Object(table) => {
            let key = |key: &str| match key
                .bytes()
                .all(|byte| byte.is_ascii_alphanumeric() || b"-_".contains(&byte))
            {
                true => key.to_owned(),
                false => text(key),
            };
            let entries = table.iter().map(|(name, value)| format!("{} = {}", key(name), inline(value)));
            format!("{{ {} }}", entries.collect::<Vec<_>>().join(", "))
        }
        other => other.to_string(),
    }
}

/// The host of a name, and the path beneath it, as Docker reads names.
pub fn host_and_path(name: &str, at: &Yaml) -> Result<(String, String), Wrong> {
    let name = name.trim().trim_start_matches("docker://").trim_start_matches('/');
    let parsed = dray_trust::Name::parse(name).map_err(|wrong| Wrong::at(at, wrong.to_string()))?;
    let mut path = parsed.path.clone();
    if let Some(tag) = &parsed.tag {
        path = format!("{path}:{tag}");
    }
    if let Some(digest) = &parsed.digest {
        path = format!("{path}@{digest}");
    }
    Ok((parsed.domain, path))
}

/// A reference of a registry's repository, written out.
pub fn docker(name: &str, at: &Yaml) -> Result<String, Wrong> {
    let (host, path) = host_and_path(name, at)?;
    Ok(format!("docker://{host}/{path}"))
}

/// The name of a repository without its tag and its digest, and these.
pub fn parts(name: &str) -> (&str, Option<&str>, Option<&str>) {
    let (name, digest) = match name.split_once('@') {
        Some((name, digest)) => (name, Some(digest)),
        None => (name, None),
    };
    let last = name.rfind('/').map_or(0, |at| at + 1);
    match name[last..].find(':') {
        Some(at) => (&name[..last + at], Some(&name[last + at + 1..]), digest),
        None => (name, None, digest),
    }
}
