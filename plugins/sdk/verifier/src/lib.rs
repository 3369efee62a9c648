//! Write verifiers for dray, which judge whether an image may be copied.
//!
//! A verifier is a type that implements [`Verify`] and is handed to [`export!`]:
//!
//! ```
//! use dray_plugin_verifier::{Error, Evidence, Subject, Verdict, Verify};
//!
//! #[derive(serde::Deserialize)]
//! struct Config {
//!     word: String,
//! }
//!
//! struct Says;
//!
//! impl Verify for Says {
//!     type Config = Config;
//!     const NAME: &str = "says";
//!     const VERSION: &str = "1.0.0";
//!     const SUMMARY: &str = "Wants a note that holds a word";
//!     const CONFIG_SCHEMA: &str = r#"{"type":"object","required":["word"]}"#;
//!
//!     fn wants(_config: &Config) -> Result<Vec<String>, Error> {
//!         Ok(vec!["application/vnd.example.note".into()])
//!     }
//!
//!     fn verify(_subject: &Subject, evidence: &[Evidence], config: &Config) -> Result<Verdict, Error> {
//!         let says = |note: &&Evidence| String::from_utf8_lossy(&note.content).contains(&config.word);
//!         Ok(match evidence.iter().find(says) {
//!             Some(_) => Verdict::Accepted(format!("a note that says {}", config.word)),
//!             None => Verdict::Refused(vec![format!("no note says {}", config.word)]),
//!         })
//!     }
//! }
//!
//! dray_plugin_verifier::export!(Says with_types_in dray_plugin_verifier);
//!
//! # fn main() {
//! let subject = Subject { reference: None, media_type: String::new(), digest: String::new(), body: Vec::new(), extra: Vec::new() };
//! let note = Evidence { kind: "application/vnd.example.note".into(), content: b"fine".to_vec(), annotations: Vec::new() };
//! let config = Config { word: "fine".into() };
//! assert!(matches!(Says::verify(&subject, &[note], &config), Ok(Verdict::Accepted(_))));
//! assert!(matches!(Says::verify(&subject, &[], &config), Ok(Verdict::Refused(_))));
//! # }
//! ```
#![allow(missing_docs)]

dray_plugin::role!("verifier", "dray_plugin_verifier");

pub use exports::dray::plugin::verification::{Evidence, Guest, Subject, Verdict};

/// A verifier of images. Every type that implements it can be exported with [`export!`].
pub trait Verify {
    /// The keys of the verifier's table in the policy.
    type Config: dray_plugin::serde::de::DeserializeOwned;
    /// The name that a policy writes in `require`.
    const NAME: &str;
    /// The version of the plugin.
    const VERSION: &str;
    /// One line for `dray plugin list`.
    const SUMMARY: &str;
    /// JSON Schema (draft 2020-12) of [`Verify::Config`].
    const CONFIG_SCHEMA: &str;

    /// What it needs of the operator, beside what its table names.
    fn wishes() -> Vec<Wish> {
        Vec::new()
    }

    /// The artifact types of the referrers that it wants to see, beside signatures. dray calls it to check a
    /// configuration, so check the configuration here.
    fn wants(config: &Self::Config) -> Result<Vec<String>, Error>;

    /// Judges an image. What is not understood must be refused.
    fn verify(subject: &Subject, evidence: &[Evidence], config: &Self::Config) -> Result<Verdict, Error>;
}

/// Reads a file or a variable that the configuration names (`file:PATH`, `env:NAME`), such as a key.
pub fn granted(name: &str) -> Result<String, Error> {
    dray::plugin::secrets::get(name)
}

impl<T: Verify> Meta for T {
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

impl<T: Verify> Guest for T {
    fn wants(json: String) -> Result<Vec<String>, Error> {
        <T as Verify>::wants(&config(&json)?)
    }

    fn verify(subject: Subject, evidence: Vec<Evidence>, json: String) -> Result<Verdict, Error> {
        <T as Verify>::verify(&subject, &evidence, &config(&json)?)
    }
}
