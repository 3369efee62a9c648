//! Turns the rules of a policy into the items of a plan: lists, filters, chooses, observes, decides.

mod again;
mod before;
mod bind;
mod choose;
mod expand;
mod foresee;
mod form;
mod item;
mod observe;
mod partition;
mod planner;
mod prune;
mod retain;
mod rule;
mod single;
mod sizes;
mod sources;
mod subject;
mod tags;
mod template;
mod untagged;

pub use again::{delete_again, observe_again};
pub(crate) use before::tag_of;
pub use bind::{BoundRetain, BoundRule, bind, bind_retains, in_call, unknown};
pub use foresee::SparseIndex;
pub(crate) use form::{compression_of, is_truly_in};
pub(crate) use item::REQUIRE;
pub use item::{Planned, PlannedCopy, PlannedDeletion};
pub use planner::plan;
pub use retain::plan_retention;
pub use single::{CopyRequest, plan_copy};
pub use sources::{SourceTags, source_tags};
