//! A transport in Rust, beside those of components: `banner:TEXT` is an image that says TEXT in a label, made as it is read.

use dray_core::{Descriptor, Digest, Manifest, Naming};
use dray_engine::{
    Error, Kind, Result,
    contract::{
        Capabilities, Context, Found, Incoming, Listed, NextStep, Outcome, Page, Parsed, RawManifest,
        Segment, TagPage, Transport,
    },
};
use futures_core::future::BoxFuture;
use serde_json::json;

/// Serves `banner:`.
pub struct Banner;

/// The only tag of a banner.
const TAG: &str = "latest";
const MANIFEST: &str = "application/vnd.oci.image.manifest.v1+json";

/// The manifest and the config of the image of a text. Its only layer is an empty tar.
fn image(text: &str) -> (Vec<u8>, Vec<u8>, Vec<u8>) {
    let layer = vec![0; 1024];
    let config = json!({
        "architecture": "amd64",
        "os": "linux",
        "config": { "Labels": { "banner": text } },
        "rootfs": { "type": "layers", "diff_ids": [Digest::of(&layer)] },
    });
    let config = config.to_string().into_bytes();
    let manifest = json!({
        "schemaVersion": 2,
        "mediaType": MANIFEST,
        "config": {
            "mediaType": "application/vnd.oci.image.config.v1+json", "digest": Digest::of(&config), "size": config.len(),
        },
        "layers": [{
            "mediaType": "application/vnd.oci.image.layer.v1.tar", "digest": Digest::of(&layer), "size": layer.len(),
        }],
    });
    (manifest.to_string().into_bytes(), config, layer)
}

fn done<'a, T: Send + 'a>(answer: Result<T>) -> BoxFuture<'a, Result<T>> {
    Box::pin(async { answer })
}

/// What a banner cannot do: it is only read.
fn unsupported<'a, T: Send + 'a>(doing: &str) -> BoxFuture<'a, Result<T>> {
    done(Err(Error::new(Kind::Unsupported, format!("{doing}: a banner is only read"))))
}

/// The manifest that a reference names. `None` means that it names nothing.
fn named(text: &str, reference: Option<&str>) -> Option<RawManifest> {
    let body = image(text).0;
    let is_it = reference.is_none_or(|one| one == TAG || one == Digest::of(&body).to_string());
    is_it.then(|| RawManifest { media_type: MANIFEST.into(), body, signatures: Vec::new() })
}

impl Transport for Banner {
    fn name(&self) -> &str {
        "banner"
    }

    fn trusted(&self) -> bool {
        true
    }

    fn granted_hosts(&self) -> &[String] {
        &[]
    }

    fn parse<'a>(&'a self, rest: &'a str, _: bool, _: &'a [String]) -> BoxFuture<'a, Result<Parsed>> {
        done(Ok(Parsed {
            location: rest.into(),
            repository: "banner".into(),
            reference: Some(TAG.into()),
            root: None,
            host: None,
            private: false,
            separate_blobs: false,
        }))
    }

    fn repositories(&self, _: Context, _: Option<String>) -> BoxFuture<'_, Result<Page<String>>> {
        done(Ok(Page { items: vec!["banner".into()], next: None }))
    }

    fn tags<'a>(&'a self, _: Context, _: &'a str, _: Option<String>) -> BoxFuture<'a, Result<TagPage>> {
        done(Ok(TagPage { items: vec![Listed::name(TAG)], next: None, behind: None }))
    }

    fn resolve<'a>(
        &'a self,
        context: Context,
        _: &'a str,
        reference: Option<&'a str>,
        _: Option<&'a Digest>,
    ) -> BoxFuture<'a, Result<Found>> {
        done(Ok(named(context.location(), reference).map_or(Found::Absent, Found::Manifest)))
    }

    fn fetch<'a>(
        &'a self,
        context: Context,
        _: &'a str,
        reference: Option<&'a str>,
    ) -> BoxFuture<'a, Result<RawManifest>> {
        let found = named(context.location(), reference);
        done(found.ok_or_else(|| Error::new(Kind::NotFound, "read the banner: it has only one image")))
    }

    fn referrers<'a>(
        &'a self,
        _: Context,
        _: &'a str,
        _: &'a Digest,
        _: Option<String>,
    ) -> BoxFuture<'a, Result<Page<Descriptor>>> {
        done(Ok(Page { items: Vec::new(), next: None }))
    }

    fn locate<'a>(
        &'a self,
        context: Context,
        _: &'a str,
        blob: &'a Descriptor,
    ) -> BoxFuture<'a, Result<Vec<Segment>>> {
        // The host compares what it gets with the digest, as it does everywhere.
        let (_, config, layer) = image(context.location());
        let bytes = if Digest::of(&config) == blob.digest { config } else { layer };
        done(Ok(vec![Segment::Inline(bytes.into())]))
    }

    fn capabilities(&self, _: Context) -> BoxFuture<'_, Result<Capabilities>> {
        done(Ok(Capabilities {
            mount: false,
            sparse: Some(false),
            shared: true,
            many: false,
            signatures: false,
            exclusive: false,
            holds: None,
        }))
    }

    fn store<'a>(
        &'a self,
        _: Context,
        _: &'a str,
        _: &'a Incoming,
        _: Option<Vec<u8>>,
        _: Option<Outcome>,
    ) -> BoxFuture<'a, Result<NextStep>> {
        unsupported("store a blob")
    }

    fn publish<'a>(
        &'a self,
        _: Context,
        _: &'a str,
        _: &'a Manifest,
        _: &'a Naming,
    ) -> BoxFuture<'a, Result<()>> {
        unsupported("publish an image")
    }

    fn delete_tag<'a>(
        &'a self,
        _: Context,
        _: &'a str,
        _: &'a str,
        _: Option<&'a Digest>,
    ) -> BoxFuture<'a, Result<()>> {
        unsupported("delete a tag")
    }

    fn delete_manifest<'a>(&'a self, _: Context, _: &'a str, _: &'a Digest) -> BoxFuture<'a, Result<()>> {
        unsupported("delete an image")
    }

    fn finish(&self, _: Context) -> BoxFuture<'_, Result<()>> {
        done(Ok(()))
    }
}
