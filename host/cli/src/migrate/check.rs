//! `--check`: what the old tool would copy, and what the new policy would.

use crate::{
    args::{MigrateKind, MigrateOptions},
    failure::Failure,
    output::tell,
};
use std::{collections::BTreeSet, path::Path, process::Command};

/// A source and a destination.
type Pair = (String, String);

fn failed(text: impl std::fmt::Display) -> Failure {
    Failure::usage(format!("compare with the old tool: {text}"))
}

/// Compares both, and tells what only one of them copies. Returns whether they are the same.
pub fn compare(policy: &str, options: &MigrateOptions, kind: Option<MigrateKind>) -> Result<bool, Failure> {
    if kind != Some(MigrateKind::Skopeo) {
        return Err(failed("only skopeo says what it would copy in a form that dray reads"));
    }
    let (Some(to), [file]) = (&options.to, &options.files[..]) else {
        return Err(failed("--check is for one file, with --to"));
    };
    let old = skopeo(file, to, options.scoped)?;
    let new = planned(policy)?;
    for (source, destination) in old.difference(&new) {
        tell!("only skopeo copies {source} to {destination}");
    }
    for (source, destination) in new.difference(&old) {
        tell!("only dray copies {source} to {destination}");
    }
    match old == new {
        true => tell!("skopeo and the policy copy the same {} images", old.len()),
        false => tell!("{} of skopeo's {} images are the same", old.intersection(&new).count(), old.len()),
    }
    Ok(old == new)
}

/// What skopeo says that it would copy.
fn skopeo(file: &Path, to: &str, scoped: bool) -> Result<BTreeSet<Pair>, Failure> {
    let destination = to.strip_prefix("docker://").ok_or_else(|| failed("--to is no registry"))?;
    let mut command = Command::new("skopeo");
    command.args(["sync", "--dry-run", "--src", "yaml", "--dest", "docker"]);
    if scoped {
        command.arg("--scoped");
    }
    let output = command.arg(file).arg(destination.trim_end_matches('/')).output();
    let output = output.map_err(|error| failed(format!("skopeo cannot be run: {error}")))?;
    let said = String::from_utf8_lossy(&output.stderr);
    if !output.status.success() {
        return Err(failed(format!("skopeo failed: {}", said.lines().next_back().unwrap_or_default())));
    }
    let value = |line: &str, key: &str| {
        let rest = line.split_once(&format!("{key}="))?.1;
        let text =
            rest.strip_prefix('"').and_then(|rest| rest.split('"').next()).or(rest.split(' ').next())?;
        Some(text.trim_start_matches("docker://").to_owned())
    };
    let lines = said.lines().filter(|line| line.contains("Would have copied image"));
    Ok(lines.filter_map(|line| Some((value(line, "from")?, value(line, "to")?))).collect())
}

/// What the new policy would copy, or has copied already.
fn planned(policy: &str) -> Result<BTreeSet<Pair>, Failure> {
    let folder = tempfile::tempdir().map_err(failed)?;
    let path = folder.path().join("dray.toml");
    std::fs::write(&path, policy).map_err(failed)?;
    let own = std::env::current_exe().map_err(failed)?;
    let output = Command::new(own).args(["plan", "--output", "json"]).arg(&path).output().map_err(failed)?;
    let plan: serde_json::Value = serde_json::from_slice(&output.stdout).map_err(|_| {
        failed(format!("the policy cannot be planned: {}", String::from_utf8_lossy(&output.stderr).trim()))
    })?;
    let items = plan["copies"].as_array().cloned().unwrap_or_default();
    let text = |item: &serde_json::Value, key: &str| {
        item[key].as_str().map(|text| text.trim_start_matches("docker://").to_owned())
    };
    let copied = items.iter().filter(|item| item["action"] == "copy" || item["action"] == "unchanged");
    Ok(copied.filter_map(|item| Some((text(item, "source")?, text(item, "destination")?))).collect())
}
