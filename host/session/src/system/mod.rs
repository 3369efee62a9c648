//! The files of this machine that say how images are reached and what must be signed, as containers' tools read them:
//! registries.conf, policy.json, registries.d and certs.d.

mod certs_d;
mod registries_d;

use dray_core::RegistriesConf;
use dray_engine::{Error, Kind, http::SystemTls};
use dray_trust::{Policy, Trust};
use std::{
    fs,
    io::ErrorKind,
    path::{Path, PathBuf},
    sync::Arc,
};

pub use certs_d::certificates;

/// The largest of these files in bytes.
const LARGEST: u64 = 16 << 20;

/// Where the files are. Of each list, the first that exists counts, unless it says otherwise.
#[derive(Clone, Debug, Default)]
#[non_exhaustive]
pub struct SystemFiles {
    /// registries.conf.
    pub registries: Vec<PathBuf>,
    /// Whether the file of `registries` must exist, because the user named it.
    pub registries_required: bool,
    /// Folders of further registries.conf files (`*.conf`), all of which count, later ones more.
    pub registries_more: Vec<PathBuf>,
    /// policy.json.
    pub policy: Vec<PathBuf>,
    /// Whether there must be a policy.json.
    pub policy_required: bool,
    /// Whether every image must be signed, even if policy.json accepts anything.
    pub always_signed: bool,
    /// Folders of registries.d.
    pub registries_d: Vec<PathBuf>,
    /// Folders of certs.d, with one folder a registry.
    pub certs_d: Vec<PathBuf>,
    /// Where signatures are kept if registries.d names no place.
    pub lookaside: Option<PathBuf>,
}

/// What the files say.
#[derive(Clone, Debug, Default)]
pub struct System {
    /// Mirrors, rewritten names and blocked registries.
    pub registries: RegistriesConf,
    /// What must be signed, and where signatures are.
    pub trust: Trust,
    /// Folders of certs.d.
    certs_d: Vec<PathBuf>,
    /// The files that were read, without those of certs.d.
    files: Vec<PathBuf>,
}

/// Whether a file or folder does not exist for this user: one in a folder that may not be entered does not, as for
/// containers' other tools.
fn is_absent(error: &std::io::Error) -> bool {
    matches!(error.kind(), ErrorKind::NotFound | ErrorKind::NotADirectory | ErrorKind::PermissionDenied)
}

fn read(path: &Path) -> Result<Option<String>, Error> {
    let failed = |error: &dyn std::fmt::Display| {
        Error::new(Kind::Invalid, format!("read {}: {error}", path.display()))
    };
    match fs::metadata(path) {
        Ok(meta) if meta.len() > LARGEST => return Err(failed(&"it is too large")),
        Err(error) if is_absent(&error) => {
            if error.kind() == ErrorKind::PermissionDenied {
                tracing::warn!("{} is not obeyed: this user may not look into its folder", path.display());
            }
            return Ok(None);
        }
        _ => {}
    }
    fs::read_to_string(path).map(Some).map_err(|error| failed(&error))
}

/// The first file of a list that exists, with its text.
fn first(paths: &[PathBuf]) -> Result<Option<(&PathBuf, String)>, Error> {
    for path in paths {
        if let Some(text) = read(path)? {
            return Ok(Some((path, text)));
        }
    }
    Ok(None)
}

/// The files of a folder with an ending, sorted. A folder that does not exist has none.
fn files_in(folder: &Path, ending: &str) -> Result<Vec<PathBuf>, Error> {
    let failed = |error: std::io::Error| Error::new(Kind::Io, format!("read {}: {error}", folder.display()));
    if fs::metadata(folder).is_err_and(|error| is_absent(&error)) {
        return Ok(Vec::new());
    }
    let mut paths = Vec::new();
    for entry in fs::read_dir(folder).map_err(failed)? {
        let path = entry.map_err(failed)?.path();
        if path.extension().is_some_and(|extension| extension == ending) && path.is_file() {
            paths.push(path);
        }
    }
    paths.sort();
    Ok(paths)
}

impl SystemFiles {
    /// All places of these files, and the files and folders that the files name in turn.
    pub fn paths(&self) -> Vec<PathBuf> {
        let lists =
            [&self.registries, &self.registries_more, &self.policy, &self.registries_d, &self.certs_d];
        let mut paths: Vec<PathBuf> = lists.into_iter().flatten().cloned().collect();
        // If they cannot be read, whoever opens the session says so.
        if let Ok(system) = System::read(self) {
            paths.extend(system.trust.policy.iter().flat_map(|(policy, _)| policy.files()));
            paths.extend(system.trust.lookasides.folders());
        }
        paths
    }
}

impl System {
    /// Reads the files, and says in the log which there are: what a machine demands is not to surprise its users.
    ///
    /// # Errors
    /// Fails as [`System::read`] does.
    pub fn obey(files: &SystemFiles) -> Result<Self, Error> {
        let system = System::read(files)?;
        for path in &system.files {
            tracing::info!("{} is obeyed", path.display());
        }
        Ok(system)
    }

    /// Reads the files.
    ///
    /// # Errors
    /// Fails with the file and the line if one cannot be read or understood, and if a policy.json is required and there
    /// is none: what a machine says about trust is never half obeyed.
    pub fn read(files: &SystemFiles) -> Result<Self, Error> {
        let wrong = |path: &Path, why: &dyn std::fmt::Display| {
            Error::new(Kind::Invalid, format!("read {}: {why}", path.display()))
        };
        let (mut registries, mut read_files) = (RegistriesConf::default(), Vec::new());
        let mut add = |path: &Path, text: &str| registries.add(text).map_err(|why| wrong(path, &why));
        match first(&files.registries)? {
            Some((path, text)) => {
                add(path, &text)?;
                read_files.push(path.clone());
            }
            None if files.registries_required => {
                let named = files.registries.first().map_or(Path::new("registries.conf"), PathBuf::as_path);
                return Err(wrong(named, &"it does not exist"));
            }
            None => {}
        }
        for folder in &files.registries_more {
            for path in files_in(folder, "conf")? {
                if let Some(text) = read(&path)? {
                    add(&path, &text)?;
                    read_files.push(path);
                }
            }
        }
        let policy = match first(&files.policy)? {
            Some((path, text)) => {
                let policy = Policy::parse(text.as_bytes()).map_err(|why| wrong(path, &why))?;
                Some((policy, path.clone()))
            }
            None if files.policy_required => {
                let usual =
                    files.policy.last().map_or("policy.json".into(), |path| path.display().to_string());
                let error = Error::new(
                    Kind::Invalid,
                    format!("read the signature policy {usual}: it does not exist"),
                );
                return Err(error.help("--insecure-policy checks no signatures"));
            }
            None => None,
        };
        read_files.extend(policy.iter().map(|(_, path)| path.clone()));
        let folder = files.registries_d.iter().find(|folder| folder.is_dir());
        let (mut lookasides, of_lookasides) = registries_d::read(folder)?;
        read_files.extend(of_lookasides);
        lookasides.usual.clone_from(&files.lookaside);
        Ok(System {
            registries,
            trust: Trust { policy, lookasides, always: files.always_signed },
            certs_d: files.certs_d.clone(),
            files: read_files,
        })
    }

    /// What the files say about the connection to each host.
    pub fn tls(&self) -> SystemTls {
        let (registries, certs_d) = (self.registries.clone(), self.certs_d.clone());
        SystemTls(Arc::new(move |host: &str| {
            // A name that is no host would lead to another folder.
            let folder = |base: &PathBuf| base.join(host);
            let safe = !host.is_empty() && !host.starts_with('.') && !host.contains(['/', '\\', '\0']);
            let found = certs_d.iter().map(folder).find(|folder| safe && folder.is_dir());
            let mut tls = match found {
                Some(folder) => {
                    tracing::info!("{} has the certificates for {host}", folder.display());
                    certificates(&folder)?
                }
                None => Default::default(),
            };
            tls.insecure = registries.insecure(host);
            Ok(tls)
        }))
    }
}
