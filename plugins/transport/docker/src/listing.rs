//! Lists of tags (4.5). Some registries add what the tags name: those of Google, with a map from digests to tags, and the
//! registry of dray, which does the same (go-containerregistry, `pkg/v1/google/list.go`).

use super::*;
use dray_plugin_transport::{
    dray::plugin::types::{TagEntry, TagPage},
    exports::dray::plugin::listing,
    only_name,
};
use std::collections::HashMap;

#[derive(Deserialize)]
struct Tags {
    tags: Option<Vec<Option<String>>>,
    manifest: Option<HashMap<String, Named>>,
}

/// A manifest in the map of a list. Numbers are decimal texts.
#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Named {
    #[serde(default)]
    tag: Vec<String>,
    media_type: Option<String>,
    time_uploaded_ms: Option<String>,
}

/// A page of the tags of a repository.
pub fn tags(location: &str, repository: &str, next: Option<String>) -> Result<TagPage, Error> {
    let path = to(location, &format!("{repository}/tags/list"));
    let response = page(&path, next, &[wire::pull(repository)])?;
    let listed: Tags = wire::json(&response)?;
    let manifests = listed.manifest.unwrap_or_default();
    let mut named: HashMap<&str, (&str, &Named)> = HashMap::new();
    for (digest, manifest) in manifests.iter().filter(|(digest, _)| name::is_digest(digest)) {
        named.extend(manifest.tag.iter().map(|tag| (tag.as_str(), (digest.as_str(), manifest))));
    }
    // The host reports names that are not valid, and leaves them out.
    let names = listed.tags.into_iter().flatten().map(Option::unwrap_or_default);
    let entries = names.map(|tag| match named.get(tag.as_str()) {
        None => only_name(tag),
        Some((digest, manifest)) => TagEntry {
            extra: Vec::new(),
            digest: Some((*digest).into()),
            // What the map calls the size is that of the whole image.
            size: None,
            media_type: manifest.media_type.clone().filter(|media_type| !media_type.is_empty()),
            updated: manifest.time_uploaded_ms.as_ref().and_then(|time| time.parse().ok()),
            name: tag,
        },
    });
    Ok(TagPage { entries: entries.collect(), next: next_page(&response)?, behind: None })
}

impl listing::Guest for Docker {
    fn tags(location: String, repository: String, next: Option<String>) -> Result<TagPage, Error> {
        tags(&location, &repository, next)
    }
}
