//! A plan says, as data, what is to be done with the images of a policy. Each item holds everything that is needed to
//! carry it out, and what was observed when it was decided, so a plan can be saved, read and applied later.

mod decide;
mod prune;
mod saved;

use crate::{
    Descriptor, Digest, Form, Platform, Selection, TrimError, cosign_tags, is_tag,
    policy::{IndexMode, OnChange, Referrers},
    related_tag, select,
};
pub use decide::{Missing, Observed, decide};
pub use prune::{Gone, Spared, may_prune};
pub use saved::{MAX_LINE, PLAN_VERSION, PlanEnd, PlanHeader, PlanLine, PolicyId, ReadPlanError};
use serde::{Deserialize, Serialize};
use std::fmt;

/// One end of a copy.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Endpoint {
    /// Canonical name of the place, with its scheme. All endpoints in one place have the same one.
    pub place: String,
    /// The repository. Its name is unique in its place.
    pub repository: String,
    /// A tag or a digest. `None` means the only image of the place.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub reference: Option<String>,
    /// The whole reference as people write it.
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
    /// The whole image.
    All,
    /// The image of one platform, without the index.
    One(Platform),
    /// The images of several platforms, and what becomes of the index.
    Some(Vec<Platform>, IndexMode),
    /// The index alone, without its images.
    Index,
}

impl ImageChoice {
    /// The platforms that an index keeps. Empty means that it keeps all of its children.
    pub fn platforms(&self) -> &[Platform] {
        match self {
            ImageChoice::Some(platforms, _) => platforms,
            ImageChoice::All | ImageChoice::One(_) | ImageChoice::Index => &[],
        }
    }

    /// Whether an index may be written without some of its children.
    pub fn is_partial(&self) -> bool {
        *self == ImageChoice::Index || !self.platforms().is_empty()
    }

    /// The children of an index that are copied, and those that are not.
    ///
    /// # Errors
    /// Fails if the index has none of the platforms.
    pub fn select(&self, children: &[Descriptor]) -> Result<Selection, TrimError> {
        match self {
            ImageChoice::Index => Ok(Selection { kept: Vec::new(), dropped: children.to_vec() }),
            _ => select(children, self.platforms()),
        }
    }
}

/// What a rule or a command wants of each of its images.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
pub struct Wanted {
    /// Which part of a multi-platform image is wanted.
    pub choice: ImageChoice,
    /// The form that is asked for.
    pub form: Form,
    /// Whether the referrers of an image are copied with it.
    pub referrers: Referrers,
    /// The artifact types of the referrers that are copied. Empty means all of them.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub referrer_types: Vec<String>,
    /// Whether what cosign keeps beneath tags of the image's digests is copied with it.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub cosign_tags: bool,
    /// Templates of further tags that are made of the image's digests and are copied with it (`sha256-{hex}.vex`).
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub related: Vec<String>,
    /// What to do about such tags, and those of cosign, that name something else at the destination.
    #[serde(default, skip_serializing_if = "is_usual")]
    pub on_change: OnChange,
    /// Whether foreign layers are copied, too. Their makers do not let others distribute them.
    pub include_foreign: bool,
    /// Whether it is an error if the image cannot be converted. A command that copies one image sets this, because its
    /// user asked for the conversion.
    pub strict: bool,
    /// Whether files at the destination may be hard links to those at the source.
    pub link: bool,
    /// Whether a tag that the destination lets never change is left as it is. Otherwise the copy fails.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub skip_immutable: bool,
}

/// A list with those of some others that it does not have yet.
fn joined(mut all: Vec<String>, others: impl Iterator<Item = String>) -> Vec<String> {
    for other in others {
        if !all.contains(&other) {
            all.push(other);
        }
    }
    all
}

fn is_usual(on_change: &OnChange) -> bool {
    *on_change == OnChange::default()
}

impl Wanted {
    /// The same, with what another rule wants beside the image itself.
    ///
    /// ```
    /// use dray_core::{Wanted, policy::OnChange};
    ///
    /// let one = Wanted { cosign_tags: true, ..Wanted::whole() };
    /// let other = Wanted { related: vec!["vex-{hex}".into()], on_change: OnChange::Keep, ..Wanted::whole() };
    /// let both = one.clone().with(&other);
    /// assert!(both.cosign_tags && both.related == other.related && both.on_change == OnChange::Keep);
    /// assert_eq!(both.clone().with(&one).with(&other), both);
    /// ```
    pub fn with(mut self, other: &Wanted) -> Self {
        self.referrer_types = match (self.referrers.are_wanted(), other.referrers.are_wanted()) {
            // No types mean all of them.
            (true, true) if self.referrer_types.is_empty() || other.referrer_types.is_empty() => Vec::new(),
            (true, true) => joined(self.referrer_types, other.referrer_types.iter().cloned()),
            (true, false) => self.referrer_types,
            (false, _) => other.referrer_types.clone(),
        };
        self.referrers = self.referrers.max(other.referrers);
        self.cosign_tags |= other.cosign_tags;
        self.related = joined(self.related, other.related.iter().cloned());
        // What one rule does not let change, no other one changes.
        self.on_change = self.on_change.max(other.on_change);
        self
    }

    /// All of an image, as it is, and nothing that refers to it.
    pub fn whole() -> Self {
        Wanted {
            choice: ImageChoice::All,
            form: Form::default(),
            referrers: Referrers::No,
            referrer_types: Vec::new(),
            cosign_tags: false,
            related: Vec::new(),
            on_change: OnChange::default(),
            include_foreign: false,
            strict: true,
            link: false,
            skip_immutable: false,
        }
    }

    /// Whether tags that are made of the image's digests are copied with it.
    pub fn wants_related(&self) -> bool {
        self.cosign_tags || !self.related.is_empty()
    }

    /// The tags that are made of a digest and are copied with what it names, each once.
    pub fn related_tags(&self, digest: &Digest) -> Vec<String> {
        let of_cosign = self.cosign_tags.then(|| cosign_tags(digest)).into_iter().flatten();
        let related = self.related.iter().filter_map(|template| related_tag(template, digest));
        // Of a long hash, some are no tags.
        joined(Vec::new(), of_cosign.chain(related).filter(|tag| is_tag(tag)))
    }

    /// Whether a referrer is copied, by its descriptor in a list.
    pub fn wants_referrer(&self, referrer: &Descriptor) -> bool {
        let kind = referrer.artifact_type.as_deref().unwrap_or_default();
        self.referrer_types.is_empty() || self.referrer_types.iter().any(|wanted| wanted == kind)
    }

    /// Names the parts of an image that are wanted: its platforms, and whether referrers and foreign layers are
    /// included. Empty means all platforms, without referrers and without foreign layers.
    pub fn parts(&self) -> String {
        let mut parts: Vec<String> = self.choice.platforms().iter().map(Platform::to_string).collect();
        parts.sort();
        parts.extend((self.choice == ImageChoice::Index).then(|| "index".to_owned()));
        parts.extend(self.referrers.are_wanted().then(|| "referrers".to_owned()));
        parts.extend(self.referrer_types.iter().cloned());
        parts.extend(self.cosign_tags.then(|| "cosign".to_owned()));
        parts.extend(self.related.iter().cloned());
        parts.extend(self.include_foreign.then(|| "foreign".to_owned()));
        parts.join(",")
    }
}

/// Under what name a manifest is published.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Naming {
    /// Under its digest, because a parent that follows names it.
    Child,
    /// Under its digest, as an image of its own.
    Root,
    /// Under this tag.
    Tag(String),
}

/// What a destination was observed to have under the name that is to be written.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum DestinationState {
    /// The repository does not exist.
    NoRepository,
    /// The repository exists, but nothing in it has the name.
    Absent,
    /// The destination was not asked, because the digest under which the image will be written is not known before.
    Unasked,
    /// The place does not tell what it has. The text says why.
    Untold(String),
    /// The name resolves to a manifest with this digest.
    Named(Digest),
    /// The place identifies the image only by an identifier of its own, such as the image ID of a daemon.
    Opaque(String),
}

impl DestinationState {
    /// Whether a plan that observed `self` may overwrite a destination that is now in the state `now`. It may if the
    /// state has not changed. The two states in which nothing was found count as the same, and so do all reasons for
    /// not telling.
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

/// What was observed at both ends when an item was decided.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Seen {
    /// The digest to which the source's name resolved, before a platform was chosen or an index was trimmed.
    pub source: Digest,
    /// The state of the destination.
    pub destination: DestinationState,
}

/// An item of a plan: one descriptor graph that is to be moved to one reference, and the reason.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Copy {
    /// The name of the rule that asks for it.
    pub rule: String,
    /// Where the image is read.
    pub source: Endpoint,
    /// The tag by which the user named the image, if it is read by the digest to which the tag is pinned.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub pinned: Option<String>,
    /// Where the image is written.
    pub destination: Endpoint,
    /// What the rule wants of the image.
    pub wanted: Wanted,
    /// Under what name the image is published at the destination.
    pub naming: Naming,
    /// What will be written: the content that the source names, the image of one platform, or a trimmed index. A saved
    /// plan keeps only its media type, digest and size.
    #[serde(with = "saved::content")]
    pub descriptor: Descriptor,
    /// The form in which the image has to be written. An unchanged form means that it is not converted.
    pub form: Form,
    /// What was observed at both ends.
    pub seen: Seen,
    /// What is to be done.
    pub action: Action,
    /// Why this is to be done.
    pub reason: Reason,
    /// The template of the tag under which the image is kept that the copy replaces (`{tag}-before-{date}`). `None` means
    /// that it is not kept.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub backup: Option<String>,
}

/// An item of a plan: a tag that is to be deleted at a destination, because the source no longer has it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Deletion {
    /// The name of the rule that asks for it.
    pub rule: String,
    /// The tag at the source, which is not there.
    pub source: Endpoint,
    /// The tag that goes.
    pub destination: Endpoint,
    /// What the tag names. If it names anything else by then, it stays.
    pub digest: Digest,
    /// The template of the tag under which its image is kept. `None` means that it is not kept.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub backup: Option<String>,
    /// Whether it goes because nothing keeps it (`[[retain]]`). The source is then the tag itself.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub unkept: bool,
}

impl Deletion {
    /// Whether it is of a manifest that no tag names.
    pub fn is_untagged(&self) -> bool {
        self.destination.reference.as_deref().is_some_and(|reference| reference.parse::<Digest>().is_ok())
    }

    /// Why the tag goes, for people.
    pub fn reason(&self) -> &'static str {
        match self.unkept {
            true if self.is_untagged() => "no tag names it",
            true => "nothing keeps it",
            false => "the source no longer has it",
        }
    }
}

/// What is to be done with a tag.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Action {
    /// The image is copied, because the destination differs or does not tell what it has.
    Copy,
    /// Nothing is done, because the destination has the image.
    Unchanged,
    /// The tag is deleted at the destination, because the source no longer has it.
    Delete,
    /// Nothing is done, because a filter dropped the tag.
    Drop,
    /// It failed, or it cannot be done.
    Fail,
}

impl Action {
    /// The word that reports use.
    pub fn as_str(self) -> &'static str {
        match self {
            Action::Copy => "copy",
            Action::Unchanged => "unchanged",
            Action::Delete => "delete",
            Action::Drop => "drop",
            Action::Fail => "fail",
        }
    }
}

/// Why an item has its action.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Reason {
    /// The destination does not have the tag.
    New,
    /// The destination's tag names something else.
    Moved {
        /// The digest that it names.
        from: Digest,
    },
    /// The destination does not tell what it has. The text says why.
    Untold(String),
    /// The destination has the image in another form than the one that is asked for.
    Form,
    /// The destination's tag names something else, and the rule leaves it.
    Kept {
        /// What it names, for people.
        there: String,
    },
    /// The destination lets the tag never change, and the rule leaves it.
    Immutable,
    /// The destination has the same content.
    Same,
    /// The destination has what an earlier run made of the content when it converted it.
    Converted,
    /// The journal says that the destination has it, and nobody else writes there.
    Assumed,
    /// How many parts are missing at the destination: children of wanted platforms, and foreign layers.
    Incomplete(usize),
    /// How many referrers are missing at the destination.
    Referrers(usize),
    /// How many signatures are missing at the destination.
    Signatures(usize),
}

impl fmt::Display for Reason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Reason::New => f.write_str("new at the destination"),
            Reason::Moved { from } => write!(f, "the destination has {}", from.short()),
            Reason::Untold(why) => write!(f, "the destination does not tell what it has ({why})"),
            Reason::Form => f.write_str("the destination has it in another form"),
            Reason::Kept { there } => {
                write!(f, "kept: the destination has {there}, and the rule lets no tag change")
            }
            Reason::Immutable => f.write_str("kept: the destination lets the tag never change"),
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
