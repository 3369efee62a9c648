//! zot (project-zot/zot, `pkg/extensions/search/schema.graphql`): its search extension lists images with digests and media
//! types.

use dray_plugin_dialect::{As, Dialect, Entry, Error, Kind, Page, ask, encoded, export, json};
use serde::Deserialize;

/// Images in an answer.
const PAGE: usize = 1000;

struct Zot;

#[derive(Deserialize)]
struct Answer {
    data: Option<Data>,
}

#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
struct Data {
    image_list: Option<ImageList>,
}

#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
struct ImageList {
    results: Vec<Image>,
}

#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
struct Image {
    tag: Option<String>,
    digest: Option<String>,
    media_type: Option<String>,
}

impl Dialect for Zot {
    const NAME: &str = "zot";
    const VERSION: &str = env!("CARGO_PKG_VERSION");
    const SUMMARY: &str = "zot with its search extension: lists tags in bulk";

    fn kind() -> Kind {
        Kind {
            extra: Vec::new(),
            hosts: Vec::new(),
            services: vec!["zot".into()],
            lists: true,
            // Signatures are hidden.
            whole: false,
            prepares: false,
            removes: false,
        }
    }

    fn tags(registry: &str, repository: &str, next: Option<&str>) -> Result<Page, Error> {
        let offset: usize = next.and_then(|next| next.parse().ok()).unwrap_or(0);
        // The grammar of repositories knows no quotes, so the name needs no escapes.
        let query = format!(
            "{{ImageList(repo:\"{repository}\",requestedPage:{{limit:{PAGE},offset:{offset},sortBy:ALPHABETIC_ASC}}){{Results{{Tag Digest MediaType}}}}}}"
        );
        let path = format!("/v2/_zot/ext/search?query={}", encoded(&query));
        let answer: Answer = json(&ask("GET", registry, &path, As::Token(repository, "pull"), &[200])?)?;
        let images = answer.data.and_then(|data| data.image_list);
        let images =
            images.ok_or_else(|| Error::Unsupported("its search extension gave no list".into()))?.results;
        let next = (images.len() == PAGE).then(|| (offset + PAGE).to_string());
        let entries = images.into_iter().filter_map(|image| {
            Some(Entry {
                extra: Vec::new(),
                name: image.tag.filter(|tag| !tag.is_empty())?,
                digest: image.digest,
                media_type: image.media_type.filter(|media_type| !media_type.is_empty()),
                size: None,
                updated: None,
            })
        });
        Ok(Page { entries: entries.collect(), next, behind: None })
    }
}

export!(Zot with_types_in dray_plugin_dialect);
