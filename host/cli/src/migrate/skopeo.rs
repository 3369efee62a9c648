//! The YAML of `skopeo sync` (skopeo-sync(1)).

use super::{
    Asked, Wrong,
    draft::{Draft, Rule},
    others, text,
};
use dray_core::{Digest, Yaml};
use serde_json::json;

pub fn read(document: &Yaml, asked: &Asked<'_>, draft: &mut Draft) -> Result<(), Wrong> {
    let to = asked.destination()?;
    for (host, registry) in document.entries() {
        let to = match asked.scoped {
            true => format!("{to}/{{registry}}/{{path}}"),
            false => format!("{to}/{{name}}"),
        };
        others(
            draft,
            registry,
            &["images", "images-by-tag-regex", "images-by-semver", "credentials", "tls-verify", "cert-dir"],
            host,
        );
        if let Some(login) = registry.get("credentials") {
            draft.login(host, text(login, "username").unwrap_or_default(), login);
        }
        if let Some(verify) = registry.get("tls-verify")
            && verify.bool() == Some(false)
            // There, dray tries plain HTTP by itself.
            && !host.starts_with("127.") && !host.starts_with("localhost")
        {
            draft.registry(host, "tls", json!({ "verify": false }));
            draft.leave(verify, format!("`tls-verify: false` of {host} takes any certificate; write tls = \"off\" if it speaks plain HTTP"));
        }
        if let Some(folder) = registry.get("cert-dir") {
            draft.leave(folder, format!("`cert-dir` of {host}: name its files in `tls = {{ ca = …, cert = …, key = … }}`, or put it into certs.d"));
        }
        draft.leave(
            registry,
            format!("the rules of {host} copy all platforms, as `skopeo sync --all` does; without --all it copies that of its machine: platforms = [\"amd64\"]"),
        );
        let from = |repository: &str| format!("docker://{host}/{repository}");
        for (repository, tags) in registry.get("images").map(Yaml::entries).unwrap_or_default() {
            let (digests, names): (Vec<String>, Vec<String>) =
                tags.items().iter().map(ToString::to_string).partition(|tag| tag.parse::<Digest>().is_ok());
            for digest in &digests {
                let rule = Rule::new(format!("{}@{digest}", from(repository)), to.as_str());
                draft.add(rule, tags, &format!("{host} images {repository}"));
            }
            if !names.is_empty() || digests.is_empty() {
                let mut rule = Rule::new(from(repository), to.as_str());
                if !names.is_empty() {
                    rule.set("tags", json!(names));
                }
                draft.add(rule, tags, &format!("{host} images {repository}"));
            }
        }
        for (key, filter) in [("images-by-tag-regex", "regex"), ("images-by-semver", "semver")] {
            for (repository, wanted) in registry.get(key).map(Yaml::entries).unwrap_or_default() {
                let mut rule = Rule::new(from(repository), to.as_str());
                rule.set("tags", json!({ filter: wanted.to_string() }));
                rule.set("on-empty", json!("error"));
                draft.add(rule, wanted, &format!("{host} {key} {repository}"));
            }
        }
    }
    Ok(())
}
