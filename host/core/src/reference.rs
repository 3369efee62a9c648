//! References have the form `scheme:rest`. The transport defines what `rest` means.

use serde::{Deserialize, Serialize};
use std::{fmt, path::PathBuf, str::FromStr};

/// Where an image is, as its user writes it.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct Reference {
    /// The name that selects the transport.
    pub scheme: String,
    /// The text after the colon.
    pub rest: String,
    /// The folder in which a layout keeps its blobs together with other layouts. `None` means the layout itself.
    pub blobs: Option<PathBuf>,
}

impl Reference {
    /// A reference with the same scheme and blob folder, and another `rest`.
    pub fn with(&self, rest: String) -> Self {
        Reference { rest, ..self.clone() }
    }
}

/// What stands before the tag or digest that a written reference ends with. `None` means that it does not end with it.
///
/// ```
/// assert_eq!(dray_core::without_tag("docker://r.example/a:1.0", "1.0"), Some("docker://r.example/a"));
/// ```
pub fn without_tag<'a>(written: &'a str, tag: &str) -> Option<&'a str> {
    written.strip_suffix(tag)?.strip_suffix([':', '@'])
}

/// The text is not a reference.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error(
    "read `{0}` as a reference: it must begin with a transport, as in docker://registry.example.com/app:1.0 or oci:folder:1.0"
)]
pub struct ParseReferenceError(String);

impl FromStr for Reference {
    type Err = ParseReferenceError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let error = || ParseReferenceError(text.into());
        let (scheme, rest) = text.split_once(':').ok_or_else(error)?;
        let good =
            scheme.bytes().all(|byte| byte.is_ascii_lowercase() || byte.is_ascii_digit() || byte == b'-');
        if !good || scheme.is_empty() || rest.is_empty() {
            return Err(error());
        }
        Ok(Reference { scheme: scheme.into(), rest: rest.into(), blobs: None })
    }
}

impl TryFrom<String> for Reference {
    type Error = ParseReferenceError;

    fn try_from(text: String) -> Result<Self, Self::Error> {
        text.parse()
    }
}

impl From<Reference> for String {
    fn from(reference: Reference) -> Self {
        reference.to_string()
    }
}

impl fmt::Display for Reference {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}", self.scheme, self.rest)
    }
}
