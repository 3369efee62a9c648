//! Transports of the program that opens a session, beside those of components.

use dray_engine::{
    Result,
    contract::{Credentials, Dialect, Filter, KnownBy, Mapper, Observer, Plugins, Transport, Verifier},
};
use futures_core::future::BoxFuture;
use std::{collections::BTreeMap, sync::Arc};

/// Plugins, some of whose transports are native.
pub(crate) struct WithNative {
    pub components: Arc<dyn Plugins>,
    /// By scheme.
    pub transports: BTreeMap<String, Arc<dyn Transport>>,
}

impl Plugins for WithNative {
    fn transport<'a>(&'a self, scheme: &'a str) -> BoxFuture<'a, Result<Arc<dyn Transport>>> {
        match self.transports.get(scheme) {
            Some(native) => Box::pin(async move { Ok(native.clone()) }),
            None => self.components.transport(scheme),
        }
    }

    fn filter<'a>(
        &'a self,
        name: &'a str,
        config: &'a serde_json::Value,
    ) -> BoxFuture<'a, Result<Arc<dyn Filter>>> {
        self.components.filter(name, config)
    }

    fn mapper<'a>(
        &'a self,
        name: &'a str,
        config: &'a serde_json::Value,
    ) -> BoxFuture<'a, Result<Arc<dyn Mapper>>> {
        self.components.mapper(name, config)
    }

    fn observer<'a>(
        &'a self,
        name: &'a str,
        config: &'a serde_json::Value,
    ) -> BoxFuture<'a, Result<Arc<dyn Observer>>> {
        self.components.observer(name, config)
    }

    fn verifier<'a>(
        &'a self,
        name: &'a str,
        config: &'a serde_json::Value,
    ) -> BoxFuture<'a, Result<Arc<dyn Verifier>>> {
        self.components.verifier(name, config)
    }

    fn dialect<'a>(&'a self, by: KnownBy<'a>) -> BoxFuture<'a, Result<Option<Arc<dyn Dialect>>>> {
        self.components.dialect(by)
    }

    fn auth<'a>(
        &'a self,
        name: &'a str,
        config: &'a serde_json::Value,
    ) -> BoxFuture<'a, Result<Arc<dyn Credentials>>> {
        self.components.auth(name, config)
    }
}
