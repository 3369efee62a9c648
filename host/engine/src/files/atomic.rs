//! Atomic files: a file gets its name only when it is whole.

use super::partial;
use cap_std::fs::Dir;
use rustix::fs::{AtFlags, CWD, Mode, OFlags, RenameFlags, renameat_with};
use std::{
    fs::File,
    io::{Error, ErrorKind, Result, Seek, SeekFrom, Write},
    os::fd::AsRawFd,
    path::{Path, PathBuf},
    sync::Arc,
};

/// A file that does not have its final name yet. Where the file system supports unnamed files (`O_TMPFILE`, open(2)),
/// nothing is left of it when the process is killed. Elsewhere it has a temporary name until then.
pub(crate) struct AtomicFile {
    dir: Arc<Dir>,
    /// The folder that will contain the file. It is held open because another program may mount something over it
    /// (podman does), and a file cannot be renamed from one mount to another.
    folder: Dir,
    name: PathBuf,
    file: File,
    meanwhile: Meanwhile,
}

/// The name that a file has while it is written.
enum Meanwhile {
    None,
    /// A temporary name in a folder. It is removed when the file is dropped.
    Temporary(Dir, PathBuf),
    /// The name of a partial file, in the file's own folder. It stays if the file is dropped.
    Part(PathBuf),
    /// It was a partial file, and that name was removed. A file that has lost its last name cannot be linked again, so
    /// it is copied if it is kept.
    Lost,
}

fn parent(path: &Path) -> &Path {
    path.parent().filter(|folder| !folder.as_os_str().is_empty()).unwrap_or(Path::new("."))
}

fn temporary() -> PathBuf {
    format!(".dray-{:016x}", fastrand::u64(..)).into()
}

/// The path of an opened file in `/proc`, through which a file without a name can be linked (proc(5)).
fn shown(file: &File) -> PathBuf {
    PathBuf::from(format!("/proc/self/fd/{}", file.as_raw_fd()))
}

fn unnamed(folder: &Dir) -> Option<File> {
    let flags = OFlags::TMPFILE | OFlags::RDWR | OFlags::CLOEXEC;
    let file = File::from(rustix::fs::openat(folder, ".", flags, Mode::from_raw_mode(0o666)).ok()?);
    shown(&file).exists().then_some(file)
}

/// Opens the folder of a path, creating it if necessary, and returns it with the last component of the path.
fn place(dir: &Dir, path: &Path) -> Result<(Dir, PathBuf)> {
    let name = path.file_name().ok_or_else(|| Error::from(ErrorKind::InvalidInput))?;
    let folder = parent(path);
    if folder != Path::new(".") {
        dir.create_dir_all(folder)?;
    }
    Ok((dir.open_dir(folder)?, name.into()))
}

impl AtomicFile {
    /// A file that will appear at `path` in a folder. The folders above it are created.
    pub fn create(dir: Arc<Dir>, path: &Path) -> Result<Self> {
        let (folder, name) = place(&dir, path)?;
        AtomicFile::create_in(dir, folder, name)
    }

    fn create_in(dir: Arc<Dir>, folder: Dir, name: PathBuf) -> Result<Self> {
        match unnamed(&folder) {
            Some(file) => Ok(AtomicFile { dir, folder, name, file, meanwhile: Meanwhile::None }),
            None => AtomicFile::named(dir, folder, name),
        }
    }

    /// A file that has a temporary name until it is kept.
    pub(super) fn named(dir: Arc<Dir>, folder: Dir, name: PathBuf) -> Result<Self> {
        let temporary = temporary();
        let mut options = cap_std::fs::OpenOptions::new();
        let options = options.read(true).write(true).create_new(true);
        let file = folder.open_with(&temporary, options)?.into_std();
        let meanwhile = Meanwhile::Temporary(folder.try_clone()?, temporary);
        Ok(AtomicFile { dir, folder, name, file, meanwhile })
    }

    /// The partial file that another process left of a file, or a new empty file.
    pub fn left(dir: Arc<Dir>, path: &Path) -> Result<Self> {
        let (folder, name) = place(&dir, path)?;
        let left = partial::name(&name);
        match partial::open(&folder, &left) {
            Some(file) => Ok(AtomicFile { dir, folder, name, file, meanwhile: Meanwhile::Part(left) }),
            None => AtomicFile::create(dir, path),
        }
    }

    /// Whether it stays as a partial file if it is dropped.
    pub fn stays(&self) -> bool {
        matches!(self.meanwhile, Meanwhile::Part(_))
    }

    /// Gives it the name of a partial file, so that it stays if it is dropped. Does nothing if another process is
    /// writing the same file.
    pub fn stay(&mut self) {
        let part = partial::name(&self.name);
        let named = match &self.meanwhile {
            Meanwhile::None if partial::hold(&self.file) => self.name(&part).unwrap_or(false),
            Meanwhile::Temporary(from, temporary) if partial::hold(&self.file) => {
                renameat_with(from, temporary, &self.folder, &part, RenameFlags::NOREPLACE).is_ok()
            }
            _ => false,
        };
        if named {
            self.meanwhile = Meanwhile::Part(part);
        }
    }

    /// Removes the partial files in its folder that no process has resumed.
    pub fn sweep(&self) {
        partial::sweep(&self.folder);
    }

    /// Removes the partial file, so that nothing stays if this is dropped.
    pub fn forget(&mut self) {
        if let Meanwhile::Part(part) = &self.meanwhile {
            if partial::is_at(&self.folder, part, &self.file) {
                // If it cannot be removed, the next process resumes it.
                let _ = self.folder.remove_file(part);
            }
            self.meanwhile = Meanwhile::Lost;
        }
    }

    /// Moves to the end of what is written, and returns its size in bytes. A file that is longer than `most` is emptied
    /// first.
    pub fn there(&mut self, most: u64) -> Result<u64> {
        if self.file.metadata()?.len() > most {
            self.file.set_len(0)?;
        }
        self.file.seek(SeekFrom::End(0))
    }

    /// A hard link to the file `source` in `from`.
    pub fn link(dir: Arc<Dir>, path: &Path, from: &Dir, source: &str) -> Result<Self> {
        let file = from.open(source)?.into_std();
        // If the source is a symbolic link, a hard link would name that link and not its content.
        if !from.symlink_metadata(source)?.is_file() {
            return Err(ErrorKind::InvalidInput.into());
        }
        let (folder, name) = place(&dir, path)?;
        let temporary = temporary();
        from.hard_link(source, &folder, &temporary)?;
        let meanwhile = Meanwhile::Temporary(folder.try_clone()?, temporary);
        Ok(AtomicFile { dir, folder, name, file, meanwhile })
    }

    /// The opened file.
    pub fn file(&self) -> &File {
        &self.file
    }

    /// Appends bytes.
    pub fn write(&mut self, bytes: &[u8]) -> Result<()> {
        self.file.write_all(bytes)
    }

    /// Syncs the content to the disk. If that fails, the partial file is removed.
    pub fn sync(&mut self) -> Result<()> {
        self.file.sync_all().inspect_err(|_| self.forget())
    }

    /// Syncs the file to the disk and gives it its name.
    pub fn keep(mut self) -> Result<()> {
        self.sync()?;
        match &self.meanwhile {
            Meanwhile::Part(part) if partial::is_at(&self.folder, part, &self.file) => {
                self.folder.rename(part, &self.folder, &self.name)?;
                // From here on, a partial file of this name belongs to another process.
                self.meanwhile = Meanwhile::None;
                return sync(&self.folder);
            }
            // The name of the partial file is gone, or may by now belong to another file.
            Meanwhile::Part(_) | Meanwhile::Lost => {
                let copy =
                    AtomicFile::create_in(self.dir.clone(), self.folder.try_clone()?, self.name.clone())?;
                return copy.keep_copy(&mut self.file);
            }
            Meanwhile::Temporary(..) => {}
            Meanwhile::None => {
                if self.name(&self.name)? {
                    return sync(&self.folder);
                }
                // A file of that name exists, and is replaced in one step.
                let temporary = temporary();
                self.name(&temporary)?;
                self.meanwhile = Meanwhile::Temporary(self.folder.try_clone()?, temporary);
            }
        }
        if let Meanwhile::Temporary(from, temporary) = &self.meanwhile {
            // If both names are hard links to the same file, rename(2) keeps both. The temporary one is then removed
            // when `self` is dropped.
            from.rename(temporary, &self.folder, &self.name)?;
        }
        sync(&self.folder)
    }

    /// Copies the content and the permissions of another file, and keeps the copy.
    fn keep_copy(mut self, of: &mut File) -> Result<()> {
        self.file.set_permissions(of.metadata()?.permissions())?;
        of.rewind()?;
        std::io::copy(of, &mut self.file)?;
        self.keep()
    }

    /// Like [`AtomicFile::keep`], at another path.
    pub fn keep_at(mut self, path: &Path) -> Result<()> {
        let (folder, name) = place(&self.dir, path)?;
        let copy = AtomicFile::create(self.dir.clone(), path)?;
        let mut file = self.file.try_clone()?;
        (self.folder, self.name) = (folder, name);
        match self.keep() {
            // A subfolder may be on another file system, to which a file cannot be linked.
            Err(error) if error.kind() == ErrorKind::CrossesDevices => copy.keep_copy(&mut file),
            kept => kept,
        }
    }

    /// Links it to a name in its folder. False if the name is taken.
    fn name(&self, name: &Path) -> Result<bool> {
        match rustix::fs::linkat(CWD, shown(&self.file), &self.folder, name, AtFlags::SYMLINK_FOLLOW) {
            Ok(()) => Ok(true),
            Err(rustix::io::Errno::EXIST) => Ok(false),
            Err(error) => Err(error.into()),
        }
    }
}

/// Syncs a folder, so that the names in it survive a crash as the contents do.
fn sync(folder: &Dir) -> Result<()> {
    folder.open(".")?.sync_all()
}

impl Drop for AtomicFile {
    fn drop(&mut self) {
        if let Meanwhile::Temporary(folder, temporary) = &self.meanwhile {
            // The temporary name no longer exists if it was renamed. If it cannot be removed, nothing else can be done.
            let _ = folder.remove_file(temporary);
        }
    }
}
