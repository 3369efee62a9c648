//! What the plugins of a policy ask for, and what the policy grants.

use crate::{secrets::UserSecrets, setup};
use dray_core::policy::{Grant, Policy, SecretRef, is_host_grant};
use dray_engine::Error;
use dray_runtime::{Wish, WishKind, narrowed};
use serde::Serialize;
use std::path::PathBuf;

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

/// A grant that a plugin does not get, because it does not ask for it.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct UnaskedGrant {
    /// The plugin's name in the policy.
    pub plugin: String,
    /// What is granted, as the policy writes it.
    pub grant: String,
}

/// How the grants of a policy and the wishes of its plugins differ.
#[derive(Debug, Default)]
pub struct Differences {
    pub missing: Vec<MissingGrant>,
    pub unasked: Vec<UnaskedGrant>,
}

/// Compares what the plugins of a policy ask for with what the policy grants.
pub async fn compared(policy: &Policy) -> Result<Differences, Error> {
    let mut found = Differences::default();
    for (name, plugin) in &policy.plugins {
        let secrets = UserSecrets { base: PathBuf::new(), authfile: None };
        let runtime = setup::runtime([(name.clone(), plugin.clone())].into(), secrets);
        for listed in runtime.inspect(name).await? {
            found.missing.extend(missing(name, &plugin.grant, &listed.info.wishes));
            found.unasked.extend(unasked(name, &plugin.grant, &listed.info.wishes));
        }
    }
    Ok(found)
}

/// What is granted to a plugin that it does not ask for.
fn unasked(name: &str, grant: &Grant, wishes: &[Wish]) -> Vec<UnaskedGrant> {
    let with = |grant| narrowed(&grant, wishes);
    let hosts = grant
        .hosts
        .iter()
        .filter(|host| with(Grant { hosts: vec![(*host).clone()], ..Grant::default() }).hosts.is_empty());
    let asked = with(grant.clone());
    let files = grant.files.iter().filter(|path| !asked.files.contains(path));
    let secrets = grant.secrets.iter().filter(|secret| !asked.secrets.contains(secret));
    let hosts = hosts.map(|host| format!("hosts = [{host:?}]"));
    let files = files.map(|path| format!("files = [{path:?}]"));
    let secrets = secrets.map(|secret| format!("secrets = [{:?}]", secret.to_string()));
    let told = |grant| UnaskedGrant { plugin: name.to_owned(), grant };
    hosts.chain(files).chain(secrets).map(told).collect()
}

/// The wishes of a plugin that its grant does not fulfil.
fn missing(name: &str, grant: &Grant, wishes: &[Wish]) -> Vec<MissingGrant> {
    let missing = |wish: &&Wish| {
        let got = narrowed(grant, std::slice::from_ref(*wish));
        // What no policy could grant, nobody is told to grant.
        match wish.kind {
            WishKind::Host => got.hosts.is_empty() && (!wish.is_named() || is_host_grant(&wish.name)),
            WishKind::Secret => got.secrets.is_empty() && wish.name.parse::<SecretRef>().is_ok(),
            WishKind::Files => got.files.is_empty(),
        }
    };
    let told = |wish: &Wish| {
        let (key, example) = match wish.kind {
            WishKind::Host => ("hosts", "HOST"),
            WishKind::Secret => ("secrets", "env:NAME"),
            WishKind::Files => ("files", "PATH"),
        };
        let named = wish.is_named();
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
            missing("p", grant, &wishes).into_iter().map(|missing| missing.add).collect::<Vec<_>>()
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
        assert_eq!(unasked("p", &grant, &wishes), []);
        let told = unasked("p", &grant, &wishes[..1]);
        let told: Vec<&str> = told.iter().map(|one| one.grant.as_str()).collect();
        assert_eq!(told, ["files = [\"/srv/cache\"]", "secrets = [\"env:TOKEN\"]"]);
    }
}
