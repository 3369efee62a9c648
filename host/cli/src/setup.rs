//! What a command works with: plugins, places, the client, registries that dray serves itself.

use crate::{args::Access, failure::Failure, local, secrets::UserSecrets};
use dray_core::policy::{Call, Plugin, Policy, PolicyError, Problem, Registry, Spanned, Tls, plugin_config};
use dray_engine::{
    Error, Places, Secret,
    contract::{Credential, Credentials, Plugins},
    http::{Client, Origin, Plain, Proxies, RegistrySettings, Settings, TlsSettings},
    in_call,
};
use dray_runtime::Runtime;
use std::{
    collections::BTreeMap,
    env,
    path::{Path, PathBuf},
    sync::{Arc, OnceLock},
};
use tokio::sync::OnceCell;

/// What one command works with.
pub struct Setup {
    pub places: Arc<Places>,
}

/// The default provider, loaded when a registry asks for credentials.
struct Lazy {
    runtime: Arc<Runtime>,
    call: Call,
    loaded: OnceCell<Arc<dyn Credentials>>,
}

impl Credentials for Lazy {
    fn lookup<'a>(
        &'a self,
        registry: &'a str,
        repository: &'a str,
    ) -> futures_core::future::BoxFuture<'a, dray_engine::Result<Option<Credential>>> {
        Box::pin(async move {
            let load = || self.runtime.auth(&self.call.plugin.value, &self.call.config);
            let provider = self.loaded.get_or_try_init(load).await?;
            provider.lookup(registry, repository).await
        })
    }
}

fn lazy(runtime: &Arc<Runtime>, call: Call) -> Arc<dyn Credentials> {
    Arc::new(Lazy { runtime: runtime.clone(), call, loaded: OnceCell::new() })
}

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

/// Requests at once, where the process may open few files; told once.
fn few() -> Option<usize> {
    static FEW: OnceLock<Option<usize>> = OnceLock::new();
    *FEW.get_or_init(|| {
        let few = local::requests_at_once();
        if let Some(few) = few {
            tracing::warn!(
                help = "`ulimit -n 1024` lets it open more",
                "this process may open few files, so only {few} requests are under way at once"
            );
        }
        few
    })
}

/// How registries are talked to of which nothing else is said.
fn usual() -> RegistrySettings {
    let usual = RegistrySettings::default();
    RegistrySettings { concurrency: few().unwrap_or(usual.concurrency), ..usual }
}

fn user_agent() -> String {
    format!("dray/{}", env!("CARGO_PKG_VERSION"))
}

impl Setup {
    /// For a command without a policy.
    pub fn without_policy(access: &Access) -> Result<Self, Failure> {
        let base = env::current_dir()
            .map_err(|error| Failure::usage(format!("find the working folder: {error}")))?;
        for path in [&access.creds_file, &access.tls_ca].into_iter().flatten() {
            if !path.is_file() {
                return Err(Failure::usage(format!("read {}: there is no such file", path.display())));
            }
        }
        let runtime =
            runtime(BTreeMap::new(), UserSecrets { base: base.clone(), authfile: access.authfile.clone() });
        let call = match &access.creds_file {
            Some(path) => plugin_config(
                "static",
                serde_json::json!({ "credentials": format!("file:{}", path.display()) }),
            ),
            None => plugin_config("docker-config", serde_json::json!({})),
        };
        let tls = TlsSettings {
            ca: access.tls_ca.clone(),
            identity: None,
            verify: !access.insecure,
            plain: if access.insecure { Plain::Fallback } else { Plain::Loopback },
        };
        let default = RegistrySettings { tls, auth: vec![lazy(&runtime, call)], ..usual() };
        let client = Client::new(Settings {
            registries: [(local::DAEMON.to_owned(), local::daemon()?)].into(),
            default,
            proxies: proxies(),
            user_agent: user_agent(),
        });
        let plugins: Arc<dyn Plugins> = runtime.clone();
        Ok(Setup { places: Places::new(plugins, client, base, local::local()) })
    }

    /// For a policy whose relative paths are relative to `base`. `serve`: registries with a
    /// `storage` are served.
    pub async fn for_policy(policy: &mut Policy, base: &Path, serve: bool) -> Result<Self, SetupError> {
        for plugin in policy.plugins.values_mut() {
            plugin.source =
                Spanned { value: base.join(&plugin.source.value), span: plugin.source.span.clone() };
        }
        let authfile = env::var_os("REGISTRY_AUTH_FILE").filter(|value| !value.is_empty()).map(PathBuf::from);
        let runtime = runtime(policy.plugins.clone(), UserSecrets { base: base.to_owned(), authfile });
        let docker_config = || lazy(&runtime, plugin_config("docker-config", serde_json::json!({})));
        let mut problems = Vec::new();
        let mut settings = Settings {
            default: RegistrySettings { auth: vec![docker_config()], ..usual() },
            proxies: proxies(),
            user_agent: user_agent(),
            ..Settings::default()
        };
        settings.registries.insert(local::DAEMON.into(), local::daemon()?);
        for (name, registry) in &policy.registries {
            let auth = match &registry.auth {
                Some(calls) => auth(calls, &runtime, &mut problems).await,
                None => vec![docker_config()],
            };
            let origin = match &registry.storage {
                Some(storage) => Some(serve_storage(&base.join(storage), serve).await?),
                None => None,
            };
            settings.registries.insert(name.clone(), registry_settings(registry, base, auth, origin));
        }
        if !problems.is_empty() {
            return Err(SetupError::Policy(PolicyError(problems)));
        }
        let plugins: Arc<dyn Plugins> = runtime.clone();
        Ok(Setup { places: Places::new(plugins, Client::new(settings), base, local::local()) })
    }
}

/// Why a policy could not be set up.
pub enum SetupError {
    Policy(PolicyError),
    Failed(Error),
}

impl From<Error> for SetupError {
    fn from(error: Error) -> Self {
        SetupError::Failed(error)
    }
}

async fn auth(
    calls: &[Call],
    runtime: &Arc<Runtime>,
    problems: &mut Vec<Problem>,
) -> Vec<Arc<dyn Credentials>> {
    let mut providers = Vec::new();
    for call in calls {
        match runtime.auth(&call.plugin.value, &call.config).await {
            Ok(provider) => providers.push(provider),
            Err(error) => problems.push(in_call(error, call)),
        }
    }
    providers
}

fn registry_settings(
    registry: &Registry,
    base: &Path,
    auth: Vec<Arc<dyn Credentials>>,
    origin: Option<Origin>,
) -> RegistrySettings {
    let path = |path: &PathBuf| base.join(path);
    let tls = match &registry.tls {
        Tls::Off => TlsSettings { plain: Plain::Always, ..TlsSettings::default() },
        Tls::On { ca, identity, verify, explicit } => TlsSettings {
            ca: ca.as_ref().map(path),
            identity: identity.as_ref().map(|(cert, key)| (path(cert), path(key))),
            verify: *verify,
            plain: if *explicit { Plain::Never } else { Plain::Loopback },
        },
    };
    let defaults = usual();
    RegistrySettings {
        concurrency: registry.concurrency.map_or(defaults.concurrency, |own| match few() {
            Some(few) => own.min(few),
            None => own,
        }),
        bandwidth: registry.bandwidth,
        assume_unchanged: registry.assume_unchanged,
        tls,
        auth,
        auth_named: registry.auth.is_some(),
        origin,
        daemon: None,
        proxy: registry.proxy.clone(),
        least_rate: registry.least_rate.unwrap_or(defaults.least_rate),
    }
}

/// Serves a folder to this process alone: whoever else connects lacks the token.
async fn serve_storage(root: &Path, serve: bool) -> Result<Origin, Error> {
    let mut random = [0u8; 32];
    rustix::rand::getrandom(&mut random, rustix::rand::GetRandomFlags::empty())
        .map_err(|error| Error::new(dray_engine::Kind::Invalid, format!("make a token: {error}")))?;
    let token: String = random.iter().map(|byte| format!("{byte:02x}")).collect();
    let address = match serve {
        true => {
            let failed =
                |error| Error::new(dray_engine::Kind::Invalid, format!("serve {}: {error}", root.display()));
            let access = dray_registry::Access { token: Some(token.clone()), ..Default::default() };
            let server = dray_registry::Server::bind(root, ([127, 0, 0, 1], 0).into(), access, None);
            let server = server.await.map_err(failed)?;
            let address = server.address();
            tokio::spawn(server.run());
            address.to_string()
        }
        false => "127.0.0.1:0".into(),
    };
    Ok(Origin { address, token: Secret::new(token) })
}
