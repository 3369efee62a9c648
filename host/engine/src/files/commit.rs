//! Several changes to a folder that another program also writes to, made together while its locks are held.

use super::{atomic::AtomicFile, folder::Folder};
use crate::lock;
use cap_std::fs::{Dir, OpenOptionsExt};
use rustix::{
    fs::{FlockOperation, fcntl_lock, syncfs},
    io::Errno,
};
use std::{
    fs::File,
    io::{ErrorKind, Result},
    os::unix::fs::FileExt,
    path::Path,
    sync::{Arc, Mutex},
};

/// One of the changes of a commit.
#[derive(Clone, Debug)]
pub enum Change {
    /// Replaces a small file if it holds the expected content; `None` expects that the file does not exist.
    Replace {
        /// Relative to the place's root.
        path: String,
        /// The content that the file must hold.
        expected: Option<Vec<u8>>,
        /// The new content.
        content: Vec<u8>,
    },
    /// Creates a folder, and the folders above it.
    Folder(String),
    /// Moves the first path to the second. Whatever was at the second path is removed with its content.
    Move(String, String),
    /// Creates a symbolic link: its path, and its target.
    Symlink(String, String),
    /// Removes a file, or a folder with its content.
    Remove(String),
}

impl Change {
    /// The paths that the change touches.
    fn paths(&self) -> impl Iterator<Item = &String> {
        let (one, other) = match self {
            Change::Replace { path, .. }
            | Change::Folder(path)
            | Change::Symlink(path, _)
            | Change::Remove(path) => (path, None),
            Change::Move(from, to) => (from, Some(to)),
        };
        std::iter::once(one).chain(other)
    }
}

/// A POSIX lock belongs to the whole process, so the threads of this process need a lock of their own.
static ALONE: Mutex<()> = Mutex::new(());

/// Bytes of the token by which another program notices that somebody else wrote (containers/storage, pkg/lockfile).
const TOKEN: usize = 64;

/// A lock of another program, held until it is dropped.
struct Lock(File);

impl Lock {
    fn take(dir: &Dir, path: &Path) -> Result<Self> {
        let mut options = cap_std::fs::OpenOptions::new();
        options.read(true).write(true).create(true).truncate(false).mode(0o644);
        let file = dir.open_with(path, &options)?.into_std();
        match fcntl_lock(&file, FlockOperation::NonBlockingLockExclusive) {
            Ok(()) => return Ok(Lock(file)),
            Err(Errno::ACCESS | Errno::AGAIN) => {}
            Err(error) => return Err(error.into()),
        }
        tracing::info!(lock = %path.display(), "waiting for another program");
        fcntl_lock(&file, FlockOperation::LockExclusive)?;
        Ok(Lock(file))
    }

    /// Writes a new token, so that other programs notice that something was written.
    fn touch(&self) -> Result<()> {
        let token: Vec<u8> = (0..TOKEN).map(|_| fastrand::u8(..)).collect();
        self.0.write_all_at(&token, 0)
    }
}

impl Folder {
    /// Makes changes in their order while it holds the locks. If a file does not hold the expected content, or a path
    /// that is to be moved does not exist, nothing is changed and the result is false.
    pub fn commit(&self, locks: &[String], changes: &[Change]) -> crate::Result<bool> {
        let failed = |path: &str| {
            let path = path.to_owned();
            move |error: std::io::Error| self.failed("write", &path, &error)
        };
        for path in locks.iter().chain(changes.iter().flat_map(Change::paths)) {
            let inside =
                Path::new(path).components().all(|part| matches!(part, std::path::Component::Normal(_)));
            if path.is_empty() || !inside {
                let text = format!("change {path:?}: it is no path beneath the place's folder");
                return Err(crate::Error::new(crate::Kind::Denied, text));
            }
        }
        let dir = self.made().map_err(failed(""))?;
        // The content of files that are moved below must be on the disk before their new names are.
        let opened = File::open(self.shown("")).map_err(failed(""))?;
        syncfs(&opened).map_err(|error| failed("")(error.into()))?;
        let _alone = lock(&ALONE);
        let mut held = Vec::new();
        for path in locks {
            let folder = Path::new(path).parent().unwrap_or(Path::new(""));
            dir.create_dir_all(folder).map_err(failed(path))?;
            held.push(Lock::take(&dir, Path::new(path)).map_err(failed(path))?);
        }
        for (at, change) in changes.iter().enumerate() {
            let fits = match change {
                Change::Replace { path, expected, .. } => {
                    read(&dir, path).map_err(failed(path))? == *expected
                }
                Change::Move(from, _) => {
                    let brought = |change: &Change| matches!(change, Change::Move(_, to) if Path::new(from).starts_with(to));
                    dir.symlink_metadata(from).is_ok() || changes[..at].iter().any(brought)
                }
                Change::Folder(_) | Change::Symlink(..) | Change::Remove(_) => true,
            };
            if !fits {
                return Ok(false);
            }
        }
        for change in changes {
            match change {
                Change::Replace { path, content, .. } => {
                    let written = AtomicFile::create(dir.clone(), Path::new(path));
                    written
                        .and_then(|mut fresh| fresh.write(content).and_then(|()| fresh.keep()))
                        .map_err(failed(path))?;
                }
                Change::Folder(path) => folder(&dir, path).map_err(failed(path))?,
                Change::Move(from, to) => {
                    remove(&dir, to).and_then(|()| rename(&dir, from, to)).map_err(failed(to))?;
                }
                Change::Symlink(path, target) => {
                    remove(&dir, path)
                        .and_then(|()| dir.symlink_contents(target, path))
                        .map_err(failed(path))?;
                }
                Change::Remove(path) => remove(&dir, path).map_err(failed(path))?,
            }
        }
        for (held, path) in held.iter().zip(locks) {
            held.touch().map_err(failed(path))?;
        }
        Ok(true)
    }
}

fn read(dir: &Arc<Dir>, path: &str) -> Result<Option<Vec<u8>>> {
    match super::folder::content(dir, path) {
        Ok(content) => Ok(Some(content)),
        Err(error) if error.kind() == ErrorKind::NotFound => Ok(None),
        Err(error) => Err(error),
    }
}

/// Creates a folder that only its owner may look into (mode 0700).
fn folder(dir: &Dir, path: &str) -> Result<()> {
    let mut builder = cap_std::fs::DirBuilder::new();
    cap_std::fs::DirBuilderExt::mode(&mut builder, 0o700);
    builder.recursive(true);
    dir.create_dir_with(path, &builder)
}

/// Renames a file or folder. A file may have to go from one mount to another, because podman mounts a part of its
/// store.
fn rename(dir: &Arc<Dir>, from: &str, to: &str) -> Result<()> {
    match dir.rename(from, dir, to) {
        Err(error) if error.kind() == ErrorKind::CrossesDevices => {}
        done => return done,
    }
    let mut fresh = AtomicFile::create(dir.clone(), Path::new(to))?;
    fresh.write(&dir.read(from)?)?;
    fresh.keep()?;
    dir.remove_file(from)
}

fn remove(dir: &Dir, path: &str) -> Result<()> {
    let removed = match dir.symlink_metadata(path) {
        Ok(there) if there.is_dir() => dir.remove_dir_all(path),
        Ok(_) => dir.remove_file(path),
        Err(error) => Err(error),
    };
    match removed {
        Err(error) if error.kind() != ErrorKind::NotFound => Err(error),
        _ => Ok(()),
    }
}
