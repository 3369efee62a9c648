//! `dray plugin install`, `dray plugin update` and `dray plugin remove`

use super::Watch;
use crate::{
    DONE, DUE,
    args::{Access, InstallAccess, Output, PluginInstallOptions, PluginRemoveOptions, PluginUpdateOptions},
    failure::Failure,
    lock,
    output::{counted, print_json, say},
    policy::{self, Loaded},
    progress::Screen,
    setup,
};
use dray_core::{
    Digest,
    policy::{ArtifactSource, LockedPlugin, PluginSource, suggestion},
};
use dray_engine::{Error, Image, Kind, Observer, Places};
use dray_session::artifact::{Store, Stored, install as fetch};
use serde::Serialize;
use std::{
    collections::BTreeMap,
    path::{Path, PathBuf},
    sync::Arc,
};

/// What became of one plugin.
#[derive(Serialize)]
struct Outcome {
    /// Its name in the policy, or the one that it gives itself.
    name: String,
    source: String,
    /// What was locked before.
    #[serde(skip_serializing_if = "Option::is_none")]
    before: Option<Digest>,
    digest: Digest,
    /// `None` means that it was not fetched.
    #[serde(skip_serializing_if = "Option::is_none")]
    version: Option<String>,
    /// `installed`, `updated`, `unchanged` or, with `--check`, `due`.
    action: &'static str,
}

fn tell(outcomes: &[Outcome], output: Output) {
    if output == Output::Json {
        return print_json(outcomes);
    }
    for Outcome { name, before, digest, version, action, .. } in outcomes {
        let version = version.as_ref().map(|version| format!(" {version}")).unwrap_or_default();
        match before.as_ref().filter(|before| *before != digest) {
            Some(before) => say!("{name}{version}: {action}, from {} to {}", before.short(), digest.short()),
            None => say!("{name}{version}: {action}, {}", digest.short()),
        }
    }
}

/// Where artifacts come from and are kept.
struct Workshop {
    places: Arc<Places>,
    store: Store,
    cache: PathBuf,
}

impl Workshop {
    fn new(places: Arc<Places>) -> Result<Self, Failure> {
        let cache = setup::cache_folder().ok_or_else(setup::no_cache)?;
        Ok(Workshop { places, store: Store::beneath(&cache), cache })
    }

    /// Fetches an artifact, unless this machine holds what `digest` says.
    async fn install(
        &self,
        source: &ArtifactSource,
        digest: Option<&Digest>,
        keys: &[PathBuf],
        observer: Arc<dyn Observer>,
    ) -> Result<Stored, Failure> {
        if let Some(digest) = digest.or(source.digest.as_ref())
            && keys.is_empty()
            && let Some(stored) = self.store.get(digest)?
        {
            return Ok(stored);
        }
        Ok(fetch(&self.places, (source, digest), keys, (&self.store, &self.cache), observer).await?)
    }
}

pub async fn install(options: PluginInstallOptions, screen: Screen) -> Result<u8, Failure> {
    let Some(source) = &options.source else {
        let mut loaded = policy::load(std::slice::from_ref(&options.policy))?;
        loaded.authfile.clone_from(&options.access.authfile);
        return of_policy(&loaded, &screen, options.output, |_| false, false).await;
    };
    let workshop = Workshop::new(setup::places(&single(&options.access)).await?)?;
    let watch = Watch::begin(&workshop.places, &screen);
    let installed = workshop.install(source, None, &options.keys, watch.progress.clone());
    let stored = match watch.until_stopped(installed).await? {
        Ok(stored) => stored,
        Err(code) => return Ok(code),
    };
    let pinned = source.at(&stored.digest);
    match options.output {
        Output::Json => print_json(&stored),
        Output::Text => {
            say!("{} {}: {} ({})", stored.name, stored.version, stored.summary, stored.kind);
            say!("in a policy:");
            say!("  [plugin.{}]", stored.name);
            say!("  source = \"{pinned}\"");
        }
    }
    Ok(DONE)
}

fn single(access: &InstallAccess) -> Access {
    Access {
        authfile: access.authfile.clone(),
        creds_file: None,
        tls_ca: access.tls_ca.clone(),
        insecure: access.insecure,
        policy: None,
        plugins: Vec::new(),
    }
}

pub async fn update(options: PluginUpdateOptions, screen: Screen) -> Result<u8, Failure> {
    let mut loaded = policy::load(std::slice::from_ref(&options.policy))?;
    loaded.authfile.clone_from(&options.authfile);
    let known: Vec<&str> = loaded.policy.plugins.keys().map(String::as_str).collect();
    for name in &options.names {
        let artifact = loaded.policy.plugins.get(name).map(|plugin| &plugin.source.value);
        let why = match artifact {
            Some(PluginSource::Artifact(source)) if source.digest.is_none() => continue,
            Some(PluginSource::Artifact(_)) => "its source names a digest, which is changed in the policy",
            Some(PluginSource::File(_)) => "its source is a file",
            None => "the policy has no plugin of that name",
        };
        let error = Error::new(Kind::Invalid, format!("update the plugin {name}: {why}"));
        let help = suggestion(name, known.iter().copied()).filter(|_| artifact.is_none());
        return Err(Failure::Usage(match help {
            Some(help) => error.help(help),
            None => error,
        }));
    }
    let again = |name: &str| options.names.is_empty() || options.names.iter().any(|wanted| wanted == name);
    of_policy(&loaded, &screen, options.output, again, options.check).await
}

/// Installs the artifacts of a policy, and locks their digests. Those that `again` chooses are looked up by their tags, the others
/// only if the lock does not have them. With `check` nothing is changed.
async fn of_policy(
    loaded: &Loaded,
    screen: &Screen,
    output: Output,
    again: impl Fn(&str) -> bool,
    check: bool,
) -> Result<u8, Failure> {
    let locked = &loaded.locked;
    let artifacts: Vec<(&String, &ArtifactSource)> = loaded
        .policy
        .plugins
        .iter()
        .filter_map(|(name, plugin)| match &plugin.source.value {
            PluginSource::Artifact(source) => Some((name, source)),
            PluginSource::File(_) => None,
        })
        .collect();
    let workshop = Workshop::new(loaded.plugin_places().await?)?;
    let watch = Watch::begin(&workshop.places, screen);
    let observer = watch.progress.clone();
    let all = async {
        let (mut outcomes, mut now) = (Vec::new(), BTreeMap::new());
        for (name, source) in &artifacts {
            let before = locked.get(*name).filter(|locked| locked.source == source.to_string());
            let wanted = before.filter(|_| !again(name)).map(|locked| &locked.digest);
            let before = before.map(|locked| locked.digest.clone());
            let (digest, version) = if check {
                // Only the manifest is read, and nothing is kept.
                let image = Image::open(&workshop.places, &source.reference).await?;
                (image.manifest.descriptor.digest, None)
            } else {
                let keys = loaded.trusted_keys(name);
                let stored = workshop.install(source, wanted, &keys, observer.clone()).await?;
                (stored.digest, Some(stored.version))
            };
            let action = match &before {
                Some(before) if *before == digest => "unchanged",
                _ if check && source.digest.is_none() => "due",
                _ if check => "unchanged",
                Some(_) => "updated",
                None => "installed",
            };
            outcomes.push(Outcome {
                name: (*name).clone(),
                source: source.to_string(),
                before,
                digest: digest.clone(),
                version,
                action,
            });
            if source.digest.is_none() {
                let locked = LockedPlugin { source: source.to_string(), digest };
                now.insert((*name).clone(), locked);
            }
        }
        Ok::<_, Failure>((outcomes, now))
    };
    let (outcomes, now) = match watch.until_stopped(all).await? {
        Ok(all) => all,
        Err(code) => return Ok(code),
    };
    let is_due = outcomes.iter().any(|outcome| outcome.action == "due");
    tell(&outcomes, output);
    if check {
        return Ok(if is_due { DUE } else { DONE });
    }
    let changed = now != *locked;
    let path = match now.is_empty() && locked.is_empty() {
        true => None,
        false => Some(lock::set_plugins(loaded, now)?),
    };
    if output == Output::Text {
        match path {
            _ if outcomes.is_empty() => say!("{} names no artifact of a registry", loaded.name),
            Some(path) if changed => say!("{} locks them", path.display()),
            _ => {}
        }
    }
    Ok(DONE)
}

pub fn remove(options: &PluginRemoveOptions) -> Result<u8, Failure> {
    let store = Store::beneath(&setup::cache_folder().ok_or_else(setup::no_cache)?);
    let all = store.list()?;
    let chosen = |wanted: &String| {
        let found: Vec<&Stored> = all
            .iter()
            .filter(|stored| {
                stored.name == *wanted || stored.source == *wanted || stored.digest.to_string() == *wanted
            })
            .collect();
        match found.is_empty() {
            false => Ok(found),
            true => Err(unknown(wanted, &all)),
        }
    };
    // All of them are found before one is removed.
    let found: Vec<Vec<&Stored>> = options.plugins.iter().map(chosen).collect::<Result<_, _>>()?;
    let mut removed = Vec::new();
    for stored in found.into_iter().flatten() {
        if !removed.contains(&&stored.digest) {
            store.remove(&stored.digest)?;
            removed.push(&stored.digest);
            say!("removed {} {} ({})", stored.name, stored.version, stored.digest.short());
        }
    }
    Ok(DONE)
}

fn unknown(wanted: &str, all: &[Stored]) -> Failure {
    let error =
        Error::new(Kind::Invalid, format!("remove the plugin {wanted}: none of that name is installed"));
    let help = suggestion(wanted, all.iter().map(|stored| stored.name.as_str()));
    Failure::Usage(error.help(help.unwrap_or_else(|| match all.is_empty() {
        true => "none is installed at all".into(),
        false => format!("{} installed; `dray plugin list` shows them", counted(all.len() as u64, "plugin")),
    })))
}

/// The artifacts that this machine holds.
pub fn installed() -> Result<Vec<Stored>, Failure> {
    match setup::cache_folder() {
        Some(cache) => Ok(Store::beneath(Path::new(&cache)).list()?),
        None => Ok(Vec::new()),
    }
}
