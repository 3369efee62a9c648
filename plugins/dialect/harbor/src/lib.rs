//! Harbor (goharbor/harbor, `api/v2.0/swagger.yaml`): lists artifacts with their tags, makes projects, and removes single
//! tags, which its `/v2/` refuses.

use dray_plugin_dialect::{
    As, Dialect, Entry, Error, Kind, KnownPage, KnownTag, Page, ScanReport, UntaggedManifest, UntaggedPage,
    ask, ask_with, encoded, export, json, post, time,
};
use serde::Deserialize;
use serde_json::json;
use std::collections::BTreeMap;

/// The most artifacts that Harbor gives at once.
const PAGE: usize = 100;

struct Harbor;

#[derive(Deserialize)]
struct Artifact {
    digest: String,
    manifest_media_type: Option<String>,
    push_time: Option<String>,
    /// `null` means that it has none.
    tags: Option<Vec<Tag>>,
    labels: Option<Vec<Label>>,
    accessories: Option<Vec<Accessory>>,
    /// By the media type of the report.
    scan_overview: Option<BTreeMap<String, Overview>>,
}

/// A label that people gave an artifact.
#[derive(Deserialize)]
struct Label {
    name: String,
}

/// What is attached to an artifact.
#[derive(Deserialize)]
struct Accessory {
    r#type: String,
}

#[derive(Deserialize)]
struct Overview {
    severity: Option<String>,
    scan_status: Option<String>,
}

/// The media types of reports that Harbor gives, the better one first (`X-Accept-Vulnerabilities` of its API).
const REPORTS: &str = "application/vnd.security.vulnerability.report; version=1.1, \
                       application/vnd.scanner.adapter.vuln.report.harbor+json; version=1.0";

/// Severities in Harbor's order (`src/pkg/scan/vuln/severity.go`).
const SEVERITIES: [&str; 7] = ["none", "unknown", "negligible", "low", "medium", "high", "critical"];
/// The place of what is not understood among them.
const UNKNOWN: usize = 1;

/// The worst severity that a finished scan found, in the words of the contract.
fn severity(overview: &BTreeMap<String, Overview>) -> Option<String> {
    let done = overview.values().filter(|one| one.scan_status.as_deref() == Some("Success"));
    let words = done.map(|one| one.severity.as_deref().unwrap_or("Unknown").to_ascii_lowercase());
    words.max_by_key(|word| SEVERITIES.iter().position(|known| known == word).unwrap_or(UNKNOWN))
}

/// The header that names the wanted media types of reports.
fn accept() -> [(String, String); 1] {
    [("x-accept-vulnerabilities".into(), REPORTS.into())]
}

#[derive(Deserialize)]
struct Tag {
    name: String,
    push_time: Option<String>,
}

/// The project of a repository, and the rest of its name.
fn project(repository: &str) -> Result<(&str, &str), Error> {
    repository.split_once('/').ok_or_else(|| {
        Error::Invalid(format!(
            "Harbor's repositories are in projects, and `{repository}` names none: PROJECT/{repository}"
        ))
    })
}

/// The path of a repository. A slash in its name is encoded twice.
fn path(repository: &str) -> Result<String, Error> {
    let (project, name) = project(repository)?;
    Ok(format!("/api/v2.0/projects/{}/repositories/{}", encoded(project), encoded(&encoded(name))))
}

impl Dialect for Harbor {
    const NAME: &str = "harbor";
    const VERSION: &str = env!("CARGO_PKG_VERSION");
    const SUMMARY: &str = "Harbor 2: lists tags in bulk, makes projects, removes single tags";

    fn kind() -> Kind {
        Kind {
            extra: Vec::new(),
            hosts: Vec::new(),
            services: vec!["harbor-registry".into()],
            lists: true,
            // Signatures are hidden, and a proxy project lists only what it has fetched.
            whole: false,
            prepares: true,
            removes: true,
        }
    }

    fn tags(registry: &str, repository: &str, next: Option<&str>) -> Result<Page, Error> {
        let page: usize = next.and_then(|next| next.parse().ok()).unwrap_or(1);
        let query = format!("with_tag=true&with_label=false&q=tags%3D*&page_size={PAGE}&page={page}");
        let path = format!("{}/artifacts?{query}", path(repository)?);
        let response = ask("GET", registry, &path, As::Login(repository), &[200])?;
        let artifacts: Vec<Artifact> = json(&response)?;
        let next = (artifacts.len() == PAGE).then(|| (page + 1).to_string());
        let mut entries = Vec::new();
        for artifact in artifacts {
            for tag in artifact.tags.unwrap_or_default() {
                entries.push(Entry {
                    extra: Vec::new(),
                    name: tag.name,
                    digest: Some(artifact.digest.clone()),
                    media_type: artifact.manifest_media_type.clone(),
                    // What Harbor calls the size is that of the whole image.
                    size: None,
                    updated: tag.push_time.as_deref().and_then(time),
                });
            }
        }
        Ok(Page { entries, next, behind: None })
    }

    fn prepare(registry: &str, repository: &str) -> Result<String, Error> {
        let (project, _) = project(repository)?;
        let head = format!("/api/v2.0/projects?project_name={}", encoded(project));
        if ask("HEAD", registry, &head, As::Login(repository), &[200, 404])?.status == 200 {
            return Ok(format!("{project}/"));
        }
        let body = json!({ "project_name": project, "metadata": { "public": "false" } });
        match post(registry, "/api/v2.0/projects", As::Login(repository), &body, &[201, 409]) {
            Ok(_) => Ok(format!("{project}/")),
            Err(Error::Denied(why)) | Err(Error::Unauthorized(why)) => {
                Err(Error::Denied(format!("make the project {project}, which this user may not: {why}")))
            }
            Err(error) => Err(error),
        }
    }

    fn know(registry: &str, repository: &str, next: Option<&str>) -> Result<KnownPage, Error> {
        let page: usize = next.and_then(|next| next.parse().ok()).unwrap_or(1);
        let query = format!(
            "with_tag=true&with_label=true&with_accessory=true&with_scan_overview=true&q=tags%3D*&page_size={PAGE}&page={page}"
        );
        let path = format!("{}/artifacts?{query}", path(repository)?);
        let response = ask_with("GET", registry, &path, As::Login(repository), &[200], &accept())?;
        let artifacts: Vec<Artifact> = json(&response)?;
        let next = (artifacts.len() == PAGE).then(|| (page + 1).to_string());
        let mut entries = Vec::new();
        for artifact in artifacts {
            let labels: Vec<String> =
                artifact.labels.unwrap_or_default().into_iter().map(|label| label.name).collect();
            let accessories = artifact.accessories.unwrap_or_default();
            let signed = accessories.iter().any(|accessory| accessory.r#type.starts_with("signature."));
            let severity = artifact.scan_overview.as_ref().and_then(severity);
            for tag in artifact.tags.unwrap_or_default() {
                entries.push(KnownTag {
                    extra: Vec::new(),
                    name: tag.name,
                    digest: artifact.digest.clone(),
                    pushed: tag.push_time.as_deref().and_then(time),
                    labels: Some(labels.clone()),
                    signed: Some(signed),
                    severity: severity.clone(),
                });
            }
        }
        Ok(KnownPage { entries, next })
    }

    fn scan(registry: &str, repository: &str, digest: &str) -> Result<Option<ScanReport>, Error> {
        let path = format!("{}/artifacts/{}/additions/vulnerabilities", path(repository)?, encoded(digest));
        let response = ask_with("GET", registry, &path, As::Login(repository), &[200, 404], &accept())?;
        let nothing = response.status == 404 || response.body.trim_ascii() == b"{}";
        Ok((!nothing).then(|| ScanReport {
            media_type: "application/vnd.security.vulnerability.report; version=1.1".into(),
            content: response.body,
        }))
    }

    fn untagged(registry: &str, repository: &str, next: Option<&str>) -> Result<UntaggedPage, Error> {
        let page: usize = next.and_then(|next| next.parse().ok()).unwrap_or(1);
        let query = format!("with_tag=true&with_label=false&q=tags%3Dnil&page_size={PAGE}&page={page}");
        let path = format!("{}/artifacts?{query}", path(repository)?);
        let artifacts: Vec<Artifact> = json(&ask("GET", registry, &path, As::Login(repository), &[200])?)?;
        let next = (artifacts.len() == PAGE).then(|| (page + 1).to_string());
        let entries = artifacts
            .into_iter()
            .filter(|artifact| artifact.tags.as_ref().is_none_or(Vec::is_empty))
            .map(|artifact| UntaggedManifest {
                pushed: artifact.push_time.as_deref().and_then(time),
                digest: artifact.digest,
            });
        Ok(UntaggedPage { entries: entries.collect(), next })
    }

    fn remove_tag(registry: &str, repository: &str, tag: &str) -> Result<(), Error> {
        let tag = encoded(tag);
        let path = format!("{}/artifacts/{tag}/tags/{tag}", path(repository)?);
        match ask("DELETE", registry, &path, As::Login(repository), &[200, 404, 412])?.status {
            200 => Ok(()),
            404 => Err(Error::NotFound(format!("there is no tag {tag} in {repository}"))),
            _ => Err(Error::Denied(format!(
                "a rule of the project makes the tag {tag} of {repository} immutable"
            ))),
        }
    }
}

export!(Harbor with_types_in dray_plugin_dialect);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_slash_in_a_name_is_encoded_twice() {
        assert_eq!(path("library/nginx").unwrap(), "/api/v2.0/projects/library/repositories/nginx");
        assert_eq!(path("team/a/b").unwrap(), "/api/v2.0/projects/team/repositories/a%252Fb");
        assert!(path("nginx").is_err());
    }
}
