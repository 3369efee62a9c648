//! Policies in files: the one that is named, and those that it includes.

use dray_core::{
    Digest, PolicyId,
    policy::{Policy, PolicyError, Problem, Variables, includes, parse_all},
};
use dray_engine::{Error, Kind};
use std::{
    collections::VecDeque,
    ops::Range,
    path::{Path, PathBuf},
};

/// Bytes of all files of a policy together. More is a mistake, such as a glob that matches data.
const LARGEST: usize = 16 << 20;
/// Files of a policy.
const FILES: usize = 1000;
/// Bytes by which all files together are shifted, so that positions count through them (decision 35).
const SHIFTS: usize = 256 << 20;

/// One file of a policy.
#[derive(Clone, Debug)]
pub struct PolicyText {
    /// Its path, or another name, for people.
    pub name: String,
    /// Its content.
    pub text: String,
}

/// The texts of a policy. Positions in the policy count through all of them.
#[derive(Clone, Debug, Default)]
pub struct PolicyTexts(Vec<PolicyText>);

/// Why a policy could not be read.
#[derive(Debug)]
pub enum ReadPolicyError {
    /// A file could not be read.
    Failed(Error),
    /// The policy is wrong.
    Wrong(PolicyTexts, PolicyError),
}

impl From<Error> for ReadPolicyError {
    fn from(error: Error) -> Self {
        ReadPolicyError::Failed(error)
    }
}

impl PolicyTexts {
    /// The text in which a position is, and where it is in it. `None` means that it is in no text.
    pub fn at(&self, span: &Range<usize>) -> Option<(&PolicyText, Range<usize>)> {
        let mut start = 0;
        for text in &self.0 {
            let end = start + text.text.len();
            if span.start <= end {
                return Some((text, span.start - start..span.end.min(end) - start));
            }
            // Each file counts for one byte more, so that its end is not the beginning of the next one.
            start = end + 1;
        }
        None
    }

    /// The first text, which includes the others.
    pub fn first(&self) -> Option<&PolicyText> {
        self.0.first()
    }

    /// The digest of all texts, and of what the environment and listed files made of them, by which a saved plan knows its
    /// policy.
    pub fn id(&self, path: &Path, policy: &Policy) -> PolicyId {
        let texts = self.0.iter().flat_map(|text| format!("{}\n{}", text.text.len(), text.text).into_bytes());
        let all: Vec<u8> = texts.chain(policy.to_toml().into_bytes()).collect();
        PolicyId { path: path.display().to_string(), digest: Digest::of(&all) }
    }

    fn len(&self) -> usize {
        self.0.iter().map(|text| text.text.len() + 1).sum()
    }
}

/// Reads a policy and the files that it includes.
///
/// `name` is for people, and `base` is the folder of the policy. A file that it includes may include others, relative
/// to its own folder. `more` are further policies, as if the first one included them. Each file counts once, however often
/// it is named.
///
/// # Errors
/// If a file cannot be read, an `include` names no file, or the policy is wrong.
pub fn read_policy(
    name: &str,
    text: String,
    base: &Path,
    more: &[PathBuf],
    environment: Variables<'_>,
) -> Result<(Policy, PolicyTexts), ReadPolicyError> {
    let mut texts = PolicyTexts::default();
    // A glob of a policy may match the policy itself.
    let mut seen: Vec<PathBuf> = Path::new(name).canonicalize().into_iter().collect();
    let mut shifts = 0;
    let mut waiting = VecDeque::from([(name.to_owned(), text, base.to_owned())]);
    for file in more {
        let read = read_once(file, &mut seen);
        waiting.extend(read.map_err(|(why, help)| {
            let why = why.trim_start_matches("failed to ");
            Error::new(Kind::Invalid, format!("read the policies: {why}")).help(help)
        })?);
    }
    while let Some((name, text, folder)) = waiting.pop_front() {
        let start = texts.len();
        let found = includes(&text, environment);
        texts.0.push(PolicyText { name, text });
        shifts += start;
        if texts.0.len() > 1 && (texts.0.len() > FILES || texts.len() > LARGEST || shifts > SHIFTS) {
            let text = format!(
                "read the policy: it includes {} files, which are too many or too large",
                texts.0.len() - 1
            );
            return Err(Error::new(Kind::Invalid, text).help("include fewer, and no data").into());
        }
        let shifted = |span: Range<usize>| span.start + start..span.end + start;
        let found = match found {
            Ok(found) => found,
            Err(PolicyError(mut problems)) => {
                for problem in &mut problems {
                    problem.span = problem.span.take().map(shifted);
                }
                return Err(ReadPolicyError::Wrong(texts, PolicyError(problems)));
            }
        };
        for include in found {
            let read = included(&folder, &include.value, &mut seen);
            waiting.extend(read.map_err(|(message, help)| {
                let problem = Problem::new(message, shifted(include.span.clone())).help(help);
                ReadPolicyError::Wrong(texts.clone(), PolicyError(vec![problem]))
            })?);
        }
    }
    let all: Vec<&str> = texts.0.iter().map(|text| text.text.as_str()).collect();
    let mut policy = match parse_all(&all, environment) {
        Ok(policy) => policy,
        Err(error) => return Err(ReadPolicyError::Wrong(texts, error)),
    };
    match policy.read_images(&mut |named| lists(base, named)) {
        Ok(()) => Ok((policy, texts)),
        Err(problems) => Err(ReadPolicyError::Wrong(texts, PolicyError(problems))),
    }
}

/// A file that is included: its name for people, its text, and its folder.
type Included = (String, String, PathBuf);

/// Reads the files that one entry of `include` names, but for those that were read before. An error is a sentence for people
/// and what to do about it.
fn included(
    folder: &Path,
    include: &str,
    seen: &mut Vec<PathBuf>,
) -> Result<Vec<Included>, (String, &'static str)> {
    let files = matching(folder, include).map_err(|error| {
        (format!("failed to {error}"), "name a file or a pattern of files, such as \"team/*.toml\"")
    })?;
    if files.is_empty() {
        let help = "paths are relative to the folder of the file that includes them";
        return Err((format!("`{include}` names no file"), help));
    }
    let read = files.iter().map(|file| read_once(file, seen));
    Ok(read.collect::<Result<Vec<_>, _>>()?.into_iter().flatten().collect())
}

/// Reads a file of a policy. `None` means that it was read before.
fn read_once(file: &Path, seen: &mut Vec<PathBuf>) -> Result<Option<Included>, (String, &'static str)> {
    let known = file.canonicalize().unwrap_or_else(|_| file.to_owned());
    if seen.contains(&known) {
        return Ok(None);
    }
    let shown = file.display().to_string();
    if std::fs::metadata(file).is_ok_and(|metadata| metadata.len() > LARGEST as u64) {
        let text = format!("{shown} has more than {LARGEST} bytes");
        return Err((text, "include policies alone, and no data"));
    }
    let text = std::fs::read_to_string(file).map_err(|error| {
        let help = match error.kind() {
            std::io::ErrorKind::NotFound => "check its name",
            std::io::ErrorKind::PermissionDenied => "let the user of dray read it",
            _ => "it must be a policy in UTF-8",
        };
        (format!("failed to read {shown}: {error}"), help)
    })?;
    seen.push(known);
    Ok(Some((shown, text, file.parent().unwrap_or(Path::new("")).to_owned())))
}

/// Files of a folder that are read for images.
const LISTS: usize = 10_000;
/// Folders within each other.
const DEPTH: usize = 16;

/// Names and texts of the files that `images-from` names: a file, a glob, or a folder with all lists and YAML files in it.
fn lists(base: &Path, named: &str) -> Result<Vec<(String, String)>, String> {
    let path = base.join(named);
    let mut files = Vec::new();
    if path.is_dir() {
        within(&path, DEPTH, &mut files)?;
    } else {
        files = matching(base, named).map_err(|error| error.to_string())?;
    }
    let mut size = 0;
    let mut texts = Vec::new();
    for file in files {
        size += std::fs::metadata(&file).map_or(0, |metadata| metadata.len());
        if size > LARGEST as u64 {
            return Err(format!("read {named}: its files have more than {LARGEST} bytes"));
        }
        let text =
            std::fs::read_to_string(&file).map_err(|error| format!("read {}: {error}", file.display()))?;
        texts.push((file.display().to_string(), text));
    }
    Ok(texts)
}

/// The lists and YAML files of a folder and of those in it, sorted. Links are not followed, so that there is no circle.
fn within(folder: &Path, depth: usize, files: &mut Vec<PathBuf>) -> Result<(), String> {
    let failed = |error: std::io::Error| format!("read {}: {error}", folder.display());
    let mut entries =
        std::fs::read_dir(folder).map_err(failed)?.collect::<Result<Vec<_>, _>>().map_err(failed)?;
    entries.sort_by_key(std::fs::DirEntry::file_name);
    for entry in entries {
        let (path, kind) = (entry.path(), entry.file_type().map_err(failed)?);
        let wanted = |end: &std::ffi::OsStr| ["yaml", "yml", "json", "txt"].iter().any(|known| end == *known);
        if kind.is_dir() && depth > 0 {
            within(&path, depth - 1, files)?;
        } else if kind.is_file() && path.extension().is_some_and(wanted) {
            files.push(path);
        }
        if files.len() > LISTS {
            return Err(format!("read {}: it has more than {LISTS} files", folder.display()));
        }
    }
    Ok(())
}

/// The files that a path or a glob names, sorted by name. Only the last part of a path may be a glob, so that it
/// matches within one folder.
fn matching(folder: &Path, include: &str) -> Result<Vec<PathBuf>, Error> {
    let (parent, last) = include.rsplit_once('/').unwrap_or(("", include));
    let failed = |path: &Path, error: std::io::Error| {
        Error::new(Kind::Io, format!("read {}: {error}", path.display()))
    };
    if !last.contains(['*', '?', '[', '{']) {
        let path = folder.join(include);
        return Ok(if path.is_file() { vec![path] } else { Vec::new() });
    }
    let within = folder.join(if include.starts_with('/') && parent.is_empty() { "/" } else { parent });
    let mut files = Vec::new();
    for entry in std::fs::read_dir(&within).map_err(|error| failed(&within, error))? {
        let entry = entry.map_err(|error| failed(&within, error))?;
        let name = entry.file_name();
        let hidden = name.to_string_lossy().starts_with('.');
        if !hidden && dray_core::matches(last, &name.to_string_lossy()) && entry.path().is_file() {
            files.push(entry.path());
        }
    }
    files.sort();
    Ok(files)
}
