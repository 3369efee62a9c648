//! The YAML of dregsy.

use super::{
    Wrong,
    draft::{Draft, Rule},
    others, text, texts,
};
use base64::{Engine, engine::general_purpose::STANDARD};
use dray_core::{Digest, Yaml};
use serde_json::{Value, json};

pub fn read(document: &Yaml, draft: &mut Draft) -> Result<(), Wrong> {
    others(draft, document, &["relay", "tasks"], "the file");
    for task in document.get("tasks").map(Yaml::items).unwrap_or_default() {
        let name = text(task, "name").unwrap_or("a task").to_owned();
        others(draft, task, &["name", "source", "target", "mappings", "verbose", "interval"], &name);
        if let Some(interval) = task.get("interval") {
            draft.leave(
                interval,
                format!(
                    "`interval: {interval}` of {name}: let a timer run `dray sync` (docs/howto/nightly.md)"
                ),
            );
        }
        let [source, target] = ["source", "target"].map(|key| task.get(key).map(|end| end_of(end, draft)));
        let (Some(source), Some(target)) = (source.transpose()?, target.transpose()?) else {
            return Err(Wrong::at(task, format!("{name} has no source or no target")));
        };
        for mapping in task.get("mappings").map(Yaml::items).unwrap_or_default() {
            rule(mapping, &source, &target, &name, draft)?;
        }
    }
    Ok(())
}

/// The registry of one end, with its settings.
fn end_of(end: &Yaml, draft: &mut Draft) -> Result<String, Wrong> {
    let host = text(end, "registry").ok_or_else(|| Wrong::at(end, "`registry` is missing"))?.to_owned();
    others(draft, end, &["registry", "auth", "skip-tls-verify", "auth-refresh", "lister"], &host);
    if end.get("skip-tls-verify").and_then(Yaml::bool) == Some(true) {
        draft.registry(&host, "tls", json!({ "verify": false }));
    }
    for key in ["auth-refresh", "lister"] {
        if let Some(value) = end.get(key) {
            draft.leave(value, format!("`{key}` of {host} is not needed, or has no counterpart: {value}"));
        }
    }
    if let Some(auth) = end.get("auth").filter(|auth| auth.text() != Some("none")) {
        // base64 of {"username": "…", "password": "…"}
        let json = auth.text().and_then(|text| STANDARD.decode(text.trim()).ok());
        let json = json.and_then(|bytes| serde_json::from_slice::<Value>(&bytes).ok());
        match json.as_ref().and_then(|json| json["username"].as_str()) {
            Some(user) => draft.login(&host, user, auth),
            None => draft.leave(auth, format!("`auth` of {host} is not understood: `dray login {host}`")),
        }
    }
    Ok(host)
}

fn rule(mapping: &Yaml, source: &str, target: &str, task: &str, draft: &mut Draft) -> Result<(), Wrong> {
    let from = text(mapping, "from").ok_or_else(|| Wrong::at(mapping, "a mapping has no `from`"))?;
    others(draft, mapping, &["from", "to", "tags", "platform"], &format!("a mapping of {task}"));
    let what = format!("{task}: {from}");
    let path = |path: &str| path.trim_matches('/').to_owned();
    if from.starts_with("regex:") {
        draft.leave(mapping, format!("`from: {from}` of {task} is an expression: write a glob in `from`"));
        return Ok(());
    }
    let from = path(from);
    let to = match text(mapping, "to") {
        Some(to) if to.starts_with("regex:") => {
            draft.leave(
                mapping,
                format!("`to: {to}` of {task} is an expression: write `to` with {{path}} or {{name}}"),
            );
            return Ok(());
        }
        Some(to) => path(to),
        None => from.clone(),
    };
    let (mut literals, mut filters) = (Vec::new(), Vec::new());
    for tag in texts(mapping, "tags") {
        if let Some(range) = tag.strip_prefix("semver:") {
            filters.push(json!({ "filter": "semver", "range": range.trim() }));
        } else if let Some(expression) = tag.strip_prefix("regex:") {
            filters.push(expression_filter(expression.trim()));
        } else if let Some(keep) = tag.strip_prefix("keep:") {
            let keep = keep.trim();
            match keep.strip_prefix("latest").map(|count| count.trim().parse::<u32>()) {
                Some(Ok(count)) => filters.push(json!({ "filter": "latest", "count": count })),
                _ => filters.push(expression_filter(keep)),
            }
        } else {
            literals.push(tag);
        }
    }
    if text(mapping, "platform").is_none() {
        draft.leave(
            mapping,
            format!("{from} has no platform: dregsy copies that of its machine, and this rule all"),
        );
    }
    let platform = text(mapping, "platform").filter(|platform| *platform != "all");
    let add = |tags: Value, draft: &mut Draft| {
        let mut rule = Rule::new(format!("docker://{source}/{from}"), format!("docker://{target}/{to}"));
        rule.set("tags", tags);
        if let Some(platform) = platform {
            rule.set("platforms", json!([platform]));
            rule.set("index", json!("trim"));
        }
        draft.add(rule, mapping, &what);
    };
    let (digests, names): (Vec<String>, Vec<String>) = literals.into_iter().partition(|tag| {
        let digest = tag.rsplit('@').next().unwrap_or(tag);
        digest.parse::<Digest>().is_ok()
    });
    for digest in &digests {
        let (name, digest) = match digest.rsplit_once('@') {
            Some((tag, digest)) => (format!(":{tag}"), digest),
            None => (String::new(), digest.as_str()),
        };
        let rule =
            Rule::new(format!("docker://{source}/{from}@{digest}"), format!("docker://{target}/{to}{name}"));
        draft.add(rule, mapping, &what);
    }
    if !names.is_empty() {
        add(json!(names), draft);
    }
    if !filters.is_empty() {
        // dregsy unites what its expressions choose, and keeps of that what all of `keep` allow.
        if filters.len() > 1 {
            draft.leave(mapping, format!("several expressions for the tags of {from} narrow each other here; dregsy unites them, but for `keep`"));
        }
        add(json!(filters), draft);
    }
    if names.is_empty() && filters.is_empty() && digests.is_empty() {
        add(Value::Null, draft);
    }
    Ok(())
}

fn expression_filter(expression: &str) -> Value {
    match expression.strip_prefix('!') {
        Some(expression) => json!({ "filter": "regex", "pattern": expression, "exclude": true }),
        None => json!({ "filter": "regex", "pattern": expression }),
    }
}
