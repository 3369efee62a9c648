//! Blobs on their way: read piece by piece, hashed, and stored step by step.

mod reader;
mod recompress;
mod resume;
mod transfer;
mod write;

pub(crate) use recompress::{check_diff_id, measure, recompress};
pub(crate) use transfer::{Payload, Transfer, disk_permit};
