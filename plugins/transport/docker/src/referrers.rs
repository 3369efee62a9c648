//! Referrers: the API (4.6), and the fallback tag of registries without the API.

use super::*;
use serde_json::{Value, json};

pub fn list(
    location: &str,
    repository: &str,
    subject: &str,
    next: Option<String>,
) -> Result<ReferrersPage, Error> {
    let url = next.unwrap_or_else(|| to(location, &format!("{repository}/referrers/{subject}")));
    let response =
        send(request("GET", url, &[200, 400, 404, 405, 406, 415, 501], &[wire::pull(repository)]), &[])?;
    // Some registries call the index `application/json`, and some answer every URL with a web page.
    if response.status == 200
        && let Ok(index) = serde_json::from_slice::<Value>(&response.body)
        && is_index(&index)
    {
        return Ok(ReferrersPage { descriptors: descriptors(&index), next: next_page(&response)? });
    }
    let descriptors = match fallback(location, repository, subject)? {
        Fallback::List(index) => descriptors(&index),
        Fallback::Nothing | Fallback::Other => Vec::new(),
    };
    Ok(ReferrersPage { descriptors, next: None })
}

fn is_index(value: &Value) -> bool {
    value.get("manifests").is_some_and(|manifests| manifests.is_array() || manifests.is_null())
        && value.get("config").is_none_or(Value::is_null)
        && value.get("layers").is_none_or(Value::is_null)
}

/// What the fallback tag of a subject names.
enum Fallback {
    Nothing,
    /// A list of referrers.
    List(Value),
    /// Something that is not a list of referrers: an image that happens to have that name, or the subject
    /// itself, if the registry does not distinguish digests from tags.
    Other,
}

fn fallback(location: &str, repository: &str, subject: &str) -> Result<Fallback, Error> {
    let Some(response) = answer(location, repository, &fallback_tag(subject))? else {
        return Ok(Fallback::Nothing);
    };
    let itself = match header(&response, "docker-content-digest").filter(|digest| name::is_digest(digest)) {
        Some(digest) => digest == subject,
        // The answer does not say which digest it has.
        None => get(location, repository, subject)?.is_some_and(|manifest| manifest.body == response.body),
    };
    match serde_json::from_slice::<Value>(&response.body) {
        Ok(index) if is_index(&index) && !itself => Ok(Fallback::List(index)),
        _ => Ok(Fallback::Other),
    }
}

/// The digest of the manifest to which a manifest refers.
pub fn subject(manifest: &Manifest) -> Option<String> {
    let media = serde_json::from_slice::<Media>(&manifest.body).ok()?;
    media.subject.map(|subject| subject.digest).filter(|digest| name::is_digest(digest))
}

/// How often a list is written before it is an error that other writers overwrite it again and again.
const RACES: usize = 20;

/// Adds a manifest with a subject to the fallback tag of that subject, as the specification requires of
/// clients if the registry did not answer with OCI-Subject (4.4). The tag is read again after it was written,
/// because if two clients write it at once, one overwrites the other.
pub fn announce(location: &str, repository: &str, digest: &str, manifest: &Manifest) -> Result<(), Error> {
    let Some(subject) = subject(manifest) else { return Ok(()) };
    let Ok(media) = serde_json::from_slice::<Media>(&manifest.body) else { return Ok(()) };
    let entry = entry(digest, manifest, media);
    let tag = fallback_tag(&subject);
    for _ in 0..RACES {
        let mut index = match fallback(location, repository, &subject)? {
            Fallback::List(index) => index,
            Fallback::Nothing => json!({ "schemaVersion": 2, "mediaType": wire::OCI_INDEX, "manifests": [] }),
            Fallback::Other => {
                return Err(Error::Invalid(format!(
                    "{location}/{repository}:{tag} is no list of referrers, and is left as it is"
                )));
            }
        };
        if index["manifests"].is_null() {
            index["manifests"] = json!([]);
        }
        let Some(listed) = index["manifests"].as_array_mut() else { return Ok(()) };
        if listed.iter().any(|listed| listed["digest"] == digest) {
            return Ok(());
        }
        listed.push(entry.clone());
        let body = serde_json::to_vec(&index).map_err(|error| Error::Invalid(error.to_string()))?;
        wire::put_manifest(location, repository, &tag, &unsigned(wire::OCI_INDEX, body))?;
    }
    Err(Error::Transient(format!("{location}/{repository}:{tag} is written by others all the time")))
}

fn entry(digest: &str, manifest: &Manifest, media: Media) -> Value {
    let artifact_type = media.artifact_type.or(media.config.map(|config| config.media_type));
    let mut entry = json!({
        "mediaType": manifest.media_type,
        "digest": digest,
        "size": manifest.body.len(),
    });
    if let Some(artifact_type) = artifact_type {
        entry["artifactType"] = artifact_type.into();
    }
    if let Some(annotations) = media.annotations {
        entry["annotations"] = Value::Object(annotations);
    }
    entry
}

/// The fallback tag of a subject: `sha256:abc` becomes `sha256-abc`. It has at most 32 characters of the
/// algorithm and 64 of the hash (4.4).
fn fallback_tag(subject: &str) -> String {
    let (algorithm, hash) = subject.split_once(':').unwrap_or((subject, ""));
    format!("{:.32}-{:.64}", algorithm, hash)
}

/// The entries that have a digest and a size. Others are no referrers.
fn descriptors(index: &Value) -> Vec<Descriptor> {
    let manifests = index["manifests"].as_array().map(Vec::as_slice).unwrap_or_default();
    let text = |value: &Value| value.as_str().map(str::to_owned);
    let read = |entry: &Value| {
        Some(Descriptor {
            extra: Vec::new(),
            media_type: text(&entry["mediaType"]).unwrap_or_default(),
            digest: text(&entry["digest"]).filter(|digest| name::is_digest(digest))?,
            size: entry["size"].as_u64()?,
            artifact_type: text(&entry["artifactType"]),
            annotations: Vec::new(),
        })
    };
    manifests.iter().filter_map(read).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_fallback_tag_is_bounded() {
        assert_eq!(fallback_tag("sha256:ab"), "sha256-ab");
        assert_eq!(fallback_tag(&format!("sha512:{}", "f".repeat(128))).len(), 7 + 64);
    }

    #[test]
    fn an_entry_carries_type_and_annotations() {
        let body = br#"{"config":{"mediaType":"application/x"},"annotations":{"a":"b"},"subject":{"digest":"sha256:ab"}}"#;
        let manifest = unsigned("m", body.to_vec());
        let entry = entry("sha256:cd", &manifest, serde_json::from_slice(body).unwrap());
        assert_eq!(
            entry,
            json!({
                "mediaType": "m", "digest": "sha256:cd", "size": body.len(),
                "artifactType": "application/x", "annotations": {"a": "b"},
            })
        );
    }
}
