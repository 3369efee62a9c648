//! Tries a plugin without a registry: calls its functions with values in JSON, and answers what it asks from a script.

mod script;
mod value;

use crate::{
    Info, Role, Wish,
    load::{self, Budgets, Configuration, Loaded, Terms},
    schema,
    state::Scope,
};
use dray_core::policy::{Grant, Limits};
use dray_engine::{Error, Kind, Result, files::Root};
pub(crate) use script::Script;
use script::{Album, Place, Told};
pub use script::{Answer, Exchange, Image};
use serde_json::Value;
use std::{
    collections::BTreeMap,
    path::{Path, PathBuf},
    sync::Arc,
    time::{Duration, Instant},
};
pub(crate) use value::text_of_bytes;
use wasmtime::component::{Type, Val, types::ComponentItem};

/// A component that can be tried.
pub struct Trial {
    plugin: Arc<Loaded>,
    compiled_in: Duration,
    size: usize,
}

/// What a component is, as its file and the component itself tell.
#[derive(Clone, Debug, serde::Serialize)]
pub struct Findings {
    /// Its kind.
    pub kind: Role,
    /// The version of the contract.
    pub contract: String,
    /// Size in bytes.
    pub size: usize,
    /// What it imports of the host.
    pub imports: Vec<String>,
    /// What it offers.
    pub exports: Vec<String>,
    /// What it needs of the operator.
    pub wishes: Vec<Wish>,
    /// How long the host compiles it, in milliseconds. An installed plugin is compiled once.
    pub compile_ms: f64,
    /// How long the first call takes in a new instance, in milliseconds.
    pub call_ms: f64,
}

/// What the plugin finds while it is called.
#[derive(Debug, Default)]
pub struct Surroundings {
    /// The canonical name of the place, for transports and dialects.
    pub location: String,
    /// Whether the place is only read.
    pub read_only: bool,
    /// The secrets that are granted, by `env:NAME` or `file:PATH`.
    pub secrets: BTreeMap<String, String>,
    /// The requests that it may send, in their order.
    pub requests: Vec<Exchange>,
    /// Facts about images.
    pub images: Vec<Image>,
    /// The tags of the destination. `None` means that there is no one destination.
    pub destination: Option<Vec<String>>,
    /// What the clock says, in milliseconds since 1970. `None` means the time of the machine.
    pub now: Option<u64>,
    /// The folder of the place's files.
    pub folder: PathBuf,
}

/// An interface without the name of its package.
fn short(name: &str) -> &str {
    name.strip_prefix("dray:plugin/").unwrap_or(name)
}

/// A place in which calls follow each other.
pub struct Stage<'a> {
    trial: &'a Trial,
    scope: Scope,
    script: Arc<Script>,
}

impl Trial {
    /// Loads a component under the limits of plugins. Blocks while it is compiled.
    ///
    /// # Errors
    /// Fails if this host would not run it.
    pub fn new(
        name: &str,
        wasm: &[u8],
        grant: Grant,
        settings: serde_json::Map<String, Value>,
    ) -> Result<Self> {
        let settings = Configuration { usual: settings, ..Configuration::default() };
        let terms = Terms { builtin: false, limits: Limits::default(), settings, tracer: None };
        let begun = Instant::now();
        let loaded = Loaded::new(&load::engine()?, name, wasm, terms, &Budgets::default(), None)?;
        // What a fixture answers counts as granted.
        loaded.give(grant);
        Ok(Trial { plugin: Arc::new(loaded), compiled_in: begun.elapsed(), size: wasm.len() })
    }

    /// What the plugin says of itself.
    ///
    /// # Errors
    /// Fails if it traps, or if its schema is no JSON.
    pub async fn info(&self) -> Result<&Info> {
        self.plugin.info().await
    }

    /// Checks a configuration by the plugin's schema, as a policy's is.
    ///
    /// # Errors
    /// Fails if the schema does not allow it, or if the schema itself is wrong.
    pub async fn check_config(&self, config: &Value) -> Result<()> {
        schema::check(&self.plugin.name, &self.plugin.info().await?.schema, config)
    }

    /// Its kind.
    pub fn role(&self) -> Role {
        self.plugin.role
    }

    /// What there is to know of the component.
    ///
    /// # Errors
    /// Fails as [`Trial::info`] does.
    pub async fn findings(&self) -> Result<Findings> {
        let wishes = self.plugin.info().await?.wishes.clone();
        let begun = Instant::now();
        self.stage(Surroundings::default()).call("meta.describe", &[]).await?;
        let call = begun.elapsed();
        let kind = self.plugin.pre.component().component_type();
        let engine = self.plugin.pre.engine();
        let imports = kind.imports(engine).map(|(name, _)| short(name).to_owned()).collect();
        let exports = kind.exports(engine).map(|(name, _)| short(name).to_owned()).collect();
        let ms = |time: Duration| (time.as_secs_f64() * 100_000.0).round() / 100.0;
        Ok(Findings {
            kind: self.plugin.role,
            contract: load::CONTRACT.to_owned(),
            size: self.size,
            imports,
            exports,
            wishes,
            compile_ms: ms(self.compiled_in),
            call_ms: ms(call),
        })
    }

    /// Prepares what the plugin finds.
    pub fn stage(&self, around: Surroundings) -> Stage<'_> {
        let script = Arc::new(Script::new(around.requests));
        let place = Place {
            location: around.location,
            is_destination: !around.read_only,
            script: script.clone(),
            files: Arc::new(Root::folder(around.folder)),
        };
        let granted = around.secrets.keys().filter_map(|name| name.parse().ok()).collect();
        let scope = Scope {
            context: Some(Arc::new(place)),
            images: Some(Arc::new(Album { images: around.images, destination: around.destination })),
            secrets: Some(Arc::new(Told(around.secrets))),
            granted,
            memory: Some(Arc::default()),
            script: Some(script.clone()),
            now: around.now,
            ..Scope::default()
        };
        Stage { trial: self, scope, script }
    }
}

impl Stage<'_> {
    /// Calls `interface.function` with arguments in JSON. Returns the answer in JSON, and how long it took.
    ///
    /// # Errors
    /// Fails if there is no such function, if the arguments do not fit its types, or if it traps.
    pub async fn call(&self, function: &str, arguments: &[Value]) -> Result<(Value, Duration)> {
        let plugin = &self.trial.plugin;
        let failed = |why: String| Error::new(Kind::Invalid, format!("call {function}: {why}"));
        let (interface, name) = function
            .split_once('.')
            .ok_or_else(|| failed("write INTERFACE.FUNCTION, such as tag-filter.select".into()))?;
        let (mut store, instance) = plugin.instance(self.scope.clone()).await?;
        let path = format!("dray:plugin/{interface}@{}", load::CONTRACT);
        let found = instance.get_export(&mut store, None, &path);
        let Some((ComponentItem::ComponentInstance(_), parent)) = found else {
            let engine = plugin.pre.engine();
            let exports = plugin.pre.component().component_type();
            let offered: Vec<&str> = exports.exports(engine).map(|(name, _)| short(name)).collect();
            let text = format!("the plugin does not offer `{interface}`");
            return Err(failed(text).help(format!("it offers {}", offered.join(", "))));
        };
        let found = instance.get_export(&mut store, Some(&parent), name);
        let function = found.and_then(|(_, index)| instance.get_func(&mut store, index));
        let function = function.ok_or_else(|| {
            failed(format!("`{interface}` has no function `{name}`; docs/plugins/reference.md lists them"))
        })?;
        let kind = function.ty(&store);
        if kind.params().len() < arguments.len() {
            let names: Vec<&str> = kind.params().map(|(name, _)| name).collect();
            return Err(failed(format!("it takes only {}", names.join(", "))));
        }
        // Arguments that are left out at the end are empty.
        let given = arguments.iter().map(Some).chain(std::iter::repeat(None));
        let values = kind.params().zip(given).map(|((name, kind), argument)| {
            let value = match argument {
                Some(argument) => value::to_val(argument, &kind),
                None => value::empty(&kind),
            };
            value.map_err(|why| failed(format!("{name}: {why}")))
        });
        let values = values.collect::<Result<Vec<Val>>>()?;
        for ((name, kind), value) in kind.params().zip(&values) {
            if let (true, Type::String, Val::String(text)) = (name == "config", kind, value)
                && let Some(answer) = self.refused(text).await?
            {
                return Ok((answer, Duration::ZERO));
            }
        }
        self.script.take_errors();
        let mut results = vec![Val::Bool(false); kind.results().len()];
        let begun = Instant::now();
        let called = function.call_async(&mut store, &values, &mut results).await;
        let took = begun.elapsed();
        called.map_err(|error| {
            let trapped = plugin.trapped(name, error);
            // A panic is logged before it becomes a trap.
            match self.script.take_errors().pop() {
                Some(message) => Error::new(trapped.kind, format!("{}: {message}", trapped.text)),
                None => trapped,
            }
        })?;
        let answer = results.first().zip(kind.results().next());
        Ok((answer.map_or(Value::Null, |(value, kind)| value::to_json(value, &kind)), took))
    }

    /// The answer that a policy gets whose configuration the schema of the plugin refuses. `None` means that the schema takes it,
    /// and that the plugin is called.
    async fn refused(&self, config: &str) -> Result<Option<Value>> {
        let plugin = &self.trial.plugin;
        // What is no JSON no policy can hand over; the plugin may be shown it all the same.
        let Ok(config) = serde_json::from_str(if config.is_empty() { "{}" } else { config }) else {
            return Ok(None);
        };
        match schema::check(&plugin.name, &plugin.info().await?.schema, &config) {
            Ok(()) => Ok(None),
            Err(error) if error.kind == Kind::Invalid => {
                Ok(Some(serde_json::json!({ "error": { "schema": error.text, "help": error.help } })))
            }
            Err(error) => Err(error),
        }
    }

    /// What was wrong with the requests that were sent.
    pub fn mistakes(&self) -> Vec<String> {
        self.script.mistakes()
    }

    /// The requests of the script that were not sent.
    pub fn unsent(&self) -> Vec<String> {
        self.script.left()
    }

    /// The folder in which a fixture's files are written, each at its path beneath it.
    ///
    /// # Errors
    /// Fails if a path leads out of the folder, or if a file cannot be written.
    pub fn write_files(folder: &Path, files: &BTreeMap<String, String>) -> Result<()> {
        let root = Root::folder(folder);
        for (path, content) in files {
            root.replace(path, None, content.as_bytes())?;
        }
        Ok(())
    }
}
