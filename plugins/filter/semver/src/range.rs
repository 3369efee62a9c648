//! Versions and ranges as users write them in tags and policies: with an optional `v`, missing components,
//! `||`, comparators separated by commas or blanks, and a bare version that means only itself.

use semver::{Prerelease, Version, VersionReq};

/// The alternatives of a range. A version must match one of them.
pub struct Range(Vec<VersionReq>);

impl Range {
    pub fn parse(text: &str) -> Result<Self, String> {
        let alternatives = text.split("||").map(|part| {
            let comparators = comparators(part);
            VersionReq::parse(&comparators).map_err(|error| format!("`{}`: {error}", part.trim()))
        });
        alternatives.collect::<Result<_, _>>().map(Range)
    }

    /// Whether the version is in the range. A pre-release is in it only if `prerelease` is set, and if the
    /// range contains it or the release to which it leads.
    pub fn contains(&self, version: &Version, prerelease: bool) -> bool {
        if version.pre.is_empty() {
            return self.0.iter().any(|range| range.matches(version));
        }
        // The semver crate matches a pre-release only if a comparator names a pre-release of the same
        // version.
        let release = Version { pre: Prerelease::EMPTY, ..version.clone() };
        prerelease && self.0.iter().any(|range| range.matches(version) || range.matches(&release))
    }
}

/// Puts commas between comparators, and `=` before bare versions.
fn comparators(part: &str) -> String {
    let mut out: Vec<String> = Vec::new();
    let mut operator = String::new();
    for word in part.split([',', ' ']).filter(|word| !word.is_empty()) {
        let digits = word.trim_start_matches(['<', '>', '=', '~', '^']);
        operator.push_str(&word[..word.len() - digits.len()]);
        if digits.is_empty() {
            continue;
        }
        let digits = digits.strip_prefix('v').unwrap_or(digits);
        let wildcard = digits.contains(['*', 'x', 'X']);
        let sign = if operator.is_empty() && !wildcard { "=" } else { operator.as_str() };
        out.push(format!("{sign}{digits}"));
        operator.clear();
    }
    out.push(operator);
    out.retain(|comparator| !comparator.is_empty());
    out.join(", ")
}
