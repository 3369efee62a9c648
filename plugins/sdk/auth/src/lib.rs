//! Write auth providers for dray, which provide credentials.
//!
//! A provider is a type that implements [`Provider`] and is handed to [`export!`].
#![allow(missing_docs)]

mod keys;
mod web;

dray_plugin::role!("auth-provider", "dray_plugin_auth");

pub use dray::plugin::secrets;
pub use dray_plugin::{element, encoded, is_reference, rfc3339, stamp, time};
pub use exports::dray::plugin::{
    credentials::{Asked as Lookup, Credential, Guest, Reason, Secret, Sending},
    request_signer::{Guest as SignerGuest, Payload, UnsignedRequest as Unsigned},
};
pub use keys::{Keys, KeysAt};
pub use web::{Asked, form, host};

use dray::plugin::{clock, memory};

/// A source of credentials. Every type that implements it can be exported with [`export!`].
pub trait Provider {
    /// The name that a policy writes in `provider`.
    const NAME: &str;
    /// The version of the plugin.
    const VERSION: &str;
    /// One line for `dray plugin list`.
    const SUMMARY: &str;
    /// JSON Schema of the table.
    const SCHEMA: &str;
    /// The table of the policy.
    type Config: dray_plugin::serde::de::DeserializeOwned;

    /// Whether a credential of it may be [`Sending::Always`]. If so, dray asks it before a registry asks for a login.
    const SENDS_ALWAYS: bool = false;

    /// What it needs of the operator, beside the secrets that its table names.
    fn wishes() -> Vec<Wish> {
        Vec::new()
    }

    /// The credential for a repository. `None` means that this provider has none for the registry.
    fn lookup(asked: &Lookup, config: Self::Config) -> Result<Option<Credential>, Error>;

    /// The headers that sign a request to an API of the registry. `None` means that this provider signs nothing for it.
    fn sign(
        _registry: &str,
        _request: &Unsigned,
        _config: Self::Config,
    ) -> Result<Option<Vec<(String, String)>>, Error> {
        Ok(None)
    }
}

impl<T: Provider> Meta for T {
    fn describe() -> Info {
        Info {
            name: T::NAME.into(),
            version: T::VERSION.into(),
            summary: T::SUMMARY.into(),
            schemes: Vec::new(),
            config_schema: T::SCHEMA.into(),
            wishes: T::wishes(),
            extra: if T::SENDS_ALWAYS { vec![("sends-always".into(), String::new())] } else { Vec::new() },
        }
    }
}

impl<T: Provider> Guest for T {
    fn lookup(asked: Lookup, config: String) -> Result<Option<Credential>, Error> {
        REFUSED.set(asked.why == Reason::Refused);
        <T as Provider>::lookup(&asked, self::config(&config)?)
    }
}

impl<T: Provider> SignerGuest for T {
    fn sign(
        registry: String,
        request: Unsigned,
        config: String,
    ) -> Result<Option<Vec<(String, String)>>, Error> {
        <T as Provider>::sign(&registry, &request, self::config(&config)?)
    }
}

thread_local! {
    /// Whether the registry refused the credential that this call replaces.
    static REFUSED: std::cell::Cell<bool> = const { std::cell::Cell::new(false) };
}

/// Milliseconds since 1970.
pub fn now() -> u64 {
    clock::now()
}

/// A text that is remembered while dray runs, such as an access token. If it is not known any more, `fetch` gets it anew, with
/// the seconds for which it holds; it is not used in the last five minutes of its time, nor after a registry refused it.
pub fn remembered(name: &str, fetch: impl FnOnce() -> Result<(String, u64), Error>) -> Result<String, Error> {
    if let Some(text) = memory::recall(name).filter(|_| !REFUSED.get()) {
        return Ok(text);
    }
    let (text, seconds) = fetch()?;
    memory::keep(name, &text, kept(seconds));
    Ok(text)
}

/// For how many seconds a credential is kept that holds for so many: another one in its last five minutes would be no better
/// if it ends so soon anyway.
pub fn kept(seconds: u64) -> u64 {
    seconds.saturating_sub(300).max(60)
}

/// Where a request goes: host with its port, path, and query without the question mark. `None` means that its address is not
/// one of HTTPS.
pub fn target(request: &Unsigned) -> Option<(&str, String, &str)> {
    let rest = request.url.strip_prefix("https://")?;
    let (host, rest) = rest.split_once('/').unwrap_or((rest, ""));
    let (path, query) = rest.split_once('?').unwrap_or((rest, ""));
    Some((host, format!("/{path}"), query))
}

/// SHA-256 of the body of a request, in hexadecimal digits. Fails if the body is not known.
pub fn hash(request: &Unsigned) -> Result<&str, Error> {
    match &request.payload {
        Payload::Empty => Ok("e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855"),
        Payload::Sha256(hash) => Ok(hash),
        Payload::Unknown => Err(Error::Unsupported("sign a body that is not known".into())),
    }
}

/// A value of a table: what the secret holds that it names, or the text itself.
pub fn value(text: &str) -> Result<String, Error> {
    match is_reference(text) {
        true => secrets::get(text).map(|text| text.trim().to_owned()),
        false => Ok(text.to_owned()),
    }
}

/// A secret that may be missing: `None` means that it is, or that it is empty.
pub fn optional(name: &str) -> Option<String> {
    let text = secrets::get(name).ok()?;
    Some(text.trim().to_owned()).filter(|text| !text.is_empty())
}
