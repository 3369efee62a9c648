//! TOML → [`Policy`], or every mistake in it.

use super::raw::{self, Table, boolean, integer, list, one_or_many, string, strings, table};
use super::*;
use crate::expand_braces;
use std::str::FromStr;
use toml::{
    Spanned as TomlSpanned,
    de::{DeTable, DeValue},
};

/// The JSON Schema of policies, for editors.
pub fn schema() -> &'static str {
    include_str!("schema.json")
}

/// Reads a policy.
///
/// # Errors
/// Every mistake that can be found without plugins, each with its place.
pub fn parse(text: &str) -> Result<Policy, PolicyError> {
    let mut problems = Vec::new();
    let (document, errors) = DeTable::parse_recoverable(text);
    for error in errors {
        problems.push(Problem { message: error.message().into(), span: error.span(), help: None });
    }
    if !problems.is_empty() {
        return Err(PolicyError(problems));
    }
    let policy = policy(Table::new("a policy", document.get_ref(), 0..0), &mut problems);
    if problems.is_empty() { Ok(policy) } else { Err(PolicyError(problems)) }
}

/// Reads a plugin's configuration from a table of key and value, as on a command line.
pub fn plugin_config(name: &str, config: serde_json::Value) -> Call {
    Call { plugin: Spanned { value: name.into(), span: 0..0 }, config, keys: BTreeMap::new(), span: 0..0 }
}

fn policy(mut root: Table, problems: &mut Vec<Problem>) -> Policy {
    let mut policy = Policy::default();
    match root.take("version") {
        Some(value) => {
            if let Some(version) = integer(value, problems)
                && version.value != 1
            {
                problems.push(
                    Problem::new(
                        format!("version {} of the policy is not known", version.value),
                        version.span,
                    )
                    .help("this dray reads version = 1"),
                );
            }
        }
        None => problems.push(
            Problem::new("the policy does not say its version", 0..0).help("begin it with `version = 1`"),
        ),
    }
    if let Some(value) = root.take("registry") {
        for (name, value) in named(value, problems) {
            if let Some(entry) = table("a registry", value, problems) {
                policy.registries.insert(name, registry(entry, problems));
            }
        }
    }
    if let Some(value) = root.take("plugin") {
        for (name, value) in named(value, problems) {
            let plugin = table("a plugin", value, problems).and_then(|entry| plugin(entry, problems));
            if let Some(plugin) = plugin {
                policy.plugins.insert(name, plugin);
            }
        }
    }
    if let Some(value) = root.take("rule") {
        for value in list(value, problems) {
            let rule = table("a rule", value, problems).and_then(|entry| rule(entry, problems));
            if let Some(rule) = rule {
                if policy.rules.iter().any(|earlier: &Rule| earlier.name.value == rule.name.value) {
                    problems.push(
                        Problem::new(
                            format!("two rules are named `{}`", rule.name.value),
                            rule.name.span.clone(),
                        )
                        .help("names tell rules apart in reports and with --rule"),
                    );
                }
                policy.rules.push(rule);
            }
        }
    }
    root.end(problems);
    policy
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
    let mut registry = Registry::default();
    if let Some(number) = entry.take("concurrency").and_then(|value| integer(value, problems)) {
        match number.value {
            1..=1024 => registry.concurrency = Some(number.value as usize),
            _ => problems.push(Problem::new("concurrency is 1 to 1024 requests", number.span)),
        }
    }
    if let Some(assume) = entry.take("assume-unchanged").and_then(|value| boolean(value, problems)) {
        registry.assume_unchanged = assume;
    }
    if let Some(text) = entry.take("bandwidth").and_then(|value| string(value, problems)) {
        registry.bandwidth = rate(text, "bandwidth", 1, problems);
    }
    if let Some(text) = entry.take("least-rate").and_then(|value| string(value, problems)) {
        registry.least_rate = rate(text, "rate", 0, problems);
    }
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
        let calls = one_or_many(value)
            .into_iter()
            .filter_map(|value| call(value, "an auth provider", "provider", problems));
        registry.auth = Some(calls.collect());
    }
    if let Some(text) = entry.take("storage").and_then(|value| string(value, problems)) {
        registry.storage = Some(text.value.into());
    }
    entry.end(problems);
    registry
}

/// Bytes a second, of which there must be so many at least.
fn rate(text: Spanned<String>, what: &str, least: u64, problems: &mut Vec<Problem>) -> Option<u64> {
    let size = text.value.strip_suffix("/s").and_then(|size| bytesize::ByteSize::from_str(size.trim()).ok());
    let rate = size.map(|size| size.as_u64()).filter(|rate| *rate >= least);
    if rate.is_none() {
        problems.push(
            Problem::new(format!("`{}` is no {what}", text.value), text.span)
                .help("write bytes a second: \"200MB/s\", \"10MiB/s\""),
        );
    }
    rate
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

/// A table that names a plugin with one key and configures it with the others.
fn call(
    value: &TomlSpanned<DeValue>,
    what: &'static str,
    key: &'static str,
    problems: &mut Vec<Problem>,
) -> Option<Call> {
    let mut entry = table(what, value, problems)?;
    let span = entry.span.clone();
    let plugin = entry.require(key, problems).and_then(|value| string(value, problems))?;
    let mut config = serde_json::Map::new();
    let mut keys = BTreeMap::new();
    for (key, value) in entry.rest() {
        keys.insert(key.to_owned(), value.span());
        config.insert(key.to_owned(), raw::json(value.get_ref()));
    }
    Some(Call { plugin, config: config.into(), keys, span })
}

fn plugin(mut entry: Table, problems: &mut Vec<Problem>) -> Option<Plugin> {
    let source = entry.require("source", problems).and_then(|value| string(value, problems));
    let mut grant = Grant::default();
    if let Some(mut entry) = entry.take("grant").and_then(|value| table("a grant", value, problems)) {
        if let Some(value) = entry.take("hosts") {
            grant.hosts = strings(value, problems).into_iter().map(|host| host.value).collect();
        }
        if let Some(value) = entry.take("files") {
            grant.files = strings(value, problems).into_iter().map(|path| path.value.into()).collect();
        }
        if let Some(value) = entry.take("secrets") {
            for text in strings(value, problems) {
                match text.value.parse() {
                    Ok(secret) => grant.secrets.push(secret),
                    Err(()) => problems.push(
                        // What was written may be the secret itself.
                        Problem::new("this does not say where the secret lies", text.span)
                            .help("write \"env:NAME\" or \"file:PATH\""),
                    ),
                }
            }
        }
        entry.end(problems);
    }
    let mut limits = Limits::default();
    if let Some(mut entry) =
        entry.take("limits").and_then(|value| table("a plugin's limits", value, problems))
    {
        if let Some(text) = entry.take("memory").and_then(|value| string(value, problems)) {
            match bytesize::ByteSize::from_str(&text.value) {
                Ok(size) if (64 << 10..=4u64 << 30).contains(&size.as_u64()) => {
                    limits.memory = size.as_u64() as usize
                }
                _ => problems.push(
                    Problem::new(format!("`{}` is no limit of memory", text.value), text.span)
                        .help("write a size between 64KiB and 4GiB: \"64MiB\""),
                ),
            }
        }
        if let Some(text) = entry.take("call").and_then(|value| string(value, problems)) {
            match humantime::parse_duration(&text.value) {
                Ok(time) if !time.is_zero() => limits.call = time,
                _ => problems.push(
                    Problem::new(format!("`{}` is no duration", text.value), text.span)
                        .help("write \"5s\" or \"500ms\""),
                ),
            }
        }
        entry.end(problems);
    }
    entry.end(problems);
    let source = source?;
    if let Some((scheme, _)) = source.value.split_once("://") {
        problems.push(
            Problem::new(format!("plugins cannot be loaded from {scheme}: yet"), source.span.clone())
                .help("name a component file: source = \"plugins/calver.wasm\""),
        );
    }
    Some(Plugin { source: Spanned { value: source.value.into(), span: source.span }, grant, limits })
}

fn rule(mut entry: Table, problems: &mut Vec<Problem>) -> Option<Rule> {
    let name = entry.require("name", problems).and_then(|value| string(value, problems));
    let mut from = Vec::new();
    if let Some(value) = entry.require("from", problems) {
        for text in
            one_or_many(value).into_iter().filter_map(|value| string(value, problems)).collect::<Vec<_>>()
        {
            match expand_braces(&text.value) {
                Ok(texts) => from.extend(
                    texts
                        .into_iter()
                        .filter_map(|value| reference(Spanned { value, span: text.span.clone() }, problems)),
                ),
                Err(why) => problems.push(Problem::new(why, text.span)),
            }
        }
        if from.is_empty() && problems.is_empty() {
            problems.push(Problem::new("`from` is empty", value.span()));
        }
    }
    let mut to = entry.require("to", problems).and_then(|value| string(value, problems)).and_then(|text| {
        let names = crate::Names { registry: "registry", repository: "path", tag: None };
        if let Err(error) = names.fill(&text.value) {
            problems.push(
                Problem::new(error.to_string(), text.span.clone())
                    .help("`to` knows {name}, {path}, {registry} and {tag}"),
            );
        }
        reference(text, problems)
    });
    let tags = entry.take("tags").map(|value| tags(value, problems));
    let mut platforms = Vec::new();
    if let Some(value) = entry.take("platforms") {
        for text in strings(value, problems) {
            match text.value.parse() {
                Ok(platform) => platforms.push(platform),
                Err(_) => problems.push(
                    Problem::new(format!("`{}` is no platform", text.value), text.span)
                        .help("write \"linux/amd64\" or \"linux/arm/v7\""),
                ),
            }
        }
    }
    let mut index = IndexMode::default();
    if let Some(text) = entry.take("index").and_then(|value| string(value, problems)) {
        match text.value.as_str() {
            "keep" => {}
            "trim" => index = IndexMode::Trim,
            other => {
                problems.push(Problem::new(format!("index cannot be \"{other}\""), text.span.clone()).help(
                    "\"keep\" leaves the index and its digest as they are, \"trim\" writes a smaller one",
                ))
            }
        }
        if platforms.is_empty() {
            problems.push(Problem::new("`index` says what becomes of an index when platforms are chosen, and this rule chooses none", text.span).help("add `platforms`, or leave `index` out"));
        }
    }
    let referrers = entry.take("referrers").map(|value| referrers(value, problems)).unwrap_or_default();
    let include_foreign =
        entry.take("include-foreign").and_then(|value| boolean(value, problems)).unwrap_or(false);
    let mut path = |key: &'static str, problems: &mut Vec<Problem>| {
        let text = entry.take(key).and_then(|value| string(value, problems));
        text.map(|text| Spanned { value: PathBuf::from(text.value), span: text.span })
    };
    let (from_blobs, to_blobs) = (path("from-blobs", problems), path("to-blobs", problems));
    let sources = from.iter_mut().map(|source| (source, &from_blobs));
    for (reference, blobs) in sources.chain(to.iter_mut().map(|to| (to, &to_blobs))) {
        let Some(blobs) = blobs else { continue };
        if reference.value.scheme != "oci" {
            let text = format!("the blobs of `{}` cannot lie in another folder", reference.value);
            problems.push(Problem::new(text, blobs.span.clone()).help("that is for layouts (`oci:`) alone"));
        }
        reference.value.blobs = Some(blobs.value.clone());
    }
    let link = entry.take("link").and_then(|value| boolean(value, problems)).unwrap_or(false);
    let mut form = crate::Form::default();
    if let Some(text) = entry.take("format").and_then(|value| string(value, problems)) {
        form.format = one_of(&text, "\"oci\" and \"docker\"", problems);
    }
    if let Some(text) = entry.take("compression").and_then(|value| string(value, problems)) {
        form.compression = one_of(&text, "\"gzip\", \"zstd\" and \"none\"", problems);
    }
    if form.format == Some(crate::Format::Docker) && form.compression == Some(crate::Compression::Zstd) {
        problems.push(
            Problem::new("Docker's format knows no layers in zstd", entry.span.clone())
                .help("set format = \"oci\", or compression = \"gzip\""),
        );
    }
    entry.end(problems);
    Some(Rule { name: name?, from, to: to?, tags, platforms, index, referrers, include_foreign, link, form })
}

fn referrers(value: &TomlSpanned<DeValue>, problems: &mut Vec<Problem>) -> Referrers {
    match (value.get_ref().as_str(), value.get_ref().as_bool()) {
        (Some("required"), _) => Referrers::Required,
        (None, Some(true)) => Referrers::Wanted,
        (None, Some(false)) => Referrers::No,
        _ => {
            problems.push(
                Problem::new("`referrers` is true, false or \"required\"", value.span())
                    .help("\"required\" withholds an image whose referrers cannot all be copied"),
            );
            Referrers::No
        }
    }
}

fn one_of<T: std::str::FromStr>(
    text: &Spanned<String>,
    known: &str,
    problems: &mut Vec<Problem>,
) -> Option<T> {
    let read = text.value.parse().ok();
    if read.is_none() {
        let problem = Problem::new(format!("`{}` is not known here", text.value), text.span.clone());
        problems.push(problem.help(format!("there are {known}")));
    }
    read
}

fn reference(text: Spanned<String>, problems: &mut Vec<Problem>) -> Option<Spanned<Reference>> {
    match text.value.parse() {
        Ok(value) => Some(Spanned { value, span: text.span }),
        Err(_) => {
            problems.push(
                Problem::new(format!("`{}` does not name a transport", text.value), text.span)
                    .help(format!("begin it with one: \"docker://{}\"", text.value)),
            );
            None
        }
    }
}

fn tags(value: &TomlSpanned<DeValue>, problems: &mut Vec<Problem>) -> Tags {
    let mut tags = Tags::default();
    for item in list(value, problems) {
        match item.get_ref() {
            DeValue::Table(_) => tags.filters.extend(call(item, "a filter", "filter", problems)),
            _ => tags.literals.extend(string(item, problems)),
        }
    }
    if tags.literals.is_empty() && tags.filters.is_empty() && problems.is_empty() {
        problems.push(Problem::new("`tags` is empty", value.span()).help("leave it out to copy every tag"));
    }
    tags
}

#[cfg(test)]
#[path = "tests.rs"]
mod tests;
