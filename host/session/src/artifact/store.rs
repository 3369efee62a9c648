//! The artifacts that this machine holds, each in a folder that is named by its digest and appears as a whole.

use super::transfer::Pulled;
use dray_core::Digest;
use dray_engine::{Error, Kind, Result};
use rustix::{
    fs::{CWD, RenameFlags, renameat_with},
    io::Errno,
};
use serde::{Deserialize, Serialize};
use std::{
    fs::{self, DirBuilder},
    io::{self, Read},
    os::unix::fs::DirBuilderExt,
    path::{Path, PathBuf},
    time::Duration,
};

const COMPONENT: &str = "component.wasm";
const MANIFEST: &str = "manifest.json";
const ABOUT: &str = "about.json";
/// How the names of files with signatures begin.
const SIGNATURE: &str = "signature-";
/// How the names of folders begin that are prepared, and that are removed.
const NEW: &str = ".new-";
const OLD: &str = ".old-";
/// After how long such a folder is a leftover.
const LEFT: Duration = Duration::from_secs(24 * 3600);
/// Signatures that are kept of an artifact.
const SIGNATURES: usize = 64;
/// The largest of the small files in bytes.
const SMALL: u64 = 16 << 20;

/// A folder of artifacts. What is in it can be fetched again, so it may be removed at any time.
#[derive(Clone, Debug)]
pub struct Store(PathBuf);

/// An artifact of the store.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Stored {
    /// The digest of its manifest.
    pub digest: Digest,
    /// The digest of its component.
    pub component: Digest,
    /// Where it came from, as it was written then.
    pub source: String,
    /// The name that the component gives itself.
    pub name: String,
    /// Its version.
    pub version: String,
    /// What it does.
    pub summary: String,
    /// Its kind, such as `filter`.
    pub kind: String,
    /// Size of the component in bytes.
    pub size: u64,
    /// When it was installed, in seconds since 1970.
    pub installed: i64,
}

fn failed(doing: &str, path: &Path, error: &io::Error) -> Error {
    Error::new(Kind::Io, format!("{doing} {}: {error}", path.display()))
}

/// Reads a small file. `None` means that it does not exist.
fn read(path: &Path) -> Result<Option<Vec<u8>>> {
    let mut bytes = Vec::new();
    match fs::File::open(path).and_then(|file| file.take(SMALL).read_to_end(&mut bytes)) {
        Ok(_) => Ok(Some(bytes)),
        Err(error) if matches!(error.kind(), io::ErrorKind::NotFound | io::ErrorKind::NotADirectory) => {
            Ok(None)
        }
        Err(error) => Err(failed("read", path, &error)),
    }
}

impl Store {
    /// The store in the folder of caches. It need not exist.
    pub fn beneath(cache: &Path) -> Self {
        Store(cache.join("plugins"))
    }

    fn folder(&self, digest: &Digest) -> PathBuf {
        self.0.join(format!("{}-{}", digest.algorithm_name(), digest.hex()))
    }

    /// The file of an artifact's component.
    pub fn component(&self, digest: &Digest) -> PathBuf {
        self.folder(digest).join(COMPONENT)
    }

    /// An artifact. `None` means that the store does not hold it.
    ///
    /// # Errors
    /// Fails if it cannot be read.
    pub fn get(&self, digest: &Digest) -> Result<Option<Stored>> {
        let folder = self.folder(digest);
        let Some(about) = read(&folder.join(ABOUT))? else { return Ok(None) };
        // A file that is not understood is not there; whoever needs the artifact fetches it again.
        let about: Option<Stored> = serde_json::from_slice(&about).ok();
        Ok(about.filter(|about| about.digest == *digest && folder.join(COMPONENT).is_file()))
    }

    /// The bytes of an artifact's manifest, and its signatures.
    ///
    /// # Errors
    /// Fails if the store does not hold it, or if it is not what its digest says.
    pub fn signed(&self, digest: &Digest) -> Result<(Vec<u8>, Vec<Vec<u8>>)> {
        let folder = self.folder(digest);
        let manifest = read(&folder.join(MANIFEST))?.filter(|manifest| digest.alike(manifest) == *digest);
        let manifest = manifest.ok_or_else(|| {
            Error::new(Kind::Corrupt, format!("read {}: it is not what was installed", folder.display()))
                .help("`dray plugin install` fetches it again")
        })?;
        let mut bundles = Vec::new();
        while let Some(bundle) = read(&folder.join(format!("{SIGNATURE}{}.json", bundles.len())))? {
            bundles.push(bundle);
        }
        Ok((manifest, bundles))
    }

    /// Whether the store holds an artifact whose manifest and component are what their digests say.
    ///
    /// # Errors
    /// Fails if a file cannot be read.
    pub fn is_whole(&self, digest: &Digest) -> Result<bool> {
        let Some(about) = self.get(digest)? else { return Ok(false) };
        let component = fs::read(self.component(digest));
        Ok(self.signed(digest).is_ok() && component.is_ok_and(|bytes| Digest::of(&bytes) == about.component))
    }

    /// An artifact that was read, with the signatures that the store has of it. Another registry may hold the same artifact without them.
    pub(super) fn with_kept(&self, mut pulled: Pulled) -> Result<Pulled> {
        if self.get(&pulled.digest)?.is_some()
            && let Ok((_, kept)) = self.signed(&pulled.digest)
        {
            for bundle in kept {
                if pulled.bundles.len() < SIGNATURES && !pulled.bundles.contains(&bundle) {
                    pulled.bundles.push(bundle);
                }
            }
        }
        Ok(pulled)
    }

    /// Removes what commands left that were killed.
    fn sweep(&self) {
        for entry in fs::read_dir(&self.0).into_iter().flatten().flatten() {
            let name = entry.file_name();
            let name = name.to_string_lossy();
            let modified = entry.metadata().and_then(|about| about.modified());
            let is_old = modified.is_ok_and(|at| at.elapsed().is_ok_and(|age| age > LEFT));
            if is_old && (name.starts_with(NEW) || name.starts_with(OLD)) {
                // The next command tries again.
                let _ = fs::remove_dir_all(entry.path());
            }
        }
    }

    /// Makes a folder in which an artifact is prepared.
    pub(super) fn prepare(&self, pulled: &Pulled) -> Result<tempfile::TempDir> {
        let error = |error| failed("write to", &self.0, &error);
        DirBuilder::new().recursive(true).mode(0o700).create(&self.0).map_err(error)?;
        self.sweep();
        let folder = tempfile::Builder::new().prefix(NEW).tempdir_in(&self.0).map_err(error)?;
        let write = |name: &str, bytes: &[u8]| {
            fs::write(folder.path().join(name), bytes).map_err(|error| failed("write", folder.path(), &error))
        };
        write(COMPONENT, &pulled.component)?;
        write(MANIFEST, &pulled.manifest)?;
        for (number, bundle) in pulled.bundles.iter().enumerate() {
            write(&format!("{SIGNATURE}{number}.json"), bundle)?;
        }
        Ok(folder)
    }

    /// The component in a folder that is prepared.
    pub(super) fn prepared(folder: &tempfile::TempDir) -> PathBuf {
        folder.path().join(COMPONENT)
    }

    /// Puts a folder that is prepared in its place, instead of what is there.
    pub(super) fn put(&self, folder: tempfile::TempDir, about: &Stored) -> Result<()> {
        let at = self.folder(&about.digest);
        let error = |error| failed("write", &at, &error);
        let text = serde_json::to_vec_pretty(about)
            .map_err(|error| Error::new(Kind::Internal, format!("describe {}: {error}", at.display())))?;
        fs::write(folder.path().join(ABOUT), text).map_err(error)?;
        // The same artifact may have got signatures since, or may have been damaged. It is exchanged in one step, so that it is
        // there at any time, and the old one goes with the folder.
        let exchanged = renameat_with(CWD, folder.path(), CWD, &at, RenameFlags::EXCHANGE);
        match exchanged {
            Ok(()) => Ok(()),
            Err(Errno::NOENT) => match fs::rename(folder.path(), &at) {
                // Another process was faster, with the same artifact.
                Err(_) if at.join(ABOUT).is_file() => Ok(()),
                renamed => renamed.map_err(error),
            },
            // A file system that exchanges nothing.
            Err(_) => {
                let old = tempfile::Builder::new().prefix(OLD).tempdir_in(&self.0).map_err(error)?;
                fs::rename(&at, old.path().join("artifact")).map_err(error)?;
                fs::rename(folder.path(), &at).map_err(error)
            }
        }
    }

    /// All artifacts, in the order of their names and versions.
    ///
    /// # Errors
    /// Fails if the folder cannot be read.
    pub fn list(&self) -> Result<Vec<Stored>> {
        let entries = match fs::read_dir(&self.0) {
            Ok(entries) => entries,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
            Err(error) => return Err(failed("read", &self.0, &error)),
        };
        let mut all = Vec::new();
        for entry in entries.flatten() {
            let name = entry.file_name().to_string_lossy().replacen('-', ":", 1);
            if let Ok(digest) = name.parse::<Digest>() {
                all.extend(self.get(&digest)?);
            }
        }
        all.sort_by(|one, other| {
            (&one.name, &one.version, &one.digest).cmp(&(&other.name, &other.version, &other.digest))
        });
        Ok(all)
    }

    /// Removes an artifact.
    ///
    /// # Errors
    /// Fails if it cannot be removed.
    pub fn remove(&self, digest: &Digest) -> Result<()> {
        let at = self.folder(digest);
        let error = |error| failed("remove", &at, &error);
        // It disappears as a whole.
        let old = tempfile::Builder::new().prefix(OLD).tempdir_in(&self.0).map_err(error)?;
        fs::rename(&at, old.path().join("artifact")).map_err(error)
    }
}
