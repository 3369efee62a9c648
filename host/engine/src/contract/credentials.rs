//! Auth providers: plugins that look up the credentials of a registry.

use crate::{Result, Secret};
use dray_core::{Address, Digest};
use futures_util::future::BoxFuture;
use std::time::Duration;

/// A secret that a registry accepts.
#[derive(Clone, Debug, PartialEq, Eq)]
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
    /// Whether it is sent before the registry asks for it.
    pub always: bool,
    /// How long it may be kept. `None` means for the whole run.
    pub lifetime: Option<Duration>,
    /// The prefix of the repositories that it serves. `None` means the whole registry.
    pub covers: Option<String>,
    /// Where it was found, for messages.
    pub origin: String,
}

/// Why a credential is looked up.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Reason {
    /// There is none yet.
    First,
    /// The lifetime of the last one is over.
    Expired,
    /// The registry refused the last one.
    Refused,
}

/// What a credential is wanted for.
#[derive(Clone, Copy, Debug)]
pub struct Lookup<'a> {
    /// `host[:port]`.
    pub registry: &'a str,
    /// Empty for the registry as a whole.
    pub repository: &'a str,
    /// What the request does: `pull`, `push`, `delete` and the like.
    pub actions: &'a [String],
    /// Why it is looked up now.
    pub why: Reason,
}

/// An auth provider with its configuration.
pub trait Credentials: Send + Sync {
    /// Looks up the credential for a repository. `None` means that the provider has none for this registry.
    fn lookup<'a>(&'a self, asked: Lookup<'a>) -> BoxFuture<'a, Result<Option<Credential>>>;

    /// Whether its credentials may have to be sent before the registry asks for a login.
    fn is_ahead(&self) -> BoxFuture<'_, Result<bool>> {
        Box::pin(async { Ok(false) })
    }

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
    /// What is known of its body.
    pub body: Body<'a>,
}

/// What is known of the body of a request before it is sent.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Body<'a> {
    /// The body itself.
    Small(&'a [u8]),
    /// It is a whole blob with this digest.
    Blob(&'a Digest),
    /// Nothing, as of a part of a blob.
    Unknown,
}
