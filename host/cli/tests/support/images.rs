//! Images that tests copy.

use super::World;
use serde_json::{Value, json};
use std::{fs, path::Path};

/// The repository's sample images: two platforms each.
pub fn images() -> String {
    format!("oci:{}", Path::new(env!("CARGO_MANIFEST_DIR")).join("../../examples/images").display())
}

/// A layout with an image, an index and an artifact: `seed:single`, `seed:multi`, `seed:artifact`.
pub fn seed(world: &World) {
    let from = format!("{}:1.2.0", images());
    world.dray(&["copy", "--platform", "linux/amd64", &from, "oci:seed:single"]).ok();
    world.dray(&["copy", "--all", &from, "oci:seed:multi"]).ok();
    let blob = |content: &[u8]| {
        let digest = dray_core::Digest::of(content);
        fs::write(world.path("seed/blobs/sha256").join(digest.hex()), content).unwrap();
        json!({ "digest": digest.to_string(), "size": content.len() })
    };
    let typed = |mut descriptor: Value, media_type: &str| {
        descriptor["mediaType"] = media_type.into();
        descriptor
    };
    let manifest = json!({
        "schemaVersion": 2,
        "mediaType": "application/vnd.oci.image.manifest.v1+json",
        "artifactType": "application/vnd.acme.notes",
        "config": typed(blob(b"{}"), "application/vnd.oci.empty.v1+json"),
        "layers": [typed(blob(b"some notes"), "text/plain")],
    });
    let mut entry =
        typed(blob(manifest.to_string().as_bytes()), "application/vnd.oci.image.manifest.v1+json");
    entry["annotations"] = json!({ "org.opencontainers.image.ref.name": "artifact" });
    // As buildkit attests: an image's config, and layers of another kind.
    let attestation = json!({
        "schemaVersion": 2,
        "mediaType": "application/vnd.oci.image.manifest.v1+json",
        "config": typed(blob(b"{\"os\":\"unknown\"}"), "application/vnd.oci.image.config.v1+json"),
        "layers": [typed(blob(b"{}"), "application/vnd.in-toto+json")],
    });
    let mut attested: Value = serde_json::from_str(&raw(world, "oci:seed:multi")).unwrap();
    let mut child =
        typed(blob(attestation.to_string().as_bytes()), "application/vnd.oci.image.manifest.v1+json");
    child["platform"] = json!({ "os": "unknown", "architecture": "unknown" });
    child["annotations"] = json!({
        "vnd.docker.reference.digest": attested["manifests"][0]["digest"],
        "vnd.docker.reference.type": "attestation-manifest",
    });
    attested["manifests"].as_array_mut().unwrap().push(child);
    let mut second = typed(blob(attested.to_string().as_bytes()), "application/vnd.oci.image.index.v1+json");
    second["annotations"] = json!({ "org.opencontainers.image.ref.name": "attested" });
    let index = world.path("seed/index.json");
    let mut value: Value = serde_json::from_slice(&fs::read(&index).unwrap()).unwrap();
    value["manifests"].as_array_mut().unwrap().extend([entry, second]);
    fs::write(index, value.to_string()).unwrap();
}

/// The diff ids of an image.
pub fn diff_ids(world: &World, reference: &str) -> Value {
    world.dray(&["inspect", "--config", reference]).ok().json()["rootfs"]["diff_ids"].clone()
}

pub fn raw(world: &World, reference: &str) -> String {
    world.dray(&["inspect", "--raw", reference]).ok().out
}

/// A layout with an image of several layers, in which the same layer comes twice, files go and a
/// folder is hidden: `layered:gzip`, `layered:zstd`, and `layered:other` on the same base.
pub fn layered(world: &World) {
    let tar = |name: &str, script: &str| {
        let folder = world.path(name);
        fs::create_dir_all(&folder).unwrap();
        let script = format!(
            "set -e; cd {}; {script}; tar --xattrs --numeric-owner -cf ../{name}.tar .",
            folder.display()
        );
        world.tool("sh", &["-c", &script]);
        fs::read(world.path(&format!("{name}.tar"))).unwrap()
    };
    let base = tar(
        "base",
        "mkdir -p bin etc old -m 755; cp /bin/busybox bin/; ln -s busybox bin/sh; ln bin/busybox bin/cat; \
         echo one > etc/one; echo two > etc/two; chown 7:8 etc/two; chmod 4711 etc/one; echo x > old/x; mkfifo pipe",
    );
    let again =
        tar("again", "mkdir etc; touch etc/.wh.two; mkdir old; touch old/.wh..wh..opq; echo y > old/y");
    let last = tar("last", "mkdir etc; echo three > etc/three");
    let zipped = |bytes: &[u8]| {
        fs::write(world.path("plain"), bytes).unwrap();
        world.tool("gzip", &["-nkf", &world.path("plain").to_string_lossy()]);
        fs::read(world.path("plain.gz")).unwrap()
    };
    fs::create_dir_all(world.path("layered/blobs/sha256")).unwrap();
    fs::write(world.path("layered/oci-layout"), "{\"imageLayoutVersion\":\"1.0.0\"}").unwrap();
    let blob = |media_type: &str, content: &[u8]| {
        let digest = dray_core::Digest::of(content);
        fs::write(world.path("layered/blobs/sha256").join(digest.hex()), content).unwrap();
        json!({ "mediaType": media_type, "digest": digest.to_string(), "size": content.len() })
    };
    let manifest = "application/vnd.oci.image.manifest.v1+json";
    let image = |layers: &[&Vec<u8>], tag: &str| {
        let diff_ids: Vec<_> = layers.iter().map(|layer| dray_core::Digest::of(layer).to_string()).collect();
        let line = |empty: bool| json!({ "created": "2020-01-02T03:04:05Z", "created_by": "sh", "empty_layer": empty });
        let history: Vec<_> = layers.iter().map(|_| line(false)).chain([line(true)]).collect();
        let config = json!({
            "created": "2020-01-02T03:04:05Z", "architecture": "amd64", "os": "linux",
            "config": { "Cmd": ["/bin/sh", "-c", "cat /etc/one /etc/three; ls /etc /old"] },
            "rootfs": { "type": "layers", "diff_ids": diff_ids },
            "history": history,
        });
        let kind = "application/vnd.oci.image.layer.v1.tar+gzip";
        let layers: Vec<_> = layers.iter().map(|layer| blob(kind, &zipped(layer))).collect();
        let config = blob("application/vnd.oci.image.config.v1+json", config.to_string().as_bytes());
        let body = json!({ "schemaVersion": 2, "mediaType": manifest, "config": config, "layers": layers });
        let mut entry = blob(manifest, body.to_string().as_bytes());
        entry["annotations"] = json!({ "org.opencontainers.image.ref.name": tag });
        entry
    };
    // The same layer twice on different ones, and the one base beneath two.
    let entries = [
        image(&[&base, &again, &last, &again], "gzip"),
        image(&[&base, &last], "other"),
        image(&[&base, &last, &last], "theirs"),
    ];
    fs::write(
        world.path("layered/index.json"),
        json!({ "schemaVersion": 2, "manifests": entries }).to_string(),
    )
    .unwrap();
    world.dray(&["copy", "--compression", "zstd", "oci:layered:gzip", "oci:layered:zstd"]).ok();
}
