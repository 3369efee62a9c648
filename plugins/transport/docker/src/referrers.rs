//! Referrers: the API (4.6), and the fallback tag of registries without it.

use super::*;
use serde_json::{Value, json};

pub fn list(
    location: &str,
    repository: &str,
    subject: &str,
    next: Option<String>,
) -> Result<ReferrersPage, Error> {
    let url = next.unwrap_or_else(|| to(location, &format!("{repository}/referrers/{subject}")));
    let response = send(request("GET", url, &[200, 400, 404, 405], &[wire::pull(repository)]), &[])?;
    let typed = header(&response, "content-type").map(wire::without_parameters);
    if response.status == 200 && typed.as_deref() == Some(wire::OCI_INDEX) {
        let index: Value = wire::json(&response)?;
        return Ok(ReferrersPage { descriptors: descriptors(&index)?, next: next_page(&response)? });
    }
    let descriptors = match get(location, repository, &fallback_tag(subject))? {
        Some(manifest) => descriptors(&index(&manifest)?)?,
        None => Vec::new(),
    };
    Ok(ReferrersPage { descriptors, next: None })
}

/// Adds a manifest with a subject to the fallback tag of that subject, as 4.4 demands of clients
/// where the registry did not answer with OCI-Subject.
pub fn announce(location: &str, repository: &str, digest: &str, manifest: &Manifest) -> Result<(), Error> {
    let Ok(media) = serde_json::from_slice::<Media>(&manifest.body) else { return Ok(()) };
    let Some(subject) = &media.subject else { return Ok(()) };
    let tag = fallback_tag(&subject.digest);
    let mut index = match get(location, repository, &tag)? {
        Some(manifest) => self::index(&manifest)?,
        None => json!({ "schemaVersion": 2, "mediaType": wire::OCI_INDEX, "manifests": [] }),
    };
    let Some(listed) = index.get_mut("manifests").and_then(Value::as_array_mut) else {
        return Err(Error::Invalid(format!("{location}/{repository}:{tag} is no list of referrers")));
    };
    if listed.iter().any(|entry| entry["digest"] == digest) {
        return Ok(());
    }
    listed.push(entry(digest, manifest, media));
    let body = serde_json::to_vec(&index).map_err(|error| Error::Invalid(error.to_string()))?;
    let index = unsigned(wire::OCI_INDEX, body);
    wire::put_manifest(location, repository, &tag, &index)?;
    Ok(())
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

/// `sha256:abc` → `sha256-abc`: at most 32 characters of algorithm and 64 of hash (4.4).
fn fallback_tag(subject: &str) -> String {
    let (algorithm, hash) = subject.split_once(':').unwrap_or((subject, ""));
    format!("{:.32}-{:.64}", algorithm, hash)
}

fn index(manifest: &Manifest) -> Result<Value, Error> {
    serde_json::from_slice(&manifest.body)
        .map_err(|error| Error::Invalid(format!("list of referrers: {error}")))
}

fn descriptors(index: &Value) -> Result<Vec<Descriptor>, Error> {
    let manifests = index["manifests"].as_array().map(Vec::as_slice).unwrap_or_default();
    let text = |value: &Value| value.as_str().map(str::to_owned);
    let read = |entry: &Value| {
        Some(Descriptor {
            media_type: text(&entry["mediaType"])?,
            digest: text(&entry["digest"])?,
            size: entry["size"].as_u64()?,
            artifact_type: text(&entry["artifactType"]),
            annotations: Vec::new(),
        })
    };
    manifests
        .iter()
        .map(|entry| {
            read(entry).ok_or_else(|| Error::Invalid("a referrer without media type, digest or size".into()))
        })
        .collect()
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
