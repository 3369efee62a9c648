//! The files of one place, and nothing outside them: a folder, or the members of an archive.

mod archive;
mod atomic;
mod commit;
mod folder;
mod hint;
mod partial;
mod read;
mod writer;

use crate::{
    DOCUMENT_LIMIT, Error, Kind, Result, blocking,
    decode::Plain,
    layer::{self, StagedLayer, Unpacked},
};
use archive::Archive;
pub(crate) use atomic::AtomicFile;
use bytes::Bytes;
pub use commit::Change;
use dray_core::{Descriptor, Digest, Hasher};
use folder::Folder;
pub(crate) use hint::hint;
pub(crate) use read::pump;
use read::{Positioned, send, stream, stretch, too_long};
use std::{
    fs::File,
    io::{ErrorKind, Read},
    os::unix::fs::FileExt,
    path::{Path, PathBuf},
    sync::Arc,
};
use tokio::sync::mpsc;
use writer::Target;
pub(crate) use writer::Writer;

/// What a place's files are.
pub struct Root(Inner);

enum Inner {
    Folder(Folder),
    Archive(Arc<Archive>),
}

/// A name in a folder.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Entry {
    /// Its name.
    pub name: String,
    /// Bytes.
    pub size: u64,
    /// A folder.
    pub directory: bool,
}

/// Where the bytes of a file lie.
enum Located {
    Inline(Vec<u8>),
    Stretch { file: Arc<File>, offset: u64, size: u64 },
}

/// Bytes read from a disk at once.
const CHUNK: usize = 512 << 10;

fn failed(doing: &str, shown: &Path, error: &std::io::Error) -> Error {
    let kind = match error.kind() {
        ErrorKind::NotFound => Kind::NotFound,
        ErrorKind::PermissionDenied => Kind::Denied,
        // What was read is malformed, or what was asked for is no file.
        ErrorKind::InvalidData | ErrorKind::InvalidInput | ErrorKind::UnexpectedEof => Kind::Invalid,
        _ => Kind::Io,
    };
    let told = Error::new(kind, format!("{doing} {}: {error}", shown.display()));
    match error.kind() {
        ErrorKind::StorageFull | ErrorKind::QuotaExceeded => {
            told.help("make room: files `.dray-….part` are what runs that were killed left for the next one")
        }
        _ => told,
    }
}

impl Root {
    /// A folder, which need not be there yet.
    pub fn folder(path: impl Into<PathBuf>) -> Self {
        Root(Inner::Folder(Folder::new(path.into())))
    }

    /// A store of containers, which need not be there yet: nobody else may look into it, as podman makes it.
    pub fn store(path: impl Into<PathBuf>) -> Self {
        Root(Inner::Folder(Folder::new(path.into()).private()))
    }

    /// A folder whose `blobs` are another folder, which it may share with others.
    pub fn layout(path: impl Into<PathBuf>, blobs: Option<&Path>) -> Self {
        Root(Inner::Folder(Folder::new(path.into()).with_blobs(blobs)))
    }

    /// A tar archive, plain or compressed, which need not be there yet. What it expands to is kept
    /// in `scratch`.
    pub fn archive(path: impl Into<PathBuf>, scratch: impl Into<PathBuf>) -> Self {
        Root(Inner::Archive(Arc::new(Archive::new(Some(path.into()), scratch.into()))))
    }

    /// An archive that is in `scratch` and is gone with the run.
    pub fn temporary(scratch: impl Into<PathBuf>) -> Self {
        Root(Inner::Archive(Arc::new(Archive::new(None, scratch.into()))))
    }

    /// The names in a folder, sorted; empty where there is none.
    ///
    /// # Errors
    /// Fails if it cannot be read.
    pub fn entries(&self, path: &str) -> Result<Vec<Entry>> {
        match &self.0 {
            Inner::Folder(folder) => {
                let (folder, path) = folder.at(path);
                folder.entries(path)
            }
            Inner::Archive(archive) => archive.entries(path),
        }
    }

    /// Size of a regular file; none where there is none.
    ///
    /// # Errors
    /// Fails if it cannot be learnt.
    pub fn stat(&self, path: &str) -> Result<Option<u64>> {
        match &self.0 {
            Inner::Folder(folder) => {
                let (folder, path) = folder.at(path);
                folder.stat(path)
            }
            Inner::Archive(archive) => archive.stat(path),
        }
    }

    fn locate(&self, path: &str) -> Result<Located> {
        match &self.0 {
            Inner::Folder(folder) => {
                let (folder, path) = folder.at(path);
                folder.locate(path)
            }
            Inner::Archive(archive) => archive.locate(path),
        }
    }

    fn shown(&self, path: &str) -> PathBuf {
        match &self.0 {
            Inner::Folder(folder) => {
                let (folder, path) = folder.at(path);
                folder.shown(path)
            }
            Inner::Archive(archive) => archive.shown(path),
        }
    }

    /// A small range of a file.
    ///
    /// # Errors
    /// Fails if it is not there, or longer than [`DOCUMENT_LIMIT`].
    pub fn read(&self, path: &str, offset: u64, length: Option<u64>) -> Result<Vec<u8>> {
        let shown = self.shown(path);
        let bytes = match self.locate(path)? {
            Located::Inline(bytes) => stretch(bytes, offset, length),
            Located::Stretch { file, offset: start, size } => {
                let length = length.unwrap_or(u64::MAX).min(size.saturating_sub(offset));
                if length > DOCUMENT_LIMIT as u64 {
                    return Err(too_long(&shown));
                }
                let mut bytes = vec![0; length as usize];
                file.read_exact_at(&mut bytes, start.saturating_add(offset))
                    .map_err(|error| failed("read", &shown, &error))?;
                bytes
            }
        };
        if bytes.len() > DOCUMENT_LIMIT {
            return Err(too_long(&shown));
        }
        Ok(bytes)
    }

    /// Replaces a small file if it still holds `expected`; `None` expects that it does not exist. False, and
    /// nothing done, if it does not. In an archive it appears when the archive is sealed.
    ///
    /// # Errors
    /// Fails if it cannot be written.
    pub fn replace(&self, path: &str, expected: Option<&[u8]>, content: &[u8]) -> Result<bool> {
        match &self.0 {
            Inner::Folder(folder) => {
                let (folder, path) = folder.at(path);
                folder.replace(path, expected, content)
            }
            Inner::Archive(archive) => archive.replace(path, expected, content),
        }
    }

    /// Removes files that are there.
    ///
    /// # Errors
    /// Fails if one cannot be removed.
    pub fn remove(&self, paths: &[String]) -> Result<()> {
        match &self.0 {
            Inner::Folder(folder) => folder.remove(paths),
            Inner::Archive(archive) => archive.remove(paths),
        }
    }

    /// SHA-256 and size of a whole file; with `plain`, of what it decompresses to.
    ///
    /// # Errors
    /// Fails if it cannot be read or decompressed.
    pub fn digest(&self, path: &str, plain: bool) -> Result<(Digest, u64)> {
        let mut reader = self.open(path)?;
        let failed = |error: std::io::Error| failed("read", &self.shown(path), &error);
        if plain {
            reader = Box::new(Plain::new(reader).map_err(failed)?);
        }
        let mut hasher = Hasher::new(dray_core::Algorithm::Sha256);
        let (mut buffer, mut size) = (vec![0; CHUNK], 0);
        loop {
            let read = reader.read(&mut buffer).map_err(failed)?;
            if read == 0 {
                return Ok((hasher.finish(), size));
            }
            hasher.update(&buffer[..read]);
            size += read as u64;
        }
    }

    /// A reader of a whole file, from its beginning.
    ///
    /// # Errors
    /// Fails if it is not there.
    pub fn open(&self, path: &str) -> Result<Box<dyn Read + Send>> {
        Ok(match self.locate(path)? {
            Located::Inline(bytes) => Box::new(std::io::Cursor::new(bytes)),
            Located::Stretch { file, offset, size } => {
                Box::new(Positioned { file, offset, end: offset + size })
            }
        })
    }

    fn as_folder(&self, doing: &str) -> Result<&Folder> {
        match &self.0 {
            Inner::Folder(folder) => Ok(folder),
            Inner::Archive(archive) => {
                Err(Error::invalid(format!("{doing} {}: it is an archive", archive.shown("").display())))
            }
        }
    }

    /// A new file that shares its bytes with a file of another folder: where the file system can
    /// share them, or, with `link`, as a further name of that file. `None` means that neither is possible.
    pub(crate) fn take(&self, path: &str, from: &Root, file: &str, link: bool) -> Option<AtomicFile> {
        let (Inner::Folder(here), Inner::Folder(there)) = (&self.0, &from.0) else { return None };
        let ((here, path), (there, file)) = (here.at(path), there.at(file));
        here.take(path, there, file, link)
    }

    /// A file beside those of a folder, on the same file system, that gets its path later; none: an archive
    /// has no such thing.
    pub(crate) fn atomic_file(&self) -> Option<std::io::Result<AtomicFile>> {
        match &self.0 {
            Inner::Folder(folder) => Some(folder.at("blobs").0.atomic_file()),
            Inner::Archive(_) => None,
        }
    }

    /// Makes a file that was written before appear at a path.
    ///
    /// # Errors
    /// Fails if it cannot be named.
    pub(crate) fn keep(&self, fresh: AtomicFile, path: &str) -> Result<()> {
        let folder = self.as_folder("write to")?;
        let (folder, path) = folder.at(path);
        fresh.keep_at(Path::new(path)).map_err(|error| folder.failed("write", path, &error))
    }

    /// Makes several changes to a folder, under the locks of its other writers. False, and nothing
    /// done, where a file that is replaced does not hold what is expected.
    ///
    /// # Errors
    /// Fails if a change cannot be made.
    pub fn commit(&self, locks: &[String], changes: &[Change]) -> Result<bool> {
        self.as_folder("change")?.commit(locks, changes)
    }

    /// Unpacks a layer of bytes that are read; it appears when it is kept.
    pub(crate) fn unpack(&self, path: &str, bytes: &mut (dyn Read + Send)) -> std::io::Result<StagedLayer> {
        let parent = self.as_folder("unpack into").and_then(|folder| folder.parent(path));
        let (above, name) = parent.map_err(|error| std::io::Error::other(error.text))?;
        layer::unpack(above, &name, bytes)
    }

    /// Unpacks a layer once more that is unpacked already.
    ///
    /// # Errors
    /// Fails if it cannot be read or written.
    pub fn unpack_again(&self, tar_split: &str, folder: &str, path: &str) -> Result<Unpacked> {
        let failed = |error: std::io::Error| failed("unpack", &self.shown(path), &error);
        let mut layer = self.rebuilt(tar_split, folder)?;
        self.unpack(path, &mut layer).and_then(StagedLayer::keep).map_err(failed)
    }

    fn rebuilt(&self, tar_split: &str, folder: &str) -> Result<impl Read + Send + use<>> {
        let place = self.as_folder("read a layer of")?;
        Ok(layer::Rebuilt::new(place.opened(tar_split, false)?, place.opened(folder, true)?))
    }

    /// Reads the tar of an unpacked layer on a thread of its own, from some byte on.
    pub(crate) fn layer(
        &self,
        tar_split: &str,
        folder: &str,
        from: u64,
    ) -> Result<mpsc::Receiver<Result<Bytes>>> {
        let mut layer = self.rebuilt(tar_split, folder)?;
        let shown = self.shown(folder);
        let (sender, receiver) = mpsc::channel(2);
        tokio::task::spawn_blocking(move || {
            if let Err(error) = std::io::copy(&mut layer.by_ref().take(from), &mut std::io::sink()) {
                let _ = sender.blocking_send(Err(failed("read", &shown, &error)));
                return;
            }
            send(layer, &shown, &sender);
        });
        Ok(receiver)
    }

    /// Reads a range of a file on a thread of its own.
    pub(crate) async fn stream(
        self: &Arc<Self>,
        path: &str,
        offset: u64,
        length: Option<u64>,
    ) -> Result<mpsc::Receiver<Result<Bytes>>> {
        let (root, path, shown) = (self.clone(), path.to_owned(), self.shown(path));
        // The first touch of an archive reads all of it.
        let located = blocking("read a file", move || root.locate(&path)).await??;
        Ok(match located {
            Located::Inline(bytes) => {
                let (sender, receiver) = mpsc::channel(1);
                // There is room for one message.
                let _ = sender.try_send(Ok(stretch(bytes, offset, length).into()));
                receiver
            }
            Located::Stretch { file, offset: start, size } => {
                let offset = offset.min(size);
                let length = length.unwrap_or(u64::MAX).min(size - offset);
                stream(Positioned { file, offset: start + offset, end: start + offset + length }, shown)
            }
        })
    }

    /// Writes a new file from chunks, on a thread of its own. It appears when `keep` is called; in
    /// an archive, when the archive is sealed. `size` is in bytes; `None` means that it is not known yet.
    pub(crate) async fn writer(&self, path: &str, size: Option<u64>) -> Result<Writer> {
        match &self.0 {
            Inner::Folder(folder) => {
                let (folder, path) = folder.at(path);
                folder.writer(path)
            }
            Inner::Archive(archive) => {
                let target = Target::Append(archive.append(path, size).await?);
                Ok(Writer::start(target, archive.shown(path)))
            }
        }
    }

    /// Writes a blob whose bytes come from afar, as [`Root::writer`] does, and goes on where an earlier attempt or
    /// process broke off. Given are the bytes that are there, and a hasher that has taken them in.
    ///
    /// # Errors
    /// Fails if it cannot be written.
    pub(crate) async fn take_up(&self, path: &str, blob: &Descriptor) -> Result<(Writer, u64, Hasher)> {
        match &self.0 {
            Inner::Folder(_) if blob.size < partial::LARGE => {
                let writer = self.writer(path, Some(blob.size)).await?;
                Ok((writer, 0, Hasher::new(blob.digest.algorithm())))
            }
            Inner::Folder(folder) => {
                let (folder, path) = folder.at(path);
                Writer::take_up(folder.part(path)?, folder.shown(path), blob).await
            }
            Inner::Archive(archive) => {
                let append = archive.append(path, Some(blob.size)).await?;
                Writer::take_up(Target::Append(append), archive.shown(path), blob).await
            }
        }
    }

    /// Whether what is written appears only when it is sealed.
    pub fn is_archive(&self) -> bool {
        matches!(self.0, Inner::Archive(_))
    }

    /// Makes what was written to an archive appear as one step. A folder needs no such thing.
    ///
    /// # Errors
    /// Fails if it cannot be written, or somebody else wrote it meanwhile.
    pub(crate) fn seal(&self) -> Result<()> {
        match &self.0 {
            Inner::Folder(_) => Ok(()),
            Inner::Archive(archive) => archive.seal(),
        }
    }

    /// The bytes of what was written to a temporary archive, and how many they are.
    pub(crate) fn sealed(&self) -> Result<(mpsc::Receiver<Result<Bytes>>, u64)> {
        match &self.0 {
            Inner::Folder(folder) => {
                Err(Error::invalid(format!("send {}: it is a folder", folder.shown("").display())))
            }
            Inner::Archive(archive) => {
                let (file, size) = archive.sealed()?;
                Ok((stream(Positioned { file, offset: 0, end: size }, self.shown("")), size))
            }
        }
    }

    /// Takes in a downloaded archive: its members are under `path`.
    pub(crate) fn adopt(&self, path: &str, file: File) -> Result<()> {
        match &self.0 {
            Inner::Folder(folder) => {
                Err(Error::invalid(format!("download to {}: it is a folder", folder.shown(path).display())))
            }
            Inner::Archive(archive) => archive.adopt(path, file),
        }
    }

    /// Whether a downloaded archive is there already.
    pub(crate) fn adopted(&self, path: &str) -> bool {
        matches!(&self.0, Inner::Archive(archive) if archive.adopted(path))
    }

    /// A new file without a name, for a download.
    pub(crate) fn unnamed(&self) -> Result<File> {
        match &self.0 {
            Inner::Folder(folder) => {
                Err(Error::invalid(format!("download to {}: it is a folder", folder.shown("").display())))
            }
            Inner::Archive(archive) => archive.unnamed(),
        }
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "tests")]
mod tests;
