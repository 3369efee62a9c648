//! What an image must fulfil beside signatures (`scan`, `age`), and filters by what a registry knows of its images.
#![allow(clippy::unwrap_used, clippy::print_stderr, reason = "tests")]

mod support;

use dray_core::Digest;
use serde_json::{Value, json};
use std::fs;
use support::{
    IMAGES, Ran, Registry, World,
    harbor::{Harbor, Known, LOGIN},
    has,
    memory::Memory,
};

fn ran(world: &World, arguments: &[&str]) -> Ran {
    Ran::of(world.command(arguments).env("HARBOR", LOGIN))
}

/// A Harbor with `team/app` and tags of these names, of each of which this is known.
fn harbor(images: &[(&str, Known)]) -> Harbor {
    let harbor = Harbor::start();
    for (tag, known) in images {
        let digest = harbor.registry.image("team/app", tag, format!("layer {tag}").as_bytes());
        harbor.known.lock().unwrap().insert(digest, known.clone());
    }
    harbor
}

fn policy(world: &World, harbor: &Harbor, more: &str) {
    let (auth, host) = (harbor.auth(), harbor.registry.host());
    let rule =
        format!("[[rule]]\nname = \"app\"\nfrom = \"docker://{host}/team/app\"\nto = \"oci:copy\"\n{more}\n");
    let _ = fs::remove_dir_all(world.path("copy"));
    world.write("dray.toml", &format!("version = 1\n{auth}{rule}"));
}

/// What a plan would copy.
fn copied(world: &World) -> Vec<String> {
    let plan = ran(world, &["plan", "--output", "json"]).ok().json();
    let copies = plan["copies"].as_array().unwrap().iter().filter(|copy| copy["action"] == "copy");
    let tag = |copy: &Value| copy["source"].as_str().unwrap().rsplit(':').next().unwrap().to_owned();
    let mut tags: Vec<String> = copies.map(tag).collect();
    tags.sort();
    tags
}

#[test]
fn filters_choose_by_what_harbor_knows() {
    let world = World::new();
    let known = |labels: &[&'static str], pushed, signed, found: Option<&[_]>| Known {
        labels: labels.to_vec(),
        pushed,
        signed,
        found: found.map(<[_]>::to_vec),
    };
    let harbor = harbor(&[
        ("old", known(&["release"], Some("2001-01-31T12:00:00.000Z"), true, Some(&[("CVE-1", "Critical")]))),
        (
            "new",
            known(&["release", "blue"], Some("2026-11-01T12:00:00.000Z"), false, Some(&[("CVE-2", "Low")])),
        ),
        ("bare", known(&[], None, true, None)),
    ]);
    for (filter, expected) in [
        ("{ filter = \"label\", label = \"release\" }", &["new", "old"][..]),
        ("{ filter = \"label\", label = [\"release\", \"blue\"] }", &["new"]),
        ("{ filter = \"label\", label = \"release\", exclude = true }", &["bare"]),
        ("{ filter = \"pushed\", before = \"8000d\" }", &["old"]),
        ("{ filter = \"pushed\", within = \"8000d\" }", &["bare", "new"]),
        ("{ filter = \"signed\" }", &["bare", "old"]),
        ("{ filter = \"signed\", exclude = true }", &["new"]),
        ("{ filter = \"scanned\", severity = \"high\" }", &["new"]),
        ("{ filter = \"scanned\", severity = \"low\", unscanned = \"keep\" }", &["bare"]),
    ] {
        policy(&world, &harbor, &format!("tags = [{filter}]"));
        let before = harbor.registry.asked().len();
        assert_eq!(copied(&world), expected, "{filter}");
        // One page of the API answers for all tags, whatever is asked.
        let asked = harbor.registry.asked().split_off(before);
        let knows = asked.iter().filter(|asked| asked.contains("with_scan_overview=true")).count();
        assert_eq!(knows, 1, "{filter} {asked:?}");
    }
    let wrong = "tags = [{ filter = \"scanned\", severity = \"none\" }]";
    policy(&world, &harbor, wrong);
    let checked = ran(&world, &["check"]);
    assert!(checked.code != 0 && checked.err.contains("severity"), "{}", checked.err);
}

#[test]
fn what_harbor_has_scanned_is_a_gate() {
    let world = World::new();
    let found =
        |found: &[(&'static str, &'static str)]| Known { found: Some(found.to_vec()), ..Known::default() };
    let harbor = harbor(&[
        ("bad", found(&[("CVE-2026-1", "High"), ("CVE-2026-2", "Low")])),
        ("good", found(&[("CVE-2026-2", "Low")])),
        ("unscanned", Known::default()),
    ]);
    policy(&world, &harbor, "require = [{ scan = { severity = \"high\" } }]");
    let synced = ran(&world, &["sync", "--output", "json"]);
    let report = synced.json();
    assert_eq!(
        (&report["summary"]["copied"], &report["summary"]["failed"]),
        (&json!(1), &json!(2)),
        "{report}"
    );
    for part in
        ["CVE-2026-1 in p (high)", "there is no report of a scanner", "the rule `app` demands scan of"]
    {
        assert!(synced.err.contains(part), "{part}\n{}", synced.err);
    }
    for (demand, expected) in [
        (
            "{ severity = \"high\", allow = [\"CVE-2026-1\"], unscanned = \"allow\" }",
            &["bad", "good", "unscanned"][..],
        ),
        ("{ severity = \"low\", unscanned = \"allow\" }", &["unscanned"]),
    ] {
        policy(&world, &harbor, &format!("on-refusal = \"skip\"\nrequire = [{{ scan = {demand} }}]"));
        assert_eq!(copied(&world), expected, "{demand}");
    }
    // What is left out is no failure, and the plan says why.
    policy(&world, &harbor, "on-refusal = \"skip\"\nrequire = [{ scan = {} }]");
    let plan = ran(&world, &["plan", "--explain"]).ok().out;
    assert!(
        plan.contains("- bad  ") && plan.contains("CVE-2026-1 in p (high) (dropped by require)"),
        "{plan}"
    );
    let synced = ran(&world, &["sync"]).ok();
    assert!(synced.out.contains("1 image copied, 0 unchanged, 2 refused, 0 failed"), "{}", synced.out);
    assert!(synced.err.contains(":bad: dropped by require: "), "{}", synced.err);
    let report = ran(&world, &["sync", "--output", "json"]).ok().json();
    let refused = report["copies"].as_array().unwrap().iter().filter(|copy| copy["action"] == "drop");
    assert_eq!((refused.count(), &report["summary"]["refused"]), (2, &json!(2)), "{report}");
}

#[test]
fn an_image_may_have_to_be_old_enough() {
    let world = World::new();
    let pushed = |pushed| Known { pushed: Some(pushed), ..Known::default() };
    let harbor =
        harbor(&[("old", pushed("2001-01-31T12:00:00.000Z")), ("new", pushed("2026-11-01T12:00:00.000Z"))]);
    policy(&world, &harbor, "on-refusal = \"skip\"\nrequire = [{ age = \"8000d\" }]");
    assert_eq!(copied(&world), ["old"]);
    policy(&world, &harbor, "require = [{ age = \"8000d\" }]");
    let failed = ran(&world, &["sync"]);
    assert!(failed.code == 1 && failed.err.contains("which is less than 8000d"), "{}", failed.err);
    policy(&world, &harbor, "require = [{ age = \"soon\" }]");
    let wrong = ran(&world, &["check"]);
    assert!(
        wrong.code != 0 && wrong.err.contains("age: ") && wrong.err.contains("\"soon\""),
        "{}",
        wrong.err
    );
    // Elsewhere an image's own word counts, because nobody else says anything.
    world.write(
        "dray.toml",
        &format!("version = 1\n[[rule]]\nfrom = \"{IMAGES}:1.0.0\"\nto = \"oci:young\"\nrequire = [{{ age = \"1m\" }}]\n"),
    );
    world.dray(&["sync"]).ok();
}

#[test]
fn a_report_is_attached_or_lies_in_a_folder() {
    if !has("docker-registry") {
        return;
    }
    let world = World::new();
    let registry = Registry::start(&world, "registry", "");
    let app = format!("docker://{}/app:1", registry.host);
    world.dray(&["copy", "--all", &format!("{IMAGES}:1.0.0"), &app]).ok();
    let digest = world.dray(&["inspect", "--output", "json", &app]).ok().json()["digest"].clone();
    let digest: Digest = digest.as_str().unwrap().parse().unwrap();
    let rule = format!(
        "version = 1\n[[rule]]\nname = \"app\"\nfrom = \"{app}\"\nto = \"oci:copy\"\nrequire = [{{ scan = {{}} }}]\n"
    );
    world.write("dray.toml", &rule);
    let unscanned = world.dray(&["sync"]);
    assert!(unscanned.code == 1 && unscanned.err.contains("there is no report"), "{}", unscanned.err);
    let missing = world.dray(&["sync", "--scan-report", "reports"]);
    assert!(missing.code != 0 && missing.err.contains("reports is no folder"), "{}", missing.err);
    let report = |severity: &str| {
        let of = json!({ "id": "CVE-2026-7", "severity": severity });
        let report = json!({ "matches": [{ "vulnerability": of, "artifact": { "name": "zlib" } }] });
        world.write(&format!("reports/sha256-{}.json", digest.hex()), &report.to_string());
    };
    report("Critical");
    let refused = world.dray(&["sync", "--scan-report", "reports"]);
    assert!(refused.code == 1 && refused.err.contains("CVE-2026-7 in zlib (critical)"), "{}", refused.err);
    report("Low");
    world.dray(&["sync", "--scan-report", "reports"]).ok();
    world.write(&format!("reports/sha256-{}.json", digest.hex()), "{}");
    fs::remove_dir_all(world.path("copy")).unwrap();
    let odd = world.dray(&["sync", "--scan-report", "reports"]);
    assert!(odd.code == 1 && odd.err.contains("a report of a scanner cannot be read"), "{}", odd.err);
}

#[test]
fn what_cosign_keeps_beneath_tags_arrives_before_its_image() {
    let world = World::new();
    let (source, destination) = (Memory::start(), Memory::start());
    let digest = source.image("app", "1.0", b"layer");
    let beneath = |kind: &str| format!("{}.{kind}", digest.replace(':', "-"));
    source.image("app", &beneath("sig"), b"signature");
    source.image("app", &beneath("att"), b"attestation");
    // One of an image that nobody wants.
    source.image("app", &format!("sha256-{}.sig", "0".repeat(64)), b"stray");
    let rule = format!(
        "version = 1\n[[rule]]\nfrom = \"docker://{}/app\"\nto = \"docker://{}/app\"\ntags = \"1.*\"\ncosign-tags = true\n",
        source.host(),
        destination.host()
    );
    world.write("dray.toml", &rule);
    let synced = world.dray(&["sync"]).ok();
    assert!(
        synced.out.contains("1 image copied") && !synced.err.contains("signatures of cosign"),
        "{}",
        synced.err
    );
    let puts: Vec<String> = destination
        .asked()
        .into_iter()
        .filter(|asked| asked.starts_with("PUT ") && asked.contains("/manifests/"))
        .collect();
    let at = |tag: &str| puts.iter().position(|put| put.ends_with(&format!("/{tag}")));
    let image = at("1.0").unwrap();
    for kind in ["sig", "att"] {
        assert!(at(&beneath(kind)).unwrap() < image, "{kind} {puts:?}");
    }
    assert_eq!(puts.iter().filter(|put| put.contains("0000")).count(), 0);
    assert!(world.dray(&["sync"]).ok().out.contains("0 images copied, 1 unchanged"));
    // A further signature lies beneath the same tag.
    let more = source.image("app", &beneath("sig"), b"two signatures");
    assert!(world.dray(&["sync"]).ok().out.contains("1 image copied"));
    assert!(destination.has("app", &more));
    assert!(world.dray(&["sync"]).ok().out.contains("0 images copied, 1 unchanged"));
}
