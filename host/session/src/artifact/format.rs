//! The form of a component in a registry (CNCF TAG Runtime, "Wasm OCI Artifact layout", version 0).

use dray_core::{Children, Descriptor, Digest, Manifest, media_type};
use dray_engine::{Error, Kind, Result};
use serde_json::{Value, json};

/// Media type of the config.
const CONFIG: &str = "application/vnd.wasm.config.v0+json";
/// Media type of the only layer, which is the component itself.
const LAYER: &str = "application/wasm";
/// The largest component in bytes. One of Python has about 20 MB.
const LARGEST: u64 = 64 << 20;
/// The largest config in bytes.
const LARGEST_CONFIG: u64 = 1 << 20;

/// What a component says of itself, for the config and the annotations of its artifact.
#[derive(Clone, Debug, Default)]
pub struct About {
    /// The name that it gives itself.
    pub name: String,
    /// Its version.
    pub version: String,
    /// What it does.
    pub summary: String,
    /// Its licence, as an SPDX expression.
    pub license: Option<String>,
    /// The full names of the interfaces that it imports.
    pub imports: Vec<String>,
    /// The full names of the interfaces that it exports.
    pub exports: Vec<String>,
}

/// A component with all that makes it an artifact. The same component with the same description has the same digest.
#[derive(Clone, Debug)]
pub struct Packed {
    /// The bytes of the manifest.
    pub manifest: Vec<u8>,
    /// The bytes of the config.
    pub config: Vec<u8>,
    /// The component.
    pub component: Vec<u8>,
}

fn descriptor(media_type: &str, bytes: &[u8]) -> Value {
    json!({ "mediaType": media_type, "digest": Digest::of(bytes), "size": bytes.len() })
}

impl Packed {
    /// Packs a component.
    pub fn new(component: Vec<u8>, about: &About) -> Self {
        // The time is a required key for some readers, and a real one would give each build of the same source another digest.
        let config = json!({
            "created": "1970-01-01T00:00:00Z",
            "architecture": "wasm",
            "os": "wasip2",
            "layerDigests": [Digest::of(&component)],
            "component": { "exports": about.exports, "imports": about.imports, "target": null },
        });
        let config = config.to_string().into_bytes();
        let mut annotations = serde_json::Map::new();
        for (key, value) in [
            ("title", Some(&about.name)),
            ("version", Some(&about.version)),
            ("description", Some(&about.summary)),
            ("licenses", about.license.as_ref()),
        ] {
            let value = value.filter(|value| !value.is_empty());
            annotations.extend(value.map(|value| (format!("org.opencontainers.image.{key}"), json!(value))));
        }
        let manifest = json!({
            "schemaVersion": 2,
            "mediaType": media_type::OCI_MANIFEST,
            "config": descriptor(CONFIG, &config),
            "layers": [descriptor(LAYER, &component)],
            "annotations": annotations,
        });
        Packed { manifest: manifest.to_string().into_bytes(), config, component }
    }

    /// The digest of the artifact.
    pub fn digest(&self) -> Digest {
        Digest::of(&self.manifest)
    }
}

/// The descriptor of the component in the manifest of an artifact.
///
/// # Errors
/// Fails if the artifact is no component, or if the component is too large.
pub fn component_of(manifest: &Manifest) -> Result<Descriptor> {
    let wrong = |why: String| {
        let digest = manifest.descriptor.digest.short();
        Error::new(Kind::Invalid, format!("read the plugin {digest}: {why}"))
            .help("`dray plugin push` and `wkg oci push` write plugins to registries")
    };
    let Children::Image { config, layers } = &manifest.children else {
        return Err(wrong("it is an index, and not one component".into()));
    };
    if config.media_type != CONFIG {
        return Err(wrong(format!("its config is of the type {}, and not {CONFIG}", config.media_type)));
    }
    if config.size > LARGEST_CONFIG {
        return Err(wrong(format!(
            "its config has {} bytes, and the most are {LARGEST_CONFIG}",
            config.size
        )));
    }
    match layers.as_slice() {
        [layer] if layer.media_type == LAYER && layer.size <= LARGEST => Ok(layer.clone()),
        [layer] if layer.media_type == LAYER => {
            Err(wrong(format!("it has {} bytes, and the most are {LARGEST}", layer.size)))
        }
        [layer] => Err(wrong(format!("its layer is of the type {}, and not {LAYER}", layer.media_type))),
        layers => Err(wrong(format!("it has {} layers, and not one", layers.len()))),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parsed(json: Value) -> Manifest {
        Manifest::parse(media_type::OCI_MANIFEST, json.to_string().into_bytes(), None).unwrap()
    }

    #[test]
    fn what_is_packed_can_be_read_and_is_always_the_same() {
        let about = About { name: "calver".into(), version: "1.2.0".into(), ..About::default() };
        let packed = Packed::new(b"\0asm".to_vec(), &about);
        assert_eq!(packed.digest(), Packed::new(b"\0asm".to_vec(), &about).digest());
        let manifest = Manifest::parse(media_type::OCI_MANIFEST, packed.manifest.clone(), None).unwrap();
        let layer = component_of(&manifest).unwrap();
        assert_eq!((layer.digest, layer.size), (Digest::of(b"\0asm"), 4));
        let config: Value = serde_json::from_slice(&packed.config).unwrap();
        assert_eq!(config["layerDigests"], json!([Digest::of(b"\0asm")]));
        let text = String::from_utf8(packed.manifest).unwrap();
        assert!(text.contains("image.title\":\"calver") && !text.contains("licenses"), "{text}");
    }

    #[test]
    fn other_artifacts_are_no_plugins() {
        let digest = Digest::of(b"");
        let of = |config: &str, layers: Value| {
            parsed(json!({
                "schemaVersion": 2,
                "mediaType": media_type::OCI_MANIFEST,
                "config": { "mediaType": config, "digest": digest, "size": 0 },
                "layers": layers,
            }))
        };
        let layer = |kind: &str, size: u64| json!({ "mediaType": kind, "digest": digest, "size": size });
        let tar = "application/vnd.oci.image.layer.v1.tar";
        for (manifest, told) in [
            (
                of("application/vnd.oci.image.config.v1+json", json!([layer(LAYER, 1)])),
                "its config is of the type",
            ),
            (of(CONFIG, json!([layer(tar, 1)])), "its layer is of the type"),
            (of(CONFIG, json!([layer(LAYER, 1), layer(LAYER, 1)])), "2 layers"),
            (of(CONFIG, json!([])), "0 layers"),
            (of(CONFIG, json!([layer(LAYER, LARGEST + 1)])), "the most are"),
        ] {
            let error = component_of(&manifest).unwrap_err();
            assert!(error.text.contains(told), "{error}");
        }
    }
}
