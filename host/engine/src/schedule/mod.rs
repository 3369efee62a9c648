//! What may happen now: how many requests a host has at once, which blob moves next, and how fast.

pub(crate) mod action;
pub(crate) mod fair_share;
pub(crate) mod queue;
pub(crate) mod rate;
pub(crate) mod route;
pub(crate) mod window;
