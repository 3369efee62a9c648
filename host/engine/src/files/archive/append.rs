//! A member that is being written to a new archive, and what is left of one.

use super::Archive;
use crate::{
    files::read::Positioned,
    lock,
    tar::{BLOCK, header, malformed, padding},
};
use rustix::fs::{FallocateFlags, SeekFrom, fallocate};
use std::{fs::File, os::unix::fs::FileExt, sync::Arc};
use tokio::sync::OwnedMutexGuard;

/// Bytes: file systems that make holes of larger blocks are rare, and are only read from more.
const LARGEST_BLOCK: u64 = 4 << 20;

/// Gives the room of a range back.
pub(super) fn punch(file: &File, offset: u64, size: u64) {
    let hole = FallocateFlags::PUNCH_HOLE | FallocateFlags::KEEP_SIZE;
    // Where there can be no holes, whoever takes up what is there finds out by its digest.
    let _ = fallocate(file, hole, offset, size);
}

/// A member that was begun.
pub(super) struct Begun {
    /// Where its content is, and its bytes.
    pub offset: u64,
    pub size: u64,
    /// How many bytes are there. `None` means that the holes of the file tell.
    pub there: Option<u64>,
}

/// A member that is being written to the new archive.
pub(in crate::files) struct Append {
    pub(super) archive: Arc<Archive>,
    pub(super) name: String,
    pub(super) file: Arc<File>,
    /// Where its header goes.
    pub(super) start: u64,
    pub(super) written: u64,
    pub(super) size: Option<u64>,
    /// How many bytes were there when it was resumed. `None` means that the holes of the file tell.
    pub(super) there: Option<u64>,
    /// Held while its size is not known.
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

    /// What is there of it.
    pub fn there(&mut self) -> std::io::Result<Positioned> {
        let (offset, size) = (self.start + BLOCK, self.size.unwrap_or(0));
        self.written = match self.there {
            Some(there) => there,
            None => {
                // None is found from beyond the end.
                let hole = rustix::fs::seek(&self.file, SeekFrom::Hole(offset)).unwrap_or(offset);
                let there = hole.min(self.file.metadata()?.len()).saturating_sub(offset).min(size);
                // A block that was filled in part looks like a whole one.
                there.saturating_sub(LARGEST_BLOCK)
            }
        };
        Ok(Positioned { file: self.file.clone(), offset, end: offset + self.written })
    }

    /// Gives it up so that it can be resumed.
    pub fn leave(self) {
        if let Some(size) = self.size {
            let begun = Begun { offset: self.start + BLOCK, size, there: Some(self.written) };
            lock(&self.archive.staged).begun.insert(self.name, begun);
        }
    }

    /// Gives it up, as what was written is wrong; its place can be resumed.
    pub fn discard(mut self) {
        if let Some(size) = self.size {
            punch(&self.file, self.start + BLOCK, size);
        }
        self.written = 0;
        self.leave();
    }

    /// Gives it up, as it cannot be written, and all that would be left of the archive, too.
    pub fn fail(self) {
        if let Some(fresh) = &mut lock(&self.archive.staged).fresh {
            fresh.forget();
        }
        // Members that are whole may still find room.
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
