//! TOML → [`Policy`], or every mistake in it.

use super::call::{call, provider};
use super::document;
use super::limits::{concurrency, rate};
use super::plugin::plugin;
use super::raw::{Table, boolean, list, one_or_many, string, strings, table};
use super::retain::retains;
use super::rule::{check_defaults, rules};
use super::vars::Variables;
use super::*;
use std::collections::{BTreeSet, HashSet};
use toml::{Spanned as TomlSpanned, de::DeValue};

/// The JSON Schema of policies, for editors.
pub fn schema() -> &'static str {
    include_str!("schema.json")
}

/// Reads a policy of one text, without an environment.
///
/// # Errors
/// Every mistake that can be found without plugins, each with its place.
pub fn parse(text: &str) -> Result<Policy, PolicyError> {
    parse_all(&[text], &|_| None)
}

/// Reads a policy of several texts, of which the others are included by the first.
///
/// Positions count through all texts, as if they followed each other with one byte between them. `environment` gives the
/// variables of `${env:NAME}`.
///
/// # Errors
/// Every mistake that can be found without plugins, each with its place.
///
/// ```
/// let text = "version = 1\n[[rule]]\nfrom = \"docker://docker.io/library/nginx\"\n\
///     to = \"docker://${env:MIRROR}/{name}\"\n";
/// let environment = |name: &str| (name == "MIRROR").then(|| "mirror.example".to_owned());
/// let policy = dray_core::policy::parse_all(&[text], &environment)?;
/// assert_eq!(policy.rules[0].to.value.to_string(), "docker://mirror.example/{name}");
/// # Ok::<_, dray_core::policy::PolicyError>(())
/// ```
pub fn parse_all(texts: &[&str], environment: Variables<'_>) -> Result<Policy, PolicyError> {
    let mut problems = Vec::new();
    let padded = document::padded(texts);
    let root = document::read(&padded, environment, &mut problems);
    let Some(root) = root.filter(|_| problems.is_empty()) else { return Err(PolicyError(problems)) };
    let policy = policy(Table::new("a policy", &root, 0..0), &mut problems);
    // A mistake in `[defaults]` is found once for each rule.
    let mut seen = HashSet::new();
    let told: Vec<Problem> = problems
        .into_iter()
        .filter(|problem| seen.insert((problem.message.clone(), problem.span.clone())))
        .collect();
    if told.is_empty() { Ok(policy) } else { Err(PolicyError(told)) }
}

/// Reads a plugin's configuration from a table of key and value, as on a command line.
pub fn plugin_config(name: &str, config: serde_json::Map<String, serde_json::Value>) -> Call {
    Call {
        plugin: Spanned { value: name.into(), span: 0..0 },
        config: config.into(),
        keys: BTreeMap::new(),
        written: None,
        span: 0..0,
    }
}

fn policy(mut root: Table, problems: &mut Vec<Problem>) -> Policy {
    let mut policy = Policy::default();
    // They were read before: by `document::merged`, by whoever reads the files, and by `vars::expand`.
    let _ = (root.take("version"), root.take("include"), root.take("vars"));
    let system = root.take("system-config").and_then(|value| boolean(value, problems));
    policy.ignores_system = system == Some(false);
    let mut defaults = root.take("defaults").and_then(|value| table("`defaults`", value, problems));
    let mut default = |key| defaults.as_mut().and_then(|defaults| defaults.take(key));
    let (for_rules, for_registries) = (default("rule"), default("registry"));
    let for_plugins = default("plugin");
    if let Some(defaults) = defaults {
        defaults.end(problems);
    }
    let for_registries = for_registries.and_then(|value| table("`defaults.registry`", value, problems));
    if let Some(defaults) = &for_registries {
        defaults.refuse(&["storage"], "a folder is one registry's own", problems);
        policy.default_registry = registry(defaults.clone(), problems);
    }
    let mut places = BTreeMap::new();
    if let Some(value) = root.take("registry") {
        for (name, value) in named(value, problems) {
            if let Some(mut entry) = table("a registry", value, problems) {
                if let Some(defaults) = &for_registries {
                    entry.fall_back(defaults);
                }
                places.insert(name.clone(), entry.span.clone());
                policy.registries.insert(name, registry(entry, problems));
            }
        }
    }
    let for_plugins = for_plugins.and_then(|value| table("`defaults.plugin`", value, problems));
    if let Some(defaults) = &for_plugins {
        let own = "it is one plugin's own";
        defaults.refuse(&["source", "grant", "config", "at"], own, problems);
        let mut defaults = defaults.clone();
        // A mistake in its values is found once for each plugin.
        for key in ["source", "grant", "config", "at", "limits"] {
            defaults.take(key);
        }
        let keys = defaults.take("trusted-keys").map(|value| strings(value, &mut Vec::new()));
        policy.trusted_keys = keys.into_iter().flatten().map(|path| path.value.into()).collect();
        defaults.end(problems);
    }
    if let Some(value) = root.take("plugin") {
        for (name, value) in named(value, problems) {
            let plugin = table("a plugin", value, problems).and_then(|mut entry| {
                if let Some(defaults) = &for_plugins {
                    entry.fall_back(defaults);
                }
                plugin(entry, problems)
            });
            if let Some(plugin) = plugin {
                if is_built_in(&name) {
                    problems.push(
                        Problem::new(format!("`{name}` is built in"), plugin.source.span.clone())
                            .help("give the plugin another name"),
                    );
                }
                policy.plugins.insert(name, plugin);
            }
        }
    }
    let for_rules = for_rules.and_then(|value| table("`defaults.rule`", value, problems));
    if let Some(defaults) = &for_rules {
        check_defaults(defaults, problems);
    }
    if let Some(value) = root.take("retain") {
        policy.retains = retains(value, problems);
    }
    if let Some(value) = root.take("observe") {
        let tables = list(value, problems);
        policy.observers =
            tables.into_iter().filter_map(|table| call(table, "an observer", "observer", problems)).collect();
    }
    if let Some(value) = root.take("rule") {
        policy.rules = rules(value, for_rules.as_ref(), problems);
    }
    let related: BTreeSet<&String> = policy.rules.iter().flat_map(|rule| &rule.related).collect();
    for retain in &mut policy.retains {
        retain.related = related.iter().copied().cloned().collect();
    }
    policy.warnings = warnings(&policy, &places);
    root.end(problems);
    policy
}

/// What is probably a mistake: tables of registries that no reference names, and tags that look like versions with a
/// placeholder.
fn warnings(policy: &Policy, registries: &BTreeMap<String, Range<usize>>) -> Vec<Problem> {
    let hosts = policy.registries_named();
    // A host that only a template, a list or a plugin knows may be meant.
    let unknown = hosts.iter().any(|host| host.contains(['{', '*']))
        || policy.rules.iter().any(|rule| !rule.images_from.is_empty())
        || !policy.plugins.is_empty()
        || !policy.observers.is_empty();
    let unused = registries.iter().filter(|(name, _)| !unknown && !hosts.contains(*name));
    let warning = |(name, span): (&String, &Range<usize>)| {
        let help = suggestion(name, hosts.iter().map(String::as_str));
        let help = help.unwrap_or_else(|| "leave it out, or name it in `from` or `to`".into());
        Problem::new(format!("no rule names the registry `{name}`"), span.clone()).help(help)
    };
    let literals = policy.rules.iter().flat_map(|rule| rule.tags.iter().flat_map(|tags| &tags.literals));
    let placeholders = literals.filter(|literal| has_placeholder(&literal.value)).map(|literal| {
        Problem::new(
            format!("the tag `{}` is copied by exactly this name", literal.value),
            literal.span.clone(),
        )
        .help(format!("if it means versions, write tags = {{ semver = \"{}\" }}", literal.value))
    });
    let mut seen = HashSet::new();
    // The rules of one table differ in their images alone.
    let tables = policy.rules.iter().filter(|rule| seen.insert(&rule.name.value));
    unused.map(warning).chain(placeholders).chain(tables.filter_map(lost_referrers)).collect()
}

/// A rule that wants referrers of images that it changes: they are about the image before.
fn lost_referrers(rule: &Rule) -> Option<Problem> {
    let then = match rule.referrers {
        Referrers::No => return None,
        Referrers::Wanted => "so its referrers cannot come along",
        Referrers::Required => "so an image with referrers fails",
    };
    let crate::Form { format, compression, .. } = rule.form;
    let changes = [
        (rule.index == IndexMode::Trim, "index = \"trim\""),
        (format.is_some(), "`format`"),
        (compression.is_some(), "`compression`"),
    ];
    let alone = matches!(rule.to.value.scheme.as_str(), "dir" | "docker-archive" | "docker-daemon");
    if alone {
        let message = format!("{}: keeps no referrers of images", rule.to.value.scheme);
        let help = "leave `referrers` out, or copy to a registry or a layout (oci:)";
        return Some(Problem::new(message, rule.name.span.clone()).help(help));
    }
    let (_, why) = changes.into_iter().find(|(changes, _)| *changes)?;
    let message = format!("{why} gives a changed image another digest, {then}");
    let help = format!("leave {why} out of `{}`, or `referrers`", rule.name.value);
    Some(Problem::new(message, rule.name.span.clone()).help(help))
}

/// Whether a tag is a version whose last part is an `x`, as in `1.x`.
fn has_placeholder(tag: &str) -> bool {
    let version = tag.strip_prefix('v').unwrap_or(tag);
    let numbers = version.strip_suffix(".x").or(version.strip_suffix(".X"));
    numbers.is_some_and(|numbers| numbers.split('.').all(|number| number.parse::<u32>().is_ok()))
}

impl Policy {
    /// The registries that its rules name: hosts, and short names that it declares. `docker://nginx` is of `docker.io`.
    pub fn registries_named(&self) -> BTreeSet<String> {
        let retained = self.retains.iter().flat_map(|retain| &retain.at);
        let references =
            self.rules.iter().flat_map(|rule| rule.from.iter().chain([&rule.to])).chain(retained);
        let rests = references.filter_map(|reference| reference.value.rest.strip_prefix("//"));
        let host = |rest: &str| {
            let (first, behind) = rest.split_once('/').unwrap_or((rest, ""));
            let is_host = first.contains(['.', '{', '*'])
                || first == "localhost"
                || first.contains(':') && !behind.is_empty();
            match is_host || self.registries.contains_key(first) {
                true => first.to_owned(),
                false => "docker.io".to_owned(),
            }
        };
        rests.map(host).collect()
    }
}

/// The entries of a table of tables.
fn named<'a>(
    value: &'a TomlSpanned<DeValue<'a>>,
    problems: &mut Vec<Problem>,
) -> Vec<(String, &'a TomlSpanned<DeValue<'a>>)> {
    let Some(table) = table("", value, problems) else { return Vec::new() };
    table.rest().map(|(name, value)| (name.to_owned(), value)).collect()
}

fn registry(mut entry: Table, problems: &mut Vec<Problem>) -> Registry {
    let mut registry = Registry {
        concurrency: concurrency(&mut entry, "requests", problems),
        bandwidth: rate(&mut entry, "bandwidth", 1, problems),
        least_rate: rate(&mut entry, "least-rate", 0, problems),
        ..Registry::default()
    };
    if let Some(assume) = entry.take("assume-unchanged").and_then(|value| boolean(value, problems)) {
        registry.assume_unchanged = assume;
    }
    registry.kind = entry.take("kind").and_then(|value| string(value, problems));
    if let Some(text) = entry.take("proxy").and_then(|value| string(value, problems)) {
        let known = ["http://", "https://"].iter().any(|scheme| text.value.starts_with(scheme));
        if !known && text.value != "none" {
            // What was written may hold a password.
            problems.push(
                Problem::new("`proxy` is no address of a proxy", text.span)
                    .help("write proxy = \"http://proxy.example:3128\", or proxy = \"none\""),
            );
        } else {
            registry.proxy = Some(text.value);
        }
    }
    if let Some(value) = entry.take("tls") {
        registry.tls = tls(value, problems).unwrap_or_default();
    }
    if let Some(value) = entry.take("auth") {
        let calls = one_or_many(value).into_iter().filter_map(|value| provider(value, problems));
        registry.auth = Some(calls.collect());
    }
    if let Some(text) = entry.take("storage").and_then(|value| string(value, problems)) {
        registry.storage = Some(text.value.into());
    }
    entry.end(problems);
    registry
}

fn tls(value: &TomlSpanned<DeValue>, problems: &mut Vec<Problem>) -> Option<Tls> {
    let help = "write tls = \"off\" for plain HTTP, or tls = { ca = \"ca.pem\" }";
    if let Some(word) = value.get_ref().as_str() {
        if word == "off" {
            return Some(Tls::Off);
        }
        problems.push(Problem::new(format!("tls cannot be \"{word}\""), value.span()).help(help));
        return None;
    }
    let mut entry = table("tls", value, problems)?;
    let mut path = |key, problems: &mut Vec<Problem>| {
        let text: Option<Spanned<String>> = entry.take(key).and_then(|value| string(value, problems));
        text.map(|text| PathBuf::from(text.value))
    };
    let ca = path("ca", problems);
    let identity = match (path("cert", problems), path("key", problems)) {
        (Some(cert), Some(key)) => Some((cert, key)),
        (None, None) => None,
        _ => {
            problems.push(Problem::new("a client certificate needs both `cert` and `key`", value.span()));
            None
        }
    };
    let verify = entry.take("verify").and_then(|value| boolean(value, problems)).unwrap_or(true);
    entry.end(problems);
    Some(Tls::On { ca, identity, verify, explicit: true })
}

/// Whether a name is that of a filter or an auth provider that is built in, which no other plugin may have.
pub fn is_built_in(name: &str) -> bool {
    BUILT_IN.contains(&name)
}

/// Filters and auth providers that are built in. A plugin of the same name would stand for what short forms mean.
const BUILT_IN: [&str; 8] = ["glob", "regex", "semver", "latest", "age", "static", "docker-config", "ecr"];

#[cfg(test)]
#[path = "tests.rs"]
mod tests;
