//! From the plugins of a policy to the components that are used: what is pinned, what is here already, and what has to be fetched.

use super::{
    store::{Store, Stored},
    transfer::{Pulled, pull},
    trusted::{check_signatures, signature_file},
};
use crate::{Environment, OpenError, Session};
use dray_core::{
    Digest,
    policy::{
        ArtifactSource, Installed, LockedPlugin, Plugin, PluginSource, Policy, PolicyError, Problem, Registry,
    },
};
use dray_engine::{Error, Event, Kind, Places, Result, Watcher};
use dray_runtime::Runtime;
use std::{
    collections::BTreeMap,
    fs,
    path::{Path, PathBuf},
    sync::Arc,
    time::{SystemTime, UNIX_EPOCH},
};

/// An artifact that a policy names and that this machine does not hold.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Missing {
    /// The plugin's name in the policy.
    pub name: String,
    /// The artifact.
    pub source: ArtifactSource,
    /// The digest that is used.
    pub digest: Digest,
}

/// Finds the components of a policy's plugins: files, and artifacts that the store holds. Checks the signatures where keys are
/// named. Returns the artifacts that have to be fetched. Paths of files are absolute then.
///
/// # Errors
/// Every artifact of which neither the policy nor the lock says the digest, and every plugin that is not signed as it must be.
pub fn find_installed(
    plugins: &mut BTreeMap<String, Plugin>,
    base: &Path,
    locked: &BTreeMap<String, LockedPlugin>,
    store: &Store,
) -> Result<Vec<Missing>, PolicyError> {
    let (mut missing, mut problems) = (Vec::new(), Vec::new());
    for (name, plugin) in plugins {
        let keys: Vec<PathBuf> = plugin.trusted_keys.iter().map(|key| base.join(key)).collect();
        let found = match &plugin.source.value {
            PluginSource::File(path) => {
                let path = base.join(path);
                let found =
                    if keys.is_empty() { Ok(None) } else { signed_file(name, &path, &keys).map(Some) };
                plugin.source.value = PluginSource::File(path);
                found
            }
            PluginSource::Artifact(source) => pinned(name, source, locked.get(name)).and_then(|digest| {
                let Some(stored) = store.get(&digest)? else {
                    missing.push(Missing { name: name.clone(), source: source.clone(), digest });
                    return Ok(None);
                };
                signed_artifact(name, &stored, store, &keys).map(Some)
            }),
        };
        match found {
            Ok(found) => plugin.installed = found,
            Err(error) => problems.push(Problem {
                message: format!("failed to {error}"),
                span: Some(plugin.source.span.clone()),
                help: error.help,
            }),
        }
    }
    if problems.is_empty() { Ok(missing) } else { Err(PolicyError(problems)) }
}

/// The digest of an artifact that a policy or its lock names.
fn pinned(name: &str, source: &ArtifactSource, locked: Option<&LockedPlugin>) -> Result<Digest> {
    if let Some(digest) = &source.digest {
        return Ok(digest.clone());
    }
    let why = match locked {
        Some(locked) if locked.source == source.to_string() => return Ok(locked.digest.clone()),
        Some(locked) => format!("the lock has {} for it", locked.source),
        None => "the lock does not have it".to_owned(),
    };
    let text = format!("use the plugin {name}: {why}, and a tag may name something else tomorrow");
    Err(Error::new(Kind::Invalid, text).help(
        "`dray plugin install` fetches the plugins of a policy and locks their digests; or write …@sha256:…",
    ))
}

/// A component of the store, by the digest that its manifest gives, which is what was signed.
fn signed_artifact(name: &str, stored: &Stored, store: &Store, keys: &[PathBuf]) -> Result<Installed> {
    let shown = format!("the plugin {name} ({})", stored.digest.short());
    let (manifest, bundles) = store.signed(&stored.digest)?;
    let manifest =
        dray_core::Manifest::parse(dray_core::media_type::OCI_MANIFEST, manifest, Some(&stored.digest))
            .map_err(|error| Error::new(Kind::Corrupt, format!("read {shown}: {error}")))?;
    let layer = super::format::component_of(&manifest)?;
    if !keys.is_empty() {
        let by = check_signatures(&shown, &manifest.body, bundles, keys)?;
        tracing::debug!("{shown} is signed by {by}");
    }
    Ok(Installed { path: store.component(&stored.digest), component: layer.digest })
}

/// A component file with its signature beside it.
fn signed_file(name: &str, path: &Path, keys: &[PathBuf]) -> Result<Installed> {
    let shown = format!("the plugin {name} ({})", path.display());
    let read = |path: &Path| {
        fs::read(path).map_err(|error| Error::new(Kind::Invalid, format!("read {}: {error}", path.display())))
    };
    let component = read(path)?;
    let signature = signature_file(path);
    let bundles = if signature.is_file() { vec![read(&signature)?] } else { Vec::new() };
    let by = check_signatures(&shown, &component, bundles, keys)?;
    tracing::debug!("{shown} is signed by {by}");
    Ok(Installed { path: path.to_owned(), component: Digest::of(&component) })
}

/// What of a policy says how registries are reached, for fetching its plugins: neither rules nor plugins. A registry whose login is a
/// plugin's own is asked with the logins of docker and podman instead, because that plugin may be the one that is fetched; all
/// else that the policy says of it holds.
pub fn bootstrap(policy: &Policy) -> Policy {
    let is_own = |name: &str| policy.plugins.contains_key(name);
    let bare = |registry: &Registry| {
        let mut registry = registry.clone();
        if registry.auth.iter().flatten().any(|call| is_own(&call.plugin.value)) {
            registry.auth = None;
        }
        registry.kind = registry.kind.filter(|kind| !is_own(&kind.value));
        registry
    };
    Policy {
        ignores_system: policy.ignores_system,
        default_registry: bare(&policy.default_registry),
        registries: policy.registries.iter().map(|(name, registry)| (name.clone(), bare(registry))).collect(),
        ..Policy::default()
    }
}

/// Makes the plugins of a policy ready: finds their components, and if `fetch` says so, fetches the artifacts that this machine does not
/// hold. Returns those that are missing still.
///
/// # Errors
/// As [`find_installed`], and if an artifact cannot be fetched.
pub async fn ready(
    policy: &mut Policy,
    base: &Path,
    locked: &BTreeMap<String, LockedPlugin>,
    environment: &Environment,
    fetch: bool,
    watcher: Arc<dyn Watcher>,
) -> Result<Vec<Missing>, OpenError> {
    let artifact = |plugin: &Plugin| matches!(plugin.source.value, PluginSource::Artifact(_));
    let cache = match &environment.cache {
        Some(cache) => cache.clone(),
        None if policy.plugins.values().any(artifact) => {
            let error = Error::new(Kind::Invalid, "find the folder of plugins: there is no folder of caches");
            return Err(error.help("set XDG_CACHE_HOME to a folder of your own").into());
        }
        None => PathBuf::new(),
    };
    let store = Store::beneath(&cache);
    let missing = find_installed(&mut policy.plugins, base, locked, &store)?;
    if missing.is_empty() || !fetch {
        return Ok(missing);
    }
    let session = Session::open(bootstrap(policy), base, environment.clone()).await?;
    for Missing { name, source, digest } in missing {
        tracing::info!("fetching the plugin {name} from {source}");
        let keys: Vec<PathBuf> =
            policy.plugins[&name].trusted_keys.iter().map(|key| base.join(key)).collect();
        let from = (&source, Some(&digest));
        install(session.places(), from, &keys, (&store, &cache), watcher.clone()).await?;
    }
    Ok(find_installed(&mut policy.plugins, base, locked, &store)?)
}

/// Nobody watches.
pub struct Silent;

impl Watcher for Silent {
    fn event(&self, _: Event<'_>) {}
}

/// Fetches an artifact, checks its signature where keys are named, and compiles it, so that later runs only load it. `digest` is
/// the one that it must have; `None` means that the source alone says it.
///
/// # Errors
/// Fails if it cannot be fetched, is another one, is not signed as it must be, or is no plugin that this dray runs.
pub async fn install(
    places: &Arc<Places>,
    (source, digest): (&ArtifactSource, Option<&Digest>),
    keys: &[PathBuf],
    (store, cache): (&Store, &Path),
    watcher: Arc<dyn Watcher>,
) -> Result<Stored> {
    let by_digest;
    let from = match digest {
        Some(digest) => {
            by_digest = source.at(digest);
            &by_digest
        }
        None => source,
    };
    let pulled = pull(places, from, !keys.is_empty(), watcher).await?;
    if let Some(expected) = digest.filter(|digest| **digest != pulled.digest) {
        let text = format!("install {source}: it is {}, and not {expected}", pulled.digest);
        return Err(Error::new(Kind::Corrupt, text));
    }
    if !keys.is_empty() {
        check_signatures(&source.to_string(), &pulled.manifest, pulled.bundles.clone(), keys)?;
    }
    let pulled = store.with_kept(pulled)?;
    let folder = store.prepare(&pulled)?;
    let about = described(&pulled, &source.to_string(), Store::prepared(&folder), cache).await?;
    store.put(folder, &about)?;
    Ok(about)
}

/// What a component says of itself. It is compiled for that, and the cache keeps it.
async fn described(pulled: &Pulled, source: &str, path: PathBuf, cache: &Path) -> Result<Stored> {
    let name = "new";
    let settings = dray_runtime::Settings {
        cache: Some(cache.to_owned()),
        plugins: [(name.to_owned(), Plugin::from_source(PluginSource::File(path)))].into(),
        secrets: Arc::new(crate::NoSecrets),
    };
    let listed = Runtime::new(settings).inspect(name).await;
    let listed = listed.map_err(|error| {
        let text = format!("install {source}: failed to {}", error.text);
        let wrong = Error::new(error.kind, text);
        match error.help {
            Some(help) => wrong.help(help),
            None => wrong,
        }
    })?;
    let listed = listed.into_iter().next().ok_or_else(|| {
        Error::new(Kind::Internal, format!("install {source}: the runtime does not know it"))
    })?;
    let now = SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| since.as_secs() as i64);
    Ok(Stored {
        digest: pulled.digest.clone(),
        component: Digest::of(&pulled.component),
        source: source.to_owned(),
        name: listed.info.name,
        version: listed.info.version,
        summary: listed.info.summary,
        kind: listed.role.name().to_owned(),
        size: pulled.component.len() as u64,
        installed: now,
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use dray_core::policy::Tls;

    #[test]
    fn registries_of_plugins_keep_all_but_the_logins_of_plugins() {
        let policy = dray_core::policy::parse(
            "version = 1\n[defaults.registry]\ntls = \"off\"\nauth = { username = \"u\", password = \"env:P\" }\n\
             [registry.\"a.example\"]\ntls = { verify = true }\nauth = { provider = \"mine\" }\n\
             [registry.\"b.example\"]\nkind = \"harbor\"\n\
             [plugin.mine]\nsource = \"oci://a.example/mine:1\"\n",
        );
        let bare = bootstrap(&policy.unwrap());
        let (own, other) = (&bare.registries["a.example"], &bare.registries["b.example"]);
        // Neither the plugin's login nor that of other registries, and TLS as the policy says it.
        assert!(own.auth.is_none() && matches!(own.tls, Tls::On { .. }));
        assert!(other.auth.is_some() && other.kind.is_some() && other.tls == Tls::Off);
        assert!(bare.plugins.is_empty() && bare.rules.is_empty());
    }
}
