//! Replication policies of Harbor, as its API gives them (`GET /api/v2.0/replication/policies`).

use super::{
    Asked, Wrong,
    draft::{Draft, Rule},
    others, text, texts,
};
use dray_core::Yaml;
use serde_json::{Value, json};

/// Keys of a policy that are understood, or that say nothing about what is copied.
const KNOWN: [&str; 16] = [
    "id",
    "name",
    "description",
    "src_registry",
    "dest_registry",
    "dest_namespace",
    "dest_namespace_replace_count",
    "trigger",
    "filters",
    "deletion",
    "replicate_deletion",
    "override",
    "enabled",
    "speed",
    "creation_time",
    "update_time",
];

pub fn read(document: &Yaml, asked: &Asked<'_>, draft: &mut Draft) -> Result<(), Wrong> {
    let policies = match document.items() {
        [] => std::slice::from_ref(document),
        policies => policies,
    };
    for policy in policies {
        one(policy, asked, draft)?;
    }
    Ok(())
}

/// Whether an end is Harbor itself, whose address and settings within its own network are of no use here.
fn is_local(registry: &Yaml) -> bool {
    matches!(registry.get("id").and_then(Yaml::text), None | Some("0"))
}

/// The host of one end. The local Harbor has the ID 0, and its address is not in the policy.
fn end(policy: &Yaml, key: &str, asked: &Asked<'_>) -> Result<String, Wrong> {
    let registry = policy.get(key);
    let local = registry.is_none_or(is_local);
    if let Some(url) = registry.and_then(|registry| text(registry, "url")).filter(|_| !local) {
        let kind = registry.and_then(|registry| text(registry, "type")).unwrap_or_default();
        if kind == "docker-hub" || url.contains("hub.docker.com") {
            return Ok("docker.io".into());
        }
        let rest = url.split_once("://").map_or(url, |(_, rest)| rest);
        return Ok(rest.trim_end_matches('/').to_owned());
    }
    let text = match local {
        true => {
            "one end is Harbor itself, whose address is not in the policy; --to docker://harbor.example.com says so"
        }
        false => "the registry has an ID and no URL: ask Harbor for the policy with its registries",
    };
    let own = asked.to.map(|to| to.trim_start_matches("docker://").to_owned()).filter(|_| local);
    own.ok_or_else(|| Wrong {
        line: registry.map(|registry| registry.line).or(Some(policy.line)),
        text: text.into(),
    })
}

fn one(policy: &Yaml, asked: &Asked<'_>, draft: &mut Draft) -> Result<(), Wrong> {
    let name = text(policy, "name").unwrap_or("a policy").to_owned();
    let (source, target) = (end(policy, "src_registry", asked)?, end(policy, "dest_registry", asked)?);
    for key in ["src_registry", "dest_registry"] {
        let Some(registry) = policy.get(key).filter(|registry| !is_local(registry)) else { continue };
        let host = if key == "src_registry" { &source } else { &target };
        if let Some(login) = registry.get("credential").and_then(|credential| credential.get("access_key")) {
            draft.login(host, &login.to_string(), login);
        }
        if text(registry, "url").is_some_and(|url| url.starts_with("http:")) {
            draft.registry(host, "tls", json!("off"));
        } else if registry.get("insecure").and_then(Yaml::bool) == Some(true) {
            draft.registry(host, "tls", json!({ "verify": false }));
        }
    }
    if source.starts_with("api.") || target.starts_with("api.") {
        draft.leave(
            policy,
            format!("the registry of {name} is named by the address of its API: write that of its images"),
        );
    }
    others(draft, policy, &KNOWN, &name);
    let mut filters: Vec<Value> = Vec::new();
    let mut from = "**".to_owned();
    for filter in policy.get("filters").map(Yaml::items).unwrap_or_default() {
        // An empty value matches everything.
        let value = filter.get("value").filter(|value| value.text() != Some(""));
        if value.is_none() {
            continue;
        }
        let excludes = text(filter, "decoration") == Some("excludes");
        match (text(filter, "type"), value) {
            (Some("name"), Some(value)) => from = value.to_string(),
            (Some("tag"), Some(value)) => filters.push(match excludes {
                true => json!({ "filter": "glob", "pattern": value.to_string(), "exclude": true }),
                false => json!({ "filter": "glob", "pattern": value.to_string() }),
            }),
            (Some("label"), Some(_)) => {
                let labels = texts(filter, "value");
                filters.push(match excludes {
                    true => json!({ "filter": "label", "label": labels, "exclude": true }),
                    false => json!({ "filter": "label", "label": labels }),
                });
            }
            (Some("resource"), Some(value)) => {
                draft.leave(
                    value,
                    format!("`resource: {value}` of {name}: dray copies images and artifacts alike"),
                );
            }
            _ => draft.leave(filter, format!("a filter of {name} is not understood: {filter}")),
        }
    }
    let namespace = text(policy, "dest_namespace").map(|text| text.trim_matches('/').to_owned());
    let replace = text(policy, "dest_namespace_replace_count").and_then(|count| count.parse::<i32>().ok());
    let to = match (&namespace, replace.unwrap_or(-1)) {
        (None, _) => "{path}".to_owned(),
        (Some(namespace), -1) => format!("{namespace}/{{name}}"),
        (Some(namespace), 0) => format!("{namespace}/{{path}}"),
        (Some(namespace), count) if count > 0 => format!("{namespace}/{{path|strip:{count}}}"),
        (Some(namespace), count) => {
            draft.leave(
                policy,
                format!("`dest_namespace_replace_count: {count}` of {name} is not understood"),
            );
            format!("{namespace}/{{path}}")
        }
    };
    let mut rule = Rule::new(format!("docker://{source}/{from}"), format!("docker://{target}/{to}"));
    if !filters.is_empty() {
        rule.set("tags", json!(filters));
    }
    rule.set("referrers", json!(true));
    if policy.get("override").and_then(Yaml::bool) == Some(false) {
        rule.set("on-change", json!("keep"));
    }
    if let Some(speed) = policy
        .get("speed")
        .filter(|speed| speed.text().is_some_and(|text| text.parse::<i64>().is_ok_and(|speed| speed > 0)))
    {
        draft.leave(speed, format!("`speed: {speed}` of {name}: Harbor means kilobits a second of each blob; bandwidth = \"…MB/s\" is for the whole rule"));
    }
    if policy.get("enabled").and_then(Yaml::bool) == Some(false) {
        draft.leave(policy, format!("{name} is switched off in Harbor, and a rule here"));
    }
    let deletes = |key| policy.get(key).and_then(Yaml::bool) == Some(true);
    if deletes("deletion") || deletes("replicate_deletion") {
        rule.set("prune", json!(true));
    }
    if let Some(trigger) =
        policy.get("trigger").filter(|trigger| text(trigger, "type").is_some_and(|kind| kind != "manual"))
    {
        let cron = trigger
            .get("trigger_settings")
            .map(|settings| texts(settings, "cron").join(" "))
            .unwrap_or_default();
        draft.leave(
            trigger,
            format!(
                "the trigger of {name} ({} {cron}): let a timer run `dray sync`",
                text(trigger, "type").unwrap_or_default()
            ),
        );
    }
    draft.add(rule, policy, &name);
    Ok(())
}
