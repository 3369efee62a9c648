//! One auth.json or config.json file.

use super::*;
use std::collections::BTreeMap;

/// The programs that write these files are written in Go, which reads `null` as an empty value.
#[derive(Default, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct File {
    #[serde(default, deserialize_with = "or_default")]
    auths: BTreeMap<String, Auth>,
    #[serde(default, deserialize_with = "or_default")]
    cred_helpers: BTreeMap<String, String>,
    #[serde(default)]
    pub creds_store: Option<String>,
}

fn or_default<'de, T, D>(value: D) -> Result<BTreeMap<String, T>, D::Error>
where
    T: Default + Deserialize<'de>,
    D: serde::Deserializer<'de>,
{
    let read: Option<BTreeMap<String, Option<T>>> = Option::deserialize(value)?;
    Ok(read.into_iter().flatten().map(|(key, value)| (key, value.unwrap_or_default())).collect())
}

#[derive(Default, Deserialize)]
#[serde(rename_all = "lowercase")]
struct Auth {
    auth: Option<String>,
    username: Option<String>,
    password: Option<String>,
    identitytoken: Option<String>,
    registrytoken: Option<String>,
}

#[derive(Debug, PartialEq)]
pub struct Entry {
    pub secret: Secret,
    /// The prefix of the repositories that the entry serves. `None` means the whole registry.
    pub covers: Option<String>,
}

/// The name under which credentials are stored. Those of Docker Hub are stored under its old address.
pub fn server(registry: &str) -> &str {
    if registry == "docker.io" { "https://index.docker.io/v1/" } else { registry }
}

/// The host of a key, which is what Docker compares: `https://index.docker.io/v1/` has `index.docker.io`.
fn host(key: &str) -> &str {
    let key = key.strip_prefix("https://").or(key.strip_prefix("http://")).unwrap_or(key);
    key.split('/').next().unwrap_or(key)
}

impl File {
    /// Reads a file. The old `.dockercfg` consists of the `auths` table alone.
    pub fn parse(content: &str) -> Result<Self, String> {
        // `touch` makes such a file, and so does podman before it writes anything.
        if content.trim().is_empty() || content.trim() == "null" {
            return Ok(File::default());
        }
        let value: serde_json::Value = serde_json::from_str(content).map_err(|error| error.to_string())?;
        let modern = ["auths", "credHelpers", "credsStore"].iter().any(|key| value.get(key).is_some());
        let old = value.as_object().is_some_and(|object| {
            !object.is_empty() && object.values().all(|entry| entry.get("auth").is_some())
        });
        if !modern && old {
            let auths = serde_json::from_value(value).map_err(|error| error.to_string())?;
            return Ok(File { auths, cred_helpers: BTreeMap::new(), creds_store: None });
        }
        serde_json::from_value(value).map_err(|error| error.to_string())
    }

    pub fn helper(&self, registry: &str) -> Option<&str> {
        let named = self
            .cred_helpers
            .iter()
            .find(|(key, _)| host(key) == host(server(registry)) || key.as_str() == registry);
        named.map(|(_, helper)| helper.as_str()).filter(|helper| !helper.is_empty())
    }

    /// Looks for the key of the repository, then for those of its namespaces, then for that of the registry,
    /// and last for that of the registry as Docker writes it.
    pub fn entry(&self, registry: &str, repository: &str) -> Result<Option<Entry>, String> {
        // If the file has narrower keys below this one, the entry is valid for this repository alone.
        let covers = |scope: &str| {
            let below =
                if scope.is_empty() { format!("{registry}/") } else { format!("{registry}/{scope}/") };
            match self.auths.keys().any(|key| key.starts_with(&below)) {
                true => Some(repository.to_owned()),
                false => Some(scope.to_owned()).filter(|scope| !scope.is_empty()),
            }
        };
        let mut scope = repository;
        while !scope.is_empty() {
            if let Some(secret) = self.secret(&format!("{registry}/{scope}"))? {
                return Ok(Some(Entry { secret, covers: covers(scope) }));
            }
            scope = scope.rfind('/').map_or("", |slash| &scope[..slash]);
        }
        let covers = covers("");
        if let Some(secret) = self.secret(registry)? {
            return Ok(Some(Entry { secret, covers }));
        }
        for key in self
            .auths
            .keys()
            .filter(|key| host(key) == host(server(registry)) && (key.contains("://") || !key.contains('/')))
        {
            if let Some(secret) = self.secret(key)? {
                return Ok(Some(Entry { secret, covers }));
            }
        }
        Ok(None)
    }

    fn secret(&self, key: &str) -> Result<Option<Secret>, String> {
        let Some(auth) = self.auths.get(key) else { return Ok(None) };
        let filled = |text: &Option<String>| text.clone().filter(|text| !text.is_empty());
        if let Some(token) = filled(&auth.identitytoken) {
            return Ok(Some(Secret::IdentityToken(token)));
        }
        if let Some(token) = filled(&auth.registrytoken) {
            return Ok(Some(Secret::Bearer(token)));
        }
        if let Some(encoded) = filled(&auth.auth) {
            let broken = || format!("the entry of {key} is not base64 of USER:PASSWORD");
            let decoded =
                decode(&encoded).and_then(|bytes| String::from_utf8(bytes).ok()).ok_or_else(broken)?;
            let (user, password) = decoded.split_once(':').ok_or_else(broken)?;
            return Ok(Some(Secret::Basic((user.into(), password.trim_end_matches('\0').into()))));
        }
        if let (Some(user), Some(password)) = (filled(&auth.username), filled(&auth.password)) {
            return Ok(Some(Secret::Basic((user, password))));
        }
        // `{}` means that a credential store keeps the credential.
        Ok(None)
    }
}

/// Decodes Base64 (RFC 4648, 4). Padding is optional.
fn decode(text: &str) -> Option<Vec<u8>> {
    let (mut bytes, mut buffer, mut bits) = (Vec::new(), 0u32, 0);
    // The program `base64` breaks lines, so white space is removed.
    let text: String = text.split_ascii_whitespace().collect();
    for character in text.trim_end_matches('=').bytes() {
        let value = match character {
            b'A'..=b'Z' => character - b'A',
            b'a'..=b'z' => character - b'a' + 26,
            b'0'..=b'9' => character - b'0' + 52,
            b'+' => 62,
            b'/' => 63,
            _ => return None,
        };
        buffer = buffer << 6 | u32::from(value);
        bits += 6;
        if bits >= 8 {
            bits -= 8;
            bytes.push((buffer >> bits) as u8);
            buffer &= (1 << bits) - 1;
        }
    }
    Some(bytes)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn user(file: &File, registry: &str, repository: &str) -> Option<(String, Option<String>)> {
        match file.entry(registry, repository).unwrap()? {
            Entry { secret: Secret::Basic((user, _)), covers } => Some((user, covers)),
            entry => panic!("{entry:?}"),
        }
    }

    #[test]
    fn the_narrowest_key_wins() {
        // The values are base64 of a:p, b:p and c:p.
        let file = File::parse(r#"{"auths":{"r.example":{"auth":"YTpw"},"r.example/team":{"auth":"Yjpw"},"r.example/team/app":{"auth":"Yzpw"}}}"#).unwrap();
        assert_eq!(user(&file, "r.example", "team/app"), Some(("c".into(), Some("team/app".into()))));
        assert_eq!(user(&file, "r.example", "team/other"), Some(("b".into(), Some("team/other".into()))));
        assert_eq!(user(&file, "r.example", "teams"), Some(("a".into(), Some("teams".into()))));
        assert_eq!(user(&file, "other.example", "x"), None);
    }

    #[test]
    fn docker_hub_lies_under_its_old_address() {
        let file = File::parse(r#"{"auths":{"https://index.docker.io/v1/":{"auth":"YTpwOnE="}}}"#).unwrap();
        assert_eq!(
            file.entry("docker.io", "library/x").unwrap().unwrap().secret,
            Secret::Basic(("a".into(), "p:q".into()))
        );
    }

    #[test]
    fn tokens_helpers_and_the_old_file() {
        let file = File::parse(r#"{"auths":{"a":{"identitytoken":"t"},"b":{"registrytoken":"u"},"c":{}},"credHelpers":{"d.example":"pass"},"credsStore":"secretservice"}"#).unwrap();
        assert_eq!(file.entry("a", "x").unwrap().unwrap().secret, Secret::IdentityToken("t".into()));
        assert_eq!(file.entry("b", "x").unwrap().unwrap().secret, Secret::Bearer("u".into()));
        assert_eq!(file.entry("c", "x").unwrap(), None);
        assert_eq!((file.helper("d.example"), file.helper("c")), (Some("pass"), None));
        let old = File::parse(r#"{"r.example":{"auth":"YTpw"}}"#).unwrap();
        assert_eq!(user(&old, "r.example", "x").unwrap().0, "a");
        assert!(File::parse("{").is_err());
        for empty in ["", " \n", "null", "{}", r#"{"auths":null,"credHelpers":null,"credsStore":null}"#] {
            assert_eq!(File::parse(empty).unwrap().entry("r", "x").unwrap(), None, "{empty:?}");
        }
        let broken = File::parse("{\"auths\":{\"r\":{\"auth\":\"YT\\npw\\n\"},\"s\":null}}").unwrap();
        assert_eq!(user(&broken, "r", "x").unwrap().0, "a");
        assert_eq!(broken.entry("s", "x").unwrap(), None);
        assert!(File::parse(r#"{"auths":{"r":{"auth":"!!"}}}"#).unwrap().entry("r", "x").is_err());
    }
}
