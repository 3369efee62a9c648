//! Artifactory: lists the manifests of an image with their checksums by its query language (AQL, JFrog's documentation). The
//! first part of a repository's name is the key of its repository, as where it is reached by paths.

use dray_plugin_dialect::{As, Dialect, Entry, Error, Kind, Page, export, json, query, time};
use serde::Deserialize;
use serde_json::json;

/// How many manifests are asked for at once.
const PAGE: usize = 1000;

struct Artifactory;

#[derive(Deserialize)]
struct Found {
    results: Vec<Item>,
}

#[derive(Deserialize)]
struct Item {
    /// The image and the tag, with a slash between them.
    path: String,
    name: String,
    modified: Option<String>,
    sha256: Option<String>,
}

/// What is asked: the manifests of an image, and its indexes, in the order of their paths. Who is no administrator must ask for
/// `repo`, `path` and `name` ("Users without admin privileges").
fn asked(key: &str, image: &str, offset: usize) -> String {
    let find = json!({
        "repo": key,
        "path": { "$match": format!("{image}/*") },
        "$or": [{ "name": "manifest.json" }, { "name": "list.manifest.json" }],
    });
    format!(
        "items.find({find}).include(\"repo\",\"path\",\"name\",\"modified\",\"sha256\").sort({{\"$asc\":[\"path\",\"name\"]}}).offset({offset}).limit({PAGE})"
    )
}

/// The tag of an item. `None` means that it is of another image, or of none: manifests without a tag lie beneath their digests.
fn tag<'a>(path: &'a str, image: &str) -> Option<&'a str> {
    let tag = path.strip_prefix(image)?.strip_prefix('/')?;
    (!tag.contains('/') && !tag.starts_with("sha256:") && !tag.starts_with("sha256__")).then_some(tag)
}

impl Dialect for Artifactory {
    const NAME: &str = "artifactory";
    const VERSION: &str = env!("CARGO_PKG_VERSION");
    const SUMMARY: &str = "Artifactory: lists manifests in bulk by its query language";

    fn kind() -> Kind {
        Kind {
            extra: Vec::new(),
            hosts: vec!["*.jfrog.io".into()],
            services: Vec::new(),
            lists: true,
            // A remote repository lists only what it has fetched, and a virtual one is none to the query language.
            whole: false,
            prepares: false,
            removes: false,
        }
    }

    fn tags(registry: &str, repository: &str, next: Option<&str>) -> Result<Page, Error> {
        let offset: usize = next.and_then(|next| next.parse().ok()).unwrap_or(0);
        let (key, image) = repository.split_once('/').ok_or_else(|| {
            Error::NotFound(format!("a repository of Artifactory is KEY/IMAGE, and {repository} has no key"))
        })?;
        let text = asked(key, image, offset);
        let response = query(registry, "/artifactory/api/search/aql", As::Login(repository), &text, &[200])?;
        let found: Found = json(&response)?;
        let next = (found.results.len() == PAGE).then(|| (offset + PAGE).to_string());
        let mut entries: Vec<Entry> = Vec::new();
        for item in found.results {
            let Some(name) = tag(&item.path, image) else { continue };
            let entry = Entry {
                extra: Vec::new(),
                name: name.to_owned(),
                digest: item.sha256.map(|hash| format!("sha256:{hash}")),
                media_type: None,
                size: None,
                updated: item.modified.as_deref().and_then(time),
            };
            // A tag that names an index has a file of that name, which counts.
            match entries.iter_mut().find(|known| known.name == entry.name) {
                Some(known) if item.name == "list.manifest.json" => *known = entry,
                Some(_) => {}
                None => entries.push(entry),
            }
        }
        Ok(Page { entries, next, behind: None })
    }
}

export!(Artifactory with_types_in dray_plugin_dialect);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tags_are_the_last_part_of_a_path() {
        assert_eq!(tag("team/app/1.0", "team/app"), Some("1.0"));
        assert_eq!(tag("team/app/sub/1.0", "team/app"), None);
        assert_eq!(tag("team/app2/1.0", "team/app"), None);
        assert_eq!(tag("team/app/sha256__ab", "team/app"), None);
    }

    #[test]
    fn a_name_cannot_leave_its_text() {
        let asked = asked("docker", "a\"})", 0);
        assert!(asked.contains(r#"a\"})/*"#), "{asked}");
    }
}
