//! Amazon's private registries (ECR, API of 2015-09-21): lists images in bulk, makes repositories, removes single tags, and tells
//! of pushes and scans. Its API is at another host, and wants signed requests, so the auth provider `ecr` must be named.

use dray_plugin_dialect::{
    As, Dialect, Entry, Error, Kind, KnownPage, KnownTag, Page, ScanReport, UntaggedManifest, UntaggedPage,
    by_score, export, json, pages, post_with,
};
use serde::{Deserialize, de::DeserializeOwned};
use serde_json::{Value, json};
use std::collections::BTreeMap;

/// The most images that the API gives at once.
const PAGE: u32 = 1000;

struct Ecr;

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Images {
    image_details: Vec<Image>,
    next_token: Option<String>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Image {
    image_digest: String,
    #[serde(default)]
    image_tags: Vec<String>,
    image_manifest_media_type: Option<String>,
    /// Seconds since 1970.
    image_pushed_at: Option<f64>,
    image_scan_status: Option<ScanStatus>,
    image_scan_findings_summary: Option<Summary>,
}

impl Image {
    fn pushed(&self) -> Option<u64> {
        self.image_pushed_at.map(|seconds| (seconds * 1000.0) as u64)
    }

    /// The worst severity that a finished scan found, in the words of the contract.
    fn severity(&self) -> Option<String> {
        let counts = self.image_scan_findings_summary.as_ref()?.finding_severity_counts.as_ref()?;
        self.image_scan_status.as_ref().filter(|status| status.is_done())?;
        let found = counts.iter().filter(|(_, count)| **count > 0).map(|(name, _)| severity(name));
        let worst = found.max_by_key(|word| SEVERITIES.iter().position(|known| known == word));
        Some(worst.unwrap_or("none").to_owned())
    }
}

#[derive(Deserialize)]
struct ScanStatus {
    status: String,
}

impl ScanStatus {
    /// `ACTIVE` means that the scanner goes on to look for new vulnerabilities.
    fn is_done(&self) -> bool {
        matches!(self.status.as_str(), "COMPLETE" | "ACTIVE")
    }
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Summary {
    finding_severity_counts: Option<BTreeMap<String, u64>>,
}

/// Severities in their order, in the words of the contract.
const SEVERITIES: [&str; 6] = ["unknown", "negligible", "low", "medium", "high", "critical"];

/// A severity of the scanners of Amazon in the words of the contract. What is not understood is `unknown`.
fn severity(name: &str) -> &'static str {
    match name {
        "INFORMATIONAL" => "negligible",
        "LOW" => "low",
        "MEDIUM" => "medium",
        "HIGH" => "high",
        "CRITICAL" => "critical",
        _ => "unknown",
    }
}

/// The host of a registry's API. A registry of another name stands for both.
fn api(registry: &str) -> String {
    let rest = registry.split_once(".dkr.ecr").filter(|_| registry.contains(".amazonaws.com"));
    match rest.map(|(_, rest)| (rest.strip_prefix("-fips."), rest)) {
        Some((Some(rest), _)) => format!("ecr-fips.{rest}"),
        Some((None, rest)) => format!("api.ecr{rest}"),
        None => registry.to_owned(),
    }
}

/// What a call of the API comes to: an answer, or the name of an error.
enum Called<T> {
    Answer(T),
    Refused(String),
}

fn call<T: DeserializeOwned>(registry: &str, action: &str, body: &Value) -> Result<Called<T>, Error> {
    #[derive(Deserialize)]
    struct Refusal {
        #[serde(rename = "__type")]
        kind: String,
    }
    let headers = [
        ("content-type", "application/x-amz-json-1.1".to_owned()),
        ("x-amz-target", format!("AmazonEC2ContainerRegistry_V20150921.{action}")),
    ]
    .map(|(name, value)| (name.to_owned(), value));
    let repository = body["repositoryName"].as_str().or_else(|| body["repositoryNames"][0].as_str());
    let by = As::Signed(repository.unwrap_or_default());
    let response = post_with(&api(registry), "/", by, body, &[200, 400], &headers)?;
    if response.status == 200 {
        return json(&response).map(Called::Answer);
    }
    let kind = json::<Refusal>(&response)?.kind;
    let kind = kind.rsplit('#').next().unwrap_or_default();
    match kind {
        "ThrottlingException" | "LimitExceededException" => Err(Error::RateLimited(None)),
        "RepositoryNotFoundException" => Err(Error::NotFound("there is no such repository".into())),
        "AccessDeniedException" => Err(Error::Denied(format!("call {action}, which this account may not"))),
        _ => Ok(Called::Refused(kind.to_owned())),
    }
}

/// As [`call`], where a refusal is an error.
fn answer<T: DeserializeOwned>(registry: &str, action: &str, body: &Value) -> Result<T, Error> {
    match call(registry, action, body)? {
        Called::Answer(answer) => Ok(answer),
        Called::Refused(kind) => Err(Error::Invalid(format!("call {action}: {kind}"))),
    }
}

/// A page of the images that have tags (`TAGGED`), or have none (`UNTAGGED`).
fn images(registry: &str, repository: &str, which: &str, next: Option<&str>) -> Result<Images, Error> {
    let mut body = json!({
        "repositoryName": repository, "filter": { "tagStatus": which }, "maxResults": PAGE,
    });
    if let Some(next) = next {
        body["nextToken"] = next.into();
    }
    answer(registry, "DescribeImages", &body)
}

/// A page of what a scan found.
struct Findings {
    /// In the form of Harbor's reports.
    vulnerabilities: Vec<Value>,
    /// How many there are in all, as far as that is told.
    counted: u64,
    next: Option<String>,
}

/// The severity of an enhanced finding. One that nobody has judged yet has its score (CVSS) alone.
fn rated(finding: &Value) -> &'static str {
    match severity(finding["severity"].as_str().unwrap_or_default()) {
        "unknown" => finding["score"].as_f64().map_or("unknown", by_score),
        known => known,
    }
}

/// A page of the findings of a scan. `None` means that there was no scan.
fn findings(
    registry: &str,
    repository: &str,
    digest: &str,
    next: Option<&str>,
) -> Result<Option<Findings>, Error> {
    #[derive(Deserialize)]
    #[serde(rename_all = "camelCase")]
    struct Answer {
        image_scan_status: Option<ScanStatus>,
        image_scan_findings: Option<Found>,
        next_token: Option<String>,
    }
    #[derive(Deserialize)]
    #[serde(rename_all = "camelCase")]
    struct Found {
        #[serde(default)]
        findings: Vec<Value>,
        #[serde(default)]
        enhanced_findings: Vec<Value>,
        #[serde(default)]
        finding_severity_counts: BTreeMap<String, u64>,
    }
    let mut body = json!({
        "repositoryName": repository, "imageId": { "imageDigest": digest }, "maxResults": PAGE,
    });
    if let Some(next) = next {
        body["nextToken"] = next.into();
    }
    let answer: Answer = match call(registry, "DescribeImageScanFindings", &body)? {
        Called::Answer(answer) => answer,
        Called::Refused(kind) if kind == "ScanNotFoundException" => return Ok(None),
        Called::Refused(kind) => {
            return Err(Error::Invalid(format!("call DescribeImageScanFindings: {kind}")));
        }
    };
    let Some(found) =
        answer.image_scan_findings.filter(|_| answer.image_scan_status.is_some_and(|s| s.is_done()))
    else {
        return Ok(None);
    };
    let basic = found.findings.iter().map(|finding| (&finding["name"], &finding["severity"]));
    let enhanced = found.enhanced_findings.iter().map(|finding| {
        let details = &finding["packageVulnerabilityDetails"]["vulnerabilityId"];
        (if details.is_null() { &finding["title"] } else { details }, rated(finding))
    });
    let vulnerabilities =
        basic.map(|(id, worst)| (id, severity(worst.as_str().unwrap_or_default()))).chain(enhanced).map(
            |(id, worst)| json!({ "id": id.as_str().unwrap_or("unknown"), "package": "", "severity": worst }),
        );
    Ok(Some(Findings {
        vulnerabilities: vulnerabilities.collect(),
        counted: found.finding_severity_counts.values().sum(),
        next: answer.next_token,
    }))
}

impl Dialect for Ecr {
    const NAME: &str = "ecr";
    const VERSION: &str = env!("CARGO_PKG_VERSION");
    const SUMMARY: &str = "Amazon's registries: lists in bulk, makes repositories, removes single tags";

    fn kind() -> Kind {
        Kind {
            extra: Vec::new(),
            hosts: [
                "*.dkr.ecr.*.amazonaws.com",
                "*.dkr.ecr-fips.*.amazonaws.com",
                "*.dkr.ecr.*.amazonaws.com.cn",
            ]
            .map(str::to_owned)
            .to_vec(),
            services: Vec::new(),
            lists: true,
            whole: true,
            prepares: true,
            removes: true,
        }
    }

    fn tags(registry: &str, repository: &str, next: Option<&str>) -> Result<Page, Error> {
        let images = images(registry, repository, "TAGGED", next)?;
        let mut entries = Vec::new();
        for image in images.image_details {
            let updated = image.pushed();
            for tag in image.image_tags {
                entries.push(Entry {
                    extra: Vec::new(),
                    name: tag,
                    digest: Some(image.image_digest.clone()),
                    media_type: image.image_manifest_media_type.clone(),
                    // What Amazon calls the size is that of the whole image.
                    size: None,
                    updated,
                });
            }
        }
        Ok(Page { entries, next: images.next_token, behind: None })
    }

    fn prepare(registry: &str, repository: &str) -> Result<String, Error> {
        let looked: Result<Called<Value>, Error> =
            call(registry, "DescribeRepositories", &json!({ "repositoryNames": [repository] }));
        match looked {
            Ok(Called::Answer(_)) => return Ok(repository.into()),
            // Who may make repositories may not always look at them.
            Err(Error::NotFound(_) | Error::Denied(_)) | Ok(Called::Refused(_)) => {}
            Err(error) => return Err(error),
        }
        match call::<Value>(registry, "CreateRepository", &json!({ "repositoryName": repository }))? {
            Called::Answer(_) => Ok(repository.into()),
            Called::Refused(kind) if kind == "RepositoryAlreadyExistsException" => Ok(repository.into()),
            Called::Refused(kind) => Err(Error::Invalid(format!("make the repository {repository}: {kind}"))),
        }
    }

    fn know(registry: &str, repository: &str, next: Option<&str>) -> Result<KnownPage, Error> {
        let images = images(registry, repository, "TAGGED", next)?;
        let mut entries = Vec::new();
        for image in images.image_details {
            for tag in &image.image_tags {
                entries.push(KnownTag {
                    extra: Vec::new(),
                    name: tag.clone(),
                    digest: image.image_digest.clone(),
                    pushed: image.pushed(),
                    labels: None,
                    signed: None,
                    severity: image.severity(),
                });
            }
        }
        Ok(KnownPage { entries, next: images.next_token })
    }

    fn scan(registry: &str, repository: &str, digest: &str) -> Result<Option<ScanReport>, Error> {
        let (mut all, mut counted) = (Vec::new(), 0);
        let whole = pages(|next| {
            let found = findings(registry, repository, digest, next)?;
            let Some(Findings { vulnerabilities, counted: count, next }) = found else { return Ok(None) };
            all.extend(vulnerabilities);
            counted = count.max(counted);
            Ok(Some(next))
        })?;
        if !whole {
            return Ok(None);
        }
        // A report that lacks what was counted must not pass for a clean one.
        if (all.len() as u64) < counted {
            let text = format!("read the findings of {digest}: {} of {counted} are told", all.len());
            return Err(Error::Invalid(text));
        }
        let report = json!({ "vulnerabilities": all });
        Ok(Some(ScanReport {
            media_type: "application/vnd.security.vulnerability.report; version=1.1".into(),
            content: report.to_string().into_bytes(),
        }))
    }

    fn untagged(registry: &str, repository: &str, next: Option<&str>) -> Result<UntaggedPage, Error> {
        let images = images(registry, repository, "UNTAGGED", next)?;
        let entries = images
            .image_details
            .into_iter()
            .map(|image| UntaggedManifest { pushed: image.pushed(), digest: image.image_digest });
        Ok(UntaggedPage { entries: entries.collect(), next: images.next_token })
    }

    fn remove_tag(registry: &str, repository: &str, tag: &str) -> Result<(), Error> {
        #[derive(Deserialize)]
        struct Answer {
            #[serde(default)]
            failures: Vec<Failure>,
        }
        #[derive(Deserialize)]
        #[serde(rename_all = "camelCase")]
        struct Failure {
            failure_code: Option<String>,
        }
        let body = json!({ "repositoryName": repository, "imageIds": [{ "imageTag": tag }] });
        let answer: Answer = answer(registry, "BatchDeleteImage", &body)?;
        match answer.failures.into_iter().next().map(|failure| failure.failure_code.unwrap_or_default()) {
            None => Ok(()),
            Some(code) if code == "ImageNotFound" => {
                Err(Error::NotFound(format!("there is no tag {tag} in {repository}")))
            }
            Some(code) => Err(Error::Denied(format!("delete {tag} of {repository}: {code}"))),
        }
    }
}

export!(Ecr with_types_in dray_plugin_dialect);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_api_is_at_another_host() {
        for (registry, host) in [
            ("1.dkr.ecr.eu-west-1.amazonaws.com", "api.ecr.eu-west-1.amazonaws.com"),
            ("1.dkr.ecr-fips.us-gov-west-1.amazonaws.com", "ecr-fips.us-gov-west-1.amazonaws.com"),
            ("1.dkr.ecr.cn-north-1.amazonaws.com.cn", "api.ecr.cn-north-1.amazonaws.com.cn"),
            ("registry.example.com:5000", "registry.example.com:5000"),
        ] {
            assert_eq!(api(registry), host);
        }
    }

    #[test]
    fn the_worst_severity_of_a_finished_scan_counts() {
        let image = |text: &str| serde_json::from_str::<Image>(text).unwrap().severity();
        let scanned = |status: &str, counts: &str| {
            image(&format!(
                r#"{{"imageDigest":"d","imageScanStatus":{{"status":"{status}"}},"imageScanFindingsSummary":{{"findingSeverityCounts":{counts}}}}}"#
            ))
        };
        assert_eq!(scanned("COMPLETE", r#"{"LOW":3,"HIGH":1,"CRITICAL":0}"#).as_deref(), Some("high"));
        assert_eq!(scanned("ACTIVE", "{}").as_deref(), Some("none"));
        assert_eq!(scanned("COMPLETE", r#"{"UNDEFINED":1}"#).as_deref(), Some("unknown"));
        assert_eq!(scanned("FAILED", "{}"), None);
        assert_eq!(image(r#"{"imageDigest":"d"}"#), None);
    }
}
