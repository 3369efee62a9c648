//! Every kind of place, with the tools whose formats they are.
#![allow(clippy::unwrap_used, clippy::print_stderr, reason = "tests")]

mod support;

use serde_json::{Value, json};
use std::{fs, path::Path, process::Command};
use support::{Registry, World, has};

/// The repository's sample images: two platforms each.
fn images() -> String {
    format!("oci:{}", Path::new(env!("CARGO_MANIFEST_DIR")).join("../../examples/images").display())
}

/// A layout with an image, an index and an artifact: `seed:single`, `seed:multi`, `seed:artifact`.
fn seed(world: &World) {
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
fn diff_ids(world: &World, reference: &str) -> Value {
    world.dray(&["inspect", "--config", reference]).ok().json()["rootfs"]["diff_ids"].clone()
}

fn raw(world: &World, reference: &str) -> String {
    world.dray(&["inspect", "--raw", reference]).ok().out
}

#[test]
fn every_pair_of_places() {
    if !has("docker-registry") {
        return;
    }
    let world = World::new();
    seed(&world);
    let registry = Registry::start(&world, "registry", "");
    let places = |end: &str, image: &str| {
        [
            format!("docker://{}/{end}:{image}", registry.host),
            format!("oci:{end}-oci:{image}"),
            format!("oci-archive:{end}.tar:{image}"),
            format!("dir:{end}-dir-{image}"),
            format!("registry-storage:[{end}-storage]a/b:{image}"),
            format!("docker-archive:{end}-docker.tar:app:{image}"),
            format!("containers-storage:[{}]app:{image}", world.path(&format!("{end}-store")).display()),
        ]
    };
    // They hold images of one platform, and no artifacts.
    let images_alone = |place: &str| place.starts_with("docker-archive:") || place.starts_with("containers-");
    for image in ["single", "multi", "artifact"] {
        let seeded = format!("oci:seed:{image}");
        for from in places("one", image) {
            let seeding = world.dray(&["copy", "--all", &seeded, &from]);
            if images_alone(&from) && image != "single" {
                // One that cannot work says why, and leaves nothing.
                let why = match image {
                    "multi" => "one platform",
                    _ if from.starts_with("containers-") => "this is something else",
                    _ => "an artifact",
                };
                assert!(seeding.code == 1 && seeding.err.contains(why), "{from} {}", seeding.err);
                continue;
            }
            seeding.ok();
            for to in places(&format!("two-{}", from.split(':').next().unwrap()), image) {
                let copied = world.dray(&["copy", "--all", &from, &to]);
                if images_alone(&to) && image != "single" {
                    assert_eq!(copied.code, 1, "{from} {to}");
                    continue;
                }
                copied.ok();
                let docker = |place: &str| place.starts_with("docker-archive:");
                if docker(&from) == docker(&to) && !from.starts_with("containers-storage:") {
                    assert_eq!(raw(&world, &from), raw(&world, &to), "{from} {to}");
                }
                if image == "single" {
                    assert_eq!(diff_ids(&world, &to), diff_ids(&world, &seeded), "{from} {to}");
                }
                // Nothing is to be done a second time, whatever was converted.
                let again = world.dray(&["copy", "--all", &from, &to]).ok();
                assert!(again.out.contains("1 unchanged"), "{from} {to}: {}", again.out);
            }
        }
    }
}

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
fn a_registry_serves_a_storage_that_dray_wrote_and_its_garbage_collection_leaves_it_whole() {
    if !has("docker-registry") || !has("skopeo") {
        return;
    }
    let world = World::new();
    seed(&world);
    // Started first, so that the folder is there and the configuration with it.
    let mut registry = Registry::start(&world, "storage", "");
    let to = format!("registry-storage:[{}]a/b:1", world.path("storage").display());
    world.dray(&["copy", "--all", "oci:seed:multi", &to]).ok();
    let collected =
        world.tool("docker-registry", &["garbage-collect", &world.path("storage.yml").to_string_lossy()]);
    assert!(collected.contains("0 blobs and 0 manifests eligible for deletion"), "{collected}");
    registry.restart();
    let reference = format!("docker://{}/a/b:1", registry.host);
    assert_eq!(world.digest(&reference, &[]), world.digest("oci:seed:multi", &[]));
    world.tool("skopeo", &["copy", "--all", "--src-tls-verify=false", &reference, "oci:pulled:1"]);
    // And the reverse: what the registry took is read from its folder.
    let push = format!("docker://{}/c:2", registry.host);
    world.tool("skopeo", &["copy", "--dest-tls-verify=false", "oci:seed:single", &push]);
    let from = format!("registry-storage:[{}]c:2", world.path("storage").display());
    world.dray(&["copy", &from, "oci:back:2"]).ok();
    assert_eq!(raw(&world, "oci:back:2"), raw(&world, "oci:seed:single"));
    world.write("harbor/database/x", "");
    world.write("harbor/job_logs/x", "");
    world.write("harbor/registry/x", "");
    let refused = world.dray(&["copy", "oci:seed:single", "registry-storage:[harbor/registry]a:1"]);
    assert!(refused.code == 1 && refused.err.contains("Harbor"), "{}", refused.err);
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
    // An attestation stays what it is, about the image that its image became.
    world.dray(&["copy", "--all", "--compression", "zstd", "oci:seed:attested", "oci:attested:1"]).ok();
    let index = world.dray(&["inspect", "--raw", "oci:attested:1"]).ok().json();
    let children = index["manifests"].as_array().unwrap();
    assert_eq!(children[2]["annotations"]["vnd.docker.reference.digest"], children[0]["digest"]);
    assert_ne!(
        children[0]["digest"],
        world.dray(&["inspect", "--raw", "oci:seed:multi"]).ok().json()["manifests"][0]["digest"]
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
fn tar_files_make_an_image_that_podman_runs() {
    if !has("podman") || !has("busybox") {
        return;
    }
    let world = World::new();
    fs::create_dir_all(world.path("root/bin")).unwrap();
    let busybox = world.tool("which", &["busybox"]);
    fs::copy(busybox.trim(), world.path("root/bin/busybox")).unwrap();
    world.write("more/hello", "hello from a tar file\n");
    world.tool("tar", &["cf", "root.tar", "-C", "root", "."]);
    world.tool("tar", &["czf", "more.tgz", "-C", "more", "."]);
    let report = world.dray(&["copy", "tarball:root.tar:more.tgz", "oci-archive:app.tar:r.example/app:1"]);
    report.ok();
    let again =
        world.dray(&["copy", "tarball:root.tar:more.tgz", "oci-archive:app.tar:r.example/app:1"]).ok();
    assert!(again.out.contains("1 unchanged"), "{}", again.out);
    let (root, run) = (world.path("podman"), world.path("podman-run"));
    let own =
        ["--root", root.to_str().unwrap(), "--runroot", run.to_str().unwrap(), "--storage-driver", "vfs"];
    world.tool("podman", &[&own[..], &["load", "-i", "app.tar"]].concat());
    let options = [
        "--runtime",
        "runc",
        "--cgroup-manager",
        "cgroupfs",
        "run",
        "--rm",
        "--network",
        "none",
        "--ulimit",
        "nofile=1024:1024",
        "--ulimit",
        "nproc=1024:1024",
        "r.example/app:1",
        "/bin/busybox",
        "cat",
        "/hello",
    ];
    assert_eq!(world.tool("podman", &[&own[..], &options].concat()), "hello from a tar file\n");
    let refused = world.dray(&["copy", "oci-archive:app.tar", "tarball:out.tar"]);
    assert!(refused.code == 1 && !world.path("out.tar").exists(), "{}", refused.err);
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
    flipped[600] ^= 1;
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
    let stopped = world.dray(&["sync", "policy.toml"]);
    assert!(stopped.code == 1 && !world.path("bundle.tar").exists(), "{}", stopped.out);
    let kept = world.dray(&["sync", "--keep-going", "policy.toml"]);
    assert!(kept.out.contains("3 images copied, 0 unchanged, 1 failed"), "{}", kept.out);
    // They end in any order.
    let listed = world.dray(&["list-tags", "oci-archive:bundle.tar"]).ok().out;
    let mut tags: Vec<&str> = listed.lines().collect();
    tags.sort_unstable();
    assert_eq!(tags, ["attested", "multi", "single"]);
}

#[test]
fn a_daemon_takes_images_and_gives_them_back() {
    if !has("dockerd") || !has("openssl") || !support::is_root() {
        return;
    }
    let world = World::new();
    seed(&world);
    let socket = world.path("docker.sock");
    let host = format!("unix://{}", socket.display());
    let mut dockerd = Command::new("dockerd");
    dockerd.args(["--iptables=false", "--bridge=none", "--storage-driver=vfs", "-H", &host]);
    // The same daemon listens by TCP, to those whom the private authority knows.
    world.certificates();
    let port = support::free_port();
    dockerd.args(["-H", &format!("tcp://127.0.0.1:{port}"), "--tlsverify"]);
    for (flag, name) in [("--tlscacert", "ca.pem"), ("--tlscert", "leaf.pem"), ("--tlskey", "leaf.key")] {
        dockerd.arg(flag).arg(world.path(name));
    }
    for (flag, name) in [("--data-root", "data"), ("--exec-root", "exec"), ("--pidfile", "pid")] {
        dockerd.arg(flag).arg(world.path(name));
    }
    let log = fs::File::create(world.path("dockerd.log")).unwrap();
    dockerd.stdout(log.try_clone().unwrap()).stderr(log);
    let _dockerd = support::Terminated::start(dockerd);
    let docker =
        |arguments: &[&str]| Command::new("docker").args(["-H", &host]).args(arguments).output().unwrap();
    let deadline = std::time::Instant::now() + std::time::Duration::from_secs(60);
    while !docker(&["info"]).status.success() {
        let log = fs::read_to_string(world.path("dockerd.log")).unwrap();
        assert!(std::time::Instant::now() < deadline, "dockerd does not listen: {log}");
        std::thread::sleep(std::time::Duration::from_millis(200));
    }
    let dray = |arguments: &[&str]| {
        let mut command = world.command(arguments);
        let output = command.env("DOCKER_HOST", &host).output().unwrap();
        let text = |bytes: Vec<u8>| String::from_utf8(bytes).unwrap();
        (output.status.code(), text(output.stdout), text(output.stderr))
    };
    let to = "docker-daemon:r.example/app:1";
    let (code, _, error) = dray(&["copy", "oci:seed:single", to]);
    assert_eq!(code, Some(0), "{error}");
    let (_, again, _) = dray(&["copy", "oci:seed:single", to]);
    assert!(again.contains("1 unchanged"), "{again}");
    let images = docker(&["images", "--format", "{{.Repository}}:{{.Tag}}"]);
    assert_eq!(String::from_utf8(images.stdout).unwrap(), "r.example/app:1\n");
    let (code, _, error) = dray(&["copy", to, "oci:back:1"]);
    assert_eq!(code, Some(0), "{error}");
    assert_eq!(diff_ids(&world, "oci:back:1"), diff_ids(&world, "oci:seed:single"));
    // What Docker itself saves is read.
    assert!(
        docker(&["save", "-o", &world.path("saved.tar").to_string_lossy(), "r.example/app:1"])
            .status
            .success()
    );
    assert_eq!(raw(&world, "docker-archive:saved.tar:r.example/app:1"), raw(&world, "oci:back:1"));
    let (code, _, error) = dray(&["copy", "docker-daemon:none:1", "oci:back:2"]);
    assert!(code == Some(1) && error.contains("no such image"), "{error}");
    for (own, name) in [("leaf.pem", "cert.pem"), ("leaf.key", "key.pem")] {
        fs::copy(world.path(own), world.path(name)).unwrap();
    }
    let by_tcp = |to: &str, folder: &str| {
        let mut command = world.command(&["copy", "docker-daemon:r.example/app:1", to]);
        command.env("DOCKER_HOST", format!("tcp://127.0.0.1:{port}")).env("DOCKER_TLS_VERIFY", "1");
        let output = command.env("DOCKER_CERT_PATH", world.path(folder)).output().unwrap();
        (output.status.code(), String::from_utf8(output.stderr).unwrap())
    };
    let (code, error) = by_tcp("oci:back:tls", "");
    assert_eq!(code, Some(0), "{error}");
    assert_eq!(raw(&world, "oci:back:tls"), raw(&world, "oci:back:1"));
    // Without certificates neither side trusts the other.
    let (code, error) = by_tcp("oci:back:nobody", "none");
    assert!(code == Some(1) && error.contains("certificate"), "{error}");
    let lost =
        world.command(&["copy", to, "oci:back:3"]).env("DOCKER_HOST", "unix:///none.sock").output().unwrap();
    let error = String::from_utf8(lost.stderr).unwrap();
    assert!(error.contains("docker-daemon"), "{error}");
}

/// Podman with a store of its own.
struct Podman<'a> {
    world: &'a World,
    root: String,
    run: String,
}

impl<'a> Podman<'a> {
    fn new(world: &'a World) -> Self {
        let path = |name: &str| world.path(name).to_string_lossy().into_owned();
        Podman { world, root: path("store"), run: path("run") }
    }

    fn call(&self, arguments: &[&str]) -> String {
        let store = [
            "--root",
            &self.root,
            "--runroot",
            &self.run,
            "--runtime",
            "runc",
            "--cgroup-manager",
            "cgroupfs",
        ];
        self.world.tool("podman", &[&store, arguments].concat())
    }

    fn run(&self, image: &str) -> String {
        let limits = [
            "run",
            "--rm",
            "--network",
            "none",
            "--ulimit",
            "nofile=1024:1024",
            "--ulimit",
            "nproc=1024:1024",
        ];
        self.call(&[&limits[..], &[image]].concat())
    }

    /// A reference of dray, which skopeo understands too.
    fn image(&self, name: &str) -> String {
        format!("containers-storage:[overlay@{}+{}]{name}", self.root, self.run)
    }
}

impl Drop for Podman<'_> {
    fn drop(&mut self) {
        // Podman mounts the folder of its layers onto itself.
        let _ = Command::new("umount").arg(format!("{}/overlay", self.root)).output();
    }
}

/// A layout with an image of several layers, in which the same layer comes twice, files go and a
/// folder is hidden: `layered:gzip`, `layered:zstd`, and `layered:other` on the same base.
fn layered(world: &World) {
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
        let config = json!({
            "created": "2020-01-02T03:04:05Z", "architecture": "amd64", "os": "linux",
            "config": { "Cmd": ["/bin/sh", "-c", "cat /etc/one /etc/three; ls /etc /old"] },
            "rootfs": { "type": "layers", "diff_ids": diff_ids },
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

#[test]
fn podman_lists_runs_and_removes_what_dray_wrote() {
    if !has("podman") || !has("skopeo") {
        return;
    }
    let world = World::new();
    layered(&world);
    let podman = Podman::new(&world);
    for tag in ["gzip", "zstd", "other"] {
        let to = podman.image(&format!("r.example/app:{tag}"));
        world.dray(&["copy", &format!("oci:layered:{tag}"), &to]).ok();
        // As it was at its source: manifests are not converted.
        let digest = dray_core::Digest::of(raw(&world, &format!("oci:layered:{tag}")).as_bytes()).to_string();
        let listed =
            podman.call(&["images", "--digests", "--format", "{{.Repository}}:{{.Tag}} {{.Digest}}"]);
        // Two manifests with one config are one image to podman: the last one's digest is shown.
        assert!(listed.contains(&format!("r.example/app:{tag} {digest}")), "{listed}");
        let again = world.dray(&["copy", &format!("oci:layered:{tag}"), &to]).ok();
        assert!(again.out.contains("1 unchanged"), "{}", again.out);
        let said = podman.run(&format!("r.example/app:{tag}"));
        assert!(said.starts_with("one\nthree\n"), "{said}");
        assert_eq!(said.contains("two"), tag == "other", "{said}");
        assert_eq!(said.lines().last(), Some(if tag == "other" { "x" } else { "y" }), "{said}");
    }
    // Owners, modes and times are those of the archive.
    let inside = podman.call(&["image", "mount", "r.example/app:other"]);
    let stat = world.tool("stat", &["-c", "%u:%g %a %Y", &format!("{}/etc/one", inside.trim())]);
    let archived = world.tool("stat", &["-c", "%u:%g %a %Y", &world.path("base/etc/one").to_string_lossy()]);
    assert_eq!(stat, archived);
    podman.call(&["image", "unmount", "r.example/app:other"]);

    // Every layer comes back as the tar that it was, for dray and for skopeo.
    for tag in ["zstd", "other"] {
        let from = podman.image(&format!("r.example/app:{tag}"));
        world.dray(&["copy", &from, &format!("oci:back:{tag}")]).ok();
        world.tool("skopeo", &["copy", &from, &format!("dir:{}", world.path("by-skopeo").display())]);
        let diff_ids = diff_ids(&world, &format!("oci:layered:{tag}"));
        assert_eq!(diff_ids, self::diff_ids(&world, &format!("oci:back:{tag}")));
        let manifest: Value = serde_json::from_str(&raw(&world, &format!("oci:back:{tag}"))).unwrap();
        let layers: Value =
            manifest["layers"].as_array().unwrap().iter().map(|layer| layer["digest"].clone()).collect();
        assert_eq!(layers, diff_ids);
    }
    // The other way: what podman holds.
    world.tool("skopeo", &["copy", "oci:back:other", &podman.image("r.example/theirs:1")]);
    world
        .dray(&["copy", "--compression", "gzip", &podman.image("r.example/theirs:1"), "oci:back:theirs"])
        .ok();
    assert_eq!(diff_ids(&world, "oci:back:theirs"), diff_ids(&world, "oci:layered:other"));

    podman.call(&["rmi", "--all", "--force"]);
    let left = |path: &str| fs::read_dir(world.path(path)).unwrap().count();
    // What is left of them are `l` and the folder of what waits.
    assert_eq!((left("store/overlay"), left("store/overlay/l"), left("store/overlay/dray")), (3, 0, 0));
    assert_eq!(fs::read_to_string(world.path("store/overlay-layers/layers.json")).unwrap().trim(), "[]");
}

#[test]
fn podman_and_dray_write_a_store_at_once() {
    if !has("podman") || !has("skopeo") {
        return;
    }
    let world = World::new();
    layered(&world);
    let podman = Podman::new(&world);
    podman.call(&["images"]);
    // An image of their own, on layers that both bring: skopeo 1.9 replaces the names of an image that is
    // there by those that it read before it took the lock.
    world.dray(&["copy", "oci:layered:theirs", "docker-archive:theirs.tar:r.example/theirs:1"]).ok();
    let rounds = 12;
    std::thread::scope(|scope| {
        let theirs = scope.spawn(|| {
            for round in 0..rounds {
                let to = podman.image(&format!("r.example/theirs:{round}"));
                world.tool("skopeo", &["copy", "docker-archive:theirs.tar:r.example/theirs:1", &to]);
                podman.call(&["rmi", "--force", &format!("r.example/theirs:{round}")]);
                world.tool("skopeo", &["copy", "docker-archive:theirs.tar:r.example/theirs:1", &to]);
            }
        });
        for round in 0..rounds {
            let to = |tag: &str| podman.image(&format!("r.example/ours-{tag}:{round}"));
            world.dray(&["copy", "oci:layered:gzip", &to("gzip")]).ok();
            world.dray(&["copy", "oci:layered:other", &to("other")]).ok();
        }
        theirs.join().unwrap();
    });
    let listed = podman.call(&["images", "--format", "{{.Repository}}:{{.Tag}}"]);
    for round in 0..rounds {
        for name in ["theirs", "ours-gzip", "ours-other"] {
            assert!(listed.contains(&format!("r.example/{name}:{round}\n")), "{name} {round}: {listed}");
        }
    }
    for image in ["theirs:3", "ours-gzip:5", "ours-other:7"] {
        assert!(podman.run(&format!("r.example/{image}")).starts_with("one\nthree\n"));
    }
}

#[test]
fn stores_that_dray_cannot_write_say_what_they_miss() {
    if !has("setpriv") {
        return;
    }
    let world = World::new();
    layered(&world);
    fs::create_dir_all(world.path("vfs/vfs-layers")).unwrap();
    let to = format!("containers-storage:[{}]a:1", world.path("vfs").display());
    let refused = world.dray(&["copy", "oci:layered:other", &to]);
    assert!(refused.code == 1 && refused.err.contains("driver vfs"), "{}", refused.err);
    // Without root's rights, files cannot be given away.
    let store = world.path("own");
    fs::create_dir(&store).unwrap();
    world.tool("chmod", &["-R", "a+rwX", &world.path("").to_string_lossy()]);
    let to = format!("containers-storage:[{}]a:1", store.display());
    let dray = world.path("dray");
    fs::copy(env!("CARGO_BIN_EXE_dray"), &dray).unwrap();
    let output = Command::new("setpriv")
        .args(["--reuid", "65534", "--regid", "65534", "--clear-groups"])
        .arg(dray)
        .args(["copy", "oci:layered:other", &to])
        .current_dir(world.path(""))
        .env("XDG_STATE_HOME", world.path("own"))
        .output()
        .unwrap();
    let said = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.code() == Some(1) && said.contains("only root may"), "{said}");
}

/// Both files share their bytes on the disk.
fn shared(world: &World, file: &Path) -> bool {
    world.tool("sync", &[]);
    world.tool("filefrag", &["-v", &file.to_string_lossy()]).contains("shared")
}

#[test]
fn folders_of_one_file_system_share_their_bytes() {
    if !has("mkfs.btrfs") || !has("filefrag") {
        return;
    }
    let world = World::new();
    layered(&world);
    let blobs = |storage: &str| {
        let listed =
            world.tool("find", &[&world.path(storage).to_string_lossy(), "-name", "data", "-size", "+100k"]);
        listed.lines().map(std::path::PathBuf::from).collect::<Vec<_>>()
    };
    // The policy's folder is where its relative paths begin.
    let rule = "version = 1\n[[rule]]\nname = \"a\"\nfrom = \"oci:layered\"\ntags = [\"other\"]\nto = \"registry-storage:[linked]a/b\"\n";
    let policy = world.write("link.toml", &format!("{rule}link = true\n"));
    world.dray(&["sync", &policy.to_string_lossy()]).ok();
    let linked = blobs("linked");
    assert_eq!(linked.len(), 1);
    let name = linked[0].parent().unwrap().file_name().unwrap();
    let inode = |path: &Path| std::os::unix::fs::MetadataExt::ino(&fs::metadata(path).unwrap());
    assert_eq!(inode(&linked[0]), inode(&world.path("layered/blobs/sha256").join(name)));
    // A file that is not what its name says gets no second name.
    let source = world.path("layered/blobs/sha256").join(name);
    let bytes = fs::read(&source).unwrap();
    fs::write(&source, vec![0; bytes.len()]).unwrap();
    let refused = world.dray(&["copy", "--link", "oci:layered:other", "registry-storage:[bad]a/b:1"]);
    assert!(refused.code == 1 && refused.err.contains("verify"), "{}", refused.err);
    assert!(blobs("bad").is_empty());
    fs::write(&source, bytes).unwrap();

    let (image, mounted) = (world.path("disk"), world.path("mounted"));
    fs::create_dir(&mounted).unwrap();
    fs::File::create(&image).unwrap().set_len(200 << 20).unwrap();
    world.tool("mkfs.btrfs", &["-q", &image.to_string_lossy()]);
    world.tool("mount", &["-o", "loop", &image.to_string_lossy(), &mounted.to_string_lossy()]);
    let done = std::panic::catch_unwind(|| {
        world.dray(&["copy", "oci:layered:other", "oci:mounted/layered:other"]).ok();
        world.dray(&["copy", "oci:mounted/layered:other", "registry-storage:[mounted/storage]a/b:1"]).ok();
        let stored = blobs("mounted/storage");
        assert!(stored.len() == 1 && shared(&world, &stored[0]));
    });
    world.tool("umount", &[&mounted.to_string_lossy()]);
    done.unwrap();
}
