//! Finds the signatures of a manifest, the cheapest places first, and no more than are needed.

use super::{
    image_read,
    lookaside::{self, COUNT},
};
use crate::{
    Error, Kind, Repository, Result,
    contract::{Evidence, Request},
    place::{OpenReference, Place},
};
use bytes::Bytes;
use dray_core::{Address, Children, Descriptor, Digest, Manifest, cosign_signatures};
use dray_trust::{Attached, Image, Kinds, Lookaside, Lookasides, SIMPLE_SIGNING, Signature};
use serde::Deserialize;
use std::collections::VecDeque;

/// The largest payload of a signature in bytes. Those of cosign have some hundred bytes, bundles some thousand.
const PAYLOAD: u64 = 256 << 10;
/// How many bytes all signatures of an image may have, so that a registry cannot fill the memory.
const ALL: u64 = 8 << 20;

/// Where signatures may be, in the order in which it is looked.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Where {
    /// In the registry's extension, or else in the lookaside.
    Beside,
    /// Beneath a tag that is made of the digest.
    Tag,
    /// Among the referrers.
    Referrers,
}

/// The signatures that have been found so far.
pub(super) struct Gathered<'a> {
    source: &'a OpenReference,
    /// The image where it is read from, and where its signatures are kept beside it.
    image: Image,
    lookaside: Lookaside,
    digest: &'a Digest,
    found: Vec<Signature>,
    left: VecDeque<Where>,
}

impl<'a> Gathered<'a> {
    /// Begins with the signatures that came with the manifest.
    pub fn new(source: &'a OpenReference, lookasides: &Lookasides, manifest: &'a Manifest) -> Result<Self> {
        let image = image_read(source)?;
        let lookaside = lookasides.of(&image);
        let digest = &manifest.descriptor.digest;
        let mut left = VecDeque::new();
        if image.transport == "docker" {
            left.push_back(Where::Beside);
        }
        left.extend([Where::Tag, Where::Referrers]);
        let found = manifest.signatures.iter().map(|bytes| read(bytes)).collect();
        Ok(Gathered { source, image, lookaside, digest, found, left })
    }

    /// What has been found.
    pub fn found(&self) -> &[Signature] {
        &self.found
    }

    /// All of it as evidence for a verifier, with referrers of the types that it wants.
    pub async fn evidence(&self, types: &[String]) -> Result<Vec<Evidence>> {
        let mut all: Vec<Evidence> = self.found.iter().filter_map(evidence_of).collect();
        if !types.is_empty() {
            all.extend(referrers_of(&self.source.repository, self.digest, types).await?);
        }
        Ok(all)
    }

    /// Looks in the next place where signatures of these kinds may be. Returns false if there is none.
    pub async fn more(&mut self, kinds: Kinds) -> Result<bool> {
        let wanted = |place: &Where| match place {
            Where::Beside => kinds.simple,
            Where::Tag | Where::Referrers => kinds.sigstore,
        };
        let Some(at) = self.left.iter().position(wanted) else { return Ok(false) };
        // A place for one image knows no tags, and gives that image whatever is asked for.
        if self.left[at] != Where::Beside && !self.source.place().is_many().await? {
            self.left.retain(|place| *place == Where::Beside);
            return Ok(!self.left.is_empty());
        }
        let repository = &self.source.repository;
        let more = match self.left.remove(at) {
            Some(Where::Beside) => self.beside().await?,
            Some(Where::Tag) => by_tag(repository, self.digest).await?,
            Some(Where::Referrers) => by_referrers(repository, self.digest).await?,
            None => return Ok(false),
        };
        self.found.extend(more);
        Ok(true)
    }

    async fn beside(&self) -> Result<Vec<Signature>> {
        let place = self.source.place();
        if supports_extension(place).await? {
            return extension(place, &self.source.repository.name, self.digest).await;
        }
        let Some(base) = &self.lookaside.read else { return Ok(Vec::new()) };
        let client = place.http.as_ref().map(|http| http.client());
        let Some(client) = client else { return Ok(Vec::new()) };
        let found = lookaside::read(base, &self.image, self.digest, client).await?;
        Ok(found.iter().map(|bytes| read(bytes)).collect())
    }
}

/// A signature as files hold it. What cannot be read is no signature, and says so when it is judged.
fn read(bytes: &[u8]) -> Signature {
    Signature::from_file(bytes).unwrap_or_else(|wrong| Signature::Unknown(wrong.to_string()))
}

/// The manifest with the attached signatures of a digest. `None` means that there is none.
pub(super) async fn attachments(repository: &Repository, digest: &Digest) -> Result<Option<Manifest>> {
    match repository.manifest(Some(&cosign_signatures(digest))).await {
        Ok(manifest) => Ok(Some(manifest)),
        Err(error) if error.kind == Kind::NotFound => Ok(None),
        // Places for one image have no other tags.
        Err(error) if error.kind == Kind::Unsupported => Ok(None),
        Err(error) => Err(error),
    }
}

async fn by_tag(repository: &Repository, digest: &Digest) -> Result<Vec<Signature>> {
    let there = match attachments(repository, digest).await {
        // Harbor and others answer UNKNOWN with such a text. What cannot be read vouches for nothing.
        Err(error) if error.text.contains("UNKNOWN") && error.text.to_lowercase().contains("not found") => {
            None
        }
        there => there?,
    };
    let Some(manifest) = there else { return Ok(Vec::new()) };
    let Children::Image { layers, .. } = &manifest.children else {
        return Ok(vec![Signature::Unknown("a list of signatures that is no image".into())]);
    };
    let (mut found, mut size) = (Vec::new(), 0);
    for layer in layers.iter().take(COUNT) {
        size += layer.size;
        if layer.media_type != SIMPLE_SIGNING || layer.size > PAYLOAD || size > ALL {
            found.push(Signature::Unknown(layer.media_type.clone()));
            continue;
        }
        let payload = repository.small_blob(layer).await?;
        let annotations = layer.annotations.clone();
        found.push(Signature::Sigstore(Attached {
            media_type: layer.media_type.clone(),
            payload,
            annotations,
        }));
    }
    Ok(found)
}

/// Whether a type is that of a sigstore bundle: `….v0.3+json`, or `…+json;version=0.1` of older ones.
fn is_bundle(media_type: &str) -> bool {
    media_type.starts_with("application/vnd.dev.sigstore.bundle")
}

async fn by_referrers(repository: &Repository, digest: &Digest) -> Result<Vec<Signature>> {
    let listed = match repository.referrers(digest).await {
        Ok(listed) => listed,
        Err(error) if error.kind == Kind::Unsupported => return Ok(Vec::new()),
        Err(error) => return Err(error),
    };
    let bundles =
        listed.into_iter().filter(|referrer| referrer.artifact_type.as_deref().is_some_and(is_bundle));
    let (mut found, mut size) = (Vec::new(), 0);
    for referrer in bundles.take(COUNT) {
        let manifest = repository.manifest_of(&referrer).await?;
        if manifest.subject.as_ref() != Some(digest) {
            continue;
        }
        let Children::Image { layers, .. } = &manifest.children else { continue };
        let one: Vec<&Descriptor> = layers.iter().filter(|layer| is_bundle(&layer.media_type)).collect();
        size += manifest.descriptor.size + one.first().map_or(0, |layer| layer.size);
        if size > ALL {
            break;
        }
        if let [layer] = one[..]
            && layer.size <= PAYLOAD
        {
            found.push(Signature::Bundle(repository.small_blob(layer).await?));
        }
    }
    Ok(found)
}

/// A signature as evidence. `None` means that it is none.
fn evidence_of(signature: &Signature) -> Option<Evidence> {
    let (kind, content, annotations) = match signature {
        Signature::Simple(message) => ("simple-signing", message.clone(), Vec::new()),
        Signature::Sigstore(attached) => {
            let annotations = attached.annotations.clone().into_iter().collect();
            ("sigstore", attached.payload.clone(), annotations)
        }
        Signature::Bundle(json) => ("sigstore-bundle", json.clone(), Vec::new()),
        Signature::Unknown(_) => return None,
    };
    Some(Evidence { kind: kind.into(), content, annotations })
}

/// The referrers of these artifact types, each with its first layer.
pub(super) async fn referrers_of(
    repository: &Repository,
    digest: &Digest,
    types: &[String],
) -> Result<Vec<Evidence>> {
    let listed = match repository.referrers(digest).await {
        Err(error) if error.kind == Kind::Unsupported => return Ok(Vec::new()),
        listed => listed?,
    };
    let is_wanted = |referrer: &Descriptor| {
        referrer.artifact_type.as_ref().is_some_and(|kind| types.iter().any(|wanted| wanted == kind))
    };
    let (mut found, mut size) = (Vec::new(), 0);
    for referrer in listed.into_iter().filter(is_wanted).take(COUNT) {
        let manifest = repository.manifest_of(&referrer).await?;
        let Children::Image { layers, .. } = &manifest.children else { continue };
        let Some(layer) = layers.first().filter(|_| manifest.subject.as_ref() == Some(digest)) else {
            continue;
        };
        size += manifest.descriptor.size + layer.size;
        if size > ALL {
            break;
        }
        found.push(Evidence {
            kind: referrer.artifact_type.unwrap_or_default(),
            content: repository.small_blob(layer).await?,
            annotations: layer.annotations.clone().into_iter().chain(referrer.annotations).collect(),
        });
    }
    Ok(found)
}

/// The answer of the registry extension of OpenShift.
#[derive(Deserialize)]
struct Listed {
    signatures: Vec<Extension>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Extension {
    schema_version: u32,
    r#type: String,
    content: String,
}

/// Whether a registry keeps signatures itself: it says so when it is greeted.
pub(super) async fn supports_extension(place: &Place) -> Result<bool> {
    let Some(http) = &place.http else { return Ok(false) };
    place
        .signatures_seen
        .get_or_try_init(|| async {
            let request = Request {
                method: "GET".into(),
                url: Address::new(format!("https://{}/v2/", http.address())),
                headers: Vec::new(),
                expect: vec![200, 401, 403, 404],
                access: Vec::new(),
            };
            let answer = http.send(&request, Bytes::new()).await?;
            let says =
                |(name, value): &(String, String)| name == "x-registry-supports-signatures" && value == "1";
            Ok(answer.headers.iter().any(says))
        })
        .await
        .copied()
}

async fn extension(place: &Place, repository: &str, digest: &Digest) -> Result<Vec<Signature>> {
    use base64::{Engine, engine::general_purpose::STANDARD};
    let Some(http) = &place.http else { return Ok(Vec::new()) };
    let url = format!("https://{}/extensions/v2/{repository}/signatures/{digest}", http.address());
    let request = Request {
        method: "GET".into(),
        url: Address::new(url),
        headers: Vec::new(),
        expect: vec![200, 404],
        access: vec![crate::contract::Access { repository: repository.into(), actions: vec!["pull".into()] }],
    };
    let answer = http.send(&request, Bytes::new()).await?;
    if answer.status == 404 {
        return Ok(Vec::new());
    }
    let wrong = |error: &dyn std::fmt::Display| {
        Error::invalid(format!("read the signatures that {} keeps: {error}", place.location))
    };
    let listed: Listed = serde_json::from_slice(&answer.body).map_err(|error| wrong(&error))?;
    let simple = listed.signatures.iter().filter(|one| one.schema_version == 2 && one.r#type == "atomic");
    simple
        .take(COUNT)
        .map(|one| Ok(read(&STANDARD.decode(&one.content).map_err(|error| wrong(&error))?)))
        .collect()
}
