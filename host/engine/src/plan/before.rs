//! What is known of a destination's tag before anything is asked.

use crate::{journal::SeenTag, place::OpenReference};
use dray_core::{Descriptor, media_type};

/// What is known not to be at a destination, before it is asked.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum Absent {
    /// Nothing is known.
    Unknown,
    /// The tag.
    Tag,
    /// The whole repository.
    Repository,
}

/// What is known of a destination's tag before anything is asked.
pub(crate) struct Before {
    pub absent: Absent,
    /// What it named when dray saw it last.
    pub tag: Option<SeenTag>,
}

impl Before {
    /// What the journal knows.
    pub fn of(destination: &OpenReference, reference: Option<&str>) -> Self {
        let tag = tag_of(destination.reference.as_deref().or(reference));
        let known = tag.zip(destination.repository.memory());
        Before {
            absent: Absent::Unknown,
            tag: known.and_then(|(tag, (journal, key))| journal.tag(&key, tag)),
        }
    }

    /// What the source is likely to name.
    pub fn known(&self) -> Option<&Descriptor> {
        let known = self.tag.as_ref().map(|seen| &seen.named);
        known.filter(|known| media_type::is_manifest(&known.media_type))
    }
}

/// A reference that is a tag.
pub(crate) fn tag_of(reference: Option<&str>) -> Option<&str> {
    reference.filter(|reference| !reference.contains(':'))
}
