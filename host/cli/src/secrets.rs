//! Secrets from the environment and from files.

use dray_core::policy::SecretRef;
use dray_engine::{
    Error, Kind, Result, Secret,
    contract::{Credential, Credentials, Key, Lookup},
};
use dray_runtime::Secrets;
use futures_util::future::BoxFuture;
use std::{
    env, fs,
    io::ErrorKind,
    path::{Path, PathBuf},
};

/// Where this user's secrets are.
pub struct UserSecrets {
    /// What `file:` is relative to.
    pub base: PathBuf,
    /// The one file to look for credentials in.
    pub authfile: Option<PathBuf>,
}

/// A login that the command line gave, for every registry of the command.
pub struct GivenLogin(pub Key);

impl Credentials for GivenLogin {
    fn lookup<'a>(&'a self, _: Lookup<'a>) -> BoxFuture<'a, Result<Option<Credential>>> {
        let origin = "the command line".to_owned();
        let credential =
            Credential { key: self.0.clone(), always: false, lifetime: None, covers: None, origin };
        Box::pin(async { Ok(Some(credential)) })
    }
}

/// A path that a variable of the environment names. An empty one names none.
pub fn variable(name: &str) -> Option<PathBuf> {
    env::var_os(name).filter(|value| !value.is_empty()).map(PathBuf::from)
}

/// Where auth.json and its like are looked for (containers-auth.json(5), Docker's documentation).
pub fn usual_places() -> Vec<PathBuf> {
    let home = env::home_dir();
    let below = |folder: Option<PathBuf>, rest: &str| folder.map(|folder| folder.join(rest));
    let runtime = variable("XDG_RUNTIME_DIR")
        .or_else(|| Some(format!("/run/containers/{}", rustix::process::getuid().as_raw()).into()));
    let runtime = match variable("XDG_RUNTIME_DIR") {
        Some(_) => below(runtime, "containers/auth.json"),
        None => below(runtime, "auth.json"),
    };
    let config = variable("XDG_CONFIG_HOME").or_else(|| below(home.clone(), ".config"));
    let docker = variable("DOCKER_CONFIG").or_else(|| below(home.clone(), ".docker"));
    [runtime, below(config, "containers/auth.json"), below(docker, "config.json"), below(home, ".dockercfg")]
        .into_iter()
        .flatten()
        .collect()
}

/// The file in use that names a credential helper; `None` means that none does.
pub fn helper() -> Option<String> {
    let named = variable("REGISTRY_AUTH_FILE").map_or_else(usual_places, |path| vec![path]);
    let names = |path: &PathBuf| {
        let text = fs::read_to_string(path).ok()?;
        let value: serde_json::Value = serde_json::from_str(&text).ok()?;
        let store = value
            .get("credsStore")
            .and_then(serde_json::Value::as_str)
            .is_some_and(|store| !store.is_empty());
        let helpers = value.get("credHelpers").and_then(serde_json::Value::as_object);
        (store || helpers.is_some_and(|helpers| !helpers.is_empty())).then(|| path.display().to_string())
    };
    named.iter().find_map(names)
}

fn read(path: &Path) -> Result<Option<(String, Secret)>> {
    match fs::read_to_string(path) {
        Ok(text) => Ok(Some((path.display().to_string(), Secret::new(text)))),
        Err(error) if matches!(error.kind(), ErrorKind::NotFound | ErrorKind::NotADirectory) => Ok(None),
        Err(error) => Err(Error::new(Kind::Denied, format!("read {}: {error}", path.display()))),
    }
}

impl Secrets for UserSecrets {
    fn get(&self, name: &SecretRef) -> Result<Secret> {
        let missing = |why: String| Error::new(Kind::NotFound, format!("read the secret {name}: {why}"));
        match name {
            SecretRef::Env(variable) => {
                match env::var(variable) {
                    Ok(value) => Ok(Secret::new(value)),
                    Err(_) => Err(missing("there is no such environment variable".into())
                        .help(format!("set {variable}"))),
                }
            }
            SecretRef::File(path) => {
                let read = fs::read_to_string(self.base.join(path));
                let text = read.map_err(|error| {
                    missing(error.to_string()).help("paths are relative to the folder of the policy")
                })?;
                Ok(Secret::new(text.trim_end_matches(['\r', '\n'])))
            }
        }
    }

    fn auth_files(&self) -> Result<Vec<(String, Secret)>> {
        if let Some(path) = &self.authfile {
            let file = read(path)?;
            if file.is_none() {
                tracing::warn!("{} is not there, so no credentials are sent", path.display());
            }
            return Ok(file.into_iter().collect());
        }
        usual_places().iter().filter_map(|path| read(path).transpose()).collect()
    }
}
