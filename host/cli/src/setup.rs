//! What a command works with: this process's environment, as the libraries are told of it.

use crate::{args::Access, failure::Failure, local, secrets::UserSecrets};
use dray_core::policy::{Plugin, plugin_config};
use dray_engine::{
    Error, Places,
    contract::{Credentials, Plugins},
    http::{Client, Plain, Proxies, RegistrySettings, Settings, TlsSettings},
};
use dray_runtime::Runtime;
use dray_session::{Environment, USER_AGENT, lazy_auth};
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

/// What a session finds around this process. Relative paths of secrets are relative to `base`.
///
/// # Errors
/// Fails if Docker's daemon is named in a way that cannot be understood.
pub fn environment(base: &Path) -> Result<Environment, Error> {
    // It raises the limit of open files, by which the rest is reckoned.
    let few_requests = few();
    let authfile = env::var_os("REGISTRY_AUTH_FILE").filter(|value| !value.is_empty()).map(PathBuf::from);
    Ok(Environment {
        secrets: Arc::new(UserSecrets { base: base.to_owned(), authfile }),
        cache: cache_folder(),
        local: local::local(),
        proxies: proxies(),
        user_agent: USER_AGENT.into(),
        few_requests,
        hosts: [(local::DAEMON.to_owned(), local::daemon()?)].into(),
    })
}

/// The places of a command that says how each registry is reached.
pub fn with_registries(
    runtime: Arc<Runtime>,
    mut registries: BTreeMap<String, RegistrySettings>,
    default: RegistrySettings,
) -> Result<Arc<Places>, Failure> {
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
        user_agent: USER_AGENT.into(),
    });
    let plugins: Arc<dyn Plugins> = runtime;
    Ok(Places::new(plugins, client, working_folder()?, local::local()))
}

/// The folder to which the paths of a command are relative.
pub fn working_folder() -> Result<PathBuf, Failure> {
    env::current_dir().map_err(|error| Failure::usage(format!("find the working folder: {error}")))
}

/// The places of a command that has no policy.
pub fn places(access: &Access) -> Result<Arc<Places>, Failure> {
    let plain = if access.insecure { Plain::Fallback } else { Plain::Loopback };
    opened(access, plain, None)
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
    let runtime =
        runtime(BTreeMap::new(), UserSecrets { base: working_folder()?, authfile: access.authfile.clone() });
    let call = match &access.creds_file {
        Some(path) => {
            let file = format!("file:{}", path.display());
            plugin_config("static", [("credentials".to_owned(), file.into())].into_iter().collect())
        }
        None => plugin_config("docker-config", Default::default()),
    };
    let auth = login.unwrap_or_else(|| lazy_auth(&runtime, call));
    let tls = TlsSettings { ca: access.tls_ca.clone(), identity: None, verify: !access.insecure, plain };
    with_registries(
        runtime,
        BTreeMap::new(),
        RegistrySettings { tls, auth: vec![auth], ..RegistrySettings::default() },
    )
}
