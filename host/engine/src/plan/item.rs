//! The items of a plan as they pass from the planner to the run.

use crate::{Error, Repository};
use dray_core::{Copy, DestinationState, Endpoint, Manifest};
use tokio::sync::OwnedSemaphorePermit;

/// Something that a plan holds.
pub enum Planned {
    /// A copy, or a tag that needs none.
    Copy(Box<PlannedCopy>),
    /// A filter dropped a tag.
    Dropped {
        /// The rule whose filter it was.
        rule: String,
        /// What was dropped.
        source: Endpoint,
        /// Which filter, with its configuration.
        by: String,
    },
    /// It could not be planned.
    Failed {
        /// The rule.
        rule: String,
        /// From where.
        source: String,
        /// To where.
        destination: String,
        /// Why.
        error: Error,
    },
}

/// An item of a plan, and what this process has at hand for carrying it out.
pub struct PlannedCopy {
    /// The item: all that was decided.
    pub copy: Copy,
    pub(crate) source: Repository,
    pub(crate) destination: Repository,
    /// What is to be published, where it had to be read already.
    pub(crate) manifest: Option<Manifest>,
    /// Its permit among the copies that a plan may be ahead. `None` means that it does not count.
    pub(crate) lead: Option<OwnedSemaphorePermit>,
}

impl PlannedCopy {
    /// Whether the repository of the destination held nothing when the plan was made.
    pub(crate) fn is_fresh(&self) -> bool {
        self.copy.seen.destination == DestinationState::NoRepository
    }
}
