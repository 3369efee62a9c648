//! What failed in a run, told once at its end: grouped by cause, with the remedy once.

use crate::{
    output::{counted, tell},
    progress::Screen,
};
use dray_core::{Action, CopyReport, Report};

/// Names of one cause that are listed.
const SHOWN: usize = 5;

/// Failures with one cause.
struct Cause<'a> {
    /// What they have in common.
    key: String,
    /// The first of them, which is told in full.
    first: &'a CopyReport,
    /// The sources of the others.
    others: Vec<&'a str>,
}

/// The text of a failure without the names of its image, by which it is compared with others.
fn key(copy: &CopyReport) -> String {
    let error = copy.error.as_deref().unwrap_or_default();
    // Of an address, only the host tells causes apart.
    let hosts = |word: &str| match word.split_once("://") {
        Some((before, rest)) if before.ends_with("http") || before.ends_with("https") => {
            format!("{before}://{}/…", rest.split('/').next().unwrap_or(rest))
        }
        _ => word.to_owned(),
    };
    let mut text = error.split(' ').map(hosts).collect::<Vec<_>>().join(" ");
    let names = [&copy.source, &copy.destination].map(String::as_str);
    for name in names.into_iter().filter(|name| !name.is_empty()) {
        text = text.replace(name, "…");
    }
    // A digest, or what is left of one: `sha256:` and its digits.
    let mut out = String::new();
    let mut rest = text.as_str();
    while let Some(at) = rest.find("sha256:") {
        let digits = rest[at + 7..].bytes().take_while(u8::is_ascii_hexdigit).count();
        out.push_str(&rest[..at]);
        out.push('…');
        rest = &rest[at + 7 + digits..];
    }
    out.push_str(rest);
    out
}

/// Brings failures of one cause together, in the order in which the causes came.
fn causes(report: &Report) -> Vec<Cause<'_>> {
    let mut causes: Vec<Cause<'_>> = Vec::new();
    for copy in report.copies.iter().filter(|copy| copy.action == Action::Fail) {
        let key = key(copy);
        let is_same = |cause: &&mut Cause<'_>| {
            (cause.key == key || cause.first.error == copy.error) && cause.first.help == copy.help
        };
        match causes.iter_mut().find(is_same) {
            Some(cause) => cause.others.push(&copy.source),
            None => causes.push(Cause { key, first: copy, others: Vec::new() }),
        }
    }
    causes
}

/// Tells every failure of a run, to those who want quiet, too. Where everything is an event, they were told as such.
pub fn tell_all(report: &Report, screen: &Screen) {
    if screen.tells_events() {
        return;
    }
    for Cause { first, others, .. } in causes(report) {
        tell!("error: {}", first.error.as_deref().unwrap_or_default());
        if !others.is_empty() {
            let mut names = others.iter().take(SHOWN).copied().collect::<Vec<_>>().join(", ");
            if others.len() > SHOWN {
                names.push_str(&format!(" and {} more", others.len() - SHOWN));
            }
            tell!("  and the same of {}: {names}", counted(others.len() as u64, "other image"));
        }
        if let Some(help) = &first.help {
            tell!("  help: {help}");
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use dray_core::Trouble;

    fn failed(source: &str, text: &str, help: Option<&str>) -> CopyReport {
        CopyReport::failed("a", source, "docker://m/x", "", Some(Trouble { text, help }))
    }

    #[test]
    fn one_cause_is_told_once() {
        let report = Report {
            copies: vec![
                failed("docker://r/a:1", "resolve docker://r/a:1: HTTP 503", Some("wait")),
                failed("docker://r/a:2", "resolve docker://r/a:2: HTTP 503", Some("wait")),
                failed("docker://r/a:3", "read sha256:ab: HTTP 404", None),
                failed("docker://r/a:4", "read sha256:cd: HTTP 404", None),
                failed("docker://r/a:5", "resolve docker://r/a:5: HTTP 503", Some("log in")),
                failed("docker://r/a:6", "GET https://r/v2/a/manifests/6 answered 429", None),
                failed("docker://r/b:7", "GET https://r/v2/b/manifests/7 answered 429", None),
            ],
            ..Report::default()
        };
        let told: Vec<(&str, usize)> =
            causes(&report).iter().map(|cause| (cause.first.source.as_str(), cause.others.len())).collect();
        assert_eq!(
            told,
            [("docker://r/a:1", 1), ("docker://r/a:3", 1), ("docker://r/a:5", 0), ("docker://r/a:6", 1)]
        );
    }
}
