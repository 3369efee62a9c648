//! Completion in shells. The script of a shell asks dray itself what can stand at a place of the command line, so that
//! it knows schemes, policies and the rules in them.

use crate::{args, help, policy};
use clap_complete::{
    CompleteEnv,
    engine::{ArgValueCandidates, ArgValueCompleter, CompletionCandidate, PathCompleter, ValueCompleter},
    env::Shells,
};
use std::{
    ffi::OsStr,
    io,
    path::{Path, PathBuf},
};

/// The variable by which a script asks, and the name of the program.
const ASKS: &str = "COMPLETE";
const NAME: &str = "dray";

/// What begins a reference, and whether a path follows.
const SCHEMES: [(&str, bool); 9] = [
    ("docker://", false),
    ("oci:", true),
    ("oci-archive:", true),
    ("docker-archive:", true),
    ("docker-daemon:", false),
    ("containers-storage:", false),
    ("registry-storage:", false),
    ("dir:", true),
    ("tarball:", true),
];

/// Answers a shell's question and ends the process, if this process was started for that.
pub fn answer() {
    CompleteEnv::with_factory(help::command).var(ASKS).bin(NAME).completer(NAME).complete();
}

/// The script that makes a shell ask.
///
/// # Errors
/// Fails if no such shell is known.
pub fn script(shell: &str) -> io::Result<String> {
    let mut script = Vec::new();
    let shells = Shells::builtins();
    let known = shells.completer(shell).ok_or_else(|| io::Error::other("no such shell is known"))?;
    known.write_registration(ASKS, NAME, NAME, NAME, &mut script)?;
    Ok(String::from_utf8_lossy(&script).into_owned())
}

/// Completes references: a scheme, and then a path where one follows.
pub fn references() -> ArgValueCompleter {
    ArgValueCompleter::new(|current: &OsStr| {
        let Some(text) = current.to_str() else { return Vec::new() };
        let path =
            SCHEMES.iter().find_map(|(scheme, path)| path.then(|| text.strip_prefix(scheme)).flatten());
        match path {
            Some(path) => {
                let scheme = &text[..text.len() - path.len()];
                let paths = PathCompleter::any().complete(OsStr::new(path));
                paths.into_iter().map(|candidate| candidate.add_prefix(scheme)).collect()
            }
            None => {
                let begun = SCHEMES.iter().filter(|(scheme, _)| scheme.starts_with(text));
                begun.map(|(scheme, _)| CompletionCandidate::new(scheme)).collect()
            }
        }
    })
}

/// Completes the paths of policies.
pub fn policies() -> ArgValueCompleter {
    let is_policy = |path: &Path| path.extension().is_some_and(|extension| extension == "toml");
    ArgValueCompleter::new(PathCompleter::file().filter(is_policy).stdio())
}

/// Completes the names of rules: those of the policies on the command line, or else of `dray.toml`.
pub fn rules() -> ArgValueCandidates {
    ArgValueCandidates::new(|| {
        let named: Vec<PathBuf> = std::env::args_os()
            .skip(1)
            .map(PathBuf::from)
            .filter(|path| path.extension().is_some_and(|extension| extension == "toml") && path.is_file())
            .collect();
        let policies = if named.is_empty() { vec![PathBuf::from(args::POLICY)] } else { named };
        // A policy with mistakes has no rules yet.
        let Ok(loaded) = policy::load(&policies) else { return Vec::new() };
        loaded.policy.rules.iter().map(|rule| CompletionCandidate::new(&rule.name.value)).collect()
    })
}
