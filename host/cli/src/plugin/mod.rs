//! `dray plugin`: lists plugins, and helps their authors.

mod artifact;
mod check;
mod fixture;
mod grants;
mod install;
mod project;
mod record;
mod test;
mod trust;

pub use artifact::push;
pub use check::run as check;
pub use grants::{Differences, MissingGrant, UnaskedGrant, compared as compared_grants};
pub use install::{install, remove, update};
pub use project::{build, create, vendor};
pub use test::run as test;
pub use trust::{keygen, sign, verify};

use crate::{
    DONE,
    args::{Output, PluginInspectOptions, PluginListOptions},
    failure::Failure,
    output::{print_pretty, say},
    policy,
    progress::{Progress, Screen},
    secrets::UserSecrets,
    setup,
    signals::Stop,
};
use dray_core::policy::{Plugin, PluginSource};
use dray_engine::{Error, Kind, Places};
use dray_runtime::{Listed, Role, Runtime};
use serde_json::{Value, json};
use std::{
    collections::BTreeMap,
    path::{Path, PathBuf},
    sync::Arc,
};

/// Shows how far something is that moves artifacts, until it has ended or is stopped.
struct Watch {
    stop: Stop,
    progress: Arc<Progress>,
}

impl Watch {
    fn begin(places: &Arc<Places>, screen: &Screen) -> Self {
        let stop = Stop::listen(screen);
        let progress = screen.watch(places, &stop);
        Watch { stop, progress }
    }

    /// What the work gives, or the exit code if it was stopped.
    async fn until_stopped<T, E: Into<Failure>>(
        self,
        work: impl Future<Output = Result<T, E>>,
    ) -> Result<Result<T, u8>, Failure> {
        let mut told = self.stop.signal.clone();
        let done = tokio::select! {
            done = work => Some(done),
            _ = told.wait_for(|stop| *stop) => None,
        };
        self.progress.end();
        match done {
            Some(done) => done.map(Ok).map_err(Into::into),
            None => Ok(Err(self.stop.code().unwrap_or(crate::FAILED))),
        }
    }
}

/// A runtime that knows the plugins of a policy.
async fn runtime(policy: Option<&Path>) -> Result<Arc<Runtime>, Failure> {
    let plugins = match policy {
        Some(path) => {
            let mut loaded = policy::load(&[path.to_owned()])?;
            loaded.with_plugins(false).await?;
            loaded.policy.plugins
        }
        None => BTreeMap::new(),
    };
    Ok(setup::runtime(plugins, UserSecrets { base: PathBuf::new(), authfile: None }))
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
        Role::Mapper => vec!["names of tags".into()],
        Role::Observer => vec!["what a run did, and the secrets and hosts named in its table".into()],
    };
    parts.extend(plugin.grant.hosts.iter().map(|host| format!("host {host}")));
    parts.extend(plugin.grant.files.iter().map(|path| format!("files {}", path.display())));
    parts.extend(plugin.grant.secrets.iter().map(|secret| format!("secret {secret}")));
    parts.join(", ")
}

fn describe(plugin: &Listed) -> Value {
    json!({
        "name": plugin.name,
        "kind": plugin.role.name(),
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
    let listed = runtime(options.policy.as_deref()).await?.list().await?;
    let installed = install::installed()?;
    match options.output {
        Output::Json => {
            let installed = installed.iter().map(|stored| {
                json!({
                    "name": stored.name, "kind": stored.kind, "version": stored.version, "summary": stored.summary,
                    "origin": stored.source, "digest": stored.component, "artifact": stored.digest,
                    "installed": stored.installed,
                })
            });
            print_pretty(&listed.iter().map(describe).chain(installed).collect::<Value>());
        }
        Output::Text => {
            say!("{:<14} {:<10} {:<8} {:<20} {:<20} GRANTED", "NAME", "KIND", "VERSION", "ORIGIN", "DIGEST");
            for plugin in &listed {
                say!(
                    "{:<14} {:<10} {:<8} {:<20} {:<20.20} {}",
                    plugin.name,
                    plugin.role.name(),
                    plugin.info.version,
                    plugin.origin,
                    plugin.digest,
                    granted(plugin)
                );
            }
            for stored in &installed {
                say!(
                    "{:<14} {:<10} {:<8} {:<20} {:<20.20} installed: what a policy that names it grants",
                    stored.name,
                    stored.kind,
                    stored.version,
                    stored.source,
                    stored.component.to_string(),
                );
            }
        }
    }
    Ok(DONE)
}

pub async fn inspect(options: PluginInspectOptions) -> Result<u8, Failure> {
    let path = Path::new(&options.plugin);
    let listed = if path.is_file() {
        let plugin = Plugin::from_source(PluginSource::File(path.to_owned()));
        let name = path.file_stem().unwrap_or_default().to_string_lossy().into_owned();
        let plugins = BTreeMap::from([(name.clone(), plugin)]);
        setup::runtime(plugins, UserSecrets { base: PathBuf::new(), authfile: None }).inspect(&name).await?
    } else {
        runtime(options.policy.as_deref()).await?.inspect(&options.plugin).await?
    };
    let kinds: Vec<&str> = listed.iter().map(|plugin| plugin.role.name()).collect();
    let wanted = |plugin: &Listed| options.kind.as_deref().is_none_or(|kind| plugin.role.name() == kind);
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
