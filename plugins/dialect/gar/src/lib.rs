//! Google's Artifact Registry: makes repositories, and tells what its scanner found (Artifact Registry API v1, Container Analysis
//! API v1). Tags come with digests in the specification's list already. The APIs want signed requests, so the auth provider `gar`
//! must be named.

use dray_plugin_dialect::{
    As, Dialect, Error, Kind, ScanReport, UntaggedManifest, UntaggedPage, ask, by_score, encoded, export,
    json, pages, post,
};
use serde::Deserialize;
use serde_json::{Value, json};
use std::collections::BTreeMap;

struct Gar;

/// How often it is asked whether a repository is made by now.
const PATIENCE: usize = 50;

/// Where a repository of images is, by its name: `LOCATION-docker.pkg.dev/PROJECT/REPOSITORY/IMAGE`.
#[derive(Debug, PartialEq)]
struct Parts<'a> {
    location: &'a str,
    /// A project of a domain has a colon in it.
    project: String,
    repository: &'a str,
    /// The part of the name that names the repository.
    prefix: String,
}

fn parts<'a>(registry: &'a str, name: &'a str) -> Result<Parts<'a>, Error> {
    let wrong = || {
        Error::Invalid(format!("Google's repositories are PROJECT/REPOSITORY/IMAGE, and `{name}` is shorter"))
    };
    // A registry of another name stands for one.
    let location = registry.strip_suffix("-docker.pkg.dev").unwrap_or("europe");
    let mut rest = name.splitn(4, '/');
    let first = rest.next().ok_or_else(wrong)?;
    let second = rest.next().ok_or_else(wrong)?;
    let third = rest.next().ok_or_else(wrong)?;
    if !first.contains('.') {
        let prefix = format!("{first}/{second}");
        return Ok(Parts { location, project: first.to_owned(), repository: second, prefix });
    }
    rest.next().ok_or_else(wrong)?;
    let project = format!("{first}:{second}");
    Ok(Parts { location, project, repository: third, prefix: format!("{first}/{second}/{third}") })
}

/// The host of an API. A registry of another name stands for all.
fn api<'a>(registry: &'a str, host: &'a str) -> &'a str {
    if registry.ends_with("-docker.pkg.dev") { host } else { registry }
}

const REGISTRY: &str = "artifactregistry.googleapis.com";
const ANALYSIS: &str = "containeranalysis.googleapis.com";

/// Whether a registry is the old one, whose repositories are made when they are written to.
fn is_old(registry: &str) -> bool {
    registry == "gcr.io" || registry.ends_with(".gcr.io")
}

#[derive(Deserialize)]
struct Operation {
    name: String,
    #[serde(default)]
    done: bool,
    error: Option<Failed>,
}

#[derive(Deserialize)]
struct Failed {
    #[serde(default)]
    message: String,
}

/// Waits until an operation is done. A plugin cannot sleep, so the answers are what it waits for.
fn done(host: &str, repository: &str, mut operation: Operation) -> Result<(), Error> {
    for _ in 0..PATIENCE {
        if let Some(failed) = operation.error {
            return Err(Error::Invalid(format!("make the repository: {}", failed.message)));
        }
        if operation.done {
            return Ok(());
        }
        let path = format!("/v1/{}", operation.name);
        operation = json(&ask("GET", host, &path, As::Signed(repository), &[200])?)?;
    }
    Err(Error::Transient("make the repository: it is not there yet".into()))
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Occurrences {
    #[serde(default)]
    occurrences: Vec<Value>,
    next_page_token: Option<String>,
}

impl Dialect for Gar {
    const NAME: &str = "gar";
    const VERSION: &str = env!("CARGO_PKG_VERSION");
    const SUMMARY: &str = "Google's registries: makes repositories, tells what was scanned";

    fn kind() -> Kind {
        Kind {
            extra: Vec::new(),
            hosts: ["*-docker.pkg.dev", "gcr.io", "*.gcr.io"].map(str::to_owned).to_vec(),
            services: Vec::new(),
            lists: false,
            whole: false,
            prepares: true,
            removes: false,
        }
    }

    fn prepare(registry: &str, name: &str) -> Result<String, Error> {
        if is_old(registry) {
            return Ok(name.into());
        }
        let Parts { location, project, repository, prefix } = parts(registry, name)?;
        let host = api(registry, REGISTRY);
        let all = format!("/v1/projects/{}/locations/{location}/repositories", encoded(&project));
        let one = format!("{all}/{repository}");
        // Who may make repositories may not always look at them.
        if ask("GET", host, &one, As::Signed(name), &[200, 403, 404])?.status == 200 {
            return Ok(format!("{prefix}/"));
        }
        let path = format!("{all}?repositoryId={}", encoded(repository));
        let response = post(host, &path, As::Signed(name), &json!({ "format": "DOCKER" }), &[200, 409])?;
        if response.status == 200 {
            done(host, name, json(&response)?)?;
        }
        Ok(format!("{prefix}/"))
    }

    fn untagged(registry: &str, name: &str, _next: Option<&str>) -> Result<UntaggedPage, Error> {
        #[derive(Deserialize)]
        struct Listed {
            #[serde(default)]
            manifest: BTreeMap<String, Manifest>,
        }
        #[derive(Deserialize)]
        #[serde(rename_all = "camelCase")]
        struct Manifest {
            #[serde(default)]
            tag: Vec<String>,
            time_uploaded_ms: Option<String>,
        }
        // The list of tags has every manifest, with those that have no tag.
        let path = format!("/v2/{name}/tags/list");
        let listed: Listed = json(&ask("GET", registry, &path, As::Token(name, "pull"), &[200])?)?;
        let entries = listed.manifest.into_iter().filter(|(_, manifest)| manifest.tag.is_empty());
        let entries = entries.map(|(digest, manifest)| UntaggedManifest {
            digest,
            pushed: manifest.time_uploaded_ms.and_then(|time| time.parse().ok()),
        });
        Ok(UntaggedPage { entries: entries.collect(), next: None })
    }

    fn scan(registry: &str, name: &str, digest: &str) -> Result<Option<ScanReport>, Error> {
        let project = match is_old(registry) {
            true => name.split('/').next().unwrap_or_default().to_owned(),
            false => parts(registry, name)?.project,
        };
        let host = if is_old(registry) { ANALYSIS } else { api(registry, ANALYSIS) };
        let filter = format!(
            "(kind=\"VULNERABILITY\" OR kind=\"DISCOVERY\") AND resourceUrl=\"https://{registry}/{name}@{digest}\""
        );
        let first = format!(
            "/v1/projects/{}/occurrences?filter={}&pageSize=1000",
            encoded(&project),
            encoded(&filter)
        );
        let (mut analyses, mut found) = (Vec::new(), Vec::new());
        pages(|next| {
            let path = match next {
                Some(token) => format!("{first}&pageToken={}", encoded(token)),
                None => first.clone(),
            };
            let page: Occurrences = json(&ask("GET", host, &path, As::Signed(name), &[200])?)?;
            for occurrence in page.occurrences {
                match occurrence["kind"].as_str() {
                    Some("DISCOVERY") => {
                        // Who may write occurrences could say otherwise that an analysis of Google's has ended.
                        let note = occurrence["noteName"].as_str().unwrap_or_default();
                        if note.starts_with("projects/goog-analysis/") {
                            analyses.push(occurrence["discovery"]["analysisStatus"] == "FINISHED_SUCCESS");
                        }
                    }
                    _ => found.push(vulnerability(&occurrence)),
                }
            }
            Ok(Some(page.next_page_token.filter(|token| !token.is_empty())))
        })?;
        let is_scanned = !analyses.is_empty() && analyses.into_iter().all(|is_done| is_done);
        Ok(is_scanned.then(|| ScanReport {
            media_type: "application/vnd.security.vulnerability.report; version=1.1".into(),
            content: json!({ "vulnerabilities": found }).to_string().into_bytes(),
        }))
    }
}

/// A vulnerability in the form of Harbor's reports.
fn vulnerability(occurrence: &Value) -> Value {
    let vulnerability = &occurrence["vulnerability"];
    let word = |name: &str| match vulnerability[name].as_str() {
        Some("MINIMAL") => "negligible",
        Some("LOW") => "low",
        Some("MEDIUM") => "medium",
        Some("HIGH") => "high",
        Some("CRITICAL") => "critical",
        _ => "unknown",
    };
    // The severity that the distribution gives counts, and where it gives none, that of the vulnerability, or its score (CVSS).
    let severity = match (word("effectiveSeverity"), word("severity")) {
        ("unknown", "unknown") => vulnerability["cvssScore"].as_f64().map_or("unknown", by_score),
        ("unknown", severity) | (severity, _) => severity,
    };
    let note = occurrence["noteName"].as_str().unwrap_or("unknown");
    let id = note.rsplit('/').next().unwrap_or(note);
    let package = vulnerability["packageIssue"][0]["affectedPackage"].as_str().unwrap_or_default();
    json!({ "id": id, "package": package, "severity": severity })
}

export!(Gar with_types_in dray_plugin_dialect);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_have_a_project_a_repository_and_an_image() {
        let found = parts("europe-west1-docker.pkg.dev", "project/repo/team/app").unwrap();
        assert_eq!(
            (found.location, found.project.as_str(), found.repository, found.prefix.as_str()),
            ("europe-west1", "project", "repo", "project/repo")
        );
        let found = parts("us-docker.pkg.dev", "example.com/project/repo/app").unwrap();
        assert_eq!((found.project.as_str(), found.repository), ("example.com:project", "repo"));
        assert_eq!(found.prefix, "example.com/project/repo");
        assert!(parts("us-docker.pkg.dev", "project/repo").is_err());
        assert!(parts("us-docker.pkg.dev", "example.com/project/repo").is_err());
    }

    #[test]
    fn what_is_not_understood_is_unknown() {
        let found = vulnerability(&json!({ "noteName": "projects/goog-vulnz/notes/CVE-1",
            "vulnerability": { "effectiveSeverity": "MINIMAL", "packageIssue": [{ "affectedPackage": "p" }] } }));
        assert_eq!(found, json!({ "id": "CVE-1", "package": "p", "severity": "negligible" }));
        assert_eq!(vulnerability(&json!({}))["severity"], "unknown");
        let scored =
            json!({ "vulnerability": { "effectiveSeverity": "SEVERITY_UNSPECIFIED", "cvssScore": 10 } });
        assert_eq!(vulnerability(&scored)["severity"], "critical");
        let judged = json!({ "vulnerability": { "effectiveSeverity": "LOW", "severity": "CRITICAL", "cvssScore": 10 } });
        assert_eq!(vulnerability(&judged)["severity"], "low");
    }
}
