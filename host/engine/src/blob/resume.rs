//! The progress of an upload, which lets a later process resume it.

use serde::{Deserialize, Serialize};

/// The progress of an upload.
#[derive(Serialize, Deserialize)]
pub(super) struct Progress {
    /// The state that the transport gets back.
    pub state: Vec<u8>,
    /// Bytes that were read, and the state of the hasher after them.
    pub position: u64,
    pub hashed: Vec<u8>,
}
