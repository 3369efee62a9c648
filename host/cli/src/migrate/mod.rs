//! `dray migrate`: makes a policy of another tool's configuration. What the policy language cannot say is told, line by
//! line, and stands in the policy as a comment.

mod check;
mod draft;
mod dregsy;
mod harbor;
mod image_lists;
mod image_syncer;
mod regsync;
mod skopeo;
mod zot;

use crate::{
    DONE, FAILED,
    args::{MigrateKind, MigrateOptions},
    failure::Failure,
    output::{self, tell},
};
use draft::Draft;
use dray_core::{Yaml, policy};
use std::{fs, path::Path};

/// What a reader of a file is told beside the file.
pub struct Asked<'a> {
    /// Where images go if the file does not say so, without a `/` at the end.
    pub to: Option<&'a str>,
    /// Whether destinations keep the whole name of the source.
    pub scoped: bool,
    /// The file, as the user named it.
    pub file: &'a Path,
}

impl Asked<'_> {
    /// Where images go, for files that do not say so.
    fn destination(&self) -> Result<&str, Wrong> {
        let text = "it does not say where its images go; --to docker://mirror.example.com says so";
        self.to.ok_or_else(|| Wrong { line: None, text: text.into() })
    }
}

/// Why a file is not read.
#[derive(Debug)]
pub struct Wrong {
    line: Option<usize>,
    text: String,
}

impl Wrong {
    /// What is wrong.
    pub fn text(&self) -> String {
        self.text.clone()
    }

    /// A mistake at a value.
    pub fn at(value: &Yaml, text: impl Into<String>) -> Self {
        Wrong { line: Some(value.line), text: text.into() }
    }
}

pub fn run(options: &MigrateOptions) -> Result<u8, Failure> {
    let mut draft = Draft::default();
    if let Some(to) = options.to.as_ref().filter(|to| to.parse::<dray_core::Reference>().is_err()) {
        return Err(Failure::usage(format!("migrate to {to}: it names no transport; write docker://{to}")));
    }
    let mut kinds = Vec::new();
    let to = options.to.as_deref().map(|to| to.trim_end_matches('/'));
    for file in &options.files {
        let asked = Asked { to, scoped: options.scoped, file };
        let text = crate::lock_file::bounded(file)
            .map_err(|error| Failure::usage(format!("read {}: {error}", file.display())))?;
        let read = read(&text, options.kind, &asked, &mut draft);
        kinds.push(read.map_err(|Wrong { line, text }| {
            let at = line.map_or_else(String::new, |line| format!(":{line}"));
            Failure::usage(format!("migrate {}{at}: {text}", file.display()))
        })?);
    }
    let text = draft.text();
    // What is written must be what dray reads. A mistake here is one of dray.
    let problems = policy::parse(&text).err().map(|error| error.0).unwrap_or_default();
    if let Some(problem) = problems.first() {
        let error = dray_engine::Error::new(
            dray_engine::Kind::Invalid,
            format!("make a policy: dray does not understand what it wrote itself: {}", problem.message),
        );
        return Err(Failure::Failed(error.help("--kind says of which tool a file is")));
    }
    for left in draft.left() {
        tell!("{left}");
    }
    match &options.out {
        None => output::print(&text),
        Some(path) => {
            let failed = |error| Failure::usage(format!("write {}: {error}", path.display()));
            let mut new = fs::OpenOptions::new();
            let file = new.write(true).create_new(true).open(path).map_err(failed)?;
            std::io::Write::write_all(&mut &file, text.as_bytes()).map_err(failed)?;
            tell!(
                "wrote {} with {} rules; `dray plan {}` shows what it does",
                path.display(),
                draft.rules.len(),
                path.display()
            );
        }
    }
    if !options.check {
        return Ok(DONE);
    }
    match check::compare(&text, options, kinds.first().copied())? {
        true => Ok(DONE),
        false => Ok(FAILED),
    }
}

/// Adds what a file says to a draft. Returns of which tool it is.
fn read(
    text: &str,
    kind: Option<MigrateKind>,
    asked: &Asked<'_>,
    draft: &mut Draft,
) -> Result<MigrateKind, Wrong> {
    let documents = match Yaml::documents(text) {
        Ok(documents) => documents,
        // A list with one image a line is no YAML where a tag follows a colon and a space, for instance.
        Err(_) if kind.is_none_or(|kind| kind == MigrateKind::Images) => Vec::new(),
        Err(error) => return Err(Wrong { line: Some(error.line), text: error.text }),
    };
    let kind = kind.or_else(|| documents.iter().find_map(kind_of)).unwrap_or(MigrateKind::Images);
    draft.source(asked.file, kind);
    if kind == MigrateKind::Images {
        return image_lists::images(text, asked, draft).map(|()| kind);
    }
    if documents.is_empty() {
        return Err(Wrong { line: Some(1), text: "it is empty".into() });
    }
    for document in &documents {
        match kind {
            MigrateKind::Skopeo => skopeo::read(document, asked, draft)?,
            MigrateKind::Regsync => regsync::read(document, draft)?,
            MigrateKind::ImageSyncer => image_syncer::read(document, draft)?,
            MigrateKind::Dregsy => dregsy::read(document, draft)?,
            MigrateKind::Zot => zot::read(document, asked, draft)?,
            MigrateKind::OcMirror => image_lists::oc_mirror(document, asked, draft)?,
            MigrateKind::Hauler => image_lists::hauler(document, asked, draft)?,
            MigrateKind::Harbor => harbor::read(document, asked, draft)?,
            MigrateKind::Images => {}
        }
    }
    Ok(kind)
}

/// Of which tool a document is. `None` means that it is none of them.
fn kind_of(document: &Yaml) -> Option<MigrateKind> {
    let has = |key: &str| document.get(key).is_some();
    let first = document.items().first().unwrap_or(document);
    let kind = document.get("kind").and_then(Yaml::text);
    let entries = document.entries();
    let any = |test: &dyn Fn(&Yaml) -> bool| entries.iter().any(|(_, value)| test(value));
    let skopeo = ["images", "images-by-tag-regex", "images-by-semver"];
    Some(match kind {
        Some("ImageSetConfiguration") => MigrateKind::OcMirror,
        Some("Images") => MigrateKind::Hauler,
        // Other kinds are manifests of Kubernetes.
        Some(_) => MigrateKind::Images,
        None if has("sync") => MigrateKind::Regsync,
        None if has("tasks") => MigrateKind::Dregsy,
        None if has("extensions") || has("http") && has("storage") => MigrateKind::Zot,
        None if first.get("src_registry").is_some() || first.get("dest_registry").is_some() => {
            MigrateKind::Harbor
        }
        None if any(&|value| skopeo.iter().any(|key| value.get(key).is_some())) => MigrateKind::Skopeo,
        None if any(&|value| value.get("username").is_some() || value.get("insecure").is_some()) => {
            MigrateKind::ImageSyncer
        }
        None if entries.iter().any(|(key, value)| {
            let combined = matches!(key.as_str(), "auth" | "images") && !value.entries().is_empty();
            let to = |to: &Yaml| to.text().is_some_and(|to| to.contains('/'));
            combined || to(value) || (!value.items().is_empty() && value.items().iter().all(to))
        }) =>
        {
            MigrateKind::ImageSyncer
        }
        None => return None,
    })
}

/// A text of a map.
pub fn text<'a>(of: &'a Yaml, key: &str) -> Option<&'a str> {
    of.get(key).and_then(Yaml::text).filter(|text| !text.is_empty())
}

/// Texts of a list, or one text.
pub fn texts(of: &Yaml, key: &str) -> Vec<String> {
    let Some(value) = of.get(key) else { return Vec::new() };
    match value.text() {
        Some(text) => vec![text.to_owned()],
        None => value.items().iter().map(ToString::to_string).collect(),
    }
}

/// Tells of each key that is not among those that are understood.
pub fn others(draft: &mut Draft, of: &Yaml, known: &[&str], what: &str) {
    for (key, value) in of.entries() {
        if !known.contains(&key.as_str()) {
            draft.leave(value, format!("`{key}` of {what} has no counterpart: {value}"));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn files_are_told_apart() {
        for (text, kind) in [
            ("r.example:\n  images: {a: []}", Some(MigrateKind::Skopeo)),
            ("version: 1\nsync: [{source: a, target: b, type: image}]", Some(MigrateKind::Regsync)),
            ("{\"r.example\": {\"username\": \"u\"}}", Some(MigrateKind::ImageSyncer)),
            ("{\"r.example/a:1\": \"s.example/a\"}", Some(MigrateKind::ImageSyncer)),
            ("r.example/a:\n  - s.example/a", Some(MigrateKind::ImageSyncer)),
            ("tasks: []", Some(MigrateKind::Dregsy)),
            ("{\"extensions\": {\"sync\": {\"registries\": []}}}", Some(MigrateKind::Zot)),
            ("kind: ImageSetConfiguration", Some(MigrateKind::OcMirror)),
            ("kind: Images", Some(MigrateKind::Hauler)),
            ("[{\"src_registry\": {\"id\": 1}}]", Some(MigrateKind::Harbor)),
            ("kind: Deployment", Some(MigrateKind::Images)),
            ("nginx:1.27\nredis:7\n", None),
        ] {
            let documents = Yaml::documents(text).unwrap();
            assert_eq!(documents.iter().find_map(kind_of), kind, "{text}");
        }
    }
}
