//! Order at the destination: `prune` with its guards, `backup`, `immutable`, and `dray runs undo`.
#![allow(clippy::unwrap_used, clippy::print_stderr, reason = "tests")]

mod support;

use serde_json::{Value, json};
use std::{net::TcpStream, sync::Mutex};
use support::{
    IMAGES, Killed, Registry, World, checked_lines, free_port, has,
    memory::{Asked, Held, Memory, Reply},
    until,
};

/// Ten tags of an image each or of the same: `t0` to `t4` are 1.0.0, and `t5` to `t9` are 2.0.0.
fn source(world: &World) -> &'static str {
    for number in 0..10 {
        let from = if number < 5 { "1.0.0" } else { "2.0.0" };
        world.dray(&["copy", "--all", &format!("{IMAGES}:{from}"), &format!("oci:source:t{number}")]).ok();
    }
    "oci:source"
}

/// dray's own registry, which removes tags alone.
fn embedded(world: &World) -> (Killed, String) {
    let address = format!("127.0.0.1:{}", free_port());
    let serve = ["registry", "serve", "--root", "mirror", "--addr", &address, "--allow-delete"];
    let registry = Killed::start(world.command(&serve));
    until("the registry", || TcpStream::connect(&address).is_ok());
    (registry, address)
}

fn policy(world: &World, from: &str, to: &str, more: &str) {
    let text = format!("version = 1\n[[rule]]\nname = \"all\"\nfrom = \"{from}\"\nto = \"{to}\"\n{more}\n");
    world.write("dray.toml", &text);
}

/// The tags of a repository, as skopeo lists them.
fn tags(world: &World, repository: &str) -> Vec<String> {
    let listed = world.tool("skopeo", &["list-tags", "--tls-verify=false", repository]);
    let listed: Value = serde_json::from_str(&listed).unwrap();
    let tags = listed["Tags"].as_array().unwrap().iter().map(|tag| tag.as_str().unwrap().to_owned());
    let mut tags: Vec<String> = tags.collect();
    tags.sort();
    tags
}

fn last_run(world: &World) -> String {
    world.dray(&["runs", "--output", "json"]).ok().json()[0]["id"].to_string()
}

/// What a plan would delete.
fn due(world: &World, more: &[&str]) -> Vec<String> {
    let plan = world.dray(&[&["plan", "--output", "json"], more].concat()).json();
    let copies = plan["copies"].as_array().unwrap().iter();
    let deleted = copies.filter(|copy| copy["action"] == "delete");
    deleted.map(|copy| copy["destination"].as_str().unwrap().to_owned()).collect()
}

fn prunes_and_undoes(world: &World, repository: &str) {
    let from = source(world);
    policy(world, from, repository, "prune = true");
    assert!(world.dray(&["sync"]).ok().out.contains("10 images copied, 0 unchanged, 0 failed"));
    // Of these, dray wrote none: one is new, and one was written over.
    let other = format!("{IMAGES}:nightly");
    for tag in ["mine", "t9"] {
        world.tool(
            "skopeo",
            &["copy", "--all", "--dest-tls-verify=false", &other, &format!("{repository}:{tag}")],
        );
    }
    let before = world.digest(&format!("{repository}:t0"), &[]);
    for tag in ["t0", "t9"] {
        world.dray(&["delete", &format!("{from}:{tag}")]).ok();
    }
    assert_eq!(due(world, &[]), [format!("{repository}:t0")]);
    let plan = world.dray(&["plan"]).ok().out;
    assert!(plan.contains("  x t0  delete sha256:") && plan.contains(", 1 tag to delete, "), "{plan}");
    let report = world.dray(&["sync", "--output", "json"]).ok().json();
    assert_eq!((&report["summary"]["deleted"], &report["summary"]["failed"]), (&json!(1), &json!(0)));
    let left = ["mine", "t1", "t2", "t3", "t4", "t5", "t6", "t7", "t8", "t9"];
    assert_eq!(tags(world, repository), left);
    // Tags that name the same image still do, and can be pulled whole.
    assert_eq!(world.digest(&format!("{repository}:t1"), &[]), before);
    world.tool(
        "skopeo",
        &["copy", "--all", "--src-tls-verify=false", &format!("{repository}:t1"), "oci:pulled:1"],
    );
    // A second run has nothing to do.
    assert!(world.dray(&["sync"]).ok().out.contains("0 images copied, 8 unchanged, 0 failed"));

    // The run is known by what it deleted, and is undone; and the undoing, too.
    let runs = world.dray(&["runs", "--output", "json"]).ok().json();
    let deleting = runs.as_array().unwrap().iter().find(|run| run["summary"]["deleted"] == 1).unwrap();
    let number = deleting["id"].to_string();
    let dry = world.dray(&["runs", "undo", "--dry-run", &number]).ok();
    assert!(dry.out.contains("1 tag would be put back"), "{}", dry.out);
    assert_eq!(tags(world, repository), left);
    let undone = world.dray(&["runs", "undo", &number]).ok();
    assert!(undone.out.contains("1 tag put back, 0 as it was, 0 failed"), "{}", undone.out);
    assert_eq!(world.digest(&format!("{repository}:t0"), &[]), before);
    assert!(world.dray(&["runs", "undo", &number]).ok().out.contains("0 tags put back, 1 as it was"));
    // What was put back was not copied from the source, so it is not deleted again.
    assert_eq!(due(world, &[]), [""; 0]);
}

#[test]
fn what_the_source_no_longer_has_goes_where_only_images_can_be_deleted() {
    if !has("docker-registry") || !has("skopeo") {
        return;
    }
    let world = World::new();
    let registry = Registry::start(&world, "registry", "");
    prunes_and_undoes(&world, &format!("docker://{}/team/app", registry.host));
}

#[test]
fn what_the_source_no_longer_has_goes_where_tags_can_be_deleted() {
    if !has("skopeo") {
        return;
    }
    let world = World::new();
    let (_registry, address) = embedded(&world);
    prunes_and_undoes(&world, &format!("docker://{address}/team/app"));
}

#[test]
fn the_guards_of_prune_hold() {
    if !has("skopeo") {
        return;
    }
    let world = World::new();
    let (_registry, address) = embedded(&world);
    let repository = format!("docker://{address}/app");
    let from = source(&world);
    policy(&world, from, &repository, "prune = true\nprotect = [\"t1\"]");
    world.dray(&["sync"]).ok();
    for tag in ["t0", "t1", "t2", "t3"] {
        world.dray(&["delete", &format!("{from}:{tag}")]).ok();
    }
    // Three of ten are more than a fifth; `t1` is protected.
    let refused = world.dray(&["sync"]);
    assert_eq!(refused.code, 1, "{}", refused.out);
    for part in ["no longer has 3 of its 9 tags", "--prune-limit 3"] {
        assert!(refused.err.contains(part), "{part}\n{}", refused.err);
    }
    assert_eq!(tags(&world, &repository).len(), 10);
    assert_eq!(due(&world, &["--prune-limit", "2"]).len(), 0);
    assert_eq!(due(&world, &["--prune-limit", "3"]).len(), 3);
    // A plan that was reviewed is carried out as it is.
    world.dray(&["plan", "--prune-limit", "3", "--out", "plan.jsonl"]).ok();
    checked_lines("plan.schema.json", std::fs::read_to_string(world.path("plan.jsonl")).unwrap().lines());
    let applied = world.dray(&["apply", "plan.jsonl"]).ok();
    assert!(applied.out.contains("3 tags deleted"), "{}", applied.out);
    assert_eq!(tags(&world, &repository), ["t1", "t4", "t5", "t6", "t7", "t8", "t9"]);
    // Again: it is gone already.
    assert!(world.dray(&["apply", "plan.jsonl"]).ok().out.contains("3 unchanged, 0 failed"));

    // A list that is shorter by half may be wrong, whatever the limit is.
    for tag in ["t4", "t5", "t6", "t7", "t8"] {
        world.dray(&["delete", &format!("{from}:{tag}")]).ok();
    }
    let shrunk = world.dray(&["sync", "--prune-limit", "9"]);
    assert!(shrunk.code == 1 && shrunk.err.contains("lists 1 tag where it listed 10"), "{}", shrunk.err);
    // And once more, because what was refused is not remembered as usual.
    assert_eq!(world.dray(&["sync", "--prune-limit", "9"]).code, 1);
    // Nothing is deleted for a rule of which something failed.
    policy(
        &world,
        from,
        &repository,
        "prune = true\nprune-limit = \"all\"\n[[rule]]\nname = \"all-2\"\nfrom = \"oci:nothing\"\nto = \"oci:other\"",
    );
    let other = world.dray(&["sync"]);
    assert!(other.code == 1 && other.out.contains("6 tags deleted"), "{}\n{}", other.out, other.err);
    assert_eq!(tags(&world, &repository), ["t9"]);
    // Everything goes only by an express word.
    world.dray(&["delete", &format!("{from}:t9")]).ok();
    policy(&world, from, &repository, "prune = true\nprune-limit = 5");
    assert_eq!(world.dray(&["sync"]).code, 1);
    assert_eq!(tags(&world, &repository), ["t9"]);
}

#[test]
fn a_tag_that_another_rule_writes_stays() {
    if !has("skopeo") {
        return;
    }
    let world = World::new();
    let (_registry, address) = embedded(&world);
    let repository = format!("docker://{address}/app");
    let from = source(&world);
    let rules = |more: &str| {
        format!(
            "version = 1\n[[rule]]\nname = \"many\"\nfrom = \"{from}\"\nto = \"{repository}\"\nprune = \"all\"\nprune-limit = \"all\"\n\
             [[rule]]\nname = \"one\"\nfrom = \"{IMAGES}\"\nto = \"{repository}\"\ntags = [\"nightly\"]\n{more}"
        )
    };
    world.write("dray.toml", &rules(""));
    world.dray(&["sync"]).ok();
    assert!(tags(&world, &repository).contains(&"nightly".to_owned()));
    world.dray(&["delete", &format!("{from}:t3")]).ok();
    assert_eq!(due(&world, &[]), [format!("{repository}:t3")]);
    // Alone, the first rule does not know what the second one writes.
    let alone = world.dray(&["sync", "--rule", "many"]);
    assert!(alone.code == 1 && alone.err.contains("the rule `one` may write there, too"), "{}", alone.err);
    // Where one of them cannot be listed, nothing is deleted.
    let unlisted = format!("[[rule]]\nname = \"gone\"\nfrom = \"oci:nowhere\"\nto = \"{repository}\"\n");
    world.write("dray.toml", &rules(&unlisted));
    let failed = world.dray(&["sync"]);
    assert!(failed.code == 1 && failed.err.contains("not all that it gets is known"), "{}", failed.err);
    assert!(tags(&world, &repository).contains(&"t3".to_owned()));
    world.write("dray.toml", &rules(""));
    assert!(world.dray(&["sync"]).ok().out.contains("1 tag deleted"));
    // With "all", a tag that somebody else wrote goes, too, if the rule would have chosen it.
    world.dray(&["copy", "--all", &format!("{IMAGES}:1.1.0"), &format!("{repository}:stray")]).ok();
    assert_eq!(due(&world, &[]), [format!("{repository}:stray")]);
}

#[test]
fn a_repository_that_is_gone_as_a_whole_is_only_emptied_by_an_express_word() {
    if !has("skopeo") {
        return;
    }
    let world = World::new();
    let (_registry, address) = embedded(&world);
    for name in ["a", "b", "c"] {
        for tag in ["1.0.0", "2.0.0"] {
            world
                .dray(&[
                    "copy",
                    "--all",
                    &format!("{IMAGES}:{tag}"),
                    &format!("registry-storage:[src]{name}:{tag}"),
                ])
                .ok();
        }
    }
    let to = format!("docker://{address}/copy/{{path}}");
    policy(&world, "registry-storage:[src]**", &to, "prune = true");
    world.dray(&["sync"]).ok();
    std::fs::remove_dir_all(world.path("src/docker/registry/v2/repositories/b")).unwrap();
    let b = format!("docker://{address}/copy/b");
    let refused = world.dray(&["sync"]);
    assert!(refused.code == 1 && refused.err.contains("lists 0 tags where it listed 2"), "{}", refused.err);
    assert_eq!(tags(&world, &b).len(), 2);
    let report = world.dray(&["sync", "--prune-limit", "all", "--output", "json"]).ok().json();
    assert_eq!(report["summary"]["deleted"], 2);
    assert_eq!(tags(&world, &format!("docker://{address}/copy/a")).len(), 2);
    // A catalog that has lost most of them may be wrong.
    std::fs::remove_dir_all(world.path("src/docker/registry/v2/repositories/a")).unwrap();
    std::fs::remove_dir_all(world.path("src/docker/registry/v2/repositories/c")).unwrap();
    world.dray(&["copy", "--all", &format!("{IMAGES}:1.0.0"), "registry-storage:[src]new:1"]).ok();
    let wrong = world.dray(&["sync", "--prune-limit", "all"]);
    assert!(wrong.code == 1 && wrong.err.contains("the catalog no longer lists 2 of 2"), "{}", wrong.err);
    assert_eq!(tags(&world, &format!("docker://{address}/copy/a")).len(), 2);
}

#[test]
fn what_is_replaced_is_kept_under_another_tag() {
    if !has("docker-registry") || !has("skopeo") {
        return;
    }
    let world = World::new();
    let registry = Registry::start(&world, "registry", "");
    let repository = format!("docker://{}/app", registry.host);
    let set = |tag: &str, from: &str| {
        world.dray(&["copy", "--all", &format!("{IMAGES}:{from}"), &format!("oci:source:{tag}")]).ok();
    };
    for tag in ["latest", "a", "b", "c", "d", "e"] {
        set(tag, "1.0.0");
    }
    policy(&world, "oci:source", &repository, "prune = true\nbackup = \"{tag}-before-{date}\"");
    world.dray(&["sync"]).ok();
    let first = world.digest(&format!("{repository}:latest"), &[]);
    set("latest", "1.1.0");
    let plan = world.dray(&["plan"]).ok().out;
    assert!(plan.contains("backed up as {tag}-before-{date}"), "{plan}");
    world.dray(&["sync"]).ok();
    let second = world.digest(&format!("{repository}:latest"), &[]);
    // Twice on one day: the first backup stays what it is.
    set("latest", "2.0.0");
    world.dray(&["sync"]).ok();
    let run = last_run(&world);
    world.dray(&["delete", "oci:source:a"]).ok();
    world.dray(&["sync", "--prune-limit", "1"]).ok();
    let there = tags(&world, &repository);
    let kept = |start: &str| -> Vec<&String> { there.iter().filter(|tag| tag.starts_with(start)).collect() };
    let [older, newer] = kept("latest-before-2")[..] else { panic!("{there:?}") };
    assert_eq!(world.digest(&format!("{repository}:{older}"), &[]), first);
    assert_eq!(world.digest(&format!("{repository}:{newer}"), &[]), second);
    assert!(newer.ends_with("-2"), "{newer}");
    let [deleted] = kept("a-before-")[..] else { panic!("{there:?}") };
    assert_eq!(world.digest(&format!("{repository}:{deleted}"), &[]), first);
    assert!(!there.contains(&"a".to_owned()), "{there:?}");
    // Backups are nobody's at the source, and stay.
    assert_eq!(due(&world, &[]), [""; 0]);
    let undone = world.dray(&["runs", "undo", "--output", "json", &run]).ok().json();
    assert_eq!(undone["tags"][0]["action"], "put-back", "{undone}");
    assert_eq!(world.digest(&format!("{repository}:latest"), &[]), second);
    // Somebody else's change is not undone.
    world.dray(&["sync"]).ok();
    world.dray(&["copy", "--all", &format!("{IMAGES}:nightly"), &format!("{repository}:latest")]).ok();
    let late = world.dray(&["runs", "undo", &run]);
    assert!(late.code == 1 && late.err.contains("somebody else has changed it since"), "{}", late.err);
}

/// Harbor's answer to a push of a tag that a rule of the project makes immutable (its `src/server/middleware/immutable`).
fn immutable(asked: &Asked, _: &Mutex<Held>) -> Option<Reply> {
    let is_push = asked.method == "PUT" && asked.path.ends_with("/manifests/fixed");
    is_push.then(|| {
        let text = "Failed to process request due to 'app:fixed' configured as immutable.";
        let errors = json!({ "errors": [{ "code": "PRECONDITION", "message": text }] });
        ("412 Precondition Failed", String::new(), errors.to_string().into_bytes())
    })
}

#[test]
fn a_tag_that_never_changes_fails_or_is_left() {
    let world = World::new();
    let memory = Memory::odd(immutable);
    let repository = format!("docker://{}/app", memory.host());
    world.dray(&["copy", "--all", &format!("{IMAGES}:1.0.0"), "oci:source:fixed"]).ok();
    world.dray(&["copy", "--all", &format!("{IMAGES}:1.0.0"), "oci:source:free"]).ok();
    policy(&world, "oci:source", &repository, "");
    let failed = world.dray(&["sync"]);
    assert!(failed.code == 1 && failed.err.contains("configured as immutable"), "{}", failed.err);
    policy(&world, "oci:source", &repository, "immutable = \"skip\"");
    let report = world.dray(&["sync", "--output", "json"]).ok().json();
    let copies = report["copies"].as_array().unwrap();
    let fixed = copies.iter().find(|copy| copy["destination"].as_str().unwrap().ends_with(":fixed")).unwrap();
    assert_eq!(
        (&fixed["action"], &fixed["reason"]),
        (&json!("unchanged"), &json!("kept: the destination lets the tag never change"))
    );
}

#[test]
fn what_prune_cannot_know_is_said_before_anything_moves() {
    let world = World::new();
    for (from, to, more, part) in [
        ("docker://r.example/a", "docker://m.example/a:{tag}-x", "prune = true", "`to` has {tag}"),
        ("docker://r.example/a:1", "docker://m.example/a:1", "prune = true", "without a tag of its own"),
        (
            "docker://r.example/a",
            "docker://m.example/a",
            "prune = \"own\"",
            "`prune` is true, false or \"all\"",
        ),
        (
            "docker://r.example/a",
            "docker://m.example/a",
            "prune-limit = -1",
            "`prune-limit` is a number of tags",
        ),
        ("docker://r.example/a", "docker://m.example/a", "backup = \"old\"", "`backup` needs {tag}"),
        ("docker://r.example/a", "docker://m.example/a", "backup = \"{tag}\"", "names the tag itself"),
        ("docker://r.example/a", "docker://m.example/a", "backup = \"{tag}/x\"", "which is no tag"),
        (
            "docker://r.example/a",
            "docker://m.example/a",
            "backup = \"{tag}-{day}\"",
            "{date}, {time} and {digest}",
        ),
        ("docker://r.example/a", "docker://m.example/a", "immutable = \"leave\"", "\"fail\" and \"skip\""),
    ] {
        policy(&world, from, to, more);
        let checked = world.dray(&["check"]);
        assert!(checked.code != 0 && checked.err.contains(part), "{part}\n{}", checked.err);
    }
    // No journal tells who wrote to a layout.
    source(&world);
    policy(&world, "oci:source", "oci:mirror", "prune = true");
    let unknown = world.dray(&["sync"]);
    assert!(unknown.code != 0 && unknown.err.contains("no journal tells"), "{}", unknown.err);
    policy(&world, "oci:source", "oci:mirror", "prune = \"all\"");
    world.dray(&["sync"]).ok();
    world.dray(&["delete", "oci:source:t0"]).ok();
    assert!(world.dray(&["sync"]).ok().out.contains("1 tag deleted"));
    let left = world.dray(&["list-tags", "oci:mirror"]).ok().out;
    assert!(!left.contains("t0") && left.contains("t1"), "{left}");
}

/// Deletes as docker-registry 2.8 does: whole images by their digests, and no single tags.
fn deletes_images(asked: &Asked, held: &Mutex<Held>) -> Option<Reply> {
    let (repository, reference) = asked.path.strip_prefix("/v2/")?.split_once("/manifests/")?;
    if asked.method != "DELETE" {
        return None;
    }
    if !reference.contains(':') {
        let errors =
            json!({ "errors": [{ "code": "UNSUPPORTED", "message": "The operation is unsupported." }] });
        return Some(("405 Method Not Allowed", String::new(), errors.to_string().into_bytes()));
    }
    let mut held = held.lock().unwrap();
    let is_it = |body: &[u8]| dray_core::Digest::of(body).to_string() == reference;
    let before = held.manifests.len();
    held.manifests.retain(|(of, _), (_, body)| of != repository || !is_it(body));
    let gone = held.manifests.len() < before;
    Some((if gone { "202 Accepted" } else { "404 Not Found" }, String::new(), Vec::new()))
}

/// A source with tags of one image each, a destination that has them, and a rule that prunes.
fn mirrored(world: &World, destination: &Memory, tags: &[(&str, &str)]) -> Memory {
    let source = Memory::start();
    for (tag, layer) in tags {
        source.image("app", tag, layer.as_bytes());
    }
    let (from, to) =
        (format!("docker://{}/app", source.host()), format!("docker://{}/app", destination.host()));
    policy(world, &from, &to, "prune = true\nprune-limit = 3");
    world.dray(&["sync"]).ok();
    source
}

fn forget(memory: &Memory, tag: &str) {
    memory.held.lock().unwrap().manifests.remove(&("app".into(), tag.into())).unwrap();
}

/// What a tag names, and whether that is a placeholder.
fn named(memory: &Memory, tag: &str) -> Option<bool> {
    let held = memory.held.lock().unwrap();
    let (_, body) = held.manifests.get(&("app".to_owned(), tag.to_owned()))?;
    Some(String::from_utf8_lossy(body).contains("dev.dray.placeholder"))
}

#[test]
fn an_image_within_an_index_of_an_index_stays() {
    let world = World::new();
    let destination = Memory::odd(deletes_images);
    let source = Memory::start();
    let index = |memory: &Memory, tag: &str, of: &str, media_type: &str, size: usize| {
        let kind = "application/vnd.oci.image.index.v1+json";
        let body = json!({
            "schemaVersion": 2, "mediaType": kind,
            "manifests": [{ "mediaType": media_type, "digest": of, "size": size }],
        });
        let body = body.to_string();
        (memory.put("app", tag, kind, body.as_bytes()), body.len(), kind)
    };
    let image = source.image("app", "single", b"layer");
    source.image("app", "other", b"another layer");
    let size = source.held.lock().unwrap().manifests[&("app".to_owned(), image.clone())].1.len();
    let (inner, size, kind) = index(&source, "inner", &image, support::memory::MANIFEST, size);
    index(&source, "bundle", &inner, kind, size);
    // Only its digest leads to the inner index.
    forget(&source, "inner");
    let (from, to) =
        (format!("docker://{}/app", source.host()), format!("docker://{}/app", destination.host()));
    policy(&world, &from, &to, "prune = true\nprune-limit = 1");
    world.dray(&["sync"]).ok();
    forget(&source, "single");
    assert!(world.dray(&["sync"]).ok().out.contains("1 tag deleted"));
    assert_eq!(named(&destination, "single"), None);
    assert!(destination.has("app", &image));
    world.dray(&["copy", "--all", &format!("{to}:bundle"), "oci:whole:1"]).ok();
}

#[test]
fn a_registry_that_only_says_that_it_deletes_keeps_its_tags_and_is_told_of() {
    let world = World::new();
    let lies = |asked: &Asked, _: &Mutex<Held>| {
        (asked.method == "DELETE").then(|| ("202 Accepted", String::new(), Vec::new()))
    };
    let destination = Memory::odd(lies);
    // One image is named by two tags, and another one by one.
    let tags = [("same", "x"), ("too", "x"), ("alone", "y"), ("b", "z"), ("c", "z")];
    let source = mirrored(&world, &destination, &tags);
    for tag in ["same", "alone"] {
        forget(&source, tag);
    }
    let synced = world.dray(&["sync"]);
    assert_eq!(synced.code, 1, "{}", synced.out);
    assert!(synced.err.contains("accepted that, and still has it"), "{}", synced.err);
    assert_eq!((named(&destination, "same"), named(&destination, "alone")), (Some(false), Some(false)));
}

#[test]
fn what_a_killed_run_left_of_a_deletion_is_finished_or_undone() {
    let world = World::new();
    let held_back = std::sync::Arc::new(std::sync::atomic::AtomicUsize::new(usize::MAX));
    let left = held_back.clone();
    let destination = Memory::odd(move |asked, held| {
        use std::sync::atomic::Ordering;
        // The second deletion of a digest is the one after the tag was given the placeholder.
        if asked.method == "DELETE"
            && asked.path.contains("sha256")
            && left.load(Ordering::SeqCst) != usize::MAX
            && left.fetch_sub(1, Ordering::SeqCst) == 0
        {
            std::thread::sleep(std::time::Duration::from_secs(60));
        }
        deletes_images(asked, held)
    });
    let tags = [("same", "x"), ("too", "x"), ("third", "x"), ("b", "y"), ("c", "z")];
    let source = mirrored(&world, &destination, &tags);
    let image = world.digest(&format!("docker://{}/app:too", destination.host()), &[]);
    let killed = |tag: &str| {
        forget(&source, tag);
        held_back.store(1, std::sync::atomic::Ordering::SeqCst);
        let run = Killed::start(world.command(&["sync"]));
        until("the placeholder", || named(&destination, tag) == Some(true));
        std::thread::sleep(std::time::Duration::from_millis(300));
        drop(run);
        held_back.store(usize::MAX, std::sync::atomic::Ordering::SeqCst);
    };
    killed("same");
    // The next run knows it as its own.
    assert!(world.dray(&["sync"]).ok().out.contains("1 tag deleted"));
    assert_eq!(named(&destination, "same"), None);
    assert!(destination.has("app", &image));
    // Or the run is undone.
    killed("third");
    let undone = world.dray(&["runs", "undo", &last_run(&world)]).ok();
    assert!(undone.out.contains("1 tag put back"), "{}", undone.out);
    assert_eq!(named(&destination, "third"), Some(false));
}

#[test]
fn only_tags_of_the_same_name_are_known_to_be_gone() {
    let world = World::new();
    let destination = Memory::odd(deletes_images);
    let tags: Vec<(String, String)> =
        (0..6).map(|number| (format!("1.{number}"), format!("{number}"))).collect();
    let tags: Vec<(&str, &str)> = tags.iter().map(|(tag, layer)| (tag.as_str(), layer.as_str())).collect();
    let source = mirrored(&world, &destination, &tags);
    // A promotion has a name that the source never had.
    let (from, to) =
        (format!("docker://{}/app", source.host()), format!("docker://{}/app", destination.host()));
    world.dray(&["copy", &format!("{from}:1.0"), &format!("{to}:production")]).ok();
    forget(&source, "1.5");
    assert_eq!(due(&world, &[]), [format!("{to}:1.5")]);
    world.dray(&["sync"]).ok();
    // A tag that was deleted and came again is dray's again.
    source.image("app", "1.5", b"5");
    world.dray(&["sync"]).ok();
    forget(&source, "1.5");
    assert_eq!(due(&world, &[]), [format!("{to}:1.5")]);
    // A plan that has become old deletes nothing that came again.
    world.dray(&["plan", "--out", "old.jsonl"]).ok();
    source.image("app", "1.5", b"5");
    let applied = world.dray(&["apply", "old.jsonl"]);
    assert!(applied.code == 1 && applied.err.contains("is there again"), "{}", applied.err);
    assert_eq!(named(&destination, "1.5"), Some(false));
    // Nor does a plan in which the rule failed in part.
    forget(&source, "1.5");
    source
        .held
        .lock()
        .unwrap()
        .manifests
        .insert(("app".into(), "bad".into()), ("text/plain".into(), b"x".to_vec()));
    assert_eq!(world.dray(&["plan", "--out", "partly.jsonl"]).code, 1);
    let applied = world.dray(&["apply", "partly.jsonl"]);
    assert!(applied.code == 1 && applied.err.contains("failed in part"), "{}", applied.err);
    assert_eq!(named(&destination, "1.5"), Some(false));
}

#[test]
fn the_guards_count_what_all_rules_would_delete_and_looking_changes_nothing() {
    let world = World::new();
    let destination = Memory::odd(deletes_images);
    let sources: Vec<Memory> = (0..3).map(|_| Memory::start()).collect();
    let mut text = String::from("version = 1\n");
    for (number, source) in sources.iter().enumerate() {
        for tag in 0..4 {
            source.image("app", &format!("{number}.{tag}"), format!("{number} {tag}").as_bytes());
        }
        text.push_str(&format!(
            "[[rule]]\nname = \"r{number}\"\nfrom = \"docker://{}/app\"\nto = \"docker://{}/app\"\nprune = true\n",
            source.host(),
            destination.host()
        ));
    }
    world.write("dray.toml", &text);
    world.dray(&["sync"]).ok();
    // Of each source one is gone: each for itself, they are less than a fifth of twelve.
    for (number, source) in sources.iter().enumerate() {
        forget(source, &format!("{number}.0"));
    }
    let refused = world.dray(&["sync"]);
    assert!(refused.code == 1 && refused.err.contains("no longer has 3 of its 12 tags"), "{}", refused.err);
    assert!(world.dray(&["sync", "--prune-limit", "3"]).ok().out.contains("3 tags deleted"));
    // A source that lists less than half may be broken, and a look at what would happen does not make that usual.
    for tag in ["0.1", "0.2"] {
        forget(&sources[0], tag);
    }
    let shrunk = || world.dray(&["sync", "--prune-limit", "5"]);
    assert!(shrunk().err.contains("lists 1 tag where it listed 3"), "{}", shrunk().err);
    assert_eq!(due(&world, &["--prune-limit", "all"]).len(), 2);
    assert!(shrunk().code == 1 && named(&destination, "0.1").is_some());
    // A rule that is left out may write to a tag of its own.
    let more = format!(
        "[[rule]]\nname = \"fixed\"\nfrom = \"docker://{}/app:1.1\"\nto = \"docker://{}/app:stable\"\n",
        sources[1].host(),
        destination.host()
    );
    world.write("dray.toml", &(text.clone() + &more));
    let alone = world.dray(&["sync", "--rule", "r0", "--prune-limit", "all"]);
    assert!(alone.code == 1 && alone.err.contains("the rule `"), "{}", alone.err);
    // What a rule says of itself is stronger than the flag.
    world.write("dray.toml", &text.replace("prune = true", "prune = false"));
    assert_eq!(due(&world, &["--prune", "--prune-limit", "all"]), [""; 0]);
}

#[test]
fn what_nothing_keeps_is_deleted_by_an_express_word() {
    if !has("skopeo") {
        return;
    }
    let world = World::new();
    let (_registry, address) = embedded(&world);
    let repository = format!("docker://{address}/team/app");
    for tag in ["1.0", "1.1", "1.2", "1.3", "2.0-rc", "latest", "old"] {
        world.dray(&["copy", "--all", &format!("{IMAGES}:1.0.0"), &format!("{repository}:{tag}")]).ok();
    }
    let write = |keep: &str| {
        let text = format!(
            "version = 1\n[[retain]]\nname = \"apps\"\nat = \"docker://{address}/team/*\"\nkeep = {keep}\nbackup = \"{{tag}}-kept-{{date}}\"\n"
        );
        world.write("dray.toml", &text);
    };
    write("[{ semver = \">=1\", latest = 2 }, \"latest\", \"*-rc\"]");
    let checked = world.dray(&["check", "--resolved"]).ok();
    assert!(checked.out.contains("[[retain]]") && checked.out.contains("\"latest\""), "{}", checked.out);
    // More than a fifth would go.
    let refused = world.dray(&["retain"]);
    assert!(refused.code == 1 && refused.out.contains("nothing keeps 3 of its 7 tags"), "{}", refused.out);
    let plan = world.dray(&["retain", "--limit", "3"]).ok().out;
    for part in ["x 1.0 ", "x 1.1 ", "x old ", "nothing keeps it", "3 tags to delete"] {
        assert!(plan.contains(part), "{part}\n{plan}");
    }
    assert!(plan.starts_with(&format!("apps: {repository}\n")), "{plan}");
    assert_eq!(tags(&world, &repository).len(), 7);
    let done = world.dray(&["retain", "--apply", "--limit", "3", "--output", "json"]).ok().json();
    assert_eq!(done["summary"]["deleted"], 3, "{done}");
    let left = tags(&world, &repository);
    assert!(
        left.iter().filter(|tag| !tag.contains("-kept-")).eq(["1.2", "1.3", "2.0-rc", "latest"].iter()),
        "{left:?}"
    );
    // The backups are kept, and a second time nothing is to be done.
    assert_eq!(left.len(), 7);
    assert!(world.dray(&["retain", "--apply"]).ok().out.contains("0 unchanged, 0 failed"));
    // A filter that chooses nothing would delete everything.
    write("[{ match = \"nothing-*\" }]");
    let all = world.dray(&["retain", "--apply", "--limit", "9"]);
    assert!(all.code == 1 && all.err.contains("nothing keeps any of its 4 tags"), "{}", all.err);
    let undone = world.dray(&["runs", "undo", "--output", "json", &last_deleting(&world)]).ok().json();
    assert_eq!(undone["tags"].as_array().unwrap().len(), 3, "{undone}");
    assert!(tags(&world, &repository).contains(&"old".to_owned()));
    for (keep, part) in
        [("[]", "`keep` keeps nothing"), ("[{ newest = 3 }]", "newest"), ("[3]", "expected a text")]
    {
        write(keep);
        let wrong = world.dray(&["retain"]);
        assert!(wrong.code != 0 && wrong.err.contains(part), "{part}\n{}", wrong.err);
    }
    write("[\"latest\"]");
    for command in ["sync", "plan"] {
        let told = world.dray(&[command]);
        assert!(told.code != 0 && told.err.contains("has no [[rule]]"), "{command}\n{}", told.err);
    }
    policy(&world, "oci:a", "oci:b", "");
    assert!(world.dray(&["retain"]).err.contains("has no [[retain]]"));
}

/// The last run that deleted something.
fn last_deleting(world: &World) -> String {
    let runs = world.dray(&["runs", "--output", "json"]).ok().json();
    let deleted = |run: &&Value| run["summary"]["deleted"].as_u64().is_some_and(|deleted| deleted > 0);
    runs.as_array().unwrap().iter().find(deleted).unwrap()["id"].to_string()
}

/// Answers every deletion as docker-registry does without `REGISTRY_STORAGE_DELETE_ENABLED`.
fn deletes_nothing(asked: &Asked, _: &Mutex<Held>) -> Option<Reply> {
    let errors = json!({ "errors": [{ "code": "UNSUPPORTED", "message": "The operation is unsupported." }] });
    (asked.method == "DELETE")
        .then(|| ("405 Method Not Allowed", String::new(), errors.to_string().into_bytes()))
}

#[test]
fn nothing_is_backed_up_where_nothing_can_be_deleted() {
    let world = World::new();
    let destination = Memory::odd(deletes_nothing);
    let source = mirrored(&world, &destination, &[("a", "x"), ("b", "y"), ("c", "z")]);
    let text = std::fs::read_to_string(world.path("dray.toml")).unwrap();
    world.write("dray.toml", &(text + "backup = \"{tag}-old-{time}\"\n"));
    forget(&source, "a");
    for _ in 0..2 {
        let synced = world.dray(&["sync"]);
        assert!(synced.code == 1 && synced.err.contains("REGISTRY_STORAGE_DELETE_ENABLED"), "{}", synced.err);
    }
    let listed = world.dray(&["list-tags", &format!("docker://{}/app", destination.host())]).ok().out;
    assert_eq!(listed.lines().collect::<Vec<_>>(), ["a", "b", "c"]);
}

#[test]
fn a_guard_of_one_repository_holds_back_no_other() {
    let world = World::new();
    let destination = Memory::odd(deletes_images);
    let source = Memory::start();
    for number in 0..10 {
        source.image("pr/a", &format!("v{number}"), format!("a{number}").as_bytes());
    }
    for tag in ["one", "two"] {
        source.image("pr/b", tag, tag.as_bytes());
    }
    let (from, to) =
        (format!("docker://{}/pr", source.host()), format!("docker://{}/{{path}}", destination.host()));
    policy(&world, &format!("{from}/a\", \"{from}/b"), &to, "prune = true");
    let text = std::fs::read_to_string(world.path("dray.toml")).unwrap();
    world.write("dray.toml", &text.replace("from = ", "from = [").replace("/b\"", "/b\"]"));
    world.dray(&["sync"]).ok();
    let forget = |repository: &str, tag: &str| {
        source.held.lock().unwrap().manifests.remove(&(repository.into(), tag.into())).unwrap()
    };
    forget("pr/a", "v3");
    forget("pr/b", "one");
    let synced = world.dray(&["sync", "--output", "json"]);
    assert!(synced.code == 1 && synced.err.contains("1 of its 2 tags"), "{}", synced.err);
    let summary = &synced.json()["summary"];
    assert_eq!((&summary["deleted"], &summary["failed"]), (&json!(1), &json!(1)), "{}", synced.out);
    let held = destination.held.lock().unwrap();
    assert!(!held.manifests.contains_key(&("pr/a".into(), "v3".into())));
    assert!(held.manifests.contains_key(&("pr/b".into(), "one".into())));
}

#[test]
fn what_is_not_known_of_an_image_is_no_reason_to_delete_it() {
    let world = World::new();
    let registry = Memory::odd(deletes_images);
    for number in 0..6 {
        registry.image("app", &format!("v{number}"), format!("{number}").as_bytes());
    }
    for keep in [
        "[{ filter = \"pushed\", within = \"30d\" }, \"v5\"]",
        "[{ filter = \"scanned\", severity = \"high\" }, \"v5\"]",
        "[{ filter = \"latest\", count = 1, by = \"pushed\" }, \"v5\"]",
    ] {
        let at = registry.host();
        let text = format!("version = 1\n[[retain]]\nat = \"docker://{at}/app\"\nkeep = {keep}\nlimit = 5\n");
        world.write("dray.toml", &text);
        let done = world.dray(&["retain", "--apply", "--output", "json"]).ok();
        assert_eq!(done.json()["summary"]["deleted"], 0, "{keep}\n{}", done.out);
        let told = "too little is known of 6 of its tags, so nothing deletes them";
        assert_eq!(done.err.matches(told).count(), 1, "{keep}\n{}", done.err);
    }
    assert!(world.dray(&["check"]).ok().out.contains("0 rules, 1 [[retain]]"));
}

#[test]
fn deletions_in_a_layout_and_by_hand_can_be_undone() {
    let world = World::new();
    source(&world);
    policy(&world, "oci:source", "oci:mirror", "prune = \"all\"\nbackup = \"{tag}-kept\"");
    world.dray(&["sync"]).ok();
    world.dray(&["delete", "oci:source:t0"]).ok();
    let report = world.dray(&["sync", "--output", "json"]).ok().json();
    let deleted =
        report["copies"].as_array().unwrap().iter().find(|copy| copy["action"] == "delete").unwrap();
    assert_eq!(deleted["backup"], "t0-kept");
    let run = last_run(&world);
    let shown = world.dray(&["runs", "show", &run]).ok().out;
    assert!(shown.contains("delete oci:mirror:t0: ") && shown.contains("backed up as t0-kept"), "{shown}");
    // The record means the same in every folder.
    std::fs::create_dir(world.path("elsewhere")).unwrap();
    let undone = world.dray(&["runs", "undo", &run]).ok();
    assert!(undone.out.contains("1 tag put back"), "{}", undone.out);
    let left = world.dray(&["list-tags", "oci:mirror"]).ok().out;
    assert!(left.lines().any(|tag| tag == "t0"), "{left}");

    let registry = Memory::odd(deletes_images);
    registry.image("app", "other", b"x");
    registry.image("app", "nightly", b"x");
    let nightly = format!("docker://{}/app:nightly", registry.host());
    // The image goes with its tags, and the journal knows what they named.
    world.dray(&["delete", "--all-tags", &nightly]).ok();
    let run = last_run(&world);
    let shown = world.dray(&["runs", "show", &run]).ok().out;
    assert!(shown.contains("1 tag deleted") && shown.contains("sha256:"), "{shown}");
    let gone = world.dray(&["runs", "undo", &run]);
    assert!(gone.code == 1 && gone.err.contains("is not there any more"), "{}", gone.err);
    let part = world.dray(&["runs", "undo", &run, "--failed"]);
    assert!(part.code != 0 && part.err.contains("undo a run in part"), "{}", part.err);
}

#[test]
fn a_plan_with_a_line_that_cannot_be_read_deletes_nothing() {
    let world = World::new();
    let destination = Memory::odd(deletes_images);
    let source = mirrored(&world, &destination, &[("a", "x"), ("b", "y"), ("c", "z")]);
    forget(&source, "a");
    source.image("app", "new", b"new");
    world.dray(&["plan", "--out", "plan.jsonl"]).ok();
    let plan = std::fs::read_to_string(world.path("plan.jsonl")).unwrap();
    // The line of the copy, which comes before that of the deletion.
    let damaged: Vec<String> = plan
        .lines()
        .map(|line| if line.contains(":new") { line.replacen(':', ";", 3) } else { line.to_owned() })
        .collect();
    assert_ne!(damaged.join("\n"), plan.trim_end());
    world.write("plan.jsonl", &(damaged.join("\n") + "\n"));
    let applied = world.dray(&["apply", "plan.jsonl"]);
    assert_ne!(applied.code, 0, "{}", applied.out);
    assert_eq!(named(&destination, "a"), Some(false), "{}", applied.err);
}

#[test]
fn a_list_that_hides_signatures_deletes_none_of_them() {
    let world = World::new();
    let destination = Memory::odd(deletes_images);
    let signature = |number: usize| format!("sha256-{number:064x}.sig");
    let names: Vec<String> = (0..5).map(|number| format!("v{number}")).collect();
    let signatures: Vec<String> = (0..5).map(signature).collect();
    let all: Vec<(&str, &str)> =
        names.iter().chain(&signatures).map(|tag| (tag.as_str(), tag.as_str())).collect();
    let source = mirrored(&world, &destination, &all);
    assert_eq!(named(&destination, &signatures[0]), Some(false));
    signatures.iter().for_each(|tag| forget(&source, tag));
    let hidden = world.dray(&["sync"]);
    assert!(hidden.code == 1 && hidden.err.contains("no longer has 5 of its 10 tags"), "{}", hidden.err);
    assert!(signatures.iter().all(|tag| named(&destination, tag) == Some(false)));
}
