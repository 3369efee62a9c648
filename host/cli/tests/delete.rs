//! `dray delete`: what was named goes, and nothing else.
#![allow(clippy::unwrap_used, clippy::print_stderr, reason = "tests")]

mod support;

use dray_core::Digest;
use std::sync::Mutex;
use support::{
    IMAGES, Registry, World, has,
    memory::{Asked, Held, Memory, Reply},
};

/// A registry with `a:1.0.0` and `a:latest`, which are the same image, and `a:2.0.0`.
fn filled(world: &World) -> Registry {
    let registry = Registry::start(world, "registry", "");
    for (from, to) in [("1.0.0", "1.0.0"), ("1.0.0", "latest"), ("2.0.0", "2.0.0")] {
        let to = format!("docker://{}/a:{to}", registry.host);
        world.dray(&["copy", "--all", &format!("{IMAGES}:{from}"), &to]).ok();
    }
    registry
}

/// The tags of a repository, as skopeo lists them.
fn tags(world: &World, repository: &str) -> Vec<String> {
    let listed = world.tool("skopeo", &["list-tags", "--tls-verify=false", repository]);
    let listed: serde_json::Value = serde_json::from_str(&listed).unwrap();
    let tags = listed["Tags"].as_array().unwrap().iter().map(|tag| tag.as_str().unwrap().to_owned());
    let mut tags: Vec<String> = tags.collect();
    tags.sort();
    tags
}

#[test]
fn a_registry_keeps_what_was_not_named() {
    if !has("docker-registry") || !has("skopeo") {
        return;
    }
    let world = World::new();
    let registry = filled(&world);
    let repository = format!("docker://{}/a", registry.host);
    let latest = format!("{repository}:latest");
    // docker-registry 2.8 deletes images alone, and this one has another tag.
    let refused = world.dray(&["delete", &latest]);
    assert_eq!(refused.code, 1, "{}", refused.out);
    for part in ["does not remove single tags", "the same image has the tags 1.0.0", "--all-tags"] {
        assert!(refused.err.contains(part), "{part}\n{}", refused.err);
    }
    let dry = world.dray(&["delete", "--all-tags", "--dry-run", &latest]).ok();
    assert!(dry.out.contains("would delete sha256:") && dry.out.contains("1.0.0, latest"), "{}", dry.out);
    assert_eq!(tags(&world, &repository), ["1.0.0", "2.0.0", "latest"]);
    let done = world.dray(&["delete", "--all-tags", "--output", "json", &latest]).ok().json();
    assert_eq!((&done["tags"], &done["manifest"]), (&serde_json::json!(["1.0.0", "latest"]), &true.into()));
    assert_eq!(tags(&world, &repository), ["2.0.0"]);
    // An image with one tag goes with it.
    world.dray(&["delete", &format!("{repository}:2.0.0")]).ok();
    let gone = world.dray(&["delete", &format!("{repository}:2.0.0")]);
    assert!(gone.code == 1 && gone.err.contains("there is no such image"), "{}", gone.err);
    let whole = world.dray(&["delete", &repository]);
    assert!(whole.code == 1 && whole.err.contains("names no tag"), "{}", whole.err);
    // The journal has forgotten it, so the next sync brings it again.
    let policy =
        format!("version = 1\n[[rule]]\nfrom = \"{IMAGES}\"\nto = \"{repository}\"\ntags = \"2.0.0\"\n");
    world.write("dray.toml", &policy);
    assert!(world.dray(&["sync"]).ok().out.contains("1 image copied"));
}

#[test]
fn an_image_that_an_index_needs_stays() {
    let world = World::new();
    let registry = Memory::start();
    let image = registry.image("app", "1.0-amd64", b"a layer");
    let size = registry.held.lock().unwrap().manifests[&("app".into(), image.clone())].1.len();
    let manifest = "application/vnd.oci.image.manifest.v1+json";
    let index = "application/vnd.oci.image.index.v1+json";
    let body = format!(
        r#"{{"schemaVersion":2,"mediaType":"{index}","manifests":[{{"mediaType":"{manifest}","digest":"{image}","size":{size}}}]}}"#
    );
    registry.put("app", "1.0", index, body.as_bytes());
    for (reference, all) in [(format!("@{image}"), true), (":1.0-amd64".to_owned(), true)] {
        let reference = format!("docker://{}/app{reference}", registry.host());
        let arguments =
            if all { vec!["delete", "--all-tags", &reference] } else { vec!["delete", &reference] };
        let refused = world.dray(&arguments);
        assert_eq!(refused.code, 1, "{}", refused.out);
        assert!(refused.err.contains("it is an image of the index 1.0"), "{}", refused.err);
    }
    assert_eq!(registry.count("DELETE"), 0);
}

/// A registry that deletes the whole image where a tag is to be deleted (as Harbor does).
fn greedy(asked: &Asked, held: &Mutex<Held>) -> Option<Reply> {
    let reference = asked.path.strip_prefix("/v2/app/manifests/")?;
    if asked.method != "DELETE" {
        return None;
    }
    let manifests = &mut held.lock().unwrap().manifests;
    let (_, body) = manifests.get(&("app".into(), reference.into()))?.clone();
    manifests.retain(|_, (_, other)| Digest::of(other) != Digest::of(&body));
    Some(("202 Accepted", String::new(), Vec::new()))
}

#[test]
fn a_registry_that_takes_more_than_it_was_asked_for_gets_it_back() {
    let world = World::new();
    let registry = Memory::odd(greedy);
    let image = registry.image("app", "1.0", b"a layer");
    let (media_type, body) = registry.held.lock().unwrap().manifests[&("app".into(), image.clone())].clone();
    registry.put("app", "stable", &media_type, &body);
    let done = world.dray(&["delete", &format!("docker://{}/app:1.0", registry.host())]).ok();
    assert!(done.err.contains("removed the tag stable as well, so it is written again"), "{}", done.err);
    assert!(registry.has("app", "stable") && registry.has("app", &image) && !registry.has("app", "1.0"));
}

#[test]
fn a_layout_loses_what_no_other_image_needs() {
    let world = World::new();
    for tag in ["1.0.0", "2.0.0"] {
        world.dray(&["copy", "--all", &format!("{IMAGES}:{tag}"), &format!("oci:layout:{tag}")]).ok();
    }
    world.dray(&["copy", "--all", &format!("{IMAGES}:2.0.0"), "oci:alone:2.0.0"]).ok();
    let files = |layout: &str| {
        let read = std::fs::read_dir(world.path(&format!("{layout}/blobs/sha256"))).unwrap();
        let mut names: Vec<_> = read.map(|entry| entry.unwrap().file_name()).collect();
        names.sort();
        names
    };
    assert_ne!(files("layout"), files("alone"));
    let done = world.dray(&["delete", "oci:layout:1.0.0"]).ok();
    assert!(done.out.contains("deleted the tag 1.0.0"), "{}", done.out);
    assert_eq!(files("layout"), files("alone"));
    world.dray(&["copy", "--all", "oci:layout:2.0.0", "oci:again:2.0.0"]).ok();
    if has("skopeo") {
        world.tool("skopeo", &["inspect", "--raw", "oci:layout:2.0.0"]);
    }
    // An archive is written anew as a whole.
    world.dray(&["copy", "--all", &format!("{IMAGES}:1.0.0"), "oci-archive:a.tar:1.0.0"]).ok();
    world.dray(&["copy", "--all", &format!("{IMAGES}:2.0.0"), "oci-archive:a.tar:2.0.0"]).ok();
    world.dray(&["delete", "oci-archive:a.tar:1.0.0"]).ok();
    assert_eq!(world.dray(&["list-tags", "oci-archive:a.tar"]).ok().out, "2.0.0\n");
    for (reference, help) in [
        ("docker-archive:a.tar:x:1", "docker"),
        ("dir:folder", "names no tag"),
        ("oci:layout:3", "no such image"),
    ] {
        let refused = world.dray(&["delete", reference]);
        assert!(refused.code == 1 && refused.err.contains(help), "{reference}: {}", refused.err);
    }
}
