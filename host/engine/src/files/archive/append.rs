//! Writes a member to a new archive, and resumes a member that was begun.

use super::Archive;
use crate::{
    files::read::Positioned,
    lock,
    tar::{BLOCK, header, malformed, padding},
};
use rustix::fs::{FallocateFlags, SeekFrom, fallocate};
use std::{fs::File, os::unix::fs::FileExt, sync::Arc};
use tokio::sync::OwnedMutexGuard;

/// Bytes. Few file systems make holes in larger blocks. On those, a resumed member may contain zeros, which its digest
/// reveals.
const LARGEST_BLOCK: u64 = 4 << 20;

/// Deallocates a range of a file.
pub(super) fn punch(file: &File, offset: u64, size: u64) {
    let hole = FallocateFlags::PUNCH_HOLE | FallocateFlags::KEEP_SIZE;
    // If the file system has no holes, the digest reveals to the process that resumes the member that its content is
    // wrong.
    let _ = fallocate(file, hole, offset, size);
}

/// A member that was begun, and is not whole yet or was written by an earlier process.
pub(super) struct Begun {
    /// Offset of its content in the file, and its size in bytes.
    pub offset: u64,
    pub size: u64,
    /// Number of bytes that are written. `None` means that the holes of the file tell.
    pub there: Option<u64>,
}

/// A member that is being written to the new archive.
pub(in crate::files) struct Append {
    pub(super) archive: Arc<Archive>,
    pub(super) name: String,
    pub(super) file: Arc<File>,
    /// Offset of its header.
    pub(super) start: u64,
    pub(super) written: u64,
    pub(super) size: Option<u64>,
    /// Number of bytes that were written before it was resumed. `None` means that the holes of the file tell.
    pub(super) there: Option<u64>,
    /// Locked while the size of the member is not known, because the next member begins after it.
    pub(super) tail: Option<OwnedMutexGuard<u64>>,
}

impl Append {
    pub fn write(&mut self, bytes: &[u8]) -> std::io::Result<()> {
        if self.size.is_some_and(|size| self.written + bytes.len() as u64 > size) {
            return Err(malformed(format!("{} is longer than it was said to be", self.name)));
        }
        self.file.write_all_at(bytes, self.start + BLOCK + self.written)?;
        self.written += bytes.len() as u64;
        Ok(())
    }

    /// The range of its content that is already there.
    pub fn there(&mut self) -> std::io::Result<Positioned> {
        let (offset, size) = (self.start + BLOCK, self.size.unwrap_or(0));
        self.written = match self.there {
            Some(there) => there,
            None => {
                // Seeking to a hole fails if the offset is beyond the end of the file.
                let hole = rustix::fs::seek(&self.file, SeekFrom::Hole(offset)).unwrap_or(offset);
                let there = hole.min(self.file.metadata()?.len()).saturating_sub(offset).min(size);
                // A block that is only partly filled looks like a whole one, so the bytes of one block are written
                // again.
                there.saturating_sub(LARGEST_BLOCK)
            }
        };
        Ok(Positioned { file: self.file.clone(), offset, end: offset + self.written })
    }

    /// Stops writing. The member can be resumed.
    pub fn leave(self) {
        if let Some(size) = self.size {
            let begun = Begun { offset: self.start + BLOCK, size, there: Some(self.written) };
            lock(&self.archive.staged).begun.insert(self.name, begun);
        }
    }

    /// Stops writing because the content is wrong. The range of the member stays reserved for the next attempt.
    pub fn discard(mut self) {
        if let Some(size) = self.size {
            punch(&self.file, self.start + BLOCK, size);
        }
        self.written = 0;
        self.leave();
    }

    /// Stops writing because it failed. Nothing of the new archive stays if this process ends before it is sealed.
    pub fn fail(self) {
        if let Some(fresh) = &mut lock(&self.archive.staged).fresh {
            fresh.forget();
        }
        // The freed space may be enough for the other members.
        self.discard();
    }

    pub fn keep(mut self) -> std::io::Result<()> {
        if self.size.is_some_and(|size| self.written != size) {
            return Err(malformed(format!("{} is shorter than it was said to be", self.name)));
        }
        self.file.write_all_at(&header(&self.name, self.written)?, self.start)?;
        if let Some(tail) = &mut self.tail {
            **tail = self.start + BLOCK + self.written + padding(self.written);
        }
        let mut staged = lock(&self.archive.staged);
        staged.removed.remove(&self.name);
        staged.members.insert(&self.name, self.start + BLOCK, self.written);
        Ok(())
    }
}
