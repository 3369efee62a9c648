//! The new archive, which is written beside the old one.

use super::append::Begun;
use crate::{
    files::{atomic::AtomicFile, read::Positioned},
    tar::{BEGUN, Index, Kind, Reader, padding},
};
use std::{
    collections::{BTreeMap, HashMap, HashSet},
    fs::File,
    sync::Arc,
};

/// Largest member in bytes. No layer is that large, and the limit keeps sums of sizes far from overflow.
pub(super) const LARGEST: u64 = 1 << 42;

/// The new archive.
#[derive(Default)]
pub(super) struct NewArchive {
    /// Small files, which may change until the archive is sealed.
    pub documents: BTreeMap<String, Vec<u8>>,
    pub removed: HashSet<String>,
    pub members: Index,
    pub file: Option<Arc<File>>,
    /// Gives the archive its name. `None` means that the archive exists only in `scratch`.
    pub fresh: Option<AtomicFile>,
    /// Members that were begun before, also by another process.
    pub begun: HashMap<String, Begun>,
    /// Offset at which the last of them ends.
    pub begun_end: u64,
    /// The file from which this archive was compacted. It stays as a partial file until this archive has its name.
    pub replaced: Option<AtomicFile>,
}

impl NewArchive {
    /// Finds the members that another process began. They end at the first block that is not a header, because a member
    /// of unknown size has no header until it is whole.
    pub fn take_up(&mut self, file: &Arc<File>) -> std::io::Result<()> {
        let end = file.metadata()?.len();
        let mut reader = Reader::new(Positioned { file: file.clone(), offset: 0, end });
        while let Ok(Some(entry)) = reader.advance() {
            let Ok(name) = String::from_utf8(entry.name) else { break };
            if entry.kind != Kind::File || entry.size > LARGEST {
                break;
            }
            self.begun_end = entry.offset + entry.size + padding(entry.size);
            let begun = Begun {
                offset: entry.offset,
                size: entry.size,
                there: (entry.mode != BEGUN).then_some(entry.size),
            };
            self.begun.insert(name, begun);
        }
        // What follows belongs to a member that cannot be resumed.
        file.set_len(self.begun_end)
    }

    pub fn is_clean(&self) -> bool {
        self.documents.is_empty() && self.removed.is_empty() && self.members.names().next().is_none()
    }
}
