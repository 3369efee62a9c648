//! What the plugins of a policy ask for, and what the policy grants.

use crate::{secrets::UserSecrets, setup};
use dray_core::policy::{Grant, Policy, SecretRef, grants_host};
use dray_engine::Error;
use dray_runtime::{Wish, WishKind};
use serde::Serialize;
use std::path::{Path, PathBuf};

/// A grant that a plugin asks for, and does not have.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct MissingGrant {
    /// The plugin's name in the policy.
    pub plugin: String,
    /// What it asks for.
    pub wish: Wish,
    /// The TOML that grants it.
    pub add: String,
}

/// The grants that are missing in a policy.
pub async fn missing(policy: &Policy) -> Result<Vec<MissingGrant>, Error> {
    let mut found = Vec::new();
    for (name, plugin) in &policy.plugins {
        let secrets = UserSecrets { base: PathBuf::new(), authfile: None };
        let runtime = setup::runtime([(name.clone(), plugin.clone())].into(), secrets);
        for listed in runtime.inspect(name).await? {
            found.extend(of_plugin(name, &plugin.grant, &listed.info.wishes));
        }
    }
    Ok(found)
}

/// The wishes of a plugin that its grant does not fulfil.
fn of_plugin(name: &str, grant: &Grant, wishes: &[Wish]) -> Vec<MissingGrant> {
    let missing = |wish: &&Wish| {
        // What the plugin cannot name before it is configured is described with words.
        let named = !wish.name.contains(char::is_whitespace);
        match wish.kind {
            WishKind::Host if named => !grant.hosts.iter().any(|host| grants_host(host, &wish.name)),
            WishKind::Host => grant.hosts.is_empty(),
            WishKind::Secret => match wish.name.parse::<SecretRef>() {
                Ok(secret) => !grant.secrets.contains(&secret),
                Err(()) => false,
            },
            WishKind::Files if named => !grant.files.iter().any(|path| *path == Path::new(&wish.name)),
            WishKind::Files => grant.files.is_empty(),
        }
    };
    let told = |wish: &Wish| {
        let (key, example) = match wish.kind {
            WishKind::Host => ("hosts", "HOST"),
            WishKind::Secret => ("secrets", "env:NAME"),
            WishKind::Files => ("files", "PATH"),
        };
        let named = !wish.name.contains(char::is_whitespace);
        let value = if named { wish.name.as_str() } else { example };
        let add = format!("[plugin.{name}]\ngrant = {{ {key} = [{value:?}] }}");
        MissingGrant { plugin: name.to_owned(), wish: wish.clone(), add }
    };
    wishes.iter().filter(missing).map(told).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_asked_and_not_granted_is_told_with_its_toml() {
        let wish = |kind, name: &str| Wish { kind, name: name.into(), why: "it is needed".into() };
        let wishes = [
            wish(WishKind::Host, "login.example.com"),
            wish(WishKind::Host, "the host in `login`"),
            wish(WishKind::Secret, "env:TOKEN"),
            wish(WishKind::Files, "/srv/cache"),
        ];
        let added = |grant: &Grant| {
            of_plugin("p", grant, &wishes).into_iter().map(|missing| missing.add).collect::<Vec<_>>()
        };
        assert_eq!(
            added(&Grant::default()),
            [
                "[plugin.p]\ngrant = { hosts = [\"login.example.com\"] }",
                "[plugin.p]\ngrant = { hosts = [\"HOST\"] }",
                "[plugin.p]\ngrant = { secrets = [\"env:TOKEN\"] }",
                "[plugin.p]\ngrant = { files = [\"/srv/cache\"] }",
            ]
        );
        let grant = Grant {
            hosts: vec!["*.example.com".into()],
            files: vec!["/srv/cache".into()],
            secrets: vec!["env:TOKEN".parse().unwrap()],
        };
        assert_eq!(added(&grant), [""; 0]);
    }
}
