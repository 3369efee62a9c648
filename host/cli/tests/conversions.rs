//! Images that change their form on their way.
#![allow(clippy::unwrap_used, clippy::print_stderr, reason = "tests")]

mod support;

use std::fs;

use support::{
    Registry, World, has,
    images::{diff_ids, layered, raw, seed},
};

/// An index of two images with one layer, one in OCI's format and one in Docker's.
fn mixed_formats(world: &World) -> String {
    world.dray(&["copy", "--format", "oci", "oci:seed:single", "oci:mixed:oci"]).ok();
    world.dray(&["copy", "--format", "docker", "oci:seed:single", "dir:mixed-docker"]).ok();
    world.dray(&["copy", "dir:mixed-docker", "oci:mixed:docker"]).ok();
    let text = fs::read_to_string(world.path("mixed/index.json")).unwrap();
    let layout: serde_json::Value = serde_json::from_str(&text).unwrap();
    let find = |name: &str| {
        let entries = layout["manifests"].as_array().unwrap();
        let entry =
            entries.iter().find(|entry| entry["annotations"]["org.opencontainers.image.ref.name"] == name);
        let entry = entry.unwrap();
        let platform = serde_json::json!({ "os": "linux", "architecture": if name == "oci" { "amd64" } else { "arm64" } });
        serde_json::json!({ "mediaType": entry["mediaType"], "digest": entry["digest"], "size": entry["size"], "platform": platform })
    };
    let index =
        serde_json::json!({ "schemaVersion": 2, "mediaType": "application/vnd.oci.image.index.v1+json",
        "manifests": [find("oci"), find("docker")] })
        .to_string();
    let digest = dray_core::Digest::of(index.as_bytes());
    fs::write(world.path(&format!("mixed/blobs/sha256/{}", digest.hex())), &index).unwrap();
    let mut layout = layout.clone();
    layout["manifests"] = serde_json::json!([{ "mediaType": "application/vnd.oci.image.index.v1+json",
        "digest": digest.to_string(), "size": index.len(), "annotations": { "org.opencontainers.image.ref.name": "both" } }]);
    fs::write(world.path("mixed/index.json"), layout.to_string()).unwrap();
    "oci:mixed:both".into()
}

#[test]
fn layers_change_their_compression_and_images_their_format() {
    if !has("skopeo") {
        return;
    }
    let world = World::new();
    seed(&world);
    let mut last = "oci:seed:multi".to_owned();
    for (number, arguments) in [
        ["--compression", "zstd"],
        ["--compression", "none"],
        ["--format", "docker"],
        ["--compression", "gzip"],
        ["--format", "oci"],
    ]
    .iter()
    .enumerate()
    {
        // skopeo reads no Docker types in a layout.
        let to = format!("dir:step{number}");
        let copy = [&["copy", "--all", "--output", "json", &last, &to][..], arguments].concat();
        let report = world.dray(&copy).ok().json();
        let written = report["copies"][0]["written"].as_str().unwrap().to_owned();
        assert_eq!(written, dray_core::Digest::of(raw(&world, &to).as_bytes()).to_string(), "{arguments:?}");
        let again = world.dray(&copy).ok().json();
        assert_eq!(again["summary"]["unchanged"], 1, "{arguments:?}");
        assert_eq!(diff_ids(&world, &to), diff_ids(&world, "oci:seed:multi"), "{arguments:?}");
        // skopeo decompresses every layer and compares it with the config on its way to an archive;
        // from zstd it does not go there.
        match number {
            0 => world.tool("skopeo", &["copy", "--all", &to, "dir:zstd"]),
            _ => world.tool("skopeo", &["copy", &to, &format!("docker-archive:step{number}.tar")]),
        };
        let media_type = world.dray(&["inspect", "--raw", &to]).ok().json()["mediaType"].clone();
        assert_eq!(media_type.as_str().unwrap().contains("docker"), (2..4).contains(&number), "{media_type}");
        last = to;
    }
    // zstd:chunked has annotations on its layers, which other compressions lose; it is zstd already.
    let chunked = ["copy", "--all", "--compression", "zstd:chunked", "oci:seed:multi", "oci:chunked:1"];
    world.dray(&chunked).ok();
    assert!(world.dray(&chunked).ok().out.contains("1 unchanged"));
    assert_eq!(diff_ids(&world, "oci:chunked:1"), diff_ids(&world, "oci:seed:multi"));
    let tables = |reference: &str| {
        let index: serde_json::Value = serde_json::from_str(&raw(&world, reference)).unwrap();
        let path = reference.trim_start_matches("oci:").split(':').next().unwrap().to_owned();
        let digest = index["manifests"][0]["digest"].as_str().unwrap().replace(':', "/");
        let image = fs::read_to_string(world.path(&format!("{path}/blobs/{digest}"))).unwrap();
        let layers: serde_json::Value = serde_json::from_str(&image).unwrap();
        let layers = layers["layers"].as_array().unwrap().clone();
        let has_table = |layer: &&serde_json::Value| {
            !layer["annotations"]["io.github.containers.zstd-chunked.manifest-checksum"].is_null()
        };
        (layers.len(), layers.iter().filter(has_table).count())
    };
    let (layers, found) = tables("oci:chunked:1");
    assert_eq!(layers, found);
    world.tool("skopeo", &["copy", "--all", "oci:chunked:1", "oci:theirs:1"]);
    world.dray(&["copy", "--all", "--compression", "zstd", "oci:chunked:1", "oci:kept:1"]).ok();
    assert_eq!(raw(&world, "oci:kept:1"), raw(&world, "oci:chunked:1"));
    world.dray(&["copy", "--all", "--compression", "gzip", "oci:chunked:1", "oci:unchunked:1"]).ok();
    assert_eq!(tables("oci:unchunked:1"), (layers, 0));
    assert_eq!(diff_ids(&world, "oci:unchunked:1"), diff_ids(&world, "oci:seed:multi"));
    // Manifests of both formats in one index keep their own names for the layer that they share.
    let mixed = mixed_formats(&world);
    world.dray(&["copy", "--all", "--compression", "none", &mixed, "oci:mixed-out:1"]).ok();
    let index: serde_json::Value = serde_json::from_str(&raw(&world, "oci:mixed-out:1")).unwrap();
    for (child, layer) in index["manifests"]
        .as_array()
        .unwrap()
        .iter()
        .zip(["application/vnd.oci.image.layer.v1.tar", "application/vnd.docker.image.rootfs.diff.tar"])
    {
        let digest = child["digest"].as_str().unwrap().replace(':', "/");
        let image = fs::read_to_string(world.path(&format!("mixed-out/blobs/{digest}"))).unwrap();
        let image: serde_json::Value = serde_json::from_str(&image).unwrap();
        assert_eq!(image["layers"][0]["mediaType"], layer);
    }
    // An attestation stays what it is, about the image that its image became.
    world.dray(&["copy", "--all", "--compression", "zstd", "oci:seed:attested", "oci:attested:1"]).ok();
    let index = world.dray(&["inspect", "--raw", "oci:attested:1"]).ok().json();
    let children = index["manifests"].as_array().unwrap();
    assert_eq!(children[2]["annotations"]["vnd.docker.reference.digest"], children[0]["digest"]);
    assert_ne!(
        children[0]["digest"],
        world.dray(&["inspect", "--raw", "oci:seed:multi"]).ok().json()["manifests"][0]["digest"]
    );
    // Into folders it is written once, without a scratch file.
    let mut direct = world.command(&["copy", "--compression", "zstd", "oci:seed:single", "oci:direct:1"]);
    assert!(direct.env("TMPDIR", world.path("none")).output().unwrap().status.success());
    assert_eq!(diff_ids(&world, "oci:direct:1"), diff_ids(&world, "oci:seed:single"));
    assert!(
        fs::read_dir(world.path("direct"))
            .unwrap()
            .all(|entry| { !entry.unwrap().file_name().to_string_lossy().starts_with(".dray-") })
    );
    // What is so already keeps its digest.
    world.dray(&["copy", "--all", "--compression", "gzip", "oci:seed:multi", "oci:same:1"]).ok();
    assert_eq!(raw(&world, "oci:same:1"), raw(&world, "oci:seed:multi"));
    let zstd = ["copy", "--format", "docker", "--compression", "zstd", "oci:seed:single", "oci:no:1"];
    let refused = world.dray(&zstd);
    assert!(refused.code == 1 && refused.err.contains("zstd"), "{}", refused.err);
}

#[test]
fn more_platforms_are_noticed_though_the_image_is_converted() {
    let world = World::new();
    seed(&world);
    let policy = |platforms: &str| {
        let rule = "version = 1\n[[rule]]\nname = \"all\"\nfrom = \"oci:seed:multi\"\nto = \"oci:out\"\ncompression = \"zstd\"\n";
        world.write("policy.toml", &format!("{rule}platforms = [{platforms}]\n"));
        world.dray(&["sync", "policy.toml", "--output", "json"]).ok().json()["summary"].clone()
    };
    assert_eq!(policy("\"linux/amd64\"")["copied"], 1);
    assert_eq!(policy("\"linux/amd64\"")["unchanged"], 1);
    assert_eq!(policy("\"linux/amd64\", \"linux/arm64\"")["copied"], 1);
}

#[test]
fn old_images_of_schema_1_become_images_of_today() {
    if !has("skopeo") || !has("docker-registry") {
        return;
    }
    let world = World::new();
    layered(&world);
    let old = Registry::start_with(&world, "old", "compatibility: { schema1: { enabled: true } }\n");
    let from = format!("docker://{}/app:1", old.host);
    let push = ["copy", "--format", "v2s1", "--dest-tls-verify=false", "oci:layered:gzip", &from];
    world.tool("skopeo", &push);
    let manifest = raw(&world, &from);
    assert!(manifest.contains("\"schemaVersion\":1"), "{manifest}");
    let shown = world.dray(&["inspect", "--output", "json", &from]).ok().json();
    assert!(shown["mediaType"].as_str().unwrap().contains("v1+prettyjws"), "{shown}");
    let new = Registry::start(&world, "new", "");
    let registry = format!("docker://{}/app:1", new.host);
    for (to, media_type, more) in [
        ("oci:layout:1", "vnd.oci.image.manifest.v1+json", &[][..]),
        ("dir:docker", "vnd.docker.distribution.manifest.v2+json", &["--format", "docker"]),
        ("oci:layout:zstd", "vnd.oci.image.manifest.v1+json", &["--format", "oci", "--compression", "zstd"]),
        ("docker-archive:new.tar:app:1", "vnd.docker.distribution.manifest.v2+json", &[]),
        (&registry, "vnd.oci.image.manifest.v1+json", &[]),
    ] {
        let copy = [&["copy", &from, to], more].concat();
        world.dray(&copy).ok();
        assert!(world.dray(&copy).ok().out.contains("1 unchanged"), "{to}");
        let manifest = world.dray(&["inspect", "--raw", to]).ok().json();
        assert!(manifest["mediaType"].as_str().unwrap().contains(media_type), "{manifest}");
        assert_eq!(diff_ids(&world, to), diff_ids(&world, "oci:layered:gzip"), "{to}");
        // skopeo compares every layer with the config on its way.
        if !to.ends_with("zstd") && !to.starts_with("docker-archive") {
            let archive = format!("docker-archive:{}.tar", to.replace(['/', ':'], "-"));
            world.tool("skopeo", &["copy", "--src-tls-verify=false", to, &archive]);
        }
    }
    let config = world.dray(&["inspect", "--config", "oci:layout:1"]).ok().json();
    assert_eq!(config["config"]["Cmd"][0], "/bin/sh");
    // Its layers are mounted and skipped like any others: a blob is sent once.
    let again = world.dray(&["copy", &from, &format!("docker://{}/other:1", new.host), "--output", "json"]);
    assert_eq!(again.ok().json()["summary"]["bytes"], 0);
}
