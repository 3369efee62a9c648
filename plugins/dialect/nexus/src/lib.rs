//! Nexus Repository 3: lists the tags of an image with the checksums of their manifests (REST API, "Search"). The first part of
//! a repository's name is the name of its repository, as where it is reached by paths.

use dray_plugin_dialect::{As, Dialect, Entry, Error, Kind, Page, ask, encoded, export, json};
use serde::Deserialize;

struct Nexus;

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Found {
    items: Vec<Component>,
    continuation_token: Option<String>,
}

/// An image and one of its tags.
#[derive(Deserialize)]
struct Component {
    name: String,
    version: Option<String>,
    #[serde(default)]
    assets: Vec<Asset>,
}

#[derive(Deserialize)]
struct Asset {
    checksum: Option<Checksum>,
}

#[derive(Deserialize)]
struct Checksum {
    sha256: Option<String>,
}

impl Component {
    /// The digest of the manifest. A component with several files does not tell which of them it is.
    fn digest(&self) -> Option<String> {
        match self.assets.as_slice() {
            [Asset { checksum: Some(Checksum { sha256: Some(hash) }) }] => Some(format!("sha256:{hash}")),
            _ => None,
        }
    }
}

impl Dialect for Nexus {
    const NAME: &str = "nexus";
    const VERSION: &str = env!("CARGO_PKG_VERSION");
    const SUMMARY: &str = "Nexus Repository 3: lists tags in bulk by its search";

    fn kind() -> Kind {
        Kind {
            extra: Vec::new(),
            hosts: Vec::new(),
            services: Vec::new(),
            lists: true,
            // A proxy lists only what it has fetched, and the index of the search may be behind.
            whole: false,
            prepares: false,
            removes: false,
        }
    }

    fn tags(registry: &str, repository: &str, next: Option<&str>) -> Result<Page, Error> {
        let (key, image) = repository.split_once('/').ok_or_else(|| {
            Error::NotFound(format!(
                "a repository of Nexus is REPOSITORY/IMAGE, and {repository} has one part"
            ))
        })?;
        let mut path = format!(
            "/service/rest/v1/search?repository={}&format=docker&name={}",
            encoded(key),
            encoded(image)
        );
        if let Some(token) = next {
            path += &format!("&continuationToken={}", encoded(token));
        }
        let found: Found = json(&ask("GET", registry, &path, As::Login(repository), &[200])?)?;
        let entries =
            found.items.into_iter().filter(|component| component.name == image).filter_map(|component| {
                let digest = component.digest();
                Some(Entry {
                    extra: Vec::new(),
                    name: component.version?,
                    digest,
                    media_type: None,
                    size: None,
                    updated: None,
                })
            });
        // The search has an index of its own, which is brought up to date after a push.
        Ok(Page { entries: entries.collect(), next: found.continuation_token, behind: Some(60_000) })
    }
}

export!(Nexus with_types_in dray_plugin_dialect);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_a_single_file_tells_the_digest() {
        let component = |assets: &str| {
            let text = format!(r#"{{"name":"app","version":"1","assets":{assets}}}"#);
            serde_json::from_str::<Component>(&text).unwrap().digest()
        };
        let one = r#"{"checksum":{"sha1":"x","sha256":"ab"}}"#;
        assert_eq!(component(&format!("[{one}]")).as_deref(), Some("sha256:ab"));
        assert_eq!(component(&format!("[{one},{one}]")), None);
        assert_eq!(component(r#"[{"checksum":{"sha1":"x"}}]"#), None);
        assert_eq!(component("[]"), None);
    }
}
