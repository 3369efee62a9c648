//! Finds out whether the process that a row belongs to is alive. Each process locks a file (flock(2)), and the kernel
//! releases the lock when the process ends. Unlike a process ID, this also works for processes of other containers and
//! for zombies.

use std::{
    fs::{File, TryLockError},
    io::Result,
    path::{Path, PathBuf},
    time::{Duration, SystemTime},
};

/// Age after which the file of a dead process is removed. A file that was just created may not be locked yet.
const LEFT: Duration = Duration::from_secs(3600);

/// The lock by which other processes know that this one is alive.
pub(super) struct ProcessLock {
    pub number: i64,
    path: PathBuf,
    _locked: File,
}

fn file(journal: &Path, number: i64) -> PathBuf {
    folder(journal).join(format!("{number:016x}"))
}

fn folder(journal: &Path) -> PathBuf {
    journal.with_file_name("alive")
}

impl ProcessLock {
    /// Creates and locks a file for this process beside the journal.
    pub fn begin(journal: &Path) -> Result<Self> {
        std::fs::create_dir_all(folder(journal))?;
        sweep(&folder(journal))?;
        let number = fastrand::i64(1..);
        let path = file(journal, number);
        let locked = File::create_new(&path)?;
        locked.lock()?;
        Ok(ProcessLock { number, path, _locked: locked })
    }
}

impl Drop for ProcessLock {
    fn drop(&mut self) {
        // If the file cannot be removed, it is no longer locked, which shows that the process has ended.
        let _ = std::fs::remove_file(&self.path);
    }
}

/// Whether the process with this number is alive.
pub(super) fn is_alive(journal: &Path, number: i64) -> bool {
    is_held(&file(journal, number))
}

fn is_held(path: &Path) -> bool {
    // The lock is shared, so that two processes that check a file at once do not take each other for its owner.
    let looked = File::open(path).map(|file| file.try_lock_shared());
    matches!(looked, Ok(Err(TryLockError::WouldBlock)))
}

/// Removes the files of dead processes.
fn sweep(folder: &Path) -> Result<()> {
    for entry in std::fs::read_dir(folder)? {
        let entry = entry?;
        let since = entry.metadata().and_then(|metadata| metadata.modified());
        let age = since.ok().and_then(|since| SystemTime::now().duration_since(since).ok());
        if age.is_some_and(|age| age > LEFT) && !is_held(&entry.path()) {
            // Another process may have removed it already.
            let _ = std::fs::remove_file(entry.path());
        }
    }
    Ok(())
}
