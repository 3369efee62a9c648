//! What a session finds around it. Libraries read no environment, so whoever opens a session says.

use crate::system::SystemFiles;
use dray_core::{
    RegistriesConf,
    policy::{Call, SecretRef},
};
use dray_engine::{
    DISK_WRITES, Error, Kind, LazyJournal, Local, Result, Secret,
    contract::{Credential, Credentials, Lookup, Plugins, Signature, Transport, Unsigned},
    http::{Proxies, RegistrySettings},
};
use dray_runtime::{Runtime, Secrets, Tracer};
use dray_trust::Trust;
use futures_core::future::BoxFuture;
use std::{
    collections::{BTreeMap, HashMap},
    path::PathBuf,
    sync::Arc,
};
use tokio::sync::OnceCell;

/// What a session finds around it.
#[derive(Clone)]
pub struct Environment {
    /// Where secrets and credentials are.
    pub secrets: Arc<dyn Secrets>,
    /// Folder of compiled plugins. `None` means that they are compiled anew.
    pub cache: Option<PathBuf>,
    /// Folders, and the journal.
    pub local: Local,
    /// Where the machine's files are. `None` means that they are not read.
    pub system: Option<SystemFiles>,
    /// Proxies.
    pub proxies: Proxies,
    /// The `User-Agent` header.
    pub user_agent: String,
    /// Requests at once to a registry, where the process may open few files.
    pub few_requests: Option<usize>,
    /// Settings of hosts that no policy names, such as Docker's daemon, by name.
    pub hosts: HashMap<String, RegistrySettings>,
    /// Transports of the program that opens the session, by their schemes. They go before those of components, and are trusted
    /// as the program is.
    pub transports: BTreeMap<String, Arc<dyn Transport>>,
    /// Who hears of the calls of plugins. `None` means that nobody does.
    pub tracer: Option<Arc<dyn Tracer>>,
}

/// The `User-Agent` header of dray itself.
pub const USER_AGENT: &str = concat!("dray/", env!("CARGO_PKG_VERSION"));

impl Environment {
    /// One in which nothing is found: no secrets, no journal, no cache. What is expanded or downloaded lies in
    /// `scratch`.
    pub fn bare(scratch: impl Into<PathBuf>) -> Self {
        let journal = LazyJournal::new(None);
        Environment {
            secrets: Arc::new(NoSecrets),
            cache: None,
            local: Local {
                scratch: scratch.into(),
                known: HashMap::new(),
                journal,
                disk_writes: DISK_WRITES,
                trust: Trust::default(),
                registries: RegistriesConf::default(),
                scan_reports: None,
            },
            proxies: Proxies::default(),
            system: None,
            user_agent: USER_AGENT.into(),
            few_requests: None,
            hosts: HashMap::new(),
            transports: BTreeMap::new(),
            tracer: None,
        }
    }

    /// How registries are talked to of which nothing else is said.
    pub(crate) fn usual(&self) -> RegistrySettings {
        let usual = RegistrySettings::default();
        RegistrySettings { concurrency: self.few_requests.unwrap_or(usual.concurrency), ..usual }
    }
}

/// Has no secrets.
pub struct NoSecrets;

impl Secrets for NoSecrets {
    fn get(&self, name: &SecretRef) -> Result<Secret> {
        Err(Error::new(Kind::NotFound, format!("read the secret {name}: this session has no secrets")))
    }

    fn auth_files(&self) -> Result<Vec<(String, Secret)>> {
        Ok(Vec::new())
    }
}

/// An auth provider that is loaded when a registry asks for credentials.
struct Lazy {
    runtime: Arc<Runtime>,
    call: Call,
    loaded: OnceCell<Arc<dyn Credentials>>,
}

impl Credentials for Lazy {
    fn lookup<'a>(&'a self, asked: Lookup<'a>) -> BoxFuture<'a, Result<Option<Credential>>> {
        Box::pin(async move {
            let load = || self.runtime.auth(&self.call.plugin.value, &self.call.config);
            let provider = self.loaded.get_or_try_init(load).await?;
            provider.lookup(asked).await
        })
    }

    fn is_ahead(&self) -> BoxFuture<'_, Result<bool>> {
        Box::pin(async move {
            let load = || self.runtime.auth(&self.call.plugin.value, &self.call.config);
            self.loaded.get_or_try_init(load).await?.is_ahead().await
        })
    }

    fn sign<'a>(
        &'a self,
        registry: &'a str,
        request: &'a Unsigned<'a>,
    ) -> BoxFuture<'a, Result<Option<Signature>>> {
        Box::pin(async move {
            let load = || self.runtime.auth(&self.call.plugin.value, &self.call.config);
            let provider = self.loaded.get_or_try_init(load).await?;
            provider.sign(registry, request).await
        })
    }
}

/// An auth provider that is loaded when a registry asks for credentials.
pub fn lazy_auth(runtime: &Arc<Runtime>, call: Call) -> Arc<dyn Credentials> {
    Arc::new(Lazy { runtime: runtime.clone(), call, loaded: OnceCell::new() })
}
