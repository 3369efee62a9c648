//! Loads components and makes them ready to be called.

use crate::{
    bindings::{guest, host},
    cache,
    meter::{BUDGET, Ceiling, DEADLINE, Meter, OutOfMemory, OutOfTime, TICK},
    state::{Scope, State},
    trace::Tracer,
    wishes::{Wish, WishKind},
};
use dray_core::{
    Digest,
    policy::{Grant, Limits, config_at},
};
use dray_engine::{Error, Kind, Result};
use std::{
    collections::BTreeMap,
    path::Path,
    sync::{
        Arc, OnceLock,
        atomic::{AtomicBool, AtomicUsize, Ordering},
    },
};
use tokio::sync::{OnceCell, Semaphore};
use wasmtime::{
    Config, Engine, Store, UpdateDeadline,
    component::{Component, HasSelf, Instance, InstancePre, Linker},
};

/// The kind of a plugin.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, serde::Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Role {
    /// It reads and writes images in a kind of place.
    Transport,
    /// It provides credentials.
    Auth,
    /// It selects tags.
    Filter,
    /// It judges whether an image may be copied.
    Verifier,
    /// It knows one kind of registry.
    Dialect,
    /// It renames tags on their way.
    Mapper,
    /// It hears what a run did.
    Observer,
}

impl Role {
    /// The name that the command line uses.
    pub fn name(self) -> &'static str {
        match self {
            Role::Transport => "transport",
            Role::Auth => "auth",
            Role::Filter => "filter",
            Role::Verifier => "verifier",
            Role::Dialect => "dialect",
            Role::Mapper => "mapper",
            Role::Observer => "observer",
        }
    }
}

/// What a plugin says about itself.
#[derive(Clone, Debug)]
pub struct Info {
    /// The name that the plugin gives itself.
    pub name: String,
    /// The version of the plugin.
    pub version: String,
    /// One sentence on what the plugin does.
    pub summary: String,
    /// The reference schemes that a transport serves.
    pub schemes: Vec<String>,
    /// JSON Schema of its configuration.
    pub schema: serde_json::Value,
    /// What it needs beyond what every plugin of its kind may use.
    pub wishes: Vec<Wish>,
    /// What a later version of the contract may name.
    pub extra: Vec<(String, String)>,
}

impl Info {
    /// Whether it says something of itself that has no field: `sends-always`.
    pub(crate) fn says(&self, key: &str) -> bool {
        self.extra.iter().any(|(said, _)| said == key)
    }
}

/// A component that is ready to be instantiated.
pub(crate) struct Loaded {
    pub name: String,
    pub role: Role,
    pub builtin: bool,
    pub digest: Digest,
    /// What it gets of the operator: what is granted and what it asks for. Before it was asked, it gets nothing.
    grant: OnceLock<Grant>,
    pub limits: Limits,
    /// `[plugin.NAME.config]`, and what stands over it for some places.
    pub settings: Configuration,
    pub pre: InstancePre<State>,
    engine: Engine,
    info: OnceCell<Info>,
    /// The memory that the large instances of the run share.
    budget: Arc<Semaphore>,
    /// Whether the plugin can write to places. If not, its calls may not write anything.
    pub writes: bool,
    /// How many bytes the plugin may still log in this run.
    pub log: AtomicUsize,
    /// How many idle instances are kept.
    pub idle: AtomicUsize,
    /// Whether the types of all of its interfaces were checked, in its first instance.
    is_typed: AtomicBool,
    /// Who hears of its calls.
    pub tracer: Option<Arc<dyn Tracer>>,
}

/// The conditions under which a component runs.
#[derive(Default)]
pub(crate) struct Terms {
    pub builtin: bool,
    pub limits: Limits,
    pub settings: Configuration,
    /// Who hears of its calls.
    pub tracer: Option<Arc<dyn Tracer>>,
}

/// What the operator configured for a plugin.
#[derive(Clone, Debug, Default)]
pub(crate) struct Configuration {
    /// `[plugin.NAME.config]`.
    pub usual: serde_json::Map<String, serde_json::Value>,
    /// `[plugin.NAME.at."GLOB"]`, by the globs.
    pub at: BTreeMap<String, serde_json::Map<String, serde_json::Value>>,
}

impl Configuration {
    /// The configuration for a place, by its location.
    pub fn of(&self, location: &str) -> serde_json::Map<String, serde_json::Value> {
        config_at(&self.usual, &self.at, location)
    }
}

/// Creates a wasmtime engine for plugins, and a thread that advances its epoch.
pub(crate) fn engine() -> Result<Engine> {
    let mut config = Config::new();
    config.epoch_interruption(true);
    let engine = Engine::new(&config)
        .map_err(|error| Error::new(Kind::Plugin, format!("start wasmtime: {error:#}")))?;
    let weak = engine.weak();
    std::thread::spawn(move || {
        while let Some(engine) = weak.upgrade() {
            engine.increment_epoch();
            drop(engine);
            std::thread::sleep(TICK);
        }
    });
    Ok(engine)
}

/// How many bytes a plugin may log in one run. Nobody would read more.
const LOG: usize = 1 << 20;

/// The memory that the large instances of a run may have, in MiB. Filters wait for transports, so transports have their
/// own.
pub(crate) struct Budgets {
    transports: Arc<Semaphore>,
    others: Arc<Semaphore>,
}

impl Default for Budgets {
    fn default() -> Self {
        let budget = || Arc::new(Semaphore::new(BUDGET as usize));
        Budgets { transports: budget(), others: budget() }
    }
}

/// Whether a component imports an interface of the contract.
fn imports(engine: &Engine, component: &Component, interface: &str) -> bool {
    let wanted = format!("dray:plugin/{interface}@");
    component.component_type().imports(engine).any(|(name, _)| name.starts_with(&wanted))
}

fn exports(engine: &Engine, component: &Component) -> Vec<String> {
    component.component_type().exports(engine).map(|(name, _)| name.to_owned()).collect()
}

/// The version of the contract in `wit/plugin.wit` that this host implements.
pub(crate) const CONTRACT: &str = "0.3.0";

/// The version of the contract that a component was built for, if the host has another one.
fn other_contract(engine: &Engine, component: &Component) -> Option<String> {
    let kind = component.component_type();
    let names = kind.imports(engine).map(|(name, _)| name).chain(kind.exports(engine).map(|(name, _)| name));
    let versions = names.filter_map(|name| name.strip_prefix("dray:plugin/")?.split_once('@'));
    versions.map(|(_, version)| version).find(|version| *version != CONTRACT).map(str::to_owned)
}

/// The role that a component has according to its exports.
fn role(engine: &Engine, component: &Component) -> Result<Role, String> {
    let exports = exports(engine, component);
    let has = |name: &str| exports.iter().any(|export| export.starts_with(&format!("dray:plugin/{name}@")));
    let roles = [
        ("references", Role::Transport),
        ("credentials", Role::Auth),
        ("tag-filter", Role::Filter),
        ("verification", Role::Verifier),
        ("registry-dialect", Role::Dialect),
        ("tag-mapping", Role::Mapper),
        ("observation", Role::Observer),
    ];
    let filled: Vec<Role> = roles.into_iter().filter(|(name, _)| has(name)).map(|(_, role)| role).collect();
    match filled[..] {
        [role] => Ok(role),
        [] if exports.is_empty() => Err("it exports nothing: build it with the SDK's export! macro".into()),
        [] => Err(format!("it fills no role of dray's: it exports {}", exports.join(", "))),
        // A transport sees content and an auth provider sees credentials, and no plugin may see both.
        _ => Err("it fills several roles: make a plugin of each".into()),
    }
}

/// Checks that each interface that a component exports has the functions and types of this version. What is not known
/// here is not called. The error says which interface has others.
fn typed(pre: &InstancePre<State>, store: &mut Store<State>, instance: &Instance) -> Result<(), String> {
    let exports = exports(pre.engine(), pre.component());
    macro_rules! check {
        ($($name:literal: $module:ident),+ $(,)?) => {
            for export in &exports {
                let name = export.strip_prefix("dray:plugin/").and_then(|rest| rest.split('@').next());
                let checked = match name {
                    $(Some($name) => {
                        let indices = guest::$module::GuestIndices::new(pre);
                        indices.and_then(|indices| indices.load(&mut *store, instance)).map(drop)
                    })+
                    _ => Ok(()),
                };
                if let Err(error) = checked {
                    return Err(format!(
                        "its `{}` is not the one of version {CONTRACT} of the plugin contract: {error:#}",
                        name.unwrap_or_default()
                    ));
                }
            }
        };
    }
    check! {
        "meta": meta,
        "references": references,
        "catalog": catalog,
        "listing": listing,
        "source": source,
        "sink": sink,
        "naming-together": naming_together,
        "provision": provision,
        "removal": removal,
        "credentials": credentials,
        "request-signer": request_signer,
        "tag-filter": tag_filter,
        "tag-mapping": tag_mapping,
        "observation": observation,
        "registry-dialect": registry_dialect,
        "registry-knowledge": registry_knowledge,
        "registry-untagged": registry_untagged,
        "verification": verification,
    }
    Ok(())
}

/// Links the interfaces that a role may use, and no others.
fn linker(engine: &Engine, role: Role, writes: bool) -> wasmtime::Result<Linker<State>> {
    let mut linker = Linker::new(engine);
    host::types::add_to_linker::<_, HasSelf<State>>(&mut linker, |state| state)?;
    host::log::add_to_linker::<_, HasSelf<State>>(&mut linker, |state| state)?;
    host::clock::add_to_linker::<_, HasSelf<State>>(&mut linker, |state| state)?;
    match role {
        Role::Transport => {
            host::http::add_to_linker::<_, HasSelf<State>>(&mut linker, |state| state)?;
            host::files::add_to_linker::<_, HasSelf<State>>(&mut linker, |state| state)?;
            host::settings::add_to_linker::<_, HasSelf<State>>(&mut linker, |state| state)?;
            if writes {
                host::writing::add_to_linker::<_, HasSelf<State>>(&mut linker, |state| state)?;
            }
        }
        Role::Dialect => {
            host::http::add_to_linker::<_, HasSelf<State>>(&mut linker, |state| state)?;
            host::settings::add_to_linker::<_, HasSelf<State>>(&mut linker, |state| state)?;
        }
        Role::Auth => {
            host::secrets::add_to_linker::<_, HasSelf<State>>(&mut linker, |state| state)?;
            host::helpers::add_to_linker::<_, HasSelf<State>>(&mut linker, |state| state)?;
            host::memory::add_to_linker::<_, HasSelf<State>>(&mut linker, |state| state)?;
            host::http::add_to_linker::<_, HasSelf<State>>(&mut linker, |state| state)?;
        }
        Role::Filter => {
            host::images::add_to_linker::<_, HasSelf<State>>(&mut linker, |state| state)?;
            host::knowledge::add_to_linker::<_, HasSelf<State>>(&mut linker, |state| state)?;
            host::destination::add_to_linker::<_, HasSelf<State>>(&mut linker, |state| state)?;
        }
        Role::Mapper => {}
        Role::Observer => {
            host::secrets::add_to_linker::<_, HasSelf<State>>(&mut linker, |state| state)?;
            host::http::add_to_linker::<_, HasSelf<State>>(&mut linker, |state| state)?;
        }
        Role::Verifier => host::secrets::add_to_linker::<_, HasSelf<State>>(&mut linker, |state| state)?,
    }
    Ok(linker)
}

impl Loaded {
    /// Compiles a component and links it. Blocks.
    pub fn new(
        engine: &Engine,
        name: &str,
        wasm: &[u8],
        terms: Terms,
        budgets: &Budgets,
        cache: Option<&Path>,
    ) -> Result<Self> {
        let failed = |why: String| Error::new(Kind::Plugin, format!("load the plugin {name}: {why}"));
        if !wasm.starts_with(b"\0asm") {
            return Err(failed("it is no WebAssembly".into())
                .help("build it with `dray plugin build`, or see docs/plugins.md"));
        }
        if wasm.get(4..8) == Some(&[1, 0, 0, 0]) {
            return Err(failed("it is a core module, not a component".into())
                .help("make it one with `dray plugin build` or `wasm-tools component new`"));
        }
        let component =
            cache::component(engine, wasm, cache).map_err(|error| failed(format!("{error:#}")))?;
        if let Some(version) = other_contract(engine, &component) {
            return Err(failed(format!(
                "it speaks version {version} of the plugin contract, and this dray speaks version {CONTRACT}"
            ))
            .help("build it again with the SDK of this dray, or get a build of it for this version"));
        }
        let role = role(engine, &component).map_err(failed)?;
        let writes = exports(engine, &component).iter().any(|name| name.starts_with("dray:plugin/sink@"));
        if role == Role::Transport && !writes && imports(engine, &component, "writing") {
            return Err(failed("it imports `writing`, and exports no sink".into())
                .help("a transport that can only be read gets no function that writes: build it for `source-transport`"));
        }
        let linked = linker(engine, role, writes).and_then(|linker| linker.instantiate_pre(&component));
        let pre = linked.map_err(|error| {
            failed(format!("{error:#}")).help(format!(
                "a plugin of the kind {role:?} may import only what its world in wit/plugin.wit imports"
            ))
        })?;
        Ok(Loaded {
            name: name.into(),
            role,
            builtin: terms.builtin,
            digest: Digest::of(wasm),
            grant: OnceLock::new(),
            limits: terms.limits,
            settings: terms.settings,
            pre,
            engine: engine.clone(),
            info: OnceCell::new(),
            budget: if role == Role::Transport { budgets.transports.clone() } else { budgets.others.clone() },
            writes,
            log: AtomicUsize::new(LOG),
            idle: AtomicUsize::default(),
            is_typed: AtomicBool::default(),
            tracer: terms.tracer,
        })
    }

    /// A new instance in a new store.
    pub async fn instance(self: &Arc<Self>, scope: Scope) -> Result<(Store<State>, Instance)> {
        let limits = Ceiling::new(self.limits.memory, self.budget.clone());
        let state = State {
            plugin: self.clone(),
            limits,
            meter: self.meter(),
            scope,
            calls: 0,
            complaint: None,
            heard: Vec::new(),
        };
        let mut store = Store::new(&self.engine, state);
        store.limiter_async(|state| &mut state.limits);
        store.call_hook(|mut context, hook| Ok(context.data_mut().meter.hook(hook)?));
        store.set_epoch_deadline(1);
        store.epoch_deadline_callback(|mut context| {
            context.data_mut().meter.tick()?;
            Ok(UpdateDeadline::YieldCustom(1, Box::pin(tokio::task::yield_now())))
        });
        let instance =
            self.pre.instantiate_async(&mut store).await.map_err(|error| self.trapped("the start", error))?;
        if !self.is_typed.load(Ordering::Relaxed) {
            typed(&self.pre, &mut store, &instance).map_err(|why| {
                Error::new(Kind::Plugin, format!("load the plugin {}: {why}", self.name))
                    .help("build it again with the SDK of this dray, or get a build of it for this version")
            })?;
            self.is_typed.store(true, Ordering::Relaxed);
        }
        Ok((store, instance))
    }

    /// What it may reach beyond what every plugin of its kind may.
    pub fn grant(&self) -> &Grant {
        static NOTHING: Grant = Grant { hosts: Vec::new(), files: Vec::new(), secrets: Vec::new() };
        self.grant.get().unwrap_or(&NOTHING)
    }

    /// Gives the plugin what it may reach. Only the first grant counts.
    pub fn give(&self, grant: Grant) {
        let _ = self.grant.set(grant);
    }

    /// A meter for one call.
    pub fn meter(&self) -> Meter {
        // A transport of dray may wait for a large blob; what only asks for documents may not wait for ever.
        let patient = self.builtin && self.role == Role::Transport;
        Meter::new(self.limits.call, (!patient).then_some(DEADLINE))
    }

    /// The error for an interface that is not as it must be.
    pub fn unfit(&self, error: &wasmtime::Error) -> Error {
        Error::new(Kind::Plugin, format!("load the plugin {}: {error:#}", self.name))
    }

    /// The error for a trap.
    pub fn trapped(&self, call: &str, error: wasmtime::Error) -> Error {
        let why = match (error.downcast_ref::<OutOfTime>(), error.downcast_ref::<OutOfMemory>()) {
            (Some(out), _) => format!("{out}, its limit"),
            (_, Some(out)) => format!("{out}, its limit"),
            (None, None) => format!("{:#}", error.root_cause()),
        };
        let role = match self.role {
            Role::Auth => "auth provider",
            other => other.name(),
        };
        Error::new(Kind::Plugin, format!("call {call} of the {role} {}: {why}", self.name))
    }

    /// Converts the result of a call: a trap, an error of the plugin, or an answer.
    pub fn answer<T>(
        &self,
        call: &str,
        result: wasmtime::Result<Result<T, host::types::Error>>,
    ) -> Result<T> {
        match result {
            Ok(Ok(answer)) => Ok(answer),
            Ok(Err(error)) => Err(crate::convert::error(error)),
            Err(trap) => Err(self.trapped(call.trim_start_matches("call_"), trap)),
        }
    }

    /// What the plugin says about itself. The plugin is asked only once.
    pub async fn info(self: &Arc<Self>) -> Result<&Info> {
        self.info.get_or_try_init(|| self.describe()).await
    }

    async fn describe(self: &Arc<Self>) -> Result<Info> {
        let (mut store, instance) = self.instance(Scope::default()).await?;
        let described = async {
            let meta = guest::meta::GuestIndices::new(&self.pre)?.load(&mut store, &instance)?;
            meta.call_describe(&mut store).await
        };
        let info = described.await.map_err(|error| self.trapped("describe", error))?;
        let schema = serde_json::from_str(&info.config_schema);
        let schema = schema.map_err(|error| {
            Error::new(Kind::Plugin, format!("read the schema of the plugin {}: {error}", self.name))
        })?;
        Ok(Info {
            name: info.name,
            version: info.version,
            summary: info.summary,
            schemes: info.schemes,
            schema,
            wishes: info.wishes.into_iter().map(wish).collect(),
            extra: info.extra,
        })
    }
}

fn wish(wish: guest::meta::Wish) -> Wish {
    let kind = match wish.kind {
        guest::meta::WishKind::Host => WishKind::Host,
        guest::meta::WishKind::Secret => WishKind::Secret,
        guest::meta::WishKind::Files => WishKind::Files,
    };
    Wish { kind, name: wish.name, why: wish.why }
}
