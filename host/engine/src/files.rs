//! The files of one place, and nothing outside them: every path is opened beneath the root.

use crate::{DOCUMENT_LIMIT, Error, Kind, Result};
use bytes::Bytes;
use cap_std::{ambient_authority, fs::Dir};
use std::{
    io::{ErrorKind, Read, Seek, SeekFrom, Write},
    path::{Path, PathBuf},
    sync::{Arc, OnceLock},
};
use tokio::sync::mpsc;

/// A folder that a place's files lie in.
pub struct Root {
    path: PathBuf,
    dir: OnceLock<Arc<Dir>>,
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

/// Bytes read from a disk at once.
const CHUNK: usize = 512 << 10;

impl Root {
    /// A folder, which need not be there yet.
    pub fn new(path: impl Into<PathBuf>) -> Self {
        Root { path: path.into(), dir: OnceLock::new() }
    }

    fn failed(&self, doing: &str, path: &str, error: &std::io::Error) -> Error {
        let kind = match error.kind() {
            ErrorKind::NotFound => Kind::NotFound,
            ErrorKind::PermissionDenied => Kind::Denied,
            _ => Kind::Invalid,
        };
        Error::new(kind, format!("{doing} {}: {error}", self.path.join(path).display()))
    }

    fn dir(&self) -> std::io::Result<Arc<Dir>> {
        if let Some(dir) = self.dir.get() {
            return Ok(dir.clone());
        }
        let dir = Arc::new(Dir::open_ambient_dir(&self.path, ambient_authority())?);
        Ok(self.dir.get_or_init(|| dir).clone())
    }

    /// The folder, made if it is not there.
    fn made(&self) -> std::io::Result<Arc<Dir>> {
        if self.dir.get().is_none() {
            std::fs::create_dir_all(&self.path)?;
        }
        self.dir()
    }

    /// The names in a folder, sorted; empty where there is none.
    ///
    /// # Errors
    /// Where it cannot be read.
    pub fn entries(&self, path: &str) -> Result<Vec<Entry>> {
        let read = || {
            let mut entries = Vec::new();
            for entry in self.dir()?.read_dir(if path.is_empty() { "." } else { path })? {
                let entry = entry?;
                let metadata = entry.metadata()?;
                let Ok(name) = entry.file_name().into_string() else { continue };
                entries.push(Entry { name, size: metadata.len(), directory: metadata.is_dir() });
            }
            entries.sort_by(|a, b| a.name.cmp(&b.name));
            Ok::<_, std::io::Error>(entries)
        };
        match read() {
            Ok(entries) => Ok(entries),
            Err(error) if error.kind() == ErrorKind::NotFound => Ok(Vec::new()),
            Err(error) => Err(self.failed("list", path, &error)),
        }
    }

    /// Size of a regular file; none where there is none.
    ///
    /// # Errors
    /// Where it cannot be learnt.
    pub fn stat(&self, path: &str) -> Result<Option<u64>> {
        match self.dir().and_then(|dir| dir.metadata(path)) {
            Ok(metadata) => Ok(metadata.is_file().then_some(metadata.len())),
            Err(error) if error.kind() == ErrorKind::NotFound => Ok(None),
            Err(error) => Err(self.failed("read", path, &error)),
        }
    }

    /// A small stretch of a file.
    ///
    /// # Errors
    /// Where it is not there, or longer than [`DOCUMENT_LIMIT`].
    pub fn read(&self, path: &str, offset: u64, length: Option<u64>) -> Result<Vec<u8>> {
        let limit = length.unwrap_or(DOCUMENT_LIMIT as u64 + 1);
        let read = || {
            let mut file = self.dir()?.open(path)?;
            file.seek(SeekFrom::Start(offset))?;
            let mut bytes = Vec::new();
            file.take(limit.min(DOCUMENT_LIMIT as u64 + 1)).read_to_end(&mut bytes)?;
            Ok(bytes)
        };
        let bytes = read().map_err(|error| self.failed("read", path, &error))?;
        if bytes.len() > DOCUMENT_LIMIT {
            let text =
                format!("read {}: it is longer than {DOCUMENT_LIMIT} bytes", self.path.join(path).display());
            return Err(Error::invalid(text));
        }
        Ok(bytes)
    }

    /// Replaces a small file if it still holds `expected` (none: it does not exist). False, and
    /// nothing done, if it does not.
    ///
    /// # Errors
    /// Where it cannot be written.
    pub fn replace(&self, path: &str, expected: Option<&[u8]>, content: &[u8]) -> Result<bool> {
        let failed = |error: std::io::Error| self.failed("write", path, &error);
        let dir = self.made().map_err(failed)?;
        // Every dray that writes this folder holds this lock while it compares and renames.
        let guard = std::fs::File::open(&self.path).map_err(failed)?;
        guard.lock().map_err(failed)?;
        let current = match dir.read(path) {
            Ok(current) => Some(current),
            Err(error) if error.kind() == ErrorKind::NotFound => None,
            Err(error) => return Err(failed(error)),
        };
        if current.as_deref() != expected {
            return Ok(false);
        }
        let mut fresh = Fresh::create(dir, path).map_err(failed)?;
        fresh.write(content).and_then(|()| fresh.keep()).map_err(failed)?;
        Ok(true)
    }

    /// Reads a stretch of a file on a thread of its own.
    pub(crate) fn stream(
        &self,
        path: &str,
        offset: u64,
        length: Option<u64>,
    ) -> Result<mpsc::Receiver<Result<Bytes>>> {
        let open = || {
            let mut file = self.dir()?.open(path)?;
            file.seek(SeekFrom::Start(offset))?;
            Ok(file)
        };
        let file = open().map_err(|error| self.failed("read", path, &error))?;
        let shown = self.path.join(path);
        let (sender, receiver) = mpsc::channel(2);
        tokio::task::spawn_blocking(move || {
            let mut file = file.take(length.unwrap_or(u64::MAX));
            loop {
                let mut chunk = Vec::with_capacity(CHUNK);
                let read = Read::by_ref(&mut file).take(CHUNK as u64).read_to_end(&mut chunk);
                let message = match read {
                    Ok(0) => return,
                    Ok(_) => Ok(Bytes::from(chunk)),
                    Err(error) => Err(Error::invalid(format!("read {}: {error}", shown.display()))),
                };
                let end = message.is_err();
                if sender.blocking_send(message).is_err() || end {
                    return;
                }
            }
        });
        Ok(receiver)
    }

    /// Writes a new file from chunks, on a thread of its own. It appears when `keep` is called.
    pub(crate) fn writer(&self, path: &str) -> Result<Writer> {
        let failed = |error: std::io::Error| self.failed("write", path, &error);
        let mut fresh = self.made().and_then(|dir| Fresh::create(dir, path)).map_err(failed)?;
        let (sender, mut receiver) = mpsc::channel::<Bytes>(4);
        let shown = self.path.join(path);
        let thread = tokio::task::spawn_blocking(move || {
            while let Some(chunk) = receiver.blocking_recv() {
                if let Err(error) = fresh.write(&chunk) {
                    return Err(Error::invalid(format!("write {}: {error}", shown.display())));
                }
            }
            Ok((fresh, shown))
        });
        Ok(Writer { sender, thread })
    }
}

/// A file that is being written.
pub(crate) struct Writer {
    sender: mpsc::Sender<Bytes>,
    thread: tokio::task::JoinHandle<Result<(Fresh, PathBuf)>>,
}

impl Writer {
    /// Adds bytes. False: writing failed, and `keep` says why.
    pub async fn write(&self, chunk: Bytes) -> bool {
        self.sender.send(chunk).await.is_ok()
    }

    /// Makes the file appear, synced to the disk.
    pub async fn keep(self) -> Result<()> {
        drop(self.sender);
        let lost = |error: tokio::task::JoinError| Error::invalid(format!("write a file: {error}"));
        let (mut fresh, shown) = self.thread.await.map_err(lost)??;
        let kept = tokio::task::spawn_blocking(move || fresh.keep()).await.map_err(lost)?;
        kept.map_err(|error| Error::invalid(format!("write {}: {error}", shown.display())))
    }
}

/// A file under a name of its own until it is whole.
struct Fresh {
    dir: Arc<Dir>,
    path: PathBuf,
    temporary: PathBuf,
    file: Option<cap_std::fs::File>,
}

impl Fresh {
    fn create(dir: Arc<Dir>, path: &str) -> std::io::Result<Self> {
        let path = Path::new(path);
        let folder = path.parent().unwrap_or(Path::new(""));
        if !folder.as_os_str().is_empty() {
            dir.create_dir_all(folder)?;
        }
        let temporary = folder.join(format!(".dray-{:016x}", fastrand::u64(..)));
        let mut options = cap_std::fs::OpenOptions::new();
        let file = dir.open_with(&temporary, options.write(true).create_new(true))?;
        Ok(Fresh { dir, path: path.into(), temporary, file: Some(file) })
    }

    fn write(&mut self, bytes: &[u8]) -> std::io::Result<()> {
        match &mut self.file {
            Some(file) => file.write_all(bytes),
            None => Ok(()),
        }
    }

    fn keep(&mut self) -> std::io::Result<()> {
        let Some(file) = self.file.take() else { return Ok(()) };
        let kept = file.sync_all().and_then(|()| self.dir.rename(&self.temporary, &self.dir, &self.path));
        if kept.is_err() {
            self.file = Some(file);
            return kept;
        }
        // The name must outlive a crash as the content does.
        let folder = self.path.parent().filter(|folder| !folder.as_os_str().is_empty());
        self.dir.open(folder.unwrap_or(Path::new(".")))?.sync_all()
    }
}

impl Drop for Fresh {
    fn drop(&mut self) {
        if self.file.take().is_some() {
            // Nothing more can be done about a file that cannot be removed.
            let _ = self.dir.remove_file(&self.temporary);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn replaces_only_what_is_expected() {
        let folder = tempfile::tempdir().unwrap();
        let root = Root::new(folder.path().join("new"));
        assert!(root.replace("a/index.json", None, b"1").unwrap());
        assert!(!root.replace("a/index.json", None, b"2").unwrap());
        assert!(root.replace("a/index.json", Some(b"1"), b"2").unwrap());
        assert_eq!(root.read("a/index.json", 0, None).unwrap(), b"2");
        assert_eq!(
            root.entries("a").unwrap(),
            [Entry { name: "index.json".into(), size: 1, directory: false }]
        );
    }

    #[test]
    fn nothing_outside_is_reached() {
        let folder = tempfile::tempdir().unwrap();
        std::fs::write(folder.path().join("secret"), "s").unwrap();
        std::fs::create_dir(folder.path().join("root")).unwrap();
        std::os::unix::fs::symlink("../secret", folder.path().join("root/link")).unwrap();
        let root = Root::new(folder.path().join("root"));
        for path in ["../secret", "link", "/etc/passwd"] {
            assert!(root.read(path, 0, None).is_err(), "{path}");
            assert!(root.stream(path, 0, None).is_err(), "{path}");
        }
        for path in ["../new", "/tmp/dray-outside"] {
            assert!(root.replace(path, None, b"").is_err(), "{path}");
            assert!(root.writer(path).is_err(), "{path}");
        }
    }

    #[tokio::test]
    async fn a_file_appears_when_it_is_whole_and_leaves_nothing_otherwise() {
        let folder = tempfile::tempdir().unwrap();
        let root = Root::new(folder.path());
        let writer = root.writer("blobs/a").unwrap();
        assert!(writer.write(Bytes::from_static(b"12")).await);
        assert_eq!(root.stat("blobs/a").unwrap(), None);
        writer.keep().await.unwrap();
        assert_eq!(root.stat("blobs/a").unwrap(), Some(2));
        let writer = root.writer("blobs/b").unwrap();
        writer.write(Bytes::from_static(b"12")).await;
        let Writer { sender, thread } = writer;
        drop(sender);
        drop(thread.await.unwrap());
        assert_eq!(root.entries("blobs").unwrap().len(), 1);
    }
}
