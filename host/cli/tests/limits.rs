//! Registries that limit what may be asked of them.
#![allow(clippy::unwrap_used, clippy::print_stderr, reason = "a test")]

mod support;

use dray_core::Digest;
use serde_json::json;
use std::{
    collections::HashMap,
    fs,
    ops::Range,
    process::Stdio,
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicUsize, Ordering::SeqCst},
    },
    time::{Duration, Instant},
};
use support::{Fake, Ran, Registry, Running, World, count, has, respond};

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
    world.write("policy.toml", &format!("version = 1\n{}", rule("a", fake, tags, "oci:out", "")));
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

/// A registry with images of these numbers by the tags `t0`, `t1`, …. `before` is called for each request, with
/// whether it is for a blob; false: it is refused.
fn source(numbers: Range<usize>, before: impl Fn(bool) -> bool + Send + Sync + 'static) -> Fake {
    source_that_refuses("", numbers, before)
}

/// Likewise; what it refuses with.
fn source_that_refuses(
    headers: &'static str,
    numbers: Range<usize>,
    before: impl Fn(bool) -> bool + Send + Sync + 'static,
) -> Fake {
    let images: Vec<_> = numbers.map(image).collect();
    let configs: HashMap<_, _> = images
        .iter()
        .map(|(config, _)| (Digest::of(config.as_bytes()).to_string(), config.clone()))
        .collect();
    Fake::start(move |request, stream| {
        let name = request.split(' ').nth(1).unwrap().rsplit('/').next().unwrap();
        let config = configs.get(name);
        if !before(config.is_some()) {
            return respond(stream, REFUSED, headers, b"");
        }
        if let Some(config) = config {
            return respond(stream, "200 OK", "", config.as_bytes());
        }
        let image =
            images.iter().position(|(_, manifest)| Digest::of(manifest.as_bytes()).to_string() == name);
        let image = image.or_else(|| name.strip_prefix('t')?.parse().ok()).unwrap_or(0);
        respond(stream, "200 OK", &format!("Content-Type: {MANIFEST}\r\n"), images[image].1.as_bytes());
    })
}

#[test]
fn a_limit_on_manifests_is_none_on_blobs() {
    // One manifest at a time, and as many blobs as may be wanted.
    let (manifests, blobs) = (Width::default(), Width::default());
    let widest = blobs.clone();
    let fake = source(0..60, move |blob| match blob {
        true => blobs.during(Duration::from_millis(200)) > 0,
        false => manifests.during(Duration::from_millis(5)) == 1,
    });
    let sync = run("sync", &fake, 60);
    assert_eq!(sync.json()["summary"]["copied"], 60, "{}", sync.err);
    assert!(widest.most() >= 4, "{} blobs at once", widest.most());
}

/// A rule for the first tags of a registry, and what its registry's table says.
fn rule(name: &str, from: &Fake, count: usize, to: &str, more: &str) -> String {
    let tags: Vec<String> = (0..count).map(|number| format!("\"t{number}\"")).collect();
    let (host, tags) = (&from.host, tags.join(", "));
    format!(
        "[registry.\"{host}\"]\ntls = \"off\"\n{more}[[rule]]\nname = \"{name}\"\nfrom = \"docker://{host}/{name}\"\nto = \"{to}\"\ntags = [{tags}]\n"
    )
}

/// Whether something comes to be, within two minutes.
fn comes(mut there: impl FnMut() -> bool) -> bool {
    let begun = Instant::now();
    while !there() {
        if begun.elapsed() > Duration::from_secs(120) {
            return false;
        }
        std::thread::sleep(Duration::from_millis(100));
    }
    true
}

fn stands_still() -> ! {
    loop {
        std::thread::park();
    }
}

#[test]
fn a_destination_that_stands_still_holds_up_no_other() {
    // More images than are on their way at once, or planned ahead.
    let from = source(0..700, |_| true);
    let stuck = Fake::start(|request, stream| match request.contains("/blobs/") {
        true => stands_still(),
        false => respond(stream, "404 Not Found", "", b""),
    });
    let world = World::new();
    let to = format!("docker://{}/there", stuck.host);
    let (stuck_one, other) = (rule("one", &from, 700, &to, ""), rule("two", &from, 700, "oci:out", ""));
    let (_, other) = other.split_once("[[rule]]").unwrap();
    let plain = format!("[registry.\"{}\"]\ntls = \"off\"\n", stuck.host);
    world.write("policy.toml", &format!("version = 1\n{plain}{stuck_one}[[rule]]{other}"));
    let _sync = Running(world.command(&["sync", "policy.toml"]).stdout(Stdio::null()).spawn().unwrap());
    let index = world.path("out/index.json");
    let count = || fs::read_to_string(&index).map_or(0, |index| index.matches(MANIFEST).count());
    assert!(comes(|| count() == 700), "{} images came", count());
    assert!(stuck.requests().iter().any(|request| request.contains("/blobs/")));
}

/// Tags of a repository of the registry `to`.
fn arrived(world: &World, name: &str) -> usize {
    let tags = world.path(&format!("to/docker/registry/v2/repositories/{name}/_manifests/tags"));
    fs::read_dir(tags).map_or(0, Iterator::count)
}

/// All 20 images of a source come to a registry that takes so many requests at once, beside the 40 of another source,
/// of whose table more is said.
#[track_caller]
fn assert_that_all_come_of(source: &Fake, beside: &Fake, more: &str, concurrency: usize) {
    let world = World::new();
    let destination = Registry::start(&world, "to", "");
    let to = |name: &str| format!("docker://{}/{name}", destination.host);
    let policy = format!(
        "version = 1\n[registry.\"{}\"]\nconcurrency = {concurrency}\n{}{}",
        destination.host,
        rule("one", beside, 40, &to("one"), more),
        rule("two", source, 20, &to("two"), "")
    );
    world.write("policy.toml", &policy);
    let _sync = Running(world.command(&["sync", "policy.toml"]).stdout(Stdio::null()).spawn().unwrap());
    assert!(comes(|| arrived(&world, "two") == 20), "{} images came", arrived(&world, "two"));
}

#[test]
fn a_source_that_stands_still_holds_up_no_other() {
    if !has("docker-registry") {
        return;
    }
    let stuck = source(100..140, |blob| if blob { stands_still() } else { true });
    let from = source(0..20, |_| true);
    // One blob of the source that stands still is on its way, and has one of two places; the others must
    // leave the second.
    assert_that_all_come_of(&from, &stuck, "concurrency = 1\n", 2);
}

#[test]
fn a_catalog_that_does_not_come_holds_up_only_what_may_collide_with_it() {
    if !has("docker-registry") {
        return;
    }
    let stuck = Fake::start(|request, stream| match request.contains("/_catalog") {
        true => stands_still(),
        false => respond(stream, "200 OK", "", b"{}"),
    });
    let from = source(0..20, |_| true);
    let world = World::new();
    let destination = Registry::start(&world, "to", "");
    let to = |name: &str| format!("docker://{}/{name}", destination.host);
    let all = format!(
        "[[rule]]\nname = \"all\"\nfrom = \"docker://{}/**\"\nto = \"{}\"\n",
        stuck.host,
        to("one/{path}")
    );
    let plain = format!("[registry.\"{}\"]\ntls = \"off\"\n", stuck.host);
    let (apart, inside) =
        (rule("two", &from, 20, &to("two"), ""), rule("three", &from, 20, &to("one/three"), ""));
    let (_, inside) = inside.split_once("[[rule]]").unwrap();
    world.write("policy.toml", &format!("version = 1\n{plain}{apart}{all}[[rule]]{inside}"));
    let _sync = Running(world.command(&["sync", "policy.toml"]).stdout(Stdio::null()).spawn().unwrap());
    assert!(comes(|| arrived(&world, "two") == 20), "{} images came", arrived(&world, "two"));
    // What that catalog may name too must wait for it.
    assert_eq!(arrived(&world, "one/three"), 0);
    assert!(stuck.requests().iter().any(|request| request.contains("/_catalog")));
}

#[test]
fn never_more_requests_at_once_than_the_policy_allows() {
    let width = Width::default();
    let widest = width.clone();
    let from = source(0..100, move |_| width.during(Duration::from_millis(3)) > 0);
    let world = World::new();
    world.write(
        "policy.toml",
        &format!("version = 1\n{}", rule("a", &from, 100, "oci:out", "concurrency = 3\n")),
    );
    assert!(world.dray(&["sync", "policy.toml"]).ok().out.contains("100 images copied"));
    assert_eq!(widest.most(), 3);
}

#[test]
fn patience_that_is_asked_for_by_one_source_is_not_had_with_others() {
    if !has("docker-registry") {
        return;
    }
    // It refuses blobs for longer than this test lasts.
    let asked = Arc::new(AtomicBool::new(false));
    let refuses = asked.clone();
    let one = source_that_refuses("Retry-After: 250\r\n", 100..140, move |blob| {
        refuses.fetch_or(blob, SeqCst);
        !blob
    });
    let other = source(0..20, move |_| {
        while !asked.load(SeqCst) {
            std::thread::sleep(Duration::from_millis(10));
        }
        true
    });
    assert_that_all_come_of(&other, &one, "", 1);
    let blobs = one.requests().iter().filter(|request| request.contains("/blobs/")).count();
    assert!(blobs > 0);
}

#[test]
fn a_destination_that_answers_nothing_more_gives_its_source_back() {
    let from = source(0..300, |_| true);
    // Once an upload is begun it answers nobody. Others come to wait for its only slot before what is to be uploaded.
    let begun = AtomicBool::new(false);
    let stuck = Fake::start(move |request, stream| {
        if request.starts_with("POST ") {
            begun.store(true, SeqCst);
            std::thread::sleep(Duration::from_secs(3));
            respond(stream, "202 Accepted", "Location: /v2/one/blobs/uploads/1\r\n", b"");
        }
        if begun.load(SeqCst) {
            stands_still();
        }
        respond(stream, "404 Not Found", "", b"");
    });
    let world = World::new();
    let to = format!("docker://{}/one", stuck.host);
    let (one, two) =
        (rule("one", &from, 300, &to, "concurrency = 1\n"), rule("two", &from, 300, "oci:out", ""));
    let (_, two) = two.split_once("[[rule]]").unwrap();
    let registry = format!("[registry.\"{}\"]\ntls = \"off\"\nconcurrency = 1\n", stuck.host);
    world.write("policy.toml", &format!("version = 1\n{registry}{one}[[rule]]{two}"));
    let _sync = Running(world.command(&["sync", "policy.toml"]).stdout(Stdio::null()).spawn().unwrap());
    let index = world.path("out/index.json");
    let count = || fs::read_to_string(&index).map_or(0, |index| index.matches(MANIFEST).count());
    assert!(comes(|| count() == 300), "{} images came", count());
    assert!(stuck.requests().iter().any(|request| request.starts_with("POST ")));
}

#[test]
fn sources_that_stand_still_leave_places_at_their_destination() {
    if !has("docker-registry") {
        return;
    }
    let stuck = source(100..140, |blob| if blob { stands_still() } else { true });
    let from = source(0..20, |_| true);
    assert_that_all_come_of(&from, &stuck, "", 4);
}

#[test]
fn a_folder_for_each_repository_makes_no_crowd() {
    let names: Vec<String> = (0..1500).map(|number| format!("\"team/r{number}\"")).collect();
    let catalog = format!("{{\"repositories\":[{}]}}", names.join(","));
    let fake = Fake::start(move |request, stream| {
        if request.contains("/_catalog") {
            return respond(stream, "200 OK", "", catalog.as_bytes());
        }
        std::thread::sleep(Duration::from_millis(2));
        respond(stream, "200 OK", &format!("Content-Type: {MANIFEST}\r\n"), image(0).1.as_bytes());
    });
    let world = World::new();
    let host = &fake.host;
    world.write(
        "policy.toml",
        &format!("version = 1\n[registry.\"{host}\"]\ntls = \"off\"\n[[rule]]\nname = \"all\"\nfrom = \"docker://{host}/**\"\nto = \"oci:out/{{name}}\"\ntags = [\"a\", \"b\"]\n"),
    );
    let out = fs::File::create(world.path("plan.json")).unwrap();
    let mut command = world.command(&["plan", "policy.toml", "--output", "json"]);
    let mut plan = Running(command.stdout(out).spawn().unwrap());
    // Each tag that is compared has some mappings of memory, of which a process may have 65,530.
    let maps = format!("/proc/{}/maps", plan.0.id());
    let mut most = 0;
    let ended = comes(|| {
        most = most.max(fs::read_to_string(&maps).unwrap_or_default().lines().count());
        plan.0.try_wait().unwrap().is_some()
    });
    let planned = fs::read_to_string(world.path("plan.json")).unwrap();
    assert!(ended && planned.contains("\"copy\":3000"), "{}", planned.lines().last().unwrap_or_default());
    assert!(most < 5000, "{most} mappings");
}

#[test]
fn two_ways_between_the_same_registries_do_not_wait_for_each_other() {
    if !has("docker-registry") {
        return;
    }
    let world = World::new();
    let registries = [Registry::start(&world, "a", ""), Registry::start(&world, "b", "")];
    let [one, other] = [&registries[0].host, &registries[1].host];
    for (host, name) in [(one, "x"), (other, "y")] {
        let from = source(0..40, |_| true);
        let fill = rule(name, &from, 40, &format!("docker://{host}/{name}"), "");
        world.write("fill.toml", &format!("version = 1\n{fill}"));
        world.dray(&["sync", "fill.toml"]).ok();
    }
    let policy = format!(
        "version = 1\n[registry.\"{one}\"]\nconcurrency = 1\n[registry.\"{other}\"]\nconcurrency = 1\n[[rule]]\nname = \"there\"\nfrom = \"docker://{one}/x\"\nto = \"docker://{other}/x\"\n[[rule]]\nname = \"back\"\nfrom = \"docker://{other}/y\"\nto = \"docker://{one}/y\"\n"
    );
    world.write("policy.toml", &policy);
    // One that stands still is ended.
    let sync = ["120", env!("CARGO_BIN_EXE_dray"), "sync", "policy.toml", "--output", "json"];
    let report = Ran::of(world.hermetic("timeout").args(sync)).ok().json();
    assert_eq!(report["summary"]["copied"], 80);
}

#[test]
fn what_a_registry_still_allows_is_heeded() {
    // Two more are let through all the time; how many come at once is kept, after the first answers.
    let (width, answered, widest) = (Width::default(), AtomicUsize::new(0), Arc::new(AtomicUsize::new(0)));
    let most = widest.clone();
    let fake = Fake::start(move |request, stream| {
        let known = answered.load(SeqCst) > 8;
        let width = width.during(Duration::from_millis(20));
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

#[test]
fn a_registry_that_only_asks_for_patience_is_given_up_once() {
    let world = World::new();
    let images = concat!("oci:", env!("CARGO_MANIFEST_DIR"), "/../../examples/images");
    let registry = Fake::start(|_, stream| {
        respond(stream, "429 Too Many Requests", "Retry-After: 1\r\n", b"");
    });
    let host = &registry.host;
    world.write(
        "policy.toml",
        &format!("version = 1\n[registry.\"{host}\"]\ntls = \"off\"\n[[rule]]\nname = \"a\"\nfrom = \"{images}\"\nto = \"docker://{host}/a\"\n"),
    );
    let report = world.dray(&["sync", "--keep-going", "--output", "json", "policy.toml"]).json();
    assert_eq!(report["summary"]["failed"], 9, "{report}");
    let asked = registry.requests();
    assert_eq!(count(&asked, "GET /v2/a/tags/list"), 8, "{asked:?}");
    // The images are not waited for one after the other.
    assert!(asked.len() < 8 + 9, "{asked:?}");
}
