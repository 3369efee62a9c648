//! The file of logins, as podman and skopeo keep it (containers-auth.json(5)) and Docker reads it.

use base64::{Engine as _, engine::general_purpose::STANDARD};
use serde::Serialize;
use serde_json::{Map, Value, json};
use std::{
    fs::{self, File},
    io::{ErrorKind, Write},
    os::unix::fs::DirBuilderExt,
    path::{Path, PathBuf},
};

/// The content of a file of logins. Everything else that is in it stays.
#[derive(Debug, Default)]
pub struct Logins(Map<String, Value>);

impl Logins {
    /// Reads the content. An empty file holds no logins.
    pub fn parse(text: &str) -> Result<Self, String> {
        if text.trim().is_empty() {
            return Ok(Logins::default());
        }
        match serde_json::from_str(text) {
            Ok(Value::Object(content)) => Ok(Logins(content)),
            Ok(_) => Err("it is no JSON object".into()),
            Err(error) => Err(format!("it is no JSON: {error}")),
        }
    }

    fn auths(&mut self) -> Option<&mut Map<String, Value>> {
        self.0.get_mut("auths")?.as_object_mut()
    }

    /// The credential helper that keeps the logins of a registry: `docker-credential-NAME`.
    pub fn helper(&self, registry: &str) -> Option<&str> {
        let named = self.0.get("credHelpers").and_then(|helpers| helpers.get(registry));
        let name = named.or_else(|| self.0.get("credsStore"))?.as_str()?;
        Some(name).filter(|name| !name.is_empty())
    }

    /// The user that is logged in under a key.
    pub fn user(&self, key: &str) -> Option<String> {
        let encoded = self.0.get("auths")?.get(key)?.get("auth")?.as_str()?;
        let decoded = String::from_utf8(STANDARD.decode(encoded).ok()?).ok()?;
        Some(decoded.split_once(':')?.0.to_owned())
    }

    /// Adds or replaces a login.
    pub fn add(&mut self, key: &str, user: &str, password: &str) {
        let auths = self.0.entry("auths").or_insert_with(|| json!({}));
        if !auths.is_object() {
            *auths = json!({});
        }
        auths[key] = json!({ "auth": STANDARD.encode(format!("{user}:{password}")) });
    }

    /// Removes a login. Returns whether there was one.
    pub fn remove(&mut self, key: &str) -> bool {
        self.auths().is_some_and(|auths| auths.remove(key).is_some())
    }

    /// Removes all logins. Returns how many there were.
    pub fn clear(&mut self) -> usize {
        self.auths().map_or(0, |auths| {
            let count = auths.len();
            auths.clear();
            count
        })
    }

    /// The text, indented with tabs as the other tools write it.
    fn text(&self) -> Vec<u8> {
        let mut text = Vec::new();
        let formatter = serde_json::ser::PrettyFormatter::with_indent(b"\t");
        // JSON values can always be written to memory.
        let _ = self.0.serialize(&mut serde_json::Serializer::with_formatter(&mut text, formatter));
        text
    }
}

/// Reads a file of logins. A file that does not exist holds none.
pub fn read(path: &Path) -> std::io::Result<Logins> {
    match fs::read_to_string(path) {
        Ok(text) => Logins::parse(&text).map_err(std::io::Error::other),
        Err(error) if error.kind() == ErrorKind::NotFound => Ok(Logins::default()),
        Err(error) => Err(error),
    }
}

/// Changes a file of logins as a whole. Another dray that changes it waits meanwhile. Only its owner may read it.
pub fn change<T>(path: &Path, change: impl FnOnce(&mut Logins) -> T) -> std::io::Result<T> {
    let path = followed(path);
    let folder = path.parent().filter(|folder| !folder.as_os_str().is_empty()).unwrap_or(Path::new("."));
    fs::DirBuilder::new().recursive(true).mode(0o700).create(folder)?;
    let lock = File::open(folder)?;
    lock.lock()?;
    let mut logins = read(&path)?;
    let result = change(&mut logins);
    // A temporary file can only be read by its owner.
    let mut file = tempfile::NamedTempFile::new_in(folder)?;
    file.write_all(&logins.text())?;
    file.as_file().sync_all()?;
    file.persist(&path).map_err(|error| error.error)?;
    Ok(result)
}

/// The file to which a symbolic link leads, so that the link stays.
fn followed(path: &Path) -> PathBuf {
    fs::canonicalize(path).unwrap_or_else(|_| path.to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_others_keep_in_the_file_stays() {
        let text = r#"{"auths":{"a":{"auth":"dTpw","email":"x"}},"credHelpers":{"g":"gcloud"},"HttpHeaders":{"x":1}}"#;
        let mut logins = Logins::parse(text).unwrap();
        assert_eq!((logins.user("a").as_deref(), logins.user("b")), (Some("u"), None));
        assert_eq!((logins.helper("g"), logins.helper("a")), (Some("gcloud"), None));
        logins.add("b/team", "me", "p:w");
        assert_eq!(logins.user("b/team").as_deref(), Some("me"));
        assert!(logins.remove("a") && !logins.remove("a"));
        let read: Value = serde_json::from_slice(&logins.text()).unwrap();
        assert_eq!(read["HttpHeaders"]["x"], 1);
        assert_eq!(read["auths"], json!({ "b/team": { "auth": "bWU6cDp3" } }));
        assert_eq!((logins.clear(), logins.clear()), (1, 0));
        for broken in ["[]", "{", "7"] {
            assert!(Logins::parse(broken).is_err(), "{broken}");
        }
        assert!(Logins::parse(" \n").unwrap().user("a").is_none());
    }
}
