//! Unpacked layers, as a container store keeps them for overlayfs: the files in a folder, and beside it a tar-split
//! file (github.com/vbatts/tar-split), from which the same tar is rebuilt byte for byte.

mod chunked;
mod tar_split;
mod tree;

use crate::{
    decode::Plain,
    tar::{Kind, Reader, malformed},
};
pub(crate) use chunked::{Chunked, write as write_chunked};
use dray_core::{Algorithm, Digest, Hasher};
use rustix::fd::OwnedFd;
use std::{
    collections::BTreeSet,
    fs::File,
    io::{Read, Result},
    os::fd::AsRawFd,
    path::{Path, PathBuf},
};
use tar_split::{Piece, Recorder, TarSplit, pieces};
use tree::Tree;

/// What is known about a layer after it has been unpacked.
#[derive(Clone, Debug)]
pub struct Unpacked {
    /// Digest of the uncompressed tar (the diff ID).
    pub digest: Digest,
    /// Size of the uncompressed tar in bytes.
    pub size: u64,
    /// User IDs of the owners of its files.
    pub uids: BTreeSet<u32>,
    /// Group IDs of its files.
    pub gids: BTreeSet<u32>,
}

/// Name of the folder with the files of a layer.
const FILES: &str = "diff";
/// Name of the tar-split file.
const TAR_SPLIT: &str = "tar-split.gz";
/// Mode of the top folder, as containers/storage sets it. The mode in the tar is not applied.
const TOP_MODE: u32 = 0o555;
/// Bytes that are read at once.
const CHUNK: usize = 256 << 10;

/// A layer that was unpacked under a temporary name.
pub(crate) struct StagedLayer {
    /// The opened folder that will contain the layer. Both paths lead through its file descriptor.
    _above: File,
    temporary: PathBuf,
    path: PathBuf,
    kept: bool,
    pub layer: Unpacked,
}

impl StagedLayer {
    /// Renames it to its final name. If that name exists already, it holds the same layer and stays.
    pub fn keep(mut self) -> Result<Unpacked> {
        match std::fs::rename(&self.temporary, &self.path) {
            Ok(()) => self.kept = true,
            Err(_) if self.path.join(TAR_SPLIT).is_file() => {}
            Err(error) => return Err(error),
        }
        Ok(self.layer.clone())
    }
}

impl Drop for StagedLayer {
    fn drop(&mut self) {
        if !self.kept {
            // If the folder cannot be removed, nothing else can be done.
            let _ = std::fs::remove_dir_all(&self.temporary);
        }
    }
}

/// Unpacks a layer, plain or compressed, into `{name}/diff` and `{name}/tar-split.gz` in an opened folder. Both appear
/// when the staged layer is kept.
///
/// # Errors
/// Fails if the tar is malformed or leads out of its folder, or if the process lacks a permission.
pub(crate) fn unpack(above: File, name: &Path, bytes: &mut (dyn Read + Send)) -> Result<StagedLayer> {
    let folder = Path::new("/proc/self/fd").join(above.as_raw_fd().to_string());
    let (path, temporary) = (folder.join(name), folder.join(format!(".dray-{:016x}", fastrand::u64(..))));
    let nothing = Unpacked {
        digest: Hasher::new(Algorithm::Sha256).finish(),
        size: 0,
        uids: BTreeSet::new(),
        gids: BTreeSet::new(),
    };
    let mut staged = StagedLayer { _above: above, temporary, path, kept: false, layer: nothing };
    let folder = |path: &Path, mode: u32| {
        std::os::unix::fs::DirBuilderExt::mode(&mut std::fs::DirBuilder::new(), mode).create(path)
    };
    folder(&staged.temporary, 0o700)?;
    folder(&staged.temporary.join(FILES), TOP_MODE)?;
    let top: OwnedFd = File::open(staged.temporary.join(FILES))?.into();
    let tar_split = TarSplit::create(&staged.temporary.join(TAR_SPLIT))?;

    let plain = Plain::new(bytes)?;
    let mut tree = Tree::new(top);
    let mut reader = Reader::new(Recorder::new(plain, tar_split));
    let mut buffer = vec![0; CHUNK];
    while let Some(entry) = reader.advance()? {
        if entry.size > 0 {
            reader.source().file();
        }
        let mut content = tree.add(&entry)?;
        if entry.kind == Kind::File && entry.size > 0 {
            loop {
                let read = reader.content(&mut buffer)?;
                if read == 0 {
                    break;
                }
                content.write(&buffer[..read])?;
            }
        }
        content.finish(&entry)?;
        reader.source().entry(&entry.name, entry.size)?;
    }
    (staged.layer.uids, staged.layer.gids) = tree.finish()?;
    let recorded = reader.into_source().finish(&mut buffer)?;
    let file = recorded.tar_split.finish()?.into_inner().map_err(|error| error.into_error())?;
    file.sync_all()?;
    (staged.layer.digest, staged.layer.size) = (recorded.digest, recorded.size);
    Ok(staged)
}

/// Reads the tar of an unpacked layer.
pub(crate) struct Rebuilt {
    pieces: Box<dyn Iterator<Item = Result<Piece>> + Send>,
    top: OwnedFd,
    current: Box<dyn Read + Send>,
    /// The name of the file that is being read, and how many of its bytes are still to be read.
    file: Option<(Vec<u8>, u64)>,
}

impl Rebuilt {
    /// Rebuilds the tar from its tar-split file and the folder with its files.
    pub fn new(tar_split: File, top: File) -> Self {
        Rebuilt {
            pieces: Box::new(pieces(tar_split)),
            top: top.into(),
            current: Box::new(std::io::empty()),
            file: None,
        }
    }
}

impl Read for Rebuilt {
    fn read(&mut self, buffer: &mut [u8]) -> Result<usize> {
        loop {
            let read = self.current.read(buffer)?;
            if let Some((name, missing)) = &mut self.file {
                *missing -= read as u64;
                if read == 0 && *missing > 0 {
                    let name = String::from_utf8_lossy(name);
                    return Err(malformed(format!("{name} has become shorter since it was unpacked")));
                }
            }
            if read > 0 || buffer.is_empty() {
                return Ok(read);
            }
            self.file = None;
            match self.pieces.next().transpose()? {
                None => return Ok(0),
                Some(Piece::Bytes(bytes)) => self.current = Box::new(std::io::Cursor::new(bytes)),
                Some(Piece::File(_, 0)) => {}
                Some(Piece::File(name, size)) => {
                    let file = tree::open(&self.top, &name).map_err(|error| {
                        let name = String::from_utf8_lossy(&name).into_owned();
                        std::io::Error::new(error.kind(), format!("{name}: {error}"))
                    })?;
                    self.current = Box::new(file.take(size));
                    self.file = Some((name, size));
                }
            }
        }
    }
}

/// Functions for the fuzz targets.
#[cfg(feature = "fuzzing")]
pub mod fuzzing {
    use super::*;

    /// Unpacks a layer as `layer` in a folder and rebuilds its tar, which must have as many bytes as the original if it
    /// can be read.
    ///
    /// # Errors
    /// Fails if the layer cannot be unpacked.
    pub fn round_trip(folder: &Path, bytes: &[u8]) -> Result<()> {
        let layer = unpack(File::open(folder)?, Path::new("layer"), &mut &bytes[..])?.keep()?;
        let tar_split = File::open(folder.join("layer").join(TAR_SPLIT))?;
        let files = File::open(folder.join("layer").join(FILES))?;
        if let Ok(size) = std::io::copy(&mut Rebuilt::new(tar_split, files), &mut std::io::sink()) {
            assert_eq!(size, layer.size);
        }
        Ok(())
    }

    /// Rebuilds a tar from an uncompressed tar-split file and the files of a folder. Returns its size in bytes.
    pub fn rebuild(tar_split: &[u8], files: &Path) -> Result<u64> {
        let mut rebuilt = Rebuilt {
            pieces: Box::new(tar_split::plain_pieces(std::io::Cursor::new(tar_split.to_vec()))),
            top: File::open(files)?.into(),
            current: Box::new(std::io::empty()),
            file: None,
        };
        std::io::copy(&mut rebuilt, &mut std::io::sink())
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "tests")]
mod tests;
