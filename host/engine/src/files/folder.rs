//! A folder. Every path is opened beneath it, so that no path leads out of it.

use super::{
    Entry, Located,
    atomic::AtomicFile,
    failed, regular,
    writer::{Target, Writer},
};
use crate::{Error, Result};
use cap_std::{ambient_authority, fs::Dir};
use std::{
    io::{ErrorKind, Read},
    os::unix::fs::DirBuilderExt,
    path::{Path, PathBuf},
    sync::{Arc, OnceLock},
};

/// Content of a file of at most [`crate::DOCUMENT_LIMIT`] bytes.
pub(super) fn content(dir: &Dir, path: &str) -> std::io::Result<Vec<u8>> {
    let mut content = Vec::new();
    regular::beneath(dir, path)?.take(crate::DOCUMENT_LIMIT as u64 + 1).read_to_end(&mut content)?;
    match content.len() > crate::DOCUMENT_LIMIT {
        true => Err(std::io::Error::new(ErrorKind::InvalidData, "it is too long for a document")),
        false => Ok(content),
    }
}

/// The folder that holds the files of a place.
pub(super) struct Folder {
    path: PathBuf,
    dir: OnceLock<Arc<Dir>>,
    /// The folder that replaces the subfolder `blobs`. `None` means that `blobs` is an ordinary subfolder.
    blobs: Option<Box<Folder>>,
    swept: OnceLock<()>,
    /// Whether the folder is created with mode 0700.
    private: bool,
}

impl Folder {
    pub fn new(path: PathBuf) -> Self {
        Folder { path, dir: OnceLock::new(), blobs: None, swept: OnceLock::new(), private: false }
    }

    /// Lets [`Folder::made`] create the folder with mode 0700.
    pub fn private(self) -> Self {
        Folder { private: true, ..self }
    }

    /// Replaces the subfolder `blobs` by another folder.
    pub fn with_blobs(mut self, blobs: Option<&Path>) -> Self {
        self.blobs = blobs.map(|path| Box::new(Folder::new(path.into())));
        self
    }

    /// The folder that a path leads into, and the path relative to that folder.
    pub fn at<'a>(&'a self, path: &'a str) -> (&'a Folder, &'a str) {
        match (&self.blobs, path.strip_prefix("blobs")) {
            (Some(blobs), Some("")) => (blobs, ""),
            (Some(blobs), Some(rest)) if rest.starts_with('/') => (blobs, rest.trim_start_matches('/')),
            _ => (self, path),
        }
    }

    pub fn shown(&self, path: &str) -> PathBuf {
        self.path.join(path)
    }

    pub fn failed(&self, doing: &str, path: &str, error: &std::io::Error) -> Error {
        failed(doing, &self.shown(path), error)
    }

    fn dir(&self) -> std::io::Result<Arc<Dir>> {
        if let Some(dir) = self.dir.get() {
            return Ok(dir.clone());
        }
        let dir = Arc::new(Dir::open_ambient_dir(&self.path, ambient_authority())?);
        Ok(self.dir.get_or_init(|| dir).clone())
    }

    /// Opens the folder, and creates it if it does not exist.
    pub fn made(&self) -> std::io::Result<Arc<Dir>> {
        if self.dir.get().is_none() {
            let mut builder = std::fs::DirBuilder::new();
            builder.recursive(true);
            if self.private {
                builder.mode(0o700);
            }
            builder.create(&self.path)?;
        }
        self.dir()
    }

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

    pub fn stat(&self, path: &str) -> Result<Option<u64>> {
        match self.dir().and_then(|dir| dir.metadata(path)) {
            Ok(metadata) => Ok(metadata.is_file().then_some(metadata.len())),
            Err(error) if error.kind() == ErrorKind::NotFound => Ok(None),
            Err(error) => Err(self.failed("read", path, &error)),
        }
    }

    pub fn locate(&self, path: &str) -> Result<Located> {
        let open = || {
            let file = regular::beneath(&*self.dir()?, path)?;
            Ok(Located::Stretch { size: file.metadata()?.len(), file: Arc::new(file), offset: 0 })
        };
        open().map_err(|error| self.failed("read", path, &error))
    }

    pub fn replace(&self, path: &str, expected: Option<&[u8]>, content: &[u8]) -> Result<bool> {
        let failed = |error: std::io::Error| self.failed("write", path, &error);
        let dir = self.made().map_err(failed)?;
        // Every dray process that writes to this folder holds this lock while it compares and renames.
        let guard = std::fs::File::open(&self.path).map_err(failed)?;
        guard.lock().map_err(failed)?;
        let current = match self::content(&dir, path) {
            Ok(current) => Some(current),
            Err(error) if error.kind() == ErrorKind::NotFound => None,
            Err(error) => return Err(failed(error)),
        };
        if current.as_deref() != expected {
            return Ok(false);
        }
        let mut fresh = AtomicFile::create(dir, Path::new(path)).map_err(failed)?;
        fresh.write(content).and_then(|()| fresh.keep()).map_err(failed)?;
        Ok(true)
    }

    pub fn remove(&self, paths: &[String]) -> Result<()> {
        for path in paths {
            let (folder, path) = self.at(path);
            match folder.dir().and_then(|dir| dir.remove_file(path)) {
                Err(error) if error.kind() != ErrorKind::NotFound => {
                    return Err(folder.failed("remove", path, &error));
                }
                _ => {}
            }
        }
        Ok(())
    }

    /// Opens the folder that contains `path`, creating it if necessary, and returns it with the last component of
    /// `path`.
    pub fn parent(&self, path: &str) -> Result<(std::fs::File, PathBuf)> {
        let open = || {
            let wrong = || std::io::Error::new(ErrorKind::InvalidInput, "it is no name of a folder");
            let name = Path::new(path).file_name().ok_or_else(wrong)?;
            let above = Path::new(path).parent().filter(|above| !above.as_os_str().is_empty());
            let above = above.unwrap_or(Path::new("."));
            let dir = self.made()?;
            dir.create_dir_all(above)?;
            Ok((dir.open_dir(above)?.into_std_file(), name.into()))
        };
        open().map_err(|error| self.failed("write", path, &error))
    }

    /// Opens a file or, with `folder`, a folder.
    pub fn opened(&self, path: &str, folder: bool) -> Result<std::fs::File> {
        let open = |dir: Arc<Dir>| match folder {
            true => dir.open_dir(path).map(Dir::into_std_file),
            false => regular::beneath(&dir, path),
        };
        self.dir().and_then(open).map_err(|error| self.failed("read", path, &error))
    }

    /// A new file with the content of a file of another folder (see [`super::Root::take`]).
    pub fn take(&self, path: &str, from: &Folder, file: &str, link: bool) -> Option<AtomicFile> {
        let (dir, source) = (self.made().ok()?, from.dir().ok()?);
        let opened = regular::beneath(&source, file).ok()?;
        let fresh = AtomicFile::create(dir.clone(), Path::new(path)).ok()?;
        if rustix::fs::ioctl_ficlone(fresh.file(), &opened).is_ok() {
            return Some(fresh);
        }
        if link { AtomicFile::link(dir, Path::new(path), &source, file).ok() } else { None }
    }

    /// An atomic file. Its path is chosen later.
    pub fn atomic_file(&self) -> std::io::Result<AtomicFile> {
        AtomicFile::create(self.made()?, Path::new("blob"))
    }

    pub fn writer(&self, path: &str) -> Result<Writer> {
        let fresh = self.made().and_then(|dir| AtomicFile::create(dir, Path::new(path)));
        let fresh = fresh.map_err(|error| self.failed("write", path, &error))?;
        self.sweep(&fresh);
        Ok(Writer::start(Target::AtomicFile(fresh), self.shown(path)))
    }

    /// The partial file of a large file: the one that an earlier process left, or a new one, which stays if the
    /// transfer is interrupted.
    pub fn part(&self, path: &str) -> Result<Target> {
        let fresh = self.made().and_then(|dir| AtomicFile::left(dir, Path::new(path)));
        let mut fresh = fresh.map_err(|error| self.failed("write", path, &error))?;
        fresh.stay();
        self.sweep(&fresh);
        Ok(Target::AtomicFile(fresh))
    }

    /// Removes abandoned partial files, once for each folder, because a folder may have very many files.
    fn sweep(&self, fresh: &AtomicFile) {
        self.swept.get_or_init(|| fresh.sweep());
    }
}
