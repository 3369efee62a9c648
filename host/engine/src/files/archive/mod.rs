//! A tar archive: its members are the files of a place. It is read by offset; a compressed archive is decompressed
//! once. Changes go into a new archive, which replaces the old one when it is sealed. A path may lead through a member
//! that is itself an archive, as it leads through a folder.

mod append;
mod opened;
mod staged;

use super::{CHUNK, Entry, Located, atomic::AtomicFile, failed, partial, regular};
use crate::{
    DOCUMENT_LIMIT, Error, Result, lock,
    tar::{self, BLOCK, END, header, link, malformed, padding},
};
pub(super) use append::Append;
use cap_std::{ambient_authority, fs::Dir};
use opened::{Opened, identity, unnamed};
use staged::{LARGEST, NewArchive};
use std::{
    collections::{BTreeMap, HashMap},
    fs::File,
    io::ErrorKind,
    os::unix::fs::FileExt,
    path::{Path, PathBuf},
    sync::{Arc, Mutex},
};

pub(super) struct Archive {
    /// `None` means that the archive exists only in `scratch`.
    path: Option<PathBuf>,
    scratch: PathBuf,
    /// The archive as it was before this run. The outer `None` means that it was not opened yet, the inner one that it
    /// does not exist.
    before: Mutex<Option<Option<Arc<Opened>>>>,
    /// Archives that are members of this one, and downloaded archives, by their paths.
    nested: Mutex<HashMap<String, Arc<Opened>>>,
    staged: Mutex<NewArchive>,
    /// Offset in the new archive at which the next member begins. Locked while a member of unknown size is written.
    tail: Arc<tokio::sync::Mutex<u64>>,
}

impl Archive {
    pub fn new(path: Option<PathBuf>, scratch: PathBuf) -> Self {
        Archive {
            // If the path is a symbolic link, its target is replaced, and not the link.
            path: path.map(|path| std::fs::canonicalize(&path).unwrap_or(path)),
            scratch,
            before: Mutex::default(),
            nested: Mutex::default(),
            staged: Mutex::default(),
            tail: Arc::default(),
        }
    }

    pub fn shown(&self, path: &str) -> PathBuf {
        self.path.as_deref().unwrap_or(Path::new("the archive")).join(path)
    }

    fn failed(&self, doing: &str, path: &str, error: &std::io::Error) -> Error {
        // If a member is malformed, the error names the archive as a whole.
        let shown = if error.kind() == ErrorKind::InvalidData { self.shown("") } else { self.shown(path) };
        failed(doing, Path::new(shown.to_string_lossy().trim_end_matches('/')), error)
    }

    fn before(&self) -> std::io::Result<Option<Arc<Opened>>> {
        let Some(path) = &self.path else { return Ok(None) };
        let mut before = lock(&self.before);
        if let Some(before) = &*before {
            return Ok(before.clone());
        }
        let opened = match regular::open(path) {
            Ok(file) => {
                let metadata = file.metadata()?;
                Some(Arc::new(Opened::read(Arc::new(file), 0, metadata.len(), &self.scratch)?))
            }
            Err(error) if error.kind() == ErrorKind::NotFound => None,
            Err(error) => return Err(error),
        };
        *before = Some(opened.clone());
        Ok(opened)
    }

    /// Finds a member of the archive itself.
    fn member(&self, path: &str) -> std::io::Result<Option<Located>> {
        {
            let staged = lock(&self.staged);
            if let Some(document) = staged.documents.get(path) {
                return Ok(Some(Located::Inline(document.clone())));
            }
            if staged.removed.contains(path) {
                return Ok(None);
            }
            if let (Some((offset, size)), Some(file)) = (staged.members.find(path)?, &staged.file) {
                return Ok(Some(Located::Stretch { file: file.clone(), offset, size }));
            }
        }
        match self.before()? {
            Some(before) => before.find(path),
            None => Ok(None),
        }
    }

    /// Opens the archive at a path: a member of this archive, or a downloaded archive.
    fn within(&self, path: &str) -> std::io::Result<Option<Arc<Opened>>> {
        let mut nested = lock(&self.nested);
        if let Some(opened) = nested.get(path) {
            return Ok(Some(opened.clone()));
        }
        let Some(Located::Stretch { file, offset, size }) = self.member(path)? else { return Ok(None) };
        let opened = Arc::new(Opened::read(file, offset, size, &self.scratch)?);
        nested.insert(path.into(), opened.clone());
        Ok(Some(opened))
    }

    fn find(&self, path: &str) -> std::io::Result<Option<Located>> {
        if let Some(found) = self.member(path)? {
            return Ok(Some(found));
        }
        for (at, _) in path.match_indices('/') {
            if let Some(opened) = self.within(&path[..at])? {
                return opened.find(&path[at + 1..]);
            }
        }
        Ok(None)
    }

    pub fn locate(&self, path: &str) -> Result<Located> {
        let found = self.find(path).and_then(|found| found.ok_or_else(|| ErrorKind::NotFound.into()));
        found.map_err(|error| self.failed("read", path, &error))
    }

    pub fn stat(&self, path: &str) -> Result<Option<u64>> {
        Ok(match self.find(path).map_err(|error| self.failed("read", path, &error))? {
            Some(Located::Inline(bytes)) => Some(bytes.len() as u64),
            Some(Located::Stretch { size, .. }) => Some(size),
            None => None,
        })
    }

    pub fn entries(&self, path: &str) -> Result<Vec<Entry>> {
        let failed = |error| self.failed("list", path, &error);
        let mut names: BTreeMap<String, (u64, bool)> = BTreeMap::new();
        let mut take = |prefix: &str, name: &str, size: u64| {
            let Some(rest) = name.strip_prefix(prefix) else { return };
            match rest.split_once('/') {
                Some((folder, _)) => names.insert(folder.into(), (0, true)),
                None => names.insert(rest.into(), (size, false)),
            };
        };
        let inside = (!path.is_empty()).then(|| self.within(path)).transpose().map_err(failed)?.flatten();
        if let Some(opened) = inside {
            for name in opened.index.names() {
                take("", name, opened.index.find(name).map_err(failed)?.map_or(0, |(_, size)| size));
            }
        } else {
            let prefix = if path.is_empty() { String::new() } else { format!("{path}/") };
            let before = self.before().map_err(failed)?;
            let downloaded: Vec<String> = match path {
                "" => lock(&self.nested).keys().filter(|path| !path.contains('/')).cloned().collect(),
                _ => Vec::new(),
            };
            let staged = lock(&self.staged);
            for index in before.iter().map(|before| &before.index).chain(std::iter::once(&staged.members)) {
                for name in index.names().filter(|name| !staged.removed.contains(*name)) {
                    take(&prefix, name, index.find(name).map_err(failed)?.map_or(0, |(_, size)| size));
                }
            }
            for (name, document) in &staged.documents {
                take(&prefix, name, document.len() as u64);
            }
            for name in downloaded {
                names.entry(name).or_insert((0, true));
            }
        }
        Ok(names.into_iter().map(|(name, (size, directory))| Entry { name, size, directory }).collect())
    }

    pub fn replace(&self, path: &str, expected: Option<&[u8]>, content: &[u8]) -> Result<bool> {
        let current = match self.find(path).map_err(|error| self.failed("read", path, &error))? {
            None => None,
            Some(Located::Inline(bytes)) => Some(bytes),
            Some(Located::Stretch { file, offset, size }) => {
                let mut bytes = vec![0; size.min(DOCUMENT_LIMIT as u64 + 1) as usize];
                file.read_exact_at(&mut bytes, offset).map_err(|error| self.failed("read", path, &error))?;
                Some(bytes)
            }
        };
        self.staging().map_err(|error| self.failed("write", path, &error))?;
        let mut staged = lock(&self.staged);
        let current = staged.documents.get(path).cloned().or(current);
        if current.as_deref() != expected {
            return Ok(false);
        }
        staged.removed.remove(path);
        staged.documents.insert(path.into(), content.into());
        Ok(true)
    }

    pub fn remove(&self, paths: &[String]) -> Result<()> {
        let mut staged = lock(&self.staged);
        for path in paths {
            staged.documents.remove(path);
            staged.members.remove(path);
            staged.removed.insert(path.clone());
        }
        Ok(())
    }

    /// Begins a member of the new archive, or resumes one of the same name and size.
    pub async fn append(self: &Arc<Self>, path: &str, size: Option<u64>) -> Result<Append> {
        if size.is_some_and(|size| size > LARGEST) {
            return Err(Error::invalid(format!(
                "write {}: {LARGEST} bytes are the most that dray puts into an archive",
                self.shown(path).display()
            )));
        }
        let mut tail = self.tail.clone().lock_owned().await;
        let begin = || {
            let file = self.staging()?;
            let mut staged = lock(&self.staged);
            *tail = (*tail).max(staged.begun_end);
            let (start, name, archive) = (*tail, path.to_owned(), self.clone());
            let mut append =
                Append { archive, name, file, start, written: 0, size, there: Some(0), tail: None };
            let begun = staged.begun.remove(path).filter(|begun| Some(begun.size) == size);
            if let (Some(begun), Some(size)) = (begun, size) {
                (append.start, append.there) = (begun.offset - BLOCK, begun.there);
                if begun.there != Some(size) {
                    append.file.write_all_at(&tar::begun(path, size)?, append.start)?;
                }
                return Ok(append);
            }
            if append.file.metadata()?.len() > start {
                // These bytes belong to a member of unknown size that was not finished.
                append.file.set_len(start)?;
            }
            let Some(size) = size else {
                append.tail = Some(tail);
                return Ok(append);
            };
            // The header is written first, so that a later process can find the members that were begun.
            append.file.write_all_at(&tar::begun(path, size)?, start)?;
            *tail += BLOCK + size + padding(size);
            if let Some(fresh) =
                staged.fresh.as_mut().filter(|fresh| *tail > partial::LARGE && !fresh.stays())
            {
                fresh.sweep();
                fresh.stay();
            }
            Ok(append)
        };
        begin().map_err(|error| self.failed("write", path, &error))
    }

    /// The file of the new archive.
    fn staging(&self) -> std::io::Result<Arc<File>> {
        if self.before()?.is_some_and(|before| before.compressed) {
            return Err(malformed(
                "it is compressed, and dray adds to plain archives alone: choose another file",
            ));
        }
        let mut staged = lock(&self.staged);
        if let Some(file) = &staged.file {
            return Ok(file.clone());
        }
        let (file, fresh) = self.fresh(AtomicFile::left)?;
        staged.take_up(&file)?;
        (staged.file, staged.fresh) = (Some(file.clone()), fresh);
        Ok(file)
    }

    fn fresh(
        &self,
        make: impl Fn(Arc<Dir>, &Path) -> std::io::Result<AtomicFile>,
    ) -> std::io::Result<(Arc<File>, Option<AtomicFile>)> {
        let Some(path) = &self.path else { return Ok((Arc::new(unnamed(&self.scratch)?), None)) };
        let folder = parent(path);
        std::fs::create_dir_all(folder)?;
        let name = path.file_name().ok_or_else(|| malformed("it has no name"))?;
        let dir = Arc::new(Dir::open_ambient_dir(folder, ambient_authority())?);
        let fresh = make(dir, Path::new(name))?;
        Ok((Arc::new(fresh.file().try_clone()?), Some(fresh)))
    }

    pub fn seal(&self) -> Result<()> {
        let Some(path) = &self.path else { return Ok(()) };
        if lock(&self.staged).is_clean() {
            return Ok(());
        }
        let seal = || {
            let before = self.before()?;
            let mut staged = self.completed(before.as_deref())?;
            let Some(mut fresh) = staged.fresh.take() else { return Ok(()) };
            fresh.sync().inspect_err(|_| staged.replaced.iter_mut().for_each(AtomicFile::forget))?;
            // Every dray process that writes to this folder holds this lock while it compares and renames.
            let folder = File::open(parent(path))?;
            folder.lock()?;
            let now = match regular::open(path) {
                Ok(file) => Some(identity(&file)?),
                Err(error) if error.kind() == ErrorKind::NotFound => None,
                Err(error) => return Err(error),
            };
            if now != before.as_ref().map(|before| before.identity) {
                // The next run can use what was written.
                if fresh.file().metadata()?.len() > partial::LARGE {
                    fresh.stay();
                }
                return Err(std::io::Error::other("somebody else wrote it meanwhile: run it again"));
            }
            if path.exists() {
                fresh.file().set_permissions(std::fs::metadata(path)?.permissions())?;
            }
            fresh.keep()?;
            staged.replaced.iter_mut().for_each(AtomicFile::forget);
            *lock(&self.before) = None;
            lock(&self.nested).clear();
            Ok(())
        };
        seal().map_err(|error| self.failed("write", "", &error))
    }

    pub fn sealed(&self) -> Result<(Arc<File>, u64)> {
        let seal = || {
            let staged = self.completed(None)?;
            let file = staged.file.clone().ok_or_else(|| malformed("there is nothing in it"))?;
            let size = file.metadata()?.len();
            Ok((file, size))
        };
        seal().map_err(|error| self.failed("write", "", &error))
    }

    /// Completes the new archive and returns it. After this, another new archive can be begun.
    fn completed(&self, before: Option<&Opened>) -> std::io::Result<NewArchive> {
        self.staging()?;
        // A member of unknown size that was given up may not have released this lock yet.
        let mut tail = self.tail.blocking_lock();
        let mut staged = std::mem::take(&mut *lock(&self.staged));
        let end = std::mem::take(&mut *tail).max(staged.begun_end);
        match self.complete(&mut staged, end, before) {
            Ok(()) => Ok(staged),
            Err(error) => {
                if matches!(error.kind(), ErrorKind::StorageFull | ErrorKind::QuotaExceeded) {
                    // The partial file is removed, so that the next process does not run out of space as well.
                    staged.fresh.iter_mut().chain(&mut staged.replaced).for_each(AtomicFile::forget);
                }
                Err(error)
            }
        }
    }

    fn complete(
        &self,
        staged: &mut NewArchive,
        mut end: u64,
        before: Option<&Opened>,
    ) -> std::io::Result<()> {
        let replaced: Vec<String> = staged.documents.keys().cloned().collect();
        for name in replaced {
            staged.members.remove(&name);
        }
        let mut whole = 0;
        for name in staged.members.names() {
            whole += staged.members.find(name)?.map_or(0, |(_, size)| BLOCK + size + padding(size));
        }
        // If the sizes do not add up, a member was given up or written twice, and left a hole.
        if whole != end {
            for begun in staged.begun.values() {
                staged.file.iter().for_each(|file| append::punch(file, begun.offset, begun.size));
            }
            let (file, fresh) = self.fresh(AtomicFile::create)?;
            let mut compact = NewArchive { file: Some(file.clone()), fresh, ..NewArchive::default() };
            end = 0;
            for name in staged.members.names() {
                if let (Some((offset, size)), Some(from)) = (staged.members.find(name)?, &staged.file) {
                    compact.members.insert(name, end + BLOCK, size);
                    end = copy_member(from, offset, size, &file, end, name)?;
                }
            }
            compact.documents = std::mem::take(&mut staged.documents);
            compact.removed = std::mem::take(&mut staged.removed);
            compact.replaced = staged.fresh.take();
            *staged = compact;
        }
        let Some(file) = staged.file.clone() else { return Ok(()) };
        if let Some(before) = before {
            let gone = |name: &&str| {
                !staged.removed.contains(*name)
                    && !staged.documents.contains_key(*name)
                    && staged.members.find(name).is_ok_and(|found| found.is_none())
            };
            // A file that has several names is copied once, and its other names become hard links.
            let mut copied: HashMap<u64, &str> = HashMap::new();
            for name in before.index.names().filter(gone) {
                let Some((offset, size)) = before.index.find(name)? else { continue };
                let first = copied.get(&offset).filter(|_| size > 0);
                if let Some(block) = first.map(|first| link(name, first)).transpose()?.flatten() {
                    file.write_all_at(&block, end)?;
                    end += BLOCK;
                    continue;
                }
                copied.insert(offset, name);
                end = copy_member(&before.file, offset, size, &file, end, name)?;
            }
        }
        if staged.fresh.is_some() {
            // Syncing takes long. If the process is killed before the rest is written, the file holds only members,
            // which a later process resumes.
            file.sync_data()?;
        }
        for (name, document) in &staged.documents {
            let size = document.len() as u64;
            file.write_all_at(&header(name, size)?, end)?;
            file.write_all_at(document, end + BLOCK)?;
            end += BLOCK + size + padding(size);
        }
        // The paddings are holes, which read as zeros.
        file.write_all_at(&END, end)?;
        file.set_len(end + END.len() as u64)
    }

    pub fn unnamed(&self) -> Result<File> {
        unnamed(&self.scratch).map_err(|error| failed("make a file in", &self.scratch, &error))
    }

    pub fn adopt(&self, path: &str, file: File) -> Result<()> {
        let opened = file
            .metadata()
            .and_then(|metadata| Opened::read(Arc::new(file), 0, metadata.len(), &self.scratch));
        let opened = opened.map_err(|error| self.failed("read", path, &error))?;
        lock(&self.nested).insert(path.into(), Arc::new(opened));
        Ok(())
    }

    pub fn adopted(&self, path: &str) -> bool {
        lock(&self.nested).contains_key(path)
    }
}

fn parent(path: &Path) -> &Path {
    path.parent().filter(|folder| !folder.as_os_str().is_empty()).unwrap_or(Path::new("."))
}

/// Copies a member to offset `end` of another archive. Returns the offset at which the next member begins.
fn copy_member(from: &File, offset: u64, size: u64, to: &File, end: u64, name: &str) -> std::io::Result<u64> {
    to.write_all_at(&header(name, size)?, end)?;
    let mut buffer = vec![0; CHUNK];
    let mut copied = 0;
    while copied < size {
        let most = (buffer.len() as u64).min(size - copied) as usize;
        from.read_exact_at(&mut buffer[..most], offset + copied)?;
        to.write_all_at(&buffer[..most], end + BLOCK + copied)?;
        copied += most as u64;
    }
    Ok(end + BLOCK + size + padding(size))
}
