//! The plugins of a run. They are built in or named by the policy, and each is loaded when it is needed.

use crate::{
    Info, Role, Secrets,
    auth::WasmAuth,
    builtin::{BUILTINS, Builtin},
    dialect::{KINDS, WasmDialect, is_known},
    filter::WasmFilter,
    load::{self, Budgets, Configuration, Loaded, Terms},
    mapper::WasmMapper,
    observer::WasmObserver,
    schema,
    trace::Tracer,
    transport::WasmTransport,
    verifier::WasmVerifier,
    wishes::narrowed,
};
use dray_core::policy::{Grant, Limits, Plugin, PluginSource};
use dray_engine::{
    Error, Kind, Result,
    contract::{Credentials, Dialect, Filter, KnownBy, Mapper, Observer, Plugins, Transport, Verifier},
    http::Client,
    unknown,
};
use futures_core::future::BoxFuture;
use std::{
    borrow::Cow,
    collections::{BTreeMap, HashMap},
    path::PathBuf,
    sync::{Arc, OnceLock},
};
use tokio::sync::{Mutex, OnceCell};
use wasmtime::Engine;

/// Schemes of other tools that dray does not serve, and what to use instead.
const ABANDONED: [(&str, &str); 3] = [
    ("sif", "build an OCI image of it with `apptainer build --sandbox` and `tar`, then use tarball:"),
    (
        "ostree",
        "export the commit with `ostree export`, then use tarball:, or `rpm-ostree compose container-encapsulate`",
    ),
    ("atomic", "it is the registry of OpenShift 3: use docker:// with its registry's address"),
];

/// What the caller tells the runtime.
pub struct Settings {
    /// The folder in which compiled components are cached. `None` means that they are not cached.
    pub cache: Option<PathBuf>,
    /// The plugins of the policy by name. Their sources are absolute, or relative to the working folder.
    pub plugins: BTreeMap<String, Plugin>,
    /// Where secrets come from.
    pub secrets: Arc<dyn Secrets>,
}

/// What a plugin is known by: its name, and its kind if it is built in.
type Key = (String, Option<Role>);

/// Finds and loads plugins.
pub struct Runtime {
    settings: Settings,
    engine: OnceCell<Engine>,
    budgets: Arc<Budgets>,
    loaded: Mutex<HashMap<Key, Arc<Loaded>>>,
    outside: Arc<OnceLock<Client>>,
    tracer: OnceLock<Arc<dyn Tracer>>,
}

/// A plugin that can be used, for people.
#[derive(Clone, Debug)]
pub struct Listed {
    /// The name that policies use.
    pub name: String,
    /// The kind of the plugin.
    pub role: Role,
    /// What the plugin says about itself.
    pub info: Info,
    /// `built in`, or the path of its file.
    pub origin: String,
    /// The digest of its component.
    pub digest: String,
    /// What it gets of the operator.
    pub grant: Grant,
    /// How much memory and time it may use.
    pub limits: Limits,
}

/// The file of a plugin's component. Fails if it must be installed or signed first.
fn component_file(name: &str, plugin: &Plugin) -> Result<PathBuf> {
    match (&plugin.installed, &plugin.source.value) {
        (Some(installed), _) => Ok(installed.path.clone()),
        (None, PluginSource::File(path)) if plugin.trusted_keys.is_empty() => Ok(path.clone()),
        (None, source) => Err(Error::new(
            Kind::Invalid,
            format!("load the plugin {name} from {source}: it is not installed"),
        )
        .help("`dray plugin install` fetches the plugins of a policy and checks their signatures")),
    }
}

/// Checks what the operator configured for a plugin by its schema. Plugins that get their table with each call have no other.
async fn configured(plugin: &Arc<Loaded>, settings: &Configuration) -> Result<()> {
    let Configuration { usual, at } = settings;
    let name = &plugin.name;
    if !matches!(plugin.role, Role::Transport | Role::Dialect) {
        let key = match (usual.is_empty(), at.is_empty()) {
            (true, true) => return Ok(()),
            (false, _) => "config",
            (true, false) => "at",
        };
        let text = format!("configure the plugin {name}: it takes its configuration where it is used");
        let help =
            format!("write the keys beside `{name}` where it is used, and leave [plugin.{name}.{key}] out");
        return Err(Error::new(Kind::Invalid, text).help(help));
    }
    let schema = &plugin.info().await?.schema;
    // Keys that all places need may stand in `at` alone.
    if at.is_empty() || !usual.is_empty() {
        schema::check(name, schema, &usual.clone().into())?;
    }
    for (glob, table) in at {
        let mut whole = usual.clone();
        whole.extend(table.clone());
        schema::check(name, schema, &whole.into())
            .map_err(|error| error.context(format!("configure the plugin {name} at {glob}")))?;
    }
    Ok(())
}

impl Runtime {
    /// A runtime that has not loaded any plugin yet.
    pub fn new(settings: Settings) -> Arc<Self> {
        Arc::new(Runtime {
            settings,
            engine: OnceCell::new(),
            budgets: Arc::default(),
            loaded: Mutex::default(),
            outside: Arc::default(),
            tracer: OnceLock::new(),
        })
    }

    /// Tells somebody of the calls of plugins that are loaded from now on. Only the first one counts.
    pub fn trace(&self, tracer: Arc<dyn Tracer>) {
        let _ = self.tracer.set(tracer);
    }

    /// Lends auth providers a client. They ask hosts with it that the operator named, and it must have no credentials. Without
    /// one, they can ask nobody. Only the first one counts.
    pub fn lend(&self, client: Client) {
        let _ = self.outside.set(client);
    }

    /// The plugin of the operator with this name, whatever its kind. `None` means that there is none.
    async fn own(&self, name: &str) -> Result<Option<Arc<Loaded>>> {
        let Some(plugin) = self.settings.plugins.get(name).cloned() else { return Ok(None) };
        let read = {
            let (name, path) = (name.to_owned(), component_file(name, &plugin)?);
            let expected = plugin.installed.as_ref().map(|installed| installed.component.clone());
            move || {
                let wasm = std::fs::read(&path).map_err(|error| {
                    Error::new(
                        Kind::Invalid,
                        format!("load the plugin {name} from {}: {error}", path.display()),
                    )
                    .help("build it with `dray plugin build`, or correct `source`")
                })?;
                if let Some(expected) = expected.filter(|expected| expected.alike(&wasm) != *expected) {
                    let at = path.display();
                    let text = format!("load the plugin {name} from {at}: it is not {expected} any more");
                    return Err(
                        Error::new(Kind::Corrupt, text).help("`dray plugin install` fetches it again")
                    );
                }
                Ok(Cow::Owned(wasm))
            }
        };
        let settings = Configuration { usual: plugin.config, at: plugin.at };
        let terms = Terms { builtin: false, limits: plugin.limits, settings: settings.clone(), tracer: None };
        let loaded = self.load((name.to_owned(), None), terms, read).await?;
        loaded.give(narrowed(&plugin.grant, &loaded.info().await?.wishes));
        let built_in = |scheme: &&String| BUILTINS.iter().any(|one| one.schemes.contains(&scheme.as_str()));
        if loaded.role == Role::Transport
            && let Some(scheme) = loaded.info().await?.schemes.iter().find(built_in)
        {
            let text = format!("load the plugin {name}: it serves {scheme}, which is built in");
            return Err(Error::new(Kind::Invalid, text).help("give it a scheme of its own"));
        }
        configured(&loaded, &settings).await?;
        Ok(Some(loaded))
    }

    /// The plugin of this kind with this name that is built in.
    pub(crate) async fn builtin(&self, builtin: &'static Builtin) -> Result<Arc<Loaded>> {
        let terms = Terms { builtin: true, ..Terms::default() };
        let read = move || Ok(Cow::Borrowed(builtin.component));
        self.load((builtin.name.to_owned(), Some(builtin.role)), terms, read).await
    }

    async fn load(
        &self,
        key: Key,
        terms: Terms,
        read: impl FnOnce() -> Result<Cow<'static, [u8]>> + Send + 'static,
    ) -> Result<Arc<Loaded>> {
        // The lock is held while the plugin is compiled, so that two callers do not compile it twice.
        let mut loaded = self.loaded.lock().await;
        if let Some(plugin) = loaded.get(&key) {
            return Ok(plugin.clone());
        }
        let engine = self.engine.get_or_try_init(async || load::engine()).await?.clone();
        let tracer = self.tracer.get().filter(|tracer| tracer.traces(&key.0)).cloned();
        let terms = Terms { tracer, ..terms };
        let (cache, budgets, name) = (self.settings.cache.clone(), self.budgets.clone(), key.0.clone());
        let task = move || Loaded::new(&engine, &name, &read()?, terms, &budgets, cache.as_deref());
        let compiled = tokio::task::spawn_blocking(task).await;
        let plugin =
            Arc::new(compiled.map_err(|error| {
                Error::new(Kind::Plugin, format!("load the plugin {}: {error}", key.0))
            })??);
        loaded.insert(key, plugin.clone());
        Ok(plugin)
    }

    /// The plugin of a role with this name.
    async fn named(&self, what: &str, role: Role, name: &str) -> Result<Arc<Loaded>> {
        let own = self.own(name).await?;
        // A plugin of the operator's of another kind does not stand in the way of what is built in.
        match (own, Builtin::named(name, role)) {
            (Some(own), _) if own.role == role => Ok(own),
            (_, Some(builtin)) => self.builtin(builtin).await,
            (Some(_), None) => {
                Err(Error::new(Kind::Invalid, format!("use the plugin {name}: it is no {what}")))
            }
            (None, None) => {
                let known =
                    BUILTINS.iter().filter(|builtin| builtin.role == role).map(|builtin| builtin.name);
                let known: Vec<&str> =
                    known.chain(self.settings.plugins.keys().map(String::as_str)).collect();
                Err(unknown(what, name, &known))
            }
        }
    }

    /// The plugin of a role with this name, which takes this configuration.
    async fn configured(
        &self,
        what: &str,
        role: Role,
        name: &str,
        config: &serde_json::Value,
    ) -> Result<Arc<Loaded>> {
        let plugin = self.named(what, role, name).await?;
        schema::check(name, &plugin.info().await?.schema, config)?;
        Ok(plugin)
    }

    /// All plugins that can be used.
    ///
    /// # Errors
    /// Fails if one of them cannot be loaded.
    pub async fn list(&self) -> Result<Vec<Listed>> {
        let mut listed = Vec::new();
        for builtin in &BUILTINS {
            listed.push(self.listed(&self.builtin(builtin).await?).await?);
        }
        for name in self.settings.plugins.keys() {
            if let Some(own) = self.own(name).await? {
                listed.push(self.listed(&own).await?);
            }
        }
        Ok(listed)
    }

    /// The plugins with this name: those that are built in, each of another kind, or that of the operator.
    ///
    /// # Errors
    /// Fails if there is no such plugin, or if one cannot be loaded.
    pub async fn inspect(&self, name: &str) -> Result<Vec<Listed>> {
        if let Some(own) = self.own(name).await? {
            return Ok(vec![self.listed(&own).await?]);
        }
        let mut listed = Vec::new();
        for builtin in BUILTINS.iter().filter(|builtin| builtin.name == name) {
            listed.push(self.listed(&self.builtin(builtin).await?).await?);
        }
        if listed.is_empty() {
            let known: Vec<&str> = BUILTINS
                .iter()
                .map(|builtin| builtin.name)
                .chain(self.settings.plugins.keys().map(String::as_str))
                .collect();
            return Err(unknown("plugin", name, &known));
        }
        Ok(listed)
    }

    async fn listed(&self, plugin: &Arc<Loaded>) -> Result<Listed> {
        let origin = match self.settings.plugins.get(&plugin.name).filter(|_| !plugin.builtin) {
            Some(own) => own.source.value.to_string(),
            None => "built in".into(),
        };
        Ok(Listed {
            name: plugin.name.clone(),
            role: plugin.role,
            info: plugin.info().await?.clone(),
            origin,
            digest: plugin.digest.to_string(),
            grant: plugin.grant().clone(),
            limits: plugin.limits,
        })
    }

    /// The operator's plugins go first, so that one of them can replace what is built in.
    async fn dialect_of(&self, by: KnownBy<'_>) -> Result<Option<Arc<dyn Dialect>>> {
        if let KnownBy::Kind(name) = by {
            let plugin = self.named("dialect", Role::Dialect, name).await?;
            return Ok(Some(Arc::new(WasmDialect::new(plugin).await?)));
        }
        for name in self.settings.plugins.keys() {
            let Some(plugin) = self.own(name).await? else { continue };
            if plugin.role == Role::Dialect {
                let dialect = WasmDialect::new(plugin).await?;
                if dialect.is(by) {
                    return Ok(Some(Arc::new(dialect)));
                }
            }
        }
        let known = KINDS.iter().find(|(name, hosts, services)| is_known(by, name, hosts, services));
        match known.and_then(|(name, ..)| Builtin::named(name, Role::Dialect)) {
            Some(builtin) => Ok(Some(Arc::new(WasmDialect::new(self.builtin(builtin).await?).await?))),
            None => Ok(None),
        }
    }

    async fn transport_of(&self, scheme: &str) -> Result<Arc<dyn Transport>> {
        if let Some(builtin) = BUILTINS.iter().find(|builtin| builtin.schemes.contains(&scheme)) {
            return Ok(Arc::new(WasmTransport::new(scheme, self.builtin(builtin).await?)?));
        }
        let mut found: Option<Arc<Loaded>> = None;
        for name in self.settings.plugins.keys() {
            let Some(plugin) = self.own(name).await? else { continue };
            if plugin.role != Role::Transport
                || !plugin.info().await?.schemes.iter().any(|served| served == scheme)
            {
                continue;
            }
            if let Some(other) = &found {
                let text = format!("use {scheme}: the plugins {} and {name} both serve it", other.name);
                return Err(Error::new(Kind::Invalid, text).help("take one of them out of the policy"));
            }
            found = Some(plugin);
        }
        if let Some(plugin) = found {
            return Ok(Arc::new(WasmTransport::new(scheme, plugin)?));
        }
        if let Some((_, instead)) = ABANDONED.iter().find(|(abandoned, _)| *abandoned == scheme) {
            let text = format!("use {scheme}: dray does not serve it");
            return Err(Error::new(Kind::Unsupported, text).help(*instead));
        }
        let known: Vec<&str> = BUILTINS.iter().flat_map(|builtin| builtin.schemes).copied().collect();
        let error = unknown("transport", scheme, &known);
        if matches!(scheme, "http" | "https") {
            return Err(
                error.help("write docker://HOST/REPOSITORY:TAG; tls = \"off\" or --insecure is plain HTTP")
            );
        }
        // `nginx:1.27` is probably an image name as Docker writes it.
        Err(
            if known
                .iter()
                .any(|known| error.help.as_deref().unwrap_or_default().contains(&format!("`{known}`")))
            {
                error
            } else {
                error.help(format!(
                    "there are {}; an image of a registry is docker://{scheme}:…",
                    known.join(", ")
                ))
            },
        )
    }
}

impl Plugins for Runtime {
    fn transport<'a>(&'a self, scheme: &'a str) -> BoxFuture<'a, Result<Arc<dyn Transport>>> {
        Box::pin(self.transport_of(scheme))
    }

    fn filter<'a>(
        &'a self,
        name: &'a str,
        config: &'a serde_json::Value,
    ) -> BoxFuture<'a, Result<Arc<dyn Filter>>> {
        Box::pin(async move {
            let plugin = self.configured("filter", Role::Filter, name, config).await?;
            Ok(Arc::new(WasmFilter::new(plugin)?) as Arc<dyn Filter>)
        })
    }

    fn verifier<'a>(
        &'a self,
        name: &'a str,
        config: &'a serde_json::Value,
    ) -> BoxFuture<'a, Result<Arc<dyn Verifier>>> {
        Box::pin(async move {
            let plugin = self.configured("verifier", Role::Verifier, name, config).await?;
            let secrets = self.settings.secrets.clone();
            Ok(Arc::new(WasmVerifier::new(plugin, config, secrets)?) as Arc<dyn Verifier>)
        })
    }

    fn mapper<'a>(
        &'a self,
        name: &'a str,
        config: &'a serde_json::Value,
    ) -> BoxFuture<'a, Result<Arc<dyn Mapper>>> {
        Box::pin(async move {
            let plugin = self.configured("mapper", Role::Mapper, name, config).await?;
            Ok(Arc::new(WasmMapper::new(plugin, config)?) as Arc<dyn Mapper>)
        })
    }

    fn observer<'a>(
        &'a self,
        name: &'a str,
        config: &'a serde_json::Value,
    ) -> BoxFuture<'a, Result<Arc<dyn Observer>>> {
        Box::pin(async move {
            let plugin = self.configured("observer", Role::Observer, name, config).await?;
            let (secrets, outside) = (self.settings.secrets.clone(), self.outside.clone());
            Ok(Arc::new(WasmObserver::new(plugin, config, secrets, outside)?) as Arc<dyn Observer>)
        })
    }

    fn dialect<'a>(&'a self, by: KnownBy<'a>) -> BoxFuture<'a, Result<Option<Arc<dyn Dialect>>>> {
        Box::pin(self.dialect_of(by))
    }

    fn auth<'a>(
        &'a self,
        name: &'a str,
        config: &'a serde_json::Value,
    ) -> BoxFuture<'a, Result<Arc<dyn Credentials>>> {
        Box::pin(async move {
            let plugin = self.configured("auth provider", Role::Auth, name, config).await?;
            Ok(Arc::new(WasmAuth::new(plugin, config, self.settings.secrets.clone(), self.outside.clone())?)
                as Arc<dyn Credentials>)
        })
    }
}
