//! A plan that is saved, read, and carried out: what was reviewed is what happens.
#![allow(clippy::unwrap_used, clippy::print_stderr, reason = "tests")]

mod support;

use std::fs;
use support::{IMAGES, Registry, World, checked_lines, has};

/// A policy that copies three tags of the examples.
fn policy(from: &str, to: &str) -> String {
    format!(
        "version = 1\n[[rule]]\nname = \"a\"\nfrom = \"{from}\"\nto = \"{to}\"\ntags = [\"1.0.0\", \"1.2.0\", \"2.0.0\"]\n"
    )
}

#[test]
fn a_saved_plan_is_carried_out_and_nothing_else() {
    let world = World::new();
    world.write("policy.toml", &policy(IMAGES, "oci:mirror"));
    let plan = world.dray(&["plan", "policy.toml", "--out", "plan.jsonl"]).ok();
    assert!(plan.out.contains("3 images to copy"), "{}", plan.out);
    assert!(plan.err.contains("plan.jsonl holds 3 copies"), "{}", plan.err);
    assert!(!world.path("mirror").exists());
    checked_lines("plan.schema.json", fs::read_to_string(world.path("plan.jsonl")).unwrap().lines());
    let applied = world.dray(&["apply", "plan.jsonl"]).ok();
    assert!(applied.out.contains("3 images copied, 0 unchanged, 0 failed"), "{}", applied.out);
    let again = world.dray(&["sync", "policy.toml"]).ok();
    assert!(again.out.contains("0 images copied, 3 unchanged"), "{}", again.out);
    let runs = world.dray(&["runs"]).ok();
    assert!(runs.out.contains("apply"), "{}", runs.out);
    // What it wanted is there, so it can be run again after it was interrupted.
    let twice = world.dray(&["apply", "plan.jsonl"]).ok();
    assert!(twice.out.contains("0 images copied, 3 unchanged, 0 failed"), "{}", twice.out);
}

#[test]
fn an_end_that_has_changed_is_left_alone_copy_by_copy() {
    if !has("docker-registry") || !has("skopeo") {
        return;
    }
    let world = World::new();
    let [source, destination] = ["source", "destination"].map(|name| Registry::start(&world, name, ""));
    let [from, to] = [&source, &destination].map(|registry| format!("docker://{}/a", registry.host));
    world.write("fill.toml", &policy(IMAGES, &from));
    world.dray(&["sync", "fill.toml"]).ok();
    world.write("policy.toml", &policy(&from, &to));
    world.dray(&["plan", "policy.toml", "--out", "plan.jsonl"]).ok();
    // Somebody writes to one tag of the destination, and moves another one of the source.
    let other = format!("{IMAGES}:nightly");
    world.dray(&["copy", "--all", &other, &format!("{to}:1.0.0")]).ok();
    world.dray(&["copy", "--all", &other, &format!("{from}:1.2.0")]).ok();
    let theirs = world.digest(&format!("{to}:1.0.0"), &["--tls-verify=false"]);
    let applied = world.dray(&["apply", "plan.jsonl", "--keep-going"]);
    assert_eq!(applied.code, 1);
    assert!(applied.out.contains("1 image copied, 0 unchanged, 2 failed"), "{}", applied.out);
    assert!(applied.err.contains(&format!("failed to copy to {to}:1.0.0: the plan saw")), "{}", applied.err);
    assert!(applied.err.contains(&format!("failed to copy {from}:1.2.0: the plan saw")), "{}", applied.err);
    assert_eq!(world.digest(&format!("{to}:1.0.0"), &["--tls-verify=false"]), theirs);
    let listed = world.dray(&["list-tags", &to]).ok();
    let tags: std::collections::BTreeSet<&str> = listed.out.lines().collect();
    assert!(tags.iter().eq(["1.0.0", "2.0.0"].iter()), "{tags:?}");
}

#[test]
fn a_plan_holds_for_its_policy_and_as_a_whole() {
    let world = World::new();
    let text = policy(IMAGES, "oci:mirror");
    world.write("policy.toml", &text);
    world.dray(&["plan", "policy.toml", "--out", "plan.jsonl"]).ok();
    let plan = fs::read_to_string(world.path("plan.jsonl")).unwrap();
    let refused = |name: &str, content: &str, why: &str| {
        world.write("changed.jsonl", content);
        let ran = world.dray(&["apply", "changed.jsonl"]);
        assert_eq!(ran.code, 2, "{name}: {}", ran.err);
        assert!(ran.err.contains(why), "{name}: {}", ran.err);
        assert!(!world.path("mirror").exists(), "{name}");
    };
    let last = plan.trim_end().rfind('\n').unwrap() + 1;
    refused("cut", &plan[..last], "it is cut off");
    refused("version", &plan.replacen("\"dray_plan\":1", "\"dray_plan\":9", 1), "has version 9");
    refused("item", &plan.replacen("\"action\":\"copy\"", "\"action\":\"burn\"", 1), "line 2");
    world.write("policy.toml", &format!("{text}# later\n"));
    refused("policy", &plan, "has changed since the plan was made");
    // Another place than the policy leads to is not written, whatever a plan says.
    world.write("policy.toml", &text);
    world.write("changed.jsonl", &plan.replace("oci:mirror:", "oci:elsewhere:"));
    let ran = world.dray(&["apply", "changed.jsonl", "--no-sandbox"]);
    assert_eq!(ran.code, 1, "{}", ran.err);
    assert!(ran.err.contains("the plan says that it is"), "{}", ran.err);
    assert!(!world.path("elsewhere").exists());
    let stdin = world.dray(&["plan", "-", "--out", "plan2.jsonl"]);
    assert_eq!(stdin.code, 2);
}
