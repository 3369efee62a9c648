//! Reading policies.

use crate::{
    DONE,
    failure::Failure,
    output::say,
    secrets::UserSecrets,
    setup::{Setup, SetupError},
};
use dray_core::policy::{Policy, PolicyError, Problem, suggestion};
use dray_engine::{BoundRule, bind};
use dray_runtime::Secrets;
use std::{
    io::Read,
    path::{Path, PathBuf},
};

/// A policy that was read, and where it came from.
pub struct Loaded {
    pub policy: Policy,
    /// What its relative paths are relative to.
    pub base: PathBuf,
    name: String,
    text: String,
}

/// Reads a policy from a file, or from standard input.
pub fn load(path: &Path) -> Result<Loaded, Failure> {
    let mut text = String::new();
    let (name, base) = if path == Path::new("-") {
        std::io::stdin()
            .read_to_string(&mut text)
            .map_err(|error| Failure::usage(format!("read the policy from standard input: {error}")))?;
        ("<stdin>".to_owned(), PathBuf::new())
    } else {
        text = std::fs::read_to_string(path)
            .map_err(|error| Failure::usage(format!("read the policy {}: {error}", path.display())))?;
        (path.display().to_string(), path.parent().unwrap_or(Path::new("")).to_owned())
    };
    let base = std::path::absolute(if base.as_os_str().is_empty() { Path::new(".") } else { &base });
    let base = base.map_err(|error| Failure::usage(format!("find the policy's folder: {error}")))?;
    match dray_core::policy::parse(&text) {
        Ok(policy) => Ok(Loaded { policy, base, name, text }),
        Err(error) => Err(Failure::Policy { name, text, error }),
    }
}

impl Loaded {
    /// Leaves the rules of these names alone; none: all.
    pub fn choose(&mut self, names: &[String]) -> Result<(), Failure> {
        let known: Vec<String> = self.policy.rules.iter().map(|rule| rule.name.value.clone()).collect();
        for name in names {
            if !known.contains(name) {
                let help = suggestion(name, known.iter().map(String::as_str))
                    .unwrap_or_else(|| format!("its rules are {}", known.join(", ")));
                let error = dray_engine::Error::new(
                    dray_engine::Kind::Invalid,
                    format!("find the rule `{name}`: {} has none of that name", self.name),
                );
                return Err(Failure::Usage(error.help(help)));
            }
        }
        if !names.is_empty() {
            self.policy.rules.retain(|rule| names.contains(&rule.name.value));
        }
        Ok(())
    }

    /// Brings policy and plugins together.
    pub async fn bind(mut self, serve: bool) -> Result<(Setup, Vec<BoundRule>), Failure> {
        let setup = match Setup::for_policy(&mut self.policy, &self.base, serve).await {
            Ok(setup) => setup,
            Err(SetupError::Policy(error)) => return Err(self.wrong(error)),
            Err(SetupError::Failed(error)) => return Err(error.into()),
        };
        match bind(&self.policy, &setup.places).await {
            Ok(rules) => Ok((setup, rules)),
            Err(error) => Err(self.wrong(error)),
        }
    }

    fn wrong(self, error: PolicyError) -> Failure {
        Failure::Policy { name: self.name, text: self.text, error }
    }
}

/// Secrets that the policy names and that are not there.
fn missing_secrets(loaded: &Loaded) -> Vec<Problem> {
    let secrets = UserSecrets { base: loaded.base.clone(), authfile: None };
    let mut problems = Vec::new();
    for call in loaded.policy.registries.values().flat_map(|registry| registry.auth.iter().flatten()) {
        for (key, named) in call.secrets() {
            if let Err(error) = secrets.get(&named) {
                let span = call.keys.get(key).unwrap_or(&call.span).clone();
                problems.push(Problem {
                    message: format!("failed to {error}"),
                    span: Some(span),
                    help: error.help,
                });
            }
        }
    }
    problems
}

/// `dray check`
pub async fn check(path: &Path) -> Result<u8, Failure> {
    let loaded = load(path)?;
    let name = loaded.name.clone();
    let missing = missing_secrets(&loaded);
    if !missing.is_empty() {
        return Err(loaded.wrong(PolicyError(missing)));
    }
    let (_, rules) = loaded.bind(false).await?;
    match rules.len() {
        0 => say!("{name} is sound, and has no rules"),
        1 => say!("{name} is sound: 1 rule"),
        count => say!("{name} is sound: {count} rules"),
    }
    Ok(DONE)
}
