//! An archive that was opened to be read: its file, and the offsets of its members.

use crate::files::{Located, read::Positioned};
use crate::{
    decode::{Plain, sniff},
    tar::{Index, Reader, malformed},
};
use dray_core::Compression;
use std::{
    fs::File,
    io::ErrorKind,
    os::unix::fs::{FileExt, MetadataExt},
    path::Path,
    sync::Arc,
};

/// An archive that was opened to be read.
pub(super) struct Opened {
    pub file: Arc<File>,
    pub index: Index,
    /// Identifies the version of the file: device, inode, size in bytes, and time of its last change in seconds and
    /// nanoseconds.
    pub identity: (u64, u64, u64, i64, i64),
    pub compressed: bool,
}

pub(super) fn identity(file: &File) -> std::io::Result<(u64, u64, u64, i64, i64)> {
    let metadata = file.metadata()?;
    Ok((metadata.dev(), metadata.ino(), metadata.len(), metadata.mtime(), metadata.mtime_nsec()))
}

impl Opened {
    /// Reads the headers of the archive in a range of a file. A compressed archive is decompressed to `scratch` first.
    pub fn read(file: Arc<File>, offset: u64, size: u64, scratch: &Path) -> std::io::Result<Self> {
        let identity = identity(&file)?;
        let mut first = [0; 8];
        let most = (first.len() as u64).min(size) as usize;
        file.read_exact_at(&mut first[..most], offset)?;
        let source = || Positioned { file: file.clone(), offset, end: offset + size };
        if sniff(&first[..most])? == Compression::None {
            let mut index = Index::read(source())?;
            index.shift(offset);
            return Ok(Opened { index, file, identity, compressed: false });
        }
        let damaged = |error: std::io::Error| match error.kind() {
            ErrorKind::UnexpectedEof | ErrorKind::InvalidInput => {
                malformed(format!("it is damaged: {error}"))
            }
            _ => error,
        };
        // A first entry is read before everything is decompressed, so that something else than an archive is refused
        // early.
        Reader::new(Plain::new(source())?).advance().map_err(damaged)?;
        let mut expanded = unnamed(scratch)?;
        std::io::copy(&mut Plain::new(source())?, &mut expanded).map_err(damaged)?;
        let size = expanded.metadata()?.len();
        let file = Arc::new(expanded);
        let index = Index::read(Positioned { file: file.clone(), offset: 0, end: size })?;
        Ok(Opened { index, file, identity, compressed: true })
    }

    pub fn find(&self, name: &str) -> std::io::Result<Option<Located>> {
        let found = self.index.find(name)?;
        Ok(found.map(|(offset, size)| Located::Stretch { file: self.file.clone(), offset, size }))
    }
}

pub(super) fn unnamed(scratch: &Path) -> std::io::Result<File> {
    tempfile::tempfile_in(scratch)
}
