//! Which process a row is of, and whether that is still there: it holds the lock of a file (flock(2)), which ends with
//! it, wherever it runs and whoever waits for it.

use std::{
    fs::{File, TryLockError},
    io::Result,
    path::{Path, PathBuf},
    time::{Duration, SystemTime},
};

/// Files of processes that died are removed after so long. One that was just made may not be locked yet.
const LEFT: Duration = Duration::from_secs(3600);

/// This process, as the journal knows it.
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
    /// Begins to be known at a journal.
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
        // One that is left says of itself that nobody holds it.
        let _ = std::fs::remove_file(&self.path);
    }
}

/// Whether a process is there that the journal knows by this number.
pub(super) fn is_alive(journal: &Path, number: i64) -> bool {
    is_held(&file(journal, number))
}

fn is_held(path: &Path) -> bool {
    // Whoever only looks is in nobody's way.
    let looked = File::open(path).map(|file| file.try_lock_shared());
    matches!(looked, Ok(Err(TryLockError::WouldBlock)))
}

/// Removes what dead processes left.
fn sweep(folder: &Path) -> Result<()> {
    for entry in std::fs::read_dir(folder)? {
        let entry = entry?;
        let since = entry.metadata().and_then(|metadata| metadata.modified());
        let age = since.ok().and_then(|since| SystemTime::now().duration_since(since).ok());
        if age.is_some_and(|age| age > LEFT) && !is_held(&entry.path()) {
            // Another process may have been quicker.
            let _ = std::fs::remove_file(entry.path());
        }
    }
    Ok(())
}
