//! A file that appears under its name when it is whole.

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

/// A file without its name. Where the file system can keep files that have none (`O_TMPFILE`, open(2)),
/// nothing is left of it when the process is killed; elsewhere it has a name of its own until then.
pub(crate) struct AtomicFile {
    dir: Arc<Dir>,
    /// The folder in which it will be. Held open: another program may mount something over it (podman does),
    /// and no name leads from one mount to another.
    folder: Dir,
    name: PathBuf,
    file: File,
    meanwhile: Meanwhile,
}

/// The name that a file has while it is written.
enum Meanwhile {
    None,
    /// One that goes with it; in which folder.
    Temporary(Dir, PathBuf),
    /// One under which it stays if it is given up, in its own folder.
    Part(PathBuf),
    /// It had one, and can get no other.
    Lost,
}

fn parent(path: &Path) -> &Path {
    path.parent().filter(|folder| !folder.as_os_str().is_empty()).unwrap_or(Path::new("."))
}

fn temporary() -> PathBuf {
    format!(".dray-{:016x}", fastrand::u64(..)).into()
}

/// Where the kernel shows an opened file, so that a file without a name can get one (proc(5)).
fn shown(file: &File) -> PathBuf {
    PathBuf::from(format!("/proc/self/fd/{}", file.as_raw_fd()))
}

fn unnamed(folder: &Dir) -> Option<File> {
    let flags = OFlags::TMPFILE | OFlags::RDWR | OFlags::CLOEXEC;
    let file = File::from(rustix::fs::openat(folder, ".", flags, Mode::from_raw_mode(0o666)).ok()?);
    shown(&file).exists().then_some(file)
}

/// The folder of a path, made if need be, and the name in it.
fn place(dir: &Dir, path: &Path) -> Result<(Dir, PathBuf)> {
    let name = path.file_name().ok_or_else(|| Error::from(ErrorKind::InvalidInput))?;
    let folder = parent(path);
    if folder != Path::new(".") {
        dir.create_dir_all(folder)?;
    }
    Ok((dir.open_dir(folder)?, name.into()))
}

impl AtomicFile {
    /// A file that will be at `path` in a folder. Folders above it are made.
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

    /// One that has a name of its own meanwhile.
    pub(super) fn named(dir: Arc<Dir>, folder: Dir, name: PathBuf) -> Result<Self> {
        let temporary = temporary();
        let mut options = cap_std::fs::OpenOptions::new();
        let options = options.read(true).write(true).create_new(true);
        let file = folder.open_with(&temporary, options)?.into_std();
        let meanwhile = Meanwhile::Temporary(folder.try_clone()?, temporary);
        Ok(AtomicFile { dir, folder, name, file, meanwhile })
    }

    /// The part that another process left of a file, or a file that is empty.
    pub fn left(dir: Arc<Dir>, path: &Path) -> Result<Self> {
        let (folder, name) = place(&dir, path)?;
        let left = partial::name(&name);
        match partial::open(&folder, &left) {
            Some(file) => Ok(AtomicFile { dir, folder, name, file, meanwhile: Meanwhile::Part(left) }),
            None => AtomicFile::create(dir, path),
        }
    }

    /// Whether it leaves its part.
    pub fn stays(&self) -> bool {
        matches!(self.meanwhile, Meanwhile::Part(_))
    }

    /// From now on it leaves its part if it is given up, unless somebody else is writing the same.
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

    /// Removes the parts beside it that nobody came back for.
    pub fn sweep(&self) {
        partial::sweep(&self.folder);
    }

    /// Nothing is left of it if it is given up.
    pub fn forget(&mut self) {
        if let Meanwhile::Part(part) = &self.meanwhile {
            if partial::is_at(&self.folder, part, &self.file) {
                // One that cannot be removed is resumed.
                let _ = self.folder.remove_file(part);
            }
            self.meanwhile = Meanwhile::Lost;
        }
    }

    /// Bytes that were written to it, after which it goes on. One that has more than it can have begins anew.
    pub fn there(&mut self, most: u64) -> Result<u64> {
        if self.file.metadata()?.len() > most {
            self.file.set_len(0)?;
        }
        self.file.seek(SeekFrom::End(0))
    }

    /// A further name of a file that `from` holds.
    pub fn link(dir: Arc<Dir>, path: &Path, from: &Dir, source: &str) -> Result<Self> {
        let file = from.open(source)?.into_std();
        // A link of theirs may be a symbolic one, and then it is none of this content.
        if !from.symlink_metadata(source)?.is_file() {
            return Err(ErrorKind::InvalidInput.into());
        }
        let (folder, name) = place(&dir, path)?;
        let temporary = temporary();
        from.hard_link(source, &folder, &temporary)?;
        let meanwhile = Meanwhile::Temporary(folder.try_clone()?, temporary);
        Ok(AtomicFile { dir, folder, name, file, meanwhile })
    }

    /// The file itself.
    pub fn file(&self) -> &File {
        &self.file
    }

    /// Adds bytes at its end.
    pub fn write(&mut self, bytes: &[u8]) -> Result<()> {
        self.file.write_all(bytes)
    }

    /// Writes it to the disk. What cannot be written there leaves nothing on it.
    pub fn sync(&mut self) -> Result<()> {
        self.file.sync_all().inspect_err(|_| self.forget())
    }

    /// Makes it appear, synced to the disk.
    pub fn keep(mut self) -> Result<()> {
        self.sync()?;
        match &self.meanwhile {
            Meanwhile::Part(part) if partial::is_at(&self.folder, part, &self.file) => {
                self.folder.rename(part, &self.folder, &self.name)?;
                // From here on the part's name is that of somebody else's.
                self.meanwhile = Meanwhile::None;
                return sync(&self.folder);
            }
            // Somebody took its name away, and may have given it to another file.
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
                // Something has that name: it is replaced as one step.
                let temporary = temporary();
                self.name(&temporary)?;
                self.meanwhile = Meanwhile::Temporary(self.folder.try_clone()?, temporary);
            }
        }
        if let Meanwhile::Temporary(from, temporary) = &self.meanwhile {
            // Of two names of one file, rename(2) leaves both: then this one is removed with `self`.
            from.rename(temporary, &self.folder, &self.name)?;
        }
        sync(&self.folder)
    }

    /// Makes it appear with what another file is.
    fn keep_copy(mut self, of: &mut File) -> Result<()> {
        self.file.set_permissions(of.metadata()?.permissions())?;
        of.rewind()?;
        std::io::copy(of, &mut self.file)?;
        self.keep()
    }

    /// As [`AtomicFile::keep`], at another path.
    pub fn keep_at(mut self, path: &Path) -> Result<()> {
        let (folder, name) = place(&self.dir, path)?;
        let copy = AtomicFile::create(self.dir.clone(), path)?;
        let mut file = self.file.try_clone()?;
        (self.folder, self.name) = (folder, name);
        match self.keep() {
            // A folder below may be a file system of its own, to which no name can lead.
            Err(error) if error.kind() == ErrorKind::CrossesDevices => copy.keep_copy(&mut file),
            kept => kept,
        }
    }

    /// Gives it a name in its folder. False: that is taken.
    fn name(&self, name: &Path) -> Result<bool> {
        match rustix::fs::linkat(CWD, shown(&self.file), &self.folder, name, AtFlags::SYMLINK_FOLLOW) {
            Ok(()) => Ok(true),
            Err(rustix::io::Errno::EXIST) => Ok(false),
            Err(error) => Err(error.into()),
        }
    }
}

/// The names in a folder must outlive a crash as the contents do.
fn sync(folder: &Dir) -> Result<()> {
    folder.open(".")?.sync_all()
}

impl Drop for AtomicFile {
    fn drop(&mut self) {
        if let Meanwhile::Temporary(folder, temporary) = &self.meanwhile {
            // It is gone where it became the file, and nothing can be done about one that cannot be removed.
            let _ = folder.remove_file(temporary);
        }
    }
}
