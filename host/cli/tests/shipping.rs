//! Plugins as artifacts: pushed to registries, installed, locked, signed, and used from there.
#![allow(clippy::unwrap_used, clippy::print_stderr, reason = "tests")]

mod support;

use std::{fs, path::PathBuf};
use support::{IMAGES, Ran, Registry, World, has, memory::Memory};

/// A component of dray's own.
fn component(name: &str) -> Vec<u8> {
    let folder = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("../../plugins/prebuilt");
    fs::read(folder.join(format!("{name}.wasm"))).unwrap()
}

/// The same component with a further custom section (core specification, 5.5.3), and so with another digest.
fn with_section(component: &[u8]) -> Vec<u8> {
    [component, b"\0\x05\x04more"].concat()
}

/// Runs dray with a cache of its own, so that nothing is installed yet, and without a passphrase.
fn dray(world: &World, arguments: &[&str]) -> Ran {
    let mut command = world.command(arguments);
    command.env("XDG_CACHE_HOME", world.path("cache")).env("COSIGN_PASSWORD", "");
    Ran::of(&mut command)
}

/// A policy with one plugin of a registry, which selects tags.
fn policy(world: &World, source: &str, more: &str) {
    let text = format!(
        "version = 1\n[plugin.mine]\nsource = \"{source}\"\n{more}\n[[rule]]\nfrom = \"{IMAGES}\"\nto = \"oci:out\"\n\
         tags = [{{ filter = \"mine\", pattern = \"1.0*\" }}]\n"
    );
    world.write("dray.toml", &text);
}

fn digest(world: &World, reference: &str) -> String {
    dray(world, &["inspect", reference, "--output", "json"]).ok().json()["digest"]
        .as_str()
        .unwrap()
        .to_owned()
}

#[test]
fn what_is_pushed_is_what_the_field_reads() {
    if !has("docker-registry") || !has("skopeo") {
        return;
    }
    let world = World::new();
    let registry = Registry::start(&world, "registry", "");
    fs::write(world.path("glob.wasm"), component("filter-glob")).unwrap();
    let to = format!("docker://{}/plugins/glob:1.0", registry.host);
    let pushed = dray(&world, &["plugin", "push", "glob.wasm", &to, "--output", "json"]).ok().json();
    // It is the artifact of the CNCF's layout, and the same each time.
    let again = dray(&world, &["plugin", "push", "glob.wasm", &to, "--output", "json"]).ok().json();
    assert_eq!(pushed["digest"], again["digest"]);
    assert_eq!(world.digest(&to, &[]), pushed["digest"].as_str().unwrap());
    let raw = world.tool("skopeo", &["inspect", "--raw", "--tls-verify=false", &to]);
    let manifest: serde_json::Value = serde_json::from_str(&raw).unwrap();
    assert_eq!(manifest["config"]["mediaType"], "application/vnd.wasm.config.v0+json");
    assert_eq!(manifest["layers"][0]["mediaType"], "application/wasm");
    let config = world.tool("skopeo", &["inspect", "--raw", "--config", "--tls-verify=false", &to]);
    let config: serde_json::Value = serde_json::from_str(&config).unwrap();
    assert_eq!(config["layerDigests"][0], manifest["layers"][0]["digest"]);
    assert!(config["component"]["exports"].to_string().contains("dray:plugin/tag-filter@0.3.0"), "{config}");

    // It is installed byte for byte, shown, and removed.
    let source = format!("oci://{}/plugins/glob:1.0", registry.host);
    let installed = dray(&world, &["plugin", "install", &source]).ok();
    assert!(installed.out.contains(pushed["digest"].as_str().unwrap()), "{}", installed.out);
    assert!(!installed.err.contains("/var/tmp"), "{}", installed.err);
    let listed = dray(&world, &["plugin", "list", "--output", "json"]).ok().json();
    let ours = listed.as_array().unwrap().iter().find(|plugin| plugin["origin"] == *source).unwrap();
    assert_eq!((&ours["artifact"], &ours["kind"]), (&pushed["digest"], &"filter".into()));
    // Of several with one name, each is named by its digest.
    fs::write(world.path("other.wasm"), with_section(&component("filter-glob"))).unwrap();
    let other = format!("docker://{}/plugins/other:1.0", registry.host);
    dray(&world, &["plugin", "push", "other.wasm", &other]).ok();
    let other = dray(&world, &["plugin", "install", &other, "--output", "json"]).ok().json();
    let several = dray(&world, &["plugin", "remove", "glob"]);
    let other = other["digest"].as_str().unwrap();
    assert!(several.code == 2 && several.err.contains("2 have that name") && several.err.contains(other));
    let removed = dray(&world, &["plugin", "remove", other, "--output", "json"]).ok().json();
    assert_eq!((removed.as_array().unwrap().len(), &removed[0]["digest"]), (1, &other.into()));
    dray(&world, &["plugin", "remove", "glob"]).ok();
    let unknown = dray(&world, &["plugin", "remove", "glob"]);
    assert!(unknown.code == 2 && unknown.err.contains("none is installed"), "{}", unknown.err);

    // What is no plugin is refused before anything of it is fetched.
    dray(&world, &["copy", &format!("{IMAGES}:1.0.0"), &format!("docker://{}/app:1.0", registry.host)]).ok();
    let image = dray(&world, &["plugin", "install", &format!("oci://{}/app:1.0", registry.host)]);
    assert!(image.code == 1 && image.err.contains("its config is of the type"), "{}", image.err);
    fs::write(world.path("junk.wasm"), b"\0asm\x0d\0\x01\0junk").unwrap();
    let junk = dray(&world, &["plugin", "push", "junk.wasm", &to]);
    assert!(junk.code != 0 && junk.err.contains("junk"), "{}", junk.err);
    assert_eq!(world.digest(&to, &[]), pushed["digest"].as_str().unwrap());
}

#[test]
fn a_policy_uses_what_its_lock_says_until_it_is_updated() {
    let world = World::new();
    let registry = Memory::start();
    let to = format!("docker://{}/plugins/mine:1", registry.host());
    let source = format!("oci://{}/plugins/mine:1", registry.host());
    fs::write(world.path("one.wasm"), component("filter-glob")).unwrap();
    fs::write(world.path("two.wasm"), component("filter-regex")).unwrap();
    dray(&world, &["plugin", "push", "one.wasm", &to]).ok();
    let first = digest(&world, &to);
    policy(&world, &source, "");

    // Nothing that a tag might change is used.
    for command in ["check", "plan", "sync"] {
        let unpinned = dray(&world, &[command]);
        assert!(unpinned.code == 2 && unpinned.err.contains("dray plugin install"), "{}", unpinned.err);
    }
    dray(&world, &["plugin", "install"]).ok();
    let lock = fs::read_to_string(world.path("dray.lock")).unwrap();
    assert!(lock.contains(&first) && lock.contains(&source), "{lock}");
    dray(&world, &["check"]).ok();
    let asked = registry.asked().len();
    let synced = dray(&world, &["sync"]).ok();
    assert!(synced.out.contains("1 image copied"), "{}", synced.out);
    assert_eq!(registry.asked().len(), asked, "the plugin is here already");
    // The lock of tags keeps that of plugins, and the reverse.
    dray(&world, &["lock"]).ok();
    dray(&world, &["plugin", "install"]).ok();
    dray(&world, &["sync", "--locked"]).ok();

    // The tag moves. A run, also one on another machine, goes on with what is locked.
    dray(&world, &["plugin", "push", "two.wasm", &to]).ok();
    fs::remove_dir_all(world.path("cache")).unwrap();
    let missing = dray(&world, &["check"]);
    assert!(missing.code == 2 && missing.err.contains("not installed"), "{}", missing.err);
    let synced = dray(&world, &["sync"]).ok();
    assert!(synced.out.contains("1 unchanged"), "{}", synced.out);
    let due = dray(&world, &["plugin", "update", "--check"]);
    assert!(due.code == 3 && due.out.contains("due"), "{}", due.out);
    assert!(fs::read_to_string(world.path("dray.lock")).unwrap().contains(&first));
    let unknown = dray(&world, &["plugin", "update", "mien"]);
    assert!(unknown.code == 2 && unknown.err.contains("did you mean `mine`?"), "{}", unknown.err);
    let updated = dray(&world, &["plugin", "update", "--output", "json"]).ok().json();
    assert_eq!((&updated[0]["action"], &updated[0]["before"]), (&"updated".into(), &first.clone().into()));
    dray(&world, &["plugin", "update", "--check"]).ok();
    // Another source is not the one that was locked.
    policy(&world, &format!("oci://{}/plugins/mine:2", registry.host()), "");
    let other = dray(&world, &["sync"]);
    assert!(other.code == 2 && other.err.contains("the lock has"), "{}", other.err);
    // A digest in the policy needs no lock.
    policy(&world, &format!("oci://{}/plugins/mine@{first}", registry.host()), "");
    dray(&world, &["sync"]).ok();
    let own = format!("x=oci://{}/plugins/mine@{first}", registry.host());
    dray(&world, &["list-tags", IMAGES, "--plugin", &own]).ok();

    // What lies in the store is used only as it was installed.
    let folder = fs::read_dir(world.path("cache/dray/plugins")).unwrap().flatten();
    let folder = folder.map(|entry| entry.path()).find(|path| path.to_string_lossy().ends_with(&first[7..]));
    let folder = folder.unwrap();
    fs::write(folder.join("component.wasm"), component("filter-regex")).unwrap();
    let changed = dray(&world, &["sync"]);
    assert!(changed.code != 0 && changed.err.contains("any more"), "{}", changed.err);
    // The remedy that it names is one, also for the manifest.
    let again = dray(&world, &["plugin", "install"]).ok();
    assert!(again.out.contains("installed"), "{}", again.out);
    dray(&world, &["sync"]).ok();
    fs::write(folder.join("manifest.json"), "{}").unwrap();
    assert!(dray(&world, &["check"]).err.contains("dray plugin install"));
    dray(&world, &["plugin", "install"]).ok();
    dray(&world, &["check"]).ok();
}

#[test]
fn each_plugin_is_updated_for_itself_and_two_commands_keep_each_other_s_locks() {
    let world = World::new();
    let registry = Memory::start();
    let to = |name: &str| format!("docker://{}/plugins/{name}:1", registry.host());
    fs::write(world.path("one.wasm"), component("filter-glob")).unwrap();
    fs::write(world.path("two.wasm"), component("filter-regex")).unwrap();
    for name in ["a", "b"] {
        dray(&world, &["plugin", "push", "one.wasm", &to(name)]).ok();
        let source = format!("oci://{}/plugins/{name}:1", registry.host());
        world.write(
            &format!("{name}.toml"),
            &format!("version = 1\n[plugin.{name}]\nsource = \"{source}\"\n"),
        );
    }
    // Several policies are read as one, and have one lock.
    let both = ["--policy", "a.toml", "--policy", "b.toml"];
    dray(&world, &[&["plugin", "install"], &both[..]].concat()).ok();
    dray(&world, &["check", "a.toml", "b.toml"]).ok();
    dray(&world, &["plugin", "push", "two.wasm", &to("b")]).ok();
    dray(&world, &[&["plugin", "update", "--check", "a"], &both[..]].concat()).ok();
    let due = dray(&world, &[&["plugin", "update", "--check", "b"], &both[..]].concat());
    assert!(due.code == 3 && due.out.contains("b: due") && !due.out.contains("a:"), "{}", due.out);
    // A lock of tags that is written at the same time keeps the plugins, and two updates keep each other's.
    dray(&world, &["plugin", "push", "two.wasm", &to("a")]).ok();
    std::thread::scope(|scope| {
        for name in ["a", "b"] {
            let (world, both) = (&world, &both);
            scope.spawn(move || dray(world, &[&["plugin", "update", name], &both[..]].concat()).ok());
        }
    });
    dray(&world, &[&["plugin", "update", "--check"], &both[..]].concat()).ok();
    let lock = fs::read_to_string(world.path("a.lock")).unwrap();
    world.write("a.lock", &lock.replace("digest = \"sha256", "digest = \"sha255"));
    let broken = dray(&world, &["check", "a.toml", "b.toml"]);
    assert!(broken.code == 2 && broken.err.contains("line 7: "), "{}", broken.err);

    // What cannot be named, or is no plugin, is not written, not signed, and not fetched.
    let untagged = dray(&world, &["plugin", "push", "one.wasm", &format!("docker://{}/x", registry.host())]);
    assert!(untagged.code == 2 && untagged.err.contains("neither a tag nor a digest"), "{}", untagged.err);
    let image = registry.image("app", "1", b"layer");
    dray(&world, &["plugin", "keygen", "k"]).ok();
    let signed =
        dray(&world, &["plugin", "sign", &format!("oci://{}/app:1", registry.host()), "--key", "k.key"]);
    assert!(signed.code == 1 && signed.err.contains("its config is of the type"), "{image}: {}", signed.err);
    let huge = serde_json::json!({
        "schemaVersion": 2,
        "mediaType": "application/vnd.oci.image.manifest.v1+json",
        "config": { "mediaType": "application/vnd.wasm.config.v0+json", "digest": image, "size": 50u64 << 30 },
        "layers": [{ "mediaType": "application/wasm", "digest": image, "size": 1 }],
    });
    registry.put("huge", "1", "application/vnd.oci.image.manifest.v1+json", huge.to_string().as_bytes());
    let huge = dray(&world, &["plugin", "install", &format!("oci://{}/huge:1", registry.host())]);
    assert!(huge.code == 1 && huge.err.contains("its config has 53687091200 bytes"), "{}", huge.err);
    assert_eq!(registry.count("GET /v2/huge/blobs"), 0);
}

#[test]
fn only_what_a_trusted_key_signed_is_used() {
    let world = World::new();
    let registry = Memory::start();
    let to = format!("docker://{}/plugins/mine:1", registry.host());
    let source = format!("oci://{}/plugins/mine:1", registry.host());
    fs::write(world.path("mine.wasm"), component("filter-glob")).unwrap();
    dray(&world, &["plugin", "push", "mine.wasm", &to]).ok();
    for name in ["acme", "mallory"] {
        dray(&world, &["plugin", "keygen", name]).ok();
    }
    let again = dray(&world, &["plugin", "keygen", "acme"]);
    assert!(again.code == 2 && again.err.contains("not written over"), "{}", again.err);
    let mode =
        std::os::unix::fs::PermissionsExt::mode(&fs::metadata(world.path("acme.key")).unwrap().permissions());
    assert_eq!(mode & 0o777, 0o600);

    policy(&world, &source, "trusted-keys = [\"acme.pub\"]");
    let unsigned = dray(&world, &["plugin", "install"]);
    assert!(unsigned.code == 1 && unsigned.err.contains("it is not signed"), "{}", unsigned.err);
    assert!(!world.path("dray.lock").exists());
    dray(&world, &["plugin", "sign", &source, "--key", "mallory.key"]).ok();
    let stranger = dray(&world, &["plugin", "install"]);
    assert!(stranger.code == 1 && stranger.err.contains("acme.pub"), "{}", stranger.err);
    dray(&world, &["plugin", "sign", &source, "--key", "acme.key"]).ok();
    // Another signature of the same key would prove nothing more.
    let again = dray(&world, &["plugin", "sign", &source, "--key", "acme.key", "--output", "json"]);
    assert_eq!(again.ok().json()["action"], "unchanged");
    dray(&world, &["plugin", "verify", &source, "--key", "acme.pub"]).ok();
    dray(&world, &["plugin", "install"]).ok();
    // The signature is kept, so a run asks nobody.
    let asked = registry.asked().len();
    dray(&world, &["sync"]).ok();
    assert_eq!(registry.asked().len(), asked);
    // A key that is trusted no longer is none, also for what is installed.
    policy(&world, &source, "trusted-keys = [\"mallory.pub\"]");
    dray(&world, &["sync"]).ok();
    dray(&world, &["plugin", "keygen", "other"]).ok();
    policy(&world, &source, "trusted-keys = [\"other.pub\"]");
    let refused = dray(&world, &["sync"]);
    assert!(refused.code == 2 && refused.err.contains("other.pub"), "{}", refused.err);

    // The same artifact without signatures takes none away.
    let unsigned = format!("docker://{}/unsigned/mine:1", registry.host());
    dray(&world, &["plugin", "push", "mine.wasm", &unsigned]).ok();
    dray(&world, &["plugin", "install", &unsigned]).ok();
    policy(&world, &source, "trusted-keys = [\"acme.pub\"]");
    dray(&world, &["sync"]).ok();
    // What is here and signed needs no registry, and a key that is none is told as that.
    let asked = registry.asked().len();
    dray(&world, &["plugin", "install"]).ok();
    assert_eq!(registry.asked().len(), asked);
    policy(&world, &source, "trusted-keys = [\"acme.key\"]");
    let wrong = dray(&world, &["check"]);
    assert!(wrong.code == 2 && wrong.err.contains("no public key"), "{}", wrong.err);

    // A file has its signature beside it.
    let text = fs::read_to_string(world.path("dray.toml")).unwrap();
    let text = text.replace("trusted-keys = [\"acme.key\"]", "").replace(&source, "mine.wasm");
    world.write(
        "dray.toml",
        &text.replace("version = 1", "version = 1\n[defaults.plugin]\ntrusted-keys = [\"acme.pub\"]"),
    );
    let unsigned = dray(&world, &["sync"]);
    assert!(unsigned.code == 2 && unsigned.err.contains("it is not signed"), "{}", unsigned.err);
    dray(&world, &["plugin", "sign", "mine.wasm", "--key", "acme.key"]).ok();
    dray(&world, &["sync"]).ok();
    fs::write(world.path("mine.wasm"), component("filter-regex")).unwrap();
    let changed = dray(&world, &["sync"]);
    assert!(changed.code == 2 && changed.err.contains("acme.pub"), "{}", changed.err);
    let verified = dray(&world, &["plugin", "verify", "mine.wasm", "--key", "acme.pub"]);
    assert_eq!(verified.code, 1, "{}", verified.err);
    // The keys of a policy hold for the plugins of a command line, too, and no name is taken from it.
    fs::write(world.path("evil.wasm"), component("filter-regex")).unwrap();
    dray(&world, &["plugin", "sign", "mine.wasm", "--key", "acme.key"]).ok();
    let list = |own: &str| dray(&world, &["list-tags", IMAGES, "--policy", "dray.toml", "--plugin", own]);
    let evil = list("evil=evil.wasm");
    assert!(evil.code == 2 && evil.err.contains("acme.pub"), "{}", evil.err);
    let taken = list("mine=mine.wasm");
    assert!(taken.code == 2 && taken.err.contains("has one of that name"), "{}", taken.err);
}

#[test]
fn a_trace_has_each_call_with_its_time_and_its_size() {
    let world = World::new();
    fs::write(world.path("mine.wasm"), component("filter-glob")).unwrap();
    policy(&world, "mine.wasm", "");
    let synced = dray(&world, &["sync", "--trace-plugin", "mine", "--trace-plugin", "mien"]).ok();
    let calls: Vec<serde_json::Value> = synced
        .err
        .lines()
        .filter(|line| line.starts_with('{'))
        .map(|line| serde_json::from_str(line).unwrap())
        .collect();
    // Once to check the configuration, and once to choose.
    assert_eq!(calls.len(), 2, "{}", synced.err);
    let last = &calls[1];
    assert_eq!((&last["plugin"], &last["function"]), (&"mine".into(), &"select".into()));
    assert!(
        last["arguments"].to_string().contains("1.0.0") && last["answer"]["ok"]["kept"].is_array(),
        "{last}"
    );
    assert!(last["ms"].as_f64().unwrap() > 0.0 && last["argument_bytes"].as_u64().unwrap() > 20, "{last}");
    assert!(synced.err.contains("no trace of the plugin mien"), "{}", synced.err);
}
