//! What dray finds on this machine: temporary folders, the journal, Docker's daemon.

use dray_engine::{
    Error, Kind, LazyJournal, Local,
    http::{Daemon, Plain, RegistrySettings, TlsSettings},
};
use std::{collections::HashMap, env, path::PathBuf};

/// The name under which the transport of `docker-daemon:` asks for its settings.
pub const DAEMON: &str = "docker-daemon:";

fn set(name: &str) -> Option<String> {
    env::var(name).ok().filter(|value| !value.is_empty())
}

/// Where things are kept.
pub fn local() -> Local {
    let scratch = set("TMPDIR").map_or_else(|| PathBuf::from("/var/tmp"), PathBuf::from);
    let state = set("XDG_STATE_HOME").map(PathBuf::from);
    let state = state.or_else(|| env::home_dir().map(|home| home.join(".local/state")));
    let journal = LazyJournal::new(state.map(|state| state.join("dray/journal.db")));
    Local { scratch, known: HashMap::new(), journal }
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
        tls.ca = file("ca.pem");
        tls.identity = file("cert.pem").zip(file("key.pem"));
    }
    Ok(RegistrySettings { tls, daemon: Some(daemon), ..RegistrySettings::default() })
}
