//! What a rule says about single tags: pins, literals, and what to do if nothing matches or a tag has moved.

use super::{bind::BoundRule, item::PlannedCopy};
use crate::{Error, Kind, Result, place::OpenReference};
use dray_core::{
    Action, Copy, DestinationState, Digest, Naming, Reason,
    policy::{Backup, OnChange, OnEmpty},
};

impl BoundRule {
    /// The digest to which the rule pins a tag.
    pub(crate) fn pinned(&self, tag: &str) -> Option<&Digest> {
        self.tags.as_ref()?.pins.get(tag)
    }

    /// Whether the rule or its source names a tag literally, and does not take it from a list.
    pub(crate) fn is_literal(&self, tag: &str, source: &OpenReference) -> bool {
        let named = self.tags.as_ref().is_some_and(|tags| tags.literals.iter().any(|literal| literal == tag));
        named || source.reference.is_some()
    }

    /// Leaves a tag that names something else, or refuses to overwrite it, if the rule says so (`on-change`).
    pub(crate) fn allowed(&self, mut planned: PlannedCopy) -> Result<PlannedCopy> {
        let Copy { destination, descriptor, naming, seen, action, .. } = &planned.copy;
        let keeps = match &seen.destination {
            DestinationState::NoRepository | DestinationState::Absent => true,
            // What is missing of an image is added, and the tag stays.
            DestinationState::Named(there) => *there == descriptor.digest && planned.copy.form.is_unchanged(),
            _ => false,
        };
        let overwrites = *action == Action::Copy && matches!(naming, Naming::Tag(_)) && !keeps;
        match self.on_change {
            OnChange::Keep if overwrites => {
                let there = seen.destination.to_string();
                tracing::info!("{destination} is kept: it has {there}");
                planned.copy.action = Action::Unchanged;
                planned.copy.reason = Reason::Kept { there };
                Ok(planned)
            }
            OnChange::Refuse if overwrites => {
                let text = format!(
                    "copy to {destination}: it has {}, the source has {}, and the rule does not let tags change",
                    seen.destination,
                    descriptor.digest.short()
                );
                let help =
                    "delete the destination's tag if it may change, or set on-change to \"copy\" or \"keep\"";
                Err(Error::new(Kind::Conflict, text).help(help))
            }
            _ => {
                if overwrites {
                    planned.copy.backup = self.order.backup.as_ref().map(Backup::to_string);
                }
                Ok(planned)
            }
        }
    }

    /// Warns that no tag of a repository is wanted, or fails if the rule says so (`on-empty = "error"`).
    pub(crate) fn empty(&self, source: &OpenReference, dropped: usize) -> Result<()> {
        let why = match dropped {
            0 => "it has no tags".to_owned(),
            1 => "its one tag is dropped by the filters".to_owned(),
            _ => format!("all of its {dropped} tags are dropped by the filters"),
        };
        match self.on_empty {
            OnEmpty::Warn => {
                tracing::warn!("the rule `{}` copies nothing of {}: {why}", self.name, source.written);
                Ok(())
            }
            OnEmpty::Error => {
                let text = format!("copy anything of {}: {why}", source.written);
                let help = "`dray plan` lists what each filter drops; on-empty = \"warn\" goes on";
                Err(Error::new(Kind::NotFound, text).help(help))
            }
        }
    }
}
