//! Write observers for dray, which hear what a run does.
//!
//! An observer is a type that implements [`Observe`] and is handed to [`export!`]:
//!
//! ```
//! use dray_plugin_observer::{Error, Event, Observe, post};
//!
//! #[derive(serde::Deserialize)]
//! struct Config {
//!     url: String,
//! }
//!
//! struct Tell;
//!
//! impl Observe for Tell {
//!     type Config = Config;
//!     const NAME: &str = "tell";
//!     const VERSION: &str = "1.0.0";
//!     const SUMMARY: &str = "Sends a sentence when a run has ended";
//!     const CONFIG_SCHEMA: &str = r#"{"type":"object","required":["url"]}"#;
//!
//!     fn check(_config: &Config) -> Result<(), Error> {
//!         Ok(())
//!     }
//!
//!     fn observe(_run: &str, events: &[Event], config: &Config) -> Result<(), Error> {
//!         match events.iter().find(|event| event.kind == "finished") {
//!             Some(finished) => post(&config.url, &[("content-type", "text/plain")], finished.text.as_bytes()),
//!             None => Ok(()),
//!         }
//!     }
//! }
//!
//! dray_plugin_observer::export!(Tell with_types_in dray_plugin_observer);
//!
//! # fn main() {}
//! ```
#![allow(missing_docs)]

dray_plugin::role!("observer", "dray_plugin_observer");

use dray::plugin::{http, types::Request};
pub use dray_plugin::{is_reference, time};
pub use exports::dray::plugin::observation::{Event, Guest};

/// An observer of runs. Every type that implements it can be exported with [`export!`].
pub trait Observe {
    /// The keys of the observer's table in the policy.
    type Config: dray_plugin::serde::de::DeserializeOwned;
    /// The name that a policy writes after `observer =`.
    const NAME: &str;
    /// The version of the plugin.
    const VERSION: &str;
    /// One line for `dray plugin list`.
    const SUMMARY: &str;
    /// JSON Schema (draft 2020-12) of [`Observe::Config`].
    const CONFIG_SCHEMA: &str;

    /// What it needs of the operator, beside what its table names.
    fn wishes() -> Vec<Wish> {
        Vec::new()
    }

    /// Checks the configuration. dray calls it before a run starts. [`Error::key`] makes dray underline a key in the policy.
    fn check(config: &Self::Config) -> Result<(), Error>;

    /// Hears of events, of which there is at least one. `run` is the same text for all events of a run.
    fn observe(run: &str, events: &[Event], config: &Self::Config) -> Result<(), Error>;
}

impl<T: Observe> Meta for T {
    fn describe() -> Info {
        Info {
            name: T::NAME.into(),
            version: T::VERSION.into(),
            summary: T::SUMMARY.into(),
            schemes: Vec::new(),
            config_schema: T::CONFIG_SCHEMA.into(),
            wishes: T::wishes(),
            extra: Vec::new(),
        }
    }
}

impl<T: Observe> Guest for T {
    fn observe(run: String, events: Vec<Event>, json: String) -> Result<(), Error> {
        let config = config(&json)?;
        match events.is_empty() {
            true => T::check(&config),
            false => <T as Observe>::observe(&run, &events, &config),
        }
    }
}

/// A value of a table: what the secret holds that it names (`env:NAME`, `file:PATH`), or the text itself.
pub fn value(text: &str) -> Result<String, Error> {
    match is_reference(text) {
        true => dray::plugin::secrets::get(text).map(|text| text.trim().to_owned()),
        false => Ok(text.to_owned()),
    }
}

/// Sends a body to an address of HTTPS. Fails if the answer is none of 200, 201, 202 and 204.
pub fn post(url: &str, headers: &[(&str, &str)], body: &[u8]) -> Result<(), Error> {
    let request = Request {
        method: "POST".into(),
        url: url.into(),
        headers: headers.iter().map(|(name, value)| ((*name).into(), (*value).into())).collect(),
        expect: vec![200, 201, 202, 204],
        access: Vec::new(),
        extra: Vec::new(),
    };
    http::send(&request, body).map(drop)
}
