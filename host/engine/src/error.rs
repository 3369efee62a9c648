use std::{fmt, sync::Arc, time::Duration};

/// The result of the functions of this crate.
pub type Result<T, E = Error> = std::result::Result<T, E>;

/// A failure. Its text is a fragment that fits "failed to {text}".
#[derive(Clone, Debug)]
pub struct Error {
    /// Decides what happens next.
    pub kind: Kind,
    /// What failed and why, for people.
    pub text: String,
    /// What the user can do about it.
    pub help: Option<String>,
    /// The error that caused this one.
    source: Option<Arc<dyn std::error::Error + Send + Sync>>,
}

/// The kinds of failure.
#[derive(Clone, Debug, PartialEq)]
pub enum Kind {
    /// The object does not exist.
    NotFound,
    /// The place misses these digests, which must be there first. An empty string means that the place did not say
    /// which.
    Missing(Vec<String>),
    /// Credentials are missing or wrong.
    Unauthorized,
    /// Access is forbidden.
    Denied,
    /// An image does not fulfil what a rule or this machine demands of it.
    Refused,
    /// There were too many requests. The time to wait is `None` if the other side did not say it.
    RateLimited(Option<Duration>),
    /// Another attempt may succeed later.
    Transient,
    /// The place or the format does not support it.
    Unsupported,
    /// The input is wrong: a policy, a reference, or what the other side sent.
    Invalid,
    /// Something is no longer as it was when the decision was made.
    Conflict,
    /// The operating system failed to read or write.
    Io,
    /// It was tried as often, or waited for as long, as is useful.
    Exhausted,
    /// Content does not have its digest or its size.
    Corrupt,
    /// A plugin misbehaved.
    Plugin,
    /// The run was told to stop.
    Cancelled,
    /// dray has a bug.
    Internal,
}

/// Largest text of an error in bytes, because other programs may send whole pages.
const TEXT: usize = 4 << 10;

/// Removes secrets from a text, and shortens it to [`TEXT`] bytes.
fn safe(text: String) -> String {
    let mut text = if text.contains("://") { dray_core::without_secrets(&text) } else { text };
    if text.len() > TEXT {
        text.truncate(text.floor_char_boundary(TEXT));
        text.push('…');
    }
    text
}

impl Error {
    /// A failure of a kind. Secrets in URLs are removed from its text, and a long text is cut.
    pub fn new(kind: Kind, text: impl Into<String>) -> Self {
        Error { kind, text: safe(text.into()), help: None, source: None }
    }

    /// The same failure with another kind.
    pub(crate) fn of_kind(self, kind: Kind) -> Self {
        Error { kind, ..self }
    }

    /// The same failure with another text.
    pub(crate) fn retold(self, text: String) -> Self {
        Error { text: safe(text), ..self }
    }

    /// Adds what the user can do about it.
    pub fn help(mut self, help: impl Into<String>) -> Self {
        self.help = Some(safe(help.into()));
        self
    }

    /// Prepends what was being done to the text.
    pub fn context(self, doing: impl fmt::Display) -> Self {
        let text = format!("{doing}: {}", self.text);
        self.retold(text)
    }

    /// Whether another attempt can help.
    pub fn is_transient(&self) -> bool {
        matches!(self.kind, Kind::Transient | Kind::RateLimited(_))
    }

    /// Keeps the error that caused this one.
    pub(crate) fn caused_by(mut self, source: impl std::error::Error + Send + Sync + 'static) -> Self {
        self.source = Some(Arc::new(source));
        self
    }

    /// A failure of the operating system. `doing` says what was done and to what, for example "read /etc/x".
    pub(crate) fn io(doing: impl fmt::Display, error: std::io::Error) -> Self {
        Error::new(Kind::Io, format!("{doing}: {error}")).caused_by(error)
    }

    /// A bug in dray.
    pub(crate) fn internal(text: impl Into<String>) -> Self {
        Error::new(Kind::Internal, text)
    }

    pub(crate) fn invalid(text: impl Into<String>) -> Self {
        Error::new(Kind::Invalid, text)
    }

    pub(crate) fn transient(text: impl Into<String>) -> Self {
        Error::new(Kind::Transient, text)
    }

    pub(crate) fn corrupt(text: impl Into<String>) -> Self {
        Error::new(Kind::Corrupt, text)
    }
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.text)
    }
}

impl std::error::Error for Error {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        let source = self.source.as_deref()?;
        Some(source)
    }
}

impl PartialEq for Error {
    /// Two failures are equal if their kind, text and help are equal. What caused them does not count.
    fn eq(&self, other: &Self) -> bool {
        (&self.kind, &self.text, &self.help) == (&other.kind, &other.text, &other.help)
    }
}

impl From<std::io::Error> for Error {
    fn from(error: std::io::Error) -> Self {
        Error::new(Kind::Io, error.to_string()).caused_by(error)
    }
}

impl From<dray_core::ManifestError> for Error {
    fn from(error: dray_core::ManifestError) -> Self {
        let kind = match &error {
            dray_core::ManifestError::Digest { .. } => Kind::Corrupt,
            dray_core::ManifestError::Unsupported(_) => Kind::Unsupported,
            dray_core::ManifestError::Malformed(_) => Kind::Invalid,
        };
        let help = match &error {
            dray_core::ManifestError::Digest { .. } => {
                "a cache or a proxy in between may hold something else under this name; try again without it"
            }
            dray_core::ManifestError::Unsupported(_) => {
                "it names no image, but a blob or a file: check the reference"
            }
            dray_core::ManifestError::Malformed(_) => {
                "check the host and the port: does a registry answer there? If so, push the image to it again"
            }
        };
        Error::new(kind, error.to_string()).help(help).caused_by(error)
    }
}

impl From<dray_core::TrimError> for Error {
    fn from(error: dray_core::TrimError) -> Self {
        match error {
            dray_core::TrimError::Manifest(error) => error.into(),
            error => Error::new(Kind::NotFound, error.to_string()),
        }
    }
}

impl From<dray_core::ParseDigestError> for Error {
    fn from(error: dray_core::ParseDigestError) -> Self {
        Error::invalid(error.to_string())
    }
}

/// Prepends what was being done to the text of an error.
pub(crate) trait Context<T> {
    fn context<D: fmt::Display>(self, doing: impl FnOnce() -> D) -> Result<T>;
}

impl<T> Context<T> for Result<T> {
    fn context<D: fmt::Display>(self, doing: impl FnOnce() -> D) -> Result<T> {
        self.map_err(|error| error.context(doing()))
    }
}
