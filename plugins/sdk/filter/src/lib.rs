//! Write tag filters for dray, which select tags.
//!
//! A filter is a type that implements [`TagFilter`] and is handed to [`export!`]:
//!
//! ```
//! use dray_plugin_filter::{Error, TagFilter, keep};
//!
//! #[derive(serde::Deserialize)]
//! struct Config {
//!     suffix: String,
//! }
//!
//! struct Suffix;
//!
//! impl TagFilter for Suffix {
//!     type Config = Config;
//!     const NAME: &str = "suffix";
//!     const VERSION: &str = "1.0.0";
//!     const SUMMARY: &str = "Keeps the tags that end with a suffix";
//!     const CONFIG_SCHEMA: &str = r#"{"type":"object","required":["suffix"]}"#;
//!
//!     fn select(_repository: &str, tags: &[String], config: &Config) -> Result<Vec<u32>, Error> {
//!         if config.suffix.is_empty() {
//!             return Err(Error::key("suffix", "write at least one character"));
//!         }
//!         Ok(keep(tags, |tag| tag.ends_with(&config.suffix)))
//!     }
//! }
//!
//! dray_plugin_filter::export!(Suffix with_types_in dray_plugin_filter);
//!
//! # fn main() {
//! let tags = ["1.0-alpine".to_owned(), "1.0".to_owned()];
//! let config = Config { suffix: "-alpine".into() };
//! assert_eq!(Suffix::select("library/nginx", &tags, &config).unwrap(), [0]);
//! # }
//! ```
#![allow(missing_docs)]

dray_plugin::role!("filter", "dray_plugin_filter");

pub use exports::dray::plugin::tag_filter::Guest;

/// A filter of tags. Every type that implements it can be exported with [`export!`].
pub trait TagFilter {
    /// The keys of the filter's table in the policy.
    type Config: dray_plugin::serde::de::DeserializeOwned;
    /// The name that a policy writes after `filter =`.
    const NAME: &str;
    /// The version of the plugin.
    const VERSION: &str;
    /// One line for `dray plugin list`.
    const SUMMARY: &str;
    /// JSON Schema (draft 2020-12) of [`TagFilter::Config`].
    const CONFIG_SCHEMA: &str;

    /// Returns the tags to keep as indices into `tags`, in the order in which to copy them.
    ///
    /// dray calls it with an empty list to check a configuration, so check the configuration first.
    /// [`Error::key`] makes dray underline a key in the policy.
    fn select(repository: &str, tags: &[String], config: &Self::Config) -> Result<Vec<u32>, Error>;
}

impl<T: TagFilter> Meta for T {
    fn describe() -> Info {
        Info {
            name: T::NAME.into(),
            version: T::VERSION.into(),
            summary: T::SUMMARY.into(),
            schemes: Vec::new(),
            config_schema: T::CONFIG_SCHEMA.into(),
        }
    }
}

impl<T: TagFilter> Guest for T {
    fn select(repository: String, tags: Vec<String>, json: String) -> Result<Vec<u32>, Error> {
        <T as TagFilter>::select(&repository, &tags, &config(&json)?)
    }
}

/// The indices of the tags for which `wanted` is true, in the order of `tags`.
pub fn keep(tags: &[String], wanted: impl Fn(&str) -> bool) -> Vec<u32> {
    (0u32..).zip(tags).filter(|(_, tag)| wanted(tag)).map(|(index, _)| index).collect()
}
