//! Google's Artifact Registry: makes repositories, and tells what its scanner found (Artifact Registry API v1, Container Analysis
//! API v1). Tags come with digests in the specification's list already. The APIs want signed requests, so the auth provider `gar`
//! must be named.

use dray_plugin_dialect::{As, Dialect, Error, Kind, ScanReport, ask, encoded, export, json, post};
use serde::Deserialize;
use serde_json::{Value, json};

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
            return Ok(prefix);
        }
        let path = format!("{all}?repositoryId={}", encoded(repository));
        let response = post(host, &path, As::Signed(name), &json!({ "format": "DOCKER" }), &[200, 409])?;
        if response.status == 200 {
            done(host, name, json(&response)?)?;
        }
        Ok(prefix)
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
        let (mut is_scanned, mut found, mut next) = (false, Vec::new(), None::<String>);
        loop {
            let path = match &next {
                Some(token) => format!("{first}&pageToken={}", encoded(token)),
                None => first.clone(),
            };
            let page: Occurrences = json(&ask("GET", host, &path, As::Signed(name), &[200])?)?;
            for occurrence in page.occurrences {
                match occurrence["kind"].as_str() {
                    Some("DISCOVERY") => {
                        is_scanned |= occurrence["discovery"]["analysisStatus"] == "FINISHED_SUCCESS";
                    }
                    _ => found.push(vulnerability(&occurrence)),
                }
            }
            let more = page.next_page_token.filter(|token| !token.is_empty());
            if more.is_none() || more == next {
                break;
            }
            next = more;
        }
        Ok(is_scanned.then(|| ScanReport {
            media_type: "application/vnd.security.vulnerability.report; version=1.1".into(),
            content: json!({ "vulnerabilities": found }).to_string().into_bytes(),
        }))
    }
}

/// A vulnerability in the form of Harbor's reports.
fn vulnerability(occurrence: &Value) -> Value {
    let vulnerability = &occurrence["vulnerability"];
    let severity = vulnerability["effectiveSeverity"].as_str().or_else(|| vulnerability["severity"].as_str());
    let severity = match severity {
        Some("MINIMAL") => "negligible",
        Some("LOW") => "low",
        Some("MEDIUM") => "medium",
        Some("HIGH") => "high",
        Some("CRITICAL") => "critical",
        _ => "unknown",
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
    }
}
