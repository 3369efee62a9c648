//! The files of a layer as overlayfs wants them (kernel documentation, filesystems/overlayfs):
//! what a layer removes is a device 0/0, a folder that hides the ones below is marked.

use crate::tar::{Entry, Kind, malformed};
use rustix::{
    fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd},
    fs::{
        AtFlags, FileType, Gid, Mode, OFlags, ResolveFlags, Timespec, Timestamps, Uid, XattrFlags, chmodat,
        chownat, linkat, lsetxattr, makedev, mkdirat, mknodat, openat, openat2, statat, symlinkat, unlinkat,
        utimensat,
    },
    io::Errno,
};
use std::{
    collections::BTreeSet,
    ffi::OsStr,
    fs::File,
    io::{Result, Write},
    os::unix::ffi::OsStrExt,
    path::{Path, PathBuf},
    sync::Arc,
};

/// Before the name of what a layer removes (OCI image specification, layer, whiteouts).
const REMOVED: &[u8] = b".wh.";
/// Of what only old drivers wrote.
const META: &[u8] = b".wh..wh.";
/// In a folder that hides the ones below.
const OPAQUE: &[u8] = b".wh..wh..opq";

/// A tree that is being written. Paths are looked up as if its top were the top of everything, so
/// that no link leads out of it.
pub(super) struct Tree {
    top: Arc<OwnedFd>,
    /// The folder of the last entry.
    last: Option<(PathBuf, Arc<OwnedFd>)>,
    /// Folders get their times when nothing more is written to them.
    times: Vec<(PathBuf, (i64, u32))>,
    uids: BTreeSet<u32>,
    gids: BTreeSet<u32>,
}

/// The content of an entry.
pub(super) enum Content {
    /// There is none.
    None,
    /// A file, and where it is.
    File { file: File, folder: Arc<OwnedFd>, name: Vec<u8> },
}

impl Content {
    pub fn write(&mut self, bytes: &[u8]) -> Result<()> {
        match self {
            Content::None => Err(malformed("the mark of a removed file has a content")),
            Content::File { file, .. } => file.write_all(bytes),
        }
    }

    pub fn finish(self, entry: &Entry) -> Result<()> {
        match self {
            Content::None => Ok(()),
            Content::File { folder, name, .. } => times(&folder, &name, entry.mtime),
        }
    }
}

/// A path without `.` and empty parts.
fn clean(name: &[u8]) -> Result<PathBuf> {
    let shown = || String::from_utf8_lossy(name).into_owned();
    let mut path = PathBuf::new();
    for part in name.split(|byte| *byte == b'/') {
        match part {
            b"" | b"." => {}
            b".." => return Err(malformed(format!("it has an entry that leads out of it: {}", shown()))),
            _ if part.contains(&0) => return Err(malformed(format!("it has a malformed name: {}", shown()))),
            part => path.push(OsStr::from_bytes(part)),
        }
    }
    Ok(path)
}

const FOLDER: OFlags = OFlags::RDONLY.union(OFlags::DIRECTORY).union(OFlags::CLOEXEC);

fn beneath(top: &OwnedFd, path: &Path, flags: OFlags) -> rustix::io::Result<OwnedFd> {
    let path = if path.as_os_str().is_empty() { Path::new(".") } else { path };
    openat2(top, path, flags, Mode::empty(), ResolveFlags::IN_ROOT | ResolveFlags::NO_MAGICLINKS)
}

/// Opens a regular file of a tree.
pub(super) fn open(top: &OwnedFd, name: &[u8]) -> Result<File> {
    let path = clean(name)?;
    let folder = beneath(top, path.parent().unwrap_or(Path::new("")), FOLDER)?;
    let name = path.file_name().unwrap_or_default();
    let flags = OFlags::RDONLY | OFlags::NOFOLLOW | OFlags::NONBLOCK | OFlags::CLOEXEC;
    let file: File = openat(&folder, name, flags, Mode::empty())?.into();
    match file.metadata()?.is_file() {
        true => Ok(file),
        false => Err(malformed("it is no regular file any more")),
    }
}

impl Tree {
    pub fn new(top: OwnedFd) -> Self {
        Tree {
            top: Arc::new(top),
            last: None,
            times: Vec::new(),
            uids: BTreeSet::new(),
            gids: BTreeSet::new(),
        }
    }

    /// The folder at a path; those that the archive does not name are made.
    fn folder(&mut self, path: &Path) -> Result<Arc<OwnedFd>> {
        if let Some((last, folder)) = &self.last
            && last == path
        {
            return Ok(folder.clone());
        }
        let folder = match beneath(&self.top, path, FOLDER) {
            Ok(folder) => folder,
            Err(Errno::NOENT) => {
                let above = self.folder(path.parent().unwrap_or(Path::new("")))?;
                let name = path.file_name().unwrap_or_default();
                match mkdirat(&above, name, Mode::from(0o755)) {
                    Ok(()) | Err(Errno::EXIST) => beneath(&self.top, path, FOLDER)?,
                    Err(error) => return Err(error.into()),
                }
            }
            Err(error) => return Err(error.into()),
        };
        let folder = Arc::new(folder);
        self.last = Some((path.to_owned(), folder.clone()));
        Ok(folder)
    }

    /// Makes what an entry says.
    ///
    /// # Errors
    /// With the entry's name in its text.
    pub fn add(&mut self, entry: &Entry) -> Result<Content> {
        self.put(entry).map_err(|error| {
            let name = String::from_utf8_lossy(&entry.name).into_owned();
            std::io::Error::new(error.kind(), format!("{name}: {error}"))
        })
    }

    fn put(&mut self, entry: &Entry) -> Result<Content> {
        let path = clean(&entry.name)?;
        if entry.uid == u32::MAX || entry.gid == u32::MAX {
            return Err(malformed("its owner is no possible one"));
        }
        self.uids.insert(entry.uid);
        self.gids.insert(entry.gid);
        let Some(name) = path.file_name().map(|name| name.as_bytes().to_vec()) else {
            // The top folder is the store's.
            return Ok(Content::None);
        };
        let folder = self.folder(path.parent().unwrap_or(Path::new("")))?;
        if name == OPAQUE {
            lsetxattr(through(&folder, b".")?, "trusted.overlay.opaque", b"y", XattrFlags::empty())?;
            return Ok(Content::None);
        }
        if name.starts_with(META) {
            return Ok(Content::None);
        }
        let (at, flag) = (OsStr::from_bytes(&name), AtFlags::SYMLINK_NOFOLLOW);
        if let Some(removed) = name.strip_prefix(REMOVED) {
            if matches!(removed, b"" | b"." | b"..") {
                return Err(malformed("it removes something without a name"));
            }
            self.make_room(&folder, removed, false)?;
            let removed = OsStr::from_bytes(removed);
            mknodat(&folder, removed, FileType::CharacterDevice, Mode::empty(), makedev(0, 0))?;
            chownat(&folder, removed, Some(owner(entry)), Some(group(entry)), flag)?;
            return Ok(Content::None);
        }
        let there = self.make_room(&folder, &name, entry.kind == Kind::Directory)?;
        let mode = Mode::from(entry.mode & 0o7777);
        let (major, minor) = entry.device;
        let mut file = None;
        match entry.kind {
            Kind::File => {
                let flags = OFlags::WRONLY | OFlags::CREATE | OFlags::EXCL | OFlags::CLOEXEC;
                file = Some(File::from(openat(&folder, at, flags, Mode::from(0o600))?));
            }
            Kind::Directory if there => {}
            Kind::Directory => mkdirat(&folder, at, mode)?,
            Kind::Symlink => symlinkat(OsStr::from_bytes(&entry.link), &folder, at)?,
            Kind::HardLink => {
                let target = clean(&entry.link)?;
                let above = beneath(&self.top, target.parent().unwrap_or(Path::new("")), FOLDER)?;
                linkat(&above, target.file_name().unwrap_or_default(), &folder, at, AtFlags::empty())?;
                // It shares everything with what it is a name of.
                return Ok(Content::None);
            }
            Kind::Character => mknodat(&folder, at, FileType::CharacterDevice, mode, makedev(major, minor))?,
            Kind::Block => mknodat(&folder, at, FileType::BlockDevice, mode, makedev(major, minor))?,
            Kind::Fifo => mknodat(&folder, at, FileType::Fifo, mode, 0)?,
        }
        chownat(&folder, at, Some(owner(entry)), Some(group(entry)), flag)?;
        for (key, value) in &entry.xattrs {
            // Those are overlayfs's own.
            if key.starts_with("trusted.overlay.") || key.starts_with("user.overlay.") {
                return Err(malformed(format!("it has the attribute {key}, which only overlayfs may set")));
            }
            match lsetxattr(through(&folder, &name)?, key.as_str(), value, XattrFlags::empty()) {
                // As tar programs do: not every file system has every kind of attribute.
                Ok(()) | Err(Errno::OPNOTSUPP) => {}
                Err(error) => return Err(error.into()),
            }
        }
        if entry.kind != Kind::Symlink {
            // Behind the owner, whose change takes set-user-ID away.
            chmodat(&folder, at, mode, AtFlags::empty())?;
        }
        match (entry.kind, file) {
            (Kind::File, Some(file)) => return Ok(Content::File { file, folder, name }),
            (Kind::Directory, _) => self.times.push((path, entry.mtime)),
            _ => times(&folder, &name, entry.mtime)?,
        }
        Ok(Content::None)
    }

    /// Removes what has a name already, unless a folder meets a folder; whether it is there.
    fn make_room(&mut self, folder: &OwnedFd, name: &[u8], is_folder: bool) -> Result<bool> {
        let at = OsStr::from_bytes(name);
        let there = match statat(folder, at, AtFlags::SYMLINK_NOFOLLOW) {
            Ok(there) => there,
            Err(Errno::NOENT) => return Ok(false),
            Err(error) => return Err(error.into()),
        };
        if FileType::from_raw_mode(there.st_mode) != FileType::Directory {
            unlinkat(folder, at, AtFlags::empty())?;
            return Ok(false);
        }
        if is_folder {
            return Ok(true);
        }
        // Folders in it may be known.
        self.last = None;
        std::fs::remove_dir_all(through(folder, name)?)?;
        Ok(false)
    }

    /// Gives folders their times; owners and groups of everything.
    pub fn finish(self) -> Result<(BTreeSet<u32>, BTreeSet<u32>)> {
        for (path, mtime) in self.times.iter().rev() {
            // A later entry may have replaced it.
            if let Ok(folder) = beneath(&self.top, path, FOLDER) {
                times(&folder, b".", *mtime)?;
            }
        }
        Ok((self.uids, self.gids))
    }
}

fn owner(entry: &Entry) -> Uid {
    Uid::from_raw(entry.uid)
}

fn group(entry: &Entry) -> Gid {
    Gid::from_raw(entry.gid)
}

/// A path to a name in an opened folder.
fn through(folder: &OwnedFd, name: &[u8]) -> Result<PathBuf> {
    let folder: BorrowedFd<'_> = folder.as_fd();
    Ok(Path::new("/proc/self/fd").join(folder.as_raw_fd().to_string()).join(OsStr::from_bytes(name)))
}

fn times(folder: &OwnedFd, name: &[u8], (seconds, nanoseconds): (i64, u32)) -> Result<()> {
    let time = Timespec { tv_sec: seconds, tv_nsec: nanoseconds.into() };
    let stamps = Timestamps { last_access: time, last_modification: time };
    utimensat(folder, OsStr::from_bytes(name), &stamps, AtFlags::SYMLINK_NOFOLLOW)?;
    Ok(())
}
