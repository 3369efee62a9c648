//! The storage layout of distribution (its `registry/storage/paths.go` documents it).
//!
//! Names are checked by `route` before they become paths, and digests are types.

use crate::answer::Fault;
use bytes::Bytes;
use dray_core::Digest;
use std::{
    collections::HashSet,
    fs::{self, File},
    io::{self, ErrorKind, Read, Seek, SeekFrom, Write},
    path::{Path, PathBuf},
    sync::{Arc, Mutex},
};
use tokio::sync::mpsc;

#[derive(Clone)]
pub struct Storage {
    top: PathBuf,
    /// Uploads that a request is writing to.
    busy: Arc<Mutex<HashSet<String>>>,
}

/// The right to write to an upload.
pub struct Turn {
    storage: Storage,
    id: String,
}

impl Drop for Turn {
    fn drop(&mut self) {
        self.storage.busy.lock().unwrap_or_else(|poisoned| poisoned.into_inner()).remove(&self.id);
    }
}

/// Bytes read from the disk at once.
const CHUNK: usize = 256 << 10;

fn hashed(digest: &Digest) -> PathBuf {
    Path::new(digest.algorithm_name()).join(digest.hex())
}

impl Storage {
    pub fn new(root: &Path) -> Self {
        Storage { top: root.join("docker/registry/v2"), busy: Arc::default() }
    }

    /// Takes the right to write to an upload; none: another request has it.
    pub fn turn(&self, id: &str) -> Option<Turn> {
        let mut busy = self.busy.lock().unwrap_or_else(|poisoned| poisoned.into_inner());
        busy.insert(id.to_owned()).then(|| Turn { storage: self.clone(), id: id.to_owned() })
    }

    pub fn repositories(&self) -> PathBuf {
        self.top.join("repositories")
    }

    pub fn repository(&self, name: &str) -> PathBuf {
        self.repositories().join(name)
    }

    pub fn blob(&self, digest: &Digest) -> PathBuf {
        let hex = digest.hex();
        self.top.join("blobs").join(digest.algorithm_name()).join(&hex[..2]).join(hex).join("data")
    }

    pub fn layer_link(&self, name: &str, digest: &Digest) -> PathBuf {
        self.repository(name).join("_layers").join(hashed(digest)).join("link")
    }

    pub fn revisions(&self, name: &str) -> PathBuf {
        self.repository(name).join("_manifests/revisions")
    }

    pub fn revision_link(&self, name: &str, digest: &Digest) -> PathBuf {
        self.revisions(name).join(hashed(digest)).join("link")
    }

    pub fn tags(&self, name: &str) -> PathBuf {
        self.repository(name).join("_manifests/tags")
    }

    pub fn tag(&self, name: &str, tag: &str) -> PathBuf {
        self.tags(name).join(tag)
    }

    /// Not part of distribution's layout, which skips names that begin with an underscore: which
    /// manifests refer to a subject.
    pub fn referrers(&self, name: &str, subject: &Digest) -> PathBuf {
        self.repository(name).join("_referrers").join(hashed(subject))
    }

    pub fn uploads(&self, name: &str) -> PathBuf {
        self.repository(name).join("_uploads")
    }

    /// Whether anything was ever written to a repository.
    pub fn knows(&self, name: &str) -> bool {
        let repository = self.repository(name);
        ["_manifests", "_layers"].iter().any(|part| repository.join(part).is_dir())
    }

    /// The digest that a link holds.
    pub fn follow(&self, link: &Path) -> io::Result<Option<Digest>> {
        match fs::read_to_string(link) {
            Ok(text) => text.trim().parse().map(Some).map_err(io::Error::other),
            Err(error) if error.kind() == ErrorKind::NotFound => Ok(None),
            Err(error) => Err(error),
        }
    }

    pub fn link(&self, link: &Path, digest: &Digest) -> io::Result<()> {
        // A link that a crash left empty is none.
        if self.follow(link).ok().flatten().as_ref() == Some(digest) {
            return Ok(());
        }
        write_whole(link, digest.to_string().as_bytes(), false)
    }

    /// Makes a tag name a manifest: its history first, what it names now last.
    pub fn set_tag(&self, name: &str, tag: &str, digest: &Digest) -> io::Result<()> {
        let folder = self.tag(name, tag);
        self.link(&folder.join("index").join(hashed(digest)).join("link"), digest)?;
        self.link(&folder.join("current/link"), digest)
    }

    pub fn current(&self, name: &str, tag: &str) -> io::Result<Option<Digest>> {
        self.follow(&self.tag(name, tag).join("current/link"))
    }

    /// Stores small content under its digest.
    pub fn put(&self, digest: &Digest, content: &[u8]) -> io::Result<()> {
        let path = self.blob(digest);
        if path.is_file() { Ok(()) } else { write_whole(&path, content, true) }
    }

    /// Names in a folder, sorted; empty where there is none.
    pub fn names(&self, folder: &Path) -> io::Result<Vec<String>> {
        let entries = match fs::read_dir(folder) {
            Ok(entries) => entries,
            Err(error) if error.kind() == ErrorKind::NotFound => return Ok(Vec::new()),
            Err(error) => return Err(error),
        };
        let mut names = Vec::new();
        for entry in entries {
            names.extend(entry?.file_name().into_string());
        }
        names.sort();
        Ok(names)
    }

    /// Reads a stretch of a file on a thread of its own.
    pub fn stream(path: &Path, offset: u64, length: u64) -> io::Result<mpsc::Receiver<io::Result<Bytes>>> {
        let mut file = File::open(path)?;
        file.seek(SeekFrom::Start(offset))?;
        let mut file = file.take(length);
        let (sender, receiver) = mpsc::channel(2);
        tokio::task::spawn_blocking(move || {
            loop {
                let mut chunk = Vec::with_capacity(CHUNK);
                match Read::by_ref(&mut file).take(CHUNK as u64).read_to_end(&mut chunk) {
                    Ok(0) => return,
                    Ok(_) => {
                        if sender.blocking_send(Ok(chunk.into())).is_err() {
                            return;
                        }
                    }
                    Err(error) => {
                        // A client that went away does not want to know.
                        let _ = sender.blocking_send(Err(error));
                        return;
                    }
                }
            }
        });
        Ok(receiver)
    }
}

/// Writes a file under another name and renames it, so that it is never seen half-written.
fn write_whole(path: &Path, content: &[u8], synced: bool) -> io::Result<()> {
    let folder = path.parent().unwrap_or(Path::new("."));
    fs::create_dir_all(folder)?;
    let temporary = folder.join(format!(".{:016x}", fastrand::u64(..)));
    let written = File::create(&temporary).and_then(|mut file| {
        file.write_all(content)?;
        if synced { file.sync_all() } else { Ok(()) }
    });
    let renamed = written.and_then(|()| fs::rename(&temporary, path));
    if renamed.is_err() {
        // The first error tells more than that of the clean-up.
        let _ = fs::remove_file(&temporary);
    }
    renamed
}

/// Works with the storage on a thread that may block.
pub async fn blocking<T: Send + 'static>(
    storage: &Storage,
    work: impl FnOnce(&Storage) -> Result<T, Fault> + Send + 'static,
) -> Result<T, Fault> {
    let storage = storage.clone();
    tokio::task::spawn_blocking(move || work(&storage)).await?
}
