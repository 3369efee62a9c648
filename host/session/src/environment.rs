//! What a session finds around it. Libraries read no environment, so whoever opens a session says.

use crate::system::SystemFiles;
use dray_core::{RegistriesConf, policy::SecretRef};
use dray_engine::{
    DISK_WRITES, Error, Kind, LazyJournal, Local, Result, Secret,
    contract::{Secrets, Transport},
    http::{Proxies, RegistrySettings},
};
#[cfg(feature = "plugins")]
use dray_runtime::Tracer;
use dray_trust::Trust;
use std::{
    collections::{BTreeMap, HashMap},
    path::PathBuf,
    sync::Arc,
};

/// What a session finds around it. It begins with [`Environment::bare`].
#[derive(Clone)]
#[non_exhaustive]
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
    #[cfg(feature = "plugins")]
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
            #[cfg(feature = "plugins")]
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
