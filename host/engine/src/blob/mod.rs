//! Blobs on their way: read piece by piece, hashed, and stored step by step.

pub(crate) mod reader;
pub(crate) mod transfer;
