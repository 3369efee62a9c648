//! regsync.yml of regclient.

use super::{
    Wrong,
    draft::{Draft, Rule, docker, parts},
    others, text, texts,
};
use dray_core::Yaml;
use serde_json::{Value, json};

/// Keys that need no counterpart, because dray does that anyway.
const NEEDLESS: [&str; 9] = [
    "ratelimit",
    "fastCheck",
    "mediaTypes",
    "parallel",
    "blobLimit",
    "cacheCount",
    "cacheTime",
    "userAgent",
    "referrerSlow",
];
/// Keys of one entry of `sync` that are understood.
const SYNC: [&str; 11] = [
    "source",
    "target",
    "type",
    "tags",
    "tagSets",
    "repos",
    "platform",
    "platforms",
    "referrers",
    "digestTags",
    "includeExternal",
];

pub fn read(document: &Yaml, draft: &mut Draft) -> Result<(), Wrong> {
    others(draft, document, &["version", "creds", "defaults", "sync"], "the file");
    for creds in document.get("creds").map(Yaml::items).unwrap_or_default() {
        registry(creds, draft);
    }
    let none = Yaml { line: 1, value: dray_core::YamlValue::Map(Vec::new()) };
    let defaults = document.get("defaults").unwrap_or(&none);
    for sync in document.get("sync").map(Yaml::items).unwrap_or_default() {
        rules(sync, defaults, draft)?;
    }
    for (key, value) in defaults.entries() {
        if !SYNC.contains(&key.as_str()) && !NEEDLESS.contains(&key.as_str()) {
            draft.leave(value, told(key, value));
        }
    }
    Ok(())
}

/// Why a key of `sync` or `defaults` is not written.
fn told(key: &str, value: &Yaml) -> String {
    match key {
        "interval" | "schedule" => {
            format!("`{key}: {value}`: let a timer run `dray sync` (docs/howto/nightly.md)")
        }
        "backup" => format!("`backup: {value}`: dray keeps no copy of a tag that it writes over"),
        "hooks" => "`hooks` are run by nobody: regsync does not either".into(),
        _ => format!("`{key}` has no counterpart: {value}"),
    }
}

fn registry(creds: &Yaml, draft: &mut Draft) {
    let Some(host) = text(creds, "registry").or_else(|| text(creds, "hostname")) else {
        draft.leave(creds, "an entry of `creds` names no registry");
        return;
    };
    for (key, value) in creds.entries() {
        match (key.as_str(), value.text()) {
            ("registry" | "pass" | "repoAuth" | "blobChunk" | "blobMax" | "reqPerSec" | "apiOpts", _) => {}
            ("hostname", Some(name)) if name == host => {}
            ("user", Some(user)) => draft.login(host, user, value),
            ("tls", Some("disabled")) => draft.registry(host, "tls", json!("off")),
            ("tls", Some("insecure")) => draft.registry(host, "tls", json!({ "verify": false })),
            ("tls", Some("enabled")) => {}
            ("reqConcurrent", Some(number)) => match number.parse::<u32>() {
                Ok(number) if (1..=1024).contains(&number) => draft.registry(host, "concurrency", json!(number)),
                _ => draft.leave(value, format!("`reqConcurrent: {number}` is not 1 to 1024")),
            },
            ("regcert" | "clientCert" | "clientKey", _) => draft.leave(
                value,
                format!("`{key}` of {host}: write the PEM into a file, and name it in `tls = {{ ca = …, cert = …, key = … }}`"),
            ),
            ("credHelper", _) => {
                draft.leave(value, format!("`credHelper` of {host}: name it in ~/.docker/config.json, where dray looks"));
            }
            ("token", _) => draft.leave(value, format!("`token` of {host} is not written: auth = {{ token = \"env:NAME\" }}")),
            _ => draft.leave(value, format!("`{key}` of {host} has no counterpart: {value}")),
        }
    }
}

/// A key of an entry, or of `defaults`.
fn either<'a>(sync: &'a Yaml, defaults: &'a Yaml, key: &str) -> Option<&'a Yaml> {
    sync.get(key).or_else(|| defaults.get(key))
}

fn rules(sync: &Yaml, defaults: &Yaml, draft: &mut Draft) -> Result<(), Wrong> {
    let [source, target] = ["source", "target"].map(|key| text(sync, key));
    let (Some(source), Some(target)) = (source, target) else {
        return Err(Wrong::at(sync, "an entry of `sync` has no source or no target"));
    };
    for (key, value) in sync.entries() {
        if !SYNC.contains(&key.as_str()) && !NEEDLESS.contains(&key.as_str()) {
            draft.leave(value, told(key, value));
        }
    }
    let kind = text(sync, "type").unwrap_or("repository");
    let (from, to) = match kind {
        "registry" => {
            let (from, to) = (source.trim_end_matches('/'), target.trim_end_matches('/'));
            let repositories = sync.get("repos").or_else(|| defaults.get("repos"));
            let allow = repositories.map(|repos| texts(repos, "allow")).unwrap_or_default();
            if let Some(deny) = repositories.and_then(|repos| repos.get("deny")) {
                draft.leave(
                    deny,
                    format!("`repos.deny: {deny}`: repositories cannot be left out by an expression"),
                );
            }
            let plain = |allow: &String| {
                allow.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"-_./".contains(&byte))
            };
            let from: Vec<String> = match allow.is_empty() || !allow.iter().all(plain) {
                true => {
                    if let Some(repositories) = repositories.filter(|_| !allow.is_empty()) {
                        draft.leave(
                            repositories,
                            format!(
                                "`repos.allow: {}` are expressions; write globs in `from`",
                                allow.join(", ")
                            ),
                        );
                    }
                    vec![format!("docker://{from}/**")]
                }
                false => allow.iter().map(|name| format!("docker://{from}/{name}")).collect(),
            };
            (json!(from), format!("docker://{to}/{{path}}"))
        }
        "repository" | "image" => {
            let (from, to) = match (place(source, sync), place(target, sync)) {
                (Ok(from), Ok(to)) => (from, to),
                (Err(wrong), _) | (_, Err(wrong)) => {
                    draft.leave(sync, wrong.text());
                    return Ok(());
                }
            };
            let bare = kind == "image"
                && parts(from.trim_start_matches("docker://")).1.is_none()
                && !from.contains('@');
            (json!(if bare { format!("{from}:latest") } else { from }), to)
        }
        other => {
            return Err(Wrong::at(
                sync,
                format!("`type: {other}` is none of registry, repository and image"),
            ));
        }
    };
    let sets = match either(sync, defaults, "tagSets") {
        Some(sets) => sets.items().to_vec(),
        None => either(sync, defaults, "tags").cloned().into_iter().collect(),
    };
    let each: Vec<Option<Value>> = match kind == "image" || sets.is_empty() {
        true => vec![None],
        false => sets.iter().map(|set| Ok(Some(tags(set, draft)?))).collect::<Result<_, Wrong>>()?,
    };
    for tags in each {
        let mut rule = Rule::new(from.clone(), to.as_str());
        rule.set("tags", tags.unwrap_or_default());
        let one =
            text(sync, "platform").or_else(|| text(defaults, "platform")).map(|one| vec![one.to_owned()]);
        let platforms = one.unwrap_or_else(|| {
            texts(
                either(sync, defaults, "platforms")
                    .map_or(sync, |_| if sync.get("platforms").is_some() { sync } else { defaults }),
                "platforms",
            )
        });
        if platforms.iter().any(|platform| platform == "local") {
            draft.leave(
                sync,
                "`platform: local`: write the platform of the machine that regsync ran on in `platforms`",
            );
        } else if !platforms.is_empty() {
            rule.set("platforms", json!(platforms));
            rule.set("index", json!("trim"));
        }
        if either(sync, defaults, "referrers").and_then(Yaml::bool) == Some(true) {
            rule.set("referrers", json!(true));
        }
        if either(sync, defaults, "includeExternal").and_then(Yaml::bool) == Some(true) {
            rule.set("include-foreign", json!(true));
        }
        draft.add(rule, sync, &format!("sync {source} to {target}"));
    }
    Ok(())
}

/// A place as regsync names it.
fn place(name: &str, at: &Yaml) -> Result<String, Wrong> {
    match name.strip_prefix("ocidir://") {
        Some(path) => Ok(format!("oci:{path}")),
        None if name.contains("{{") => {
            Err(Wrong::at(at, format!("`{name}` is a template: write ${{env:NAME}} for it afterwards")))
        }
        None => docker(name, at),
    }
}

/// Tags of one set: those in a range, then those that are allowed, then those that are not denied.
fn tags(set: &Yaml, draft: &mut Draft) -> Result<Value, Wrong> {
    others(draft, set, &["allow", "deny", "semverRange"], "`tags`");
    let (allow, deny, ranges) = (texts(set, "allow"), texts(set, "deny"), texts(set, "semverRange"));
    let word = |text: &String| text.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"-_".contains(&byte));
    if !allow.is_empty() && allow.iter().all(word) && deny.is_empty() && ranges.is_empty() {
        return Ok(json!(allow));
    }
    // regsync puts `^` before and `$` behind an expression, so that `a|b` is `^a` or `b$`.
    for expression in allow
        .iter()
        .chain(&deny)
        .filter(|expression| expression.contains('|') && !expression.starts_with('('))
    {
        draft.leave(set, format!("`{expression}`: regsync anchors only its first and its last alternative, as `^{expression}$` does here"));
    }
    let anchored = |all: &[String]| all.iter().map(|one| format!("^{one}$")).collect::<Vec<_>>();
    let mut filters = Vec::new();
    if !ranges.is_empty() {
        filters.push(json!({ "filter": "semver", "range": ranges.join(" || ") }));
    }
    if !allow.is_empty() {
        filters.push(json!({ "filter": "regex", "pattern": anchored(&allow) }));
    }
    if !deny.is_empty() {
        filters.push(json!({ "filter": "regex", "pattern": anchored(&deny), "exclude": true }));
    }
    Ok(if filters.is_empty() { Value::Null } else { json!(filters) })
}
