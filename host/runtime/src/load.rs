//! Components, from bytes to something that can be called.

use crate::{
    bindings::{guest, host},
    cache,
    meter::{Ceiling, Meter, OutOfMemory, OutOfTime, TICK},
    state::{Scope, State},
};
use dray_core::{
    Digest,
    policy::{Grant, Limits},
};
use dray_engine::{Error, Kind, Result};
use std::{
    path::Path,
    sync::{Arc, atomic::AtomicUsize},
};
use tokio::sync::OnceCell;
use wasmtime::{
    Config, Engine, Store, UpdateDeadline,
    component::{Component, HasSelf, Instance, InstancePre, Linker},
};

/// What a plugin is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, serde::Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Role {
    /// A kind of place.
    Transport,
    /// Where credentials come from.
    Auth,
    /// Which tags are wanted.
    Filter,
}

/// What a plugin says of itself.
#[derive(Clone, Debug)]
pub struct Info {
    /// Its own name.
    pub name: String,
    /// Its version.
    pub version: String,
    /// In a sentence.
    pub summary: String,
    /// Reference schemes that it serves.
    pub schemes: Vec<String>,
    /// JSON Schema of its configuration.
    pub schema: serde_json::Value,
}

/// A component that is ready to be instantiated.
pub(crate) struct Loaded {
    pub name: String,
    pub role: Role,
    pub builtin: bool,
    pub digest: Digest,
    pub grant: Grant,
    pub limits: Limits,
    pub pre: InstancePre<State>,
    engine: Engine,
    info: OnceCell<Info>,
    /// Instances that have nothing to do and are kept.
    pub idle: AtomicUsize,
}

/// A wasmtime engine set up for plugins, and a thread that makes its clock tick.
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

/// The role that a component fills by its exports.
fn role(engine: &Engine, component: &Component) -> Result<Role, String> {
    let ty = component.component_type();
    let exports: Vec<String> = ty.exports(engine).map(|(name, _)| name.to_owned()).collect();
    let has = |name: &str| exports.iter().any(|export| export.starts_with(&format!("dray:plugin/{name}@")));
    let roles = [("references", Role::Transport), ("credentials", Role::Auth), ("tag-filter", Role::Filter)];
    let filled: Vec<Role> = roles.into_iter().filter(|(name, _)| has(name)).map(|(_, role)| role).collect();
    match filled[..] {
        [role] => Ok(role),
        [] if exports.is_empty() => Err("it exports nothing: build it with the SDK's export! macro".into()),
        [] => Err(format!("it fills no role of dray's: it exports {}", exports.join(", "))),
        // A transport sees content and an auth provider credentials: nothing may see both.
        _ => Err("it fills several roles: make a plugin of each".into()),
    }
}

/// Gives each role what it may use, and nothing else.
fn linker(engine: &Engine, role: Role) -> wasmtime::Result<Linker<State>> {
    let mut linker = Linker::new(engine);
    host::types::add_to_linker::<_, HasSelf<State>>(&mut linker, |state| state)?;
    host::log::add_to_linker::<_, HasSelf<State>>(&mut linker, |state| state)?;
    host::clock::add_to_linker::<_, HasSelf<State>>(&mut linker, |state| state)?;
    match role {
        Role::Transport => {
            host::http::add_to_linker::<_, HasSelf<State>>(&mut linker, |state| state)?;
            host::files::add_to_linker::<_, HasSelf<State>>(&mut linker, |state| state)?;
        }
        Role::Auth => {
            host::secrets::add_to_linker::<_, HasSelf<State>>(&mut linker, |state| state)?;
            host::helpers::add_to_linker::<_, HasSelf<State>>(&mut linker, |state| state)?;
        }
        Role::Filter => host::images::add_to_linker::<_, HasSelf<State>>(&mut linker, |state| state)?,
    }
    Ok(linker)
}

impl Loaded {
    /// Compiles a component and links it. Blocks.
    pub fn new(
        engine: &Engine,
        name: &str,
        wasm: &[u8],
        builtin: bool,
        grant: Grant,
        limits: Limits,
        cache: Option<&Path>,
    ) -> Result<Self> {
        let failed = |why: String| Error::new(Kind::Plugin, format!("load the plugin {name}: {why}"));
        if !wasm.starts_with(b"\0asm") {
            return Err(failed("it is no WebAssembly".into())
                .help("build it with `cargo xtask plugins FOLDER`, or see docs/plugins.md"));
        }
        if wasm.get(4..8) == Some(&[1, 0, 0, 0]) {
            return Err(failed("it is a core module, not a component".into())
                .help("make it one with `cargo xtask plugins FOLDER` or `wasm-tools component new`"));
        }
        let component =
            cache::component(engine, wasm, cache).map_err(|error| failed(format!("{error:#}")))?;
        let role = role(engine, &component).map_err(failed)?;
        let linked = linker(engine, role).and_then(|linker| linker.instantiate_pre(&component));
        let pre = linked.map_err(|error| {
            failed(format!("{error:#}")).help(format!(
                "a plugin of the kind {role:?} may import only what its world in wit/plugin.wit imports"
            ))
        })?;
        Ok(Loaded {
            name: name.into(),
            role,
            builtin,
            digest: Digest::of(wasm),
            grant,
            limits,
            pre,
            engine: engine.clone(),
            info: OnceCell::new(),
            idle: AtomicUsize::default(),
        })
    }

    /// A fresh instance in a fresh store.
    pub async fn instance(self: &Arc<Self>, scope: Scope) -> Result<(Store<State>, Instance)> {
        let limits = Ceiling { limit: self.limits.memory, used: 0 };
        let state =
            State { plugin: self.clone(), limits, meter: Meter::new(self.limits.call), scope, calls: 0 };
        let mut store = Store::new(&self.engine, state);
        store.limiter(|state| &mut state.limits);
        store.call_hook(|mut context, hook| Ok(context.data_mut().meter.hook(hook)?));
        store.set_epoch_deadline(1);
        store.epoch_deadline_callback(|mut context| {
            context.data_mut().meter.tick()?;
            Ok(UpdateDeadline::YieldCustom(1, Box::pin(tokio::task::yield_now())))
        });
        let instance = self.pre.instantiate_async(&mut store).await.map_err(|error| self.trapped(error))?;
        Ok((store, instance))
    }

    /// What a trap means.
    pub fn trapped(&self, error: wasmtime::Error) -> Error {
        let why = match (error.downcast_ref::<OutOfTime>(), error.downcast_ref::<OutOfMemory>()) {
            (Some(out), _) => format!("{out}, its limit"),
            (_, Some(out)) => format!("{out}, its limit"),
            (None, None) => format!("{:#}", error.root_cause()),
        };
        Error::new(Kind::Plugin, format!("call the plugin {}: {why}", self.name))
    }

    /// What a call came to: a trap, the plugin's own error, or its answer.
    pub fn answer<T>(&self, result: wasmtime::Result<Result<T, host::types::Error>>) -> Result<T> {
        match result {
            Ok(Ok(answer)) => Ok(answer),
            Ok(Err(error)) => Err(crate::convert::error(error)),
            Err(trap) => Err(self.trapped(trap)),
        }
    }

    /// What the plugin says of itself, asked once.
    pub async fn info(self: &Arc<Self>) -> Result<&Info> {
        self.info.get_or_try_init(|| self.describe()).await
    }

    async fn describe(self: &Arc<Self>) -> Result<Info> {
        let (mut store, instance) = self.instance(Scope::default()).await?;
        let described = async {
            let meta = guest::meta::GuestIndices::new(&self.pre)?.load(&mut store, &instance)?;
            meta.call_describe(&mut store).await
        };
        let info = described.await.map_err(|error| self.trapped(error))?;
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
        })
    }
}
