//! Progress for machines, failures told once, and runs that go on after one.
#![allow(clippy::unwrap_used, clippy::print_stderr, reason = "tests")]

mod support;

use serde_json::Value;
use std::fs;
use support::World;

const IMAGES: &str = concat!("oci:", env!("CARGO_MANIFEST_DIR"), "/../../examples/images");

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
    let schema =
        fs::read_to_string(concat!(env!("CARGO_MANIFEST_DIR"), "/../../docs/progress.schema.json")).unwrap();
    let schema = jsonschema::validator_for(&serde_json::from_str(&schema).unwrap()).unwrap();
    let mut events = Vec::new();
    for line in ran.err.lines().filter(|line| line.starts_with('{')) {
        let event: Value = serde_json::from_str(line).unwrap();
        let wrong: Vec<String> = schema.iter_errors(&event).map(|error| error.to_string()).collect();
        assert!(wrong.is_empty(), "{wrong:?}: {line}");
        events.push(event);
    }
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
