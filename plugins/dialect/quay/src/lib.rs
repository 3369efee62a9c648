//! Quay (quay/quay, `endpoints/api/tag.py`): lists tags with the digests of their manifests.

use dray_plugin_dialect::{As, Dialect, Entry, Error, Kind, Page, ask, export, json};
use serde::Deserialize;

struct Quay;

#[derive(Deserialize)]
struct Tags {
    tags: Vec<Tag>,
    #[serde(default)]
    has_additional: bool,
}

#[derive(Deserialize)]
struct Tag {
    name: String,
    manifest_digest: Option<String>,
    /// Seconds since 1970.
    start_ts: Option<u64>,
    /// Set on tags that are gone or will go.
    end_ts: Option<i64>,
}

impl Dialect for Quay {
    const NAME: &str = "quay";
    const VERSION: &str = env!("CARGO_PKG_VERSION");
    const SUMMARY: &str = "Quay: lists tags in bulk where its API answers without a token";

    fn kind() -> Kind {
        Kind {
            extra: Vec::new(),
            hosts: vec!["quay.io".into()],
            services: Vec::new(),
            lists: true,
            whole: true,
            prepares: false,
            removes: false,
        }
    }

    fn tags(registry: &str, repository: &str, next: Option<&str>) -> Result<Page, Error> {
        let page: u64 = next.and_then(|next| next.parse().ok()).unwrap_or(1);
        let path = format!("/api/v1/repository/{repository}/tag/?onlyActiveTags=true&limit=100&page={page}");
        // Robots and users have no access to the API, which wants an OAuth token of its own.
        let listed: Tags = json(&ask("GET", registry, &path, As::Anybody, &[200])?)?;
        let next = listed.has_additional.then(|| (page + 1).to_string());
        let entries = listed.tags.into_iter().map(|tag| Entry {
            extra: Vec::new(),
            name: tag.name,
            digest: tag.manifest_digest.filter(|_| tag.end_ts.is_none()),
            media_type: None,
            size: None,
            updated: tag.start_ts.map(|seconds| seconds * 1000),
        });
        Ok(Page { entries: entries.collect(), next, behind: None })
    }
}

export!(Quay with_types_in dray_plugin_dialect);
