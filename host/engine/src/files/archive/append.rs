//! A member that is being written to a new archive, and what is left of one.

use super::Archive;
use crate::{
    files::Positioned,
    lock,
    tar::{BLOCK, header, malformed, padding},
};
use rustix::fs::SeekFrom;
use std::{fs::File, os::unix::fs::FileExt, sync::Arc};
use tokio::sync::OwnedMutexGuard;

/// Bytes: no file system has larger blocks, of which holes are made.
const LARGEST_BLOCK: u64 = 1 << 20;

/// A member that was begun: where its content is, its bytes, and whether they are all there.
pub(super) struct Begun {
    pub offset: u64,
    pub size: u64,
    pub whole: bool,
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
    /// Another process wrote all of it.
    pub(super) whole: bool,
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
        self.written = if self.whole {
            size
        } else {
            // None is found from beyond the end.
            let hole = rustix::fs::seek(&self.file, SeekFrom::Hole(offset)).unwrap_or(offset);
            let there = hole.min(self.file.metadata()?.len()).saturating_sub(offset).min(size);
            // A block that was filled in part looks like a whole one.
            there.saturating_sub(LARGEST_BLOCK)
        };
        Ok(Positioned { file: self.file.clone(), offset, end: offset + self.written })
    }

    /// Gives it up so that it can be taken up.
    pub fn leave(self) {
        if let Some(size) = self.size {
            let begun = Begun { offset: self.start + BLOCK, size, whole: false };
            lock(&self.archive.staged).begun.insert(self.name, begun);
        }
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
