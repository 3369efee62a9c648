//! The storage layout of distribution (its `registry/storage/paths.go` documents it).
//!
//! `route` checks names before they become paths. A [`Digest`] can hold nothing that leads elsewhere.

//! Every path is opened beneath the root, so symbolic links do not lead out of it.

use crate::answer::Fault;
use bytes::Bytes;
use cap_std::{
    ambient_authority,
    fs::{Dir, File, OpenOptions},
};
use dray_core::Digest;
use std::{
    collections::HashSet,
    io::{self, ErrorKind, Read, Seek, SeekFrom, Write},
    path::{Path, PathBuf},
    sync::{Arc, Mutex, OnceLock},
    time::Duration,
};
use tokio::{
    runtime::Handle,
    sync::{OwnedSemaphorePermit, Semaphore, mpsc},
};

#[derive(Clone)]
pub struct Storage {
    root: PathBuf,
    dir: Arc<OnceLock<Arc<Dir>>>,
    top: PathBuf,
    /// Limits on how many blobs are read, and how many bodies are written, at once. Each one occupies one of the
    /// runtime's 512 blocking threads for as long as its client takes, and short tasks need some of these threads, too.
    streams: Arc<Semaphore>,
    bodies: Arc<Semaphore>,
    /// IDs of the uploads to which a request is writing.
    busy: Arc<Mutex<HashSet<String>>>,
}

/// The right to write to an upload, until it is dropped.
pub struct Turn {
    storage: Storage,
    id: String,
}

impl Drop for Turn {
    fn drop(&mut self) {
        self.storage.busy.lock().unwrap_or_else(|poisoned| poisoned.into_inner()).remove(&self.id);
    }
}

/// How long a client may take to accept the next bytes of a blob, or to send those of a body.
pub const IDLE: Duration = Duration::from_secs(60);
/// How long a request waits for the request that writes to the same upload.
const WAIT: Duration = Duration::from_secs(5);
/// Size limit of a link file in bytes. It holds a digest.
const LINK: usize = 1024;
/// Bytes that are read from the disk at once.
const CHUNK: usize = 256 << 10;

fn hashed(digest: &Digest) -> PathBuf {
    Path::new(digest.algorithm_name()).join(digest.hex())
}

impl Storage {
    pub fn new(root: &Path) -> Self {
        Storage {
            root: root.into(),
            dir: Arc::default(),
            top: "docker/registry/v2".into(),
            streams: Arc::new(Semaphore::new(256)),
            bodies: Arc::new(Semaphore::new(128)),
            busy: Arc::default(),
        }
    }

    /// The root folder. Fails if it does not exist.
    fn dir(&self) -> io::Result<Arc<Dir>> {
        if let Some(dir) = self.dir.get() {
            return Ok(dir.clone());
        }
        let dir = Arc::new(Dir::open_ambient_dir(&self.root, ambient_authority())?);
        Ok(self.dir.get_or_init(|| dir).clone())
    }

    /// The root folder, which is created if it does not exist.
    fn made(&self) -> io::Result<Arc<Dir>> {
        if self.dir.get().is_none() {
            std::fs::create_dir_all(&self.root)?;
        }
        self.dir()
    }

    /// Waits for the right to occupy a thread with the body of a request.
    pub async fn body(&self) -> io::Result<OwnedSemaphorePermit> {
        self.bodies.clone().acquire_owned().await.map_err(io::Error::other)
    }

    pub fn is_file(&self, path: &Path) -> bool {
        self.dir().and_then(|dir| dir.metadata(path)).is_ok_and(|metadata| metadata.is_file())
    }

    pub fn is_dir(&self, path: &Path) -> bool {
        self.dir().and_then(|dir| dir.metadata(path)).is_ok_and(|metadata| metadata.is_dir())
    }

    /// Size of a file in bytes.
    pub fn size(&self, path: &Path) -> io::Result<u64> {
        self.dir()?.metadata(path).map(|metadata| metadata.len())
    }

    /// When a file was last written to.
    pub fn modified(&self, path: &Path) -> io::Result<std::time::SystemTime> {
        self.dir()?.metadata(path)?.modified().map(cap_std::time::SystemTime::into_std)
    }

    /// Reads a document. Fails if it has more than `most` bytes.
    pub fn read(&self, path: &Path, most: usize) -> io::Result<Vec<u8>> {
        let mut content = Vec::new();
        self.open(path)?.take(most as u64 + 1).read_to_end(&mut content)?;
        match content.len() > most {
            true => Err(io::Error::new(ErrorKind::InvalidData, "it is too long for a document")),
            false => Ok(content),
        }
    }

    pub fn open(&self, path: &Path) -> io::Result<File> {
        self.dir()?.open(path)
    }

    pub fn append(&self, path: &Path) -> io::Result<File> {
        self.dir()?.open_with(path, OpenOptions::new().append(true))
    }

    pub fn create(&self, path: &Path, content: &[u8]) -> io::Result<()> {
        let dir = self.made()?;
        if let Some(folder) = path.parent() {
            dir.create_dir_all(folder)?;
        }
        dir.create(path)?.write_all(content)
    }

    /// Renames a file, and creates the folders above its new name.
    pub fn rename(&self, from: &Path, to: &Path) -> io::Result<()> {
        let dir = self.made()?;
        if let Some(folder) = to.parent() {
            dir.create_dir_all(folder)?;
        }
        dir.rename(from, &dir, to)
    }

    pub fn remove_file(&self, path: &Path) -> io::Result<()> {
        self.dir()?.remove_file(path)
    }

    pub fn remove_dir_all(&self, path: &Path) -> io::Result<()> {
        self.dir()?.remove_dir_all(path)
    }

    /// Takes the right to write to an upload. `None` means that another request has it.
    pub fn turn(&self, id: &str) -> Option<Turn> {
        let mut busy = self.busy.lock().unwrap_or_else(|poisoned| poisoned.into_inner());
        busy.insert(id.to_owned()).then(|| Turn { storage: self.clone(), id: id.to_owned() })
    }

    /// Waits for the right to write to an upload. A client that goes on where another one broke off may come before the
    /// server has noticed the break and written what it received. `None` means that another request keeps the right.
    pub async fn wait_for_turn(&self, id: &str) -> Option<Turn> {
        let deadline = tokio::time::Instant::now() + WAIT;
        loop {
            let turn = self.turn(id);
            if turn.is_some() || tokio::time::Instant::now() >= deadline {
                return turn;
            }
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
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

    /// The folder of the manifests that refer to a subject. It is not part of distribution's layout, but distribution
    /// skips names that begin with an underscore.
    pub fn referrers(&self, name: &str, subject: &Digest) -> PathBuf {
        self.repository(name).join("_referrers").join(hashed(subject))
    }

    pub fn uploads(&self, name: &str) -> PathBuf {
        self.repository(name).join("_uploads")
    }

    /// Whether anything was ever written to a repository.
    pub fn knows(&self, name: &str) -> bool {
        let repository = self.repository(name);
        ["_manifests", "_layers"].iter().any(|part| self.is_dir(&repository.join(part)))
    }

    /// The digest that a link file holds. `None` means that the file does not exist.
    pub fn follow(&self, link: &Path) -> io::Result<Option<Digest>> {
        match self.read(link, LINK) {
            Ok(text) => String::from_utf8_lossy(&text).trim().parse().map(Some).map_err(io::Error::other),
            Err(error) if error.kind() == ErrorKind::NotFound => Ok(None),
            Err(error) => Err(error),
        }
    }

    pub fn link(&self, link: &Path, digest: &Digest) -> io::Result<()> {
        // A link that a crash left empty counts as missing.
        if self.follow(link).ok().flatten().as_ref() == Some(digest) {
            return Ok(());
        }
        self.write_whole(link, digest.to_string().as_bytes(), false)
    }

    /// Makes a tag name a manifest. The history of the tag is written first, and what it names now is written last.
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
        if self.is_file(&path) { Ok(()) } else { self.write_whole(&path, content, true) }
    }

    /// The names in a folder, sorted. Empty if the folder does not exist.
    pub fn names(&self, folder: &Path) -> io::Result<Vec<String>> {
        let entries = match self.dir().and_then(|dir| dir.read_dir(folder)) {
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

    /// Reads a range of a file on a thread of its own.
    pub async fn stream(
        &self,
        path: &Path,
        offset: u64,
        length: u64,
    ) -> io::Result<mpsc::Receiver<io::Result<Bytes>>> {
        // The semaphore is never closed.
        let place = self.streams.clone().acquire_owned().await.map_err(io::Error::other)?;
        let mut file = self.open(path)?;
        file.seek(SeekFrom::Start(offset))?;
        let mut file = file.take(length);
        let (sender, receiver) = mpsc::channel(2);
        let handle = Handle::current();
        tokio::task::spawn_blocking(move || {
            let _place = place;
            loop {
                let mut chunk = Vec::with_capacity(CHUNK);
                match Read::by_ref(&mut file).take(CHUNK as u64).read_to_end(&mut chunk) {
                    Ok(0) => return,
                    Ok(_) => {
                        // A client that accepts nothing for so long has gone.
                        let sending = tokio::time::timeout(IDLE, sender.send(Ok(chunk.into())));
                        if !matches!(handle.block_on(sending), Ok(Ok(()))) {
                            return;
                        }
                    }
                    Err(error) => {
                        // If the client has gone, nobody needs the error.
                        let _ = sender.blocking_send(Err(error));
                        return;
                    }
                }
            }
        });
        Ok(receiver)
    }
}

impl Storage {
    /// Writes a file under another name and renames it, so that it is never seen half-written.
    fn write_whole(&self, path: &Path, content: &[u8], synced: bool) -> io::Result<()> {
        let dir = self.made()?;
        let folder = path.parent().unwrap_or(Path::new("."));
        dir.create_dir_all(folder)?;
        let temporary = folder.join(format!(".{:016x}", fastrand::u64(..)));
        let written = dir.create(&temporary).and_then(|mut file| {
            file.write_all(content)?;
            if synced { file.sync_all() } else { Ok(()) }
        });
        let renamed = written.and_then(|()| dir.rename(&temporary, &dir, path));
        if renamed.is_err() {
            // The first error is more useful than one of the clean-up.
            let _ = dir.remove_file(&temporary);
        }
        renamed
    }
}

/// Runs work on the storage on a thread that may block.
pub async fn blocking<T: Send + 'static>(
    storage: &Storage,
    work: impl FnOnce(&Storage) -> Result<T, Fault> + Send + 'static,
) -> Result<T, Fault> {
    let storage = storage.clone();
    tokio::task::spawn_blocking(move || work(&storage)).await?
}
