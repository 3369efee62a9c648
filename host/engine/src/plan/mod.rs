//! From the rules of a policy to the items of a plan.

pub(crate) mod bind;
pub(crate) mod compare;
pub(crate) mod expand;
pub(crate) mod partition;
pub(crate) mod planner;
pub(crate) mod single;
