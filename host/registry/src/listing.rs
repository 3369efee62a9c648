//! Tags, repositories and referrers (4.5, 4.6). The catalog is an endpoint of distribution, and not of the
//! specification.

use crate::{
    answer::{self, Answer, Fault},
    manifests,
    route::Query,
    storage::{Storage, blocking},
};
use dray_core::Digest;
use serde::Deserialize;
use serde_json::{Value, json};
use std::{
    collections::{BTreeMap, btree_map::Entry},
    path::Path,
};

/// A page of the sorted names: `n` of them after `last`. The second value is the `last` of the next page, if there is
/// one.
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
        tags.retain(|tag| storage.is_file(&storage.tag(&name, tag).join("current/link")));
        let (tags, next) = page(tags, &query)?;
        let answer =
            answer::json(&json!({ "name": name, "tags": tags, "manifest": named(storage, &name, &tags)? }));
        Ok(with_next(answer, &format!("/v2/{name}/tags/list"), &query, next))
    })
    .await
}

/// What tags name: a map from digests to media types and tags, as Google's registries add it to their lists. Others skip
/// what they do not know.
fn named(storage: &Storage, name: &str, tags: &[String]) -> Result<BTreeMap<String, Value>, Fault> {
    let mut manifests: BTreeMap<String, (String, Vec<&str>)> = BTreeMap::new();
    for tag in tags {
        let Some(digest) = storage.current(name, tag)? else { continue };
        let entry = match manifests.entry(digest.to_string()) {
            Entry::Occupied(entry) => entry.into_mut(),
            // A tag whose manifest is gone names nothing.
            Entry::Vacant(entry) => match manifests::media_type_of(storage, name, &digest)? {
                Some(media_type) => entry.insert((media_type, Vec::new())),
                None => continue,
            },
        };
        entry.1.push(tag);
    }
    let shown = manifests
        .into_iter()
        .map(|(digest, (media_type, tags))| (digest, json!({ "mediaType": media_type, "tag": tags })));
    Ok(shown.collect())
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

/// The fields of a referrer that its descriptor repeats. They are read without the rest of the manifest, which may be
/// large.
#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Referrer {
    media_type: Option<String>,
    artifact_type: Option<String>,
    config: Option<Typed>,
    manifests: Option<serde::de::IgnoredAny>,
    annotations: Option<BTreeMap<String, String>>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Typed {
    media_type: String,
}

/// Size limit of a page of referrers in bytes. Clients accept manifests of 4 MiB (4.4).
const PAGE: usize = 2 << 20;
/// Size limit of the annotations of one referrer in bytes. Larger ones are left out, and are only in its manifest.
const NOTES: usize = 256 << 10;

pub async fn referrers(
    storage: &Storage,
    name: &str,
    subject: &Digest,
    query: &Query,
) -> Result<Answer, Fault> {
    let (name, subject) = (name.to_owned(), subject.clone());
    let (wanted, last) = (query.get("artifactType").cloned(), query.get("last").cloned());
    blocking(storage, move |storage| {
        let folder = storage.referrers(&name, &subject);
        let mut digests = Vec::new();
        for algorithm in storage.names(&folder)? {
            for hex in storage.names(&folder.join(&algorithm))? {
                digests.extend(storage.follow(&folder.join(&algorithm).join(&hex).join("link"))?);
            }
        }
        digests.sort();
        let last = last.as_deref().and_then(|last| last.parse::<Digest>().ok());
        digests.retain(|digest| last.as_ref().is_none_or(|last| digest > last));
        // Only one manifest at a time is in memory.
        let (mut manifests, mut last, mut more) = (String::new(), None, false);
        for digest in digests {
            if !storage.is_file(&storage.revision_link(&name, &digest)) {
                continue;
            }
            let Ok(body) = storage.read(&storage.blob(&digest), manifests::LIMIT) else { continue };
            let Some(described) = describe(&body, &digest) else { continue };
            if wanted.as_ref().is_some_and(|wanted| described["artifactType"] != *wanted.as_str()) {
                continue;
            }
            let text = described.to_string();
            if !manifests.is_empty() && manifests.len() + text.len() > PAGE {
                more = true;
                break;
            }
            if !manifests.is_empty() {
                manifests.push(',');
            }
            manifests.push_str(&text);
            last = Some(digest);
        }
        let index = format!(
            r#"{{"schemaVersion":2,"mediaType":"application/vnd.oci.image.index.v1+json","manifests":[{manifests}]}}"#
        );
        let mut answer = answer::content("application/vnd.oci.image.index.v1+json", index);
        if let Some(last) = last.filter(|_| more) {
            let mut query = url::form_urlencoded::Serializer::new(String::new());
            query.append_pair("last", &last.to_string());
            if let Some(wanted) = &wanted {
                query.append_pair("artifactType", wanted);
            }
            let link = format!("</v2/{name}/referrers/{subject}?{}>; rel=\"next\"", query.finish());
            answer::set(&mut answer, "link", &link);
        }
        if wanted.is_some() {
            answer::set(&mut answer, "oci-filters-applied", "artifactType");
        }
        Ok(answer)
    })
    .await
}

/// The descriptor of a referrer with its artifact type (or else the media type of its config) and its annotations.
fn describe(body: &[u8], digest: &Digest) -> Option<Value> {
    let referrer: Referrer = serde_json::from_slice(body).ok()?;
    let usual = if referrer.manifests.is_some() { manifests::OCI_INDEX } else { manifests::OCI_MANIFEST };
    let media_type = referrer.media_type.as_deref().unwrap_or(usual);
    let mut described = json!({ "mediaType": media_type, "digest": digest, "size": body.len() });
    let artifact_type = referrer
        .artifact_type
        .filter(|stated| !stated.is_empty())
        .or(referrer.config.map(|config| config.media_type));
    if let Some(artifact_type) = artifact_type {
        described["artifactType"] = artifact_type.into();
    }
    let notes = referrer
        .annotations
        .filter(|notes| notes.iter().map(|(key, value)| key.len() + value.len()).sum::<usize>() <= NOTES);
    if let Some(annotations) = notes {
        described["annotations"] = json!(annotations);
    }
    Some(described)
}
