//! Auth providers: plugins that look up the credentials of a registry.

use crate::{Result, Secret};
use dray_core::Address;
use futures_util::future::BoxFuture;
use std::time::Duration;

/// A secret that a registry accepts.
#[derive(Clone, Debug)]
pub enum Key {
    /// User name and password.
    Basic(String, Secret),
    /// Exchanged for an access token at the token endpoint of the registry.
    IdentityToken(Secret),
    /// A token that is sent as it is.
    Bearer(Secret),
}

/// A key, and the repositories for which it may be used.
#[derive(Clone, Debug)]
pub struct Credential {
    /// The key.
    pub key: Key,
    /// How long it may be kept. `None` means for the whole run.
    pub lifetime: Option<Duration>,
    /// The prefix of the repositories that it serves. `None` means the whole registry.
    pub covers: Option<String>,
    /// Where it was found, for messages.
    pub origin: String,
}

/// An auth provider with its configuration.
pub trait Credentials: Send + Sync {
    /// Looks up the credential for a repository. `None` means that the provider has none for this registry.
    fn lookup<'a>(
        &'a self,
        registry: &'a str,
        repository: &'a str,
    ) -> BoxFuture<'a, Result<Option<Credential>>>;

    /// The headers that sign a request to an API of the registry. `None` means that the provider signs nothing for it.
    fn sign<'a>(
        &'a self,
        _registry: &'a str,
        _request: &'a Unsigned<'a>,
    ) -> BoxFuture<'a, Result<Option<Signature>>> {
        Box::pin(async { Ok(None) })
    }
}

/// The headers that sign a request: names and values.
pub type Signature = Vec<(String, Secret)>;

/// A request that is to be signed.
#[derive(Clone, Copy, Debug)]
pub struct Unsigned<'a> {
    /// The method of the request.
    pub method: &'a str,
    /// The address to which it goes.
    pub url: &'a Address,
    /// The headers that it has already.
    pub headers: &'a [(String, String)],
    /// Its body.
    pub body: &'a [u8],
}
