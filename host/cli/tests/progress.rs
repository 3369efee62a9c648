//! Progress for machines, failures told once, and runs that go on after one.
#![allow(clippy::unwrap_used, clippy::print_stderr, reason = "tests")]

mod support;

use std::fs;
use support::{IMAGES, World, checked_lines};

/// A policy with two tags that are not there, and one that is.
fn policy(world: &World) {
    world.write(
        "dray.toml",
        &format!("version = 1\n[[rule]]\nname = \"a\"\nfrom = \"{IMAGES}\"\nto = \"oci:mirror\"\ntags = [\"no-1\", \"no-2\", \"1.2.0\"]\n"),
    );
}

#[test]
fn every_event_is_an_object_of_the_schema() {
    let world = World::new();
    policy(&world);
    let ran = world.dray(&["sync", "--progress", "json"]);
    assert_eq!(ran.code, 1);
    let lines = ran.err.lines().filter(|line| line.starts_with('{'));
    let events = checked_lines("progress.schema.json", lines);
    let named = |name: &str| events.iter().filter(|event| event["event"] == name).collect::<Vec<_>>();
    assert_eq!(named("planned")[0]["images"], 3);
    assert_eq!(named("started").len(), 1);
    let copied: Vec<&str> = named("finished")
        .iter()
        .filter(|event| event["action"] == "copy")
        .map(|event| event["destination"].as_str().unwrap())
        .collect();
    assert_eq!(copied, ["oci:mirror:1.2.0"]);
    assert_eq!(named("finished").len(), 3);
}

#[test]
fn the_rest_is_done_and_one_cause_is_told_once() {
    let world = World::new();
    policy(&world);
    let ran = world.dray(&["sync"]);
    assert_eq!(ran.code, 1);
    assert!(ran.out.contains("1 image copied, 0 unchanged, 2 failed"), "{}", ran.out);
    assert_eq!(ran.err.matches("there is no such image").count(), 1, "{}", ran.err);
    assert!(ran.err.contains("and the same of 1 other image: "), "{}", ran.err);
    fs::remove_dir_all(world.path("mirror")).unwrap();
    let quiet = world.dray(&["sync", "--quiet"]);
    assert!(quiet.err.contains("there is no such image") && !quiet.err.contains("copied"), "{}", quiet.err);
}
