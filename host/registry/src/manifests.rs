//! Manifests (4.2, 4.4, 4.9).

use crate::{
    answer::{self, Answer, Fault},
    route::Reference,
    storage::{Storage, blocking},
};
use bytes::Bytes;
use dray_core::{Children, Digest, Manifest};
use http_body_util::{BodyExt, Limited};
use hyper::{
    Request, StatusCode,
    body::Incoming,
    header::{CONTENT_TYPE, HeaderValue},
};
use serde::Deserialize;
use std::io::ErrorKind;

/// Size limit of a manifest in bytes. The specification requires at least 4 MiB (4.4).
pub const LIMIT: usize = 8 << 20;

/// The media types of manifests that do not state one.
pub const OCI_MANIFEST: &str = "application/vnd.oci.image.manifest.v1+json";
pub const OCI_INDEX: &str = "application/vnd.oci.image.index.v1+json";

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Typed {
    media_type: Option<String>,
    manifests: Option<serde::de::IgnoredAny>,
}

/// The media type of a manifest. The storage does not keep it, so it is read from the body.
fn media_type(body: &[u8]) -> String {
    match serde_json::from_slice::<Typed>(body) {
        Ok(Typed { media_type: Some(stated), .. }) => stated,
        Ok(Typed { manifests: Some(_), .. }) => OCI_INDEX.into(),
        _ => OCI_MANIFEST.into(),
    }
}

/// The media type of a manifest of a repository. `None` means that it is not there.
pub fn media_type_of(storage: &Storage, name: &str, digest: &Digest) -> Result<Option<String>, Fault> {
    if !storage.is_file(&storage.revision_link(name, digest)) {
        return Ok(None);
    }
    match storage.read(&storage.blob(digest), LIMIT) {
        Ok(body) => Ok(Some(media_type(&body))),
        Err(error) if error.kind() == ErrorKind::NotFound => Ok(None),
        Err(error) => Err(error.into()),
    }
}

fn find(storage: &Storage, name: &str, reference: &Reference) -> Result<Digest, Fault> {
    let found = match reference {
        Reference::Tag(tag) => storage.current(name, tag)?,
        Reference::Digest(digest) => Some(digest.clone()),
    };
    let found = found.filter(|digest| storage.is_file(&storage.revision_link(name, digest)));
    found.ok_or_else(|| match reference {
        Reference::Tag(tag) => Fault::manifest_unknown(tag),
        Reference::Digest(digest) => Fault::manifest_unknown(&digest.to_string()),
    })
}

/// `known` holds the entity tags that the client has (RFC 9110, 13.1.2).
pub async fn get(
    storage: &Storage,
    name: &str,
    reference: &Reference,
    head: bool,
    known: Option<&HeaderValue>,
) -> Result<Answer, Fault> {
    let known = known.and_then(|known| known.to_str().ok()).unwrap_or_default().to_owned();
    let (name, reference) = (name.to_owned(), reference.clone());
    blocking(storage, move |storage| {
        let digest = find(storage, &name, &reference)?;
        let tag = format!("\"{digest}\"");
        let same = known.split(',').any(|known| known.trim().trim_start_matches("W/") == tag);
        if same && storage.is_file(&storage.blob(&digest)) {
            let mut answer = answer::empty(StatusCode::NOT_MODIFIED);
            answer::set(&mut answer, "docker-content-digest", &digest.to_string());
            answer::set(&mut answer, "etag", &tag);
            return Ok(answer);
        }
        let body = match storage.read(&storage.blob(&digest), LIMIT) {
            Ok(body) => body,
            Err(error) if error.kind() == ErrorKind::NotFound => {
                return Err(Fault::manifest_unknown(&digest.to_string()));
            }
            Err(error) => return Err(error.into()),
        };
        let length = body.len();
        let mut answer = answer::content(&media_type(&body), if head { Vec::new() } else { body });
        answer::set(&mut answer, "content-length", &length.to_string());
        answer::set(&mut answer, "docker-content-digest", &digest.to_string());
        answer::set(&mut answer, "etag", &tag);
        Ok(answer)
    })
    .await
}

pub async fn put(
    storage: &Storage,
    name: &str,
    reference: &Reference,
    request: Request<Incoming>,
) -> Result<Answer, Fault> {
    let given = request.headers().get(CONTENT_TYPE).and_then(|value| value.to_str().ok()).unwrap_or_default();
    let given = given.split(';').next().unwrap_or_default().trim().to_owned();
    let body = Limited::new(request.into_body(), LIMIT).collect().await.map_err(|error| {
        match error.is::<http_body_util::LengthLimitError>() {
            true => Fault::too_large(LIMIT),
            false => Fault::manifest_invalid(format!("the body broke off: {error}")),
        }
    })?;
    let (name, reference, body) = (name.to_owned(), reference.clone(), body.to_bytes());
    blocking(storage, move |storage| store(storage, &name, &reference, &given, body)).await
}

fn store(
    storage: &Storage,
    name: &str,
    reference: &Reference,
    given: &str,
    body: Bytes,
) -> Result<Answer, Fault> {
    let expected = match reference {
        Reference::Digest(digest) => Some(digest),
        Reference::Tag(_) => None,
    };
    let manifest = Manifest::parse(given, body.to_vec(), expected).map_err(|error| match error {
        dray_core::ManifestError::Digest { .. } => Fault::digest_invalid(error.to_string()),
        _ => Fault::manifest_invalid(error.to_string()),
    })?;
    // An index may name children that are not here, because mirrors of some platforms have such indexes.
    if let Children::Image { config, layers } = &manifest.children {
        for blob in layers.iter().filter(|layer| !layer.foreign).chain([config]) {
            if !storage.is_file(&storage.layer_link(name, &blob.digest))
                || !storage.is_file(&storage.blob(&blob.digest))
            {
                return Err(Fault::manifest_blob_unknown(&blob.digest.to_string()));
            }
        }
    }
    let digest = &manifest.descriptor.digest;
    storage.put(digest, &body)?;
    if let Some(subject) = &manifest.subject {
        storage.link(
            &storage.referrers(name, subject).join(digest.algorithm_name()).join(digest.hex()).join("link"),
            digest,
        )?;
    }
    storage.link(&storage.revision_link(name, digest), digest)?;
    if let Reference::Tag(tag) = reference {
        storage.set_tag(name, tag, digest)?;
    }
    let mut answer = answer::empty(StatusCode::CREATED);
    answer::set(&mut answer, "location", &format!("/v2/{name}/manifests/{digest}"));
    answer::set(&mut answer, "docker-content-digest", &digest.to_string());
    if let Some(subject) = &manifest.subject {
        answer::set(&mut answer, "oci-subject", &subject.to_string());
    }
    Ok(answer)
}

pub async fn delete(storage: &Storage, name: &str, reference: &Reference) -> Result<Answer, Fault> {
    let (name, reference) = (name.to_owned(), reference.clone());
    blocking(storage, move |storage| {
        let digest = find(storage, &name, &reference)?;
        if let Reference::Tag(tag) = &reference {
            storage.remove_dir_all(&storage.tag(&name, tag))?;
            return Ok(answer::empty(StatusCode::ACCEPTED));
        }
        for tag in storage.names(&storage.tags(&name))? {
            if storage.current(&name, &tag)?.as_ref() == Some(&digest) {
                storage.remove_dir_all(&storage.tag(&name, &tag))?;
            }
        }
        let body = storage.read(&storage.blob(&digest), LIMIT)?;
        if let Ok(Manifest { subject: Some(subject), .. }) = Manifest::parse("", body, Some(&digest)) {
            let link = storage.referrers(&name, &subject).join(digest.algorithm_name()).join(digest.hex());
            if storage.is_dir(&link) {
                storage.remove_dir_all(&link)?;
            }
        }
        storage.remove_file(&storage.revision_link(&name, &digest))?;
        Ok(answer::empty(StatusCode::ACCEPTED))
    })
    .await
}
