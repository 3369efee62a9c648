//! The knowledge about a destination's tag before any request.

use crate::{journal::SeenTag, place::OpenReference};
use dray_core::{Descriptor, Digest, media_type};

/// What is known to be absent at a destination, before it is asked.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum Absent {
    /// Nothing is known.
    Unknown,
    /// The tag is absent.
    Tag,
    /// The whole repository is absent.
    Repository,
}

/// The knowledge about a destination's tag before any request.
pub(crate) struct Before {
    pub absent: Absent,
    /// What the tag named when dray last saw it.
    pub tag: Option<SeenTag>,
    /// What a list of the destination says that the tag names now.
    pub listed: Option<Digest>,
}

impl Before {
    /// Looks the tag up in the journal.
    pub fn of(destination: &OpenReference, reference: Option<&str>) -> Self {
        let tag = tag_of(destination.reference.as_deref().or(reference));
        let known = tag.zip(destination.repository.memory());
        Before {
            absent: Absent::Unknown,
            listed: None,
            tag: known.and_then(|(tag, (journal, key))| journal.tag(&key, tag)),
        }
    }

    /// What a list of the source says that the tag names, with a media type, if it is known. A size of 0 means that the list
    /// does not say it.
    pub fn of_list(&self, listed: &Descriptor) -> Option<Descriptor> {
        // The journal knows the size, too.
        let known = self.known().filter(|known| known.digest == listed.digest).cloned();
        known.or_else(|| media_type::is_manifest(&listed.media_type).then(|| listed.clone()))
    }

    /// The manifest that the source is likely to name: the one that the destination tag last named.
    pub fn known(&self) -> Option<&Descriptor> {
        let known = self.tag.as_ref().map(|seen| &seen.named);
        known.filter(|known| media_type::is_manifest(&known.media_type))
    }
}

/// The reference if it is a tag, and not a digest.
pub(crate) fn tag_of(reference: Option<&str>) -> Option<&str> {
    reference.filter(|reference| !reference.contains(':'))
}
