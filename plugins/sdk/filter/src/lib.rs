//! Write tag filters for dray, which select tags.
//!
//! A filter is a type that implements [`TagFilter`] and is handed to [`export!`]:
//!
//! ```
//! use dray_plugin_filter::{Choice, Error, Selection, TagFilter, keep};
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
//!     fn select(given: &Choice, config: &Config) -> Result<Selection, Error> {
//!         if config.suffix.is_empty() {
//!             return Err(Error::key("suffix", "write at least one character"));
//!         }
//!         Ok(keep(&given.tags, |tag| tag.ends_with(&config.suffix)))
//!     }
//! }
//!
//! dray_plugin_filter::export!(Suffix with_types_in dray_plugin_filter);
//!
//! # fn main() {
//! let given = Choice::of("library/nginx", &["1.0-alpine", "1.0"]);
//! let config = Config { suffix: "-alpine".into() };
//! assert_eq!(Suffix::select(&given, &config).unwrap().kept, [0]);
//! # }
//! ```
#![allow(missing_docs)]

dray_plugin::role!("filter", "dray_plugin_filter");

pub use dray::plugin::types::TagEntry;
pub use exports::dray::plugin::tag_filter::{Choice, Dropped, Guest, Selection};

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

    /// Returns the tags to keep as indices into `given.tags`, in the order in which to copy them, and why others were
    /// dropped.
    ///
    /// dray calls it with empty lists to check a configuration, so check the configuration first.
    /// [`Error::key`] makes dray underline a key in the policy.
    fn select(given: &Choice, config: &Self::Config) -> Result<Selection, Error>;
}

impl<T: TagFilter> Meta for T {
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

impl<T: TagFilter> Guest for T {
    fn select(given: Choice, json: String) -> Result<Selection, Error> {
        <T as TagFilter>::select(&given, &config(&json)?)
    }
}

/// The tags that the destination has now, sorted by name. Fails with `unsupported` where no one repository is the destination.
pub fn destination() -> Result<Vec<TagEntry>, Error> {
    dray::plugin::destination::tags()
}

impl Choice {
    /// All tags of a repository, before any filter, for tests.
    pub fn of<T: AsRef<str>>(repository: &str, tags: &[T]) -> Self {
        let tags: Vec<String> = tags.iter().map(|tag| tag.as_ref().to_owned()).collect();
        Choice { repository: repository.into(), all: None, tags, extra: Vec::new() }
    }

    /// All tags of the repository, also those that earlier filters dropped.
    pub fn everything(&self) -> &[String] {
        self.all.as_deref().unwrap_or(&self.tags)
    }
}

/// Keeps the tags for which `wanted` is true, in the order of `tags`.
pub fn keep(tags: &[String], wanted: impl Fn(&str) -> bool) -> Selection {
    let kept = (0u32..).zip(tags).filter(|(_, tag)| wanted(tag)).map(|(index, _)| index);
    Selection::from(kept.collect::<Vec<_>>())
}

/// Keeps the tags for which `unwanted` gives no reason, in the order of `tags`. A reason is a clause without a full
/// stop, which `dray plan --explain` shows.
///
/// ```
/// let tags = ["1.0".to_owned(), "latest".to_owned()];
/// let is_version = |tag: &str| (!tag.starts_with('1')).then_some("no version");
/// let selection = dray_plugin_filter::keep_unless(&tags, is_version);
/// assert_eq!(selection.kept, [0]);
/// assert_eq!((selection.dropped[0].reason.as_str(), &selection.dropped[0].tags[..]), ("no version", &[1][..]));
/// ```
pub fn keep_unless<'a>(tags: &[String], unwanted: impl Fn(&str) -> Option<&'a str>) -> Selection {
    let mut selection = Selection::from(Vec::new());
    for (index, tag) in (0u32..).zip(tags) {
        match unwanted(tag) {
            Some(reason) => selection.drop(index, reason),
            None => selection.kept.push(index),
        }
    }
    selection
}

impl From<Vec<u32>> for Selection {
    /// Keeps these tags, and gives no reason for the others.
    fn from(kept: Vec<u32>) -> Self {
        Selection { kept, dropped: Vec::new() }
    }
}

impl Selection {
    /// Drops a tag for a reason.
    pub fn drop(&mut self, tag: u32, reason: &str) {
        self.drop_as(tag, reason, false);
    }

    /// Drops a tag because too little is known of it. Where the filter says what to keep (`keep` of a `[[retain]]`), the tag
    /// is not deleted.
    ///
    /// ```
    /// let mut selection = dray_plugin_filter::Selection::from(vec![0]);
    /// selection.drop_unknown(1, "it does not say when it was created");
    /// assert!(selection.dropped[0].unknown);
    /// ```
    pub fn drop_unknown(&mut self, tag: u32, reason: &str) {
        self.drop_as(tag, reason, true);
    }

    fn drop_as(&mut self, tag: u32, reason: &str, unknown: bool) {
        let same = |dropped: &&mut Dropped| dropped.reason == reason && dropped.unknown == unknown;
        match self.dropped.iter_mut().find(same) {
            Some(dropped) => dropped.tags.push(tag),
            None => self.dropped.push(Dropped { reason: reason.into(), tags: vec![tag], unknown }),
        }
    }
}
