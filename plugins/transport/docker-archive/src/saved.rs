//! The archives of `docker save`: `manifest.json` names the configs and layers beside it (Docker image
//! specification 1.2; Docker 25 and later put them into an OCI layout in the same archive).

use dray_plugin_transport::{
    Error,
    dray::plugin::{
        files,
        types::{Descriptor, FileRange, Manifest},
    },
    read,
};
use dray_plugin_transport::{full, tagged, unsigned};
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

pub const MANIFEST: &str = "manifest.json";
pub const DOCKER_MANIFEST: &str = "application/vnd.docker.distribution.manifest.v2+json";
const DOCKER_CONFIG: &str = "application/vnd.docker.container.image.v1+json";
const DOCKER_LAYER: &str = "application/vnd.docker.image.rootfs.diff.tar";
const OCI_MANIFEST: &str = "application/vnd.oci.image.manifest.v1+json";
const OCI_CONFIG: &str = "application/vnd.oci.image.config.v1+json";
const OCI_LAYER: &str = "application/vnd.oci.image.layer.v1.tar";

/// One image in an archive.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "PascalCase")]
pub struct Item {
    pub config: String,
    #[serde(default, deserialize_with = "or_default")]
    pub repo_tags: Vec<String>,
    #[serde(default, deserialize_with = "or_default")]
    pub layers: Vec<String>,
}

/// Docker writes `null` for an empty list.
fn or_default<'de, D: serde::Deserializer<'de>>(value: D) -> Result<Vec<String>, D::Error> {
    Ok(Option::deserialize(value)?.unwrap_or_default())
}

impl Item {
    /// The full repositories and the tags of the image.
    pub fn names(&self) -> impl Iterator<Item = (String, String)> {
        self.repo_tags.iter().map(|name| tagged(name))
    }
}

/// An archive that is read: where it is among the files of the place, and its images.
pub struct Saved {
    /// The folder of the archive. It is empty, or ends with a slash.
    pub base: String,
    pub items: Vec<Item>,
}

/// Reads the JSON of an archive's `manifest.json`.
pub fn items(shown: &str, bytes: &[u8]) -> Result<Vec<Item>, Error> {
    let mut items: Vec<Item> = serde_json::from_slice(bytes)
        .map_err(|error| Error::Invalid(format!("{shown}: {MANIFEST} is broken: {error}")))?;
    for item in &mut items {
        item.config = beneath(&item.config);
        item.layers = item.layers.iter().map(|name| beneath(name)).collect();
    }
    Ok(items)
}

/// Removes `./` and `/` from the front of a name. Some writers name the members of their archives like this.
fn beneath(name: &str) -> String {
    let mut name = name;
    while let Some(rest) = name.strip_prefix("./").or(name.strip_prefix('/')) {
        name = rest;
    }
    name.into()
}

/// Tars without files, as builders write them, with their sizes in bytes: two blocks of zeros, or twenty.
const EMPTY: [(&str, u64); 2] = [
    ("sha256:5f70bf18a086007016e948b04aed3b82103a36bea41755b6cddfaf10ace3c6ef", 1024),
    ("sha256:84ff92691f909a05b224e1c56abb4864f01b4f8e3c854e4bb4c7baf1d3f6d652", 10240),
];

/// Where an archive has a blob.
pub enum Place {
    /// It is this member of the archive.
    Member(String),
    /// It is an empty layer that the archive leaves out, and consists of this many zero bytes.
    Zeros(u64),
}

impl Saved {
    /// Opens the archive at `base`. `None` means that it has no `manifest.json`.
    pub fn at(shown: &str, base: &str) -> Result<Option<Saved>, Error> {
        let Some(bytes) = read(&format!("{base}{MANIFEST}"))? else { return Ok(None) };
        Ok(Some(Saved { base: base.into(), items: items(shown, &bytes)? }))
    }

    /// The image that a reference names.
    pub fn find(
        &self,
        shown: &str,
        repository: &str,
        reference: Option<&str>,
    ) -> Result<Option<&Item>, Error> {
        if let Some(position) = reference.and_then(|reference| reference.strip_prefix('@')) {
            let position: usize = position
                .parse()
                .map_err(|_| Error::Invalid(format!("`@{position}` is no position: count from @0")))?;
            return Ok(self.items.get(position));
        }
        if repository.is_empty() {
            // An image without a name has no tag.
            if reference.is_some() {
                return Ok(None);
            }
            if self.items.len() > 1 {
                return Err(Error::Invalid(format!(
                    "{shown} holds {} images: say which, as in docker-archive:{shown}:NAME:TAG or {shown}:@0",
                    self.items.len()
                )));
            }
            return Ok(self.items.first());
        }
        let named = |wanted: &str| {
            self.items.iter().find(|item| item.names().any(|(of, tag)| of == repository && tag == wanted))
        };
        if let Some(tag) = reference {
            return Ok(named(tag));
        }
        let mut all = self.items.iter().filter(|item| item.names().any(|(of, _)| of == repository));
        match (all.next(), all.next()) {
            (Some(only), None) => Ok(Some(only)),
            (None, _) => Ok(None),
            _ => Ok(named("latest")),
        }
    }

    fn config(&self, shown: &str, item: &Item) -> Result<Vec<u8>, Error> {
        let missing = || Error::Invalid(format!("{shown} is incomplete: {} is missing", item.config));
        read(&format!("{}{}", self.base, item.config))?.ok_or_else(missing)
    }

    /// The manifest of an image. It is made from the config and the layers, because the archive has no
    /// manifest that names them as they are stored there.
    pub fn manifest(&self, shown: &str, item: &Item) -> Result<Manifest, Error> {
        let config = self.config(shown, item)?;
        let layers = self.layers(shown, item, &config)?;
        let config_path = format!("{}{}", self.base, item.config);
        let oci = layers.iter().any(|layer| layer.compression == Compression::Zstd);
        let (media_type, config_type, layer_type, dash) = match oci {
            true => (OCI_MANIFEST, OCI_CONFIG, OCI_LAYER, '+'),
            false => (DOCKER_MANIFEST, DOCKER_CONFIG, DOCKER_LAYER, '.'),
        };
        let layers: Vec<Value> = layers
            .iter()
            .map(|layer| {
                let suffix = match layer.compression {
                    Compression::None => String::new(),
                    Compression::Gzip => format!("{dash}gzip"),
                    Compression::Zstd => format!("{dash}zstd"),
                };
                json!({ "mediaType": format!("{layer_type}{suffix}"), "digest": layer.digest, "size": layer.size })
            })
            .collect();
        let digest = files::digest(&config_path, false)?.digest;
        let body = json!({
            "schemaVersion": 2,
            "mediaType": media_type,
            "config": { "mediaType": config_type, "digest": digest, "size": config.len() },
            "layers": layers,
        });
        // Serialising JSON values never fails.
        Ok(unsigned(media_type, serde_json::to_vec(&body).unwrap_or_default()))
    }

    fn layers(&self, shown: &str, item: &Item, config: &[u8]) -> Result<Vec<Layer>, Error> {
        let broken = |why: String| Error::Invalid(format!("{shown}: {} {why}", item.config));
        let config: Config =
            serde_json::from_slice(config).map_err(|error| broken(format!("is no image config: {error}")))?;
        let ids = config.rootfs.diff_ids;
        if ids.len() != item.layers.len() {
            return Err(broken(format!(
                "has {} layers where {MANIFEST} names {}",
                ids.len(),
                item.layers.len()
            )));
        }
        let layer = |(id, name): (&String, &String)| {
            dray_plugin_transport::digest(id)?;
            if let Some((_, size)) = EMPTY.iter().find(|(empty, _)| name.is_empty() && id == empty) {
                return Ok(Layer {
                    path: String::new(),
                    compression: Compression::None,
                    digest: id.clone(),
                    size: *size,
                });
            }
            let path = format!("{}{name}", self.base);
            let size = files::stat(&path)?;
            let size = size.ok_or_else(|| {
                Error::Invalid(format!("{shown} is incomplete: the layer {name} is missing"))
            })?;
            let first = files::read(&FileRange { path: path.clone(), offset: 0, length: Some(4) })?;
            let compression = match first[..] {
                [0x1f, 0x8b, ..] => Compression::Gzip,
                [0x28, 0xb5, 0x2f, 0xfd] => Compression::Zstd,
                _ => Compression::None,
            };
            let digest = match (compression, blob_digest(name)) {
                (Compression::None, _) => id.clone(),
                // The name contains the digest, and the host verifies it.
                (_, Some(digest)) => digest,
                _ => files::digest(&path, false)?.digest,
            };
            Ok(Layer { path, compression, digest, size })
        };
        ids.iter().zip(&item.layers).map(layer).collect()
    }

    /// Finds a blob. `None` means that the archive does not hold it.
    pub fn locate(&self, shown: &str, repository: &str, blob: &Descriptor) -> Result<Option<Place>, Error> {
        let (algorithm, hex) = dray_plugin_transport::digest(&blob.digest)?;
        // These are the names that dray, skopeo and Docker 25 use. The host verifies the content.
        for usual in [format!("{hex}.tar"), format!("{hex}.json"), format!("blobs/{algorithm}/{hex}")] {
            let path = format!("{}{usual}", self.base);
            if files::stat(&path)? == Some(blob.size) {
                return Ok(Some(Place::Member(path)));
            }
        }
        let of_repository =
            |item: &&Item| !repository.is_empty() && item.names().any(|(of, _)| of == repository);
        let others = self.items.iter().filter(|item| !of_repository(item));
        for item in self.items.iter().filter(of_repository).chain(others) {
            let path = format!("{}{}", self.base, item.config);
            if files::stat(&path)? == Some(blob.size) && files::digest(&path, false)?.digest == blob.digest {
                return Ok(Some(Place::Member(path)));
            }
            let layers = self.layers(shown, item, &self.config(shown, item)?)?;
            if let Some(layer) = layers.into_iter().find(|layer| layer.digest == blob.digest) {
                return Ok(Some(match layer.path.is_empty() {
                    true => Place::Zeros(layer.size),
                    false => Place::Member(layer.path),
                }));
            }
        }
        Ok(None)
    }
}

/// The digest in a name of the form `blobs/sha256/HEX`.
fn blob_digest(name: &str) -> Option<String> {
    let digest = name.strip_prefix("blobs/")?.replacen('/', ":", 1);
    dray_plugin_transport::is_digest(&digest).then_some(digest)
}

#[derive(Clone, Copy, PartialEq)]
enum Compression {
    None,
    Gzip,
    Zstd,
}

struct Layer {
    path: String,
    compression: Compression,
    digest: String,
    size: u64,
}

#[derive(Deserialize)]
struct Config {
    rootfs: RootFs,
}

#[derive(Deserialize)]
struct RootFs {
    #[serde(default, deserialize_with = "or_default")]
    diff_ids: Vec<String>,
}

/// Converts a manifest to an item of an archive. The item has no name yet.
pub fn item(manifest: &Manifest) -> Result<Item, Error> {
    #[derive(Deserialize)]
    struct Named {
        digest: String,
    }
    #[derive(Deserialize)]
    struct Image {
        config: Named,
        layers: Vec<Named>,
    }
    let image: Image = serde_json::from_slice(&manifest.body)
        .map_err(|error| Error::Invalid(format!("a manifest of no known shape: {error}")))?;
    let hex = |named: &Named| Ok(dray_plugin_transport::digest(&named.digest)?.1.to_owned());
    Ok(Item {
        config: format!("{}.json", hex(&image.config)?),
        repo_tags: Vec::new(),
        layers: image
            .layers
            .iter()
            .map(|layer| Ok(format!("{}.tar", hex(layer)?)))
            .collect::<Result<_, Error>>()?,
    })
}

/// Adds an image under a name. The image that had the name before loses it.
pub fn add(items: &mut Vec<Item>, item: Item, name: Option<&str>) {
    if let Some(name) = name {
        // An image that had only this name is removed.
        items.retain_mut(|other| {
            let named = !other.repo_tags.is_empty();
            other.repo_tags.retain(|other| {
                let (repository, tag) = tagged(other);
                format!("{repository}:{tag}") != name
            });
            !named || !other.repo_tags.is_empty() || other.config == item.config
        });
    }
    let at = match items.iter().position(|other| other.config == item.config) {
        Some(at) => at,
        None => {
            items.push(item);
            items.len() - 1
        }
    };
    items[at].repo_tags.extend(name.map(str::to_owned));
}

/// The name under which an image is kept. `None` means that it has no name.
pub fn kept_name(repository: &str, tag: Option<&str>) -> Option<String> {
    (!repository.is_empty()).then(|| format!("{}:{}", full(repository), tag.unwrap_or("latest")))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn image(config: &str, tags: &[&str]) -> Item {
        Item {
            config: config.into(),
            repo_tags: tags.iter().map(ToString::to_string).collect(),
            layers: Vec::new(),
        }
    }

    #[test]
    fn a_name_moves_and_what_it_leaves_goes() {
        let mut items =
            vec![image("a", &["nginx:1", "nginx:2"]), image("b", &["r.example/x:1"]), image("unnamed", &[])];
        add(&mut items, image("c", &[]), Some("docker.io/library/nginx:1"));
        add(&mut items, image("a", &[]), Some("r.example/x:1"));
        assert_eq!(
            items,
            [
                image("a", &["nginx:2", "r.example/x:1"]),
                image("unnamed", &[]),
                image("c", &["docker.io/library/nginx:1"])
            ]
        );
    }

    #[test]
    fn images_are_found_by_name_and_position() {
        let items = items(
            "x",
            br#"[{"Config":"a","RepoTags":["nginx:1"],"Layers":null},{"Config":"b","RepoTags":null}]"#,
        )
        .unwrap();
        let saved = Saved { base: String::new(), items };
        let find = |repository: &str, reference| {
            saved.find("x", repository, reference).map(|item| item.map(|item| item.config.clone()))
        };
        assert_eq!(find("docker.io/library/nginx", Some("1")), Ok(Some("a".into())));
        assert_eq!(find("docker.io/library/nginx", None), Ok(Some("a".into())));
        assert_eq!(find("docker.io/library/nginx", Some("2")), Ok(None));
        assert_eq!(find("", Some("@1")), Ok(Some("b".into())));
        assert_eq!(find("", Some("@2")), Ok(None));
        assert!(find("", Some("@x")).is_err() && find("", None).is_err());
    }
}
