//! `dray-plugin.toml`: what a plugin's project says of it.

use crate::{Error, Result};
use serde::{Deserialize, Serialize};
use std::{fmt, fs, path::Path, str::FromStr};

/// What a plugin is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Kind {
    /// It selects tags.
    Filter,
    /// It provides credentials.
    Auth,
    /// It reads images in a kind of place.
    Transport,
    /// It judges images.
    Verifier,
    /// It knows one kind of registry.
    Dialect,
    /// It renames tags.
    Mapper,
    /// It hears what a run did.
    Observer,
}

impl Kind {
    /// All of them.
    pub const ALL: [Kind; 7] = [
        Kind::Filter,
        Kind::Auth,
        Kind::Transport,
        Kind::Verifier,
        Kind::Dialect,
        Kind::Mapper,
        Kind::Observer,
    ];

    /// The name that the command line and `dray-plugin.toml` use.
    pub fn name(self) -> &'static str {
        match self {
            Kind::Filter => "filter",
            Kind::Auth => "auth",
            Kind::Transport => "transport",
            Kind::Verifier => "verifier",
            Kind::Dialect => "dialect",
            Kind::Mapper => "mapper",
            Kind::Observer => "observer",
        }
    }
}

impl FromStr for Kind {
    type Err = Error;

    fn from_str(text: &str) -> Result<Self> {
        let found = Kind::ALL.into_iter().find(|kind| kind.name() == text);
        found.ok_or_else(|| Error::new(format!("make a plugin of the kind `{text}`: there is no such kind")))
    }
}

impl fmt::Display for Kind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

/// The language in which a plugin is written.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Language {
    /// Rust, with dray's SDK.
    Rust,
    /// Python, with componentize-py.
    Python,
    /// JavaScript, with jco and QuickJS.
    #[serde(rename = "js")]
    JavaScript,
    /// C, with clang.
    C,
}

impl Language {
    /// All of them.
    pub const ALL: [Language; 4] = [Language::Rust, Language::Python, Language::JavaScript, Language::C];

    /// The name that the command line and `dray-plugin.toml` use.
    pub fn name(self) -> &'static str {
        match self {
            Language::Rust => "rust",
            Language::Python => "python",
            Language::JavaScript => "js",
            Language::C => "c",
        }
    }
}

impl FromStr for Language {
    type Err = Error;

    fn from_str(text: &str) -> Result<Self> {
        let found = Language::ALL.into_iter().find(|language| language.name() == text);
        found.ok_or_else(|| Error::new(format!("make a plugin in `{text}`: there is no such language")))
    }
}

/// The content of `dray-plugin.toml`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Project {
    /// The name by which policies use it.
    pub name: String,
    /// Its version (SemVer).
    pub version: String,
    /// What it is.
    pub kind: Kind,
    /// Its licence, as an SPDX expression.
    pub license: String,
    /// The language in which it is written.
    pub language: Language,
}

impl Project {
    /// The name of the file.
    pub const FILE: &str = "dray-plugin.toml";

    /// Checks that a name does as a package, as a file and as a key of TOML.
    pub(crate) fn check_name(name: &str) -> Result<()> {
        let first = name.bytes().next().is_some_and(|byte| byte.is_ascii_lowercase());
        let plain =
            name.bytes().all(|byte| byte.is_ascii_lowercase() || byte.is_ascii_digit() || byte == b'-');
        // A package cannot depend on one of its own name.
        let taken = name == "dray-plugin" || name.starts_with("dray-plugin-");
        match first && plain && name.len() <= 64 && !name.ends_with('-') && !taken {
            true => Ok(()),
            false => Err(Error::new(format!("name a plugin: `{name}` is no name of one")).help(
                "a name has small letters, digits and hyphens, begins with a letter, and not with dray-plugin: `release-tags`",
            )),
        }
    }

    /// Reads the file of a project's folder.
    ///
    /// # Errors
    /// Fails if the file is missing or malformed. The text names the line.
    pub fn read(folder: &Path) -> Result<Self> {
        let path = folder.join(Self::FILE);
        let text = fs::read_to_string(&path).map_err(|error| {
            Error::io(format!("read {}", path.display()), &error)
                .help("`dray plugin new NAME --kind filter` makes a project")
        })?;
        let project: Project = toml::from_str(&text).map_err(|error| {
            let line = error.span().map_or(1, |span| text[..span.start].matches('\n').count() + 1);
            Error::new(format!("read {}:{line}: {}", path.display(), error.message()))
                .help("its keys are name, version, kind (filter, auth, transport, verifier, dialect, mapper, observer), license and language (rust, python, js, c)")
        })?;
        // The name is that of the component's file, too.
        Self::check_name(&project.name)?;
        Ok(project)
    }
}
