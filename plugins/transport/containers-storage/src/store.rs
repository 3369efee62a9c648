//! What a store records about its images and layers (containers/storage, images.go and layers.go).

use base64::{Engine, engine::general_purpose::STANDARD};
use dray_plugin_transport::{
    Error, digest, dray::plugin::files, exports::dray::plugin::source::Manifest, read, serde_json, split_tag,
    unsigned,
};
use serde::Deserialize;
use serde_json::{Map, Value};
use std::collections::BTreeMap;

use crate::name::ID;

pub const IMAGES: &str = "overlay-images/images.json";
pub const IMAGES_LOCK: &str = "overlay-images/images.lock";
pub const LAYERS: &str = "overlay-layers/layers.json";
pub const LAYERS_LOCK: &str = "overlay-layers/layers.lock";

pub const OCI: &str = "application/vnd.oci.image.manifest.v1+json";
pub const DOCKER: &str = "application/vnd.docker.distribution.manifest.v2+json";

/// A list of records in a file. Fields that dray does not know are kept as they are.
pub struct Records {
    path: &'static str,
    /// The content of the file. `None` means that the file does not exist.
    pub bytes: Option<Vec<u8>>,
    pub list: Vec<Map<String, Value>>,
}

impl Records {
    pub fn read(path: &'static str) -> Result<Self, Error> {
        let bytes = read(path)?;
        let list = match &bytes {
            Some(bytes) => serde_json::from_slice(bytes)
                .map_err(|error| Error::Invalid(format!("read the store's {path}: {error}")))?,
            None => {
                other_driver()?;
                Vec::new()
            }
        };
        Ok(Records { path, bytes, list })
    }

    fn each<'a, T: Deserialize<'a>>(&'a self) -> Result<Vec<T>, Error> {
        let wrong = |error| Error::Invalid(format!("read the store's {}: {error}", self.path));
        self.list.iter().map(|record| T::deserialize(record).map_err(wrong)).collect()
    }
}

/// Fails if the store has another driver than overlay, because dray does not know how it keeps layers.
fn other_driver() -> Result<(), Error> {
    for entry in files::entries("")? {
        if let Some(driver) = entry.name.strip_suffix("-layers").filter(|driver| *driver != "overlay") {
            return Err(Error::Unsupported(format!(
                "the store has the driver {driver}, and dray knows how overlay keeps layers: `podman save` and docker-archive: serve instead"
            )));
        }
    }
    Ok(())
}

#[derive(Deserialize)]
#[serde(rename_all = "kebab-case")]
pub struct Image {
    pub id: String,
    names: Option<Vec<String>>,
    big_data_names: Option<Vec<String>>,
}

impl Image {
    /// The names of the image: each has a repository, and a tag or digest in it.
    pub fn names(&self) -> impl Iterator<Item = (&str, &str)> {
        self.names.iter().flatten().filter_map(|name| match name.split_once('@') {
            Some(named) => Some(named),
            None => {
                let (repository, tag) = split_tag(name);
                Some((repository, tag?))
            }
        })
    }

    /// The path of a file that belongs to an image.
    pub fn path(id: &str, key: &str) -> String {
        let plain =
            !key.is_empty() && key.bytes().all(|byte| matches!(byte, b'0'..=b'9' | b'a'..=b'z' | b'.'));
        match plain {
            true => format!("overlay-images/{id}/{key}"),
            false => format!("overlay-images/{id}/={}", STANDARD.encode(key)),
        }
    }

    /// The name under which the image keeps the manifest with this digest.
    fn key(&self, digest: &str) -> Option<&str> {
        let named = |name: &&String| name.strip_prefix("manifest-") == Some(digest);
        self.big_data_names.iter().flatten().find(named).map(String::as_str)
    }

    /// The manifest that a reference names. Several manifests with the same config belong to one image.
    pub fn manifest(&self, reference: Option<&str>) -> Result<Manifest, Error> {
        let path = Image::path(&self.id, reference.and_then(|digest| self.key(digest)).unwrap_or("manifest"));
        let body = read(&path)?.ok_or_else(|| {
            Error::Unsupported(format!("the image {} has no manifest: a build left it", self.id))
        })?;
        let known: Known = serde_json::from_slice(&body)
            .map_err(|error| Error::Invalid(format!("read the manifest of {}: {error}", self.id)))?;
        let media_type = match (known.media_type, known.schema_version) {
            (Some(media_type), _) => media_type,
            (None, Some(2)) => OCI.into(),
            _ => {
                return Err(Error::Unsupported(format!("the image {} has a manifest of schema 1", self.id)));
            }
        };
        Ok(unsigned(media_type, body))
    }
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Known {
    media_type: Option<String>,
    schema_version: Option<u64>,
}

/// All images of the store.
pub fn images() -> Result<Vec<Image>, Error> {
    Records::read(IMAGES)?.each()
}

/// The image that a reference names.
pub fn find(repository: &str, reference: Option<&str>) -> Result<Option<Image>, Error> {
    let wanted = reference.unwrap_or("latest");
    let id = wanted.strip_prefix(ID);
    let named = |image: &Image| match id {
        Some(id) => image.id == id,
        None => image
            .names()
            .any(|(name, tag)| name == repository && (tag == wanted || image.key(wanted).is_some())),
    };
    Ok(images()?.into_iter().find(named))
}

#[derive(Deserialize)]
#[serde(rename_all = "kebab-case")]
pub struct Layer {
    pub id: String,
    #[serde(default)]
    diff_digest: String,
    #[serde(default)]
    pub diff_size: u64,
    #[serde(default)]
    compressed_diff_digest: String,
    #[serde(default)]
    flags: Option<BTreeMap<String, Value>>,
}

impl Layer {
    /// Whether the layer is complete.
    pub fn whole(&self) -> bool {
        !self.flags.iter().flatten().any(|(flag, set)| flag == "incomplete" && *set == Value::Bool(true))
    }

    /// Whether this is the layer with this digest, uncompressed or compressed.
    pub fn came_as(&self, digest: &str) -> bool {
        self.whole() && (self.diff_digest == digest || self.compressed_diff_digest == digest)
    }

    /// Whether the tar of this layer has this digest.
    pub fn is(&self, digest: &str) -> bool {
        self.whole() && self.diff_digest == digest
    }

    pub fn tar_split(id: &str) -> String {
        format!("overlay-layers/{id}.tar-split.gz")
    }
}

/// The layers in these records.
pub fn layers(records: &Records) -> Result<Vec<Layer>, Error> {
    records.each()
}

/// The folder in which unpacked layers and configs wait for their image. It is inside the folder of the
/// layers, because podman mounts that one, and no folder can be moved from one mount to another.
pub const STAGE: &str = "overlay/dray";

/// The path at which a blob waits for its image.
pub fn stage(blob: &str) -> Result<String, Error> {
    let (_, hex) = digest(blob)?;
    Ok(format!("{STAGE}/{hex}"))
}
