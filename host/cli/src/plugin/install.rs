//! `dray plugin install`, `dray plugin update` and `dray plugin remove`

use super::Watch;
use crate::{
    DONE, DUE,
    args::{Access, Output, POLICY, PluginInstallOptions, PluginRemoveOptions, PluginUpdateOptions},
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
use dray_engine::{Error, Image, Kind, Places, Watcher};
use dray_session::artifact::{Store, Stored, check_signatures, install as fetch};
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
    /// `installed`, `updated`, `unchanged` or, with `--check`, `due` and `not locked`.
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

    /// Whether this machine holds an artifact as it must be, so that nothing has to be fetched.
    fn holds(&self, name: &str, digest: &Digest, keys: &[PathBuf]) -> Result<Option<Stored>, Failure> {
        let Some(stored) = self.store.get(digest)? else { return Ok(None) };
        if !self.store.is_whole(digest)? {
            return Ok(None);
        }
        if !keys.is_empty() {
            let (manifest, bundles) = self.store.signed(digest)?;
            if check_signatures(name, &manifest, bundles, keys).is_err() {
                return Ok(None);
            }
        }
        Ok(Some(stored))
    }

    /// Fetches an artifact, unless this machine holds what `digest` says. Returns whether it was fetched.
    async fn install(
        &self,
        source: &ArtifactSource,
        digest: Option<&Digest>,
        keys: &[PathBuf],
        watcher: Arc<dyn Watcher>,
    ) -> Result<(Stored, bool), Failure> {
        if let Some(digest) = digest.or(source.digest.as_ref())
            && let Some(stored) = self.holds(&source.to_string(), digest, keys)?
        {
            return Ok((stored, false));
        }
        let fetched = fetch(&self.places, (source, digest), keys, (&self.store, &self.cache), watcher).await;
        Ok((fetched?, true))
    }

    /// Looks what becomes of one artifact of a policy, and installs it. `again` looks its tag up even if it is locked; with `check`
    /// only its manifest is read, and nothing is kept.
    async fn looked(
        &self,
        loaded: &Loaded,
        (name, source): (&String, &ArtifactSource),
        (again, check): (bool, bool),
        watcher: Arc<dyn Watcher>,
    ) -> Result<Outcome, Failure> {
        let locked = loaded.locked.get(name).filter(|locked| locked.source == source.to_string());
        let before = locked.map(|locked| locked.digest.clone());
        let doing = || format!("install the plugin {name}");
        let (digest, version, is_new) = if check {
            let image = Image::open(&self.places, &source.reference).await;
            let image = image.map_err(|error| Failure::from(error).of(doing))?;
            (image.manifest.descriptor.digest, None, false)
        } else {
            let wanted = before.as_ref().filter(|_| !again);
            let installed = self.install(source, wanted, &loaded.trusted_keys(name), watcher).await;
            let (stored, fetched) = installed.map_err(|failure| failure.of(doing))?;
            (stored.digest, Some(stored.version), fetched)
        };
        let action = match &before {
            Some(before) if *before == digest && is_new => "installed",
            Some(before) if *before == digest => "unchanged",
            None if check && source.digest.is_none() => "not locked",
            _ if check && source.digest.is_none() => "due",
            _ if check => "unchanged",
            Some(_) => "updated",
            None => "installed",
        };
        let (name, source) = (name.clone(), source.to_string());
        Ok(Outcome { name, source, before, digest, version, action })
    }
}

pub async fn install(options: PluginInstallOptions, screen: Screen) -> Result<u8, Failure> {
    let Some(source) = &options.source else {
        let usual = [PathBuf::from(POLICY)];
        let mut loaded = policy::load(if options.policy.is_empty() { &usual } else { &options.policy })?;
        loaded.authfile.clone_from(&options.access.authfile);
        return of_policy(&loaded, &screen, options.output, |_| false, false).await;
    };
    let workshop = Workshop::new(setup::places(&single(&options)?).await?)?;
    let watch = Watch::begin(&workshop.places, &screen);
    let installed = workshop.install(source, None, &options.keys, watch.progress.clone());
    let stored = match watch.until_stopped(installed).await? {
        Ok((stored, _)) => stored,
        Err(code) => return Ok(code),
    };
    let pinned = source.at(&stored.digest);
    match options.output {
        Output::Json => print_json(&stored),
        Output::Text => {
            say!("{} {}: {} ({})", stored.name, stored.version, stored.summary, stored.kind);
            super::artifact::in_a_policy(&stored.name, &pinned.to_string());
        }
    }
    Ok(DONE)
}

/// How the registry of a single artifact is reached.
fn single(options: &PluginInstallOptions) -> Result<Access, Failure> {
    let access = &options.access;
    let policy = match &options.policy[..] {
        [] => None,
        [policy] if access.tls_ca.is_none() && access.creds_file.is_none() && !access.insecure => {
            Some(policy.clone())
        }
        _ => return Err(Failure::usage("install it: one policy, or flags, say how its registry is reached")),
    };
    Ok(Access {
        authfile: access.authfile.clone(),
        creds_file: access.creds_file.clone(),
        tls_ca: access.tls_ca.clone(),
        insecure: access.insecure,
        policy,
        plugins: Vec::new(),
    })
}

pub async fn update(options: PluginUpdateOptions, screen: Screen) -> Result<u8, Failure> {
    let mut loaded = policy::load(&options.policy)?;
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

/// Installs the artifacts of a policy, and locks the digests that are new. Those that `again` chooses are looked up by their tags, the others
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
    if artifacts.iter().any(|(_, source)| source.digest.is_none()) {
        // Without a lock file nothing could be locked, so nothing is fetched either.
        loaded.lock_file()?;
    }
    let workshop = Workshop::new(loaded.plugin_places().await?)?;
    let watch = Watch::begin(&workshop.places, screen);
    let watcher = watch.progress.clone();
    let all = async {
        let (mut outcomes, mut now) = (Vec::new(), BTreeMap::new());
        for (name, source) in artifacts.iter().filter(|(name, _)| !check || again(name)) {
            let outcome =
                workshop.looked(loaded, (name, source), (again(name), check), watcher.clone()).await?;
            // Another command may lock what stays as it is.
            if source.digest.is_none() && outcome.before.as_ref() != Some(&outcome.digest) {
                let digest = outcome.digest.clone();
                now.insert((*name).clone(), LockedPlugin { source: source.to_string(), digest });
            }
            outcomes.push(outcome);
        }
        Ok::<_, Failure>((outcomes, now))
    };
    let (outcomes, now) = match watch.until_stopped(all).await? {
        Ok(all) => all,
        Err(code) => return Ok(code),
    };
    let is_due = outcomes.iter().any(|outcome| matches!(outcome.action, "due" | "not locked"));
    if check {
        tell(&outcomes, output);
        return Ok(if is_due { DUE } else { DONE });
    }
    // What is told is done.
    let changed = match now.is_empty() && locked.is_empty() {
        true => false,
        false => lock::set_plugins(loaded, now)?,
    };
    tell(&outcomes, output);
    if output == Output::Text {
        if outcomes.is_empty() {
            say!("{} names no artifact of a registry", loaded.name);
        } else if changed {
            say!("{} locks them", loaded.lock_file()?.display());
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
                let artifact = stored
                    .source
                    .parse::<ArtifactSource>()
                    .map(|source| source.at(&stored.digest).to_string());
                let digests = [stored.digest.to_string(), stored.component.to_string()];
                stored.name == *wanted
                    || stored.source == *wanted
                    || artifact.is_ok_and(|artifact| artifact == *wanted)
                    || digests.contains(wanted)
            })
            .collect();
        match found.as_slice() {
            [] => Err(unknown(wanted, &all)),
            [_, _, ..] => Err(several(wanted, &found)),
            [_] => Ok(found),
        }
    };
    // All of them are found before one is removed.
    let found: Vec<Vec<&Stored>> = options.plugins.iter().map(chosen).collect::<Result<_, _>>()?;
    let (mut removed, mut failed): (Vec<&Stored>, _) = (Vec::new(), None);
    for stored in found.into_iter().flatten() {
        if removed.contains(&stored) {
            continue;
        }
        if let Err(error) = store.remove(&stored.digest) {
            failed = Some(error);
            break;
        }
        removed.push(stored);
        if options.output == Output::Text {
            say!("removed {} {} ({})", stored.name, stored.version, stored.digest.short());
        }
    }
    if options.output == Output::Json {
        print_json(&removed);
    }
    match failed {
        Some(error) => Err(error.into()),
        None => Ok(DONE),
    }
}

/// Several artifacts have the name, of which perhaps not all are to go.
fn several(wanted: &str, found: &[&Stored]) -> Failure {
    let error =
        Error::new(Kind::Invalid, format!("remove the plugin {wanted}: {} have that name", found.len()));
    let listed =
        found.iter().map(|stored| format!("{} ({} of {})", stored.digest, stored.version, stored.source));
    let listed: Vec<String> = listed.collect();
    Failure::Usage(error.help(format!("name their digests: {}", listed.join(", "))))
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
