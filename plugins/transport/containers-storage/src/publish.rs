//! Publishes an image: its layers get the names that podman would give them, and everything is recorded in
//! one step (containers/storage, layers.go, images.go and drivers/overlay).

use crate::{
    name::ID,
    store::{
        DOCKER, IMAGES, IMAGES_LOCK, Image, LAYERS, LAYERS_LOCK, Layer, OCI, Records, STAGE, layers, stage,
    },
};
use dray_plugin_transport::{
    Error, digest,
    dray::plugin::{
        clock, files,
        types::{Manifest, Unpacked},
        writing::{self, Change},
    },
    exports::dray::plugin::sink::Naming,
    read, serde_json, sha256,
};
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value, json};
use std::{
    collections::{BTreeMap, BTreeSet},
    time::{Duration, UNIX_EPOCH},
};

/// What is known of an unpacked layer that waits for its image.
#[derive(Serialize, Deserialize)]
pub struct Facts {
    pub digest: String,
    pub size: u64,
    pub uids: Vec<u32>,
    pub gids: Vec<u32>,
}

/// The file with the facts of a layer, in the folder of the layer.
pub const FACTS: &str = "facts.json";

#[derive(Deserialize)]
struct Content {
    config: Blob,
    #[serde(default)]
    layers: Vec<Blob>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Blob {
    media_type: String,
    digest: String,
    size: u64,
}

#[derive(Deserialize)]
struct Config {
    created: Option<String>,
    rootfs: RootFs,
}

#[derive(Deserialize)]
struct RootFs {
    diff_ids: Vec<String>,
}

/// How often publishing is repeated because somebody else wrote to the store meanwhile, before it fails.
const ATTEMPTS: usize = 1000;

/// Records an image and its layers.
pub fn publish(repository: &str, named: &str, manifest: &Manifest, naming: &Naming) -> Result<(), Error> {
    if !matches!(&*manifest.media_type, OCI | DOCKER) {
        return Err(Error::Unsupported(format!("the store holds no {}", manifest.media_type)));
    }
    let name = match naming {
        // No parent follows, because the store holds no indexes.
        Naming::Child => return Ok(()),
        Naming::Tag(tag) if tag.starts_with(ID) => {
            return Err(Error::Invalid("an image's ID follows from its content: name a tag".into()));
        }
        Naming::Tag(tag) => Some(format!("{repository}:{tag}")),
        Naming::Root => Some(format!("{repository}@{named}")).filter(|_| !repository.is_empty()),
    };
    let content: Content = serde_json::from_slice(&manifest.body)
        .map_err(|error| Error::Invalid(format!("read the manifest {named}: {error}")))?;
    let (_, id) = digest(&content.config.digest)?;
    let bytes = config(id, &content.config.digest)?;
    let config: Config = serde_json::from_slice(&bytes)
        .map_err(|error| Error::Invalid(format!("read the config {id}: {error}")))?;
    if config.rootfs.diff_ids.len() != content.layers.len() {
        return Err(Error::Invalid(format!(
            "the config {id} knows {} layers and the manifest {}",
            config.rootfs.diff_ids.len(),
            content.layers.len()
        )));
    }
    for _ in 0..ATTEMPTS {
        let mut attempt = Attempt {
            layers: Records::read(LAYERS)?,
            images: Records::read(IMAGES)?,
            links: BTreeMap::new(),
            used: BTreeSet::new(),
            changes: Vec::new(),
        };
        let top = attempt.chain(&content.layers, &config.rootfs.diff_ids)?;
        let blobs = [
            ("manifest", &manifest.body),
            (&*format!("manifest-{named}"), &manifest.body),
            (&*content.config.digest, &bytes),
        ];
        attempt.image(id, named, name.as_deref(), top, config.created.as_deref(), &blobs)?;
        attempt.changes.push(Change::Remove(stage(&content.config.digest)?));
        for layer in &content.layers {
            attempt.changes.push(Change::Remove(stage(&layer.digest)?));
        }
        if attempt.commit()? {
            return Ok(());
        }
    }
    Err(Error::Transient("somebody else writes the store all the time".into()))
}

/// The config that waits for its image, or that an image in this store already has.
fn config(id: &str, named: &str) -> Result<Vec<u8>, Error> {
    match read(&stage(named)?)? {
        Some(bytes) => Ok(bytes),
        None => read(&Image::path(id, named))?.ok_or_else(|| Error::Missing(vec![named.into()])),
    }
}

/// One attempt to record an image, based on what the store holds now.
struct Attempt {
    layers: Records,
    images: Records,
    /// For each layer that this image adds: its short name, and those of the layers below it.
    links: BTreeMap<String, (String, Option<String>)>,
    /// Digests of the waiting layers that a layer of this image already uses.
    used: BTreeSet<String>,
    changes: Vec<Change>,
}

impl Attempt {
    /// Adds the layers that the store does not have yet. Returns the ID of the topmost layer.
    fn chain(&mut self, blobs: &[Blob], diff_ids: &[String]) -> Result<Option<String>, Error> {
        let known = layers(&self.layers)?;
        let mut parent: Option<String> = None;
        for (blob, diff_id) in blobs.iter().zip(diff_ids) {
            let (_, hex) = digest(diff_id)?;
            let id = match &parent {
                None => hex.to_owned(),
                Some(parent) => sha256(format!("{parent}+{hex}").as_bytes()).split_off("sha256:".len()),
            };
            let there = known.iter().find(|layer| layer.id == id);
            if !there.is_some_and(Layer::whole) {
                let (folder, facts) = self.waiting(blob, diff_id, &id, &known)?;
                self.tidy(&id)?;
                self.layer(&id, parent.as_deref(), &folder, blob, &facts)?;
            }
            parent = Some(id);
        }
        Ok(parent)
    }

    /// Returns a folder with the unpacked layer that no layer of the store uses yet, and what is known of it.
    fn waiting(
        &mut self,
        blob: &Blob,
        diff_id: &str,
        id: &str,
        known: &[Layer],
    ) -> Result<(String, Facts), Error> {
        let folder = stage(&blob.digest)?;
        let facts: Option<Facts> = match read(&format!("{folder}/{FACTS}"))? {
            Some(bytes) => serde_json::from_slice(&bytes).ok(),
            None => None,
        };
        if let Some(facts) = &facts
            && facts.digest != *diff_id
        {
            return Err(Error::Invalid(format!(
                "the layer {} decompresses to {}, and the config says {diff_id}",
                blob.digest, facts.digest
            )));
        }
        match facts {
            Some(facts) if self.used.insert(blob.digest.clone()) => Ok((folder, facts)),
            // The same layer is used elsewhere in a chain, so it is unpacked again.
            other => {
                let layer = match (other, known.iter().find(|layer| layer.is(diff_id))) {
                    (Some(facts), _) => Unpacked {
                        folder: format!("{folder}/diff"),
                        tar_split: format!("{folder}/tar-split.gz"),
                        size: facts.size,
                    },
                    (None, Some(layer)) => Unpacked {
                        folder: format!("overlay/{}/diff", layer.id),
                        tar_split: Layer::tar_split(&layer.id),
                        size: layer.diff_size,
                    },
                    (None, None) => return Err(Error::Missing(vec![blob.digest.clone()])),
                };
                let folder = format!("{STAGE}/{id}-again");
                let facts = writing::unpack(&layer, &folder)?;
                if facts.digest != diff_id {
                    return Err(Error::Invalid(format!("the store's layer {diff_id} has been changed")));
                }
                Ok((
                    folder,
                    Facts { digest: facts.digest, size: facts.size, uids: facts.uids, gids: facts.gids },
                ))
            }
        }
    }

    /// Removes what a program that was killed left behind: a folder without a record, or the record of an
    /// incomplete layer.
    fn tidy(&mut self, id: &str) -> Result<(), Error> {
        let broken = self.layers.list.iter().any(|layer| layer.get("id").and_then(Value::as_str) == Some(id));
        if !broken && files::stat(&format!("overlay/{id}/link"))?.is_none() {
            return Ok(());
        }
        // A program that is writing the layer holds the lock. Once it is free, the layer is complete or was
        // left behind.
        let locks = [LAYERS_LOCK.to_owned()];
        let mut list = self.layers.list.clone();
        list.retain(|layer| layer.get("id").and_then(Value::as_str) != Some(id));
        let expected = self.layers.bytes.clone();
        let content = serde_json::to_vec(&list).unwrap_or_default();
        let changes = [
            Change::Replace((LAYERS.into(), expected, content.clone())),
            Change::Remove(format!("overlay/{id}")),
        ];
        if writing::commit(&locks, &changes)? {
            self.layers.list = list;
            self.layers.bytes = Some(content);
        }
        // If this commit fails, the commit of the image fails, too, and everything is read again.
        Ok(())
    }

    fn layer(
        &mut self,
        id: &str,
        parent: Option<&str>,
        folder: &str,
        blob: &Blob,
        facts: &Facts,
    ) -> Result<(), Error> {
        let link = short(id);
        let lower = match parent {
            None => None,
            Some(parent) => {
                let (link, lower) = self.link(parent)?;
                Some(lower.map_or_else(|| format!("l/{link}"), |lower| format!("l/{link}:{lower}")))
            }
        };
        let at = format!("overlay/{id}");
        self.changes.extend([
            Change::Folder("overlay/l".into()),
            Change::Move((folder.into(), at.clone())),
            Change::Remove(format!("{at}/{FACTS}")),
            Change::Move((format!("{at}/tar-split.gz"), Layer::tar_split(id))),
            Change::Replace((format!("{at}/link"), None, link.clone().into())),
            Change::Folder(format!("{at}/work")),
            Change::Folder(format!("{at}/merged")),
            Change::Symlink((format!("overlay/l/{link}"), format!("../{id}/diff"))),
        ]);
        self.changes.push(match &lower {
            Some(lower) => Change::Replace((format!("{at}/lower"), None, lower.clone().into())),
            None => Change::Folder(format!("{at}/empty")),
        });
        self.links.insert(id.into(), (link, lower));
        let mut record = Map::new();
        record.insert("id".into(), id.into());
        if let Some(parent) = parent {
            record.insert("parent".into(), parent.into());
        }
        // The numbers of containers/storage (pkg/archive): 0 is uncompressed, 2 is gzip, and 4 is zstd.
        let compression = match &*blob.media_type {
            media_type if media_type.contains("zstd") => 4,
            media_type if media_type.contains("gzip") => 2,
            _ => 0,
        };
        let known = json!({
            "created": now(),
            "compressed-diff-digest": blob.digest,
            "compressed-size": blob.size,
            "diff-digest": facts.digest,
            "diff-size": facts.size,
            "compression": compression,
            "uidset": facts.uids,
            "gidset": facts.gids,
        });
        record.extend(known.as_object().cloned().unwrap_or_default());
        self.layers.list.push(record);
        Ok(())
    }

    /// The short name of a layer, and those of the layers below it.
    fn link(&self, id: &str) -> Result<(String, Option<String>), Error> {
        if let Some(link) = self.links.get(id) {
            return Ok(link.clone());
        }
        let text = |name: &str| {
            let bytes = read(&format!("overlay/{id}/{name}"))?;
            Ok::<_, Error>(bytes.map(|bytes| String::from_utf8_lossy(&bytes).trim().to_owned()))
        };
        let link = text("link")?.ok_or_else(|| {
            Error::Invalid(format!(
                "the store's layer {id} has lost its folder: remove its images with podman"
            ))
        })?;
        Ok((link, text("lower")?))
    }

    fn image(
        &mut self,
        id: &str,
        named: &str,
        name: Option<&str>,
        top: Option<String>,
        created: Option<&str>,
        blobs: &[(&str, &Vec<u8>)],
    ) -> Result<(), Error> {
        // A name belongs to only one image.
        if let Some(name) = name {
            for image in &mut self.images.list {
                if let Some(Value::Array(names)) = image.get_mut("names") {
                    names.retain(|other| other != name);
                }
            }
        }
        let there =
            self.images.list.iter().position(|image| image.get("id").and_then(Value::as_str) == Some(id));
        let at = there.unwrap_or_else(|| {
            self.images.list.push(Map::from_iter([("id".into(), id.into())]));
            self.images.list.len() - 1
        });
        let image = &mut self.images.list[at];
        image.insert("digest".into(), named.into());
        if let Some(top) = top {
            image.insert("layer".into(), top.into());
        }
        image.entry("metadata").or_insert_with(|| "{}".into());
        image.entry("created").or_insert_with(|| created.map_or_else(now, str::to_owned).into());
        for list in ["names", "names-history"] {
            let entry = image.entry(list).or_insert_with(|| Value::Array(Vec::new()));
            if entry.is_null() {
                *entry = Value::Array(Vec::new());
            }
            if let (Some(entry), Some(name)) = (entry.as_array_mut(), name)
                && !entry.iter().any(|other| other == name)
            {
                entry.insert(0, name.into());
            }
        }
        for (key, bytes) in blobs {
            let mut put = |list: &str, value: Value| {
                let entry = image.entry(list).or_insert_with(|| Value::Object(Map::new()));
                if let Some(entry) = entry.as_object_mut() {
                    entry.insert((*key).to_owned(), value);
                }
            };
            put("big-data-sizes", bytes.len().into());
            put("big-data-digests", sha256(bytes).into());
            let names = image.entry("big-data-names").or_insert_with(|| Value::Array(Vec::new()));
            if let Some(names) = names.as_array_mut()
                && !names.iter().any(|other| other == key)
            {
                names.push((*key).into());
            }
            let path = Image::path(id, key);
            self.changes.push(Change::Replace((path.clone(), read(&path)?, bytes.to_vec())));
        }
        Ok(())
    }

    /// Commits the changes. The result is false if somebody else wrote to the store meanwhile.
    fn commit(mut self) -> Result<bool, Error> {
        // The layers below must still be there, so the list of layers is replaced even if it stays the same.
        for records in [(LAYERS, self.layers), (IMAGES, self.images)] {
            let (path, Records { bytes, list, .. }) = records;
            let content = serde_json::to_vec(&list).unwrap_or_default();
            self.changes.push(Change::Replace((path.into(), bytes, content)));
        }
        writing::commit(&[LAYERS_LOCK.into(), IMAGES_LOCK.into()], &self.changes)
    }
}

/// The short name of a layer: 26 letters and digits, so that many layers fit into the options of a mount.
fn short(id: &str) -> String {
    const LETTERS: &[u8; 32] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZ234567";
    let hash = sha256(format!("link {id}").as_bytes());
    let digits = hash.bytes().skip("sha256:".len()).map(|digit| (digit as char).to_digit(16).unwrap_or(0));
    let bits: Vec<u8> =
        digits.flat_map(|digit| (0..4).rev().map(move |bit| (digit >> bit & 1) as u8)).collect();
    bits.chunks_exact(5)
        .take(26)
        .map(|bits| LETTERS[bits.iter().fold(0, |number, bit| number << 1 | usize::from(*bit))] as char)
        .collect()
}

fn now() -> String {
    humantime::format_rfc3339_millis(UNIX_EPOCH + Duration::from_millis(clock::now())).to_string()
}
