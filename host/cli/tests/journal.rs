//! What outlives a run, and how little is trusted of it.
#![allow(clippy::unwrap_used, clippy::print_stderr, reason = "tests")]

mod support;

use std::{
    fs,
    io::Write,
    process::Stdio,
    sync::{
        Arc, Mutex,
        atomic::{AtomicBool, Ordering::SeqCst},
    },
    time::Duration,
};
use support::{Fake, IMAGES, Killed, Registry, World, answer, count, has, kept, until};

#[test]
fn nobody_else_writes_so_nothing_is_asked() {
    if !has("docker-registry") {
        return;
    }
    let world = World::new();
    let destination = Registry::start(&world, "destination", "");
    let images = concat!("oci:", env!("CARGO_MANIFEST_DIR"), "/../../examples/images");
    let policy = |assume: bool| {
        let text = format!(
            "version = 1\n[registry.\"{host}\"]\nassume-unchanged = {assume}\n[[rule]]\nname = \"a\"\nfrom = \"{images}\"\nto = \"docker://{host}/a\"\n",
            host = destination.host
        );
        world.write("policy.toml", &text);
        world.dray(&["sync", "policy.toml"]).ok().out
    };
    let first = policy(true);
    assert!(first.contains("9 images copied"), "{first}");
    // A repository that was not there: nothing in it is asked for.
    let cold = destination.requests();
    assert_eq!((count(&cold, "GET "), count(&cold, "HEAD ")), (1, 0), "{cold:?}");
    assert!(policy(true).contains("0 images copied, 9 unchanged"));
    assert_eq!(destination.requests(), Vec::<String>::new());
    // Otherwise each tag is asked for, and nothing else but one list, which shows that it says no digests.
    for all in [10, 9] {
        assert!(policy(false).contains("0 images copied, 9 unchanged"));
        let warm = destination.requests();
        assert_eq!((count(&warm, "HEAD /v2/a/manifests/"), warm.len()), (9, all), "{warm:?}");
    }
    // Without the journal, one list more.
    fs::remove_dir_all(world.path("home/.local/state/dray")).unwrap();
    assert!(policy(true).contains("0 images copied, 9 unchanged"));
    let forgotten = destination.requests();
    assert_eq!((count(&forgotten, "GET /v2/a/tags/list"), forgotten.len()), (1, 10), "{forgotten:?}");
}

#[test]
fn a_sync_that_is_killed_just_after_it_wrote_a_tag_leaves_no_word_of_what_was_there_before() {
    if !has("docker-registry") {
        return;
    }
    let world = World::new();
    let registry = Registry::start(&world, "destination", "");
    // Kills a sync when the registry has taken a tag, before that is told.
    let victim = Arc::new(Mutex::new(None::<Killed>));
    let (killed, backend) = (victim.clone(), registry.host.clone());
    let wire = Fake::start_raw(move |request, body, stream| {
        let answer = support::answer(&backend, &backend, request, body);
        if request.starts_with("PUT /v2/a/manifests/1 ") {
            drop(killed.lock().unwrap().take());
        }
        let _ = stream.write_all(&answer);
    });
    let images = concat!("oci:", env!("CARGO_MANIFEST_DIR"), "/../../examples/images");
    let source = |version: &str| {
        world.dray(&["copy", "--all", &format!("{images}:{version}"), "oci:source:1"]).ok();
    };
    let policy = format!(
        "version = 1\n[registry.\"{0}\"]\nassume-unchanged = true\n[[rule]]\nname = \"a\"\nfrom = \"oci:source\"\nto = \"docker://{0}/a\"\n",
        wire.host
    );
    world.write("policy.toml", &policy);
    source("1.0.0");
    world.dray(&["sync", "policy.toml"]).ok();
    assert!(world.dray(&["sync", "policy.toml"]).ok().out.contains("1 unchanged"));
    source("1.2.0");
    *victim.lock().unwrap() = Some(Killed::start(world.command(&["sync", "policy.toml"])));
    until("the kill", || victim.lock().unwrap().is_none());
    let there = || world.digest(&format!("docker://{}/a:1", registry.host), &[]);
    assert_eq!(there(), world.digest("oci:source:1", &[]));
    source("1.0.0");
    assert!(world.dray(&["sync", "policy.toml"]).ok().out.contains("1 image copied"));
    assert_eq!(there(), world.digest("oci:source:1", &[]));
}

#[test]
fn a_sync_does_without_a_journal_that_it_cannot_use() {
    let world = World::new();
    let images = concat!("oci:", env!("CARGO_MANIFEST_DIR"), "/../../examples/images:1.0.0");
    let journal = world.path("home/.local/state/dray/journal.db");
    world.write("home/.local/state/dray/journal.db", &"this is no database ".repeat(100));
    let copied = world.dray(&["copy", "--all", images, "oci:one:1"]).ok();
    assert!(
        copied.err.contains("journal.db") && copied.err.contains("going on without it"),
        "{}",
        copied.err
    );
    let listed = world.dray(&["runs"]);
    assert!(listed.code == 1 && listed.err.contains("move it away"), "{}", listed.err);
    // It keeps nobody from the rest.
    let cache = world.dray(&["cache"]);
    assert!(cache.code == 1 && cache.out.contains("compiled plugin"), "{}", cache.out);
    fs::remove_file(&journal).unwrap();
    world.dray(&["copy", "--all", images, "oci:two:1"]).ok();
    let trimmed = world.dray(&["cache", "trim", "--older-than", "1h", "--output", "json"]).ok().json();
    assert_eq!(trimmed["journal"]["runs"], 0);
    assert_eq!(kept(&world)["runs"], 1);
}

#[test]
fn processes_that_make_a_journal_at_once_wait_for_each_other() {
    for _ in 0..40 {
        let world = World::new();
        let mut command = world.command(&["cache", "--output", "json"]);
        command.stdout(Stdio::null()).stderr(Stdio::null());
        let mut running: Vec<_> = (0..8).map(|_| command.spawn().unwrap()).collect();
        assert!(running.iter_mut().all(|process| process.wait().unwrap().success()));
    }
}

#[test]
fn a_journal_that_can_only_be_read_is_read_and_done_without() {
    if !support::is_root() {
        return;
    }
    let world = World::new();
    let images = concat!("oci:", env!("CARGO_MANIFEST_DIR"), "/../../examples/images:1.0.0");
    world.dray(&["copy", "--all", images, "oci:one:1"]).ok();
    let folder = world.path("home/.local/state/dray").to_string_lossy().into_owned();
    world.tool("mount", &["--bind", &folder, &folder]);
    world.tool("mount", &["-o", "remount,ro,bind", &folder]);
    let done = std::panic::catch_unwind(|| {
        let copied = world.dray(&["copy", "--all", images, "oci:two:1"]).ok();
        assert_eq!(copied.err.matches("going on without it").count(), 1, "{}", copied.err);
        assert!(copied.err.contains("journal.db"), "{}", copied.err);
        assert!(world.dray(&["copy", "--all", images, "oci:two:1"]).ok().out.contains("1 unchanged"));
        // What it holds can be read all the same.
        assert_eq!(world.dray(&["runs", "--output", "json"]).ok().json()[0]["summary"]["copied"], 1);
        assert_eq!(kept(&world)["runs"], 1);
        let trimmed = world.dray(&["cache", "trim", "--older-than", "0s"]);
        assert!(
            trimmed.code == 1 && trimmed.err.contains("journal.db") && trimmed.err.contains("writable"),
            "{}",
            trimmed.err
        );
    });
    world.tool("umount", &[&folder]);
    done.unwrap();
    assert_eq!(kept(&world)["runs"], 1);
}

/// A sync of nine images that stands still with some of them done, until it is free; the registry that it has brought
/// them to, and the wire between.
fn standing_still(world: &World) -> (Registry, Fake, Killed, Arc<AtomicBool>) {
    let registry = Registry::start(world, "destination", "");
    let backend = registry.host.clone();
    let free = Arc::new(AtomicBool::new(false));
    let is_free = free.clone();
    let wire = Fake::start_raw(move |request, body, stream| {
        if request.starts_with("PUT /v2/a/manifests/nightly ") && !is_free.load(SeqCst) {
            loop {
                std::thread::park();
            }
        }
        let _ = stream.write_all(&answer(&backend, &backend, request, body));
    });
    let to = &wire.host;
    world.write(
        "policy.toml",
        &format!("version = 1\n[[rule]]\nname = \"a\"\nfrom = \"{IMAGES}\"\nto = \"docker://{to}/a\"\n"),
    );
    let sync = Killed::start(world.command(&["sync", "policy.toml"]));
    until("the last but one image", || {
        let runs = world.dray(&["runs", "--output", "json"]).ok().json();
        runs[0]["copied"] == 8
    });
    (registry, wire, sync, free)
}

#[test]
fn a_run_that_was_killed_tells_what_it_had_done() {
    if !has("docker-registry") {
        return;
    }
    let world = World::new();
    let (_registry, wire, mut sync, _) = standing_still(&world);
    let listed = || world.dray(&["runs"]).ok().out;
    assert!(listed().contains("under way; 8 images copied so far, 0 failed"), "{}", listed());
    sync.0.kill().unwrap();
    // Nobody has asked for its status yet, so there is still a process of that number.
    until("its end", || listed().contains("broken off; 8 images copied so far, 0 failed"));
    drop(sync);
    let shown = world.dray(&["runs", "show", "1"]).ok().out;
    assert_eq!(shown.matches(&format!("-> docker://{}/a:", wire.host)).count(), 8, "{shown}");
    assert_eq!(shown.matches("    sha256:").count(), 8, "{shown}");
    let told = world.dray(&["runs", "show", "1", "--output", "json"]).ok().json();
    assert!(told["copies"].as_array().unwrap().iter().all(|copy| copy["action"] == "copy"));
    assert_eq!((told["run"]["copied"].clone(), told["run"]["under_way"].clone()), (8.into(), false.into()));
}

#[test]
fn what_a_killed_sync_brought_is_neither_sent_nor_asked_for_again() {
    if !has("docker-registry") {
        return;
    }
    let world = World::new();
    let (registry, _wire, sync, free) = standing_still(&world);
    // What was learnt is written within a tenth of a second.
    std::thread::sleep(Duration::from_millis(300));
    drop(sync);
    registry.requests();
    free.store(true, SeqCst);
    let again = world.dray(&["sync", "policy.toml"]).ok().out;
    assert!(again.contains("1 image copied, 8 unchanged"), "{again}");
    let asked = registry.requests();
    assert_eq!(asked.iter().filter(|request| request.contains("/blobs/")).count(), 0, "{asked:?}");
    assert_eq!(count(&asked, "PUT /v2/a/manifests/nightly"), 1, "{asked:?}");
}

#[test]
fn a_run_that_was_told_to_stop_says_so() {
    if !has("docker-registry") {
        return;
    }
    let world = World::new();
    let (_registry, _wire, mut sync, _) = standing_still(&world);
    world.tool("kill", &["-INT", &sync.0.id().to_string()]);
    assert_eq!(sync.0.wait().unwrap().code(), Some(130));
    let listed = world.dray(&["runs"]).ok().out;
    assert!(listed.contains("stopped; 8 images copied, 0 unchanged, 0 failed"), "{listed}");
    assert_eq!(
        world.dray(&["cache", "trim", "--older-than", "0s", "--output", "json"]).ok().json()["journal"]["runs"],
        1
    );
}

#[test]
fn two_syncs_at_once_share_a_journal() {
    if !has("docker-registry") {
        return;
    }
    let world = World::new();
    let registry = Registry::start(&world, "destination", "");
    let to = &registry.host;
    let rules = (0..10).map(|number| {
        format!("[[rule]]\nname = \"r{number}\"\nfrom = \"{IMAGES}\"\nto = \"docker://{to}/r{number}\"\n")
    });
    let assume = format!("version = 1\n[registry.\"{to}\"]\nassume-unchanged = true\n");
    let policy = assume + &rules.collect::<String>();
    // Of one policy there is one run at a time: two that say the same.
    world.write("policy.toml", &policy);
    world.write("other.toml", &policy);
    let sync = |policy| {
        world.command(&["sync", policy]).stdout(Stdio::null()).stderr(Stdio::piped()).spawn().unwrap()
    };
    let both = [sync("policy.toml"), sync("other.toml")].map(|process| process.wait_with_output().unwrap());
    for ended in both {
        let told = String::from_utf8(ended.stderr).unwrap();
        assert!(ended.status.success() && !told.contains("journal"), "{told}");
    }
    let runs = world.dray(&["runs", "--output", "json"]).ok().json();
    let ended = |run: &serde_json::Value| run["summary"]["failed"] == 0;
    assert!(runs.as_array().unwrap().len() == 2 && runs.as_array().unwrap().iter().all(ended), "{runs}");
    let again = world.dray(&["sync", "policy.toml"]).ok().out;
    assert!(again.contains("0 images copied, 90 unchanged"), "{again}");
    // What is remembered is what is there.
    registry.requests();
    world.dray(&["sync", "policy.toml"]).ok();
    let asked = registry.requests();
    for tag in ["1.0.0", "nightly"] {
        let there = world.digest(&format!("docker://{to}/r3:{tag}"), &[]);
        assert_eq!(there, world.digest(&format!("{IMAGES}:{tag}"), &[]));
    }
    // Those that both wrote at the same moment are asked for still.
    assert!(count(&asked, "HEAD ") + count(&asked, "GET ") < 100, "{asked:?}");
}
