//! Lock files on disk, and other files of a policy that have an end.

use crate::failure::Failure;
use dray_core::policy::Lock;
use dray_engine::{Error, Kind};
use std::{
    io::{Read, Write},
    os::unix::fs::PermissionsExt,
    path::Path,
};

/// Bytes of a policy, or of its lock. More is none.
const LARGEST: u64 = 64 << 20;

/// Reads a file, which may be a pipe, and has an end.
pub fn bounded(path: &Path) -> std::io::Result<String> {
    let mut text = String::new();
    let read = std::fs::File::open(path)?.take(LARGEST).read_to_string(&mut text)?;
    match read as u64 == LARGEST {
        true => Err(std::io::Error::other("it is too large")),
        false => Ok(text),
    }
}

/// Reads a lock file. `None` means that it does not exist.
pub fn read(path: &Path) -> Result<Option<Lock>, Failure> {
    let failed = |why: String| {
        let text = format!("read the lock file {}: {why}", path.display());
        Failure::Usage(Error::new(Kind::Invalid, text).help("mend it, or remove it and write it anew: `dray plugin install` locks plugins, and `dray lock` tags"))
    };
    let read = || match std::fs::metadata(path)?.is_file() {
        true => bounded(path),
        false => Err(std::io::Error::other("it is no regular file")),
    };
    match read() {
        Ok(text) => Lock::parse(&text).map(Some).map_err(failed),
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(None),
        Err(error) => Err(Failure::usage(format!("read the lock file {}: {error}", path.display()))),
    }
}

/// Replaces a lock file as a whole.
fn write(path: &Path, lock: &Lock) -> std::io::Result<()> {
    let folder = path.parent().unwrap_or(Path::new("."));
    let mut file = tempfile::NamedTempFile::new_in(folder)?;
    file.write_all(lock.to_toml().as_bytes())?;
    // Others may read it, as they may read a policy.
    file.as_file().set_permissions(PermissionsExt::from_mode(0o644))?;
    file.as_file().sync_all()?;
    file.persist(path).map_err(|error| error.error)?;
    Ok(())
}

/// Changes a lock file. No other command changes it meanwhile, so none takes back what another one did.
pub fn edit(path: &Path, change: impl FnOnce(&mut Lock) -> bool) -> Result<bool, Failure> {
    let failed = |error| Error::new(Kind::Io, format!("write {}: {error}", path.display()));
    // The file itself is replaced, so its folder is locked.
    let folder = std::fs::File::open(path.parent().unwrap_or(Path::new("."))).map_err(failed)?;
    folder.lock().map_err(failed)?;
    let mut lock = read(path)?.unwrap_or_default();
    let changed = change(&mut lock);
    if changed {
        write(path, &lock).map_err(failed)?;
    }
    Ok(changed)
}
