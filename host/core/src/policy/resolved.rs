//! A policy as it was understood: variables, defaults, included files and `images` are resolved.

use super::{
    Call, IndexMode, OnChange, OnEmpty, OnImmutable, OnRefusal, Order, Policy, Prune, PruneLimit, Referrers,
    Registry, Repositories, Retain, Rule, Tags, Tls,
};
use crate::Digest;
use serde_json::{Value, json};
use std::{collections::HashSet, path::Path};

impl Policy {
    /// The policy as TOML that says the same without variables, defaults and included files. `${` of a text is written
    /// as `$${`.
    ///
    /// ```
    /// let text = "version = 1\n[vars]\nx = \"m.example\"\n[[rule]]\nfrom = \"docker://r.example/a\"\n\
    ///     to = \"docker://${x}/a\"\n";
    /// let resolved = dray_core::policy::parse(text)?.to_toml();
    /// assert!(resolved.contains("to = \"docker://m.example/a\""));
    /// assert_eq!(dray_core::policy::parse(&resolved)?.to_toml(), resolved);
    /// # Ok::<_, dray_core::policy::PolicyError>(())
    /// ```
    pub fn to_toml(&self) -> String {
        let mut out = String::from("version = 1\n");
        if self.ignores_system {
            out.push_str("system-config = false\n");
        }
        let mut table = |header: String, keys: Vec<(&str, Value)>| {
            out.push_str(&format!("\n{header}\n"));
            for (key, value) in keys {
                out.push_str(&format!("{key} = {}\n", inline(&value)));
            }
        };
        let default = registry(&self.default_registry);
        if !default.is_empty() {
            table("[defaults.registry]".into(), default);
        }
        if !self.trusted_keys.is_empty() {
            let files: Vec<Value> = self.trusted_keys.iter().map(|file| path(file)).collect();
            table("[defaults.plugin]".into(), vec![("trusted-keys", files.into())]);
        }
        for (name, entry) in &self.registries {
            table(format!("[registry.{}]", registry_key(name)), registry(entry));
        }
        for (name, plugin) in &self.plugins {
            let mut keys = vec![("source", json!(plugin.source.value.to_string()))];
            let grant = &plugin.grant;
            let files: Vec<Value> = grant.files.iter().map(|file| path(file)).collect();
            let secrets: Vec<String> = grant.secrets.iter().map(ToString::to_string).collect();
            keys.push(("grant", json!({ "hosts": grant.hosts, "files": files, "secrets": secrets })));
            let call = format!("{}ms", plugin.limits.call.as_millis());
            keys.push(("limits", json!({ "memory": format!("{}B", plugin.limits.memory), "call": call })));
            if plugin.trusted_keys != self.trusted_keys {
                let files: Vec<Value> = plugin.trusted_keys.iter().map(|file| path(file)).collect();
                keys.push(("trusted-keys", files.into()));
            }
            if !plugin.config.is_empty() {
                keys.push(("config", plugin.config.clone().into()));
            }
            if !plugin.at.is_empty() {
                keys.push(("at", json!(plugin.at)));
            }
            table(format!("[plugin.{}]", key_text(name)), keys);
        }
        let mut taken: HashSet<String> = HashSet::new();
        for (number, one) in self.rules.iter().enumerate() {
            let mut keys = rule(one);
            // The rules of one `images` have one name, which only one table can have.
            let later = |name: &String| self.rules[number..].iter().any(|other| other.name.value == *name);
            let (mut name, mut count) = (one.name.value.clone(), 1);
            while taken.contains(&name) || (count > 1 && later(&name)) {
                count += 1;
                name = format!("{}-{count}", one.name.value);
            }
            keys[0].1 = json!(name);
            taken.insert(name);
            table("[[rule]]".into(), keys);
        }
        for one in &self.retains {
            table("[[retain]]".into(), retain(one));
        }
        for one in &self.observers {
            let table_of = call(one, "observer");
            let keys = table_of.as_object().into_iter().flatten();
            table("[[observe]]".into(), keys.map(|(key, value)| (key.as_str(), value.clone())).collect());
        }
        out
    }
}

impl Rule {
    /// The digest of what the rule says of its sources, its tags and its destination.
    pub(super) fn fingerprint(&self) -> Digest {
        let mut said = serde_json::Map::new();
        for (key, value) in rule(self) {
            if matches!(key, "from" | "to" | "tags" | "map-tags") {
                said.insert(key.to_owned(), value);
            }
        }
        Digest::of(Value::Object(said).to_string().as_bytes())
    }
}

fn path(path: &Path) -> Value {
    json!(path.to_string_lossy())
}

fn registry(entry: &Registry) -> Vec<(&'static str, Value)> {
    let mut keys = Vec::new();
    let mut add = |key, value: Option<Value>| keys.extend(value.map(|value| (key, value)));
    let rate = |rate: Option<u64>| rate.map(|rate| json!(format!("{rate}B/s")));
    add("concurrency", entry.concurrency.map(|number| json!(number)));
    add("bandwidth", rate(entry.bandwidth));
    add("least-rate", rate(entry.least_rate));
    // It may hold a password.
    add("proxy", entry.proxy.as_ref().map(|proxy| json!(crate::shown_proxy(proxy))));
    add("kind", entry.kind.as_ref().map(|kind| json!(kind.value)));
    add("assume-unchanged", entry.assume_unchanged.then_some(json!(true)));
    add(
        "tls",
        match &entry.tls {
            Tls::Off => Some(json!("off")),
            Tls::On { explicit: false, .. } => None,
            Tls::On { ca, identity, verify, .. } => {
                let mut tls = serde_json::Map::new();
                tls.extend(ca.as_ref().map(|ca| ("ca".to_owned(), path(ca))));
                if let Some((cert, key)) = identity {
                    tls.insert("cert".into(), path(cert));
                    tls.insert("key".into(), path(key));
                }
                tls.insert("verify".into(), json!(verify));
                Some(tls.into())
            }
        },
    );
    add(
        "auth",
        entry.auth.as_ref().map(|calls| calls.iter().map(|provider| call(provider, "provider")).collect()),
    );
    add("storage", entry.storage.as_ref().map(|storage| path(storage)));
    keys
}

fn call(call: &Call, key: &str) -> Value {
    let mut table = serde_json::Map::from_iter([(key.to_owned(), json!(call.plugin.value))]);
    table.extend(
        call.config.as_object().into_iter().flatten().map(|(key, value)| (key.clone(), value.clone())),
    );
    table.into()
}

fn tags(tags: &Tags) -> Value {
    let literals = tags.literals.iter().map(|literal| match tags.pins.get(&literal.value) {
        Some(digest) => json!(format!("{}@{digest}", literal.value)),
        None => json!(literal.value),
    });
    literals.chain(tags.filters.iter().map(|filter| call(filter, "filter"))).collect()
}

fn rule(rule: &Rule) -> Vec<(&'static str, Value)> {
    let from: Vec<Value> = rule.from.iter().map(|from| json!(from.value.to_string())).collect();
    let platforms: Vec<String> = rule.platforms.iter().map(ToString::to_string).collect();
    let blobs = rule.from.first().and_then(|from| from.value.blobs.as_deref());
    let mut keys = vec![
        ("name", json!(rule.name.value)),
        ("from", from.into()),
        ("to", json!(rule.to.value.to_string())),
    ];
    let mut add = |key, value: Option<Value>| keys.extend(value.map(|value| (key, value)));
    add("tags", rule.tags.as_ref().map(tags));
    add("platforms", (!platforms.is_empty()).then(|| json!(platforms)));
    add("index", (rule.index == IndexMode::Trim).then(|| json!("trim")));
    add(
        "referrers",
        match rule.referrers {
            Referrers::No => None,
            Referrers::Wanted if !rule.referrer_types.is_empty() => Some(json!(rule.referrer_types)),
            Referrers::Wanted => Some(json!(true)),
            Referrers::Required => Some(json!("required")),
        },
    );
    add("cosign-tags", rule.cosign_tags.then_some(json!(true)));
    add("related", (!rule.related.is_empty()).then(|| json!(rule.related)));
    add("map-tags", rule.map_tags.as_ref().map(|mapper| call(mapper, "mapper")));
    add("repositories", chosen(&rule.repositories));
    add("include-foreign", rule.include_foreign.then_some(json!(true)));
    add("from-blobs", blobs.map(path));
    add("to-blobs", rule.to.value.blobs.as_deref().map(path));
    add("link", rule.link.then_some(json!(true)));
    let limits = &rule.limits;
    add("concurrency", limits.concurrency.map(|number| json!(number)));
    add("bandwidth", limits.bandwidth.map(|rate| json!(format!("{rate}B/s"))));
    add("timeout", limits.timeout.map(|time| json!(humantime::format_duration(time).to_string())));
    add("retry", (limits.retry > 0).then(|| json!(limits.retry)));
    add("format", rule.form.format.map(|format| json!(format)));
    add("compression", rule.form.compression.map(|compression| json!(compression)));
    add("on-empty", (rule.on_empty == OnEmpty::Error).then(|| json!("error")));
    let demand = |demand: &Call| json!({ demand.plugin.value.clone(): demand.config });
    add("require", (!rule.require.is_empty()).then(|| rule.require.iter().map(demand).collect()));
    add(
        "on-change",
        match rule.on_change {
            OnChange::Copy => None,
            OnChange::Keep => Some(json!("keep")),
            OnChange::Refuse => Some(json!("refuse")),
        },
    );
    keys.extend((rule.on_refusal == OnRefusal::Skip).then(|| ("on-refusal", json!("skip"))));
    keys.extend(order(&rule.order));
    keys
}

fn retain(retain: &Retain) -> Vec<(&'static str, Value)> {
    let at: Vec<Value> = retain.at.iter().map(|at| json!(at.value.to_string())).collect();
    let keep: Vec<Value> = retain.keep.iter().map(kept).collect();
    let mut keys = vec![("name", json!(retain.name.value)), ("at", at.into()), ("keep", keep.into())];
    keys.extend(chosen(&retain.repositories).map(|globs| ("repositories", globs)));
    keys.extend(
        retain.untagged.map(|time| ("untagged", json!(humantime::format_duration(time).to_string()))),
    );
    keys.extend(limit(retain.limit).map(|limit| ("limit", limit)));
    keys.extend(retain.backup.as_ref().map(|backup| ("backup", json!(backup.to_string()))));
    keys
}

/// One entry of `keep`: a list of filters, but for a single text or filter.
fn kept(kept: &Tags) -> Value {
    match tags(kept) {
        Value::Array(mut one) if one.len() == 1 => one.remove(0),
        several => several,
    }
}

fn limit(limit: PruneLimit) -> Option<Value> {
    match limit {
        PruneLimit::Fifth => None,
        PruneLimit::Tags(number) => Some(json!(number)),
        PruneLimit::All => Some(json!("all")),
    }
}

/// The repositories that are chosen among those of a glob.
fn chosen(wanted: &Repositories) -> Option<Value> {
    let globs = |globs: &Vec<String>| (!globs.is_empty()).then(|| json!(globs));
    let parts = [("include", globs(&wanted.include)), ("exclude", globs(&wanted.exclude))];
    let parts: serde_json::Map<String, Value> =
        parts.into_iter().filter_map(|(key, value)| Some((key.to_owned(), value?))).collect();
    (!parts.is_empty()).then(|| parts.into())
}

fn order(order: &Order) -> Vec<(&'static str, Value)> {
    let prune = match order.prune {
        Prune::No => None,
        Prune::Own => Some(json!(true)),
        Prune::All => Some(json!("all")),
    };
    let keys = [
        ("prune", prune),
        ("prune-limit", limit(order.limit)),
        ("protect", (!order.protect.is_empty()).then(|| json!(order.protect))),
        ("backup", order.backup.as_ref().map(|backup| json!(backup.to_string()))),
        ("immutable", (order.immutable == OnImmutable::Skip).then(|| json!("skip"))),
    ];
    keys.into_iter().filter_map(|(key, value)| Some((key, value?))).collect()
}

/// A text as TOML writes it, in which variables are replaced. JSON's strings are basic strings of TOML (TOML 1.0,
/// "String").
fn text(text: &str) -> String {
    let json = json!(text.replace("${", "$${")).to_string();
    // Characters that steer a terminal are escaped, which changes no value (TOML 1.0, "String").
    let escaped = |character: char| match crate::misleads(character) {
        true => format!("\\U{:08x}", u32::from(character)),
        false => character.to_string(),
    };
    json.chars().map(escaped).collect()
}

/// The name of a registry, in which variables are replaced.
fn registry_key(name: &str) -> String {
    key_text(&name.replace("${", "$${"))
}

/// A key as TOML writes it, bare if it can be.
pub fn key_text(key: &str) -> String {
    let bare = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'_');
    if !key.is_empty() && key.bytes().all(bare) { key.into() } else { json!(key).to_string() }
}

/// A value as TOML writes it in one line.
fn inline(value: &Value) -> String {
    match value {
        Value::String(string) => text(string),
        Value::Array(items) => format!("[{}]", items.iter().map(inline).collect::<Vec<_>>().join(", ")),
        Value::Object(table) => {
            let entries = table.iter().map(|(key, value)| format!("{} = {}", key_text(key), inline(value)));
            format!("{{ {} }}", entries.collect::<Vec<_>>().join(", "))
        }
        Value::Null => "\"\"".into(),
        other => other.to_string(),
    }
}
