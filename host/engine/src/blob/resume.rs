//! How far an upload has come, so that a later process can go on with it.

use serde::{Deserialize, Serialize};

/// How far an upload has come.
#[derive(Serialize, Deserialize)]
pub(super) struct Progress {
    /// What the transport wants to find again.
    pub state: Vec<u8>,
    /// Bytes that were sent, and the hasher that has taken them in.
    pub position: u64,
    pub hashed: Vec<u8>,
}
