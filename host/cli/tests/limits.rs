//! Registries that limit what may be asked of them.
#![allow(clippy::unwrap_used, clippy::print_stderr, reason = "a test")]

mod support;

use dray_core::Digest;
use serde_json::json;
use std::{
    collections::HashMap,
    fs,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering::SeqCst},
    },
    time::{Duration, Instant},
};
use support::{Fake, Ran, Registry, World, has, respond};

const MANIFEST: &str = "application/vnd.oci.image.manifest.v1+json";
const CONFIG: &str = "application/vnd.oci.image.config.v1+json";
const REFUSED: &str = "429 Too Many Requests";

/// How many requests there are at this moment, and were at most.
#[derive(Clone, Default)]
struct Width(Arc<(AtomicUsize, AtomicUsize)>);

impl Width {
    /// One more, for so long; how many there are with it.
    fn during(&self, time: Duration) -> usize {
        let (now, most) = &*self.0;
        let width = now.fetch_add(1, SeqCst) + 1;
        most.fetch_max(width, SeqCst);
        std::thread::sleep(time);
        now.fetch_sub(1, SeqCst);
        width
    }

    fn most(&self) -> usize {
        self.0.1.load(SeqCst)
    }
}

/// Runs a command on a policy that copies tags `t0`, `t1`, … of a registry into a layout.
fn run(command: &str, fake: &Fake, tags: usize) -> Ran {
    let world = World::new();
    let tags: Vec<String> = (0..tags).map(|number| format!("\"t{number}\"")).collect();
    let host = &fake.host;
    let policy = format!(
        "version = 1\n[registry.\"{host}\"]\ntls = \"off\"\n[[rule]]\nname = \"a\"\nfrom = \"docker://{host}/a\"\nto = \"oci:out\"\ntags = [{}]\n",
        tags.join(", ")
    );
    world.write("policy.toml", &policy);
    world.dray(&[command, "policy.toml", "--output", "json"]).ok()
}

/// A descriptor of some content.
fn descriptor(media_type: &str, content: &str) -> serde_json::Value {
    let digest = Digest::of(content.as_bytes());
    json!({ "mediaType": media_type, "digest": digest.to_string(), "size": content.len() })
}

/// The config and the manifest of an image like no other.
fn image(number: usize) -> (String, String) {
    let config = json!({ "os": "linux", "architecture": "amd64", "created": number.to_string() }).to_string();
    let config_descriptor = descriptor(CONFIG, &config);
    let manifest =
        json!({ "schemaVersion": 2, "mediaType": MANIFEST, "config": config_descriptor, "layers": [] });
    (config, manifest.to_string())
}

#[test]
fn patience_where_it_is_asked_for() {
    let calls = AtomicUsize::new(0);
    let fake = Fake::start(move |_, stream| match calls.fetch_add(1, SeqCst) {
        // The first request asks whether TLS is spoken.
        0 => respond(stream, REFUSED, "Retry-After: 1\r\n", b""),
        1 => respond(stream, "503 Service Unavailable", "", b""),
        _ => respond(stream, "200 OK", "", br#"{"name":"a","tags":["x"]}"#),
    });
    let world = World::new();
    let began = Instant::now();
    let tags = world.dray(&["list-tags", &format!("docker://{}/a", fake.host)]).ok();
    assert_eq!(tags.out, "x\n");
    assert!(began.elapsed() >= Duration::from_secs(1));
    assert_eq!(fake.requests().len(), 3);
}

#[test]
fn fewer_requests_at_once_where_the_registry_asks_for_it() {
    // It takes four at once.
    let (width, refused) = (Width::default(), Arc::new(AtomicUsize::new(0)));
    let count = refused.clone();
    let fake = Fake::start(move |request, stream| {
        if width.during(Duration::from_millis(5)) > 4 && request.contains("/manifests/") {
            count.fetch_add(1, SeqCst);
            return respond(stream, REFUSED, "", b"");
        }
        respond(stream, "200 OK", &format!("Content-Type: {MANIFEST}\r\n"), image(0).1.as_bytes());
    });
    let plan = run("plan", &fake, 400);
    assert_eq!(plan.out.matches("\"action\":\"copy\"").count(), 400, "{}", plan.err);
    // Each that is refused comes again; with a window of 16 or more all the time, most would be.
    let refused = refused.load(SeqCst);
    assert!(refused > 0 && refused < 100, "{refused} refused");
}

#[test]
fn a_limit_on_manifests_is_none_on_blobs() {
    // One manifest at a time, and as many blobs as may be wanted.
    let (manifests, blobs) = (Width::default(), Width::default());
    let widest = blobs.clone();
    let images: Vec<_> = (0..60).map(image).collect();
    let configs: HashMap<_, _> = images
        .iter()
        .map(|(config, _)| (Digest::of(config.as_bytes()).to_string(), config.clone()))
        .collect();
    let fake = Fake::start(move |request, stream| {
        let name = request.split(' ').nth(1).unwrap().rsplit('/').next().unwrap();
        if let Some(config) = configs.get(name) {
            blobs.during(Duration::from_millis(200));
            return respond(stream, "200 OK", "", config.as_bytes());
        }
        if manifests.during(Duration::from_millis(5)) > 1 {
            return respond(stream, REFUSED, "", b"");
        }
        let image =
            images.iter().position(|(_, manifest)| Digest::of(manifest.as_bytes()).to_string() == name);
        let image = image.or_else(|| name.strip_prefix('t')?.parse().ok()).unwrap_or(0);
        respond(stream, "200 OK", &format!("Content-Type: {MANIFEST}\r\n"), images[image].1.as_bytes());
    });
    let sync = run("sync", &fake, 60);
    assert_eq!(sync.json()["summary"]["copied"], 60, "{}", sync.err);
    assert!(widest.most() >= 4, "{} blobs at once", widest.most());
}

#[test]
fn what_a_registry_still_allows_is_heeded() {
    // Two more are let through all the time; how many come at once is kept, after the first answers.
    let (width, answered, widest) = (Width::default(), AtomicUsize::new(0), Arc::new(AtomicUsize::new(0)));
    let most = widest.clone();
    let fake = Fake::start(move |request, stream| {
        let known = answered.load(SeqCst) > 8;
        let width = width.during(Duration::from_millis(5));
        if known {
            most.fetch_max(width, SeqCst);
        }
        answered.fetch_add(1, SeqCst);
        let manifest =
            if request.contains("/manifests/") { r#"{"schemaVersion":2,"manifests":[]}"# } else { "{}" };
        let headers = "Content-Type: application/vnd.oci.image.index.v1+json\r\nratelimit-limit: 100;w=60\r\nratelimit-remaining: 2;w=60\r\n";
        respond(stream, "200 OK", headers, manifest.as_bytes());
    });
    let plan = run("plan", &fake, 60);
    assert_eq!(plan.out.matches("\"action\":\"copy\"").count(), 60, "{}", plan.err);
    assert!(plan.err.contains("lets 2 more requests pass"), "{}", plan.err);
    assert_eq!(widest.load(SeqCst), 2);
}

#[test]
fn a_long_plan_leaves_room_for_what_it_waits_for() {
    if !has("docker-registry") {
        return;
    }
    let world = World::new();
    // More images than a plan runs ahead.
    let images = 700;
    let blobs = world.path("many/blobs/sha256");
    fs::create_dir_all(&blobs).unwrap();
    let put = |content: &str| fs::write(blobs.join(Digest::of(content.as_bytes()).hex()), content).unwrap();
    let entries = (0..images).map(|number| {
        let (config, manifest) = image(number);
        put(&config);
        put(&manifest);
        let mut entry = descriptor(MANIFEST, &manifest);
        entry["annotations"] = json!({ "org.opencontainers.image.ref.name": format!("t{number}") });
        entry
    });
    let index = json!({ "schemaVersion": 2, "manifests": entries.collect::<Vec<_>>() });
    world.write("many/index.json", &index.to_string());
    world.write("many/oci-layout", r#"{"imageLayoutVersion":"1.0.0"}"#);
    let (source, destination) = (Registry::start(&world, "from", ""), Registry::start(&world, "to", ""));
    let copied = |from: &str, to: &str, more: &str| {
        let rule = format!("version = 1\n[[rule]]\nname = \"a\"\nfrom = \"{from}\"\nto = \"{to}\"\n{more}");
        world.write("policy.toml", &rule);
        // One that stands still is ended.
        let sync = ["300", env!("CARGO_BIN_EXE_dray"), "sync", "policy.toml", "--output", "json"];
        Ran::of(world.hermetic("timeout").args(sync)).ok().json()["summary"]["copied"].clone()
    };
    let (from, to) =
        (format!("docker://{}/many", source.host), format!("docker://{}/many", destination.host));
    assert_eq!(copied("oci:many", &from, ""), images);
    let one = |host: &str| format!("[registry.\"{host}\"]\nconcurrency = 1\n");
    assert_eq!(copied(&from, &to, &(one(&source.host) + &one(&destination.host))), images);
}
