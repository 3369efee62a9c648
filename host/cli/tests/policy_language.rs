//! The policy's language as a user meets it: several files, variables, locks, and what a rule does where nothing matches
//! or a tag moves.
#![allow(clippy::unwrap_used, clippy::print_stderr, reason = "tests")]

mod support;

use std::fs;
use support::{IMAGES, World};

/// A policy in two files that copies the newest of version 1 and one literal tag.
fn world() -> World {
    let world = World::new();
    world.write(
        "dray.toml",
        "version = 1\ninclude = [\"team/*.toml\"]\n[vars]\nto = \"oci:${env:OUT:-mirror}\"\n[defaults.rule]\nplatforms = [\"amd64\"]\n",
    );
    world.write(
        "team/a.toml",
        &format!(
            "version = 1\n[[rule]]\nfrom = \"{IMAGES}\"\nto = \"${{to}}\"\ntags = {{ semver = \"1\", latest = 1, include = [\"nightly\"] }}\n"
        ),
    );
    world
}

#[test]
fn a_policy_of_several_files_is_found_in_the_folder() {
    let world = world();
    let resolved = world.dray(&["check", "--resolved"]).ok();
    for part in ["to = \"oci:mirror\"", "platforms = [\"linux/amd64\"]", "name = \"images\""] {
        assert!(resolved.out.contains(part), "{part}\n{}", resolved.out);
    }
    // What is printed is a policy that says the same.
    world.write("resolved.toml", &resolved.out);
    let plan = world.dray(&["plan", "--output", "json"]).ok();
    assert_eq!(world.dray(&["plan", "resolved.toml", "--output", "json"]).ok().out, plan.out);
    let copied: Vec<_> = plan.json()["copies"]
        .as_array()
        .unwrap()
        .iter()
        .filter(|copy| copy["action"] == "copy")
        .map(|copy| copy["destination"].as_str().unwrap().to_owned())
        .collect();
    assert_eq!(copied, ["oci:mirror:1.2.0", "oci:mirror:nightly"]);
    let mut elsewhere = world.command(&["sync"]);
    support::Ran::of(elsewhere.env("OUT", "other")).ok();
    assert!(world.path("other/index.json").exists() && !world.path("mirror").exists());
}

#[test]
fn a_mistake_is_shown_in_the_file_that_has_it() {
    let world = world();
    let text = fs::read_to_string(world.path("team/a.toml")).unwrap();
    world.write("team/b.toml", &text.replace("latest", "lastest"));
    let checked = world.dray(&["check"]);
    assert_eq!(checked.code, 2);
    for part in ["team/b.toml:5:", "`tags` has no key `lastest`", "did you mean `latest`?"] {
        assert!(checked.err.contains(part), "{part}\n{}", checked.err);
    }
    fs::remove_file(world.path("team/b.toml")).unwrap();
    fs::remove_file(world.path("team/a.toml")).unwrap();
    let checked = world.dray(&["check"]);
    assert_eq!(checked.code, 2);
    for part in ["dray.toml:2:", "`team/*.toml` names no file"] {
        assert!(checked.err.contains(part), "{part}\n{}", checked.err);
    }
}

#[test]
fn what_is_locked_is_copied_though_its_tag_has_moved() {
    let world = world();
    world.tool("cp", &["-r", &IMAGES["oci:".len()..], "images"]);
    let rule = fs::read_to_string(world.path("team/a.toml")).unwrap();
    world.write("team/a.toml", &rule.replace(IMAGES, "oci:images"));
    assert!(world.dray(&["sync", "--locked"]).err.contains("`dray lock` writes it"));
    let locked = world.dray(&["lock"]).ok();
    assert!(locked.out.contains("locks 2 tags"), "{}", locked.out);
    assert_eq!(world.dray(&["lock", "--check"]).code, 0);
    let named = |reference: &str| {
        let listed = world.dray(&["inspect", "--output", "json", reference]).ok().json();
        listed["Digest"].as_str().or(listed["digest"].as_str()).unwrap().to_owned()
    };
    let before = named("oci:images:nightly");
    world.dray(&["copy", "--all", "oci:images:2.0.0", "oci:images:nightly"]).ok();
    assert_ne!(named("oci:images:nightly"), before);
    let moved = world.dray(&["lock", "--check"]);
    assert_eq!(moved.code, 3, "{}", moved.err);
    assert!(moved.out.contains("~ oci:images:nightly"), "{}", moved.out);
    world.dray(&["sync", "--locked"]).ok();
    assert_eq!(named("oci:mirror:nightly"), before);
    // A lock looks at sources alone: a destination that refuses changes nothing, and a rule may match nothing.
    world.write("team/c.toml", "version = 1\n[[rule]]\nname = \"c\"\nfrom = \"oci:images\"\nto = \"docker://127.0.0.1:1/a\"\ntags = \"9.*\"\n");
    world.dray(&["lock"]).ok();
    assert_eq!(world.dray(&["plan", "--locked"]).ok().code, 0);
    fs::remove_file(world.path("team/c.toml")).unwrap();
    // A rule that was changed is not what was locked.
    let rule = fs::read_to_string(world.path("team/a.toml")).unwrap();
    world.write("team/a.toml", &rule.replace("latest = 1", "latest = 2"));
    let changed = world.dray(&["sync", "--locked"]);
    assert_eq!(changed.code, 2);
    assert!(changed.err.contains("has changed since it was locked"), "{}", changed.err);
    world.write("team/a.toml", &rule);
    // A rule that the lock does not know is no reason to copy what its tags name now.
    world.write(
        "team/b.toml",
        &rule.replace("${to}", "oci:new").replace("[[rule]]", "[[rule]]\nname = \"new\""),
    );
    let unknown = world.dray(&["sync", "--locked"]);
    assert_eq!(unknown.code, 2);
    assert!(unknown.err.contains("the rule `new` is not locked"), "{}", unknown.err);
}

#[test]
fn nothing_and_something_else_are_told() {
    let world = World::new();
    let policy =
        |rest: &str| format!("version = 1\n[[rule]]\nfrom = \"{IMAGES}\"\nto = \"oci:mirror\"\n{rest}\n");
    world.write("empty.toml", &policy("tags = \"v9.*\""));
    let empty = world.dray(&["sync", "empty.toml"]).ok();
    assert!(empty.err.contains("all of its 9 tags are dropped by the filters"), "{}", empty.err);
    world.write("empty.toml", &policy("tags = \"v9.*\"\non-empty = \"error\""));
    assert_eq!(world.dray(&["sync", "empty.toml"]).code, 1);
    // A tag that is not to move.
    world.write("keep.toml", &policy("tags = \"nightly\"\non-change = \"refuse\""));
    world.dray(&["sync", "keep.toml"]).ok();
    world.dray(&["sync", "keep.toml"]).ok();
    world.dray(&["copy", "--all", &format!("{IMAGES}:2.0.0"), "oci:mirror:nightly"]).ok();
    let refused = world.dray(&["sync", "keep.toml"]);
    assert_eq!(refused.code, 1);
    assert!(refused.err.contains("the rule does not let tags change"), "{}", refused.err);
    // One that is left alone is no failure, and the plan says so.
    world.write("keep.toml", &policy("tags = [\"nightly\", \"1.0.0\"]\non-change = \"keep\""));
    let kept = world.dray(&["sync", "keep.toml"]).ok();
    assert!(kept.out.contains("1 image copied, 1 unchanged"), "{}", kept.out);
    let plan = world.dray(&["plan", "--output", "json", "keep.toml"]).ok().json();
    let why = plan.to_string();
    assert!(why.contains("kept: the destination has"), "{why}");
    assert!(world.dray(&["inspect", "oci:mirror:nightly"]).ok().out.len() > 10);
    // Many tags do not fit into one.
    world.write("fixed.toml", &policy("tags = \"1.*\"").replace("oci:mirror", "oci:mirror:latest"));
    let fixed = world.dray(&["check", "fixed.toml"]);
    assert_eq!(fixed.code, 2);
    assert!(fixed.err.contains("would be written to the one tag `latest`"), "{}", fixed.err);
}

#[test]
fn repositories_of_a_glob_are_chosen_and_lose_components() {
    let world = World::new();
    for name in ["team/app", "team/old-app", "team/deep/app", "other/x"] {
        world.dray(&["copy", "--all", &format!("{IMAGES}:1.0.0"), &format!("oci:many:{name}:1")]).ok();
    }
    let policy =
        |to: &str, more: &str| format!("version = 1\n[[rule]]\nfrom = \"oci:many\"\nto = \"{to}\"\n{more}\n");
    let chosen = "repositories = { include = [\"team/**\"], exclude = [\"team/old-*\"] }";
    world.write("dray.toml", &policy("oci:out/{path|strip:1}", chosen));
    assert!(world.dray(&["sync"]).ok().out.contains("2 images copied"));
    assert!(world.path("out/app/index.json").exists() && world.path("out/deep/app/index.json").exists());
    assert!(!world.path("out/old-app").exists() && !world.path("out/x").exists());
    let shown = world.dray(&["check", "--resolved"]).ok().out;
    assert!(shown.contains("include") && shown.contains("team/old-*"), "{shown}");
    // A list is what is included.
    world.write("dray.toml", &policy("oci:two/{path}", "repositories = [\"other/*\"]"));
    assert!(world.dray(&["sync"]).ok().out.contains("1 image copied"));
    // What would become one name collides before anything is copied.
    let both = "repositories = [\"team/app\", \"team/deep/app\"]";
    world.dray(&["copy", "--all", &format!("{IMAGES}:1.1.0"), "oci:many:team/deep/app:1"]).ok();
    world.write("dray.toml", &policy("oci:three/{name}", both));
    let collide = world.dray(&["sync"]);
    assert!(collide.code == 1 && collide.err.contains("different content"), "{}", collide.err);
    assert!(!world.path("three").exists());
    // Too few components fail that repository, with the remedy; no glob and nothing chosen are found by check.
    world.write("dray.toml", &policy("oci:four/{path|strip:2}", chosen));
    let short = world.dray(&["sync"]);
    assert!(short.code == 1 && short.err.contains("takes away all of `team/app`"), "{}", short.err);
    for (text, why) in [
        (
            policy("oci:x", "repositories = [\"a\"]").replace("oci:many", "oci:many:team/app:1"),
            "`from` has none",
        ),
        (policy("oci:x", "repositories = {}"), "chooses nothing"),
        (policy("oci:x", "repositories = { exlude = [\"a\"] }"), "exlude"),
        (policy("oci:x/{path|strip:x}", ""), "stands for nothing"),
    ] {
        world.write("dray.toml", &text);
        let checked = world.dray(&["check"]);
        assert!(checked.code == 2 && checked.err.contains(why), "{why}: {}", checked.err);
    }
}

#[test]
fn images_are_taken_from_lists_and_manifests() {
    let world = World::new();
    let digest = format!("sha256:{}", "a".repeat(64));
    world.write(
        "dray.toml",
        "version = 1\n[[rule]]\nname = \"cluster\"\nimages-from = [\"images.txt\", \"k8s/*.yaml\", \"chart\"]\nto = \"docker://m.example/{registry}/{path}\"\n",
    );
    world.write("images.txt", &format!("# tools\nbusybox:1.36\nnginx:1.27@{digest}\n"));
    world.write("k8s/pod.yaml", "spec:\n  containers:\n  - image: registry.k8s.io/pause:3.10\n");
    world.write("chart/templates/web.yml", "image:\n  repository: ghcr.io/a/web\n  tag: v2\n");
    let resolved = world.dray(&["check", "--resolved"]).ok().out;
    for part in [
        "\"docker://docker.io/library/busybox:1.36\"",
        "\"docker://registry.k8s.io/pause:3.10\"",
        "\"docker://ghcr.io/a/web:v2\"",
        &format!("tags = [\"1.27@{digest}\"]"),
    ] {
        assert!(resolved.contains(part), "{part}\n{resolved}");
    }
    world.write("chart/templates/web.yml", "image: \"{{ .Values.image }}\"\n");
    let wrong = world.dray(&["check"]);
    assert_eq!(wrong.code, 2);
    for part in ["web.yml", "helm template", "dray.toml:4:"] {
        assert!(wrong.err.contains(part), "{part}\n{}", wrong.err);
    }
}

#[test]
fn a_lock_of_a_whole_archive_is_of_each_repository_in_it() {
    let world = World::new();
    for (image, to) in [("1.0.0", "oci-archive:b.tar:plain"), ("1.2.0", "oci-archive:b.tar:r.example/x/y:1")]
    {
        world.dray(&["copy", "--all", &format!("{IMAGES}:{image}"), to]).ok();
    }
    world.write("dray.toml", "version = 1\n[[rule]]\nfrom = \"oci-archive:b.tar\"\nto = \"oci:m/{path}\"\n");
    let planned = |arguments: &[&str]| {
        let plan = world.dray(&[&["plan", "--output", "json"], arguments].concat()).ok().json();
        let copies = plan["copies"].as_array().unwrap().iter();
        let mut copied: Vec<String> =
            copies.map(|copy| copy["destination"].as_str().unwrap().to_owned()).collect();
        copied.sort();
        copied
    };
    world.dray(&["lock"]).ok();
    assert_eq!(planned(&["--locked"]), planned(&[]));
    // A lock that names something else than its rule is refused.
    let lock = fs::read_to_string(world.path("dray.lock")).unwrap();
    world.write("dray.lock", &lock.replace("\"oci-archive:b.tar\"", "\"oci-archive:other.tar\""));
    let other = world.dray(&["plan", "--locked"]);
    assert_eq!(other.code, 2);
    assert!(other.err.contains("which the rule does not copy"), "{}", other.err);
    // A changed rule is no lock that holds, and CI hears of it.
    world.write("dray.lock", &lock);
    assert_eq!(world.dray(&["lock", "--check"]).ok().code, 0);
    world.write("dray.toml", "version = 1\n[[rule]]\nfrom = \"oci-archive:b.tar\"\nto = \"oci:n/{path}\"\n");
    assert_eq!(world.dray(&["lock", "--check"]).code, 3);
}

#[test]
fn a_tag_that_must_not_move_is_not_written_in_another_form_either() {
    let world = World::new();
    world.dray(&["copy", "--all", &format!("{IMAGES}:1.2.0"), "oci:m:1.2.0"]).ok();
    world.write(
        "dray.toml",
        &format!("version = 1\n[[rule]]\nfrom = \"{IMAGES}\"\nto = \"oci:m\"\ntags = [\"1.2.0\", \"1.1.0\"]\ncompression = \"zstd\"\non-change = \"refuse\"\n"),
    );
    let index = || fs::read_to_string(world.path("m/index.json")).unwrap();
    let before = index();
    let ran = world.dray(&["sync"]);
    assert_eq!(ran.code, 1);
    assert!(
        ran.err.contains("oci:m:1.2.0: it has ") && ran.out.contains("1 image copied"),
        "{}{}",
        ran.out,
        ran.err
    );
    let digest = before.split("sha256:").nth(1).unwrap().split('"').next().unwrap();
    assert!(index().contains(digest), "{}", index());
}

#[test]
fn the_name_of_a_file_steers_no_terminal() {
    let world = World::new();
    world.write("dray.toml", "version = 1\ninclude = [\"inc_*.toml\"]\n");
    world.write("inc_\u{1b}[31mRED\u{1b}]0;title\u{7}\n.toml", "version = 1\nruel = 1\n");
    let ran = world.dray(&["check"]);
    assert_eq!(ran.code, 2);
    assert!(!ran.err.contains('\u{1b}') && !ran.err.contains('\u{7}'), "{:?}", ran.err);
}

#[test]
fn a_plan_is_of_what_the_environment_made_of_its_policy() {
    let world = World::new();
    world.write(
        "dray.toml",
        &format!(
            "version = 1\n[[rule]]\nfrom = \"{IMAGES}\"\nto = \"oci:${{env:OUT:-m}}\"\ntags = \"1.2.0\"\n"
        ),
    );
    world.dray(&["plan", "--out", "plan.jsonl"]).ok();
    let mut elsewhere = world.command(&["apply", "plan.jsonl"]);
    let refused = support::Ran::of(elsewhere.env("OUT", "other"));
    assert!(
        refused.code == 2 && refused.err.contains("has changed since the plan was made"),
        "{}",
        refused.err
    );
    world.dray(&["apply", "plan.jsonl"]).ok();
}
