//! The fewest requests: what a sync asks of two registries, counted exactly.
#![allow(clippy::unwrap_used, clippy::print_stderr, reason = "a test")]

mod support;

use dray_core::Digest;
use serde_json::{Value, json};
use std::{collections::BTreeMap, fs};
use support::{Registry, World, has};

const MANIFEST: &str = "application/vnd.oci.image.manifest.v1+json";
const INDEX: &str = "application/vnd.oci.image.index.v1+json";
const CONFIG: &str = "application/vnd.oci.image.config.v1+json";
const LAYER: &str = "application/vnd.oci.image.layer.v1.tar";

fn blob(world: &World, media_type: &str, content: &[u8]) -> Value {
    let digest = Digest::of(content);
    fs::write(world.path("images/blobs/sha256").join(digest.hex()), content).unwrap();
    json!({ "mediaType": media_type, "digest": digest.to_string(), "size": content.len() })
}

fn image(world: &World, architecture: &str, layers: &[&str]) -> Value {
    let layers: Vec<_> = layers.iter().map(|layer| blob(world, LAYER, layer.as_bytes())).collect();
    let config = json!({ "os": "linux", "architecture": architecture, "layers": layers.len() });
    let config = blob(world, CONFIG, config.to_string().as_bytes());
    let manifest =
        json!({ "schemaVersion": 2, "mediaType": MANIFEST, "config": config, "layers": layers }).to_string();
    let mut image = blob(world, MANIFEST, manifest.as_bytes());
    image["platform"] = json!({ "os": "linux", "architecture": architecture });
    image
}

/// A layout `images` with these images by their tags.
fn layout(world: &World, images: impl FnOnce(&World) -> Vec<(&'static str, Value)>) {
    fs::create_dir_all(world.path("images/blobs/sha256")).unwrap();
    let entries = images(world).into_iter().map(|(tag, mut image)| {
        image["annotations"] = json!({ "org.opencontainers.image.ref.name": tag });
        image
    });
    let index = json!({ "schemaVersion": 2, "manifests": entries.collect::<Vec<_>>() });
    world.write("images/index.json", &index.to_string());
    world.write("images/oci-layout", r#"{"imageLayoutVersion":"1.0.0"}"#);
}

/// An image of four platforms, of two layers each.
fn four_platforms(world: &World) -> Vec<(&'static str, Value)> {
    let images = ["amd64", "arm64", "arm", "s390x"].map(|architecture| {
        let layers = [format!("{architecture} one"), format!("{architecture} two")];
        image(world, architecture, &layers.each_ref().map(String::as_str))
    });
    let index = json!({ "schemaVersion": 2, "mediaType": INDEX, "manifests": images });
    vec![("v1", blob(world, INDEX, index.to_string().as_bytes()))]
}

/// How often each kind of request came, with the status of its answer.
fn kinds(registry: &Registry) -> BTreeMap<String, usize> {
    let mut kinds = BTreeMap::new();
    for request in registry.requests() {
        let (method, rest) = request.split_once(' ').unwrap();
        let (path, status) = rest.rsplit_once(' ').unwrap();
        let kind = match path {
            "/v2/" => "api",
            _ if path.contains("/tags/list") => "tags",
            _ if path.contains("/manifests/sha256:") => "digest",
            _ if path.contains("/manifests/") => "tag",
            _ if path.contains("mount=") => "mount",
            _ if path.contains("/blobs/uploads/") => "upload",
            _ => "blob",
        };
        *kinds.entry(format!("{method} {kind} {status}")).or_default() += 1;
    }
    kinds
}

fn expect(registry: &Registry, expected: &[(&str, usize)]) {
    let expected = expected.iter().map(|(kind, count)| ((*kind).to_owned(), *count)).collect();
    assert_eq!(kinds(registry), expected);
}

struct Both {
    world: World,
    source: Registry,
    destination: Registry,
}

impl Both {
    /// A source with a repository of these images, and an empty destination.
    fn new(images: impl FnOnce(&World) -> Vec<(&'static str, Value)>) -> Self {
        let world = World::new();
        layout(&world, images);
        let (source, destination) =
            (Registry::start(&world, "source", ""), Registry::start(&world, "destination", ""));
        let both = Both { world, source, destination };
        both.sync("oci:images", &format!("docker://{}/team/app", both.source.host), "");
        both.source.requests();
        both
    }

    /// What was asked so far is not counted.
    fn forget(&self) {
        self.source.requests();
        self.destination.requests();
    }

    /// What a sync printed.
    fn sync(&self, from: &str, to: &str, more: &str) -> String {
        let policy = format!("version = 1\n[[rule]]\nname = \"a\"\nfrom = \"{from}\"\nto = \"{to}\"\n{more}");
        self.world.write("policy.toml", &policy);
        self.world.dray(&["sync", "policy.toml"]).ok().out
    }

    /// Syncs one registry to the other.
    fn across(&self, to: &str, more: &str) -> String {
        let from = format!("docker://{}/team/app", self.source.host);
        self.sync(&from, &format!("docker://{}/{to}", self.destination.host), more)
    }
}

#[test]
fn an_image_of_four_platforms_costs_48_and_then_3() {
    if !has("docker-registry") {
        return;
    }
    let both = Both::new(four_platforms);
    assert!(both.across("team/app", "").contains("1 image copied"));
    // A tag that the destination does not have is read at once, and not asked for before.
    expect(
        &both.source,
        &[("GET tags 200", 1), ("GET tag 200", 1), ("GET digest 200", 4), ("GET blob 200", 12)],
    );
    // Nothing is looked for in a repository that is not there, and each blob is one POST and one PUT.
    expect(
        &both.destination,
        &[
            ("GET tags 404", 1),
            ("POST upload 202", 12),
            ("PUT upload 201", 12),
            ("PUT digest 201", 4),
            ("PUT tag 201", 1),
        ],
    );
    assert!(both.across("team/app", "").contains("1 unchanged"));
    expect(&both.source, &[("GET tags 200", 1), ("HEAD tag 304", 1)]);
    expect(&both.destination, &[("HEAD tag 304", 1)]);
    // Where the policy names the tag, it is not listed.
    assert!(both.across("team/app", "tags = [\"v1\"]\n").contains("1 unchanged"));
    expect(&both.source, &[("HEAD tag 304", 1)]);
    expect(&both.destination, &[("HEAD tag 304", 1)]);
}

#[test]
fn what_is_there_costs_one_question_a_tag_and_a_list_where_nothing_is_remembered() {
    if !has("docker-registry") {
        return;
    }
    let tags = ["v1", "v2", "v3", "v4"];
    let both =
        Both::new(|world| tags.iter().map(|tag| (*tag, image(world, "amd64", &["shared", tag]))).collect());
    let rules: String = (0..3)
        .map(|number| {
            let (from, to) = (&both.source.host, &both.destination.host);
            format!("[[rule]]\nname = \"r{number}\"\nfrom = \"docker://{from}/team/app\"\nto = \"docker://{to}/r{number}\"\n")
        })
        .collect();
    let sync = |table: &str| {
        both.world.write("policy.toml", &format!("version = 1\n{table}{rules}"));
        both.world.dray(&["sync", "policy.toml"]).ok().out
    };
    assert!(sync("").contains("12 images copied"));
    both.forget();
    let source: &[(&str, usize)] = &[("GET tags 200", 3), ("HEAD tag 304", 12)];
    assert!(sync("").contains("12 unchanged"));
    expect(&both.source, source);
    // One list is tried, to find out whether it says what the tags name. That is remembered.
    expect(&both.destination, &[("GET tags 200", 1), ("HEAD tag 304", 12)]);
    assert!(sync("").contains("12 unchanged"));
    expect(&both.source, source);
    expect(&both.destination, &[("HEAD tag 304", 12)]);
    let assumed = format!("[registry.\"{}\"]\nassume-unchanged = true\n", both.destination.host);
    assert!(sync(&assumed).contains("12 unchanged"));
    expect(&both.source, source);
    expect(&both.destination, &[]);
    fs::remove_dir_all(both.world.path("home/.local/state/dray")).unwrap();
    assert!(sync("").contains("12 unchanged"));
    expect(&both.source, &[("GET tags 200", 3), ("HEAD tag 200", 12)]);
    expect(&both.destination, &[("GET tags 200", 3), ("HEAD tag 200", 12)]);
}

#[test]
fn what_another_repository_has_is_mounted_and_never_read() {
    if !has("docker-registry") {
        return;
    }
    let both = Both::new(|world| vec![("v1", image(world, "amd64", &["one", "two"]))]);
    both.across("team/app", "");
    both.forget();
    // A later run knows from the journal where the blobs are.
    assert!(both.across("team/other", "").contains("1 image copied"));
    expect(&both.source, &[("GET tags 200", 1), ("GET tag 200", 1)]);
    expect(&both.destination, &[("GET tags 404", 1), ("POST mount 201", 3), ("PUT tag 201", 1)]);
    // Without a journal nobody does: it is sent.
    fs::remove_dir_all(both.world.path("home/.local/state/dray")).unwrap();
    assert!(both.across("team/third", "").contains("1 image copied"));
    expect(&both.source, &[("GET tags 200", 1), ("GET tag 200", 1), ("GET blob 200", 3)]);
    expect(
        &both.destination,
        &[("GET tags 404", 1), ("POST upload 202", 3), ("PUT upload 201", 3), ("PUT tag 201", 1)],
    );
}

#[test]
fn what_two_repositories_share_is_sent_once() {
    if !has("docker-registry") {
        return;
    }
    let both = Both::new(|world| {
        vec![
            ("v1", image(world, "amd64", &["shared", "one"])),
            ("v2", image(world, "arm64", &["shared", "two"])),
        ]
    });
    let from = format!("docker://{}/team/app", both.source.host);
    let rule = |name: &str| {
        let to = &both.destination.host;
        format!("[[rule]]\nname = \"{name}\"\nfrom = \"{from}\"\nto = \"docker://{to}/{name}\"\n")
    };
    both.world.write("policy.toml", &format!("version = 1\n{}{}", rule("one"), rule("two")));
    assert!(both.world.dray(&["sync", "policy.toml"]).ok().out.contains("4 images copied"));
    // Two tags in two repositories, and five blobs in all.
    let source = kinds(&both.source);
    assert_eq!((source["GET blob 200"], source["GET tag 200"]), (5, 4), "{source:?}");
    let destination = kinds(&both.destination);
    assert_eq!((destination["PUT upload 201"], destination["POST mount 201"]), (5, 5), "{destination:?}");
    assert!(
        !destination.keys().any(|kind| kind.starts_with("HEAD") || kind.starts_with("PATCH")),
        "{destination:?}"
    );
}

#[test]
fn a_new_tag_of_known_content_costs_no_blob() {
    if !has("docker-registry") {
        return;
    }
    let both = Both::new(|world| vec![("v1", image(world, "amd64", &["one", "two"]))]);
    both.across("team/app", "");
    let again = format!("docker://{}/team/app:v2", both.source.host);
    both.sync(&again.replace(":v2", ":v1"), &again, "");
    both.forget();
    assert!(both.across("team/app", "").contains("1 image copied, 1 unchanged"));
    expect(
        &both.source,
        &[("GET tags 200", 1), ("HEAD tag 304", 1), ("HEAD tag 200", 1), ("GET digest 200", 1)],
    );
    let destination = kinds(&both.destination);
    assert!(!destination.keys().any(|kind| kind.contains("upload")), "{destination:?}");
    assert_eq!(destination["PUT tag 201"], 1, "{destination:?}");
}
