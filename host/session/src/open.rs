//! Opening a session: plugins, places, settings of registries, folders that are served.

use crate::{
    components::Components,
    environment::Environment,
    native::WithNative,
    observing::{self, Telling},
    record::{self, Record},
    saved::SavedPlan,
    system::System,
};
use dray_core::{
    Endpoint, PlanLine, Report, Shard,
    policy::{Call, PluginSource, Policy, PolicyError, Problem, PruneLimit, Registry, Tls},
};
use dray_engine::{
    BoundRetain, BoundRule, Demand, Error, Kind, Places, Planned, RunOptions, Secret, Watcher, bind,
    bind_retains,
    contract::{Credentials, KnownBy, Observer, Plugins},
    delete_again,
    http::{Client, Origin, Plain, RegistrySettings, Settings, TlsSettings},
    in_call, observe_again, plan, plan_retention,
};
use futures_util::{StreamExt, stream};
use std::{
    collections::HashMap,
    fmt,
    path::{Path, PathBuf},
    sync::Arc,
};
use tokio::sync::{mpsc, watch};

/// Items of a plan that wait for the run.
const WAITING: usize = 256;
/// Saved items that are looked at again at once.
const AGAIN: usize = 32;

/// A policy whose plugins are loaded and whose places can be opened.
pub struct Session {
    places: Arc<Places>,
    rules: Vec<BoundRule>,
    retains: Vec<BoundRetain>,
    observers: Vec<Arc<dyn Observer>>,
    shard: Option<Shard>,
}

/// Why a session could not be opened.
#[derive(Debug)]
pub enum OpenError {
    /// The policy is wrong.
    Policy(PolicyError),
    /// Something else failed.
    Failed(Error),
}

impl fmt::Display for OpenError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            OpenError::Policy(error) => {
                let problems: Vec<&str> = error.0.iter().map(|problem| problem.message.as_str()).collect();
                write!(f, "open the policy: {}", problems.join("; "))
            }
            OpenError::Failed(error) => error.fmt(f),
        }
    }
}

impl std::error::Error for OpenError {}

impl From<Error> for OpenError {
    fn from(error: Error) -> Self {
        OpenError::Failed(error)
    }
}

impl From<PolicyError> for OpenError {
    fn from(error: PolicyError) -> Self {
        OpenError::Policy(error)
    }
}

impl Session {
    /// Opens a session. Relative paths of the policy are relative to `base`. Registries with a `storage` are served to
    /// this process alone.
    ///
    /// # Errors
    /// Every mistake of the policy that can be found without a network; and where plugins cannot be loaded.
    pub async fn open(policy: Policy, base: &Path, environment: Environment) -> Result<Self, OpenError> {
        Session::prepare(policy, base, environment, true).await
    }

    /// As [`Session::open`], to check a policy: nothing is served.
    ///
    /// # Errors
    /// As [`Session::open`].
    pub async fn check(policy: Policy, base: &Path, environment: Environment) -> Result<Self, OpenError> {
        Session::prepare(policy, base, environment, false).await
    }

    async fn prepare(
        mut policy: Policy,
        base: &Path,
        environment: Environment,
        serve: bool,
    ) -> Result<Self, OpenError> {
        for plugin in policy.plugins.values_mut() {
            if let PluginSource::File(path) = &mut plugin.source.value {
                *path = base.join(&*path);
            }
        }
        let usual = environment.usual();
        let files = environment.system.as_ref().filter(|_| !policy.ignores_system);
        let system = files.map(System::obey).transpose()?;
        let mut local = environment.local.clone();
        if let Some(system) = &system {
            local.trust = system.trust.clone();
            local.registries = system.registries.clone();
        }
        let components = Components::new(&environment, &policy.plugins);
        let plugins = components.plugins();
        let mut problems = Vec::new();
        let default = &policy.default_registry;
        let default = RegistrySettings {
            auth: match &default.auth {
                Some(calls) => auth(calls, plugins.as_ref(), &mut problems).await,
                None => components.usual_auth(),
            },
            ..registry_settings(default, base, &usual)
        };
        let mut settings = Settings {
            default,
            registries: environment.hosts,
            proxies: environment.proxies,
            system: system.as_ref().map(System::tls),
            user_agent: environment.user_agent,
        };
        for server in system.iter().flat_map(|system| system.trust.lookasides.servers()) {
            settings.registries.insert(server.clone(), lookaside(&server));
        }
        for (name, registry) in &policy.registries {
            let auth = match &registry.auth {
                Some(calls) => auth(calls, plugins.as_ref(), &mut problems).await,
                None => components.usual_auth(),
            };
            if let Some(kind) = registry.kind.as_ref().filter(|kind| kind.value != "none")
                && let Err(error) = plugins.dialect(KnownBy::Kind(&kind.value)).await
            {
                let message = format!("failed to {error}");
                problems.push(Problem { message, span: Some(kind.span.clone()), help: error.help });
            }
            let origin = match &registry.storage {
                Some(storage) => Some(serve_storage(&base.join(storage), serve).await?),
                None => None,
            };
            let own = RegistrySettings { auth, origin, ..registry_settings(registry, base, &usual) };
            settings.registries.insert(name.clone(), own);
        }
        if !problems.is_empty() {
            return Err(PolicyError(problems).into());
        }
        components.lend(&settings);
        let plugins: Arc<dyn Plugins> = match environment.transports.is_empty() {
            true => plugins,
            false => Arc::new(WithNative { components: plugins, transports: environment.transports }),
        };
        let places = Places::new(plugins, Client::new(settings), base, local);
        let rules = bind(&policy, &places).await?;
        let retains = bind_retains(&policy, &places).await?;
        let observers = observing::bind(&policy.observers, &places).await?;
        Ok(Session { places, rules, retains, observers, shard: None })
    }

    /// The same session, whose plans leave out the repositories of other shards. Saved plans and `[[retain]]` are not divided.
    pub fn of_shard(self, shard: Option<Shard>) -> Self {
        Session { shard, ..self }
    }

    /// Its places.
    pub fn places(&self) -> &Arc<Places> {
        &self.places
    }

    /// Its rules, brought together with their plugins.
    pub fn rules(&self) -> &[BoundRule] {
        &self.rules
    }

    /// A plan that grows in the background. It runs ahead of whoever takes its items by so much, and no further.
    pub fn plan(&self) -> mpsc::Receiver<Planned> {
        planning(self.rules.clone(), self.places.clone(), self.shard)
    }

    /// What of the places of `[[retain]]` is to be deleted, in a plan that grows in the background. `limit` stands for those
    /// of the policy.
    pub fn retention(&self, limit: Option<PruneLimit>) -> mpsc::Receiver<Planned> {
        let retains = self.retains.iter().cloned().map(|retain| match limit {
            Some(limit) => retain.with_limit(limit),
            None => retain,
        });
        let (sender, receiver) = mpsc::channel(WAITING);
        guarded(sender.clone(), plan_retention(retains.collect(), self.places.clone(), sender));
        receiver
    }

    /// A saved plan, whose items are looked at again one after the other: an item passes only where both ends are still
    /// what the plan saw. Others come out as failures.
    pub fn apply(&self, saved: SavedPlan) -> mpsc::Receiver<Planned> {
        let (sender, receiver) = mpsc::channel(WAITING);
        let rules: HashMap<String, Vec<Demand>> =
            self.rules.iter().map(|rule| (rule.name.clone(), rule.require.clone())).collect();
        let (rules, places) = (Arc::new(rules), self.places.clone());
        let failed = Arc::new(saved.end.failed_rules.clone());
        guarded(sender.clone(), async move {
            let looked = stream::iter(saved).map(|item| {
                let (rules, places, failed) = (rules.clone(), places.clone(), failed.clone());
                async move { again(&places, (&rules, &failed), item).await }
            });
            let mut looked = std::pin::pin!(looked.buffered(AGAIN));
            while let Some(planned) = looked.next().await {
                if sender.send(planned).await.is_err() {
                    return;
                }
            }
        });
        receiver
    }

    /// Carries out a plan. `stop` turns true where the rest is not wanted any more. The journal, where there is one,
    /// keeps the record of the run.
    pub async fn run(
        &self,
        plan: mpsc::Receiver<Planned>,
        watcher: Arc<dyn Watcher>,
        mut options: RunOptions,
        record: Record<'_>,
        stop: watch::Receiver<bool>,
    ) -> Report {
        options.rules = self.rules.iter().map(|rule| (rule.name.clone(), rule.limits.clone())).collect();
        if self.observers.is_empty() {
            return record::run(&self.places, plan, watcher, options, record, stop).await;
        }
        let telling = Telling::begin(&self.observers, watcher, record);
        let report = record::run(&self.places, plan, telling.clone(), options, record, stop.clone()).await;
        telling.end(&report, stop).await;
        report
    }
}

async fn again(
    places: &Arc<Places>,
    (rules, failed_rules): (&HashMap<String, Vec<Demand>>, &[String]),
    item: Result<PlanLine, Error>,
) -> Planned {
    let failed = |rule: &str, source: &str, destination: &str, error: Error| Planned::Failed {
        rule: rule.into(),
        source: source.into(),
        destination: destination.into(),
        error,
        deletes: false,
    };
    let copy = match item {
        Ok(PlanLine::Copy(copy)) => copy,
        Ok(PlanLine::Delete(deletion)) => {
            let looked = match rules.contains_key(&deletion.rule) {
                true if failed_rules.contains(&deletion.rule) => {
                    let (to, rule) = (&deletion.destination, &deletion.rule);
                    let text =
                        format!("delete {to}: when the plan was made, the rule `{rule}` failed in part");
                    Err(Error::new(Kind::Conflict, text).help("plan again when what failed is mended"))
                }
                true => delete_again(places, &deletion).await,
                false => Err(unknown_rule(&deletion.destination, &deletion.rule)),
            };
            return match looked {
                Ok(planned) => Planned::Delete(Box::new(planned)),
                Err(error) => {
                    failed(&deletion.rule, &deletion.source.display, &deletion.destination.display, error)
                }
            };
        }
        Ok(PlanLine::Plan(_) | PlanLine::End(_)) => {
            return failed("", "", "", Error::new(Kind::Internal, "carry out the plan: a line is no item"));
        }
        Err(error) => return failed("", "", "", error),
    };
    let looked = match rules.get(&copy.rule) {
        Some(require) => observe_again(places, &copy, require).await,
        None => Err(unknown_rule(&copy.source, &copy.rule)),
    };
    match looked {
        Ok(planned) => Planned::Copy(Box::new(planned)),
        Err(error) => failed(&copy.rule, &copy.source.display, &copy.destination.display, error),
    }
}

fn unknown_rule(end: &Endpoint, rule: &str) -> Error {
    Error::new(Kind::Invalid, format!("carry out {end}: the policy has no rule `{rule}`"))
}

/// A plan of some rules that grows in the background.
pub fn planning(rules: Vec<BoundRule>, places: Arc<Places>, shard: Option<Shard>) -> mpsc::Receiver<Planned> {
    let (sender, receiver) = mpsc::channel(WAITING);
    guarded(sender.clone(), plan(rules, places, shard, sender));
    receiver
}

/// Does planning in a task. A plan that broke off must not pass for one that ended.
fn guarded(sender: mpsc::Sender<Planned>, planning: impl Future<Output = ()> + Send + 'static) {
    let planning = tokio::spawn(planning);
    tokio::spawn(async move {
        if planning.await.is_err() {
            let error = Error::new(Kind::Internal, "plan: dray itself failed");
            let (rule, source, destination) = Default::default();
            // Whoever stopped listening need not be told.
            let _ = sender.send(Planned::Failed { rule, source, destination, error, deletes: false }).await;
        }
    });
}

async fn auth(
    calls: &[Call],
    plugins: &dyn Plugins,
    problems: &mut Vec<Problem>,
) -> Vec<Arc<dyn Credentials>> {
    let mut providers = Vec::new();
    for call in calls {
        match plugins.auth(&call.plugin.value, &call.config).await {
            Ok(provider) => providers.push(provider),
            Err(error) => problems.push(in_call(error, call)),
        }
    }
    providers
}

/// How a web server with signatures is reached: without a login.
fn lookaside(server: &str) -> RegistrySettings {
    let plain = if server.starts_with("http:") { Plain::Always } else { Plain::Never };
    RegistrySettings { tls: TlsSettings { plain, ..TlsSettings::default() }, ..RegistrySettings::default() }
}

fn registry_settings(registry: &Registry, base: &Path, usual: &RegistrySettings) -> RegistrySettings {
    let path = |path: &PathBuf| base.join(path);
    let tls = match &registry.tls {
        Tls::Off => TlsSettings { plain: Plain::Always, explicit: true, ..TlsSettings::default() },
        Tls::On { ca, identity, verify, explicit } => TlsSettings {
            ca: ca.iter().map(path).collect(),
            identity: identity.as_ref().map(|(cert, key)| (path(cert), path(key))),
            verify: *verify,
            plain: if *explicit { Plain::Never } else { Plain::Loopback },
            explicit: *explicit,
        },
    };
    let few = usual.concurrency < RegistrySettings::default().concurrency;
    RegistrySettings {
        concurrency: registry.concurrency.map_or(usual.concurrency, |own| match few {
            true => own.min(usual.concurrency),
            false => own,
        }),
        bandwidth: registry.bandwidth,
        assume_unchanged: registry.assume_unchanged,
        kind: registry.kind.as_ref().map(|kind| kind.value.clone()),
        tls,
        auth_named: registry.auth.is_some(),
        proxy: registry.proxy.clone(),
        least_rate: registry.least_rate.unwrap_or(usual.least_rate),
        ..usual.clone()
    }
}

/// Serves a folder to this process alone: whoever else connects lacks the token.
async fn serve_storage(root: &Path, serve: bool) -> Result<Origin, Error> {
    let mut random = [0u8; 32];
    rustix::rand::getrandom(&mut random, rustix::rand::GetRandomFlags::empty())
        .map_err(|error| Error::new(Kind::Io, format!("make a token: {error}")))?;
    let token: String = random.iter().map(|byte| format!("{byte:02x}")).collect();
    let address = match serve {
        true => {
            let failed = |error| Error::new(Kind::Io, format!("serve {}: {error}", root.display()));
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
