//! The stores of podman and its kin.
#![allow(clippy::unwrap_used, clippy::print_stderr, reason = "tests")]

mod support;

use serde_json::Value;
use std::{fs, process::Command};
use support::{
    World, has,
    images::{diff_ids, layered, raw},
};

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
        assert_eq!(diff_ids, support::images::diff_ids(&world, &format!("oci:back:{tag}")));
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
