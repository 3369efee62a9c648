//! Auth providers that are loaded when they are needed.

use dray_core::policy::Call;
use dray_engine::{
    Result,
    contract::{Credential, Credentials, Lookup, Plugins, Signature, Unsigned},
};
use futures_core::future::BoxFuture;
use std::sync::Arc;
use tokio::sync::OnceCell;

struct Lazy {
    plugins: Arc<dyn Plugins>,
    call: Call,
    loaded: OnceCell<Arc<dyn Credentials>>,
}

impl Lazy {
    async fn provider(&self) -> Result<&Arc<dyn Credentials>> {
        let load = || self.plugins.auth(&self.call.plugin.value, &self.call.config);
        self.loaded.get_or_try_init(load).await
    }
}

impl Credentials for Lazy {
    fn lookup<'a>(&'a self, asked: Lookup<'a>) -> BoxFuture<'a, Result<Option<Credential>>> {
        Box::pin(async move { self.provider().await?.lookup(asked).await })
    }

    fn is_ahead(&self) -> BoxFuture<'_, Result<bool>> {
        Box::pin(async move { self.provider().await?.is_ahead().await })
    }

    fn sign<'a>(
        &'a self,
        registry: &'a str,
        request: &'a Unsigned<'a>,
    ) -> BoxFuture<'a, Result<Option<Signature>>> {
        Box::pin(async move { self.provider().await?.sign(registry, request).await })
    }
}

/// An auth provider that is loaded when a registry asks for credentials.
pub fn lazy_auth(plugins: Arc<dyn Plugins>, call: Call) -> Arc<dyn Credentials> {
    Arc::new(Lazy { plugins, call, loaded: OnceCell::new() })
}
