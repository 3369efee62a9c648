//! `[plugin.NAME]`: where a component is, and what it may reach and use up.

use super::{
    Problem, SecretRef, Spanned,
    grant::is_host_grant,
    limits::duration,
    raw::{self, Table, string, strings, table},
};
use crate::{Digest, Reference};
use std::{collections::BTreeMap, fmt, path::PathBuf, str::FromStr, time::Duration};

/// A plugin that is not built in.
#[derive(Clone, Debug)]
pub struct Plugin {
    /// Where its component is.
    pub source: Spanned<PluginSource>,
    /// What it may reach.
    pub grant: Grant,
    /// What it may use up.
    pub limits: Limits,
    /// `[plugin.NAME.config]`.
    pub config: serde_json::Map<String, serde_json::Value>,
    /// `[plugin.NAME.at."GLOB"]`: the same for places whose location a glob matches, in the order of the globs.
    pub at: BTreeMap<String, serde_json::Map<String, serde_json::Value>>,
    /// Files of public keys, of which one must have signed it. Relative to the policy. An empty list demands no signature.
    pub trusted_keys: Vec<PathBuf>,
    /// Its component, once it was installed or its signature was checked. `None` means that neither happened.
    pub installed: Option<Installed>,
}

impl Plugin {
    /// A component at some source, to which nothing is granted.
    pub fn from_source(source: PluginSource) -> Self {
        Plugin {
            source: source.into(),
            grant: Grant::default(),
            limits: Limits::default(),
            config: serde_json::Map::new(),
            at: BTreeMap::new(),
            trusted_keys: Vec::new(),
            installed: None,
        }
    }
}

/// A configuration for a place: the usual keys, with those of each table over them whose glob matches the location, in the order of
/// the globs' letters.
///
/// ```
/// use dray_core::policy::config_at;
///
/// let text = "version = 1\n[plugin.s3]\nsource = \"s3.wasm\"\nconfig = { region = \"eu-west-1\", style = \"path\" }\n\
///     [plugin.s3.at.\"us.example.com/**\"]\nregion = \"us-east-1\"\n";
/// let policy = dray_core::policy::parse(text)?;
/// let plugin = &policy.plugins["s3"];
/// let config = config_at(&plugin.config, &plugin.at, "us.example.com/images/app");
/// assert_eq!((config["region"].as_str(), config["style"].as_str()), (Some("us-east-1"), Some("path")));
/// # Ok::<_, dray_core::policy::PolicyError>(())
/// ```
pub fn config_at(
    usual: &serde_json::Map<String, serde_json::Value>,
    at: &BTreeMap<String, serde_json::Map<String, serde_json::Value>>,
    location: &str,
) -> serde_json::Map<String, serde_json::Value> {
    let mut config = usual.clone();
    for (_, table) in at.iter().filter(|(glob, _)| crate::matches(glob, location)) {
        config.extend(table.clone());
    }
    config
}

/// Where the component of a plugin is.
///
/// ```
/// use dray_core::policy::PluginSource;
///
/// assert!(matches!("plugins/calver.wasm".parse()?, PluginSource::File(_)));
/// let PluginSource::Artifact(artifact) = "oci://r.example.com/plugins/calver:1.2".parse()? else { panic!() };
/// assert_eq!(artifact.reference.to_string(), "docker://r.example.com/plugins/calver:1.2");
/// assert!("oci://r.example.com/calver".parse::<PluginSource>().unwrap_err().contains("tag"));
/// # Ok::<_, String>(())
/// ```
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum PluginSource {
    /// A file. Relative to the policy.
    File(PathBuf),
    /// An artifact of a registry.
    Artifact(ArtifactSource),
}

/// A component in a registry, as `oci://HOST/REPOSITORY:TAG`, `…@DIGEST` or both.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ArtifactSource {
    /// The same as a reference of `docker://`. If it has a digest, it has no tag.
    pub reference: Reference,
    /// The digest of the manifest, if the source names one.
    pub digest: Option<Digest>,
    /// What was written.
    written: String,
}

/// A component file that was checked, and is used only as it was then.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Installed {
    /// The file.
    pub path: PathBuf,
    /// The digest of its bytes.
    pub component: Digest,
}

impl ArtifactSource {
    /// The same artifact by the digest of its manifest.
    pub fn pinned(&self, digest: &Digest) -> Reference {
        self.reference.with(format!("{}@{digest}", self.repository()))
    }

    /// The same artifact as a source that names its digest.
    pub fn at(&self, digest: &Digest) -> Self {
        let reference = self.pinned(digest);
        let written = format!("oci:{}", reference.rest);
        ArtifactSource { reference, digest: Some(digest.clone()), written }
    }

    /// What stands before the tag or the digest: `//HOST/REPOSITORY`.
    fn repository(&self) -> &str {
        let rest = self.reference.rest.split('@').next().unwrap_or_default();
        match rest.rsplit_once(':') {
            Some((before, tag)) if !tag.contains('/') => before,
            _ => rest,
        }
    }
}

impl FromStr for ArtifactSource {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let rest = text.strip_prefix("oci://").ok_or("an artifact is written oci://HOST/REPOSITORY:TAG")?;
        let (named, digest) = match rest.split_once('@') {
            Some((named, digest)) => {
                (named, Some(digest.parse::<Digest>().map_err(|error| error.to_string())?))
            }
            None => (rest, None),
        };
        let (host, repository) = named.split_once('/').ok_or("it names no repository")?;
        let (repository, tag) = match repository.rsplit_once(':') {
            Some((repository, tag)) => (repository, Some(tag)),
            None => (repository, None),
        };
        if host.is_empty() || repository.is_empty() {
            return Err("it names no host, or no repository".into());
        }
        if let Some(odd) = text.chars().find(|one| !one.is_ascii_graphic()) {
            return Err(format!("it has the character {odd:?}"));
        }
        // OCI distribution specification 1.1, "Pulling manifests".
        let plain = |byte: u8| {
            byte.is_ascii_lowercase() || byte.is_ascii_digit() || matches!(byte, b'.' | b'_' | b'-' | b'/')
        };
        if !repository.bytes().all(plain) {
            return Err(format!("a repository has small letters, and `{repository}` is none"));
        }
        let in_tag = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'.' | b'_' | b'-');
        if let Some(tag) = tag.filter(|tag| tag.len() > 128 || !tag.bytes().all(in_tag)) {
            return Err(format!("`{tag}` is no tag"));
        }
        let rest = match (&digest, tag) {
            (_, Some("")) | (None, None) => return Err("it has neither a tag nor a digest".into()),
            (Some(digest), _) => format!("//{host}/{repository}@{digest}"),
            (None, Some(tag)) => format!("//{host}/{repository}:{tag}"),
        };
        let reference = Reference { scheme: "docker".into(), rest, blobs: None };
        Ok(ArtifactSource { reference, digest, written: text.into() })
    }
}

impl fmt::Display for ArtifactSource {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.written)
    }
}

impl FromStr for PluginSource {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        match text.starts_with("oci://") {
            _ if text.starts_with("oci:") && !text.starts_with("oci://") => {
                Err("an artifact is written oci://HOST/REPOSITORY:TAG".into())
            }
            true => text.parse().map(PluginSource::Artifact),
            false => Ok(PluginSource::File(text.into())),
        }
    }
}

impl fmt::Display for PluginSource {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            PluginSource::File(path) => path.display().fmt(f),
            PluginSource::Artifact(artifact) => artifact.fmt(f),
        }
    }
}

/// What the operator allows a plugin.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Grant {
    /// `host[:port]` or `*.domain[:port]`, beside those of the opened place.
    pub hosts: Vec<String>,
    /// Folders and archives that it may open, each by exactly this path. Relative to the policy.
    pub files: Vec<PathBuf>,
    /// Secrets that it may read.
    pub secrets: Vec<SecretRef>,
}

/// What a call of a plugin may use up.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Limits {
    /// Bytes of memory.
    pub memory: usize,
    /// The guest's own time in one call; its waiting for the host does not count.
    pub call: Duration,
}

impl Default for Limits {
    fn default() -> Self {
        Limits { memory: 256 << 20, call: Duration::from_secs(10) }
    }
}

/// Reads a table of `[plugin]`.
pub(super) fn plugin(mut entry: Table, problems: &mut Vec<Problem>) -> Option<Plugin> {
    let source = entry.require("source", problems).and_then(|value| string(value, problems));
    let mut grant = Grant::default();
    if let Some(mut entry) = entry.take("grant").and_then(|value| table("a grant", value, problems)) {
        if let Some(value) = entry.take("hosts") {
            for host in strings(value, problems) {
                match is_host_grant(&host.value) {
                    true => grant.hosts.push(host.value),
                    false => problems
                        .push(Problem::new(format!("`{}` is no host", host.value), host.span).help(
                        "write host[:port], or *.domain[:port] for all hosts beneath a domain, in lower case",
                    )),
                }
            }
        }
        if let Some(value) = entry.take("files") {
            grant.files = strings(value, problems).into_iter().map(|path| path.value.into()).collect();
        }
        if let Some(value) = entry.take("secrets") {
            for text in strings(value, problems) {
                match text.value.parse() {
                    Ok(secret) => grant.secrets.push(secret),
                    Err(()) => problems.push(
                        // What was written may be the secret itself.
                        Problem::new("this does not say where the secret lies", text.span)
                            .help("write \"env:NAME\" or \"file:PATH\""),
                    ),
                }
            }
        }
        entry.end(problems);
    }
    let mut limits = Limits::default();
    if let Some(mut entry) =
        entry.take("limits").and_then(|value| table("a plugin's limits", value, problems))
    {
        if let Some(text) = entry.take("memory").and_then(|value| string(value, problems)) {
            match bytesize::ByteSize::from_str(&text.value) {
                Ok(size) if (64 << 10..=4u64 << 30).contains(&size.as_u64()) => {
                    limits.memory = size.as_u64() as usize
                }
                _ => problems.push(
                    Problem::new(format!("`{}` is no limit of memory", text.value), text.span)
                        .help("write a size between 64KiB and 4GiB: \"64MiB\""),
                ),
            }
        }
        let call = entry.take("call").and_then(|value| string(value, problems));
        let call = call.and_then(|text| duration(text, "write \"5s\" or \"500ms\"", problems));
        limits.call = call.unwrap_or(limits.call);
        entry.end(problems);
    }
    let mut config = serde_json::Map::new();
    if let Some(value) = entry.take("config") {
        match raw::json(value.get_ref()) {
            serde_json::Value::Object(table) => config = table,
            _ => problems.push(Problem::new("a plugin's config is a table", value.span())),
        }
    }
    let mut at = BTreeMap::new();
    if let Some(value) = entry.take("at") {
        match raw::json(value.get_ref()) {
            serde_json::Value::Object(tables) => {
                for (glob, table) in tables {
                    match table {
                        serde_json::Value::Object(table) => drop(at.insert(glob, table)),
                        _ => problems.push(
                            Problem::new(format!("`at.{}` is a table", super::key_text(&glob)), value.span())
                                .help("write [plugin.NAME.at.\"storage.example.com/*\"], and keys of `config` beneath it"),
                        ),
                    }
                }
            }
            _ => problems.push(Problem::new("a plugin's `at` is a table", value.span())),
        }
    }
    let keys = entry.take("trusted-keys").map(|value| strings(value, problems)).unwrap_or_default();
    let trusted_keys: Vec<PathBuf> = keys.into_iter().map(|path| path.value.into()).collect();
    entry.end(problems);
    let Spanned { value, span } = source?;
    let source = match value.starts_with("oci://") || !value.contains("://") {
        false => Err("a plugin is a file, or an artifact of a registry".to_owned()),
        true => value.parse::<PluginSource>(),
    };
    match source {
        Ok(source) => Some(Plugin {
            source: Spanned { value: source, span },
            grant,
            limits,
            config,
            at,
            trusted_keys,
            installed: None,
        }),
        Err(why) => {
            problems.push(Problem::new(format!("`{value}` is no source: {why}"), span).help(
                "write source = \"plugins/calver.wasm\", or source = \"oci://registry.example.com/plugins/calver:1.2.0\"",
            ));
            None
        }
    }
}
