//! Partial files: what a process leaves of a large file when it dies, so that another process can resume it. A partial
//! file is named `.dray-….part` and is in the folder of the finished file. The process that writes it holds its lock
//! (flock(2)), which the kernel releases when the process ends.

use cap_std::fs::{Dir, MetadataExt as _, OpenOptions};
use rustix::process::geteuid;
use std::{
    ffi::OsString,
    fs::File,
    os::unix::fs::MetadataExt as _,
    path::{Path, PathBuf},
    time::{Duration, SystemTime},
};

/// Size in bytes from which a file leaves a partial file.
pub(super) const LARGE: u64 = 16 << 20;

/// Age after which a partial file that nobody has touched is removed.
const KEPT: Duration = Duration::from_secs(7 * 24 * 60 * 60);

const BEGIN: &str = ".dray-";
const END: &str = ".part";

/// Name of the partial file of the file `of`.
pub(super) fn name(of: &Path) -> PathBuf {
    let mut name = OsString::from(BEGIN);
    name.push(of);
    name.push(END);
    name.into()
}

/// Opens and locks a partial file. `None` means that it does not exist, that another process holds its lock, or that it
/// belongs to another user, who could still write to it.
pub(super) fn open(folder: &Dir, name: &Path) -> Option<File> {
    let file = held(folder, name)?;
    let is_ours = file.metadata().is_ok_and(|opened| opened.uid() == geteuid().as_raw());
    (is_ours && is_at(folder, name, &file)).then_some(file)
}

/// Opens and locks the file of a name.
fn held(folder: &Dir, name: &Path) -> Option<File> {
    let mut options = OpenOptions::new();
    let file = folder.open_with(name, options.read(true).write(true)).ok()?.into_std();
    (hold(&file) && leads_to(folder, name, &file)).then_some(file)
}

/// Locks a file for as long as it is open. False if another process holds the lock, or if the file system has no locks.
pub(super) fn hold(file: &File) -> bool {
    file.try_lock().is_ok()
}

/// Whether a name leads to this file and is its only name.
pub(super) fn is_at(folder: &Dir, name: &Path, file: &File) -> bool {
    leads_to(folder, name, file) && file.metadata().is_ok_and(|opened| opened.nlink() == 1)
}

/// Whether a name still leads to this file: the process that held the lock before may have renamed the file to its
/// final name.
fn leads_to(folder: &Dir, name: &Path, file: &File) -> bool {
    let (Ok(named), Ok(opened)) = (folder.symlink_metadata(name), file.metadata()) else { return false };
    named.is_file() && (named.dev(), named.ino()) == (opened.dev(), opened.ino())
}

/// Removes partial files that no process has resumed for [`KEPT`].
pub(super) fn sweep(folder: &Dir) {
    let is_part = |name: &str| name.starts_with(BEGIN) && name.ends_with(END);
    for entry in folder.entries().into_iter().flatten().flatten() {
        let name = entry.file_name();
        if !name.to_str().is_some_and(is_part) {
            continue;
        }
        let touched = entry.metadata().and_then(|metadata| metadata.modified());
        let age = touched.ok().and_then(|touched| SystemTime::now().duration_since(touched.into_std()).ok());
        if age.is_some_and(|age| age > KEPT)
            && let Some(_held) = held(folder, Path::new(&name))
        {
            // A partial file that cannot be removed does no harm.
            let _ = folder.remove_file(&name);
        }
    }
}
