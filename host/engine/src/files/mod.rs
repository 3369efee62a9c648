//! The files of one place, and nothing outside them: a folder, or the members of an archive.

mod archive;
mod atomic;
mod commit;
mod folder;
mod hint;
mod partial;
mod read;
pub(crate) mod regular;
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

/// The files of a place: those of a folder, or the members of a tar archive.
pub struct Root(Inner);

enum Inner {
    Folder(Folder),
    Archive(Arc<Archive>),
}

/// An entry of a folder.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Entry {
    /// Its name, without the folder.
    pub name: String,
    /// Size in bytes.
    pub size: u64,
    /// Whether it is a folder.
    pub directory: bool,
}

/// Where the bytes of a file are.
enum Located {
    Inline(Vec<u8>),
    Stretch { file: Arc<File>, offset: u64, size: u64 },
}

/// Bytes that are read from a disk at once.
const CHUNK: usize = 512 << 10;

fn failed(doing: &str, shown: &Path, error: &std::io::Error) -> Error {
    let kind = match error.kind() {
        ErrorKind::NotFound => Kind::NotFound,
        ErrorKind::PermissionDenied => Kind::Denied,
        // The content that was read is malformed, or the path does not name a regular file.
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
    /// A folder. It need not exist yet.
    pub fn folder(path: impl Into<PathBuf>) -> Self {
        Root(Inner::Folder(Folder::new(path.into())))
    }

    /// A container store. It need not exist yet, and is created with mode 0700, as podman does.
    pub fn store(path: impl Into<PathBuf>) -> Self {
        Root(Inner::Folder(Folder::new(path.into()).private()))
    }

    /// A folder. With `blobs`, its subfolder `blobs` is replaced by another folder, which other layouts can share.
    pub fn layout(path: impl Into<PathBuf>, blobs: Option<&Path>) -> Self {
        Root(Inner::Folder(Folder::new(path.into()).with_blobs(blobs)))
    }

    /// A tar archive, plain or compressed. It need not exist yet. Its decompressed content is kept in `scratch`.
    pub fn archive(path: impl Into<PathBuf>, scratch: impl Into<PathBuf>) -> Self {
        Root(Inner::Archive(Arc::new(Archive::new(Some(path.into()), scratch.into()))))
    }

    /// An archive that exists only in `scratch`, and is deleted when the run ends.
    pub fn temporary(scratch: impl Into<PathBuf>) -> Self {
        Root(Inner::Archive(Arc::new(Archive::new(None, scratch.into()))))
    }

    /// The entries of a folder, sorted by name. The list is empty if the folder does not exist.
    ///
    /// # Errors
    /// Fails if the folder cannot be read.
    pub fn entries(&self, path: &str) -> Result<Vec<Entry>> {
        match &self.0 {
            Inner::Folder(folder) => {
                let (folder, path) = folder.at(path);
                folder.entries(path)
            }
            Inner::Archive(archive) => archive.entries(path),
        }
    }

    /// Size of a regular file in bytes. `None` means that there is no regular file at this path.
    ///
    /// # Errors
    /// Fails if the metadata cannot be read.
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

    /// Reads a range of at most [`DOCUMENT_LIMIT`] bytes of a file.
    ///
    /// # Errors
    /// Fails if the file does not exist, or if the range is longer than [`DOCUMENT_LIMIT`].
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

    /// Replaces a small file if it still holds `expected`; `None` expects that the file does not exist. If the file
    /// holds something else, nothing is changed and the result is false. In an archive, the new content appears when
    /// the archive is sealed.
    ///
    /// # Errors
    /// Fails if the file cannot be written.
    pub fn replace(&self, path: &str, expected: Option<&[u8]>, content: &[u8]) -> Result<bool> {
        match &self.0 {
            Inner::Folder(folder) => {
                let (folder, path) = folder.at(path);
                folder.replace(path, expected, content)
            }
            Inner::Archive(archive) => archive.replace(path, expected, content),
        }
    }

    /// Removes files. A file that does not exist is not an error.
    ///
    /// # Errors
    /// Fails if a file cannot be removed.
    pub fn remove(&self, paths: &[String]) -> Result<()> {
        match &self.0 {
            Inner::Folder(folder) => folder.remove(paths),
            Inner::Archive(archive) => archive.remove(paths),
        }
    }

    /// SHA-256 and size in bytes of a whole file. With `plain`, of its decompressed content.
    ///
    /// # Errors
    /// Fails if the file cannot be read or decompressed.
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

    /// Opens a file to read it from its beginning.
    ///
    /// # Errors
    /// Fails if the file does not exist.
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

    /// A new file with the content of a file of another folder: a reflink if the file system supports it, or, with
    /// `link`, a hard link. `None` means that neither is possible.
    pub(crate) fn take(&self, path: &str, from: &Root, file: &str, link: bool) -> Option<AtomicFile> {
        let (Inner::Folder(here), Inner::Folder(there)) = (&self.0, &from.0) else { return None };
        let ((here, path), (there, file)) = (here.at(path), there.at(file));
        here.take(path, there, file, link)
    }

    /// A file on the same file system as the blobs of a folder. Its path is chosen later. `None` means that these are
    /// the files of an archive, which cannot have one.
    pub(crate) fn atomic_file(&self) -> Option<std::io::Result<AtomicFile>> {
        match &self.0 {
            Inner::Folder(folder) => Some(folder.at("blobs").0.atomic_file()),
            Inner::Archive(_) => None,
        }
    }

    /// Gives an atomic file its path, so that it appears there.
    ///
    /// # Errors
    /// Fails if the file cannot be linked or renamed.
    pub(crate) fn keep(&self, fresh: AtomicFile, path: &str) -> Result<()> {
        let folder = self.as_folder("write to")?;
        let (folder, path) = folder.at(path);
        fresh.keep_at(Path::new(path)).map_err(|error| folder.failed("write", path, &error))
    }

    /// Makes several changes to a folder while it holds the locks of the other programs that write to it. If a file
    /// does not hold the expected content, or a path that is to be moved does not exist, nothing is changed and the
    /// result is false.
    ///
    /// # Errors
    /// Fails if a change cannot be made.
    pub fn commit(&self, locks: &[String], changes: &[Change]) -> Result<bool> {
        self.as_folder("change")?.commit(locks, changes)
    }

    /// Unpacks a layer from a reader. It appears under `path` when the staged layer is kept.
    pub(crate) fn unpack(&self, path: &str, bytes: &mut (dyn Read + Send)) -> std::io::Result<StagedLayer> {
        let parent = self.as_folder("unpack into").and_then(|folder| folder.parent(path));
        let (above, name) = parent.map_err(|error| std::io::Error::other(error.text))?;
        layer::unpack(above, &name, bytes)
    }

    /// Unpacks a layer that is already unpacked a second time, to `path`.
    ///
    /// # Errors
    /// Fails if the layer cannot be read or written.
    pub fn unpack_again(&self, tar_split: &str, folder: &str, path: &str) -> Result<Unpacked> {
        let failed = |error: std::io::Error| failed("unpack", &self.shown(path), &error);
        let mut layer = self.rebuilt(tar_split, folder)?;
        self.unpack(path, &mut layer).and_then(StagedLayer::keep).map_err(failed)
    }

    fn rebuilt(&self, tar_split: &str, folder: &str) -> Result<impl Read + Send + use<>> {
        let place = self.as_folder("read a layer of")?;
        Ok(layer::Rebuilt::new(place.opened(tar_split, false)?, place.opened(folder, true)?))
    }

    /// Reads the tar of an unpacked layer on a thread of its own, from byte `from` on.
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
        // The first access to an archive reads its headers, or decompresses all of it, so it blocks.
        let located = blocking("read a file", move || root.locate(&path)).await??;
        Ok(match located {
            Located::Inline(bytes) => {
                let (sender, receiver) = mpsc::channel(1);
                // The channel has room for this one message, so sending cannot fail.
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

    /// Writes a new file from chunks, on a thread of its own. It appears when `keep` is called; in an archive, when the
    /// archive is sealed. `size` is in bytes; `None` means that it is not known yet.
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

    /// Writes a blob that is downloaded, as [`Root::writer`] does, and resumes what an earlier attempt or process left
    /// of it. Returns the writer, the number of bytes that are already there, and a hasher that has hashed them.
    ///
    /// # Errors
    /// Fails if the file cannot be written, or with `Corrupt` if what was left of it cannot be read.
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

    /// Whether this is an archive: what is written to it appears only when it is sealed.
    pub fn is_archive(&self) -> bool {
        matches!(self.0, Inner::Archive(_))
    }

    /// Makes everything that was written to an archive appear at once. Does nothing for a folder.
    ///
    /// # Errors
    /// Fails if the archive cannot be written, or if another process replaced it in the meantime.
    pub(crate) fn seal(&self) -> Result<()> {
        match &self.0 {
            Inner::Folder(_) => Ok(()),
            Inner::Archive(archive) => archive.seal(),
        }
    }

    /// The content of a temporary archive, and its size in bytes.
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

    /// Adds a downloaded archive: its members become the files beneath `path`.
    pub(crate) fn adopt(&self, path: &str, file: File) -> Result<()> {
        match &self.0 {
            Inner::Folder(folder) => {
                Err(Error::invalid(format!("download to {}: it is a folder", folder.shown(path).display())))
            }
            Inner::Archive(archive) => archive.adopt(path, file),
        }
    }

    /// Whether an archive was already downloaded to `path`.
    pub(crate) fn adopted(&self, path: &str) -> bool {
        matches!(&self.0, Inner::Archive(archive) if archive.adopted(path))
    }

    /// A new unnamed temporary file for a download.
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
