//! The forms in which an image can be written, and the conversion of a manifest into another form
//! (OCI image specification; Docker image manifest version 2, schema 2).

use crate::{Children, Descriptor, Manifest, ManifestError, media_type};
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};
use std::{fmt, str::FromStr};

/// How a layer or an archive is compressed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Compression {
    /// No compression.
    None,
    /// gzip (RFC 1952).
    Gzip,
    /// Zstandard (RFC 8878).
    Zstd,
    /// Zstandard with a frame for each file and a table of contents (zstd:chunked of containers/storage). Its media type
    /// is that of Zstandard; annotations of the layer tell them apart.
    #[serde(rename = "zstd:chunked")]
    ZstdChunked,
}

/// The specification that defines the media types of an image.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Format {
    /// The media types of the OCI image specification.
    Oci,
    /// The media types of Docker's schema 2.
    Docker,
}

/// A form that is asked for, or that a destination demands.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Form {
    /// `None` means that the media types stay as they are.
    pub format: Option<Format>,
    /// The compression of the layers. `None` means that it stays as it is.
    pub compression: Option<Compression>,
    /// How hard layers are compressed that are not in that compression: 1 to 9 of gzip, 1 to 22 of Zstandard. `None` means
    /// the usual level.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub level: Option<u8>,
}

/// The name is not that of a known compression or format.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("`{0}` is none of {1}")]
pub struct ParseFormError(String, &'static str);

impl FromStr for Compression {
    type Err = ParseFormError;

    fn from_str(text: &str) -> Result<Self, ParseFormError> {
        match text {
            "none" => Ok(Compression::None),
            "gzip" => Ok(Compression::Gzip),
            "zstd" => Ok(Compression::Zstd),
            "zstd:chunked" => Ok(Compression::ZstdChunked),
            _ => Err(ParseFormError(text.into(), "none, gzip, zstd, zstd:chunked")),
        }
    }
}

impl FromStr for Format {
    type Err = ParseFormError;

    fn from_str(text: &str) -> Result<Self, ParseFormError> {
        match text {
            "oci" => Ok(Format::Oci),
            "docker" => Ok(Format::Docker),
            _ => Err(ParseFormError(text.into(), "oci, docker")),
        }
    }
}

impl fmt::Display for Form {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let format = self.format.map(|format| match format {
            Format::Oci => "format oci",
            Format::Docker => "format docker",
        });
        let compression = self.compression.map(|compression| match compression {
            Compression::None => "layers uncompressed",
            Compression::Gzip => "layers gzip",
            Compression::Zstd => "layers zstd",
            Compression::ZstdChunked => "layers zstd:chunked",
        });
        let parts: Vec<&str> = format.into_iter().chain(compression).collect();
        f.write_str(&parts.join(", "))
    }
}

impl Form {
    /// Whether the form asks for no change.
    pub fn is_unchanged(&self) -> bool {
        *self == Form::default()
    }
}

const OCI_CONFIG: &str = "application/vnd.oci.image.config.v1+json";
const DOCKER_CONFIG: &str = "application/vnd.docker.container.image.v1+json";
const OCI_LAYER: &str = "application/vnd.oci.image.layer.v1.tar";
const DOCKER_LAYER: &str = "application/vnd.docker.image.rootfs.diff.tar";

impl Format {
    /// The format of a manifest or an index with this media type. `None` means that the media type is in neither
    /// format.
    pub fn of(media_type: &str) -> Option<Format> {
        match media_type {
            media_type::OCI_MANIFEST | media_type::OCI_INDEX => Some(Format::Oci),
            media_type::DOCKER_MANIFEST | media_type::DOCKER_LIST => Some(Format::Docker),
            _ => None,
        }
    }

    /// The media type of image manifests.
    pub fn manifest(self) -> &'static str {
        match self {
            Format::Oci => media_type::OCI_MANIFEST,
            Format::Docker => media_type::DOCKER_MANIFEST,
        }
    }

    /// The media type of indexes.
    pub fn index(self) -> &'static str {
        match self {
            Format::Oci => media_type::OCI_INDEX,
            Format::Docker => media_type::DOCKER_LIST,
        }
    }

    /// The media type of image configs.
    pub fn config(self) -> &'static str {
        match self {
            Format::Oci => OCI_CONFIG,
            Format::Docker => DOCKER_CONFIG,
        }
    }

    /// The media type of layers. `None` means that the format has no media type for this compression.
    pub fn layer(self, compression: Compression) -> Option<&'static str> {
        Some(match (self, compression) {
            (Format::Oci, Compression::None) => OCI_LAYER,
            (Format::Oci, Compression::Gzip) => "application/vnd.oci.image.layer.v1.tar+gzip",
            (Format::Oci, Compression::Zstd | Compression::ZstdChunked) => {
                "application/vnd.oci.image.layer.v1.tar+zstd"
            }
            (Format::Docker, Compression::None) => DOCKER_LAYER,
            (Format::Docker, Compression::Gzip) => "application/vnd.docker.image.rootfs.diff.tar.gzip",
            (Format::Docker, Compression::Zstd | Compression::ZstdChunked) => return None,
        })
    }
}

/// Whether a blob is the config of an image, and not of an artifact. Old tools used other media types for it.
pub fn is_image_config(media_type: &str) -> bool {
    matches!(
        media_type,
        OCI_CONFIG
            | DOCKER_CONFIG
            | "application/vnd.oci.image.serialization.config.v1+json"
            | "application/vnd.docker.image.v1+json"
            | "application/octet-stream"
            | "application/json"
    )
}

/// Whether a child of an index is a blob by its media type: a layer or a config. BuildKit's caches have such children.
pub fn is_blob(media_type: &str) -> bool {
    !media_type::is_manifest(media_type)
        && (layer_compression(media_type).is_some()
            || is_image_config(media_type)
            || media_type.starts_with("application/vnd.buildkit.cacheconfig."))
}

/// The compression of a layer according to its media type. `None` means that this is not the media type of an image
/// layer. The media type may be wrong, so the first bytes of the layer decide in the end.
pub fn layer_compression(media_type: &str) -> Option<Compression> {
    const OTHERS: [&str; 2] = [
        "application/vnd.oci.image.layer.nondistributable.v1.tar",
        "application/vnd.docker.image.rootfs.foreign.diff.tar",
    ];
    match media_type {
        "application/x-tar" | "application/tar" => return Some(Compression::None),
        "application/gzip" | "application/x-gzip" | "application/tar+gzip" => return Some(Compression::Gzip),
        "application/zstd" | "application/x-zstd" | "application/tar+zstd" => return Some(Compression::Zstd),
        _ => {}
    }
    let rest =
        [OCI_LAYER, DOCKER_LAYER].into_iter().chain(OTHERS).find_map(|kind| media_type.strip_prefix(kind))?;
    match rest {
        "" => Some(Compression::None),
        "+gzip" | ".gzip" | "+gz" | ".gz" => Some(Compression::Gzip),
        "+zstd" | ".zstd" | "+zst" | ".zst" => Some(Compression::Zstd),
        _ => None,
    }
}

/// What the annotations of a layer in zstd:chunked begin with (`pkg/chunked` of containers/storage).
const CHUNKED: &str = "io.github.containers.zstd-chunked.";

/// Whether a layer, which is compressed as `now` says, need not be compressed anew to be as `wanted` says.
pub fn is_compressed_as(layer: &Descriptor, now: Compression, wanted: Compression) -> bool {
    match wanted {
        Compression::ZstdChunked => {
            let has_table = layer.annotations.contains_key(&format!("{CHUNKED}manifest-checksum"));
            has_table && now == Compression::Zstd
        }
        Compression::None | Compression::Gzip | Compression::Zstd => now == wanted,
    }
}

/// The manifest of an image with other layers, in the given format. What Docker's format cannot express (annotations, a
/// subject) is left out.
///
/// # Errors
/// Fails if the manifest is not that of an image, or has another number of layers.
pub fn convert_image(
    manifest: &Manifest,
    format: Format,
    layers: &[Descriptor],
) -> Result<Manifest, ManifestError> {
    let Children::Image { config, layers: before } = &manifest.children else {
        return Err(ManifestError::Unsupported("an index where an image was expected".into()));
    };
    let mut value = read(manifest)?;
    if before.len() != layers.len() {
        return Err(ManifestError::Malformed("it has other layers than were converted".into()));
    }
    match format {
        Format::Oci if Format::of(&manifest.descriptor.media_type) == Some(Format::Oci) => {
            for (layer, written) in value["layers"].as_array_mut().into_iter().flatten().zip(layers) {
                name(layer, written);
            }
        }
        format => return new_image(config, format, layers),
    }
    write(format.manifest(), &value)
}

/// A new manifest of an image, in the given format.
///
/// # Errors
/// Fails only if the new manifest cannot be parsed, which no descriptor causes.
pub fn new_image(
    config: &Descriptor,
    format: Format,
    layers: &[Descriptor],
) -> Result<Manifest, ManifestError> {
    let value = json!({
        "schemaVersion": 2,
        "mediaType": format.manifest(),
        "config": named(&Descriptor { media_type: format.config().into(), ..config.clone() }),
        "layers": layers.iter().map(named).collect::<Vec<_>>(),
    });
    write(format.manifest(), &value)
}

/// An index with other children, in the given format.
///
/// # Errors
/// Fails if the manifest is not an index.
pub fn convert_index(
    manifest: &Manifest,
    format: Format,
    children: &[Descriptor],
) -> Result<Manifest, ManifestError> {
    let Children::Index(before) = &manifest.children else {
        return Err(ManifestError::Unsupported("an image where an index was expected".into()));
    };
    let mut value = read(manifest)?;
    value["mediaType"] = format.index().into();
    for (entry, written) in value["manifests"].as_array_mut().into_iter().flatten().zip(children) {
        name(entry, written);
        // An attestation names its image by the digest of the image (BuildKit, attestation storage).
        let attested = entry.pointer_mut("/annotations/vnd.docker.reference.digest");
        if let Some(attested) = attested
            && let Some(at) =
                before.iter().position(|child| attested.as_str() == Some(&child.digest.to_string()))
        {
            *attested = children[at].digest.to_string().into();
        }
    }
    if format == Format::Docker
        && let Some(index) = value.as_object_mut()
    {
        index.remove("annotations");
        index.remove("artifactType");
    }
    write(format.index(), &value)
}

fn read(manifest: &Manifest) -> Result<Value, ManifestError> {
    serde_json::from_slice(&manifest.body).map_err(|error| ManifestError::Malformed(error.to_string()))
}

fn write(media_type: &str, value: &Value) -> Result<Manifest, ManifestError> {
    let body = serde_json::to_vec(value).map_err(|error| ManifestError::Malformed(error.to_string()))?;
    Manifest::parse(media_type, body, None)
}

fn named(descriptor: &Descriptor) -> Value {
    let mut entry = json!({});
    name(&mut entry, descriptor);
    entry
}

/// The annotations of a layer that belong to one compression of it (zstd:chunked, eStargz).
fn is_of_compression(annotation: &str) -> bool {
    annotation.starts_with(CHUNKED) || annotation.starts_with("containerd.io/snapshot/stargz/")
}

/// Makes a descriptor inside a manifest name other content.
fn name(entry: &mut Value, descriptor: &Descriptor) {
    let digest = descriptor.digest.to_string();
    // Annotations that somebody stripped are missing although the bytes are the same.
    let lacks = |(key, value): (&String, &String)| {
        is_of_compression(key) && entry["annotations"][key].as_str() != Some(value)
    };
    let is_other = entry["digest"].as_str() != Some(&digest) || descriptor.annotations.iter().any(lacks);
    entry["mediaType"] = descriptor.media_type.clone().into();
    entry["digest"] = digest.into();
    entry["size"] = descriptor.size.into();
    if let Some(entry) = entry.as_object_mut().filter(|_| is_other) {
        entry.remove("data");
        let annotations = entry.entry("annotations").or_insert_with(|| json!({}));
        if let Value::Object(annotations) = annotations {
            annotations.retain(|key, _| !is_of_compression(key));
            let new = descriptor.annotations.iter().filter(|(key, _)| is_of_compression(key));
            annotations.extend(new.map(|(key, value)| (key.clone(), value.as_str().into())));
            if annotations.is_empty() {
                entry.remove("annotations");
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Digest;

    fn image(media_type: &str, layer: &str) -> Manifest {
        let digest = Digest::of(b"");
        let body = json!({
            "schemaVersion": 2, "mediaType": media_type,
            "config": { "mediaType": OCI_CONFIG, "digest": digest.to_string(), "size": 0 },
            "layers": [{ "mediaType": layer, "digest": digest.to_string(), "size": 0, "annotations": { "k": "v", "io.github.containers.zstd-chunked.manifest-checksum": "x" } }],
            "annotations": { "k": "v" },
        });
        Manifest::parse(media_type, serde_json::to_vec(&body).unwrap(), None).unwrap()
    }

    #[test]
    fn an_image_goes_to_docker_and_keeps_its_notes_otherwise() {
        let before = image(media_type::OCI_MANIFEST, "application/vnd.oci.image.layer.v1.tar+zstd");
        let layer = |format: Format| {
            let media_type = format.layer(Compression::Gzip).unwrap();
            [Descriptor::new(media_type, Digest::of(b"x"), 1)]
        };
        let docker = convert_image(&before, Format::Docker, &layer(Format::Docker)).unwrap();
        assert_eq!(docker.descriptor.media_type, media_type::DOCKER_MANIFEST);
        let text = String::from_utf8(docker.body.clone()).unwrap();
        assert!(text.contains(DOCKER_CONFIG) && !text.contains("annotations"), "{text}");
        let oci = convert_image(&before, Format::Oci, &layer(Format::Oci)).unwrap();
        let text = String::from_utf8(oci.body).unwrap();
        assert!(text.contains(r#""annotations":{"k":"v"}"#) && !text.contains("chunked"), "{text}");
        assert!(convert_image(&before, Format::Oci, &[]).is_err());
    }

    #[test]
    fn an_index_follows_its_children() {
        let (a, b, c) = (Digest::of(b"a"), Digest::of(b"b"), Digest::of(b"c"));
        let body = json!({
            "schemaVersion": 2, "mediaType": media_type::OCI_INDEX,
            "manifests": [
                { "mediaType": media_type::OCI_MANIFEST, "digest": a.to_string(), "size": 1, "platform": { "os": "linux", "architecture": "amd64" } },
                { "mediaType": media_type::OCI_MANIFEST, "digest": b.to_string(), "size": 1, "annotations": { "vnd.docker.reference.digest": a.to_string() } },
            ],
        });
        let before =
            Manifest::parse(media_type::OCI_INDEX, serde_json::to_vec(&body).unwrap(), None).unwrap();
        let child = |digest: &Digest| Descriptor::new(media_type::DOCKER_MANIFEST, digest.clone(), 2);
        let after = convert_index(&before, Format::Docker, &[child(&c), child(&b)]).unwrap();
        let Children::Index(children) = &after.children else { panic!() };
        assert_eq!(children[0].digest, c);
        assert_eq!(children[1].annotations["vnd.docker.reference.digest"], c.to_string());
        assert_eq!(children[0].platform.as_ref().unwrap().to_string(), "linux/amd64");
    }

    #[test]
    fn layers_tell_their_compression() {
        for format in [Format::Oci, Format::Docker] {
            for compression in [Compression::None, Compression::Gzip, Compression::Zstd] {
                if let Some(media_type) = format.layer(compression) {
                    assert_eq!(layer_compression(media_type), Some(compression));
                }
            }
        }
        assert_eq!(layer_compression("application/vnd.in-toto+json"), None);
        assert_eq!(Format::Docker.layer(Compression::Zstd), None);
    }
}
