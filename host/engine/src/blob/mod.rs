//! Blobs that are transferred: they are read in segments, hashed, and stored step by step.

mod ending;
mod ranges;
mod reader;
mod recompress;
mod resume;
mod shown;
mod transfer;
mod write;

pub use ending::STOP_GRACE;
pub(crate) use ending::{Ending, stopped};
pub(crate) use recompress::{check_diff_id, measure, recompress};
pub(crate) use transfer::{Payload, Transfer, disk_permit};
