//! Reads the reports of scanners: Harbor's, Trivy's and Grype's JSON, SARIF 2.1.0, and CycloneDX.

use serde::Deserialize;
use serde_json::Value;

/// How bad a vulnerability is, in the order of Harbor (`src/pkg/scan/vuln/severity.go`).
#[derive(Clone, Copy, Debug, Deserialize, PartialEq, Eq, PartialOrd, Ord)]
#[serde(rename_all = "lowercase")]
pub enum Severity {
    None,
    Unknown,
    Negligible,
    Low,
    Medium,
    High,
    Critical,
}

impl Severity {
    /// Its name.
    pub fn word(self) -> &'static str {
        match self {
            Severity::None => "none",
            Severity::Unknown => "unknown",
            Severity::Negligible => "negligible",
            Severity::Low => "low",
            Severity::Medium => "medium",
            Severity::High => "high",
            Severity::Critical => "critical",
        }
    }

    /// The severity with a name. What is not understood is not known.
    fn named(text: &str) -> Self {
        match text.to_ascii_lowercase().as_str() {
            "none" => Severity::None,
            "negligible" => Severity::Negligible,
            "low" => Severity::Low,
            "medium" | "moderate" => Severity::Medium,
            "high" | "important" => Severity::High,
            "critical" => Severity::Critical,
            _ => Severity::Unknown,
        }
    }

    /// The severity of a CVSS score (CVSS v3.1, section 5).
    fn scored(score: f64) -> Self {
        match score {
            score if score >= 9.0 => Severity::Critical,
            score if score >= 7.0 => Severity::High,
            score if score >= 4.0 => Severity::Medium,
            score if score > 0.0 => Severity::Low,
            _ => Severity::None,
        }
    }
}

/// A vulnerability in a report.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Finding {
    pub id: String,
    pub severity: Severity,
    /// The package that has it. Empty means that the report does not say.
    pub package: String,
}

impl Finding {
    /// Reads one whose fields have these names.
    fn of(value: &Value, id: &str, severity: &str, package: &str) -> Result<Self, String> {
        let text = |key: &str| value.get(key).and_then(Value::as_str);
        let id = text(id).ok_or_else(|| format!("a vulnerability has no `{id}`"))?.to_owned();
        let severity = text(severity).ok_or_else(|| format!("{id} has no `{severity}`"))?;
        let package = text(package).unwrap_or_default().to_owned();
        Ok(Finding { severity: Severity::named(severity), id, package })
    }
}

/// A list, which may be missing or `null` if it is empty. Anything else is of a format that is not understood, and what it
/// says must not be taken for nothing.
fn list<'a>(value: &'a Value, key: &str) -> Result<&'a [Value], String> {
    match value.get(key) {
        None | Some(Value::Null) => Ok(&[]),
        Some(Value::Array(all)) => Ok(all),
        Some(_) => Err(format!("`{key}` is no list")),
    }
}

/// Reads a report of any of the known kinds.
pub fn read(content: &[u8]) -> Result<Vec<Finding>, String> {
    let report: Value = serde_json::from_slice(content).map_err(|error| format!("it is no JSON: {error}"))?;
    let has = |key: &str| report.get(key).is_some();
    if has("bomFormat") {
        return cyclone(&report);
    }
    if has("runs") {
        return sarif(&report);
    }
    if has("vulnerabilities") {
        return harbor(&report);
    }
    if has("matches") {
        return list(&report, "matches")?.iter().map(grype).collect();
    }
    // Trivy leaves `Results` out of an image in which there is nothing to scan.
    if has("Results") || (has("SchemaVersion") && has("ArtifactType")) {
        let mut found = Vec::new();
        for result in list(&report, "Results")? {
            for one in list(result, "Vulnerabilities")? {
                found.push(Finding::of(one, "VulnerabilityID", "Severity", "PkgName")?);
            }
        }
        return Ok(found);
    }
    // Harbor gives a map from media types to reports.
    let inner: Vec<&Value> = report
        .as_object()
        .into_iter()
        .flatten()
        .filter(|(kind, inner)| kind.contains("vuln") && inner.get("vulnerabilities").is_some())
        .map(|(_, inner)| inner)
        .collect();
    match inner[..] {
        [] => Err("it is none of Harbor, Trivy or Grype, no SARIF and no CycloneDX".into()),
        _ => inner.into_iter().map(harbor).collect::<Result<Vec<_>, _>>().map(|all| all.concat()),
    }
}

fn harbor(report: &Value) -> Result<Vec<Finding>, String> {
    let all = list(report, "vulnerabilities")?.iter();
    all.map(|one| Finding::of(one, "id", "severity", "package")).collect()
}

fn grype(found: &Value) -> Result<Finding, String> {
    let of = found.get("vulnerability").ok_or("a match has no `vulnerability`")?;
    let package = found.pointer("/artifact/name").and_then(Value::as_str).unwrap_or_default();
    Ok(Finding { package: package.to_owned(), ..Finding::of(of, "id", "severity", "")? })
}

/// CycloneDX 1.4 and later (ECMA-424). The worst rating counts; one that is only a score is read as CVSS.
fn cyclone(report: &Value) -> Result<Vec<Finding>, String> {
    if report.get("vulnerabilities").is_none() {
        return Err("it is a list of components without `vulnerabilities`, and says nothing of a scan".into());
    }
    let mut found = Vec::new();
    for one in list(report, "vulnerabilities")? {
        let id = one.get("id").and_then(Value::as_str).ok_or("a vulnerability has no `id`")?;
        let ratings = list(one, "ratings")?.iter().filter_map(|rating| {
            let named = rating.get("severity").and_then(Value::as_str);
            named
                .map(Severity::named)
                .or_else(|| rating.get("score").and_then(Value::as_f64).map(Severity::scored))
        });
        let severity =
            ratings.max().ok_or_else(|| format!("{id} has no `ratings` that tell its severity"))?;
        let package = one.pointer("/affects/0/ref").and_then(Value::as_str).unwrap_or_default();
        found.push(Finding { id: id.to_owned(), severity, package: package.to_owned() });
    }
    Ok(found)
}

/// Static Analysis Results Interchange Format 2.1.0 (OASIS). Scanners put the CVSS score into `security-severity` of a
/// rule, as GitHub's code scanning reads it; without it, the level of the result counts.
fn sarif(report: &Value) -> Result<Vec<Finding>, String> {
    let mut found = Vec::new();
    for run in list(report, "runs")? {
        let rules = match run.pointer("/tool/driver") {
            Some(driver) => list(driver, "rules")?,
            None => &[],
        };
        for result in list(run, "results")? {
            let index = result.get("ruleIndex").and_then(Value::as_u64);
            let id = result.get("ruleId").and_then(Value::as_str);
            let rule = match (index, id) {
                (Some(index), _) => rules.get(index as usize),
                (None, Some(id)) => {
                    rules.iter().find(|rule| rule.get("id").and_then(Value::as_str) == Some(id))
                }
                (None, None) => None,
            };
            let id = id.or_else(|| rule?.get("id")?.as_str()).ok_or("a result has no `ruleId`")?;
            let score = rule.and_then(|rule| rule.pointer("/properties/security-severity"));
            let score = score.and_then(|score| match score {
                Value::String(text) => text.parse::<f64>().ok(),
                other => other.as_f64(),
            });
            let level = result.get("level").and_then(Value::as_str);
            let level = level.or_else(|| rule?.pointer("/defaultConfiguration/level")?.as_str());
            let severity = match (score, level) {
                (Some(score), _) => Severity::scored(score),
                (None, Some("error")) => Severity::High,
                (None, Some("note")) => Severity::Low,
                (None, Some("none")) => Severity::None,
                // "warning" is the default (SARIF 2.1.0, 3.27.10).
                (None, _) => Severity::Medium,
            };
            found.push(Finding { id: id.to_owned(), severity, package: String::new() });
        }
    }
    Ok(found)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reports_of_each_kind_are_read() {
        let harbor = r#"{"application/vnd.security.vulnerability.report; version=1.1":{"severity":"High",
            "vulnerabilities":[{"id":"CVE-2","package":"zlib","version":"1","fix_version":"2","severity":"High"}]}}"#;
        let inner = r#"{"vulnerabilities":[{"id":"CVE-2","package":"zlib","severity":"High"}]}"#;
        let trivy = r#"{"SchemaVersion":2,"ArtifactType":"container_image","Results":[{"Target":"os"},
            {"Target":"lib","Vulnerabilities":[{"VulnerabilityID":"CVE-2","PkgName":"zlib","Severity":"HIGH"}]}]}"#;
        let grype =
            r#"{"matches":[{"vulnerability":{"id":"CVE-2","severity":"High"},"artifact":{"name":"zlib"}}]}"#;
        for text in [harbor, inner, trivy, grype] {
            let expected = Finding { id: "CVE-2".into(), severity: Severity::High, package: "zlib".into() };
            assert_eq!(read(text.as_bytes()).unwrap(), [expected], "{text}");
        }
        let sarif = r#"{"version":"2.1.0","runs":[{"tool":{"driver":{"rules":[
            {"id":"CVE-1","properties":{"security-severity":"9.8"}},{"id":"CVE-3","defaultConfiguration":{"level":"note"}}]}},
            "results":[{"ruleId":"CVE-1","level":"note"},{"ruleIndex":1},{"ruleId":"CVE-4","level":"error"},{"ruleId":"CVE-5"}]}]}"#;
        let found: Vec<(String, Severity)> =
            read(sarif.as_bytes()).unwrap().into_iter().map(|one| (one.id, one.severity)).collect();
        let expected = [
            ("CVE-1", Severity::Critical),
            ("CVE-3", Severity::Low),
            ("CVE-4", Severity::High),
            ("CVE-5", Severity::Medium),
        ];
        assert_eq!(found, expected.map(|(id, severity)| (id.to_owned(), severity)));
        // A report that finds nothing is one; what is not understood is none.
        for text in
            [r#"{"matches":[]}"#, r#"{"vulnerabilities":null}"#, r#"{"SchemaVersion":2,"ArtifactType":"x"}"#]
        {
            assert_eq!(read(text.as_bytes()), Ok(Vec::new()), "{text}");
        }
        for text in [
            "",
            "{}",
            "[]",
            r#"{"matches":[{}]}"#,
            r#"{"vulnerabilities":[{"severity":"High"}]}"#,
            r#"{"runs":{}}"#,
            r#"{"matches":{"a":1}}"#,
            r#"{"Results":{"a":1}}"#,
            r#"{"Results":[{"Vulnerabilities":{"a":1}}]}"#,
            r#"{"Results":[{"Vulnerabilities":[{"VulnerabilityID":"CVE-2"}]}]}"#,
            // Clair has a map, and a severity of another name.
            r#"{"vulnerabilities":{"1":{"id":"1","name":"CVE-2","normalized_severity":"Critical"}}}"#,
            // A list of components is no report.
            r#"{"bomFormat":"CycloneDX","components":[]}"#,
            r#"{"bomFormat":"CycloneDX","vulnerabilities":[{"id":"CVE-2"}]}"#,
        ] {
            assert!(read(text.as_bytes()).is_err(), "{text}");
        }
    }

    #[test]
    fn the_worst_rating_of_a_cyclone_report_counts() {
        let text = r#"{"bomFormat":"CycloneDX","vulnerabilities":[{"id":"CVE-2","affects":[{"ref":"pkg:zlib"}],
            "ratings":[{"severity":"low"},{"score":9.8}]},{"id":"CVE-3","ratings":[{"severity":"medium"}]}]}"#;
        let expected = [("CVE-2", Severity::Critical, "pkg:zlib"), ("CVE-3", Severity::Medium, "")];
        let expected = expected.map(|(id, severity, package)| Finding {
            id: id.into(),
            severity,
            package: package.into(),
        });
        assert_eq!(read(text.as_bytes()).unwrap(), expected);
    }
}
