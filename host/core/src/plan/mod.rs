//! A plan: what is to be done about the images of a policy, as data. An item says all that it takes to carry it out,
//! and what was seen when it was decided, so a plan can be kept, read and carried out later.

mod decide;
mod saved;

use crate::{
    Descriptor, Digest, Form, Platform,
    policy::{IndexMode, Referrers},
};
pub use decide::{Missing, Observed, decide};
pub use saved::{MAX_LINE, PLAN_VERSION, PlanEnd, PlanHeader, PlanLine, PolicyId, ReadPlanError};
use serde::{Deserialize, Serialize};
use std::fmt;

/// One end of a copy.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Endpoint {
    /// Canonical name of the place, with its scheme: two endpoints of one place have it in common.
    pub place: String,
    /// Unique in its place.
    pub repository: String,
    /// Tag or digest. `None` means the only image of its place.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub reference: Option<String>,
    /// As people write it.
    pub display: String,
}

impl fmt::Display for Endpoint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.display)
    }
}

/// Which part of a multi-platform image is wanted.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum ImageChoice {
    /// The whole.
    All,
    /// The image of one platform, without the index.
    One(Platform),
    /// Several platforms.
    Some(Vec<Platform>, IndexMode),
}

impl ImageChoice {
    /// What an index keeps of its children. Empty means all of them.
    pub fn platforms(&self) -> &[Platform] {
        match self {
            ImageChoice::Some(platforms, _) => platforms,
            ImageChoice::All | ImageChoice::One(_) => &[],
        }
    }
}

/// What a rule, or a command, wants of each of its images.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
pub struct Wanted {
    /// Which part of a multi-platform image.
    pub choice: ImageChoice,
    /// The form that is asked for.
    pub form: Form,
    /// Whether what refers to an image is copied with it.
    pub referrers: Referrers,
    /// Layers that their makers do not let others distribute are copied, too.
    pub include_foreign: bool,
    /// What cannot be converted is an error: it is one image, and its user asked for it.
    pub strict: bool,
    /// Files of the destination may be further names of the source's.
    pub link: bool,
}

impl Wanted {
    /// Names the parts of an image that are wanted: its platforms, and whether referrers and foreign layers are among
    /// them. Empty means the whole without either.
    pub fn parts(&self) -> String {
        let mut parts: Vec<String> = self.choice.platforms().iter().map(Platform::to_string).collect();
        parts.sort();
        parts.extend(self.referrers.are_wanted().then(|| "referrers".to_owned()));
        parts.extend(self.include_foreign.then(|| "foreign".to_owned()));
        parts.join(",")
    }
}

/// How a manifest is published.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Naming {
    /// By digest, for a parent that follows.
    Child,
    /// By digest.
    Root,
    /// Under a tag.
    Tag(String),
}

/// What a destination was seen to have under the name that is to be written.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum DestinationState {
    /// Not even the repository is there.
    NoRepository,
    /// The repository is there, and nothing of that name.
    Absent,
    /// Nothing was asked: the digest under which the image will be written is known only when it is written.
    Unasked,
    /// The place does not tell; why.
    Untold(String),
    /// A manifest with this digest.
    Named(Digest),
    /// Something that the place tells only by an identifier of its own, such as the image ID of a daemon.
    Opaque(String),
}

impl DestinationState {
    /// Whether a destination in this state may be overwritten by a plan that saw the other one. Two ways of finding
    /// nothing are the same; a place that did not tell has promised nothing.
    pub fn allows(&self, now: &DestinationState) -> bool {
        use DestinationState::{Absent, NoRepository, Unasked, Untold};
        match (self, now) {
            (NoRepository | Absent, NoRepository | Absent) | (Unasked, Unasked) => true,
            (Untold(_), Untold(_)) => true,
            (before, now) => before == now,
        }
    }
}

impl fmt::Display for DestinationState {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            DestinationState::NoRepository | DestinationState::Absent => f.write_str("nothing of that name"),
            DestinationState::Unasked => f.write_str("what it was not asked about"),
            DestinationState::Untold(_) => f.write_str("what it does not tell"),
            DestinationState::Named(digest) => write!(f, "{}", digest.short()),
            DestinationState::Opaque(id) => f.write_str(id),
        }
    }
}

/// What was seen at both ends when an item was decided.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Seen {
    /// What the source's name led to, before a platform was chosen or an index trimmed.
    pub source: Digest,
    /// What the destination had.
    pub destination: DestinationState,
}

/// An item of a plan: one descriptor graph to be moved to one reference, with the reason.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Copy {
    /// The rule that asks for it.
    pub rule: String,
    /// From where.
    pub source: Endpoint,
    /// To where.
    pub destination: Endpoint,
    /// What the rule wants of the image.
    pub wanted: Wanted,
    /// How it is named at the destination.
    pub naming: Naming,
    /// What will be written: what the source names, the image of one platform, or a trimmed index. Kept with its media
    /// type, digest and size alone.
    #[serde(with = "saved::content")]
    pub descriptor: Descriptor,
    /// The form in which it will be written, where that is another one.
    pub form: Form,
    /// What was seen at both ends.
    pub seen: Seen,
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

/// Why an item is what it is.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Reason {
    /// The destination does not have the tag.
    New,
    /// The destination's tag names something else.
    Moved {
        /// What it names.
        from: Digest,
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
