//! What a process that died leaves of a large file, so that another one goes on with it: a file `.dray-….part`
//! beside where the whole one will be. Whoever writes it holds its lock (flock(2)), which ends with the process.

use cap_std::fs::{Dir, MetadataExt as _, OpenOptions};
use rustix::process::geteuid;
use std::{
    ffi::OsString,
    fs::File,
    os::unix::fs::MetadataExt as _,
    path::{Path, PathBuf},
    time::{Duration, SystemTime},
};

/// Bytes from which on a file leaves a part.
pub(super) const LARGE: u64 = 16 << 20;

/// Parts that nobody has touched for so long are removed.
const KEPT: Duration = Duration::from_secs(7 * 24 * 60 * 60);

const BEGIN: &str = ".dray-";
const END: &str = ".part";

/// What the part of a file is called.
pub(super) fn name(of: &Path) -> PathBuf {
    let mut name = OsString::from(BEGIN);
    name.push(of);
    name.push(END);
    name.into()
}

/// Opens what is left under a name, and takes hold of it; none: there is nothing, or somebody writes it, or it is
/// somebody else's, who could go on writing to it.
pub(super) fn open(folder: &Dir, name: &Path) -> Option<File> {
    let file = held(folder, name)?;
    let is_ours = file.metadata().is_ok_and(|opened| opened.uid() == geteuid().as_raw());
    (is_ours && is_at(folder, name, &file)).then_some(file)
}

/// The file of a name, of which this process has taken hold.
fn held(folder: &Dir, name: &Path) -> Option<File> {
    let mut options = OpenOptions::new();
    let file = folder.open_with(name, options.read(true).write(true)).ok()?.into_std();
    (hold(&file) && leads_to(folder, name, &file)).then_some(file)
}

/// Takes hold of a file for as long as it is open. False: somebody else has it, or the file system knows no locks.
pub(super) fn hold(file: &File) -> bool {
    file.try_lock().is_ok()
}

/// Whether a name leads to a file, and no other one does.
pub(super) fn is_at(folder: &Dir, name: &Path, file: &File) -> bool {
    leads_to(folder, name, file) && file.metadata().is_ok_and(|opened| opened.nlink() == 1)
}

/// Whether a name still leads to a file: who had it may have made it whole meanwhile.
fn leads_to(folder: &Dir, name: &Path, file: &File) -> bool {
    let (Ok(named), Ok(opened)) = (folder.symlink_metadata(name), file.metadata()) else { return false };
    named.is_file() && (named.dev(), named.ino()) == (opened.dev(), opened.ino())
}

/// Removes what nobody came back for.
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
            // One that cannot be removed is in nobody's way.
            let _ = folder.remove_file(&name);
        }
    }
}
