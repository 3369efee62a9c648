//! Archives: those of other tools, those that dray writes, and bad ones.
#![allow(clippy::unwrap_used, clippy::print_stderr, reason = "tests")]

mod support;

use serde_json::{Value, json};
use std::{fs, path::Path};
use support::{
    World, has,
    images::{diff_ids, images, raw, seed},
};

#[test]
fn skopeo_and_podman_read_archives_and_dray_reads_theirs() {
    if !has("skopeo") || !has("podman") {
        return;
    }
    let world = World::new();
    seed(&world);
    world.dray(&["copy", "oci:seed:single", "docker-archive:a.tar:app:1"]).ok();
    world.dray(&["copy", "--all", "oci:seed:multi", "oci-archive:o.tar:r.example/app:1"]).ok();
    world.tool("skopeo", &["copy", "docker-archive:a.tar:app:1", "oci:from-docker:1"]);
    world.tool("skopeo", &["copy", "--all", "oci-archive:o.tar:r.example/app:1", "oci:from-oci:1"]);
    assert_eq!(diff_ids(&world, "oci:from-docker:1"), diff_ids(&world, "oci:seed:single"));
    assert_eq!(raw(&world, "oci:from-oci:1"), raw(&world, "oci:seed:multi"));
    let root = world.path("podman");
    let podman = |arguments: &[&str]| {
        let root = root.to_string_lossy();
        let run = world.path("podman-run");
        let own = ["--root", &root, "--runroot", &run.to_string_lossy(), "--storage-driver", "vfs"];
        world.tool("podman", &[&own, arguments].concat())
    };
    podman(&["load", "-i", "a.tar"]);
    podman(&["load", "-i", "o.tar"]);
    let listed = podman(&["images", "--format", "{{.Repository}}:{{.Tag}}"]);
    assert!(listed.contains("docker.io/library/app:1") && listed.contains("r.example/app:1"), "{listed}");

    world.tool("skopeo", &["copy", "oci:seed:single", "docker-archive:theirs.tar:app:2"]);
    world.tool("skopeo", &["copy", "oci:seed:single", "oci-archive:theirs-oci.tar:app:2"]);
    world.dray(&["copy", "docker-archive:theirs.tar:app:2", "oci:back:docker"]).ok();
    world.dray(&["copy", "oci-archive:theirs-oci.tar:app:2", "oci:back:oci"]).ok();
    assert_eq!(diff_ids(&world, "oci:back:docker"), diff_ids(&world, "oci:seed:single"));
    assert_eq!(raw(&world, "oci:back:oci"), raw(&world, "oci:seed:single"));
}

#[test]
fn images_without_a_name_stay_when_another_gets_one() {
    let world = World::new();
    seed(&world);
    world.dray(&["copy", "oci:seed:single", "docker-archive:a.tar"]).ok();
    world.dray(&["copy", "--platform", "linux/arm64", "oci:seed:multi", "docker-archive:a.tar:app:1"]).ok();
    assert_eq!(diff_ids(&world, "docker-archive:a.tar:@0"), diff_ids(&world, "oci:seed:single"));
    let refused =
        world.dray(&["copy", "--platform", "linux/arm64", "oci:seed:multi", "docker-archive:a.tar"]);
    assert!(refused.code == 1 && refused.err.contains("needs a name"), "{}", refused.err);
}

#[test]
fn an_offline_bundle_is_made_and_unpacked() {
    let world = World::new();
    let example = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../examples");
    let policy = |name: &str| {
        let text = fs::read_to_string(example.join("airgap").join(name)).unwrap();
        let text = text.replace("oci:../images", &images());
        world.write(name, &text);
        name.to_owned()
    };
    let (outside, inside) = (policy("outside.toml"), policy("inside.toml"));
    let bundled = world.dray(&["sync", &outside]).ok();
    assert!(bundled.out.contains("3 images copied"), "{}", bundled.out);
    // Inside there is no registry but its own: any other host is refused by the proxy.
    let sync = |policy: &str| {
        let mut command = world.command(&["sync", policy]);
        let output =
            command.env("https_proxy", "http://127.0.0.1:1").env("http_proxy", "http://127.0.0.1:1").output();
        String::from_utf8(output.unwrap().stdout).unwrap()
    };
    let unpacked = sync(&inside);
    assert!(unpacked.contains("3 images copied, 0 unchanged, 0 failed"), "{unpacked}");
    assert!(sync(&inside).contains("0 images copied, 3 unchanged, 0 failed"));
    assert!(world.dray(&["sync", &outside]).ok().out.contains("0 images copied, 3 unchanged"));
    let tags = world.dray(&["list-tags", "registry-storage:[inside]samples/hello"]).ok();
    assert_eq!(tags.out, "1.0.0\n1.1.0\n1.2.0\n");
}

#[test]
fn archives_of_docker_save_are_read_whatever_they_are_wrapped_in() {
    let world = World::new();
    seed(&world);
    world.dray(&["copy", "oci:seed:single", "docker-archive:new.tar:app:1"]).ok();
    // As Docker before 25 writes it: folders of layers, one of them a link.
    world.tool("mkdir", &["old", "harbor"]);
    world.tool("tar", &["xf", "new.tar", "-C", "old"]);
    let items: Value = serde_json::from_slice(&fs::read(world.path("old/manifest.json")).unwrap()).unwrap();
    let mut item = items[0].clone();
    for (number, layer) in item["Layers"].as_array_mut().unwrap().iter_mut().enumerate() {
        let (name, folder) = (layer.as_str().unwrap().to_owned(), format!("old/layer{number}"));
        world.tool("mkdir", &[&folder]);
        match number {
            0 => world.tool("mv", &[&format!("old/{name}"), &format!("{folder}/layer.tar")]),
            _ => world.tool("ln", &["-s", &format!("../{name}"), &format!("{folder}/layer.tar")]),
        };
        *layer = format!("layer{number}/layer.tar").into();
    }
    let mut unnamed = item.clone();
    unnamed["RepoTags"] = Value::Null;
    fs::write(world.path("old/manifest.json"), json!([item, unnamed]).to_string()).unwrap();
    world.tool("tar", &["czf", "harbor/harbor.v2.tar.gz", "-C", "old", "."]);
    world.write("harbor/install.sh", "");
    world.tool("tar", &["czf", "installer.tgz", "harbor"]);
    for file in ["harbor/harbor.v2.tar.gz", "installer.tgz"] {
        for image in ["app:1", "@1"] {
            let from = format!("docker-archive:{file}:{image}");
            assert_eq!(raw(&world, &from), raw(&world, "docker-archive:new.tar:app:1"), "{from}");
        }
        let to = format!("dir:from-{}", file.replace('/', "-"));
        world.dray(&["copy", &format!("docker-archive:{file}:app"), &to]).ok();
        assert_eq!(diff_ids(&world, &to), diff_ids(&world, "oci:seed:single"));
        let several = world.dray(&["copy", &format!("docker-archive:{file}"), "dir:none"]);
        assert!(several.code == 1 && several.err.contains("holds 2 images"), "{}", several.err);
    }
    let wrong = world.dray(&["copy", "docker-archive:installer.tgz:none:1", "dir:none"]);
    assert!(wrong.code == 1 && wrong.err.contains("no such image"), "{}", wrong.err);
}

#[test]
fn bad_archives_are_refused_and_nothing_is_lost() {
    let world = World::new();
    seed(&world);
    world.dray(&["copy", "oci:seed:single", "docker-archive:good.tar:app:1"]).ok();
    world.dray(&["copy", "oci:seed:single", "oci-archive:good-oci.tar:1"]).ok();
    let good = fs::read(world.path("good.tar")).unwrap();
    world.tool("truncate", &["-s", "1G", "zeros"]);
    world.tool("tar", &["czf", "zeros.tgz", "zeros"]);
    let bomb = fs::read(world.path("zeros.tgz")).unwrap();
    let mut flipped = good.clone();
    // In a layer, whose digest the configuration tells; nobody tells that of the configuration.
    let layer = good.windows(5).position(|window| window == b".tar\0").unwrap();
    flipped[layer.next_multiple_of(512) + 88] ^= 1;
    for (name, content) in [
        ("truncated", &good[..good.len() / 2]),
        ("flipped", &flipped[..]),
        ("text", b"this is no archive"),
        ("empty", b""),
        ("bomb", &bomb[..]),
    ] {
        let file = format!("{name}.tar");
        fs::write(world.path(&file), content).unwrap();
        let read = world.dray(&["copy", &format!("docker-archive:{file}:app:1"), "oci:out:1"]);
        assert!(read.code == 1 && read.err.contains("failed to"), "{name}: {}", read.err);
        assert!(!world.path("out/index.json").exists(), "{name}");
        if matches!(name, "text" | "bomb") {
            // What somebody else has there stays as it is.
            let write = world.dray(&["copy", "oci:seed:single", &format!("docker-archive:{file}:app:2")]);
            assert_eq!(write.code, 1, "{name}");
            assert_eq!(fs::read(world.path(&file)).unwrap(), content, "{name}");
        }
    }
    // An image that fails leaves the archive as it was.
    fs::remove_dir_all(world.path("seed/blobs")).unwrap();
    for to in ["docker-archive:good.tar:app:2", "oci-archive:good-oci.tar:2"] {
        let file = world.path(to.split(':').nth(1).unwrap());
        let before = fs::read(&file).unwrap();
        assert_eq!(world.dray(&["copy", "oci:seed:single", to]).code, 1);
        assert_eq!(fs::read(&file).unwrap(), before);
    }
    let left = fs::read_dir(world.path("")).unwrap().map(|entry| entry.unwrap().file_name());
    assert_eq!(left.filter(|name| name.to_string_lossy().starts_with(".dray-")).count(), 0);
}

#[test]
fn a_bundle_is_all_or_nothing_unless_the_rest_is_wanted() {
    let world = World::new();
    seed(&world);
    let broken = "oci:seed:artifact";
    let layer: Value = serde_json::from_str(&raw(&world, broken)).unwrap();
    let digest = layer["layers"][0]["digest"].as_str().unwrap().replacen(':', "/", 1);
    fs::remove_file(world.path("seed/blobs").join(digest)).unwrap();
    world.write(
        "policy.toml",
        "version = 1\n[[rule]]\nname = \"all\"\nfrom = \"oci:seed\"\nto = \"oci-archive:bundle.tar\"\n",
    );
    let stopped = world.dray(&["sync", "--fail-fast", "policy.toml"]);
    assert!(stopped.code == 1 && !world.path("bundle.tar").exists(), "{}", stopped.out);
    let kept = world.dray(&["sync", "policy.toml"]);
    assert!(kept.out.contains("3 images copied, 0 unchanged, 1 failed"), "{}", kept.out);
    // They end in any order.
    let listed = world.dray(&["list-tags", "oci-archive:bundle.tar"]).ok().out;
    let mut tags: Vec<&str> = listed.lines().collect();
    tags.sort_unstable();
    assert_eq!(tags, ["attested", "multi", "single"]);
}

/// What Docker 26 saved, once from its own store and once from containerd's: an OCI layout in each.
#[test]
fn saves_of_docker_26_are_read() {
    let world = World::new();
    let data = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/data");
    for store in ["graph-driver", "containerd"] {
        let file = data.join(format!("docker-26-{store}.tar.gz"));
        let policy = format!(
            "version = 1\n[[rule]]\nname = \"all\"\nfrom = \"docker-archive:{}\"\nto = \"oci:{store}:{{registry}}/{{path}}\"\n",
            file.display()
        );
        world.write("policy.toml", &policy);
        let report = world.dray(&["sync", "policy.toml", "--output", "json"]).ok().json();
        assert_eq!(report["summary"]["copied"], 9, "{report}");
        let one = format!("docker-archive:{}:r.example/hello:1.2.0", file.display());
        assert_eq!(diff_ids(&world, &one), diff_ids(&world, &format!("{}:1.2.0", images())), "{store}");
        assert_eq!(diff_ids(&world, &one), diff_ids(&world, &format!("oci:{store}:r.example/hello:1.2.0")));
    }
}

#[test]
fn what_no_image_of_an_archive_names_leaves_it() {
    if !has("skopeo") {
        return;
    }
    let world = World::new();
    seed(&world);
    world.dray(&["copy", "--all", "oci:seed:multi", "oci-archive:a.tar:stays"]).ok();
    world.dray(&["copy", "oci:seed:artifact", "oci-archive:a.tar:moves"]).ok();
    let notes = dray_core::Digest::of(b"some notes").hex();
    assert!(world.tool("tar", &["tf", "a.tar"]).contains(&notes));
    world.dray(&["copy", "oci:seed:single", "oci-archive:a.tar:moves"]).ok();
    let listed = world.tool("tar", &["tf", "a.tar"]);
    assert!(!listed.contains(&notes), "{listed}");
    for (tag, from) in [("stays", "oci:seed:multi"), ("moves", "oci:seed:single")] {
        let out = format!("oci:by-skopeo:{tag}");
        world.tool("skopeo", &["copy", "--all", &format!("oci-archive:a.tar:{tag}"), &out]);
        assert_eq!(raw(&world, &out), raw(&world, from));
    }
}

/// The header of an empty member.
fn header(name: &str) -> [u8; 512] {
    let mut block = [0; 512];
    block[..name.len()].copy_from_slice(name.as_bytes());
    for (at, field) in [(100, "0000644"), (124, "00000000000"), (148, "        "), (156, "0"), (257, "ustar")]
    {
        block[at..at + field.len()].copy_from_slice(field.as_bytes());
    }
    block[263..265].copy_from_slice(b"00");
    let sum: u32 = block.iter().map(|byte| u32::from(*byte)).sum();
    block[148..156].copy_from_slice(format!("{sum:06o}\0 ").as_bytes());
    block
}

#[test]
fn an_archive_of_a_million_members_is_refused() {
    use std::io::Write;
    let world = World::new();
    let file = fs::File::create(world.path("many.tar")).unwrap();
    let mut file = std::io::BufWriter::new(file);
    for number in 0..1_000_000 {
        file.write_all(&header(&format!("{number}"))).unwrap();
    }
    file.write_all(&[0; 1024]).unwrap();
    drop(file);
    for scheme in ["docker-archive", "oci-archive"] {
        let refused = world.dray(&["copy", &format!("{scheme}:many.tar:a:1"), "oci:out:1"]);
        assert!(refused.code == 1 && refused.err.contains("more than 250000 entries"), "{}", refused.err);
        assert!(!world.path("out").exists());
    }
}

#[test]
fn what_dray_does_not_know_in_an_archive_stays_in_it() {
    let world = World::new();
    seed(&world);
    // A save of Docker 26 names its blobs as two kinds of archive: dray adds to neither.
    let save = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/data/docker-26-graph-driver.tar.gz");
    world.tool("sh", &["-c", &format!("gunzip -c {} > save.tar", save.display())]);
    let before = fs::read(world.path("save.tar")).unwrap();
    for to in ["oci-archive:save.tar:1", "docker-archive:save.tar:x:1"] {
        let refused = world.dray(&["copy", "oci:seed:single", to]);
        assert!(refused.code == 1 && refused.err.contains("adds nothing"), "{}", refused.err);
        assert_eq!(fs::read(world.path("save.tar")).unwrap(), before);
    }
    // A manifest of a kind that is not known, a layer by itself, and a file of two names.
    world.tool("sh", &["-c", "cp -r seed odd && head -c 9000000 /dev/zero > odd/blobs/sha256/big"]);
    let blob = |content: &[u8]| {
        let digest = dray_core::Digest::of(content);
        fs::write(world.path("odd/blobs/sha256").join(digest.hex()), content).unwrap();
        json!({ "digest": digest.to_string(), "size": content.len() })
    };
    let big = dray_core::Digest::of(&vec![0; 9_000_000]);
    world.tool("mv", &["odd/blobs/sha256/big", &format!("odd/blobs/sha256/{}", big.hex())]);
    let mut unknown = blob(json!({ "blobs": [blob(b"kept, too")] }).to_string().as_bytes());
    unknown["mediaType"] = "application/vnd.oci.artifact.manifest.v1+json".into();
    let layer = json!({ "mediaType": "application/vnd.oci.image.layer.v1.tar", "digest": big.to_string(), "size": 9_000_000 });
    let index = world.path("odd/index.json");
    let mut value: Value = serde_json::from_slice(&fs::read(&index).unwrap()).unwrap();
    value["manifests"].as_array_mut().unwrap().extend([unknown, layer]);
    fs::write(&index, value.to_string()).unwrap();
    fs::hard_link(world.path("odd/index.json"), world.path("odd/second-name")).unwrap();
    world.tool("sh", &["-c", "cd odd && ln blobs/sha256/$0 again && tar cf ../odd.tar .", &big.hex()]);
    let size = fs::metadata(world.path("odd.tar")).unwrap().len();
    world.dray(&["copy", "oci:seed:single", "oci-archive:odd.tar:new"]).ok();
    let listed = world.tool("tar", &["tvf", "odd.tar"]);
    assert!(
        listed.contains(&dray_core::Digest::of(b"kept, too").hex()) && listed.contains(&big.hex()),
        "{listed}"
    );
    assert!(fs::metadata(world.path("odd.tar")).unwrap().len() < size + 100_000, "{listed}");
    world.tool(
        "sh",
        &["-c", "mkdir out && tar xf odd.tar -C out && cmp out/again out/blobs/sha256/$0", &big.hex()],
    );
}
