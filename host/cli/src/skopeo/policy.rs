//! containers-policy.json(5), as far as dray obeys it: an image that needs no signature is copied, and any other one is
//! refused rather than copied unchecked.

use super::{flags::Globals, session};
use crate::failure::Failure;
use dray_core::Reference;
use dray_engine::{Error, Kind};
use serde_json::Value;
use std::{
    fs,
    path::{Path, PathBuf},
};

/// Where the policy is.
fn usual() -> Vec<PathBuf> {
    let home = std::env::home_dir().map(|home| home.join(".config/containers/policy.json"));
    home.into_iter().chain([PathBuf::from("/etc/containers/policy.json")]).collect()
}

/// Fails if the policy does not let an image be copied without a signature, or if there is no policy.
pub fn check(globals: &Globals, source: &Reference) -> Result<(), Failure> {
    if globals.insecure_policy {
        return Ok(());
    }
    let failed = |path: &Path, why: String| {
        let text = format!("read the signature policy {}: {why}", path.display());
        Failure::Failed(Error::new(Kind::Invalid, text).help("--insecure-policy checks no signatures"))
    };
    let path = match &globals.policy {
        Some(path) => path.clone(),
        None => {
            let usual = usual();
            let there = usual.iter().find(|path| path.exists()).or(usual.last());
            there.cloned().unwrap_or_default()
        }
    };
    let text = fs::read_to_string(&path).map_err(|error| failed(&path, error.to_string()))?;
    let policy: Value = serde_json::from_str(&text).map_err(|error| failed(&path, error.to_string()))?;
    let requirements = requirements(&policy, source)
        .ok_or_else(|| failed(&path, "it has no `default`, which is required".into()))?;
    match requirements.iter().find(|requirement| **requirement != "insecureAcceptAnything") {
        None if !requirements.is_empty() => Ok(()),
        None => Err(failed(&path, "it has an empty list of requirements".into())),
        Some(kind) => {
            let (text, help) = match *kind {
                "reject" => (format!("copy {source}: {} rejects it", path.display()), "change the policy"),
                kind => (
                    format!("copy {source}: {} requires it to be signed ({kind})", path.display()),
                    "dray checks no signatures yet, and so does not copy it",
                ),
            };
            Err(Failure::Failed(Error::new(Kind::Denied, text).help(help)))
        }
    }
}

/// The requirements of the most specific scope that an image is in. A scope is the whole name, one of the namespaces
/// above it, its host, `*.` and a domain, or the whole transport. `None` means that the policy has no default.
fn requirements<'a>(policy: &'a Value, source: &Reference) -> Option<Vec<&'a str>> {
    let scopes = policy.get("transports").and_then(|transports| transports.get(&source.scheme));
    let found = scopes.and_then(|scopes| names(source).iter().find_map(|name| scopes.get(name)));
    let list = found.or_else(|| policy.get("default"))?.as_array()?;
    // What is not understood is no permission.
    Some(list.iter().map(|requirement| requirement["type"].as_str().unwrap_or("unknown")).collect())
}

/// The scopes of an image, the most specific one first.
fn names(source: &Reference) -> Vec<String> {
    let mut name = session::full_name(source).unwrap_or_else(|| source.rest.clone());
    if source.scheme == "docker" && session::end_of_name(&name).is_none() {
        name.push_str(":latest");
    }
    let mut names = vec![name.clone()];
    if let Some(at) = session::end_of_name(&name) {
        name.truncate(at);
        names.push(name.clone());
    }
    while let Some(at) = name.rfind('/') {
        name.truncate(at);
        names.push(name.clone());
    }
    let host = name.split(':').next().unwrap_or_default().to_owned();
    let mut domain = host.as_str();
    while let Some((_, above)) = domain.split_once('.') {
        names.push(format!("*.{above}"));
        domain = above;
    }
    names.push(String::new());
    names
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_most_specific_scope_decides() {
        let policy: Value = serde_json::from_str(
            r#"{"default":[{"type":"reject"}],"transports":{"docker":{
                "docker.io/library":[{"type":"insecureAcceptAnything"}],
                "docker.io/library/nginx:1":[{"type":"signedBy"}],
                "*.example.com":[{"type":"sigstoreSigned"}],
                "r.example.com/open":[{"type":"insecureAcceptAnything"}]},
                "dir":{"":[{"type":"insecureAcceptAnything"}]}}}"#,
        )
        .unwrap();
        for (source, kind) in [
            ("docker://nginx", "insecureAcceptAnything"),
            ("docker://docker.io/library/nginx:1", "signedBy"),
            ("docker://quay.io/app", "reject"),
            ("docker://r.example.com/app:1", "sigstoreSigned"),
            ("docker://r.example.com/open/app:1", "insecureAcceptAnything"),
            ("docker://r.example.com/opener:1", "sigstoreSigned"),
            ("dir:/tmp/x", "insecureAcceptAnything"),
            ("oci:/tmp/x", "reject"),
        ] {
            let source: Reference = source.parse().unwrap();
            assert_eq!(requirements(&policy, &source), Some(vec![kind]), "{source}");
        }
        assert_eq!(requirements(&serde_json::json!({}), &"dir:x".parse().unwrap()), None);
        let odd = serde_json::json!({ "default": [{ "type": 7 }] });
        assert_eq!(requirements(&odd, &"dir:x".parse().unwrap()), Some(vec!["unknown"]));
    }
}
