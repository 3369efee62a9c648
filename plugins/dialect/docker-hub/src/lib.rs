//! Docker Hub (docker/docs, `content/reference/api/hub/latest.yaml`): lists tags with their digests and the times of
//! their pushes. Its API is at another host than its registry, and answers for public repositories without a login.

use dray_plugin_dialect::{As, Dialect, Entry, Error, Kind, Page, ask, encoded, export, json, time};
use serde::Deserialize;

/// For how many milliseconds a change may be missing. Docker gives no bound; its answers come through a cache.
const BEHIND: u64 = 300_000;

/// The names of the registry, whose API is at [`API`]. Elsewhere, as in a registry that stands for it, both are at one host.
const HOSTS: [&str; 3] = ["docker.io", "index.docker.io", "registry-1.docker.io"];
const API: &str = "hub.docker.com";

struct DockerHub;

#[derive(Deserialize)]
struct Tags {
    /// The address of the next page.
    next: Option<String>,
    results: Vec<Tag>,
}

#[derive(Deserialize)]
struct Tag {
    name: String,
    /// Old tags have none.
    digest: Option<String>,
    media_type: Option<String>,
    tag_last_pushed: Option<String>,
    last_updated: Option<String>,
}

/// The namespace of a repository and its name. Images of Docker's own are in the namespace `library`.
fn parts(repository: &str) -> Result<(String, String), Error> {
    let (namespace, name) = repository.split_once('/').unwrap_or(("library", repository));
    if name.contains('/') {
        return Err(Error::NotFound(format!(
            "a repository of Docker Hub has two parts, and {repository} has more"
        )));
    }
    Ok((encoded(namespace), encoded(name)))
}

/// The host of a registry's API.
fn host(registry: &str) -> &str {
    if HOSTS.contains(&registry) { API } else { registry }
}

impl Dialect for DockerHub {
    const NAME: &str = "docker-hub";
    const VERSION: &str = env!("CARGO_PKG_VERSION");
    const SUMMARY: &str = "Docker Hub: lists tags in bulk, removes single tags";

    fn kind() -> Kind {
        Kind {
            extra: Vec::new(),
            hosts: HOSTS.map(str::to_owned).to_vec(),
            services: Vec::new(),
            lists: true,
            whole: true,
            prepares: false,
            removes: true,
        }
    }

    fn tags(registry: &str, repository: &str, next: Option<&str>) -> Result<Page, Error> {
        let page: u64 = next.and_then(|next| next.parse().ok()).unwrap_or(1);
        let (namespace, name) = parts(repository)?;
        let path = format!("/v2/namespaces/{namespace}/repositories/{name}/tags?page_size=100&page={page}");
        // Without the auth provider `docker-hub`, public repositories can be listed nevertheless.
        let response = match ask("GET", host(registry), &path, As::Signed(repository), &[200]) {
            Err(Error::Unauthorized(_)) => ask("GET", host(registry), &path, As::Anybody, &[200])?,
            other => other?,
        };
        let listed: Tags = json(&response)?;
        let next = listed.next.is_some().then(|| (page + 1).to_string());
        let entries = listed.results.into_iter().map(|tag| Entry {
            extra: Vec::new(),
            name: tag.name,
            digest: tag.digest.filter(|digest| !digest.is_empty()),
            media_type: tag.media_type,
            // What Docker calls the size is that of the whole image.
            size: None,
            updated: tag.tag_last_pushed.or(tag.last_updated).as_deref().and_then(time),
        });
        Ok(Page { entries: entries.collect(), next, behind: Some(BEHIND) })
    }

    fn remove_tag(registry: &str, repository: &str, tag: &str) -> Result<(), Error> {
        let (namespace, name) = parts(repository)?;
        let path = format!("/v2/repositories/{namespace}/{name}/tags/{}/", encoded(tag));
        match ask("DELETE", host(registry), &path, As::Signed(repository), &[204, 404])?.status {
            204 => Ok(()),
            _ => Err(Error::NotFound(format!("there is no tag {tag} in {repository}"))),
        }
    }
}

export!(DockerHub with_types_in dray_plugin_dialect);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn images_of_docker_s_own_are_in_a_namespace() {
        assert_eq!(parts("nginx").unwrap(), ("library".into(), "nginx".into()));
        assert_eq!(parts("team/a.b").unwrap(), ("team".into(), "a.b".into()));
        assert!(parts("a/b/c").is_err());
    }
}
