//! A file that appears under its name when it is whole.

use cap_std::fs::{Dir, MetadataExt as _};
use rustix::fs::{AtFlags, CWD, Mode, OFlags};
use std::{
    fs::File,
    io::{Error, ErrorKind, Result, Seek, Write},
    os::{fd::AsRawFd, unix::fs::MetadataExt as _},
    path::{Path, PathBuf},
    sync::Arc,
};

/// A file without its name. Where the file system can keep files that have none (`O_TMPFILE`, open(2)),
/// nothing is left of it when the process is killed; elsewhere it has a name of its own until then.
pub(crate) struct Fresh {
    dir: Arc<Dir>,
    path: PathBuf,
    file: File,
    /// The name that it has meanwhile.
    temporary: Option<PathBuf>,
}

fn parent(path: &Path) -> &Path {
    path.parent().filter(|folder| !folder.as_os_str().is_empty()).unwrap_or(Path::new("."))
}

fn temporary(path: &Path) -> PathBuf {
    parent(path).join(format!(".dray-{:016x}", fastrand::u64(..)))
}

/// Where the kernel shows an opened file, so that a file without a name can get one (proc(5)).
fn shown(file: &File) -> PathBuf {
    PathBuf::from(format!("/proc/self/fd/{}", file.as_raw_fd()))
}

fn unnamed(dir: &Dir, folder: &Path) -> Option<File> {
    let folder = dir.open_dir(folder).ok()?;
    let flags = OFlags::TMPFILE | OFlags::RDWR | OFlags::CLOEXEC;
    let file = File::from(rustix::fs::openat(&folder, ".", flags, Mode::from_raw_mode(0o666)).ok()?);
    shown(&file).exists().then_some(file)
}

impl Fresh {
    /// A file that will be at `path` in a folder. Folders above it are made.
    pub fn create(dir: Arc<Dir>, path: &Path) -> Result<Self> {
        let folder = parent(path);
        if folder != Path::new(".") {
            dir.create_dir_all(folder)?;
        }
        if let Some(file) = unnamed(&dir, folder) {
            return Ok(Fresh { dir, path: path.into(), file, temporary: None });
        }
        Fresh::named(dir, path)
    }

    /// One that has a name of its own meanwhile.
    pub(super) fn named(dir: Arc<Dir>, path: &Path) -> Result<Self> {
        let temporary = temporary(path);
        let mut options = cap_std::fs::OpenOptions::new();
        let file = dir.open_with(&temporary, options.read(true).write(true).create_new(true))?.into_std();
        Ok(Fresh { dir, path: path.into(), file, temporary: Some(temporary) })
    }

    /// A further name of a file that `from` holds.
    pub fn link(dir: Arc<Dir>, path: &Path, from: &Dir, name: &str) -> Result<Self> {
        let file = from.open(name)?.into_std();
        // A link of theirs may be a symbolic one, and then it is none of this content.
        if !from.symlink_metadata(name)?.is_file() {
            return Err(ErrorKind::InvalidInput.into());
        }
        dir.create_dir_all(parent(path))?;
        let temporary = temporary(path);
        from.hard_link(name, &dir, &temporary)?;
        Ok(Fresh { dir, path: path.into(), file, temporary: Some(temporary) })
    }

    /// The file itself.
    pub fn file(&self) -> &File {
        &self.file
    }

    /// Adds bytes at its end.
    pub fn write(&mut self, bytes: &[u8]) -> Result<()> {
        self.file.write_all(bytes)
    }

    /// Makes it appear, synced to the disk.
    pub fn keep(mut self) -> Result<()> {
        self.file.sync_all()?;
        let folder = self.dir.open_dir(parent(&self.path))?;
        let name = self.path.file_name().ok_or_else(|| Error::from(ErrorKind::InvalidInput))?.to_owned();
        let named = match self.temporary {
            Some(_) => false,
            None => self.name(&folder, Path::new(&name))?,
        };
        if !named {
            // Something has that name: it is replaced as one step.
            let temporary = match &self.temporary {
                Some(temporary) => temporary.clone(),
                None => {
                    let temporary = temporary(&self.path);
                    self.name(&folder, Path::new(temporary.file_name().unwrap_or_default()))?;
                    self.temporary = Some(temporary.clone());
                    temporary
                }
            };
            self.dir.rename(&temporary, &self.dir, &self.path)?;
            // Of two names of one file, rename(2) leaves both: then it is removed with this.
        }
        // The name must outlive a crash as the content does.
        self.dir.open(parent(&self.path))?.sync_all()
    }

    /// As [`Fresh::keep`], at another path.
    pub fn keep_at(mut self, path: &Path) -> Result<()> {
        self.dir.create_dir_all(parent(path))?;
        if self.dir.metadata(parent(path))?.dev() != self.file.metadata()?.dev() {
            // A folder below is a file system of its own, to which no name can lead.
            let mut copy = Fresh::create(self.dir.clone(), path)?;
            self.file.rewind()?;
            std::io::copy(&mut self.file, &mut copy.file)?;
            return copy.keep();
        }
        self.path = path.into();
        self.keep()
    }

    /// Gives it a name. False: that is taken.
    fn name(&self, folder: &Dir, name: &Path) -> Result<bool> {
        match rustix::fs::linkat(CWD, shown(&self.file), folder, name, AtFlags::SYMLINK_FOLLOW) {
            Ok(()) => Ok(true),
            Err(rustix::io::Errno::EXIST) => Ok(false),
            Err(error) => Err(error.into()),
        }
    }
}

impl Drop for Fresh {
    fn drop(&mut self) {
        if let Some(temporary) = &self.temporary {
            // Nothing more can be done about a file that cannot be removed.
            let _ = self.dir.remove_file(temporary);
        }
    }
}
