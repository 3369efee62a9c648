//! Huawei's registries (Software Repository for Container, API v2): lists tags in bulk, and makes organizations. Its API is at
//! another host, and wants signed requests, so the auth provider `huawei-swr` must be named. Whether deleting a tag leaves other
//! tags of an image alone is not known, so tags are deleted as the specification says.

use dray_plugin_dialect::{
    As, Dialect, Entry, Error, Kind, Page, ask_with, encoded, export, json, post, time,
};
use serde::Deserialize;
use serde_json::json;

/// The most tags that the API gives at once.
const PAGE: usize = 1000;

struct HuaweiSwr;

#[derive(Deserialize)]
struct Tag {
    #[serde(rename = "Tag", alias = "tag")]
    name: String,
    digest: Option<String>,
    updated: Option<String>,
}

/// The host of a registry's API. A registry of another name stands for both.
fn api(registry: &str) -> String {
    let is_theirs = registry.ends_with(".myhuaweicloud.com") || registry.ends_with(".myhuaweicloud.eu");
    match registry.strip_prefix("swr.").filter(|_| is_theirs) {
        Some(rest) => format!("swr-api.{rest}"),
        None => registry.to_owned(),
    }
}

/// The organization of a repository, and the rest of its name, in which the API writes a slash as a dollar sign.
fn parts(repository: &str) -> Result<(String, String), Error> {
    let (namespace, name) = repository.split_once('/').ok_or_else(|| {
        Error::Invalid(format!(
            "Huawei's repositories are ORGANIZATION/NAME, and `{repository}` has one part"
        ))
    })?;
    Ok((encoded(namespace), encoded(&name.replace('/', "$"))))
}

fn headers() -> [(String, String); 1] {
    [("content-type".into(), "application/json".into())]
}

impl Dialect for HuaweiSwr {
    const NAME: &str = "huawei-swr";
    const VERSION: &str = env!("CARGO_PKG_VERSION");
    const SUMMARY: &str = "Huawei's registries: lists in bulk, makes organizations";

    fn kind() -> Kind {
        Kind {
            extra: Vec::new(),
            hosts: vec!["swr.*.myhuaweicloud.com".into(), "swr.*.myhuaweicloud.eu".into()],
            services: Vec::new(),
            lists: true,
            whole: false,
            prepares: true,
            removes: false,
        }
    }

    fn tags(registry: &str, repository: &str, next: Option<&str>) -> Result<Page, Error> {
        let (namespace, name) = parts(repository)?;
        let offset: usize = next.and_then(|next| next.parse().ok()).unwrap_or(0);
        // The query is sorted, because it is signed as it stands.
        let path =
            format!("/v2/manage/namespaces/{namespace}/repos/{name}/tags?limit={PAGE}&offset={offset}");
        let response = ask_with("GET", &api(registry), &path, As::Signed(repository), &[200], &headers())?;
        let tags: Vec<Tag> = json(&response)?;
        let next = (tags.len() == PAGE).then(|| (offset + PAGE).to_string());
        let entries = tags.into_iter().map(|tag| Entry {
            extra: Vec::new(),
            name: tag.name,
            digest: tag.digest,
            media_type: None,
            size: None,
            updated: tag.updated.as_deref().and_then(time),
        });
        Ok(Page { entries: entries.collect(), next, behind: None })
    }

    fn prepare(registry: &str, repository: &str) -> Result<String, Error> {
        let namespace = repository.split('/').next().unwrap_or_default();
        let (encoded, _) = parts(repository)?;
        let host = api(registry);
        let path = format!("/v2/manage/namespaces/{encoded}");
        let looked = ask_with("GET", &host, &path, As::Signed(repository), &[200, 403, 404], &headers())?;
        if looked.status == 200 {
            return Ok(format!("{namespace}/"));
        }
        let body = json!({ "namespace": namespace });
        post(&host, "/v2/manage/namespaces", As::Signed(repository), &body, &[200, 201, 409])?;
        Ok(format!("{namespace}/"))
    }
}

export!(HuaweiSwr with_types_in dray_plugin_dialect);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_api_is_at_another_host_and_has_its_own_slash() {
        assert_eq!(api("swr.cn-north-4.myhuaweicloud.com"), "swr-api.cn-north-4.myhuaweicloud.com");
        assert_eq!(api("swr.example.com"), "swr.example.com");
        assert_eq!(parts("team/a/b").unwrap(), ("team".into(), "a%24b".into()));
        assert!(parts("alone").is_err());
    }
}
