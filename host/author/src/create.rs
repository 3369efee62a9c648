//! Makes the project of a new plugin.

use crate::{Error, Kind, Language, Project, Result, bindings::bindings_of_c};
use std::{
    fs,
    io::Write,
    path::{Path, PathBuf},
};

include!(concat!(env!("OUT_DIR"), "/sdk.rs"));

/// The contract.
const CONTRACT: &str = include_str!("../../../wit/plugin.wit");

/// What the SDK's crates share: versions and settings.
const WORKSPACE: &str = include_str!("../../../plugins/Cargo.toml");

/// A plugin that is to be made.
#[derive(Clone, Debug)]
pub struct Creation<'a> {
    /// Its name: small letters, digits and hyphens.
    pub name: &'a str,
    /// What it is.
    pub kind: Kind,
    /// The language in which it is written.
    pub language: Language,
    /// The folder, which must not exist, or be empty.
    pub folder: &'a Path,
}

/// The files of a template, by their paths. `{name}`, `{type}` and `{version}` stand for those of the plugin.
type Template = &'static [(&'static str, &'static str)];

macro_rules! template {
    ($folder:literal: $($path:literal),+ $(,)?) => {
        &[$(($path, include_str!(concat!("../templates/", $folder, "/", $path, ".in")))),+]
    };
}

const FILTER: Template = template!("rust/filter": "src/lib.rs", "src/schema.json", "fixtures/suffix.toml", "fixtures/mistake.toml");
const AUTH: Template = template!("rust/auth": "src/lib.rs", "src/schema.json", "fixtures/exchange.toml", "fixtures/refused.toml");
const VERIFIER: Template = template!("rust/verifier": "src/lib.rs", "src/schema.json", "fixtures/note.toml");
const DIALECT: Template = template!("rust/dialect": "src/lib.rs", "fixtures/list.toml");
const TRANSPORT: Template = template!("rust/transport": "src/lib.rs", "fixtures/read.toml");
const MAPPER: Template = template!("rust/mapper": "src/lib.rs", "src/schema.json", "fixtures/prefix.toml", "fixtures/mistake.toml");
const OBSERVER: Template =
    template!("rust/observer": "src/lib.rs", "src/schema.json", "fixtures/failures.toml");
const RUST: Template = template!("rust": "Cargo.toml", "README.md", ".gitignore");
const SUFFIX: Template = template!("rust/filter": "fixtures/suffix.toml", "fixtures/mistake.toml");
const PYTHON: Template = template!("python": "plugin.py", "README.md", ".gitignore");
const JAVASCRIPT: Template = template!("js": "plugin.js", "README.md", ".gitignore");
const C: Template = template!("c": "plugin.c", "runtime.c", "include/stdlib.h", "include/string.h", "README.md", ".gitignore");

/// The crates of the SDK that a kind uses, beside `dray-plugin`.
fn crates(kind: Kind) -> &'static [&'static str] {
    match kind {
        Kind::Filter => &["filter"],
        Kind::Auth => &["auth"],
        Kind::Transport => &["source", "transport"],
        Kind::Verifier => &["verifier"],
        Kind::Dialect => &["dialect"],
        Kind::Mapper => &["mapper"],
        Kind::Observer => &["observer"],
    }
}

/// Makes a project. Returns the files that were written.
///
/// # Errors
/// Fails if the name is none, if the folder holds something, if the language has no template of this kind, or if a file cannot be
/// written.
pub fn create(creation: &Creation<'_>) -> Result<Vec<PathBuf>> {
    let Creation { name, kind, language, folder } = *creation;
    Project::check_name(name)?;
    if fs::read_dir(folder).is_ok_and(|mut entries| entries.next().is_some()) || folder.is_file() {
        return Err(Error::new(format!("make {}: something is there already", folder.display()))
            .help("name another folder, or move what is there"));
    }
    let project =
        Project { name: name.into(), version: "0.1.0".into(), kind, license: "Apache-2.0".into(), language };
    let mut files = Vec::new();
    let mut add = |path: &str, text: String| files.push((PathBuf::from(path), text));
    add(Project::FILE, manifest(&project));
    let templates: &[Template] = match (language, kind) {
        (Language::Rust, Kind::Filter) => &[RUST, FILTER],
        (Language::Rust, Kind::Auth) => &[RUST, AUTH],
        (Language::Rust, Kind::Verifier) => &[RUST, VERIFIER],
        (Language::Rust, Kind::Dialect) => &[RUST, DIALECT],
        (Language::Rust, Kind::Transport) => &[RUST, TRANSPORT],
        (Language::Rust, Kind::Mapper) => &[RUST, MAPPER],
        (Language::Rust, Kind::Observer) => &[RUST, OBSERVER],
        (Language::Python, Kind::Filter) => &[PYTHON, SUFFIX],
        (Language::JavaScript, Kind::Filter) => &[JAVASCRIPT, SUFFIX],
        (Language::C, Kind::Filter) => &[C, SUFFIX],
        (language, _) => {
            let (at, language) = (folder.display(), language.name());
            let text = format!("make {at}: there is no template of the kind {kind} for {language}");
            return Err(Error::new(text).help("write it in Rust: --lang rust"));
        }
    };
    for (path, text) in templates.iter().copied().flatten() {
        add(path, filled(text, &project));
    }
    for (path, text) in embedded(language, kind) {
        add(&path, text);
    }
    for (path, text) in &files {
        write(&folder.join(path), text)?;
    }
    if language == Language::C {
        // To be read: each build makes its own.
        bindings_of_c(&folder.join("wit"), &folder.join("gen"))?;
    }
    Ok(files.into_iter().map(|(path, _)| path).collect())
}

/// The version of the contract.
fn version() -> &'static str {
    let version = CONTRACT.lines().find_map(|line| line.strip_prefix("package dray:plugin@"));
    version.unwrap_or_default().trim_end_matches(';')
}

/// The world of a kind in the contract.
fn world(kind: Kind) -> &'static str {
    match kind {
        Kind::Auth => "auth-provider",
        Kind::Transport => "source-transport",
        other => other.name(),
    }
}

/// What a project holds of dray: the contract, and for Rust the SDK.
fn embedded(language: Language, kind: Kind) -> Vec<(String, String)> {
    match language {
        Language::Rust => vendored(kind),
        Language::Python | Language::JavaScript | Language::C => {
            let (world, version) = (world(kind), version());
            let own = format!(
                "package local:plugin;\n\nworld plugin {{\n  include dray:plugin/{world}@{version};\n}}\n"
            );
            vec![("wit/plugin.wit".into(), own), ("wit/deps/dray/plugin.wit".into(), CONTRACT.to_owned())]
        }
    }
}

/// Writes the contract and the SDK of this dray into a project in place of those that it holds. Returns the files.
///
/// # Errors
/// Fails if the folder holds no project, or if a file cannot be written.
pub fn vendor(folder: &Path) -> Result<Vec<PathBuf>> {
    let project = Project::read(folder)?;
    let mut written = Vec::new();
    if project.language == Language::Rust {
        // A file that the SDK does not have any more must not stay.
        remove(folder, "vendor/sdk")?;
    }
    for (path, text) in embedded(project.language, project.kind) {
        remove(folder, &path)?;
        write(&folder.join(&path), &text)?;
        written.push(PathBuf::from(path));
    }
    if project.language == Language::C {
        remove(folder, "gen")?;
        bindings_of_c(&folder.join("wit"), &folder.join("gen"))?;
    }
    Ok(written)
}

/// Removes a file or a folder of a project. What is not there is removed already.
///
/// # Errors
/// Fails if it is reached through a link, which may lead out of the project.
fn remove(project: &Path, path: &str) -> Result<()> {
    let mut at = project.to_owned();
    for part in Path::new(path) {
        at.push(part);
        if fs::symlink_metadata(&at).is_ok_and(|about| about.is_symlink()) {
            return Err(Error::new(format!(
                "write {}: it is a link, which may lead out of the project",
                at.display()
            ))
            .help("remove the link, and run the command again"));
        }
    }
    let removed = match fs::symlink_metadata(&at) {
        Ok(about) if about.is_dir() => fs::remove_dir_all(&at),
        Ok(_) => fs::remove_file(&at),
        Err(_) => return Ok(()),
    };
    removed.map_err(|error| Error::io(format!("remove {}", at.display()), &error))
}

fn manifest(project: &Project) -> String {
    let Project { name, version, kind, license, .. } = project;
    let language = project.language.name();
    format!(
        "# What `dray plugin` knows of this project.\nname = \"{name}\"\nversion = \"{version}\"\nkind = \"{kind}\"\nlicense = \"{license}\"\nlanguage = \"{language}\"\n"
    )
}

/// A template with what it leaves open.
fn filled(text: &str, project: &Project) -> String {
    let words = project.name.split('-').filter(|word| !word.is_empty());
    let capital = |word: &str| word[..1].to_ascii_uppercase() + &word[1..];
    // The type must not have the name of one of the SDK.
    let kind = words.map(capital).collect::<String>() + "Plugin";
    let dependencies: String = crates(project.kind)
        .iter()
        .map(|name| format!("dray-plugin-{name} = {{ path = \"vendor/sdk/{name}\" }}\n"))
        .collect();
    text.replace("{{name}}", &project.name)
        .replace("{{crate}}", &project.name.replace('-', "_"))
        .replace("{{type}}", &kind)
        .replace("{{version}}", &project.version)
        .replace("{{kind}}", project.kind.name())
        .replace("{{dependencies}}", dependencies.trim_end())
}

/// The SDK of a kind, as a workspace of its own in `vendor`, and the contract in each of its crates.
fn vendored(kind: Kind) -> Vec<(String, String)> {
    let used = crates(kind);
    let is_used = |path: &str| {
        let name = path.split('/').next().unwrap_or_default();
        name == "common" || used.contains(&name)
    };
    let mut files: Vec<(String, String)> = SDK
        .iter()
        .filter(|(path, _)| is_used(path))
        .map(|(path, text)| (format!("vendor/sdk/{path}"), (*text).to_owned()))
        .collect();
    files.extend(used.iter().map(|name| (format!("vendor/sdk/{name}/wit/plugin.wit"), CONTRACT.to_owned())));
    let members = WORKSPACE.lines().map(|line| match line.starts_with("members = ") {
        true => "members = [\"sdk/*\"]",
        false => line,
    });
    let mut workspace = members.collect::<Vec<_>>().join("\n");
    workspace.push('\n');
    files.push(("vendor/Cargo.toml".into(), workspace));
    files
}

/// Writes a new file.
fn write(path: &Path, text: &str) -> Result<()> {
    let doing = || format!("write {}", path.display());
    if let Some(folder) = path.parent() {
        fs::create_dir_all(folder).map_err(|error| Error::io(doing(), &error))?;
    }
    let mut file = fs::OpenOptions::new()
        .write(true)
        .create_new(true)
        .open(path)
        .map_err(|error| Error::io(doing(), &error))?;
    file.write_all(text.as_bytes()).map_err(|error| Error::io(doing(), &error))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_does_everywhere() {
        for good in ["a", "release-tags", "v2"] {
            assert!(Project::check_name(good).is_ok(), "{good}");
        }
        for bad in ["", "dray-plugin-filter", "2v", "Release", "a_b", "../a", "a-", "-a", "a b", "ä"] {
            assert!(Project::check_name(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn a_project_is_whole_and_nothing_is_written_over() {
        let folder = tempfile::tempdir().unwrap();
        let at = folder.path().join("tags");
        let creation =
            Creation { name: "release-tags", kind: Kind::Filter, language: Language::Rust, folder: &at };
        let files = create(&creation).unwrap();
        for file in ["dray-plugin.toml", "Cargo.toml", "src/lib.rs", "vendor/sdk/filter/wit/plugin.wit"] {
            assert!(files.contains(&PathBuf::from(file)), "{file}");
        }
        assert!(!files.iter().any(|file| file.starts_with("vendor/sdk/auth")));
        let source = fs::read_to_string(at.join("src/lib.rs")).unwrap();
        assert!(source.contains("struct ReleaseTagsPlugin") && !source.contains("{{"), "{source}");
        let project = Project::read(&at).unwrap();
        assert_eq!((project.name.as_str(), project.kind), ("release-tags", Kind::Filter));
        assert!(create(&creation).unwrap_err().text.contains("something is there"));
    }

    #[test]
    fn nothing_is_renewed_through_a_link() {
        let folder = tempfile::tempdir().unwrap();
        let (at, other) = (folder.path().join("tags"), folder.path().join("other"));
        create(&Creation { name: "tags", kind: Kind::Filter, language: Language::Rust, folder: &at })
            .unwrap();
        vendor(&at).unwrap();
        fs::rename(at.join("vendor"), &other).unwrap();
        fs::write(other.join("sdk/precious"), "x").unwrap();
        std::os::unix::fs::symlink(&other, at.join("vendor")).unwrap();
        assert!(vendor(&at).unwrap_err().text.contains("it is a link"));
        assert!(other.join("sdk/precious").exists());
    }

    #[test]
    fn a_mistake_in_the_manifest_has_its_line() {
        let folder = tempfile::tempdir().unwrap();
        fs::write(folder.path().join(Project::FILE), "name = \"a\"\nversion = \"1\"\nkind = \"fliter\"\n")
            .unwrap();
        let error = Project::read(folder.path()).unwrap_err();
        assert!(error.text.contains("dray-plugin.toml:3:") && error.text.contains("fliter"), "{error}");
    }
}
