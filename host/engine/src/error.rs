use std::{fmt, sync::Arc, time::Duration};

/// The result of everything in this crate.
pub type Result<T, E = Error> = std::result::Result<T, E>;

/// Why something failed. Its text is a fragment that fits "failed to {text}".
#[derive(Clone, Debug)]
pub struct Error {
    /// What decides on what happens next.
    pub kind: Kind,
    /// For people.
    pub text: String,
    /// What to do about it.
    pub help: Option<String>,
    /// What it came from, where that is another error.
    source: Option<Arc<dyn std::error::Error + Send + Sync>>,
}

/// The kinds of failure.
#[derive(Clone, Debug, PartialEq)]
pub enum Kind {
    /// There is no such thing.
    NotFound,
    /// These digests must be there first. Empty strings: the place did not say which.
    Missing(Vec<String>),
    /// Credentials are missing or wrong.
    Unauthorized,
    /// It is forbidden.
    Denied,
    /// Too many requests; how long to wait, where the other side said so.
    RateLimited(Option<Duration>),
    /// It may work later.
    Transient,
    /// It cannot be done there.
    Unsupported,
    /// What was given is wrong: a policy, a reference, or what the other side sent.
    Invalid,
    /// It is no longer what it was when it was decided.
    Conflict,
    /// The operating system refused to read or write.
    Io,
    /// It was tried as often, or waited for as long, as that may help.
    Exhausted,
    /// Content is not what its digest or size says.
    Corrupt,
    /// A plugin misbehaved.
    Plugin,
    /// The run was told to stop.
    Cancelled,
    /// dray itself is wrong.
    Internal,
}

/// Bytes of an error's text: others may write whole pages.
const TEXT: usize = 4 << 10;

/// What of a text may be shown.
fn safe(text: String) -> String {
    let mut text = if text.contains("://") { dray_core::without_secrets(&text) } else { text };
    if text.len() > TEXT {
        text.truncate(text.floor_char_boundary(TEXT));
        text.push('…');
    }
    text
}

impl Error {
    /// A failure of some kind. Addresses in its text lose their secrets, and a very long text its end.
    pub fn new(kind: Kind, text: impl Into<String>) -> Self {
        Error { kind, text: safe(text.into()), help: None, source: None }
    }

    /// The same failure, as one of another kind.
    pub(crate) fn of_kind(self, kind: Kind) -> Self {
        Error { kind, ..self }
    }

    /// The same failure in other words.
    pub(crate) fn retold(self, text: String) -> Self {
        Error { text: safe(text), ..self }
    }

    /// Adds what to do about it.
    pub fn help(mut self, help: impl Into<String>) -> Self {
        self.help = Some(safe(help.into()));
        self
    }

    /// Puts before it what was being done.
    pub fn context(self, doing: impl fmt::Display) -> Self {
        let text = format!("{doing}: {}", self.text);
        self.retold(text)
    }

    /// Whether trying again can help.
    pub fn is_transient(&self) -> bool {
        matches!(self.kind, Kind::Transient | Kind::RateLimited(_))
    }

    /// Keeps what it came from.
    pub(crate) fn caused_by(mut self, source: impl std::error::Error + Send + Sync + 'static) -> Self {
        self.source = Some(Arc::new(source));
        self
    }

    /// A failure of the operating system. `doing` and what it is done to come first: "read /etc/x: denied".
    pub(crate) fn io(doing: impl fmt::Display, error: std::io::Error) -> Self {
        Error::new(Kind::Io, format!("{doing}: {error}")).caused_by(error)
    }

    /// dray itself is wrong.
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
    /// Two failures are the same where they are told and handled in the same way.
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
        Error::new(kind, error.to_string()).caused_by(error)
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

/// Puts before an error what was being done.
pub(crate) trait Context<T> {
    fn context<D: fmt::Display>(self, doing: impl FnOnce() -> D) -> Result<T>;
}

impl<T> Context<T> for Result<T> {
    fn context<D: fmt::Display>(self, doing: impl FnOnce() -> D) -> Result<T> {
        self.map_err(|error| error.context(doing()))
    }
}
