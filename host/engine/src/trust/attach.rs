//! Attaches a new signature to an image: beside the registry, by a tag, or as a referrer.

use super::{
    gather::{attachments, supports_extension},
    image_of, lookaside,
};
use crate::{
    Error, Kind, Places, Repository, Result, Watcher,
    blob::{Ending, Payload, Transfer},
    contract::{Access, Incoming, Request},
    error::Context,
    place::OpenReference,
};
use bytes::Bytes;
use dray_core::{
    Address, Children, Descriptor, Digest, Manifest, Naming, Reference, cosign_signatures, media_type,
};
use dray_trust::{Attached, BUNDLE, Kinds, Signature, Trust};
use serde_json::{Value, json};
use std::{io::Write, sync::Arc};

/// Media type of the config of an OCI image.
const OCI_CONFIG: &str = "application/vnd.oci.image.config.v1+json";

/// Nobody watches a signature being written.
struct Unwatched;

impl Watcher for Unwatched {
    fn event(&self, _event: crate::Event<'_>) {}
}

/// Attaches a signature to the image that a reference names. The image must be there; `digest` is what was signed.
///
/// # Errors
/// Fails if the image is not there any more, or if its place keeps no such signature.
pub async fn attach(
    places: &Arc<Places>,
    reference: &Reference,
    digest: &Digest,
    signature: Signature,
) -> Result<()> {
    let doing = || format!("attach a signature to {reference}");
    let opened = places.destination(reference).await?;
    let manifest = opened.repository.manifest(Some(&digest.to_string())).await;
    let manifest = match manifest {
        // A place for one image may know it by no digest.
        Err(error) if matches!(error.kind, Kind::NotFound | Kind::Unsupported) => {
            opened.repository.manifest(opened.reference.as_deref()).await
        }
        read => read,
    };
    let manifest = manifest.context(doing)?;
    if manifest.descriptor.digest != *digest {
        return Err(Error::new(Kind::Conflict, format!("{}: it has changed meanwhile", doing())));
    }
    let capabilities = opened.place().capabilities().await?;
    let attached = match signature {
        signature if capabilities.signatures => with_image(&opened, manifest, &signature).await,
        Signature::Simple(message) => simple(places.trust(), &opened, digest, message).await,
        Signature::Sigstore(attached) if capabilities.many => {
            by_tag(&opened.repository, digest, attached).await
        }
        Signature::Bundle(json) if capabilities.many => {
            by_referrer(&opened.repository, &manifest, json).await
        }
        _ => {
            let text = format!("{} keeps no such signatures", opened.place().key());
            Err(Error::new(Kind::Unsupported, text).help("registries, OCI layouts and directories do"))
        }
    };
    attached.context(doing)?;
    opened.place().complete().await.context(doing)
}

/// Fails if the place of a reference keeps no signatures of these kinds, so that this is found before anything is copied.
///
/// # Errors
/// Says what the place does not keep.
pub async fn check_attachable(places: &Arc<Places>, reference: &Reference, kinds: Kinds) -> Result<()> {
    let opened = places.destination(reference).await?;
    let capabilities = opened.place().capabilities().await?;
    let keeps = capabilities.signatures
        || (!kinds.simple || opened.place().scheme() == "docker") && (!kinds.sigstore || capabilities.many);
    match keeps {
        true => Ok(()),
        false => {
            let text = format!("sign {reference}: its place keeps no such signatures");
            Err(Error::new(Kind::Unsupported, text).help("registries and directories do"))
        }
    }
}

/// Writes a signature beside the manifest, in a place that keeps both together.
async fn with_image(opened: &OpenReference, manifest: Manifest, signature: &Signature) -> Result<()> {
    let file = signature.to_file().ok_or_else(|| {
        Error::new(Kind::Unsupported, "bundles are not kept beside manifests")
            .help("sign it in the other form")
    })?;
    let manifest = Manifest { signatures: vec![file], ..manifest };
    opened.repository.publish(&manifest, &Naming::Root).await
}

async fn simple(trust: &Trust, opened: &OpenReference, digest: &Digest, message: Vec<u8>) -> Result<()> {
    let place = opened.place();
    if place.scheme() != "docker" {
        let text = format!("{} keeps no signatures of OpenPGP", place.key());
        return Err(Error::new(Kind::Unsupported, text).help("registries and directories do"));
    }
    if supports_extension(place).await? {
        return put_extension(opened, digest, &message).await;
    }
    let image = image_of(opened, opened.reference.as_deref())?;
    match trust.lookasides.of(&image).write {
        Some(base) => lookaside::write(&base, &image, digest, message).await,
        None => Err(Error::new(Kind::Unsupported, "no folder is known for signatures")
            .help("`lookaside-staging` in registries.d names one")),
    }
}

/// Gives a signature to a registry that keeps signatures itself.
async fn put_extension(opened: &OpenReference, digest: &Digest, message: &[u8]) -> Result<()> {
    use base64::{Engine, engine::general_purpose::STANDARD};
    let (place, repository) = (opened.place(), &opened.repository.name);
    let Some(http) = &place.http else { return Err(Error::internal("there is no registry")) };
    let random: String = std::iter::repeat_with(|| format!("{:x}", fastrand::u8(..16))).take(32).collect();
    let body = json!({
        "schemaVersion": 2,
        "name": format!("{digest}@{random}"),
        "type": "atomic",
        "content": STANDARD.encode(message),
    });
    let actions = ["pull", "push"].map(str::to_owned).to_vec();
    let request = Request {
        method: "PUT".into(),
        url: Address::new(format!(
            "https://{}/extensions/v2/{repository}/signatures/{digest}",
            http.address()
        )),
        headers: vec![("content-type".into(), "application/json".into())],
        expect: vec![201],
        access: vec![Access { repository: repository.clone(), actions }],
    };
    http.send(&request, Bytes::from(body.to_string())).await.map(drop)
}

/// Adds a signature to those that a tag keeps (cosign's SIGNATURE_SPEC). A signature is not added twice.
async fn by_tag(repository: &Repository, digest: &Digest, attached: Attached) -> Result<()> {
    let there = attachments(repository, digest).await?;
    let (mut layers, mut diff_ids, rest) = match &there {
        Some(manifest) => existing(repository, manifest).await?,
        None => (Vec::new(), Vec::new(), json!({ "architecture": "", "os": "", "config": {} })),
    };
    let payload = Descriptor::new(
        attached.media_type.as_str(),
        Digest::of(&attached.payload),
        attached.payload.len() as u64,
    );
    let layer = json!({
        "mediaType": attached.media_type,
        "digest": payload.digest.to_string(),
        "size": payload.size,
        "annotations": attached.annotations,
    });
    if layers.contains(&layer) {
        return Ok(());
    }
    bring(repository, &payload, &attached.payload).await?;
    layers.push(layer);
    diff_ids.push(payload.digest.to_string());
    let mut config = rest;
    config["rootfs"] = json!({ "type": "layers", "diff_ids": diff_ids });
    let config = config.to_string().into_bytes();
    let named = Descriptor::new(OCI_CONFIG, Digest::of(&config), config.len() as u64);
    bring(repository, &named, &config).await?;
    let manifest = json!({
        "schemaVersion": 2,
        "mediaType": media_type::OCI_MANIFEST,
        "config": { "mediaType": named.media_type, "digest": named.digest.to_string(), "size": named.size },
        "layers": layers,
    });
    publish(repository, manifest, Naming::Tag(cosign_signatures(digest))).await
}

/// The layers of a manifest of signatures, the IDs that its config has for them, and the rest of the config.
async fn existing(repository: &Repository, manifest: &Manifest) -> Result<(Vec<Value>, Vec<String>, Value)> {
    let odd = || {
        Error::new(Kind::Conflict, format!("the tag {} is no list of signatures", manifest.descriptor.digest))
    };
    let Children::Image { config, .. } = &manifest.children else { return Err(odd()) };
    if manifest.descriptor.media_type != media_type::OCI_MANIFEST {
        return Err(odd());
    }
    let body: Value = serde_json::from_slice(&manifest.body).map_err(|_| odd())?;
    let layers = body["layers"].as_array().cloned().ok_or_else(odd)?;
    let config: Value = serde_json::from_slice(&repository.small_blob(config).await?).map_err(|_| odd())?;
    let ids = config["rootfs"]["diff_ids"].as_array().cloned().unwrap_or_default();
    let ids = ids.iter().filter_map(Value::as_str).map(str::to_owned).collect();
    match config.is_object() {
        true => Ok((layers, ids, config)),
        false => Err(odd()),
    }
}

/// Attaches a bundle as a referrer (cosign's BUNDLE_SPEC).
async fn by_referrer(repository: &Repository, subject: &Manifest, bundle: Vec<u8>) -> Result<()> {
    const EMPTY: &str = "application/vnd.oci.empty.v1+json";
    let layer = Descriptor::new(BUNDLE, Digest::of(&bundle), bundle.len() as u64);
    let config = Descriptor::new(EMPTY, Digest::of(b"{}"), 2);
    bring(repository, &layer, &bundle).await?;
    bring(repository, &config, b"{}").await?;
    let shown = |descriptor: &Descriptor| json!({ "mediaType": descriptor.media_type, "digest": descriptor.digest.to_string(), "size": descriptor.size });
    let now = jiff::Timestamp::now();
    let manifest = json!({
        "schemaVersion": 2,
        "mediaType": media_type::OCI_MANIFEST,
        "artifactType": BUNDLE,
        "config": shown(&config),
        "layers": [shown(&layer)],
        "subject": shown(&subject.descriptor),
        "annotations": {
            "dev.sigstore.bundle.content": "dsse-envelope",
            "dev.sigstore.bundle.predicateType": "https://sigstore.dev/cosign/sign/v1",
            "org.opencontainers.image.created": format!("{now:.0}"),
        },
    });
    publish(repository, manifest, Naming::Root).await
}

async fn publish(repository: &Repository, manifest: Value, naming: Naming) -> Result<()> {
    let manifest = Manifest::parse(media_type::OCI_MANIFEST, manifest.to_string().into_bytes(), None)?;
    repository.publish(&manifest, &naming).await
}

/// Stores a small blob.
async fn bring(repository: &Repository, blob: &Descriptor, bytes: &[u8]) -> Result<()> {
    let failed = |error| Error::io("write a temporary file", error);
    let mut file = tempfile::tempfile_in(&repository.place.local.scratch).map_err(failed)?;
    file.write_all(bytes).map_err(failed)?;
    let incoming =
        Incoming { blob: blob.clone(), siblings: Vec::new(), sized: true, absent: false, piece: None };
    let transfer = Transfer {
        image: "a signature",
        source: repository,
        destination: repository,
        payload: Payload::Local(Arc::new(file)),
        incoming: &incoming,
        wanted_by: None,
        link: false,
        rates: &[],
        ending: &Ending::default(),
        watcher: &Unwatched,
    };
    transfer.run().await.map(drop)
}
