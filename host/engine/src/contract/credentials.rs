//! Auth providers: where the keys of a registry come from.

use crate::{Result, Secret};
use futures_util::future::BoxFuture;
use std::time::Duration;

/// What opens a registry.
#[derive(Clone, Debug)]
pub enum Key {
    /// User and password.
    Basic(String, Secret),
    /// Traded for an access token at the registry's token endpoint.
    IdentityToken(Secret),
    /// Sent as it is.
    Bearer(Secret),
}

/// A key and where it is good.
#[derive(Clone, Debug)]
pub struct Credential {
    /// The key.
    pub key: Key,
    /// How long it may be kept.
    pub lifetime: Option<Duration>,
    /// The prefix of the repositories that it serves. `None` means the whole registry.
    pub covers: Option<String>,
    /// Where it was found.
    pub origin: String,
}

/// Where credentials come from: a provider with its configuration bound to it.
pub trait Credentials: Send + Sync {
    /// `None` means that the provider has nothing for that registry.
    fn lookup<'a>(
        &'a self,
        registry: &'a str,
        repository: &'a str,
    ) -> BoxFuture<'a, Result<Option<Credential>>>;
}
