//! Azure Container Registry (Azure/azure-rest-api-specs, `containerregistry.json` of 2021-07-01): lists tags with digests, and
//! removes single tags.

use dray_plugin_dialect::{
    As, Dialect, Entry, Error, Kind, Page, UntaggedManifest, UntaggedPage, ask, encoded, export, json,
    next_link, time,
};
use serde::Deserialize;

struct Acr;

#[derive(Deserialize)]
struct Tags {
    tags: Option<Vec<Tag>>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Tag {
    name: String,
    digest: Option<String>,
    last_update_time: Option<String>,
}

impl Dialect for Acr {
    const NAME: &str = "acr";
    const VERSION: &str = env!("CARGO_PKG_VERSION");
    const SUMMARY: &str = "Azure Container Registry: lists tags in bulk, removes single tags";

    fn kind() -> Kind {
        Kind {
            extra: Vec::new(),
            hosts: vec!["*.azurecr.io".into(), "*.azurecr.cn".into(), "*.azurecr.us".into()],
            services: Vec::new(),
            lists: true,
            whole: true,
            prepares: false,
            removes: true,
        }
    }

    fn tags(registry: &str, repository: &str, next: Option<&str>) -> Result<Page, Error> {
        let first = || format!("/acr/v1/{repository}/_tags?n=100");
        let path = next.map_or_else(first, str::to_owned);
        let response = ask("GET", registry, &path, As::Token(repository, "metadata_read"), &[200])?;
        let listed: Tags = json(&response)?;
        let entries = listed.tags.unwrap_or_default().into_iter().map(|tag| Entry {
            extra: Vec::new(),
            name: tag.name,
            digest: tag.digest,
            media_type: None,
            size: None,
            updated: tag.last_update_time.as_deref().and_then(time),
        });
        Ok(Page { entries: entries.collect(), next: next_link(&response), behind: None })
    }

    fn untagged(registry: &str, repository: &str, next: Option<&str>) -> Result<UntaggedPage, Error> {
        #[derive(Deserialize)]
        struct Manifests {
            manifests: Option<Vec<Manifest>>,
        }
        #[derive(Deserialize)]
        #[serde(rename_all = "camelCase")]
        struct Manifest {
            digest: String,
            #[serde(default)]
            tags: Option<Vec<String>>,
            last_update_time: Option<String>,
        }
        let first = || format!("/acr/v1/{repository}/_manifests?n=100");
        let path = next.map_or_else(first, str::to_owned);
        let response = ask("GET", registry, &path, As::Token(repository, "metadata_read"), &[200])?;
        let listed: Manifests = json(&response)?;
        let bare = |manifest: &Manifest| manifest.tags.as_ref().is_none_or(Vec::is_empty);
        let entries = listed.manifests.unwrap_or_default().into_iter().filter(bare).map(|manifest| {
            let pushed = manifest.last_update_time.as_deref().and_then(time);
            UntaggedManifest { digest: manifest.digest, pushed }
        });
        Ok(UntaggedPage { entries: entries.collect(), next: next_link(&response) })
    }

    fn remove_tag(registry: &str, repository: &str, tag: &str) -> Result<(), Error> {
        let path = format!("/acr/v1/{repository}/_tags/{}", encoded(tag));
        match ask("DELETE", registry, &path, As::Token(repository, "delete"), &[202, 404])?.status {
            202 => Ok(()),
            _ => Err(Error::NotFound(format!("there is no tag {tag} in {repository}"))),
        }
    }
}

export!(Acr with_types_in dray_plugin_dialect);
