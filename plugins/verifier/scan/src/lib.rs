//! Wants a report of a vulnerability scanner on the image, in which nothing is worse than allowed.

mod report;

use dray_plugin_verifier::{Error, Evidence, OneOrMany, Subject, Verdict, Verify};
use report::{Finding, Severity};
use serde::Deserialize;

/// The artifact types under which scanners attach their reports.
const TYPES: [&str; 6] = [
    "application/sarif+json",
    "application/vnd.security.vulnerability.report; version=1.1",
    "application/vnd.security.vulnerability.report+json",
    "application/vnd.aquasec.trivy.report+json",
    "application/vnd.anchore.grype.report+json",
    "application/vnd.dray.scan+json",
];

#[derive(Clone, Copy, Debug, Default, Deserialize, PartialEq, Eq)]
#[serde(rename_all = "lowercase")]
enum Unscanned {
    #[default]
    Deny,
    Allow,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Config {
    /// A vulnerability of this severity, or a worse one, is refused.
    #[serde(default = "high")]
    severity: Severity,
    /// Vulnerabilities that are accepted.
    allow: Option<OneOrMany<String>>,
    #[serde(default)]
    unscanned: Unscanned,
}

fn high() -> Severity {
    Severity::High
}

struct Scan;

/// How many vulnerabilities are named.
const NAMED: usize = 5;

/// An index, as far as its images matter.
#[derive(Deserialize)]
struct Index {
    #[serde(default)]
    manifests: Vec<Child>,
}

#[derive(Deserialize)]
struct Child {
    digest: String,
    platform: Option<Platform>,
}

#[derive(Deserialize)]
struct Platform {
    os: String,
}

/// The images of an index. An attestation (`unknown/unknown`) is none. An image has none.
fn children(body: &[u8]) -> Vec<String> {
    let index: Index = serde_json::from_slice(body).unwrap_or(Index { manifests: Vec::new() });
    let real = |child: &Child| child.platform.as_ref().is_none_or(|platform| platform.os != "unknown");
    index.manifests.into_iter().filter(real).map(|child| child.digest).collect()
}

/// The reports on one image. Evidence says in an annotation of which image of an index it is.
fn reports<'a>(evidence: &'a [Evidence], image: &str, subject: &str) -> Vec<&'a Evidence> {
    let of = |evidence: &Evidence| {
        let said = evidence.annotations.iter().find(|(key, _)| key == "image");
        said.map_or(subject, |(_, digest)| digest.as_str()) == image
    };
    let is_report =
        |evidence: &Evidence| evidence.kind == "dray.scan" || TYPES.contains(&evidence.kind.as_str());
    evidence.iter().filter(|evidence| is_report(evidence) && of(evidence)).collect()
}

/// What is wrong with an image, by its reports. `None` means that there is no report.
fn wrong(reports: &[&Evidence], config: &Config) -> Option<Vec<String>> {
    if reports.is_empty() {
        return None;
    }
    let mut bad: Vec<Finding> = Vec::new();
    for report in reports {
        match report::read(&report.content) {
            Ok(findings) => bad.extend(findings.into_iter().filter(|finding| {
                let allowed =
                    config.allow.as_ref().is_some_and(|allow| allow.as_slice().contains(&finding.id));
                finding.severity >= config.severity && !allowed
            })),
            Err(why) => return Some(vec![format!("a report of a scanner cannot be read: {why}")]),
        }
    }
    bad.sort_by(|a, b| b.severity.cmp(&a.severity).then_with(|| a.id.cmp(&b.id)));
    bad.dedup_by(|a, b| a.id == b.id);
    let named = bad.iter().take(NAMED).map(|finding| {
        let Finding { id, severity, package } = finding;
        match package.is_empty() {
            true => format!("{id} ({})", severity.word()),
            false => format!("{id} in {package} ({})", severity.word()),
        }
    });
    let mut named: Vec<String> = named.collect();
    if bad.len() > NAMED {
        named.push(format!("and {} more", bad.len() - NAMED));
    }
    Some(named)
}

impl Verify for Scan {
    type Config = Config;
    const NAME: &str = "scan";
    const VERSION: &str = env!("CARGO_PKG_VERSION");
    const SUMMARY: &str = "Wants a scanner's report in which nothing is worse than allowed";
    const CONFIG_SCHEMA: &str = include_str!("schema.json");

    fn wants(config: &Config) -> Result<Vec<String>, Error> {
        if config.severity == Severity::None {
            return Err(Error::key("severity", "every image would be refused; write \"low\" or a worse one"));
        }
        Ok(["dray.scan"].into_iter().chain(TYPES).map(str::to_owned).collect())
    }

    fn verify(subject: &Subject, evidence: &[Evidence], config: &Config) -> Result<Verdict, Error> {
        let own = wrong(&reports(evidence, &subject.digest, &subject.digest), config);
        let images = children(&subject.body);
        // A report on an index is on all of its images. Without one, each image needs its own.
        let judged: Vec<(String, Option<Vec<String>>)> = match own {
            None if !images.is_empty() => images
                .into_iter()
                .map(|image| {
                    let wrong = wrong(&reports(evidence, &image, &subject.digest), config);
                    (format!("{}: ", image.get(..19).unwrap_or(&image)), wrong)
                })
                .collect(),
            own => vec![(String::new(), own)],
        };
        let mut refused = Vec::new();
        for (image, wrong) in judged {
            match wrong {
                None if config.unscanned == Unscanned::Deny => {
                    refused.push(format!("{image}there is no report of a scanner"));
                }
                None => {}
                Some(wrong) => refused.extend(wrong.into_iter().map(|wrong| format!("{image}{wrong}"))),
            }
        }
        Ok(match refused.is_empty() {
            true => {
                Verdict::Accepted(format!("a scanner, which found nothing of {}", config.severity.word()))
            }
            false => Verdict::Refused(refused),
        })
    }
}

dray_plugin_verifier::export!(Scan with_types_in dray_plugin_verifier);

#[cfg(test)]
mod tests {
    use super::*;

    fn config(json: &str) -> Config {
        dray_plugin_verifier::config(json).unwrap()
    }

    fn evidence(image: Option<&str>, findings: &[(&str, &str)]) -> Evidence {
        let matches: Vec<_> = findings
            .iter()
            .map(|(id, severity)| serde_json::json!({ "vulnerability": { "id": id, "severity": severity } }))
            .collect();
        Evidence {
            kind: "dray.scan".into(),
            content: serde_json::json!({ "matches": matches }).to_string().into_bytes(),
            annotations: image.iter().map(|image| ("image".to_owned(), (*image).to_owned())).collect(),
        }
    }

    fn subject(body: &str) -> Subject {
        Subject {
            extra: Vec::new(),
            reference: None,
            media_type: String::new(),
            digest: "sha256:top".into(),
            body: body.into(),
        }
    }

    #[test]
    fn what_is_worse_than_allowed_is_refused() {
        let bad = [("CVE-1", "High"), ("CVE-2", "Low")];
        for (settings, evidence, accepted) in [
            (r#"{}"#, vec![evidence(None, &bad)], false),
            (r#"{"severity":"critical"}"#, vec![evidence(None, &bad)], true),
            (r#"{"allow":["CVE-1"]}"#, vec![evidence(None, &bad)], true),
            (r#"{"severity":"low","allow":"CVE-1"}"#, vec![evidence(None, &bad)], false),
            (r#"{}"#, vec![], false),
            (r#"{"unscanned":"allow"}"#, vec![], true),
            // One of two reports is enough to refuse.
            (r#"{}"#, vec![evidence(None, &[]), evidence(None, &bad)], false),
        ] {
            let verdict = Scan::verify(&subject("{}"), &evidence, &config(settings)).unwrap();
            assert_eq!(matches!(verdict, Verdict::Accepted(_)), accepted, "{settings} {verdict:?}");
        }
        let odd = Evidence { content: b"{}".to_vec(), ..evidence(None, &[]) };
        assert!(matches!(Scan::verify(&subject("{}"), &[odd], &config("{}")), Ok(Verdict::Refused(_))));
    }

    #[test]
    fn each_image_of_an_index_needs_a_report() {
        let index = r#"{"manifests":[{"digest":"sha256:a","platform":{"os":"linux"}},{"digest":"sha256:b"},
            {"digest":"sha256:c","platform":{"os":"unknown"}}]}"#;
        let (a, b) = (evidence(Some("sha256:a"), &[]), evidence(Some("sha256:b"), &[("CVE-1", "critical")]));
        let judge = |evidence: &[Evidence]| Scan::verify(&subject(index), evidence, &config("{}")).unwrap();
        let Verdict::Refused(why) = judge(std::slice::from_ref(&a)) else { panic!("taken") };
        assert_eq!(why, ["sha256:b: there is no report of a scanner"]);
        let Verdict::Refused(why) = judge(&[a.clone(), b]) else { panic!("taken") };
        assert_eq!(why, ["sha256:b: CVE-1 (critical)"]);
        assert!(matches!(judge(&[a, evidence(Some("sha256:b"), &[])]), Verdict::Accepted(_)));
        // One on the index is on all of them.
        assert!(matches!(judge(&[evidence(None, &[])]), Verdict::Accepted(_)));
    }
}
