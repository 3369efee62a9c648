//! GitHub's registry: lists the versions of a package with their tags (REST API, "Packages"). Its API is at another host, which
//! takes the registry's login: a token with `read:packages`.

use dray_plugin_dialect::{As, Dialect, Entry, Error, Kind, Page, ask, encoded, export, json, time};
use serde::Deserialize;

/// The most versions that GitHub gives at once.
const PAGE: usize = 100;

struct Ghcr;

#[derive(Deserialize)]
struct Version {
    /// The digest of the manifest.
    name: String,
    updated_at: Option<String>,
    metadata: Option<Metadata>,
}

#[derive(Deserialize)]
struct Metadata {
    container: Option<Container>,
}

#[derive(Deserialize)]
struct Container {
    #[serde(default)]
    tags: Vec<String>,
}

/// Where the versions of a package are listed. `owners` is `orgs` or `users`.
fn path(owners: &str, repository: &str, page: usize) -> Result<String, Error> {
    let (owner, package) = repository.split_once('/').ok_or_else(|| {
        Error::NotFound(format!("a repository of GitHub is OWNER/PACKAGE, and {repository} has no owner"))
    })?;
    let (owner, package) = (encoded(owner), encoded(package));
    Ok(format!(
        "/{owners}/{owner}/packages/container/{package}/versions?per_page={PAGE}&page={page}&state=active"
    ))
}

impl Dialect for Ghcr {
    const NAME: &str = "ghcr";
    const VERSION: &str = env!("CARGO_PKG_VERSION");
    const SUMMARY: &str = "GitHub's registry: lists versions in bulk for who has read:packages";

    fn kind() -> Kind {
        Kind {
            extra: Vec::new(),
            hosts: vec!["ghcr.io".into()],
            services: Vec::new(),
            lists: true,
            whole: true,
            prepares: false,
            removes: false,
        }
    }

    fn tags(registry: &str, repository: &str, next: Option<&str>) -> Result<Page, Error> {
        let host = if registry == "ghcr.io" { "api.github.com" } else { registry };
        // What a page after the first continues: whose package it is, and the number of the page.
        let (owners, page) = next.and_then(|next| next.split_once(' ')).unwrap_or(("orgs", "1"));
        let page: usize = page.parse().unwrap_or(1);
        let by = As::Login(repository);
        let mut owners = owners;
        let mut response = ask("GET", host, &path(owners, repository, page)?, by, &[200, 404])?;
        if response.status == 404 && next.is_none() {
            owners = "users";
            response = ask("GET", host, &path(owners, repository, page)?, by, &[200, 404])?;
        }
        if response.status == 404 {
            return Err(Error::NotFound(format!("GitHub shows no package {repository} to this login")));
        }
        let versions: Vec<Version> = json(&response)?;
        let next = (versions.len() == PAGE).then(|| format!("{owners} {}", page + 1));
        let mut entries = Vec::new();
        for version in versions {
            let tags =
                version.metadata.and_then(|metadata| metadata.container).map(|container| container.tags);
            let updated = version.updated_at.as_deref().and_then(time);
            for tag in tags.unwrap_or_default() {
                let digest = Some(version.name.clone());
                entries.push(Entry {
                    extra: Vec::new(),
                    name: tag,
                    digest,
                    media_type: None,
                    size: None,
                    updated,
                });
            }
        }
        Ok(Page { entries, next, behind: None })
    }
}

export!(Ghcr with_types_in dray_plugin_dialect);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_slash_in_a_package_is_encoded() {
        assert_eq!(
            path("orgs", "team/a/b", 2).unwrap(),
            "/orgs/team/packages/container/a%2Fb/versions?per_page=100&page=2&state=active"
        );
        assert!(path("orgs", "alone", 1).is_err());
    }
}
