//! Every kind of place beside every other, and folders, with the tools whose formats they are.
#![allow(clippy::unwrap_used, clippy::print_stderr, reason = "tests")]

mod support;

use std::{fs, path::Path};
use support::{
    Registry, World, has,
    images::{diff_ids, layered, raw, seed},
    memory::Memory,
};

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

#[test]
fn layouts_share_their_blobs() {
    if !has("skopeo") {
        return;
    }
    let world = World::new();
    seed(&world);
    let policy = "version = 1\n[[rule]]\nname = \"a\"\nfrom = \"oci:seed\"\nto = \"oci:mirror/{tag}:{tag}\"\nto-blobs = \"mirror/blobs\"\ntags = [\"single\", \"multi\"]\n";
    world.write("policy.toml", policy);
    assert!(world.dray(&["sync", "policy.toml"]).ok().out.contains("2 images copied"));
    assert!(world.dray(&["sync", "policy.toml"]).ok().out.contains("2 unchanged"));
    assert!(!world.path("mirror/multi/blobs").exists());
    // Each blob is there once, whoever wants it.
    let blobs = fs::read_dir(world.path("mirror/blobs/sha256")).unwrap().count();
    let all = fs::read_dir(world.path("seed/blobs/sha256")).unwrap().count();
    assert!(blobs > 0 && blobs < all, "{blobs} {all}");
    let theirs = ["copy", "--all", "--src-shared-blob-dir", "mirror/blobs"];
    world.tool("skopeo", &[&theirs[..], &["oci:mirror/multi:multi", "oci:by-skopeo:1"]].concat());
    assert_eq!(raw(&world, "oci:by-skopeo:1"), raw(&world, "oci:seed:multi"));
    fs::create_dir(world.path("theirs")).unwrap();
    let theirs = ["copy", "--all", "--dest-shared-blob-dir", "theirs/blobs"];
    world.tool("skopeo", &[&theirs[..], &["oci:seed:multi", "oci:theirs/layout:1"]].concat());
    let ours = ["copy", "--all", "--src-shared-blob-dir", "theirs/blobs", "oci:theirs/layout:1", "dir:back"];
    world.dray(&ours).ok();
    assert_eq!(raw(&world, "dir:back"), raw(&world, "oci:seed:multi"));
    let refused = world.dray(&["copy", "--dest-shared-blob-dir", "x", "oci:seed:single", "dir:no"]);
    assert!(refused.code == 1 && refused.err.contains("`oci:` alone"), "{}", refused.err);
}

#[test]
fn images_of_a_layout_are_named_together() {
    const TAGS: usize = 200;
    let (world, source) = (World::new(), Memory::start());
    for tag in 0..TAGS {
        source.image("app", &format!("v{tag}"), format!("{tag}").as_bytes());
    }
    let from = source.host();
    world.write(
        "dray.toml",
        &format!("version = 1\n[[rule]]\nfrom = \"docker://{from}/app\"\nto = \"oci:mirror/app\"\n"),
    );
    let ran = world.dray(&["sync", "--trace-plugin", "oci"]).ok();
    assert!(ran.out.contains("200 images copied"), "{}", ran.out);
    let calls = |function: &str| ran.err.matches(&format!("\"function\":\"{function}\"")).count();
    // Each manifest is written by itself, and the index once for many.
    assert_eq!(calls("publish"), TAGS);
    assert!((1..=TAGS / 2).contains(&calls("name")), "{}", calls("name"));
    let index: serde_json::Value =
        serde_json::from_slice(&fs::read(world.path("mirror/app/index.json")).unwrap()).unwrap();
    assert_eq!(index["manifests"].as_array().unwrap().len(), TAGS);
    assert!(world.dray(&["sync"]).ok().out.contains("200 unchanged"));
    if has("skopeo") {
        world.tool("skopeo", &["copy", "oci:mirror/app:v0", "dir:first"]);
    }
    // Where the index was listed, it is not read again for each tag.
    world.write("on.toml", "version = 1\n[[rule]]\nfrom = \"oci:mirror/app\"\nto = \"oci:further/app\"\n");
    let ran = world.dray(&["sync", "on.toml", "--trace-plugin", "oci"]).ok();
    assert!(ran.out.contains("200 images copied"), "{}", ran.out);
    assert!(!ran.err.contains("\"function\":\"resolve\""), "{}", ran.err);
}

#[test]
fn signatures_of_directories_stay_with_their_manifests() {
    if !has("skopeo") {
        return;
    }
    let world = World::new();
    seed(&world);
    let from = "dir:signed";
    // What begins like this is taken for OpenPGP (RFC 4880, 4.2).
    let signature = |text: &str| [b"\x90", text.as_bytes()].concat();
    let sign = |file: &str, text: &str| fs::write(world.path(file), signature(text)).unwrap();
    world.dray(&["copy", "--all", "oci:seed:multi", from]).ok();
    let index: serde_json::Value = serde_json::from_str(&raw(&world, from)).unwrap();
    let child = index["manifests"][0]["digest"].as_str().unwrap().strip_prefix("sha256:").unwrap().to_owned();
    sign("signed/signature-1", "of the index");
    sign("signed/signature-2", "of the index, too");
    sign(&format!("signed/{child}.signature-1"), "of an image");
    let kept = |folder: &str| {
        let read = |name: &str| fs::read(world.path(folder).join(name)).ok();
        [read("signature-1"), read("signature-2"), read("signature-3"), read(&format!("{child}.signature-1"))]
    };
    let all = kept("signed");
    world.dray(&["copy", "--all", from, "dir:ours"]).ok();
    assert_eq!(kept("ours"), all);
    // skopeo reads the index's and the images' signatures, and writes them as dray does.
    world.tool("skopeo", &["copy", "--all", "dir:ours", "dir:theirs"]);
    assert_eq!(kept("theirs"), all);
    world.dray(&["copy", "--all", "dir:theirs", "dir:again"]).ok();
    assert_eq!(kept("again"), all);
    // A further signature is a change; one that the destination has beside them stays.
    assert!(world.dray(&["copy", "--all", from, "dir:ours"]).ok().out.contains("1 unchanged"));
    sign("signed/signature-3", "a third one");
    sign("ours/signature-2", "their own");
    world.dray(&["copy", "--all", from, "dir:ours"]).ok();
    let signatures: Vec<Vec<u8>> =
        (1..=4).map(|n| fs::read(world.path(&format!("ours/signature-{n}"))).unwrap()).collect();
    assert_eq!(signatures, ["of the index", "their own", "of the index, too", "a third one"].map(signature));
    // Another image takes none of them over, and places without signatures say that they stay behind.
    world.dray(&["copy", "oci:seed:single", "dir:ours"]).ok();
    assert_eq!(kept("ours"), [None, None, None, None]);
    let left = world.dray(&["copy", "--all", from, "oci:none:1"]).ok();
    assert!(left.err.contains("3 signatures") && left.err.contains("stay behind"), "{}", left.err);
}

#[test]
fn writers_of_one_folder_leave_a_whole_image() {
    let world = World::new();
    seed(&world);
    for round in 0..8 {
        let to = format!("dir:shared-{round}");
        let ended = std::thread::scope(|scope| {
            let copies = ["oci:seed:single", "oci:seed:artifact", "oci:seed:multi"].map(|from| {
                scope.spawn({
                    let (world, to) = (&world, &to);
                    move || world.dray(&["copy", "--all", from, to]).code
                })
            });
            copies.map(|copy| copy.join().unwrap())
        });
        let read = world.dray(&["copy", "--all", &to, &format!("oci:read:{round}")]);
        // Those that came too late say so; where none does, the image is whole.
        assert!(read.code == 0 || ended.contains(&1), "{ended:?} {}", read.err);
    }
    // A file that is a further name of another leaves none of its own behind.
    std::thread::scope(|scope| {
        for tag in 0..4 {
            let world = &world;
            scope.spawn(move || {
                world.dray(&["copy", "--link", "--all", "oci:seed:multi", &format!("oci:linked:{tag}")]).ok()
            });
        }
    });
    let left = world.tool("find", &["linked", "-name", ".dray-*"]);
    assert_eq!(left, "");
}
