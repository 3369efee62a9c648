//! The decision on one tag: what is to be done and why, given what both ends have. Nothing is asked here.

use super::{Action, DestinationState, Reason};
use crate::{Digest, Form};

/// What was observed of one tag at both ends.
#[derive(Clone, Debug, PartialEq)]
pub struct Observed {
    /// The digest of what would be written.
    pub content: Digest,
    /// What the destination has under that name.
    pub destination: DestinationState,
    /// Whether the destination was not asked, and its state was taken from the journal instead.
    pub assumed: bool,
    /// What the destination showed after an earlier run had converted this content: a digest, or an opaque identifier.
    pub converted: Option<String>,
    /// Which parts of the content are missing at a destination that names it.
    pub missing: Missing,
}

/// What is missing at a destination that has the same digest as the source.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Missing {
    /// How many signatures are missing that the place would keep beside the manifest.
    pub signatures: usize,
    /// How many children of wanted platforms are missing, and how many foreign layers are not known to be there.
    pub parts: usize,
    /// How many manifests are missing that refer to the image or to one of its children.
    pub referrers: usize,
}

/// Decides what is to be done with one tag. `form` is the form in which the image has to be written.
///
/// ```
/// use dray_core::{Action, DestinationState, Digest, Form, Missing, Observed, Reason, decide};
///
/// let (old, new) = (Digest::of(b"old"), Digest::of(b"new"));
/// let seen = Observed {
///     content: new,
///     destination: DestinationState::Named(old.clone()),
///     assumed: false,
///     converted: None,
///     missing: Missing::default(),
/// };
/// assert_eq!(decide(&seen, Form::default()), (Action::Copy, Reason::Moved { from: old }));
/// ```
pub fn decide(seen: &Observed, form: Form) -> (Action, Reason) {
    let missing = seen.missing;
    match &seen.destination {
        DestinationState::NoRepository | DestinationState::Absent | DestinationState::Unasked => {
            (Action::Copy, Reason::New)
        }
        DestinationState::Untold(why) => (Action::Copy, Reason::Untold(why.clone())),
        DestinationState::Opaque(id) if seen.converted.as_ref() == Some(id) => {
            (Action::Unchanged, Reason::Converted)
        }
        DestinationState::Opaque(id) if *id != seen.content.to_string() => match id.parse() {
            Ok(from) => (Action::Copy, Reason::Moved { from }),
            Err(_) => (Action::Copy, Reason::New),
        },
        DestinationState::Opaque(_) if !form.is_unchanged() => (Action::Copy, Reason::Form),
        DestinationState::Opaque(_) => (Action::Unchanged, Reason::Same),
        DestinationState::Named(there) if *there != seen.content => {
            (Action::Copy, Reason::Moved { from: there.clone() })
        }
        DestinationState::Named(_) if seen.assumed => (Action::Unchanged, Reason::Assumed),
        DestinationState::Named(_) => match (missing.signatures, missing.parts, missing.referrers) {
            (0, 0, 0) => (Action::Unchanged, Reason::Same),
            (0, 0, referrers) => (Action::Copy, Reason::Referrers(referrers)),
            (0, parts, _) => (Action::Copy, Reason::Incomplete(parts)),
            (signatures, ..) => (Action::Copy, Reason::Signatures(signatures)),
        },
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Compression;

    #[test]
    fn every_state_of_a_destination_leads_to_one_decision() {
        let (content, other) = (Digest::of(b"content"), Digest::of(b"other"));
        let plain = Form { compression: Some(Compression::None), ..Form::default() };
        let moved = || Reason::Moved { from: other.clone() };
        let named = |digest: &Digest| DestinationState::Named(digest.clone());
        let opaque = |id: &str| DestinationState::Opaque(id.into());
        let missing = |signatures, parts, referrers| Missing { signatures, parts, referrers };
        let whole = Missing::default();
        let (copy, unchanged) = (Action::Copy, Action::Unchanged);
        let rows = [
            (DestinationState::NoRepository, false, None, whole, Form::default(), (copy, Reason::New)),
            (DestinationState::Absent, false, None, whole, Form::default(), (copy, Reason::New)),
            (DestinationState::Unasked, false, None, whole, plain, (copy, Reason::New)),
            (
                DestinationState::Untold("denied".into()),
                false,
                None,
                whole,
                Form::default(),
                (copy, Reason::Untold("denied".into())),
            ),
            (named(&other), false, None, whole, Form::default(), (copy, moved())),
            // An assumption about other content is no reason to leave the tag unchanged.
            (named(&other), true, None, whole, Form::default(), (copy, moved())),
            (named(&content), true, None, whole, Form::default(), (unchanged, Reason::Assumed)),
            (named(&content), false, None, whole, Form::default(), (unchanged, Reason::Same)),
            (named(&content), false, None, missing(1, 2, 3), Form::default(), (copy, Reason::Signatures(1))),
            (named(&content), false, None, missing(0, 2, 3), Form::default(), (copy, Reason::Incomplete(2))),
            (named(&content), false, None, missing(0, 0, 3), Form::default(), (copy, Reason::Referrers(3))),
            (opaque("id"), false, Some("id"), whole, plain, (unchanged, Reason::Converted)),
            (opaque("id"), false, Some("old"), whole, plain, (copy, Reason::New)),
            (opaque("id"), false, None, whole, plain, (copy, Reason::New)),
            (opaque(&other.to_string()), false, None, whole, plain, (copy, moved())),
            (opaque(&content.to_string()), false, None, whole, plain, (copy, Reason::Form)),
            (opaque(&content.to_string()), false, None, whole, Form::default(), (unchanged, Reason::Same)),
        ];
        for (destination, assumed, converted, missing, form, expected) in rows {
            let converted = converted.map(str::to_owned);
            let seen = Observed { content: content.clone(), destination, assumed, converted, missing };
            assert_eq!(decide(&seen, form), expected, "{seen:?}");
        }
    }
}
