//! Scheduling: how many requests a host gets at once, which blob moves next, and at which rate.

pub(crate) mod action;
pub(crate) mod fair_share;
pub(crate) mod queue;
pub(crate) mod rate;
pub(crate) mod route;
pub(crate) mod window;
