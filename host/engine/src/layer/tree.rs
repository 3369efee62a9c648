//! The files of a layer in the form that overlayfs wants (kernel documentation, filesystems/overlayfs): a removed file
//! is a character device 0/0, and an opaque folder is marked by an extended attribute.

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

/// Prefix of the name of a file that the layer removes (OCI image specification, layer, whiteouts).
const REMOVED: &[u8] = b".wh.";
/// Prefix of the names of files that only old storage drivers wrote. They are ignored.
const META: &[u8] = b".wh..wh.";
/// Name of the file that makes its folder opaque: the folder hides the folders of the same path in the layers below.
const OPAQUE: &[u8] = b".wh..wh..opq";

/// A tree that is being written. Paths are resolved as if its top were the root of the file system, so that no link
/// leads out of it.
pub(super) struct Tree {
    top: Arc<OwnedFd>,
    /// The folder of the last entry, kept open.
    last: Option<(PathBuf, Arc<OwnedFd>)>,
    /// Times of folders. They are set at the end, because every change in a folder changes its time.
    times: Vec<(PathBuf, (i64, u32))>,
    uids: BTreeSet<u32>,
    gids: BTreeSet<u32>,
}

/// The content of an entry.
pub(super) enum Content {
    /// The entry has no content.
    None,
    /// A regular file, and the folder and the name that it has.
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

/// Removes `.` and empty components from a path.
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

    /// Opens the folder at a path. Folders that the archive does not name are created.
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

    /// Creates the file, folder, link or device of an entry.
    ///
    /// # Errors
    /// Fails if it cannot be created. The text of the error contains the name of the entry.
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
            // The entry of the top folder is not applied, because the store decides on that folder.
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
                // A hard link shares owner, mode and time with its target.
                return Ok(Content::None);
            }
            Kind::Character => mknodat(&folder, at, FileType::CharacterDevice, mode, makedev(major, minor))?,
            Kind::Block => mknodat(&folder, at, FileType::BlockDevice, mode, makedev(major, minor))?,
            Kind::Fifo => mknodat(&folder, at, FileType::Fifo, mode, 0)?,
        }
        chownat(&folder, at, Some(owner(entry)), Some(group(entry)), flag)?;
        for (key, value) in &entry.xattrs {
            // overlayfs interprets these attributes, so a layer must not set them.
            if key.starts_with("trusted.overlay.") || key.starts_with("user.overlay.") {
                return Err(malformed(format!("it has the attribute {key}, which only overlayfs may set")));
            }
            match lsetxattr(through(&folder, &name)?, key.as_str(), value, XattrFlags::empty()) {
                // tar programs ignore this as well: not every file system supports every kind of attribute.
                Ok(()) | Err(Errno::OPNOTSUPP) => {}
                Err(error) => return Err(error.into()),
            }
        }
        if entry.kind != Kind::Symlink {
            // The mode is set after the owner, because a change of the owner clears the set-user-ID bit.
            chmodat(&folder, at, mode, AtFlags::empty())?;
        }
        match (entry.kind, file) {
            (Kind::File, Some(file)) => return Ok(Content::File { file, folder, name }),
            (Kind::Directory, _) => self.times.push((path, entry.mtime)),
            _ => times(&folder, &name, entry.mtime)?,
        }
        Ok(Content::None)
    }

    /// Removes what has this name, unless both are folders. Returns whether a folder of this name is still there.
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
        // The folder that is kept open may be inside the removed folder.
        self.last = None;
        std::fs::remove_dir_all(through(folder, name)?)?;
        Ok(false)
    }

    /// Sets the times of the folders. Returns the owners and the groups of all entries.
    pub fn finish(self) -> Result<(BTreeSet<u32>, BTreeSet<u32>)> {
        for (path, mtime) in self.times.iter().rev() {
            // A later entry may have replaced the folder.
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

/// A path to a name in an opened folder, through its file descriptor.
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
