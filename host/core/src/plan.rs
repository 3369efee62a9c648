//! A plan: the copies of a policy, as data.

use crate::Descriptor;
use serde::{Deserialize, Serialize};
use std::fmt;

/// One end of a copy.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Endpoint {
    /// Canonical name of the place, with its scheme: two endpoints of one place have it in common.
    pub place: String,
    /// Unique in its place.
    pub repository: String,
    /// Tag or digest; none: the only image of its place.
    pub reference: Option<String>,
    /// As people write it.
    pub display: String,
}

impl fmt::Display for Endpoint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.display)
    }
}

/// One descriptor graph to be moved to one reference, with the reason.
#[derive(Clone, Debug)]
pub struct Copy {
    /// The rule that asks for it.
    pub rule: String,
    /// From where.
    pub source: Endpoint,
    /// To where.
    pub destination: Endpoint,
    /// What the source names now; for a trimmed index, what will be written.
    pub descriptor: Descriptor,
    /// The form in which it will be written, where that is another one.
    pub form: crate::Form,
    /// What was written, where it was converted on its way.
    pub written: Option<Descriptor>,
    /// What is to be done.
    pub action: Action,
    /// Why.
    pub reason: Reason,
}

/// What is to be done with a tag.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Action {
    /// The destination differs: it is copied.
    Copy,
    /// Nothing: the destination has it.
    Unchanged,
    /// A filter dropped it.
    Drop,
    /// It cannot be done.
    Fail,
}

impl Action {
    /// As reports write it.
    pub fn as_str(self) -> &'static str {
        match self {
            Action::Copy => "copy",
            Action::Unchanged => "unchanged",
            Action::Drop => "drop",
            Action::Fail => "fail",
        }
    }
}

/// Why a copy is what it is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Reason {
    /// The destination does not have the tag.
    New,
    /// The destination's tag names something else.
    Moved {
        /// What it names.
        from: crate::Digest,
    },
    /// The destination does not tell what it has; why.
    Untold(String),
    /// The destination has it in another form than is asked for.
    Form,
    /// The destination has it.
    Same,
    /// The destination has what was made of it.
    Converted,
    /// The journal says that the destination has it, and nobody else writes there.
    Assumed,
    /// Children of wanted platforms are not at the destination.
    Incomplete(usize),
    /// Referrers are not at the destination.
    Referrers(usize),
    /// Signatures are not at the destination.
    Signatures(usize),
}

impl fmt::Display for Reason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Reason::New => f.write_str("new at the destination"),
            Reason::Moved { from } => write!(f, "the destination has {}", from.short()),
            Reason::Untold(why) => write!(f, "the destination does not tell what it has ({why})"),
            Reason::Form => f.write_str("the destination has it in another form"),
            Reason::Same => f.write_str("same digest at both ends"),
            Reason::Converted => f.write_str("the destination has what was made of it"),
            Reason::Incomplete(count) => {
                write!(f, "{count} of the wanted platforms are missing at the destination")
            }
            Reason::Assumed => f.write_str("the destination is taken to be as it was left"),
            Reason::Signatures(count) => write!(f, "{count} signatures are missing at the destination"),
            Reason::Referrers(count) => write!(f, "{count} referrers are missing at the destination"),
        }
    }
}
