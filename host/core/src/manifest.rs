//! Manifests: exact bytes that name their children by descriptors (OCI image specification, manifest and image index;
//! Docker image manifest version 2, schema 2).

use crate::{
    Digest, Platform,
    schema1::{self, Schema1},
};
use serde_json::{Map, Value};
use std::collections::BTreeMap;

/// How deep indexes may be nested. An image with deeper indexes is treated as if it had no end.
pub const NESTING: usize = 8;

/// Media types of manifests.
pub mod media_type {
    /// OCI image index.
    pub const OCI_INDEX: &str = "application/vnd.oci.image.index.v1+json";
    /// OCI image manifest.
    pub const OCI_MANIFEST: &str = "application/vnd.oci.image.manifest.v1+json";
    /// Docker manifest list.
    pub const DOCKER_LIST: &str = "application/vnd.docker.distribution.manifest.list.v2+json";
    /// Docker image manifest, schema 2.
    pub const DOCKER_MANIFEST: &str = "application/vnd.docker.distribution.manifest.v2+json";

    /// Docker image manifest, schema 1, signed.
    pub const DOCKER_SCHEMA1: &str = "application/vnd.docker.distribution.manifest.v1+prettyjws";

    /// Whether a descriptor of this type names a manifest rather than a blob.
    pub fn is_manifest(media_type: &str) -> bool {
        matches!(media_type, OCI_INDEX | OCI_MANIFEST | DOCKER_LIST | DOCKER_MANIFEST)
            || is_schema1(media_type)
    }

    /// Whether this is the media type of a schema 1 manifest, signed or not.
    pub fn is_schema1(media_type: &str) -> bool {
        matches!(media_type, DOCKER_SCHEMA1 | "application/vnd.docker.distribution.manifest.v1+json")
    }

    /// Whether this is the media type of an index.
    pub fn is_index(media_type: &str) -> bool {
        matches!(media_type, OCI_INDEX | DOCKER_LIST)
    }

    /// Whether this is the media type of layers that their makers do not let others distribute. Registries need not
    /// hold them.
    pub(crate) fn is_foreign(media_type: &str) -> bool {
        media_type.contains(".nondistributable.") || media_type.contains(".foreign.")
    }
}

/// Names content by its media type, digest and size (OCI image specification, descriptor).
#[derive(Clone, Debug, PartialEq)]
pub struct Descriptor {
    /// The media type of the content.
    pub media_type: String,
    /// The digest of the content.
    pub digest: Digest,
    /// In bytes.
    pub size: u64,
    /// The type of the artifact, if the content is the manifest of an artifact.
    pub artifact_type: Option<String>,
    /// The annotations that are strings. As a rule, only children of an index have some.
    pub annotations: BTreeMap<String, String>,
    /// The platform that the content is for. As a rule, only children of an index have one.
    pub platform: Option<Platform>,
    /// The content itself, if the manifest embeds it.
    pub data: Option<Vec<u8>>,
    /// Whether this is a layer that its maker does not let others distribute, and that can be downloaded elsewhere.
    /// Registries need not hold it.
    pub foreign: bool,
}

impl Descriptor {
    /// A descriptor with the three fields that every descriptor has.
    pub fn new(media_type: impl Into<String>, digest: Digest, size: u64) -> Self {
        Descriptor {
            media_type: media_type.into(),
            digest,
            size,
            artifact_type: None,
            annotations: BTreeMap::new(),
            platform: None,
            data: None,
            foreign: false,
        }
    }
}

/// A manifest as it was received, and what it names.
#[derive(Clone, Debug)]
pub struct Manifest {
    /// Its media type and digest, and the size of `body`. The digest of a signed schema 1 manifest covers only what was
    /// signed.
    pub descriptor: Descriptor,
    /// The exact bytes.
    pub body: Vec<u8>,
    /// The content that it names.
    pub children: Children,
    /// The digest of the manifest to which this one refers.
    pub subject: Option<Digest>,
    /// Signatures that the place keeps beside the manifest (containers-signature(5)). In registries, signatures are
    /// manifests of their own.
    pub signatures: Vec<Vec<u8>>,
}

/// What a manifest names.
#[derive(Clone, Debug)]
#[allow(clippy::large_enum_variant, reason = "few are alive at once, and a box would be in every user's way")]
pub enum Children {
    /// The manifests of an index.
    Index(Vec<Descriptor>),
    /// The blobs of an image: its config and its layers.
    Image {
        /// The configuration of the image or the artifact.
        config: Descriptor,
        /// In the order of the manifest.
        layers: Vec<Descriptor>,
    },
    /// Layers without their sizes and diff IDs, so the image must be written in another form.
    Schema1(Schema1),
}

/// The bytes are not a manifest that dray can copy.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ManifestError {
    /// The bytes are not JSON, or do not have the structure that their media type requires.
    #[error("read the manifest: {0}")]
    Malformed(String),
    /// The content has another digest than the one that was asked for.
    #[error("verify the manifest: asked for {expected}, got {actual}")]
    Digest {
        /// The digest that was asked for.
        expected: Digest,
        /// The digest of the bytes that were received.
        actual: Digest,
    },
    /// dray does not support the media type here.
    #[error("read the manifest: its type {0} is not supported")]
    Unsupported(String),
}

impl Manifest {
    /// The digest of a manifest: that of its bytes, or of what a manifest of schema 1 signs (distribution, manifest schema
    /// 2 version 1). The bytes need not be a manifest that dray can copy.
    ///
    /// # Errors
    /// Fails if it is a manifest of schema 1 whose signatures are malformed.
    pub fn digest_of(body: &[u8]) -> Result<Digest, ManifestError> {
        let read: Result<Value, _> = serde_json::from_slice(body);
        let version = read.ok().and_then(|value| value.get("schemaVersion")?.as_u64());
        match version {
            Some(1) => Ok(Digest::of(&schema1::payload(body)?)),
            _ => Ok(Digest::of(body)),
        }
    }

    /// Reads a manifest. `given` is the media type that came with it. The media type in the body has precedence. If
    /// neither says anything (both are missing, or `given` is for example `application/json`), the keys of the body
    /// decide. `expected` is the digest that was asked for.
    ///
    /// # Errors
    /// Fails if the body has another digest, contradicts its media type, or is malformed.
    pub fn parse(given: &str, body: Vec<u8>, expected: Option<&Digest>) -> Result<Self, ManifestError> {
        let is_page = body.trim_ascii_start().starts_with(b"<");
        let malformed = |error: serde_json::Error| {
            ManifestError::Malformed(match is_page {
                true => "it is a web page: what answers is no registry".into(),
                false => format!("it is no JSON: {error}"),
            })
        };
        let digest = |bytes: &[u8]| {
            let actual = expected.map_or_else(|| Digest::of(bytes), |expected| expected.alike(bytes));
            match expected.filter(|expected| **expected != actual) {
                Some(expected) => Err(ManifestError::Digest { expected: expected.clone(), actual }),
                None => Ok(actual),
            }
        };
        let read = serde_json::from_slice::<Value>(&body);
        if let Ok(value) = &read
            && value.get("schemaVersion").and_then(Value::as_u64) == Some(1)
        {
            let payload = schema1::payload(&body)?;
            let media_type = if media_type::is_schema1(given) { given } else { media_type::DOCKER_SCHEMA1 };
            return Ok(Manifest {
                descriptor: Descriptor::new(media_type, digest(&payload)?, body.len() as u64),
                children: Children::Schema1(Schema1::parse(&payload)?),
                body,
                subject: None,
                signatures: Vec::new(),
            });
        }
        let digest = digest(&body)?;
        let Value::Object(object) = read.map_err(malformed)? else {
            return Err(ManifestError::Malformed("it is no JSON object".into()));
        };
        let media_type = media_type(&object, given)?;
        let children = if media_type::is_index(&media_type) {
            Children::Index(list(&object, "manifests")?.iter().map(descriptor).collect::<Result<_, _>>()?)
        } else {
            let config = object.get("config").filter(|config| !config.is_null());
            let config = config.ok_or_else(|| ManifestError::Malformed("it names no config".into()))?;
            let layers = list(&object, "layers")?.iter().map(descriptor).collect::<Result<_, _>>()?;
            Children::Image { config: descriptor(config)?, layers }
        };
        let subject =
            object.get("subject").filter(|subject| subject.is_object()).map(descriptor).transpose()?;
        Ok(Manifest {
            descriptor: Descriptor::new(media_type, digest, body.len() as u64),
            body,
            children,
            subject: subject.map(|subject| subject.digest),
            signatures: Vec::new(),
        })
    }
}

/// A list of descriptors. `null` and a missing key mean an empty list (Go writes an empty list as `null`).
fn list<'a>(object: &'a Map<String, Value>, key: &str) -> Result<&'a [Value], ManifestError> {
    match object.get(key) {
        None | Some(Value::Null) => Ok(&[]),
        Some(Value::Array(entries)) => Ok(entries),
        Some(_) => Err(ManifestError::Malformed(format!("`{key}` is no list"))),
    }
}

/// Determines the media type of a manifest.
fn media_type(object: &Map<String, Value>, given: &str) -> Result<String, ManifestError> {
    let has = |key: &str| object.get(key).is_some_and(|value| !value.is_null());
    let own = object.get("mediaType").and_then(Value::as_str).filter(|own| !own.is_empty());
    if let Some(own) = own
        && media_type::is_manifest(given)
        && (media_type::is_index(own) != media_type::is_index(given) || !media_type::is_manifest(own))
    {
        return Err(ManifestError::Malformed(format!("it came as {given} and calls itself {own}")));
    }
    let stated = own.unwrap_or(given);
    if media_type::is_manifest(stated) && !media_type::is_schema1(stated) {
        // Some readers take a body that is both an index and an image for an index, and others for an image (OCI image
        // specification, CVE-2021-41190).
        let both = if media_type::is_index(stated) { has("layers") } else { has("manifests") };
        return match both {
            true => Err(ManifestError::Malformed("it is an index and an image at once".into())),
            false => Ok(stated.into()),
        };
    }
    let says_nothing = matches!(stated, "" | "application/json" | "text/plain" | "application/octet-stream");
    match (says_nothing, has("manifests"), has("layers") || has("config")) {
        (true, true, false) => Ok(media_type::OCI_INDEX.into()),
        (true, false, true) => Ok(media_type::OCI_MANIFEST.into()),
        _ => Err(ManifestError::Unsupported(if stated.is_empty() { "(none)".into() } else { stated.into() })),
    }
}

/// Reads the fields of a descriptor that dray needs. Whatever else a descriptor holds stays in the bytes of the
/// manifest.
fn descriptor(read: &Value) -> Result<Descriptor, ManifestError> {
    use base64::Engine as _;
    let malformed = |text: String| ManifestError::Malformed(text);
    let text = |key: &str| read.get(key).and_then(Value::as_str);
    let digest = text("digest").ok_or_else(|| malformed("it names something without a digest".into()))?;
    let digest: Digest =
        digest.parse().map_err(|error: crate::ParseDigestError| malformed(error.to_string()))?;
    let size = read.get("size").and_then(Value::as_u64);
    let size = size.ok_or_else(|| malformed(format!("it names {digest} without a size")))?;
    let data = text("data").filter(|data| !data.is_empty() || size == 0);
    let data = data.map(|data| base64::engine::general_purpose::STANDARD.decode(data));
    let data = data.transpose().map_err(|error| malformed(format!("data of {digest}: {error}")))?;
    if let Some(data) = &data
        && (data.len() as u64 != size || digest.alike(data) != digest)
    {
        return Err(malformed(format!("data of {digest} is not what its digest says")));
    }
    let platform = read.get("platform").and_then(|platform| {
        let text = |key: &str| platform.get(key).and_then(Value::as_str).filter(|text| !text.is_empty());
        Some(Platform {
            os: text("os")?.into(),
            architecture: text("architecture")?.into(),
            variant: text("variant").map(str::to_owned),
        })
    });
    let annotations = read.get("annotations").and_then(Value::as_object).into_iter().flatten();
    let media_type = text("mediaType").unwrap_or_default();
    let urls = read.get("urls").and_then(Value::as_array);
    Ok(Descriptor {
        media_type: media_type.into(),
        digest,
        size,
        artifact_type: text("artifactType").map(str::to_owned),
        annotations: annotations
            .filter_map(|(key, value)| Some((key.clone(), value.as_str()?.to_owned())))
            .collect(),
        platform,
        data,
        foreign: media_type::is_foreign(media_type) && urls.is_some_and(|urls| !urls.is_empty()),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    const HEX: &str = "sha256:e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855";

    fn image(extra: &str) -> Vec<u8> {
        format!(r#"{{"schemaVersion":2,{extra}"config":{{"mediaType":"application/vnd.acme.config","digest":"{HEX}","size":0}},"layers":[]}}"#).into_bytes()
    }

    #[test]
    fn an_artifact_with_any_config_and_no_layers_is_an_image() {
        let manifest = Manifest::parse(media_type::OCI_MANIFEST, image(""), None).unwrap();
        let Children::Image { config, layers } = manifest.children else { panic!() };
        assert_eq!((config.media_type.as_str(), layers.len()), ("application/vnd.acme.config", 0));
    }

    #[test]
    fn the_body_tells_its_type_where_the_answer_does_not() {
        let body = format!(
            r#"{{"schemaVersion":2,"manifests":[{{"mediaType":"{}","digest":"{HEX}","size":3,"platform":{{"os":"linux","architecture":"arm","variant":"v7"}}}}]}}"#,
            media_type::OCI_MANIFEST
        );
        let manifest = Manifest::parse("application/json", body.into_bytes(), None).unwrap();
        assert_eq!(manifest.descriptor.media_type, media_type::OCI_INDEX);
        let Children::Index(children) = manifest.children else { panic!() };
        assert_eq!(children[0].platform.as_ref().unwrap().to_string(), "linux/arm/v7");
    }

    #[test]
    fn ambiguity_and_lies_are_refused() {
        let both =
            format!(r#"{{"schemaVersion":2,"manifests":[],{}"#, &String::from_utf8(image("")).unwrap()[19..]);
        for (given, body) in [
            (media_type::OCI_INDEX, both.into_bytes()),
            (media_type::OCI_INDEX, image(&format!(r#""mediaType":"{}","#, media_type::OCI_MANIFEST))),
            ("", br#"{"schemaVersion":1,"fsLayers":[]}"#.to_vec()),
            ("text/html", b"<html>".to_vec()),
            ("application/vnd.acme", image("")),
        ] {
            assert!(
                Manifest::parse(given, body.clone(), None).is_err(),
                "{given} {}",
                String::from_utf8_lossy(&body)
            );
        }
        let error = Manifest::parse("", image(""), Some(&HEX.parse().unwrap())).unwrap_err();
        assert!(matches!(error, ManifestError::Digest { .. }));
    }

    #[test]
    fn what_others_leave_out_or_write_as_null_is_read() {
        let null = format!(
            r#"{{"mediaType":"{}","annotations":null,"subject":null,"manifests":[{{"digest":"{HEX}","size":0,"platform":{{}},"annotations":{{"a":1,"b":"c"}},"urls":null}}]}}"#,
            media_type::OCI_INDEX
        );
        let index = Manifest::parse("", null.into_bytes(), None).unwrap();
        let Children::Index(children) = index.children else { panic!() };
        assert_eq!((children[0].platform.clone(), children[0].annotations.len()), (None, 1));
        for layers in ["", r#","layers":null"#] {
            let body = format!(r#"{{"config":{{"mediaType":"x","digest":"{HEX}","size":0}}{layers}}}"#);
            let image = Manifest::parse("application/json", body.into_bytes(), None).unwrap();
            let Children::Image { layers, .. } = image.children else { panic!() };
            assert!(layers.is_empty());
        }
        let empty = Manifest::parse(media_type::OCI_INDEX, br#"{"manifests":null}"#.to_vec(), None).unwrap();
        assert!(matches!(empty.children, Children::Index(children) if children.is_empty()));
        let own = image(&format!(r#""mediaType":"{}","#, media_type::DOCKER_MANIFEST));
        let image = Manifest::parse(media_type::OCI_MANIFEST, own, None).unwrap();
        assert_eq!(image.descriptor.media_type, media_type::DOCKER_MANIFEST);
    }

    #[test]
    fn a_foreign_layer_lies_elsewhere_only_if_it_says_where() {
        let layer = |urls: &str| {
            let body = format!(
                r#"{{"config":{{"mediaType":"x","digest":"{HEX}","size":0}},"layers":[{{"mediaType":"application/vnd.docker.image.rootfs.foreign.diff.tar.gzip","digest":"{HEX}","size":0{urls}}}]}}"#
            );
            let Children::Image { layers, .. } =
                Manifest::parse(media_type::DOCKER_MANIFEST, body.into_bytes(), None).unwrap().children
            else {
                panic!()
            };
            layers[0].foreign
        };
        assert!(layer(r#","urls":["https://x.example/"]"#));
        assert!(!layer(r#","urls":[]"#) && !layer(""));
    }

    #[test]
    fn inline_data_must_be_what_its_digest_says() {
        let body = |data: &str| {
            format!(r#"{{"schemaVersion":2,"config":{{"mediaType":"m","digest":"{}","size":2,"data":"{data}"}},"layers":[]}}"#, Digest::of(b"{}")).into_bytes()
        };
        let Children::Image { config, .. } = Manifest::parse("", body("e30="), None).unwrap().children else {
            panic!()
        };
        assert_eq!(config.data.as_deref(), Some(b"{}".as_slice()));
        assert!(Manifest::parse("", body("e31="), None).is_err());
    }
}
