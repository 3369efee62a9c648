//! What dray finds on this machine: temporary folders, the journal, Docker's daemon.

use dray_core::RegistriesConf;
use dray_engine::{
    DISK_WRITES, Error, Kind, LazyJournal, Local,
    http::{Daemon, Plain, RegistrySettings, TlsSettings},
};
use dray_trust::Trust;
use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
use std::{collections::HashMap, env, path::PathBuf};

/// The name under which the transport of `docker-daemon:` asks for its settings.
pub const DAEMON: &str = "docker-daemon:";

fn set(name: &str) -> Option<String> {
    env::var(name).ok().filter(|value| !value.is_empty())
}

/// Files that a process is at work with at least, whatever it does.
const FILES: u64 = 32;
/// Open files that one request may need: its connection, what it reads, what it writes.
const EACH: u64 = 8;

/// Lets the process open as many files as it may (getrlimit(2)), and tells how many requests may be under way at once
/// where that is fewer than usual.
pub fn requests_at_once() -> Option<usize> {
    let limit = getrlimit(Resource::Nofile);
    if limit.current != limit.maximum {
        // Where it is refused, it stays as it is.
        let _ = setrlimit(Resource::Nofile, Rlimit { current: limit.maximum, maximum: limit.maximum });
    }
    let files = getrlimit(Resource::Nofile).current?;
    let requests = (files.saturating_sub(FILES) / EACH).max(1) as usize;
    (requests < RegistrySettings::default().concurrency).then_some(requests)
}

/// Blobs that are written to disks at once: fewer than usual where the process may open few files.
fn disk_writes() -> usize {
    let files = getrlimit(Resource::Nofile).current.unwrap_or(u64::MAX);
    (files / EACH).clamp(2, DISK_WRITES as u64) as usize
}

/// Where the journal is kept; `None` means that there is no home folder.
pub fn state_folder() -> Option<PathBuf> {
    // A relative one is to be ignored (XDG Base Directory Specification, 0.8).
    let state = set("XDG_STATE_HOME").map(PathBuf::from).filter(|state| state.is_absolute());
    let state = state.or_else(|| env::home_dir().map(|home| home.join(".local/state")));
    state.map(|state| state.join("dray"))
}

/// The folder for temporary files.
pub fn scratch() -> PathBuf {
    set("TMPDIR").map_or_else(|| PathBuf::from("/var/tmp"), PathBuf::from)
}

/// Where things are kept.
pub fn local() -> Local {
    let scratch = scratch();
    let journal = LazyJournal::new(state_folder().map(|state| state.join("journal.db")));
    let known = HashMap::from([("containers-storage".to_owned(), containers_storage())]);
    Local {
        scratch,
        known,
        journal,
        disk_writes: disk_writes(),
        trust: Trust::default(),
        registries: RegistriesConf::default(),
        scan_reports: None,
    }
}

/// What of storage.conf dray asks for (containers-storage.conf(5)).
#[derive(Default, serde::Deserialize)]
struct StorageConf {
    #[serde(default)]
    storage: Storage,
}

#[derive(Default, serde::Deserialize)]
struct Storage {
    graphroot: Option<PathBuf>,
    rootless_storage_path: Option<String>,
}

/// Where podman and its kin keep images: root's store, or the user's own.
fn containers_storage() -> PathBuf {
    let root = rustix::process::geteuid().is_root();
    let home = env::home_dir().unwrap_or_default();
    let configured = |folder: &str, name: &str| set(folder).map_or_else(|| home.join(name), PathBuf::from);
    let user = configured("XDG_CONFIG_HOME", ".config").join("containers/storage.conf");
    // The last one that says something wins; `graphroot` of the system's files is root's store.
    let files = match set("CONTAINERS_STORAGE_CONF") {
        Some(file) => vec![(PathBuf::from(file), true)],
        None => vec![
            ("/usr/share/containers/storage.conf".into(), root),
            ("/etc/containers/storage.conf".into(), root),
            (user, !root),
        ],
    };
    // A file that is not there or not readable says nothing, as it does for podman.
    let read = |file: &PathBuf| toml::from_str::<StorageConf>(&std::fs::read_to_string(file).ok()?).ok();
    let mut found = None;
    for (file, own) in files {
        let Some(StorageConf { storage }) = read(&file) else { continue };
        let path = storage.rootless_storage_path.filter(|_| !root).map(|path| {
            let user = rustix::process::getuid().as_raw().to_string();
            PathBuf::from(path.replace("$HOME", &home.to_string_lossy()).replace("$UID", &user))
        });
        found = path.or(storage.graphroot.filter(|_| own)).or(found);
    }
    found.unwrap_or_else(|| match root {
        true => PathBuf::from("/var/lib/containers/storage"),
        false => configured("XDG_DATA_HOME", ".local/share").join("containers/storage"),
    })
}

/// How Docker's own tools find the daemon: DOCKER_HOST, DOCKER_TLS_VERIFY, DOCKER_CERT_PATH (docker(1)).
pub fn daemon() -> Result<RegistrySettings, Error> {
    let address = set("DOCKER_HOST").unwrap_or_else(|| "unix:///var/run/docker.sock".into());
    let verify = set("DOCKER_TLS_VERIFY").is_some();
    let daemon = match address.split_once("://") {
        Some(("unix", path)) => Daemon::Unix(path.into()),
        Some(("tcp", address)) => {
            let address = address.trim_end_matches('/').to_owned();
            let port = if verify { 2376 } else { 2375 };
            let address = if address.contains(':') { address } else { format!("{address}:{port}") };
            Daemon::Tcp { address, tls: verify || set("DOCKER_TLS").is_some() }
        }
        _ => {
            let text = format!("find Docker's daemon: DOCKER_HOST is {address}");
            return Err(Error::new(Kind::Unsupported, text).help("write unix:///PATH or tcp://HOST:PORT"));
        }
    };
    let mut tls = TlsSettings { plain: Plain::Never, verify, ..TlsSettings::default() };
    let folder = set("DOCKER_CERT_PATH").map(PathBuf::from);
    let folder = folder.or_else(|| env::home_dir().map(|home| home.join(".docker")));
    if let (Daemon::Tcp { tls: true, .. }, Some(folder)) = (&daemon, folder) {
        let file = |name: &str| Some(folder.join(name)).filter(|path| path.is_file());
        tls.ca.extend(file("ca.pem"));
        tls.identity = file("cert.pem").zip(file("key.pem"));
    }
    Ok(RegistrySettings { tls, daemon: Some(daemon), ..RegistrySettings::default() })
}
