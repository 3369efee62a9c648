//! Slow lines: what a stop costs, and what a rule allows its copies.
#![allow(clippy::unwrap_used, clippy::print_stderr, reason = "tests")]

mod support;

use std::{
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    time::Duration,
};
use support::{
    Killed, Registry, World, checked_lines, has,
    memory::{Memory, reply},
    until,
};

/// Content that is different for each seed.
fn layer(seed: u8, size: usize) -> Vec<u8> {
    let mut content = vec![seed; size];
    content[0] = seed.wrapping_add(1);
    content
}

/// Bytes that the last run sent.
fn sent(world: &World) -> u64 {
    world.dray(&["runs", "--output", "json"]).ok().json()[0]["summary"]["bytes"].as_u64().unwrap()
}

#[test]
fn a_stop_over_a_slow_line_costs_no_blob() {
    if !has("docker-registry") {
        return;
    }
    const SIZE: usize = 20 << 20;
    let world = World::new();
    let source = Memory::start();
    for (seed, tag) in ["1", "2", "3"].iter().enumerate() {
        source.image("big", tag, &layer(seed as u8, SIZE));
    }
    let destination = Registry::start(&world, "destination", "");
    let policy = |bandwidth: &str| {
        world.write(
            "dray.toml",
            &format!(
                "version = 1\n[registry.\"{}\"]\n{bandwidth}\n[[rule]]\nfrom = \"docker://{}/big\"\nto = \"docker://{0}/big\"\n",
                destination.host,
                source.host()
            ),
        )
    };
    policy("bandwidth = \"3MB/s\"");
    let mut stopped = Killed::start(world.command(&["sync"]));
    // Each blob began with a piece by itself, because the rate was not known.
    let log = world.path("destination.log");
    until("further pieces", || {
        std::fs::read_to_string(&log).unwrap_or_default().matches("\"PATCH /v2/").count() >= 5
    });
    world.tool("kill", &["-INT", &stopped.0.id().to_string()]);
    assert_eq!(stopped.0.wait().unwrap().code(), Some(130));
    let before = sent(&world);
    assert!(before >= 5 * (4 << 20) && before < 3 * SIZE as u64, "{before}");

    policy("");
    let second = world.dray(&["sync", "-v"]).ok();
    // Beside the layers there are three small configs.
    let again = before + sent(&world) - 3 * SIZE as u64;
    assert!(
        again < 1000,
        "{again} bytes were sent twice\n{}\n{}",
        second.err,
        destination.requests().join("\n")
    );
    for tag in ["1", "2", "3"] {
        let image = format!("docker://{}/big:{tag}", destination.host);
        world.tool("skopeo", &["copy", "--quiet", "--src-tls-verify=false", &image, &format!("dir:{tag}")]);
    }
}

#[test]
fn an_image_that_takes_too_long_fails_and_is_tried_again_where_the_rule_wants_it() {
    let world = World::new();
    let stalls = Arc::new(AtomicUsize::new(0));
    let left = stalls.clone();
    let source = Memory::odd(move |request, _| {
        let less = |left: usize| left.checked_sub(1);
        if request.path.contains("/blobs/")
            && left.fetch_update(Ordering::Relaxed, Ordering::Relaxed, less).is_ok()
        {
            std::thread::sleep(Duration::from_secs(8));
        }
        None
    });
    source.image("app", "1", b"layer");
    let sync = |limits: &str| {
        stalls.store(1, Ordering::Relaxed);
        world.write(
            "dray.toml",
            &format!(
                "version = 1\n[[rule]]\nfrom = \"docker://{}/app:1\"\nto = \"oci:mirror\"\n{limits}\n",
                source.host()
            ),
        );
        world.dray(&["sync"])
    };
    let failed = sync("timeout = \"1s\"");
    assert_eq!(failed.code, 1);
    assert!(failed.err.contains("the `timeout` of its rule is 1s"), "{}", failed.err);
    assert!(failed.err.contains("help: the next run goes on"), "{}", failed.err);
    let again = sync("timeout = \"1s\"\nretry = 1").ok();
    assert!(again.err.contains("trying again in 1.0s"), "{}", again.err);
}

#[test]
fn one_image_at_a_time_and_no_faster_than_allowed() {
    const SIZE: usize = 1 << 20;
    let world = World::new();
    let source = Memory::start();
    for (seed, tag) in ["1", "2", "3"].iter().enumerate() {
        source.image("app", tag, &layer(seed as u8, SIZE));
    }
    let destination = Memory::start();
    world.write(
        "dray.toml",
        &format!(
            "version = 1\n[[rule]]\nfrom = \"docker://{}/app\"\nto = \"docker://{}/app\"\nconcurrency = 1\nbandwidth = \"2MB/s\"\n",
            source.host(),
            destination.host()
        ),
    );
    let ran = world.dray(&["sync", "--output", "json", "--progress", "json"]).ok();
    let report = ran.json();
    let events = checked_lines("progress.schema.json", ran.err.lines().filter(|line| line.starts_with('{')));
    let moving = events.iter().filter(|event| event["event"] == "moving");
    let blobs: Vec<_> = moving.flat_map(|event| event["blobs"].as_array().unwrap()).collect();
    let of = format!("docker://{}/app:", destination.host());
    assert!(blobs.iter().all(|blob| blob["image"].as_str().unwrap().starts_with(&of)), "{blobs:?}");
    assert!(blobs.iter().any(|blob| blob["size_bytes"] == SIZE), "{blobs:?}");
    // Three mebibytes, of which the first chunks pass at once.
    assert!(report["summary"]["seconds"].as_f64().unwrap() > 1.0, "{report}");
    let asked = destination.asked();
    let writes: Vec<&str> = asked
        .iter()
        .filter_map(|line| match line.split_once(' ').unwrap() {
            ("POST", _) => Some("blob"),
            ("PUT", path) if path.contains("/manifests/") => Some("manifest"),
            _ => None,
        })
        .collect();
    assert_eq!(writes, ["blob", "blob", "manifest"].repeat(3), "{asked:?}");
}

#[test]
fn progress_says_for_whom_it_waits() {
    let world = World::new();
    let asked = AtomicUsize::new(0);
    let source = Memory::odd(move |request, _| {
        let first = request.path.contains("/blobs/") && asked.fetch_add(1, Ordering::Relaxed) == 0;
        first.then(|| ("429 Too Many Requests", "Retry-After: 3\r\n".to_owned(), Vec::new()))
    });
    source.image("app", "1", b"layer");
    let from = format!("docker://{}/app:1", source.host());
    let ran = world.dray(&["copy", "--progress", "json", &from, "oci:mirror:1"]).ok();
    let events = checked_lines("progress.schema.json", ran.err.lines().filter(|line| line.starts_with('{')));
    let waits: Vec<_> = events
        .iter()
        .filter(|event| event["event"] == "moving")
        .flat_map(|event| event["waiting"].as_array().unwrap())
        .collect();
    assert!(!waits.is_empty() && waits.iter().all(|wait| wait["registry"] == source.host()), "{events:?}");
}

/// A policy that copies one image over a line of 2 MB/s, with further keys of its rule.
fn slow_copy(world: &World, from: &str, to: &str, keys: &str) {
    let policy = format!(
        "version = 1\n[registry.\"{to}\"]\nbandwidth = \"2MB/s\"\n[[rule]]\nfrom = \"docker://{from}/big:1\"\nto = \"docker://{to}/big\"\n{keys}\n"
    );
    world.write("dray.toml", &policy);
}

#[test]
fn another_attempt_goes_on_where_the_last_one_stopped() {
    if !has("docker-registry") {
        return;
    }
    const SIZE: usize = 24 << 20;
    let world = World::new();
    let source = Memory::start();
    source.image("big", "1", &layer(1, SIZE));
    let destination = Registry::start(&world, "destination", "");
    // No attempt has the time for all of it.
    slow_copy(&world, source.host(), &destination.host, "timeout = \"5s\"\nretry = 4");
    let ran = world.dray(&["sync"]).ok();
    assert!(ran.err.contains("trying again in"), "{}", ran.err);
    let begun = destination.requests().iter().filter(|request| request.starts_with("POST ")).count();
    // Of the layer and of the config: the upload of the layer was taken up again.
    assert!(begun <= 3, "{begun} uploads were begun");
}

#[test]
fn an_upload_that_cannot_be_taken_up_again_begins_anew() {
    const SIZE: usize = 24 << 20;
    let world = World::new();
    let source = Memory::start();
    source.image("big", "1", &layer(1, SIZE));
    for status in ["403 Forbidden", "418 I am a teapot"] {
        let destination = Memory::odd(move |asked, _| {
            (asked.method == "GET" && asked.path.contains("/blobs/uploads/")).then(|| reply(status).unwrap())
        });
        slow_copy(&world, source.host(), destination.host(), "");
        let mut stopped = Killed::start(world.command(&["sync"]));
        until("a second piece", || destination.count("PATCH ") == 2);
        world.tool("kill", &["-INT", &stopped.0.id().to_string()]);
        assert_eq!(stopped.0.wait().unwrap().code(), Some(130), "{status}");
        slow_copy(&world, source.host(), destination.host(), "include-foreign = true");
        world.dray(&["sync"]).ok();
        assert!(
            destination.has("big", "1") && destination.count("GET /v2/big/blobs/uploads/") == 1,
            "{status}"
        );
    }
}

#[test]
fn whoever_waits_for_another_attempt_keeps_nobody_from_copying() {
    let world = World::new();
    let source = Memory::odd(|asked, _| {
        if asked.path.contains("/bad/blobs/") {
            std::thread::sleep(Duration::from_secs(20));
        }
        None
    });
    for tag in 0..40u8 {
        source.image("bad", &tag.to_string(), &[b'b', tag]);
    }
    source.image("good", "1", b"good");
    let rule = |name: &str, keys: &str| {
        format!("[[rule]]\nfrom = \"docker://{}/{name}\"\nto = \"oci:{name}\"\n{keys}\n", source.host())
    };
    let policy = format!("version = 1\n{}{}", rule("bad", "timeout = \"1s\"\nretry = 100"), rule("good", ""));
    world.write("dray.toml", &policy);
    let _syncing = Killed::start(world.command(&["sync"]));
    until("the other rule", || world.path("good/index.json").exists());
}
