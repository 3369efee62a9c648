//! Tags, repositories, referrers (4.5, 4.6; the catalog is distribution's).

use crate::{
    answer::{self, Answer, Fault},
    route::Query,
    storage::{Storage, blocking},
};
use dray_core::{Digest, Manifest};
use serde::Deserialize;
use serde_json::{Value, json};
use std::{fs, path::Path};

/// A page of sorted names: `n` of them behind `last`. And the name behind which the next begins.
fn page(names: Vec<String>, query: &Query) -> Result<(Vec<String>, Option<String>), Fault> {
    let limit = match query.get("n") {
        Some(text) => Some(
            text.parse::<usize>()
                .map_err(|_| Fault::manifest_invalid(format!("`n` is a number, not {text}")))?,
        ),
        None => None,
    };
    let last = query.get("last");
    let mut rest = names.into_iter().filter(|name| last.is_none_or(|last| name > last));
    let Some(limit) = limit else { return Ok((rest.collect(), None)) };
    let taken: Vec<String> = rest.by_ref().take(limit).collect();
    let next = taken.last().filter(|_| rest.next().is_some()).cloned();
    Ok((taken, next))
}

fn with_next(mut answer: Answer, path: &str, query: &Query, next: Option<String>) -> Answer {
    if let (Some(last), Some(limit)) = (next, query.get("n")) {
        let query: String = url::form_urlencoded::Serializer::new(String::new())
            .append_pair("last", &last)
            .append_pair("n", limit)
            .finish();
        answer::set(&mut answer, "link", &format!("<{path}?{query}>; rel=\"next\""));
    }
    answer
}

pub async fn tags(storage: &Storage, name: &str, query: &Query) -> Result<Answer, Fault> {
    let (name, query) = (name.to_owned(), query.clone());
    blocking(storage, move |storage| {
        if !storage.knows(&name) {
            return Err(Fault::name_unknown(&name));
        }
        let mut tags = storage.names(&storage.tags(&name))?;
        tags.retain(|tag| storage.tag(&name, tag).join("current/link").is_file());
        let (tags, next) = page(tags, &query)?;
        let answer = answer::json(&json!({ "name": name, "tags": tags }));
        Ok(with_next(answer, &format!("/v2/{name}/tags/list"), &query, next))
    })
    .await
}

pub async fn catalog(storage: &Storage, query: &Query) -> Result<Answer, Fault> {
    let query = query.clone();
    blocking(storage, move |storage| {
        let mut names = Vec::new();
        repositories(storage, &storage.repositories(), "", &mut names)?;
        names.sort();
        let (repositories, next) = page(names, &query)?;
        Ok(with_next(answer::json(&json!({ "repositories": repositories })), "/v2/_catalog", &query, next))
    })
    .await
}

fn repositories(
    storage: &Storage,
    folder: &Path,
    prefix: &str,
    names: &mut Vec<String>,
) -> Result<(), Fault> {
    for entry in storage.names(folder)? {
        if entry.starts_with(['_', '.']) {
            continue;
        }
        let name = if prefix.is_empty() { entry.clone() } else { format!("{prefix}/{entry}") };
        if storage.knows(&name) {
            names.push(name.clone());
        }
        repositories(storage, &folder.join(&entry), &name, names)?;
    }
    Ok(())
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Referrer {
    artifact_type: Option<String>,
    config: Option<Typed>,
    annotations: Option<Value>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Typed {
    media_type: String,
}

pub async fn referrers(
    storage: &Storage,
    name: &str,
    subject: &Digest,
    query: &Query,
) -> Result<Answer, Fault> {
    let (name, subject, wanted) = (name.to_owned(), subject.clone(), query.get("artifactType").cloned());
    blocking(storage, move |storage| {
        let mut manifests = Vec::new();
        let folder = storage.referrers(&name, &subject);
        for algorithm in storage.names(&folder)? {
            for hex in storage.names(&folder.join(&algorithm))? {
                let Some(digest) = storage.follow(&folder.join(&algorithm).join(&hex).join("link"))? else { continue };
                if !storage.revision_link(&name, &digest).is_file() {
                    continue;
                }
                manifests.extend(describe(fs::read(storage.blob(&digest))?, &digest));
            }
        }
        if let Some(wanted) = &wanted {
            manifests.retain(|manifest| manifest["artifactType"] == *wanted.as_str());
        }
        let index = json!({ "schemaVersion": 2, "mediaType": "application/vnd.oci.image.index.v1+json", "manifests": manifests });
        let mut answer = answer::content("application/vnd.oci.image.index.v1+json", index.to_string());
        if wanted.is_some() {
            answer::set(&mut answer, "oci-filters-applied", "artifactType");
        }
        Ok(answer)
    })
    .await
}

/// The descriptor of a referrer: its artifact type, or that of its config, and its annotations.
fn describe(body: Vec<u8>, digest: &Digest) -> Option<Value> {
    let referrer: Referrer = serde_json::from_slice(&body).ok()?;
    let manifest = Manifest::parse("", body, Some(digest)).ok()?;
    let mut described = json!({ "mediaType": manifest.descriptor.media_type, "digest": digest, "size": manifest.descriptor.size });
    let artifact_type = referrer
        .artifact_type
        .filter(|stated| !stated.is_empty())
        .or(referrer.config.map(|config| config.media_type));
    if let Some(artifact_type) = artifact_type {
        described["artifactType"] = artifact_type.into();
    }
    if let Some(annotations) = referrer.annotations {
        described["annotations"] = annotations;
    }
    Some(described)
}
