//! Regular files. Opening a FIFO would block until somebody writes to it, so files are opened with `O_NONBLOCK`, and
//! what is no regular file is refused with [`ErrorKind::InvalidInput`].

use cap_std::fs::Dir;
use std::{fs::File, io::ErrorKind, path::Path};

const NONBLOCK: i32 = rustix::fs::OFlags::NONBLOCK.bits() as i32;

/// Opens a regular file beneath a folder.
pub(super) fn beneath(dir: &Dir, path: &str) -> std::io::Result<File> {
    use cap_std::fs::OpenOptionsExt;
    let mut options = cap_std::fs::OpenOptions::new();
    checked(dir.open_with(path, options.read(true).custom_flags(NONBLOCK))?.into_std())
}

/// Opens a regular file that the user names, and which may be anywhere.
pub(crate) fn open(path: &Path) -> std::io::Result<File> {
    use std::os::unix::fs::OpenOptionsExt;
    checked(std::fs::OpenOptions::new().read(true).custom_flags(NONBLOCK).open(path)?)
}

fn checked(file: File) -> std::io::Result<File> {
    match file.metadata()?.is_file() {
        true => Ok(file),
        false => Err(std::io::Error::new(ErrorKind::InvalidInput, "it is no regular file")),
    }
}
