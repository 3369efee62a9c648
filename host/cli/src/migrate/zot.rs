//! `extensions.sync` of zot's configuration.

use super::{
    Asked, Wrong,
    draft::{Draft, Rule},
    others, text, texts,
};
use dray_core::Yaml;
use serde_json::{Value, json};

pub fn read(document: &Yaml, asked: &Asked<'_>, draft: &mut Draft) -> Result<(), Wrong> {
    let to = asked.destination()?;
    let sync = document.get("extensions").and_then(|extensions| extensions.get("sync"));
    let sync = sync.ok_or_else(|| Wrong::at(document, "it has no `extensions.sync`"))?;
    others(draft, sync, &["enable", "registries", "credentialsFile", "downloadDir"], "sync");
    if let Some(file) = sync.get("credentialsFile") {
        draft.leave(file, format!("the logins in {file} are not read: `dray login HOST` keeps them"));
    }
    for registry in sync.get("registries").map(Yaml::items).unwrap_or_default() {
        others(
            draft,
            registry,
            &[
                "urls",
                "tlsVerify",
                "certDir",
                "content",
                "onDemand",
                "pollInterval",
                "maxRetries",
                "retryDelay",
                "onlySigned",
            ],
            "a registry",
        );
        let urls = texts(registry, "urls");
        let Some(host) = urls.first().map(|url| host_of(url)) else {
            return Err(Wrong::at(registry, "a registry has no `urls`"));
        };
        if urls.len() > 1 {
            draft.leave(
                registry,
                format!("further `urls` of {host}: registries.conf names mirrors ({})", urls[1..].join(", ")),
            );
        }
        if urls[0].starts_with("http:") {
            draft.registry(&host, "tls", json!("off"));
        } else if registry.get("tlsVerify").and_then(Yaml::bool) == Some(false) {
            draft.registry(&host, "tls", json!({ "verify": false }));
        }
        if let Some(folder) = registry.get("certDir") {
            draft.leave(
                folder,
                format!("`certDir` of {host}: name its files in `tls`, or put it into certs.d"),
            );
        }
        if let Some(signed) = registry.get("onlySigned").filter(|signed| signed.bool() == Some(true)) {
            draft.leave(signed, format!("`onlySigned` of {host}: write require = [{{ signed = {{ key = \"cosign.pub\" }} }}]: zot asks only whether there is a signature, dray whose it is"));
        }
        if let Some(interval) = registry.get("pollInterval") {
            draft.leave(
                interval,
                format!("`pollInterval: {interval}` of {host}: let a timer run `dray sync`"),
            );
        }
        if let Some(demand) = registry.get("onDemand").filter(|demand| demand.bool() == Some(true)) {
            draft.leave(
                demand,
                format!("`onDemand` of {host}: dray copies what is named, and not what is asked for"),
            );
        }
        for content in registry.get("content").map(Yaml::items).unwrap_or_default() {
            rule(content, &host, to, draft)?;
        }
    }
    Ok(())
}

fn host_of(url: &str) -> String {
    let rest = url.split_once("://").map_or(url, |(_, rest)| rest);
    rest.split('/').next().unwrap_or(rest).to_owned()
}

fn rule(content: &Yaml, host: &str, to: &str, draft: &mut Draft) -> Result<(), Wrong> {
    let prefix = text(content, "prefix").ok_or_else(|| Wrong::at(content, "`content` has no prefix"))?;
    others(draft, content, &["prefix", "destination", "stripPrefix", "tags"], "content");
    let destination = text(content, "destination").unwrap_or_default().trim_matches('/').to_owned();
    let below = if destination.is_empty() { to.to_owned() } else { format!("{to}/{destination}") };
    let exact = !prefix.contains(['*', '?', '[', '{']);
    let to = match (content.get("stripPrefix").and_then(Yaml::bool) == Some(true), exact) {
        (true, true) => below,
        (true, false)
            if prefix.split('/').filter(|part| part.contains('*')).count() == 1 && prefix.ends_with("/*") =>
        {
            format!("{below}/{{name}}")
        }
        (true, false) => {
            draft.leave(content, format!("`stripPrefix` of `{prefix}`: {{name}} drops all but the last part; here the whole path is kept"));
            format!("{below}/{{path}}")
        }
        (false, _) => format!("{below}/{{path}}"),
    };
    let mut rule = Rule::new(format!("docker://{host}/{}", prefix.trim_matches('/')), to);
    let mut filters: Vec<Value> = Vec::new();
    if let Some(tags) = content.get("tags") {
        others(draft, tags, &["regex", "excludeRegex", "semver"], "tags");
        if let Some(expression) = text(tags, "regex") {
            filters.push(json!({ "filter": "regex", "pattern": expression }));
        }
        if let Some(expression) = text(tags, "excludeRegex") {
            filters.push(json!({ "filter": "regex", "pattern": expression, "exclude": true }));
        }
        if tags.get("semver").and_then(Yaml::bool) == Some(true) {
            filters.push(json!({ "filter": "semver", "range": ">=0", "prerelease": true }));
        }
    }
    if !filters.is_empty() {
        rule.set("tags", json!(filters));
    }
    rule.set("referrers", json!(true));
    draft.add(rule, content, &format!("{host} {prefix}"));
    Ok(())
}
