//! The new archive that is being written beside the old one.

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

/// Largest member in bytes. No layer is as large, and sums of sizes stay far from overflow.
pub(super) const LARGEST: u64 = 1 << 42;

/// The new archive.
#[derive(Default)]
pub(super) struct NewArchive {
    /// Small files, which may change until the end.
    pub documents: BTreeMap<String, Vec<u8>>,
    pub removed: HashSet<String>,
    pub members: Index,
    pub file: Option<Arc<File>>,
    /// What makes it appear. `None` means that it is only in `scratch`.
    pub fresh: Option<AtomicFile>,
    /// Members that were begun before, by another process too.
    pub begun: HashMap<String, Begun>,
    /// Where they end.
    pub begun_end: u64,
    /// Its part is of use until the new archive has its name.
    pub replaced: Option<AtomicFile>,
}

impl NewArchive {
    /// Finds the members that another process began. What is no header ends them: a member of unknown size has
    /// none before it is whole.
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
        // What comes after them is of a member that nobody can go on with.
        file.set_len(self.begun_end)
    }

    pub fn is_clean(&self) -> bool {
        self.documents.is_empty() && self.removed.is_empty() && self.members.names().next().is_none()
    }
}
