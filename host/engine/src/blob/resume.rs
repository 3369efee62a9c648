//! The progress of an upload, which lets a later attempt or process resume it, and the pieces in which it travels.

use super::{
    reader::BlobReader,
    transfer::{Memory, Moving, Payload},
};
use crate::{
    Error, Kind,
    contract::{Arrival, NextStep, Step},
};
use serde::{Deserialize, Serialize};
use std::sync::atomic::Ordering;

/// Size in bytes above which the progress of a blob is recorded in any case, so that a later process can resume it. A
/// transport sends such a blob in pieces if its place accepts pieces.
const RESUMABLE: u64 = 256 << 20;

/// The progress of an upload.
#[derive(Serialize, Deserialize)]
pub(super) struct Progress {
    /// The state that the transport gets back.
    pub state: Vec<u8>,
    /// Bytes that were read, and the state of the hasher after them.
    pub position: u64,
    pub hashed: Vec<u8>,
}

impl Moving<'_> {
    /// Whether a failure may be about what an earlier attempt left, so that beginning anew may help: its content is wrong,
    /// or what is left of it is refused before anything was sent.
    pub(super) fn is_of_an_earlier_attempt(&self, error: &Error) -> bool {
        let refused = self.sent == 0 && !error.is_transient() && error.kind != Kind::Cancelled;
        let ranged = self.ranged.load(Ordering::Relaxed) && error.kind == Kind::Corrupt;
        ranged || self.taken_up && (error.kind == Kind::Corrupt || refused)
    }

    /// Reads blobs of the source over one connection from now on, if some of this one came in ranges. Returns whether it
    /// did.
    pub(super) fn without_ranges(&self) -> bool {
        let ranged = self.ranged.swap(false, Ordering::Relaxed);
        if let (true, Some(http)) = (ranged, &self.transfer.source.place.http) {
            http.learn_lines(1);
        }
        ranged
    }

    /// Remembers that the host loses pieces, if the blob was stored only after it was sent whole.
    pub(super) fn learn_from(&self, arrival: Arrival) {
        if let (Arrival::Stored, true, Some(http)) =
            (arrival, self.in_pieces && self.whole, &self.transfer.destination.place.http)
        {
            http.no_pieces();
        }
    }

    /// Records in the journal how far the upload has come, before more of it is sent.
    pub(super) fn save(&mut self, memory: Option<&Memory<'_>>, next: &NextStep) {
        if let Some(reader) = self.reader.as_ref().filter(|reader| reader.position() > 0)
            && let (Some((journal, key)), Some(hashed), Step::Send { .. }) =
                (memory, reader.hashed(), &next.step)
        {
            let progress = Progress { state: next.state.clone(), position: reader.position(), hashed };
            // The progress consists of bytes and numbers, so it always serialises.
            let bytes = serde_json::to_vec(&progress).unwrap_or_default();
            journal.uploading(key.clone(), &self.blob.digest, Some(bytes));
            self.saved = Some(progress);
        }
    }

    /// Discards the reader and the recorded progress.
    pub(super) fn begin_anew(&mut self, memory: Option<&Memory<'_>>) {
        self.forget(memory);
        self.reader = None;
    }

    /// Removes the recorded progress from the journal.
    pub(super) fn forget(&mut self, memory: Option<&Memory<'_>>) {
        if let (Some(_), Some((journal, key))) = (self.saved.take(), memory) {
            journal.uploading(key.clone(), &self.blob.digest, None);
        }
    }

    /// Whether the payload is the blob as the source has it, which a later process can read again.
    pub(super) fn is_as_the_source_has_it(&self) -> bool {
        matches!(self.transfer.payload, Payload::Blob(_))
    }

    /// Whether a later process can resume the transfer.
    pub(super) fn is_resumable(&self) -> bool {
        self.is_as_the_source_has_it() && (self.cut || self.blob.size > RESUMABLE)
    }

    /// How many bytes a request should carry. `None` means as many as the place likes.
    pub(super) fn piece(&self) -> Option<u64> {
        let http = self.transfer.destination.place.http.as_ref()?;
        let done = self.reader.as_ref().map_or(0, BlobReader::position);
        http.piece(self.blob.size.saturating_sub(done))
    }
}
