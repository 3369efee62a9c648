//! The items of a plan, as the planner passes them to the run.

use crate::{Error, Kind, Repository, Result, place::OpenReference};
use dray_core::{Copy, Deletion, Descriptor, DestinationState, Endpoint, Manifest};
use tokio::sync::OwnedSemaphorePermit;

/// What dropped an image that the demands of its rule refused (`Planned::Dropped::by`).
pub(crate) const REQUIRE: &str = "require";

/// An item of a plan.
pub enum Planned {
    /// A copy, or a tag that needs no copy.
    Copy(Box<PlannedCopy>),
    /// A tag that is to be deleted at the destination, after all copies.
    Delete(Box<PlannedDeletion>),
    /// A tag that a filter dropped.
    Dropped {
        /// The rule with the filter.
        rule: String,
        /// The tag that was dropped.
        source: Endpoint,
        /// The filter with its configuration.
        by: String,
        /// The filter's reason, if it gave one: "older than 90d".
        why: Option<String>,
    },
    /// A copy that could not be planned.
    Failed {
        /// The rule.
        rule: String,
        /// The source.
        source: String,
        /// The destination.
        destination: String,
        /// The reason.
        error: Error,
        /// Whether only deletions could not be planned, so that the copies of the rule are not affected.
        deletes: bool,
    },
}

/// A copy of a plan, with the values that this process needs for executing it.
pub struct PlannedCopy {
    /// The copy, with all decisions.
    pub copy: Copy,
    pub(crate) source: Repository,
    pub(crate) destination: Repository,
    /// The manifest to publish, if it had to be read for planning.
    pub(crate) manifest: Option<Manifest>,
    /// Whether signatures were checked, so that exactly what was checked must be copied.
    pub(crate) checked: bool,
    /// A permit that limits how far the plan runs ahead. `None` means that the copy is not counted.
    pub(crate) lead: Option<OwnedSemaphorePermit>,
}

/// A deletion of a plan, with what this process needs for executing it.
pub struct PlannedDeletion {
    /// The deletion.
    pub deletion: Deletion,
    /// The repository of the tag.
    pub(crate) destination: OpenReference,
    /// How many tags the source listed when this was planned. `None` means that it is not to be remembered.
    pub(crate) listed: Option<usize>,
}

impl PlannedCopy {
    /// Reads the manifest that a list named, unless planning has read it or a part of it. The result is false if it is not
    /// there any more.
    pub(crate) async fn read_listed(&mut self, listed: &Descriptor) -> Result<bool> {
        if self.manifest.is_some() || self.copy.descriptor.digest != listed.digest {
            return Ok(true);
        }
        match self.source.manifest_named(None, listed).await {
            Ok(manifest) => {
                // A list need not say the size.
                self.copy.descriptor.size = manifest.descriptor.size;
                self.manifest = Some(manifest);
                Ok(true)
            }
            Err(error) if error.kind == Kind::NotFound => Ok(false),
            Err(error) => Err(error.context(format!("read {}", self.copy.source.display))),
        }
    }

    /// The same copy, for another attempt.
    pub(crate) fn again(&self) -> PlannedCopy {
        PlannedCopy {
            copy: self.copy.clone(),
            source: self.source.clone(),
            destination: self.destination.clone(),
            manifest: self.manifest.clone(),
            checked: self.checked,
            lead: None,
        }
    }

    /// Whether the destination repository was empty when the plan was made.
    pub(crate) fn is_fresh(&self) -> bool {
        self.copy.seen.destination == DestinationState::NoRepository
    }
}
