//! `tarball:`: an image made from tar files, each of which is a layer. It can only be read.

use dray_plugin_source::{
    Catalog, Found, Info, Meta, Page, Parsed, References, ReferrersPage, Root, Source, export, info,
};
use dray_plugin_transport::{
    Error,
    dray::plugin::{
        files,
        types::{Descriptor, FileRange, Manifest, Segment},
    },
    is_digest, last,
    serde_json::{self, json},
    sha256, unsigned, whole,
};

const MANIFEST: &str = "application/vnd.oci.image.manifest.v1+json";
const CONFIG: &str = "application/vnd.oci.image.config.v1+json";
const LAYER: &str = "application/vnd.oci.image.layer.v1.tar";

struct Tarball;

impl Meta for Tarball {
    fn describe() -> Info {
        let summary =
            "An image made from tar files, the lowest layer first: tarball:FILE[:FILE…][@OS/ARCHITECTURE]";
        info("tarball", env!("CARGO_PKG_VERSION"), summary, &["tarball"])
    }
}

/// The files of a location, and the operating system and architecture of the image.
fn read(location: &str) -> (Vec<&str>, &str, &str) {
    let (files, platform) = location.rsplit_once('@').unwrap_or((location, "linux/amd64"));
    let (os, architecture) = platform.split_once('/').unwrap_or((platform, "amd64"));
    (files.split(':').collect(), os, architecture)
}

fn folder(path: &str) -> &str {
    match path.rsplit_once('/') {
        Some(("", _)) => "/",
        Some((folder, _)) => folder,
        None => ".",
    }
}

impl References for Tarball {
    fn parse(
        scheme: String,
        rest: String,
        _pattern: bool,
        _registries: Vec<String>,
    ) -> Result<Parsed, Error> {
        let (paths, _, _) = read(&rest);
        let within = folder(paths[0]);
        if paths.iter().any(|path| path.is_empty() || folder(path) != within) {
            return Err(Error::Invalid(format!(
                "`{scheme}:{rest}` is not of the form {scheme}:FILE[:FILE…][@OS/ARCHITECTURE], with all files in one folder"
            )));
        }
        let name = last(paths[0]).split('.').next().unwrap_or_default();
        Ok(Parsed {
            extra: Vec::new(),
            location: rest.clone(),
            repository: name.into(),
            reference: None,
            root: Some(Root::Folder(within.into())),
            host: None,
            private: false,
            separate_blobs: false,
        })
    }
}

/// The image's config and manifest. They are made each time, and the same files always give the same bytes.
fn image(location: &str) -> Result<(Vec<u8>, Manifest), Error> {
    let (paths, os, architecture) = read(location);
    let (mut layers, mut diff_ids) = (Vec::new(), Vec::new());
    for path in paths {
        let file = last(path);
        let packed = files::digest(file, false)?;
        let plain = files::digest(file, true)?;
        let first = files::read(&FileRange { path: file.into(), offset: 0, length: Some(4) })?;
        let suffix = match first[..] {
            _ if packed.digest == plain.digest => "",
            [0x1f, 0x8b, ..] => "+gzip",
            _ => "+zstd",
        };
        diff_ids.push(plain.digest);
        layers.push(json!({
            "mediaType": format!("{LAYER}{suffix}"), "digest": packed.digest, "size": packed.size,
        }));
    }
    // Serialising JSON values never fails.
    let config = serde_json::to_vec(&json!({
        "architecture": architecture, "os": os, "config": {},
        "rootfs": { "type": "layers", "diff_ids": diff_ids },
    }))
    .unwrap_or_default();
    let body = serde_json::to_vec(&json!({
        "schemaVersion": 2, "mediaType": MANIFEST, "layers": layers,
        "config": { "mediaType": CONFIG, "digest": sha256(&config), "size": config.len() },
    }))
    .unwrap_or_default();
    Ok((config, unsigned(MANIFEST, body)))
}

impl Catalog for Tarball {
    fn repositories(_location: String, _next: Option<String>) -> Result<Page, Error> {
        Err(Error::Unsupported("tar files make one image, not repositories".into()))
    }

    fn tags(_location: String, _repository: String, _next: Option<String>) -> Result<Page, Error> {
        Err(Error::Unsupported("tar files make one image, not tags".into()))
    }

    fn resolve(
        location: String,
        _repository: String,
        reference: Option<String>,
        _known: Option<String>,
    ) -> Result<Found, Error> {
        let (_, manifest) = image(&location)?;
        Ok(match reference.filter(|reference| is_digest(reference)) {
            Some(digest) if digest != sha256(&manifest.body) => Found::Absent,
            _ => Found::Manifest(manifest),
        })
    }
}

dray_plugin_source::lists_names!(Tarball);

impl Source for Tarball {
    fn fetch(location: String, _repository: String, _reference: Option<String>) -> Result<Manifest, Error> {
        Ok(image(&location)?.1)
    }

    fn referrers(
        _location: String,
        _repository: String,
        _subject: String,
        _next: Option<String>,
    ) -> Result<ReferrersPage, Error> {
        Ok(ReferrersPage { descriptors: Vec::new(), next: None })
    }

    fn locate(location: String, _repository: String, blob: Descriptor) -> Result<Vec<Segment>, Error> {
        if blob.media_type == CONFIG || !blob.media_type.contains("tar") {
            return Ok(vec![Segment::Inline(image(&location)?.0)]);
        }
        for path in read(&location).0 {
            let file = last(path);
            if files::stat(file)? == Some(blob.size) && files::digest(file, false)?.digest == blob.digest {
                return Ok(vec![Segment::File(whole(file))]);
            }
        }
        Err(Error::NotFound(format!("{location} does not hold {}", blob.digest)))
    }
}

export!(Tarball with_types_in dray_plugin_source);
