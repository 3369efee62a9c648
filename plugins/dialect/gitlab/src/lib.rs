//! GitLab's registry with its metadata database (container-registry, `docs/spec/gitlab/api.md`): lists tags with digests.

use dray_plugin_dialect::{As, Dialect, Entry, Error, Kind, Page, ask, export, json, next_link, time};
use serde::Deserialize;

/// For how many milliseconds a change may be missing, because replicas of the database answer. GitLab gives no bound; a
/// replica that is further behind than a minute is taken out of use (its database load balancing documentation).
const BEHIND: u64 = 60_000;

struct GitLab;

#[derive(Deserialize)]
struct Tag {
    name: String,
    digest: Option<String>,
    media_type: Option<String>,
    updated_at: Option<String>,
    created_at: Option<String>,
}

impl Dialect for GitLab {
    const NAME: &str = "gitlab";
    const VERSION: &str = env!("CARGO_PKG_VERSION");
    const SUMMARY: &str = "GitLab's registry with a metadata database: lists tags in bulk";

    fn kind() -> Kind {
        Kind {
            extra: Vec::new(),
            hosts: vec!["registry.gitlab.com".into()],
            services: vec!["container_registry".into()],
            lists: true,
            whole: true,
            prepares: false,
            removes: false,
        }
    }

    fn tags(registry: &str, repository: &str, next: Option<&str>) -> Result<Page, Error> {
        let first = || format!("/gitlab/v1/repositories/{repository}/tags/list/?n=1000");
        let path = next.map_or_else(first, str::to_owned);
        let response = ask("GET", registry, &path, As::Token(repository, "pull"), &[200])?;
        let listed: Vec<Tag> = json(&response)?;
        let entries = listed.into_iter().map(|tag| Entry {
            extra: Vec::new(),
            name: tag.name,
            digest: tag.digest,
            media_type: tag.media_type,
            // What the list calls the size is that of the whole image.
            size: None,
            updated: tag.updated_at.or(tag.created_at).as_deref().and_then(time),
        });
        Ok(Page { entries: entries.collect(), next: next_link(&response), behind: Some(BEHIND) })
    }
}

export!(GitLab with_types_in dray_plugin_dialect);
