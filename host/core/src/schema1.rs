//! Docker image manifests of schema 1. Registries no longer accept them, but old images still have them (Docker image
//! manifest version 2, schema 1; for what a signature covers: libtrust's JSON signatures).

use crate::{Digest, ManifestError};
use base64::{Engine as _, engine::general_purpose::URL_SAFE_NO_PAD};
use serde::Deserialize;
use serde_json::{Map, Value, json};

/// The parts of a schema 1 manifest from which an image in a current format is made.
#[derive(Clone, Debug, PartialEq)]
pub struct Schema1 {
    /// The layers, the lowest first. Layers that only stand for a line of history are left out.
    pub layers: Vec<Digest>,
    /// The lines of history, the lowest layer first.
    history: Vec<Map<String, Value>>,
    architecture: String,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Body {
    #[serde(default)]
    architecture: String,
    fs_layers: Vec<Layer>,
    history: Vec<Entry>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Layer {
    blob_sum: Digest,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Entry {
    v1_compatibility: String,
}

#[derive(Deserialize)]
struct Signed {
    #[serde(default)]
    signatures: Vec<Signature>,
}

#[derive(Deserialize)]
struct Signature {
    protected: String,
}

/// What a signature says about the bytes that it covers.
#[derive(Deserialize, PartialEq)]
#[serde(rename_all = "camelCase")]
struct Protected {
    format_length: usize,
    format_tail: String,
}

fn malformed(text: impl std::fmt::Display) -> ManifestError {
    ManifestError::Malformed(text.to_string())
}

fn decode(text: &str) -> Result<Vec<u8>, ManifestError> {
    URL_SAFE_NO_PAD.decode(text.trim_end_matches('=')).map_err(malformed)
}

/// The bytes from which the digest of a manifest is computed: those that its signatures cover, or all of them.
pub(crate) fn payload(body: &[u8]) -> Result<Vec<u8>, ManifestError> {
    let signed: Signed = serde_json::from_slice(body).map_err(malformed)?;
    let protected = |signature: &Signature| -> Result<Protected, ManifestError> {
        serde_json::from_slice(&decode(&signature.protected)?).map_err(malformed)
    };
    let Some(first) = signed.signatures.first() else { return Ok(body.into()) };
    let covered = protected(first)?;
    for other in &signed.signatures[1..] {
        if protected(other)? != covered {
            return Err(malformed("its signatures are of different content"));
        }
    }
    let head = body.get(..covered.format_length).ok_or_else(|| malformed("a signature covers too much"))?;
    Ok([head, &decode(&covered.format_tail)?].concat())
}

impl Schema1 {
    /// Reads the bytes from which the digest is computed.
    pub(crate) fn parse(payload: &[u8]) -> Result<Self, ManifestError> {
        let body: Body = serde_json::from_slice(payload).map_err(malformed)?;
        if body.fs_layers.len() != body.history.len() || body.history.is_empty() {
            let (layers, history) = (body.fs_layers.len(), body.history.len());
            return Err(malformed(format!("{layers} layers with {history} lines of history")));
        }
        let mut layers = Vec::new();
        let mut history = Vec::new();
        // The manifest lists the highest layer first.
        for (layer, entry) in body.fs_layers.into_iter().zip(body.history).rev() {
            let known: Map<String, Value> =
                serde_json::from_str(&entry.v1_compatibility).map_err(malformed)?;
            if !is_throwaway(&known) {
                layers.push(layer.blob_sum);
            }
            history.push(known);
        }
        Ok(Schema1 { layers, history, architecture: body.architecture })
    }

    /// The config of the image. `diff_ids` are the diff IDs of its layers.
    pub fn config(&self, diff_ids: &[Digest]) -> Vec<u8> {
        let mut config = self.history.last().cloned().unwrap_or_default();
        for gone in ["id", "parent", "parent_id", "layer_id", "throwaway", "Size"] {
            config.remove(gone);
        }
        config.entry("os").or_insert_with(|| "linux".into());
        config.entry("architecture").or_insert_with(|| self.architecture.clone().into());
        let ids: Vec<String> = diff_ids.iter().map(ToString::to_string).collect();
        config.insert("rootfs".into(), json!({ "type": "layers", "diff_ids": ids }));
        config.insert("history".into(), self.history.iter().map(line).collect());
        // A map of JSON values always serialises.
        serde_json::to_vec(&config).unwrap_or_default()
    }
}

/// Whether a layer only stands for a line of history.
fn is_throwaway(known: &Map<String, Value>) -> bool {
    known.get("throwaway").and_then(Value::as_bool).unwrap_or_default()
}

/// A line of history as the configs of current formats have it (OCI image specification, configuration).
fn line(known: &Map<String, Value>) -> Value {
    let mut line = Map::new();
    for key in ["created", "author", "comment"] {
        line.extend(known.get(key).map(|value| (key.to_owned(), value.clone())));
    }
    let command = known.get("container_config").and_then(|config| config.get("Cmd")?.as_array());
    if let Some(command) = command {
        let words: Vec<&str> = command.iter().filter_map(Value::as_str).collect();
        line.insert("created_by".into(), words.join(" ").into());
    }
    if is_throwaway(known) {
        line.insert("empty_layer".into(), true.into());
    }
    line.into()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{Children, Manifest, media_type};

    fn unsigned() -> String {
        let history = [
            json!({ "id": "b", "parent": "a", "throwaway": true, "created": "2020-01-02T00:00:00Z", "os": "linux", "config": { "Cmd": ["sh"] }, "container_config": { "Cmd": ["/bin/sh", "-c", "#(nop) CMD"] } }),
            json!({ "id": "a", "created": "2020-01-01T00:00:00Z", "Size": 3 }),
        ];
        let history: Vec<Value> =
            history.iter().map(|known| json!({ "v1Compatibility": known.to_string() })).collect();
        let layers = [Digest::of(b"empty"), Digest::of(b"base")]
            .map(|digest| json!({ "blobSum": digest.to_string() }));
        json!({ "schemaVersion": 1, "name": "a/b", "tag": "1", "architecture": "amd64", "fsLayers": layers, "history": history })
            .to_string()
    }

    fn signed(length: usize, tail: &str) -> String {
        let text = unsigned();
        let protected = json!({ "formatLength": length, "formatTail": URL_SAFE_NO_PAD.encode(tail) });
        let protected = URL_SAFE_NO_PAD.encode(protected.to_string());
        let signatures = json!([{ "header": {}, "signature": "x", "protected": protected }]);
        format!("{},\"signatures\":{signatures}}}", &text[..text.len() - 1])
    }

    #[test]
    fn a_digest_is_of_what_the_signatures_cover() {
        let text = unsigned();
        let digest = Digest::of(text.as_bytes());
        for body in [text.clone(), signed(text.len() - 1, "}")] {
            let manifest = Manifest::parse("", body.into_bytes(), Some(&digest)).unwrap();
            assert_eq!(manifest.descriptor.digest, digest);
            assert!(media_type::is_schema1(&manifest.descriptor.media_type));
        }
        assert!(Manifest::parse("", signed(9999, "}").into_bytes(), None).is_err());
        assert!(Manifest::parse("", text.replace("base", "x").into_bytes(), Some(&Digest::of(b""))).is_err());
    }

    #[test]
    fn a_config_is_made_of_the_history() {
        let manifest = Manifest::parse("", unsigned().into_bytes(), None).unwrap();
        let Children::Schema1(old) = manifest.children else { panic!() };
        assert_eq!(old.layers, [Digest::of(b"base")]);
        let config: Value = serde_json::from_slice(&old.config(&[Digest::of(b"tar")])).unwrap();
        assert_eq!(config["rootfs"]["diff_ids"], json!([Digest::of(b"tar").to_string()]));
        assert_eq!(config["history"][1]["empty_layer"], true);
        assert_eq!(config["history"][1]["created_by"], "/bin/sh -c #(nop) CMD");
        assert_eq!(
            (&config["architecture"], &config["config"]["Cmd"], config.get("id")),
            (&json!("amd64"), &json!(["sh"]), None)
        );
    }
}
