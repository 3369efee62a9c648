//! The file of `sync --src yaml` (skopeo-sync(1), "YAML FILE CONTENT").

use super::{flags::ImageFlags, session};
use crate::failure::Failure;
use dray_core::{Digest, Reference, Yaml, YamlValue};
use dray_engine::{
    Error, Kind, Places,
    contract::{Choice, Facts, Images},
};
use futures_util::future::BoxFuture;
use serde_json::json;
use std::{path::PathBuf, sync::Arc};

/// The images of one registry.
#[derive(Debug)]
pub struct Listed {
    host: String,
    /// How the registry is reached.
    pub flags: ImageFlags,
    wanted: Vec<(String, Wanted)>,
}

/// Which tags of a repository are wanted.
#[derive(Debug, PartialEq, Eq)]
enum Wanted {
    All,
    /// Tags, and digests.
    These(Vec<String>),
    Regex(String),
    Semver(String),
}

fn wrong(line: usize, text: impl std::fmt::Display) -> Failure {
    Failure::usage(format!("read the file of sync: line {line}: {text}"))
}

impl Listed {
    /// A reference to the registry, by which its settings are found.
    pub fn reference(&self) -> Result<Reference, Failure> {
        session::reference(&format!("docker://{}/any", self.host), &ImageFlags::default())
    }
}

/// Reads a file. `usual` is how registries are reached of which the file does not say more.
///
/// # Errors
/// Fails with the line where something is not understood. skopeo leaves such entries out and ends with 0.
pub fn read(text: &str, usual: &ImageFlags) -> Result<Vec<Listed>, Failure> {
    let documents = Yaml::documents(text).map_err(|error| wrong(error.line, error.text))?;
    let [document] = &documents[..] else { return Err(wrong(1, "it is not one document")) };
    let registries = document.entries();
    if registries.is_empty() {
        return Err(wrong(document.line, "it names no registry"));
    }
    registries.iter().map(|(host, value)| registry(host, value, usual)).collect()
}

fn registry(host: &str, value: &Yaml, usual: &ImageFlags) -> Result<Listed, Failure> {
    let mut listed = Listed { host: host.to_owned(), flags: usual.clone(), wanted: Vec::new() };
    if host.is_empty() || host.contains(['/', '@', ' ']) {
        return Err(wrong(value.line, format!("`{}` is no registry", host.escape_debug())));
    }
    for (key, value) in value.entries() {
        let text = || value.text().ok_or_else(|| wrong(value.line, format!("`{key}` is no text")));
        match key.as_str() {
            "images" => {
                for (repository, tags) in value.entries() {
                    listed.wanted.push((repository.clone(), these(tags)?));
                }
            }
            "images-by-tag-regex" | "images-by-semver" => {
                for (repository, rule) in value.entries() {
                    let text = rule
                        .text()
                        .ok_or_else(|| wrong(rule.line, format!("`{repository}` has no text")))?
                        .to_owned();
                    let by_regex = key == "images-by-tag-regex";
                    let wanted = if by_regex { Wanted::Regex(text) } else { Wanted::Semver(text) };
                    listed.wanted.push((repository.clone(), wanted));
                }
            }
            "credentials" => listed.flags.login = Some(login(value)?),
            "tls-verify" => {
                let verify = value.bool();
                listed.flags.tls_verify =
                    Some(verify.ok_or_else(|| wrong(value.line, "`tls-verify` is neither true nor false"))?);
            }
            "cert-dir" => listed.flags.cert_dir = Some(PathBuf::from(text()?)),
            other => {
                return Err(wrong(value.line, format!("a registry has no key `{}`", other.escape_debug())));
            }
        }
    }
    match listed.wanted.is_empty() {
        true => Err(wrong(
            value.line,
            format!("{host} has neither images, images-by-tag-regex nor images-by-semver"),
        )),
        false => Ok(listed),
    }
}

/// The tags of one repository: a list, of which an empty one stands for all.
fn these(tags: &Yaml) -> Result<Wanted, Failure> {
    match &tags.value {
        YamlValue::Null => Ok(Wanted::All),
        YamlValue::List(items) if items.is_empty() => Ok(Wanted::All),
        YamlValue::List(items) => {
            let name = |item: &Yaml| match &item.value {
                YamlValue::Text(text) => Ok(text.clone()),
                _ => Err(wrong(item.line, format!("`{item}` is no tag: write it in quotes"))),
            };
            Ok(Wanted::These(items.iter().map(name).collect::<Result<_, _>>()?))
        }
        _ => Err(wrong(tags.line, "the tags of an image are a list")),
    }
}

fn login(value: &Yaml) -> Result<(String, String), Failure> {
    let (mut user, mut password) = (None, None);
    for (key, value) in value.entries() {
        let text = value.text().map(str::to_owned);
        match key.as_str() {
            "username" => user = text,
            "password" => password = text,
            other => {
                return Err(wrong(
                    value.line,
                    format!("`credentials` has no key `{}`", other.escape_debug()),
                ));
            }
        }
    }
    user.zip(password).ok_or_else(|| wrong(value.line, "`credentials` needs username and password"))
}

/// The images that the file names, each with its name for the destination.
///
/// # Errors
/// Fails if a repository cannot be listed, if an expression is wrong, or if nothing matches one.
pub async fn images(places: &Arc<Places>, all: &[Listed]) -> Result<Vec<(Reference, String)>, Failure> {
    let mut found = Vec::new();
    for listed in all {
        for (repository, wanted) in &listed.wanted {
            let name = format!("{}/{repository}", listed.host);
            let whole = session::reference(&format!("docker://{name}"), &ImageFlags::default())?;
            for tag in tags(places, &whole, wanted).await? {
                let sign = if tag.parse::<Digest>().is_ok() { '@' } else { ':' };
                let name = format!("{name}{sign}{tag}");
                found.push((whole.with(format!("//{name}")), name));
            }
        }
    }
    Ok(found)
}

async fn tags(places: &Arc<Places>, repository: &Reference, wanted: &Wanted) -> Result<Vec<String>, Failure> {
    let (plugin, config) = match wanted {
        Wanted::These(tags) => return Ok(tags.clone()),
        Wanted::All => return session::tags(places, repository).await,
        Wanted::Regex(pattern) => ("regex", json!({ "pattern": pattern })),
        // skopeo's library writes "and" with spaces as well as with commas.
        Wanted::Semver(range) => ("semver", json!({ "range": range })),
    };
    let in_it = |error: Error| Failure::Failed(error.context(format!("choose tags of {repository}")));
    let filter = places.plugins().filter(plugin, &config).await.map_err(in_it)?;
    let config = config.to_string();
    // A wrong expression is found before anything is asked.
    filter.select(Choice::default(), &config, Arc::new(Nothing)).await.map_err(in_it)?;
    let tags = session::tags(places, repository).await?;
    let given = Choice { repository: &repository.rest, tags: &tags, all: &tags };
    let kept = filter.select(given, &config, Arc::new(Nothing)).await.map_err(in_it)?.kept;
    match kept.is_empty() {
        true => {
            let error =
                Error::new(Kind::Exhausted, format!("sync {repository}: none of its tags matches {config}"));
            Err(Failure::Failed(error))
        }
        false => Ok(kept.into_iter().map(|index| tags[index].clone()).collect()),
    }
}

/// The filters that are used here ask for no facts.
struct Nothing;

impl Images for Nothing {
    fn inspect(&self, _tags: Vec<String>) -> BoxFuture<'_, dray_engine::Result<Vec<Facts>>> {
        Box::pin(async { Ok(Vec::new()) })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_file_is_read_whole_or_not_at_all() {
        let text = "r.example:5000:\n  images:\n    a: []\n    b: ['1.0', 1.10, 'sha256:aa']\n  images-by-tag-regex:\n    \
                    c: ^v1\n  images-by-semver: {d: '>= 3.12'}\n  credentials: {username: u, password: p}\n  tls-verify: \
                    false\n  cert-dir: /c\nother.example:\n  images: {e: }\n";
        let Ok(all) = read(text, &ImageFlags::default()) else { panic!("it is not read") };
        let tags = |tags: &[&str]| Wanted::These(tags.iter().map(|tag| (*tag).to_owned()).collect());
        let expected = [
            ("a", Wanted::All),
            ("b", tags(&["1.0", "1.10", "sha256:aa"])),
            ("c", Wanted::Regex("^v1".into())),
            ("d", Wanted::Semver(">= 3.12".into())),
        ];
        assert_eq!(all[0].wanted, expected.map(|(name, wanted)| (name.to_owned(), wanted)));
        assert_eq!(all[0].flags.login, Some(("u".into(), "p".into())));
        assert_eq!((all[0].flags.tls_verify, all[1].flags.tls_verify), (Some(false), None));
        for wrong in [
            "",
            "r.example: {}",
            "r.example: {image: {a: []}}",
            "r.example: {images: {a: x}}",
            "r.example: {images: {a: [[]]}}",
            "r.example: {images: {a: []}, tls-verify: 'no'}",
            "r.example: {images: {a: []}, credentials: {username: u}}",
            "r.example/x: {images: {a: []}}",
            "r.example: {images: {a: [}}",
        ] {
            assert!(read(wrong, &ImageFlags::default()).is_err(), "{wrong}");
        }
    }
}
