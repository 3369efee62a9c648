//! Write mappers for dray, which rename tags on their way to the destination.
//!
//! A mapper is a type that implements [`TagMapper`] and is handed to [`export!`]:
//!
//! ```
//! use dray_plugin_mapper::{Error, Mapping, TagMapper};
//!
//! #[derive(serde::Deserialize)]
//! struct Config {
//!     prefix: String,
//! }
//!
//! struct Prefix;
//!
//! impl TagMapper for Prefix {
//!     type Config = Config;
//!     const NAME: &str = "prefix";
//!     const VERSION: &str = "1.0.0";
//!     const SUMMARY: &str = "Puts a prefix before each tag";
//!     const CONFIG_SCHEMA: &str = r#"{"type":"object","required":["prefix"]}"#;
//!
//!     fn rename(given: &Mapping, config: &Config) -> Result<Vec<Option<String>>, Error> {
//!         Ok(given.tags.iter().map(|tag| Some(format!("{}{tag}", config.prefix))).collect())
//!     }
//! }
//!
//! dray_plugin_mapper::export!(Prefix with_types_in dray_plugin_mapper);
//!
//! # fn main() {
//! let config = Config { prefix: "mirror-".into() };
//! let given = Mapping { repository: "library/nginx".into(), tags: vec!["1.27".into()], extra: Vec::new() };
//! assert_eq!(Prefix::rename(&given, &config).unwrap(), [Some("mirror-1.27".to_owned())]);
//! # }
//! ```
#![allow(missing_docs)]

dray_plugin::role!("mapper", "dray_plugin_mapper");

pub use exports::dray::plugin::tag_mapping::{Guest, Mapping};

/// A mapper of tags. Every type that implements it can be exported with [`export!`].
pub trait TagMapper {
    /// The keys of the mapper's table in the policy.
    type Config: dray_plugin::serde::de::DeserializeOwned;
    /// The name that a policy writes after `mapper =`.
    const NAME: &str;
    /// The version of the plugin.
    const VERSION: &str;
    /// One line for `dray plugin list`.
    const SUMMARY: &str;
    /// JSON Schema (draft 2020-12) of [`TagMapper::Config`].
    const CONFIG_SCHEMA: &str;

    /// The names of the tags at the destination, one for each tag in their order. `None` means that a tag keeps its name.
    ///
    /// dray calls it without tags to check a configuration, so check the configuration first. [`Error::key`] makes dray underline
    /// a key in the policy.
    fn rename(given: &Mapping, config: &Self::Config) -> Result<Vec<Option<String>>, Error>;
}

impl<T: TagMapper> Meta for T {
    fn describe() -> Info {
        Info {
            name: T::NAME.into(),
            version: T::VERSION.into(),
            summary: T::SUMMARY.into(),
            schemes: Vec::new(),
            config_schema: T::CONFIG_SCHEMA.into(),
            wishes: Vec::new(),
            extra: Vec::new(),
        }
    }
}

impl<T: TagMapper> Guest for T {
    fn rename(given: Mapping, json: String) -> Result<Vec<Option<String>>, Error> {
        <T as TagMapper>::rename(&given, &config(&json)?)
    }
}
