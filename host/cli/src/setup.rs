//! What a command works with: this process's environment, as the libraries are told of it.

use crate::{
    args::Access,
    failure::Failure,
    local, policy,
    secrets::{self, UserSecrets, variable},
};
use dray_core::policy::{Plugin, PluginSource, PolicyError, plugin_config};
use dray_engine::{
    Error, Kind, Local, Places,
    contract::{Credentials, Plugins},
    http::{Client, Plain, Proxies, RegistrySettings, Settings, TlsSettings},
};
use dray_runtime::Runtime;
use dray_session::{
    Environment, USER_AGENT,
    artifact::{Missing, Store, find_installed},
    lazy_auth,
    system::{System, SystemFiles},
};
use std::{
    collections::BTreeMap,
    env,
    path::{Path, PathBuf},
    sync::Arc,
};

/// Proxies as the environment names them; the lower-case names go first, and HTTP_PROXY in upper
/// case alone is what curl calls dangerous only in CGI programs.
fn proxies() -> Proxies {
    let named = |names: [&str; 2]| {
        names.iter().find_map(|name| env::var(name).ok().filter(|value| !value.is_empty()))
    };
    Proxies {
        http: named(["http_proxy", "HTTP_PROXY"]),
        https: named(["https_proxy", "HTTPS_PROXY"]),
        none: named(["no_proxy", "NO_PROXY"]),
    }
}

/// Where compiled plugins are kept.
pub fn cache_folder() -> Option<PathBuf> {
    let cache = env::var_os("XDG_CACHE_HOME").filter(|value| !value.is_empty()).map(PathBuf::from);
    let cache = cache.or_else(|| env::home_dir().map(|home| home.join(".cache")));
    cache.map(|cache| cache.join("dray"))
}

/// There is no folder in which plugins could be kept.
pub fn no_cache() -> Failure {
    let error = Error::new(Kind::Invalid, "find the folder of plugins: there is no home folder");
    Failure::Usage(error.help("set XDG_CACHE_HOME to a folder of your own"))
}

pub fn runtime(plugins: BTreeMap<String, Plugin>, secrets: UserSecrets) -> Arc<Runtime> {
    Runtime::new(dray_runtime::Settings { cache: cache_folder(), plugins, secrets: Arc::new(secrets) })
}

/// Requests at once, where the process may open few files.
fn few() -> Option<usize> {
    let few = local::requests_at_once();
    if let Some(few) = few {
        tracing::warn!(
            help = "`ulimit -n 1024` lets it open more",
            "this process may open few files, so only {few} requests are under way at once"
        );
    }
    few
}

/// What a session finds around this process. Relative paths of secrets are relative to `base`. `authfile` is the one file to look for
/// logins in, if the command line names it.
///
/// # Errors
/// Fails if Docker's daemon is named in a way that cannot be understood.
pub fn environment(base: &Path, authfile: Option<&Path>) -> Result<Environment, Error> {
    // It raises the limit of open files, by which the rest is reckoned.
    let few_requests = few();
    let authfile = authfile.map(Path::to_owned).or_else(|| variable("REGISTRY_AUTH_FILE"));
    let local = local::local();
    let mut environment = Environment::bare(&local.scratch);
    environment.secrets = Arc::new(UserSecrets { base: base.to_owned(), authfile });
    environment.cache = cache_folder();
    environment.local = local;
    environment.system = Some(system_files());
    environment.proxies = proxies();
    environment.few_requests = few_requests;
    environment.hosts = [(local::DAEMON.to_owned(), local::daemon()?)].into();
    Ok(environment)
}

/// The places of a command that says how each registry is reached.
pub fn with_registries(
    runtime: Arc<Runtime>,
    mut registries: BTreeMap<String, RegistrySettings>,
    default: RegistrySettings,
    files: &SystemFiles,
) -> Result<Arc<Places>, Failure> {
    let system = System::obey(files)?;
    for server in system.trust.lookasides.servers() {
        registries.insert(server.clone(), lookaside(&server, &default));
    }
    registries.insert(local::DAEMON.to_owned(), local::daemon()?);
    let few = few();
    let fewer = |settings| match few {
        Some(concurrency) => RegistrySettings { concurrency, ..settings },
        None => settings,
    };
    let client = Client::new(Settings {
        registries: registries.into_iter().map(|(host, settings)| (host, fewer(settings))).collect(),
        default: fewer(default),
        proxies: proxies(),
        system: Some(system.tls()),
        user_agent: USER_AGENT.into(),
    });
    let plugins: Arc<dyn Plugins> = runtime;
    let local = Local { trust: system.trust, registries: system.registries, ..local::local() };
    Ok(Places::new(plugins, client, working_folder()?, local))
}

/// Where this machine's files about registries and signatures are (containers-registries.conf(5),
/// containers-policy.json(5), containers-registries.d(5), containers-certs.d(5)). Those of the user go first.
pub fn system_files() -> SystemFiles {
    let home = env::home_dir();
    let config = variable("XDG_CONFIG_HOME").or_else(|| home.as_ref().map(|home| home.join(".config")));
    let user = config.map(|config| config.join("containers"));
    let etc = PathBuf::from("/etc/containers");
    let named = |variable: &str, file: &str, usual: &str| match secrets::variable(variable) {
        Some(path) => vec![path],
        None => {
            let user = user.iter().map(|folder| folder.join(file));
            user.chain([etc.join(file), PathBuf::from(usual).join(file)]).collect()
        }
    };
    let root = rustix::process::geteuid().is_root();
    let data = variable("XDG_DATA_HOME").or_else(|| home.map(|home| home.join(".local/share")));
    let lookaside = match root {
        true => Some(PathBuf::from("/var/lib")),
        false => data,
    };
    let folders = |file: &str| user.iter().map(|folder| folder.join(file)).chain([etc.join(file)]).collect();
    let mut files = SystemFiles::default();
    files.registries = named("CONTAINERS_REGISTRIES_CONF", "registries.conf", "/usr/share/containers");
    files.registries_required = secrets::variable("CONTAINERS_REGISTRIES_CONF").is_some();
    if !files.registries_required {
        let more =
            [Some(etc.join("registries.conf.d")), user.as_ref().map(|user| user.join("registries.conf.d"))];
        files.registries_more = more.into_iter().flatten().collect();
    }
    files.policy = named("CONTAINERS_POLICY_JSON", "policy.json", "/usr/share/containers");
    files.policy_required = secrets::variable("CONTAINERS_POLICY_JSON").is_some();
    files.registries_d = folders("registries.d");
    let own = user.iter().map(|folder| folder.join("certs.d"));
    files.certs_d = own.chain([etc.join("certs.d"), PathBuf::from("/etc/docker/certs.d")]).collect();
    files.lookaside = lookaside.map(|folder| folder.join("containers/sigstore"));
    files
}

/// How a web server with signatures is reached: as any other host, and without a login.
fn lookaside(server: &str, default: &RegistrySettings) -> RegistrySettings {
    let tls = match server.starts_with("http:") {
        true => TlsSettings { plain: Plain::Always, ..TlsSettings::default() },
        false => TlsSettings { plain: Plain::Never, ..default.tls.clone() },
    };
    RegistrySettings { tls, ..RegistrySettings::default() }
}

/// The folder to which the paths of a command are relative.
pub fn working_folder() -> Result<PathBuf, Failure> {
    env::current_dir().map_err(|error| Failure::usage(format!("find the working folder: {error}")))
}

/// The places of a command that has no policy.
pub async fn places(access: &Access) -> Result<Arc<Places>, Failure> {
    if let Some(path) = &access.policy {
        let mut loaded = policy::load(std::slice::from_ref(path))?;
        // Only how places are reached is wanted of it.
        loaded.policy.rules.clear();
        loaded.policy.retains.clear();
        loaded.policy.observers.clear();
        let keys: Vec<PathBuf> = loaded.policy.trusted_keys.iter().map(|key| loaded.base.join(key)).collect();
        for (name, plugin) in plugins(access, &keys)? {
            if loaded.policy.plugins.contains_key(&name) {
                let text = format!("use the plugin {name}: {} has one of that name", loaded.name);
                return Err(Failure::usage(text));
            }
            loaded.policy.plugins.insert(name, plugin);
        }
        loaded.authfile.clone_from(&access.authfile);
        return Ok(loaded.open().await?.places().clone());
    }
    let plain = if access.insecure { Plain::Fallback } else { Plain::Loopback };
    opened(access, plain, None)
}

/// The plugins of the command line. Nothing is granted to them beyond what the references name, and one of the keys must have signed them
/// if there are any.
fn plugins(access: &Access, keys: &[PathBuf]) -> Result<BTreeMap<String, Plugin>, Failure> {
    let at =
        |source: &PluginSource| Plugin { trusted_keys: keys.to_vec(), ..Plugin::from_source(source.clone()) };
    let mut plugins: BTreeMap<String, Plugin> =
        access.plugins.iter().map(|(name, source)| (name.clone(), at(source))).collect();
    if plugins.is_empty() {
        return Ok(plugins);
    }
    let store = Store::beneath(&cache_folder().unwrap_or_default());
    let found = find_installed(&mut plugins, &working_folder()?, &BTreeMap::new(), &store);
    let first = |error: PolicyError| error.0.into_iter().next();
    match found {
        Ok(missing) => match missing.first() {
            None => Ok(plugins),
            Some(Missing { name, source, .. }) => {
                let text = format!("use the plugin {name}: it is not installed on this machine");
                let error = Error::new(Kind::Invalid, text);
                Err(Failure::Usage(error.help(format!("`dray plugin install {source}` fetches it"))))
            }
        },
        Err(error) => {
            let problem = first(error);
            let text = problem.as_ref().map(|problem| problem.message.as_str()).unwrap_or_default();
            let wrong = Error::new(Kind::Invalid, text.strip_prefix("failed to ").unwrap_or(text));
            Err(Failure::Usage(match problem.and_then(|problem| problem.help) {
                Some(help) => wrong.help(help),
                None => wrong,
            }))
        }
    }
}

/// The same with the credentials of one login, instead of those that are found.
pub fn places_with(
    access: &Access,
    plain: Plain,
    login: Arc<dyn Credentials>,
) -> Result<Arc<Places>, Failure> {
    opened(access, plain, Some(login))
}

fn opened(
    access: &Access,
    plain: Plain,
    login: Option<Arc<dyn Credentials>>,
) -> Result<Arc<Places>, Failure> {
    for path in [&access.creds_file, &access.tls_ca].into_iter().flatten() {
        if !path.is_file() {
            return Err(Failure::usage(format!("read {}: there is no such file", path.display())));
        }
    }
    let runtime = runtime(
        plugins(access, &[])?,
        UserSecrets { base: working_folder()?, authfile: access.authfile.clone() },
    );
    let call = match &access.creds_file {
        Some(path) => {
            let file = format!("file:{}", path.display());
            plugin_config("static", [("credentials".to_owned(), file.into())].into_iter().collect())
        }
        None => plugin_config("docker-config", Default::default()),
    };
    let auth = login.unwrap_or_else(|| lazy_auth(runtime.clone(), call));
    let tls = TlsSettings {
        ca: access.tls_ca.iter().cloned().collect(),
        identity: None,
        verify: !access.insecure,
        plain,
        explicit: access.insecure,
    };
    with_registries(
        runtime,
        BTreeMap::new(),
        RegistrySettings { tls, auth: vec![auth], ..RegistrySettings::default() },
        &system_files(),
    )
}
