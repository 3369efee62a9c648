//! `dray plugin`: lists plugins, and helps their authors.

mod check;
mod fixture;
mod grants;
mod project;
mod test;

pub use check::run as check;
pub use grants::{MissingGrant, missing as missing_grants};
pub use project::{build, create};
pub use test::run as test;

use crate::{
    DONE,
    args::{Output, PluginInspectOptions, PluginListOptions},
    failure::Failure,
    output::{print_pretty, say},
    policy,
    secrets::UserSecrets,
    setup,
};
use dray_core::policy::{Plugin, Spanned};
use dray_engine::{Error, Kind};
use dray_runtime::{Listed, Role, Runtime};
use serde_json::{Value, json};
use std::{
    collections::BTreeMap,
    path::{Path, PathBuf},
    sync::Arc,
};

/// A runtime that knows the plugins of a policy.
fn runtime(policy: Option<&Path>) -> Result<Arc<Runtime>, Failure> {
    let plugins = match policy {
        Some(path) => {
            let loaded = policy::load(&[path.to_owned()])?;
            let absolute = |plugin: Plugin| Plugin {
                source: Spanned {
                    value: loaded.base.join(&plugin.source.value),
                    span: plugin.source.span.clone(),
                },
                ..plugin
            };
            loaded.policy.plugins.into_iter().map(|(name, plugin)| (name, absolute(plugin))).collect()
        }
        None => BTreeMap::new(),
    };
    Ok(setup::runtime(plugins, UserSecrets { base: PathBuf::new(), authfile: None }))
}

fn role(role: Role) -> &'static str {
    match role {
        Role::Transport => "transport",
        Role::Auth => "auth",
        Role::Filter => "filter",
        Role::Verifier => "verifier",
        Role::Dialect => "dialect",
    }
}

/// What a plugin may reach, by its kind and by its grant.
fn granted(plugin: &Listed) -> String {
    let mut parts: Vec<String> = match plugin.role {
        Role::Transport => vec!["files and hosts of its references".into()],
        Role::Auth if plugin.origin == "built in" && plugin.name == "docker-config" => {
            vec!["auth.json, config.json, credential helpers".into()]
        }
        Role::Auth if plugin.origin == "built in" && plugin.name != "static" => {
            vec!["secrets named in its table, the usual variables and files of its service".into()]
        }
        Role::Auth => vec!["secrets named in its table".into()],
        Role::Filter => vec!["facts about images".into()],
        Role::Verifier => vec!["manifests with their signatures".into()],
        Role::Dialect => vec!["the registries of its kind".into()],
    };
    parts.extend(plugin.grant.hosts.iter().map(|host| format!("host {host}")));
    parts.extend(plugin.grant.files.iter().map(|path| format!("files {}", path.display())));
    parts.extend(plugin.grant.secrets.iter().map(|secret| format!("secret {secret}")));
    parts.join(", ")
}

fn describe(plugin: &Listed) -> Value {
    json!({
        "name": plugin.name,
        "kind": role(plugin.role),
        "version": plugin.info.version,
        "summary": plugin.info.summary,
        "schemes": plugin.info.schemes,
        "origin": plugin.origin,
        "digest": plugin.digest,
        "granted": granted(plugin),
        "limits": { "memory": plugin.limits.memory, "call_seconds": plugin.limits.call.as_secs_f64() },
    })
}

pub async fn list(options: PluginListOptions) -> Result<u8, Failure> {
    let listed = runtime(options.policy.as_deref())?.list().await?;
    match options.output {
        Output::Json => print_pretty(&listed.iter().map(describe).collect::<Value>()),
        Output::Text => {
            say!("{:<14} {:<10} {:<8} {:<20} {:<20} GRANTED", "NAME", "KIND", "VERSION", "ORIGIN", "DIGEST");
            for plugin in &listed {
                say!(
                    "{:<14} {:<10} {:<8} {:<20} {:<20.20} {}",
                    plugin.name,
                    role(plugin.role),
                    plugin.info.version,
                    plugin.origin,
                    plugin.digest,
                    granted(plugin)
                );
            }
        }
    }
    Ok(DONE)
}

pub async fn inspect(options: PluginInspectOptions) -> Result<u8, Failure> {
    let path = Path::new(&options.plugin);
    let listed = if path.is_file() {
        let plugin = Plugin::at(path.to_owned());
        let name = path.file_stem().unwrap_or_default().to_string_lossy().into_owned();
        let plugins = BTreeMap::from([(name.clone(), plugin)]);
        setup::runtime(plugins, UserSecrets { base: PathBuf::new(), authfile: None }).inspect(&name).await?
    } else {
        runtime(options.policy.as_deref())?.inspect(&options.plugin).await?
    };
    let kinds: Vec<&str> = listed.iter().map(|plugin| role(plugin.role)).collect();
    let wanted = |plugin: &Listed| options.kind.as_deref().is_none_or(|kind| role(plugin.role) == kind);
    let mut wanted: Vec<Listed> = listed.into_iter().filter(wanted).collect();
    let (Some(plugin), true) = (wanted.pop(), wanted.is_empty()) else {
        let name = &options.plugin;
        let why = match &options.kind {
            Some(kind) => format!("there is none of the kind {kind}"),
            None => "there are several".to_owned(),
        };
        let help = format!("say its kind: --kind {}", kinds.join(" or --kind "));
        let text = format!("inspect the plugin {name}: {why}");
        return Err(Error::new(Kind::Invalid, text).help(help).into());
    };
    let mut shown = describe(&plugin);
    shown["config_schema"] = plugin.info.schema;
    print_pretty(&shown);
    Ok(DONE)
}
