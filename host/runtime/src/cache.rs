//! A cache of compiled components on disk, in a folder that nobody else can write.

use dray_core::Digest;
use rustix::{
    fs::{AtFlags, FileType, Mode, OFlags, Stat, fstat, fstatfs, openat, renameat, statat, unlinkat},
    io::Errno,
};
use std::{
    fs::{self, DirBuilder, File},
    hash::{DefaultHasher, Hash, Hasher},
    io::{Read, Write},
    os::{
        fd::{AsRawFd, OwnedFd},
        unix::fs::DirBuilderExt,
    },
    path::Path,
    time::{Duration, SystemTime},
};
use wasmtime::{Engine, component::Component};

/// How the file names of compiled components end. They begin with the digest of the component and a hash of the
/// compiler's version and settings.
const ENDING: &str = ".cwasm";
/// Size limit of a compiled component in bytes. dray's own have about 300 KiB.
const LARGEST: u64 = 256 << 20;

/// Compiles a component, or loads what an earlier run compiled. If the cache cannot be used, the component is compiled.
pub(crate) fn component(engine: &Engine, wasm: &[u8], folder: Option<&Path>) -> wasmtime::Result<Component> {
    let opened = folder.map(|folder| (folder, open_folder(folder, true)));
    let (folder, dir) = match opened {
        Some((folder, Ok(dir))) => (folder, dir),
        Some((folder, Err(error))) => {
            tracing::debug!(%error, path = %folder.display(), "compiled components are not cached");
            return Component::new(engine, wasm);
        }
        None => return Component::new(engine, wasm),
    };
    let mut compatibility = DefaultHasher::new();
    engine.precompile_compatibility_hash().hash(&mut compatibility);
    let name = format!("{}-{:016x}{ENDING}", Digest::of(wasm).hex(), compatibility.finish());
    match open(&dir, &name).and_then(|compiled| compiled.map(|compiled| load(engine, compiled)).transpose()) {
        Ok(Some(component)) => return Ok(component),
        Ok(None) => {}
        Err(error) => tracing::debug!(%error, name, "the cached component cannot be used"),
    }
    let component = Component::new(engine, wasm)?;
    if let Err(error) = keep(&component.serialize()?, &dir, &name) {
        tracing::debug!(%error, path = %folder.display(), "the compiled component cannot be cached");
    }
    Ok(component)
}

/// Opens the folder if it belongs to this user alone. It is opened only once, so it cannot be exchanged afterwards.
fn open_folder(folder: &Path, make: bool) -> std::io::Result<OwnedFd> {
    if make {
        DirBuilder::new().recursive(true).mode(0o700).create(folder)?;
    }
    let whole = folder.canonicalize()?;
    for above in whole.ancestors().skip(1) {
        // Somebody who can write to a folder can replace the folders in it, unless it is sticky.
        let stat = rustix::fs::stat(above)?;
        let sticky = stat.st_mode & 0o1000 != 0;
        if stat.st_mode & 0o022 != 0 && !sticky || stat.st_uid != 0 && stat.st_uid != own() {
            return Err(refused(&format!("others can write {}", above.display())));
        }
    }
    let dir = openat(
        rustix::fs::CWD,
        &whole,
        OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC,
        Mode::empty(),
    )?;
    let stat = fstat(&dir)?;
    match stat.st_uid == own() && stat.st_mode & 0o077 == 0 {
        true => Ok(dir),
        false => Err(refused("it belongs to somebody else, or others can read it")),
    }
}

fn own() -> u32 {
    rustix::process::geteuid().as_raw()
}

fn refused(why: &str) -> std::io::Error {
    std::io::Error::new(std::io::ErrorKind::PermissionDenied, why.to_owned())
}

/// Opens a regular file of this user that nobody else can write. The open file is checked, so the file that is loaded
/// is the one that was checked.
fn open_file(dir: &OwnedFd, name: &str) -> std::io::Result<Option<File>> {
    let flags = OFlags::RDONLY | OFlags::NOFOLLOW | OFlags::CLOEXEC | OFlags::NONBLOCK;
    let file = match openat(dir, name, flags, Mode::empty()) {
        Ok(file) => file,
        Err(Errno::NOENT) => return Ok(None),
        Err(error) => return Err(error.into()),
    };
    let stat = fstat(&file)?;
    let regular = FileType::from_raw_mode(stat.st_mode) == FileType::RegularFile;
    match regular && stat.st_uid == own() && stat.st_mode & 0o022 == 0 && stat.st_nlink == 1 {
        true => Ok(Some(file.into())),
        false => Err(refused("it is no file of this user's alone")),
    }
}

/// Opens a compiled component. `None` means that it is not cached.
fn open(dir: &OwnedFd, name: &str) -> wasmtime::Result<Option<File>> {
    let Some(file) = open_file(dir, name)? else { return Ok(None) };
    match file.metadata()?.len() > LARGEST {
        true => Err(refused("it is too large").into()),
        false => Ok(Some(file)),
    }
}

#[allow(unsafe_code, reason = "compiled code is machine code: loading it is trusting it")]
fn load(engine: &Engine, mut compiled: File) -> wasmtime::Result<Component> {
    // wasmtime maps a file by its path, and this one names the open file, which cannot be exchanged. Where it leads nowhere (a
    // sandbox, another system), the file is read; so is one of another machine, which may take it away while it is mapped.
    let open = format!("/proc/self/fd/{}", compiled.as_raw_fd());
    // SAFETY: the open file can be written by this user alone, in a folder that only this user can write. Each file in it appears as
    // a whole, by a rename, and nothing of dray writes to one afterwards, so what is mapped does not change as long as nothing else
    // of this user writes into a file of dray's cache.
    if is_local(&compiled)
        && let Ok(component) = unsafe { Component::deserialize_file(engine, open) }
    {
        return Ok(component);
    }
    let mut bytes = Vec::new();
    compiled.read_to_end(&mut bytes)?;
    // SAFETY: as above.
    unsafe { Component::deserialize(engine, &bytes) }
}

/// Whether a file lies on a file system of this machine (magic numbers of statfs(2)).
fn is_local(file: &File) -> bool {
    const OTHERS: [i64; 6] = [0x6969, 0x517b, 0xff53_4d42, 0xfe53_4d42, 0x6573_5546, 0x0102_1997];
    #[allow(clippy::unnecessary_cast, reason = "its type differs from machine to machine")]
    fstatfs(file).is_ok_and(|about| !OTHERS.contains(&(about.f_type as i64)))
}

fn keep(compiled: &[u8], dir: &OwnedFd, name: &str) -> std::io::Result<()> {
    let temporary = format!(".{:016x}{ENDING}", random());
    let flags = OFlags::WRONLY | OFlags::CREATE | OFlags::EXCL | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    let mut file = File::from(openat(dir, &*temporary, flags, Mode::RUSR | Mode::WUSR)?);
    let written = file
        .write_all(compiled)
        .and_then(|()| file.sync_data())
        .and_then(|()| Ok(renameat(dir, &*temporary, dir, name)?));
    if written.is_err() {
        // The first error is more useful than one of the clean-up.
        let _ = unlinkat(dir, &*temporary, AtFlags::empty());
    }
    written
}

fn random() -> u64 {
    let mut hasher = DefaultHasher::new();
    (std::process::id(), std::thread::current().id(), SystemTime::now()).hash(&mut hasher);
    hasher.finish()
}

/// The compiled components in a cache folder.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Compiled {
    /// Number of files.
    pub files: u64,
    /// Size of all files in bytes.
    pub bytes: u64,
}

/// Whether a file name has the form that dray gives: hexadecimal digits, a dash and hexadecimal digits, or the form of
/// a temporary file.
fn is_ours(name: &str) -> bool {
    let Some(stem) = name.strip_suffix(ENDING) else { return false };
    let hex =
        |text: &str, digits: usize| text.len() == digits && text.bytes().all(|byte| byte.is_ascii_hexdigit());
    match (stem.strip_prefix('.'), stem.split_once('-')) {
        (Some(temporary), _) => hex(temporary, 16),
        (None, Some((digest, compiler))) => hex(digest, 64) && hex(compiler, 16),
        (None, None) => false,
    }
}

/// The files that dray made in a cache folder. Links are left out.
fn ours(dir: &OwnedFd) -> std::io::Result<Vec<(String, Stat)>> {
    let mut found = Vec::new();
    for entry in rustix::fs::Dir::read_from(dir)? {
        let name = entry?.file_name().to_string_lossy().into_owned();
        if !is_ours(&name) {
            continue;
        }
        let stat = statat(dir, &*name, AtFlags::SYMLINK_NOFOLLOW)?;
        if FileType::from_raw_mode(stat.st_mode) == FileType::RegularFile && stat.st_uid == own() {
            found.push((name, stat));
        }
    }
    Ok(found)
}

/// Counts the compiled components in a cache folder. A folder that does not exist holds none.
///
/// # Errors
/// Fails if the folder cannot be read, or does not belong to this user alone.
pub fn compiled(folder: &Path) -> std::io::Result<Compiled> {
    if fs::symlink_metadata(folder).is_err() {
        return Ok(Compiled::default());
    }
    let files = ours(&open_folder(folder, false)?)?;
    Ok(Compiled { files: files.len() as u64, bytes: files.iter().map(|(_, stat)| stat.st_size as u64).sum() })
}

/// Removes the compiled components that were not used for the time `unused`, and nothing else. Returns how many were
/// removed.
///
/// # Errors
/// Fails if one cannot be removed, or if the folder does not belong to this user alone.
pub fn trim(folder: &Path, unused: Duration) -> std::io::Result<u64> {
    if fs::symlink_metadata(folder).is_err() {
        return Ok(0);
    }
    let dir = open_folder(folder, false)?;
    let mut removed = 0;
    for (name, stat) in ours(&dir)? {
        let used = Duration::from_secs(stat.st_atime.max(stat.st_mtime).max(0) as u64);
        let now = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
        if now.saturating_sub(used) >= unused {
            unlinkat(&dir, &*name, AtFlags::empty())?;
            removed += 1;
        }
    }
    Ok(removed)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::{PermissionsExt, symlink};

    /// A folder inside one that nobody else can write.
    fn folder() -> (tempfile::TempDir, std::path::PathBuf) {
        let top = tempfile::tempdir().unwrap();
        let folder = top.path().join("cache");
        DirBuilder::new().mode(0o700).create(&folder).unwrap();
        (top, folder)
    }

    fn name(digit: char) -> String {
        format!("{}-{}{ENDING}", digit.to_string().repeat(64), "0".repeat(16))
    }

    #[test]
    fn only_files_of_this_user_alone_are_loaded() {
        let (_top, folder) = folder();
        let dir = open_folder(&folder, true).unwrap();
        keep(b"code", &dir, &name('a')).unwrap();
        let mut code = String::new();
        open(&dir, &name('a')).unwrap().unwrap().read_to_string(&mut code).unwrap();
        assert_eq!(code, "code");
        assert!(open(&dir, &name('b')).unwrap().is_none());
        symlink(folder.join(name('a')), folder.join(name('c'))).unwrap();
        assert!(open(&dir, &name('c')).is_err());
        fs::hard_link(folder.join(name('a')), folder.join("other")).unwrap();
        assert!(open(&dir, &name('a')).is_err());
        fs::remove_file(folder.join("other")).unwrap();
        fs::set_permissions(folder.join(name('a')), fs::Permissions::from_mode(0o666)).unwrap();
        assert!(open(&dir, &name('a')).is_err());
    }

    #[test]
    fn a_folder_that_others_can_write_is_none() {
        let (top, folder) = folder();
        fs::set_permissions(&folder, fs::Permissions::from_mode(0o777)).unwrap();
        assert!(open_folder(&folder, true).is_err());
        fs::set_permissions(&folder, fs::Permissions::from_mode(0o700)).unwrap();
        assert!(open_folder(&folder, true).is_ok());
        fs::set_permissions(top.path(), fs::Permissions::from_mode(0o777)).unwrap();
        assert!(open_folder(&folder, true).is_err());
    }

    #[test]
    fn trimming_removes_what_dray_made_and_nothing_else() {
        let (_top, folder) = folder();
        for kept in ["notes.txt", "x.cwasm", ".cwasm"] {
            fs::write(folder.join(kept), "x").unwrap();
        }
        fs::write(folder.join(name('a')), "code").unwrap();
        fs::create_dir(folder.join(name('d'))).unwrap();
        symlink(folder.join("notes.txt"), folder.join(name('e'))).unwrap();
        assert_eq!(compiled(&folder).unwrap(), Compiled { files: 1, bytes: 4 });
        assert_eq!(trim(&folder, Duration::from_secs(3600)).unwrap(), 0);
        assert_eq!(trim(&folder, Duration::ZERO).unwrap(), 1);
        assert_eq!(fs::read_dir(&folder).unwrap().count(), 5);
        assert_eq!(trim(&folder.join("none"), Duration::ZERO).unwrap(), 0);
    }
}
