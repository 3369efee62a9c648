//! The files of image-syncer: `auth` with logins, `images` with sources and destinations.

use super::{
    Wrong,
    draft::{Draft, Rule, docker, parts},
    others, text,
};
use dray_core::Yaml;
use serde_json::json;

pub fn read(document: &Yaml, draft: &mut Draft) -> Result<(), Wrong> {
    for (key, value) in document.entries() {
        match key.as_str() {
            // One file may hold both.
            "auth" if value.text().is_none() => read(value, draft)?,
            "images" if value.text().is_none() => read(value, draft)?,
            host if !value.entries().is_empty() => login(host, value, draft),
            source => images(source, value, draft)?,
        }
    }
    Ok(())
}

fn login(host: &str, value: &Yaml, draft: &mut Draft) {
    others(draft, value, &["username", "password", "insecure"], host);
    let registry = host.split('/').next().unwrap_or(host);
    if registry != host {
        draft.leave(value, format!("the login of {host} is for a namespace: `dray login {host}` keeps it so; here it is for {registry}"));
    }
    if let Some(user) = text(value, "username") {
        draft.login(registry, user, value);
    }
    if value.get("insecure").and_then(Yaml::bool) == Some(true) {
        draft.registry(registry, "tls", json!("off"));
    }
}

fn images(source: &str, value: &Yaml, draft: &mut Draft) -> Result<(), Wrong> {
    let targets: Vec<String> = match value.text() {
        Some(target) => vec![target.to_owned()],
        None => value.items().iter().map(ToString::to_string).collect(),
    };
    if targets.is_empty() {
        return Err(Wrong::at(value, format!("`{source}` has no destination")));
    }
    // `repository:/regex/` is a name with an expression behind it.
    let (name, expression) = match source.split_once(":/") {
        Some((name, rest)) => (name, rest.strip_suffix('/')),
        None => (source, None),
    };
    let (repository, tags, digest) = parts(name);
    let tags: Vec<&str> = tags.map(|tags| tags.split(',').map(str::trim).collect()).unwrap_or_default();
    for target in &targets {
        let (to, to_tags, _) = parts(target);
        let to_tags: Vec<&str> =
            to_tags.map(|tags| tags.split(',').map(str::trim).collect()).unwrap_or_default();
        let what = format!("{source} to {target}");
        let (from, to) = (docker(repository, value)?, docker(to, value)?);
        if let Some(digest) = digest {
            let tag = to_tags.first().map(|tag| format!(":{tag}")).unwrap_or_default();
            draft.add(Rule::new(format!("{from}@{digest}"), format!("{to}{tag}")), value, &what);
            continue;
        }
        if !to_tags.is_empty() && to_tags.len() != tags.len() {
            return Err(Wrong::at(
                value,
                format!("`{target}` has {} tags, and `{source}` {}", to_tags.len(), tags.len()),
            ));
        }
        if to_tags.is_empty() || to_tags == tags {
            let mut rule = Rule::new(from.as_str(), to.as_str());
            match expression {
                Some(expression) => rule.set("tags", json!({ "regex": expression })),
                None if !tags.is_empty() => rule.set("tags", json!(tags)),
                None => {}
            }
            draft.add(rule, value, &what);
            continue;
        }
        for (tag, named) in tags.iter().zip(&to_tags) {
            draft.add(Rule::new(format!("{from}:{tag}"), format!("{to}:{named}")), value, &what);
        }
    }
    Ok(())
}
