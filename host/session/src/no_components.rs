//! What stands for components in a program that was built without them, and so without wasmtime.

use crate::Environment;
use dray_core::policy::Plugin;
use dray_engine::{
    Error, Kind, Result,
    contract::{Credentials, Dialect, Filter, KnownBy, Mapper, Observer, Plugins, Transport, Verifier},
    http::Settings,
};
use futures_core::future::BoxFuture;
use serde_json::Value;
use std::{collections::BTreeMap, sync::Arc};

/// None of them.
pub(crate) struct Components;

impl Components {
    pub fn new(_environment: &Environment, _plugins: &BTreeMap<String, Plugin>) -> Self {
        Components
    }

    pub fn plugins(&self) -> Arc<dyn Plugins> {
        Arc::new(NoPlugins)
    }

    /// The logins of docker and podman are read by a component.
    pub fn usual_auth(&self) -> Vec<Arc<dyn Credentials>> {
        Vec::new()
    }

    pub fn lend(&self, _settings: &Settings) {}
}

struct NoPlugins;

fn none<'a, T: Send + 'a>(what: &str, name: &str) -> BoxFuture<'a, Result<T>> {
    let text = format!("use the {what} {name}: this program was built without components");
    let error = Error::new(Kind::Unsupported, text);
    let error = error.help("enable the feature `plugins` of dray-session");
    Box::pin(async { Err(error) })
}

impl Plugins for NoPlugins {
    fn transport<'a>(&'a self, scheme: &'a str) -> BoxFuture<'a, Result<Arc<dyn Transport>>> {
        none("transport", scheme)
    }

    fn filter<'a>(&'a self, name: &'a str, _: &'a Value) -> BoxFuture<'a, Result<Arc<dyn Filter>>> {
        none("filter", name)
    }

    fn mapper<'a>(&'a self, name: &'a str, _: &'a Value) -> BoxFuture<'a, Result<Arc<dyn Mapper>>> {
        none("mapper", name)
    }

    fn observer<'a>(&'a self, name: &'a str, _: &'a Value) -> BoxFuture<'a, Result<Arc<dyn Observer>>> {
        none("observer", name)
    }

    fn verifier<'a>(&'a self, name: &'a str, _: &'a Value) -> BoxFuture<'a, Result<Arc<dyn Verifier>>> {
        none("verifier", name)
    }

    fn dialect<'a>(&'a self, by: KnownBy<'a>) -> BoxFuture<'a, Result<Option<Arc<dyn Dialect>>>> {
        match by {
            KnownBy::Kind(name) => none("dialect", name),
            // What is not recognised is a registry of the distribution specification.
            _ => Box::pin(async { Ok(None) }),
        }
    }

    fn auth<'a>(&'a self, name: &'a str, _: &'a Value) -> BoxFuture<'a, Result<Arc<dyn Credentials>>> {
        none("auth provider", name)
    }
}
