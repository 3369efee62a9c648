//! The command line and the policy, as users meet them.
#![allow(clippy::unwrap_used, clippy::print_stderr, reason = "a test")]

mod support;

use std::{io::Write, process::Stdio, time::Duration};
use support::{Fake, Running, World, respond};

const IMAGES: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/../../examples/images");

fn rule(rest: &str) -> String {
    format!(
        "version = 1\n[registry.m]\nstorage = \"m\"\n[[rule]]\nname = \"a\"\nfrom = \"oci:{IMAGES}\"\nto = \"docker://m/a\"\n{rest}"
    )
}

#[test]
fn mistakes_exit_with_2_and_underline_the_place() {
    let world = World::new();
    for (text, shown) in [
        (rule("tgas = []"), &["did you mean `tags`?", "tgas", "policy.toml:8"][..]),
        (rule("tags = [{ filter = \"semvre\", range = \"1\" }]"), &["none of that name", "did you mean `semver`?", "\"semvre\""]),
        (rule("tags = [{ filter = \"regex\", pattern = \"(\" }]"), &["pattern: ", "\"(\""]),
        (rule("tags = [{ filter = \"latest\", cuont = 3 }]"), &["did you mean `count`?"]),
        (rule("tags = [{ filter = \"age\", within = \"soon\" }]"), &["within: ", "90d"]),
        (rule("tags = [\"not a tag!\"]").replace(&format!("oci:{IMAGES}"), "docker://r.example/a"), &["is no tag", "not a tag!"]),
        (rule("").replace("docker://m/a", "docker://m/A"), &["lower-case", "docker://m/A"]),
        (rule("").replace("docker://m/a", "dokcer://m/a"), &["transport `dokcer`", "did you mean `docker`?"]),
        (rule("").replace("storage = \"m\"", "auth = { provider = \"static\", username = \"u\", password = \"hunter2\" }"), &["a policy holds no secrets", "env:NAME"]),
        (rule("").replace("storage = \"m\"", "auth = { provider = \"nobody\" }"), &["auth provider `nobody`", "docker-config, static"]),
        (
            "version = 1\n[[rule]]\nname = \"a\"\nfrom = [\"docker://r.example/a\", \"docker://r.example/b\"]\nto = \"docker://m.example/x\"\ntags = [\"1\"]\n".into(),
            &["would both be written to", "{name}"],
        ),
        ("version = 1\n[plugin.x]\nsource = \"missing.wasm\"\n[[rule]]\nname = \"a\"\nfrom = \"docker://r.example/a\"\nto = \"docker://m.example/a\"\ntags = [{ filter = \"x\" }]\n".into(), &["missing.wasm", "dray plugin build"]),
    ] {
        world.write("policy.toml", &text);
        for command in ["check", "plan", "sync"] {
            let ran = world.dray(&[command, "policy.toml"]);
            assert_eq!(ran.code, 2, "{command}\n{text}\n{}{}", ran.out, ran.err);
            let missing: Vec<_> = shown.iter().filter(|shown| !ran.err.contains(**shown)).collect();
            assert!(missing.is_empty(), "{missing:?} not in\n{}", ran.err);
            assert!(!ran.err.contains('\u{1b}'), "colours without a terminal");
        }
        assert!(!world.path("m").exists(), "checking made a folder");
    }
    assert_eq!(world.dray(&["sync", "nowhere.toml"]).code, 2);
    assert_eq!(world.dray(&["sync"]).code, 2);
    assert_eq!(world.dray(&["frobnicate"]).code, 2);
}

#[test]
fn a_plan_changes_nothing_and_says_what_is_due() {
    let world = World::new();
    world.write("policy.toml", &rule("tags = [\"nightly\", { filter = \"semver\", range = \"<2\" }, { filter = \"glob\", pattern = \"1.0*\", exclude = true }]"));
    let plan = world.dray(&["plan", "policy.toml", "--output", "json", "--detailed-exitcode"]);
    assert_eq!(plan.code, 3, "{}", plan.err);
    assert!(!world.path("m").exists());
    let plan = plan.json();
    assert_eq!(
        plan["summary"],
        serde_json::json!({ "copy": 3, "delete": 0, "unchanged": 0, "dropped": 6, "failed": 0, "overwritten": 0 })
    );
    let drops: Vec<(&str, &str)> = plan["copies"]
        .as_array()
        .unwrap()
        .iter()
        .filter(|copy| copy["action"] == "drop")
        .map(|copy| {
            (copy["source"].as_str().unwrap().rsplit(':').next().unwrap(), copy["reason"].as_str().unwrap())
        })
        .collect();
    assert!(
        drops.contains(&("2.0.0", r#"dropped by semver {"range":"<2"}: outside the range"#)),
        "{drops:?}"
    );
    assert!(
        drops.contains(&("1.0.0", r#"dropped by glob {"exclude":true,"pattern":"1.0*"}: matches `1.0*`"#)),
        "{drops:?}"
    );
    world.dray(&["sync", "policy.toml"]).ok();
    assert_eq!(world.dray(&["plan", "policy.toml", "--detailed-exitcode"]).ok().code, 0);
}

#[test]
fn the_report_is_one_json_document() {
    let world = World::new();
    world.write("policy.toml", &(rule("tags = [\"1.0.0\"]") + &format!("\n[[rule]]\nname = \"b\"\nfrom = \"oci:{IMAGES}\"\nto = \"docker://m/b\"\ntags = [\"none\", \"2.0.0\"]\n")));
    let ran = world.dray(&["sync", "policy.toml", "--output", "json", "--keep-going"]);
    assert_eq!(ran.code, 1);
    let report = ran.json();
    assert_eq!((&report["summary"]["copied"], &report["summary"]["failed"]), (&2.into(), &1.into()));
    assert!(report["summary"]["seconds"].as_f64().unwrap() > 0.0);
    let failed = report["copies"].as_array().unwrap().iter().find(|copy| copy["action"] == "fail").unwrap();
    assert_eq!(failed["rule"], "b");
    assert!(failed["error"].as_str().unwrap().contains("there is no such image"), "{failed}");
    let one = world.dray(&["sync", "policy.toml", "--rule", "a", "--output", "json"]).ok().json();
    assert_eq!(one["summary"]["unchanged"], 1);
    let unknown = world.dray(&["sync", "policy.toml", "--rule", "c"]);
    assert!(unknown.code == 2 && unknown.err.contains("rule `c`"), "{}", unknown.err);
}

#[test]
fn a_policy_from_standard_input() {
    let world = World::new();
    let mut child = world
        .command(&["sync", "-"])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    child.stdin.take().unwrap().write_all(rule("tags = [\"1.0.0\"]").as_bytes()).unwrap();
    let output = child.wait_with_output().unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    assert!(world.path("m/docker/registry/v2").is_dir());
}

#[test]
fn collisions_are_found_before_anything_is_copied() {
    let world = World::new();
    let text = format!(
        "version = 1\n[registry.m]\nstorage = \"m\"\n[[rule]]\nname = \"a\"\nfrom = [\"oci:{IMAGES}\", \"oci:other\"]\nto = \"docker://m/x\"\n"
    );
    world.write("policy.toml", &text);
    // The other layout has one tag in common, with other content.
    world.dray(&["copy", "--all", &format!("oci:{IMAGES}:2.0.0"), "oci:other:1.0.0"]).ok();
    world.dray(&["copy", "--all", &format!("oci:{IMAGES}:1.1.0"), "oci:other:1.1.0"]).ok();
    let ran = world.dray(&["sync", "policy.toml", "--output", "json", "--keep-going"]);
    assert_eq!(ran.code, 1);
    let report = ran.json();
    let failed: Vec<&str> = report["copies"]
        .as_array()
        .unwrap()
        .iter()
        .filter(|copy| copy["action"] == "fail")
        .map(|copy| copy["destination"].as_str().unwrap())
        .collect();
    assert_eq!(failed, ["docker://m/x:1.0.0", "docker://m/x:1.0.0"], "{report}");
    assert!(report["copies"].to_string().contains("with different content"));
    // What is the same in both is copied once.
    assert_eq!(report["summary"]["copied"], 8);
}

#[test]
fn signals_end_it_cleanly() {
    let slow = Fake::start(|request, stream| {
        if request.contains("tags/list") {
            std::thread::sleep(Duration::from_secs(30));
        }
        respond(stream, "404 Not Found", "", b"");
    });
    let world = World::new();
    world.write(
        "policy.toml",
        &format!(
            "version = 1\n[[rule]]\nname = \"a\"\nfrom = \"docker://{}/a\"\nto = \"oci:out\"\n",
            slow.host
        ),
    );
    for (signal, code) in [("-INT", 130), ("-TERM", 143)] {
        let before = slow.requests().len();
        let mut running = Running(
            world
                .command(&["sync", "policy.toml", "--output", "json"])
                .stdout(Stdio::piped())
                .spawn()
                .unwrap(),
        );
        while slow.requests().len() == before {
            std::thread::sleep(Duration::from_millis(10));
        }
        world.tool("kill", &[signal, &running.0.id().to_string()]);
        let mut out = String::new();
        std::io::Read::read_to_string(running.0.stdout.as_mut().unwrap(), &mut out).unwrap();
        assert_eq!(running.0.wait().unwrap().code(), Some(code));
        assert!(out.contains("\"summary\""), "{out}");
    }
}

#[test]
fn referrers_travel_with_their_subject() {
    let world = World::new();
    let subject = dray_core::Digest::of(&std::fs::read(first_index()).unwrap());
    let size = std::fs::metadata(first_index()).unwrap().len();
    let put = |content: &str| {
        let digest = dray_core::Digest::of(content.as_bytes());
        world.write(&format!("src/blobs/sha256/{}", digest.hex()), content);
        digest
    };
    world.dray(&["copy", "--all", &format!("oci:{IMAGES}:1.0.0"), "oci:src:1.0.0"]).ok();
    let config = put("{}");
    let signature = format!(
        r#"{{"schemaVersion":2,"mediaType":"application/vnd.oci.image.manifest.v1+json","artifactType":"application/vnd.example.signature","config":{{"mediaType":"application/vnd.oci.empty.v1+json","digest":"{config}","size":2,"data":"e30="}},"layers":[],"subject":{{"mediaType":"application/vnd.oci.image.index.v1+json","digest":"{subject}","size":{size}}}}}"#
    );
    let policy = |referrers: bool| {
        world.write("policy.toml", &format!("version = 1\n[registry.m]\nstorage = \"m\"\n[[rule]]\nname = \"a\"\nfrom = \"oci:src\"\nto = \"docker://m/a\"\nreferrers = {referrers}\n"))
    };
    policy(true);
    world.dray(&["sync", "policy.toml"]).ok();
    // A signature appears later: the tag is unchanged, its referrers are not.
    let digest = put(&signature);
    let index = std::fs::read_to_string(world.path("src/index.json")).unwrap();
    let entry = format!(
        r#"{{"mediaType":"application/vnd.oci.image.manifest.v1+json","digest":"{digest}","size":{}}}"#,
        signature.len()
    );
    std::fs::write(
        world.path("src/index.json"),
        index.replace("\"manifests\":[", &format!("\"manifests\":[{entry},")),
    )
    .unwrap();
    let plan = world.dray(&["plan", "policy.toml"]).ok();
    assert!(plan.out.contains("1 referrers are missing"), "{}", plan.out);
    world.dray(&["sync", "policy.toml"]).ok();
    let there = world.path(&format!(
        "m/docker/registry/v2/repositories/a/_referrers/sha256/{}/sha256/{}/link",
        subject.hex(),
        digest.hex()
    ));
    assert!(there.is_file(), "the signature is not a referrer of its subject");
    let again = world.dray(&["sync", "policy.toml", "--output", "json"]).ok().json();
    assert_eq!((&again["summary"]["copied"], &again["summary"]["unchanged"]), (&0.into(), &1.into()));
}

/// The index of the tag 1.0.0.
fn first_index() -> std::path::PathBuf {
    let index: serde_json::Value =
        serde_json::from_slice(&std::fs::read(format!("{IMAGES}/index.json")).unwrap()).unwrap();
    let digest =
        index["manifests"][0]["digest"].as_str().unwrap().strip_prefix("sha256:").unwrap().to_owned();
    format!("{IMAGES}/blobs/sha256/{digest}").into()
}

#[test]
fn plugins_can_be_looked_at() {
    let world = World::new();
    let listed = world.dray(&["plugin", "list", "--output", "json"]).ok().json();
    let names: Vec<&str> =
        listed.as_array().unwrap().iter().map(|plugin| plugin["name"].as_str().unwrap()).collect();
    assert_eq!(
        names,
        [
            "docker",
            "oci",
            "dir",
            "docker-archive",
            "registry-storage",
            "containers-storage",
            "tarball",
            "docker-config",
            "static",
            "ecr",
            "gar",
            "acr",
            "docker-hub",
            "gitlab",
            "ali-acr",
            "huawei-swr",
            "tencent-tcr",
            "volcengine-cr",
            "glob",
            "regex",
            "semver",
            "latest",
            "age",
            "label",
            "pushed",
            "signed",
            "scanned",
            "scan",
            "min-age",
            "regex",
            "webhook",
            "harbor",
            "quay",
            "docker-hub",
            "zot",
            "acr",
            "gitlab",
            "ecr",
            "gar",
            "ghcr",
            "artifactory",
            "nexus",
            "ali-acr",
            "huawei-swr",
            "tencent-tcr",
            "volcengine-cr",
        ]
    );
    assert!(
        listed
            .as_array()
            .unwrap()
            .iter()
            .all(|plugin| plugin["digest"].as_str().unwrap().starts_with("sha256:"))
    );
    // Plugins of several kinds may have one name.
    let ecr = world.dray(&["plugin", "inspect", "ecr"]);
    assert!(ecr.code == 1 && ecr.err.contains("--kind auth or --kind dialect"), "{}", ecr.err);
    let ecr = world.dray(&["plugin", "inspect", "ecr", "--kind", "dialect"]).ok().json();
    assert_eq!((&ecr["name"], &ecr["kind"]), (&"ecr".into(), &"dialect".into()));
    let semver = world.dray(&["plugin", "inspect", "semver"]).ok().json();
    assert_eq!(semver["kind"], "filter");
    assert!(semver["config_schema"]["properties"]["range"].is_object());
    let junk = world.write("junk.wasm", "junk");
    let ran = world.dray(&["plugin", "inspect", junk.to_str().unwrap()]);
    assert!(ran.code == 1 && ran.err.contains("no WebAssembly"), "{}", ran.err);
}

#[test]
fn platforms_keep_the_index_where_they_can() {
    let world = World::new();
    world.write("policy.toml", &rule("tags = [\"1.0.0\"]\nplatforms = [\"linux/arm64\"]"));
    let report = world.dray(&["sync", "policy.toml", "--output", "json"]).ok().json();
    let digest = dray_core::Digest::of(&std::fs::read(first_index()).unwrap()).to_string();
    assert_eq!(report["copies"][0]["digest"], digest);
    // More platforms are noticed though the digest is the same.
    world.write("policy.toml", &rule("tags = [\"1.0.0\"]\nplatforms = [\"linux/arm64\", \"linux/amd64\"]"));
    let plan = world.dray(&["plan", "policy.toml"]).ok();
    assert!(plan.out.contains("1 of the wanted platforms are missing"), "{}", plan.out);
    let missing =
        world.dray(&["copy", "--platform", "linux/s390x", &format!("oci:{IMAGES}:1.0.0"), "oci:out:1"]);
    assert!(missing.code == 1 && missing.err.contains("linux/amd64, linux/arm64"), "{}", missing.err);
}

/// Every policy in `examples/` does what it says.
#[test]
fn the_examples_run() {
    let examples = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("../../examples");
    let built = examples.join("plugins/calver/calver.wasm").is_file();
    assert!(built || std::env::var_os("DRAY_TEST_ALL").is_none(), "calver.wasm is not built");
    if !built {
        eprintln!(
            "left out: examples/calver.toml (build its plugin with `cargo xtask plugins examples/plugins/calver`)"
        );
    }
    let world = World::new();
    for (policy, copied) in [("quickstart", 3), ("calver", 2)] {
        if policy == "calver" && !built {
            continue;
        }
        // As it stands but for its paths, which would write into the repository.
        let text = std::fs::read_to_string(examples.join(format!("{policy}.toml"))).unwrap();
        let text = text
            .replace("oci:images", &format!("oci:{IMAGES}"))
            .replace("plugins/", &format!("{}/plugins/", examples.display()));
        world.write(&format!("examples/{policy}.toml"), &text);
        let report =
            world.dray(&["sync", &format!("examples/{policy}.toml"), "--output", "json"]).ok().json();
        assert_eq!(report["summary"]["copied"], copied, "{report}");
        let again = world.dray(&["sync", &format!("examples/{policy}.toml")]).ok();
        assert!(
            again.out.contains(&format!("0 images copied, {copied} unchanged, 0 failed")),
            "{}",
            again.out
        );
    }
    assert!(world.path("mirror/docker/registry/v2/repositories/samples/hello").is_dir());
}

#[test]
fn machines_read_what_happens_as_one_object_a_line() {
    let world = World::new();
    let failing = "[[rule]]\nname = \"b\"\nfrom = \"oci:nowhere\"\nto = \"docker://m/b\"\n";
    world.write("policy.toml", &rule(failing));
    let ran = world.dray(&["sync", "--keep-going", "--log-format", "json", "policy.toml"]);
    let events: Vec<serde_json::Value> =
        ran.err.lines().map(|line| serde_json::from_str(line).unwrap_or_else(|_| panic!("{line}"))).collect();
    let told = |level: &str, words: &str| {
        let fits = |event: &&serde_json::Value| {
            event["level"] == level && event["fields"]["message"].as_str().unwrap().starts_with(words)
        };
        events.iter().filter(fits).count()
    };
    assert_eq!((told("INFO", "copied"), told("ERROR", "failed to ")), (9, 1), "{}", ran.err);
    let fields = |event: &serde_json::Value| {
        let text = |key: &str| event["fields"][key].as_str().map(str::to_owned);
        (text("rule"), text("digest").is_some(), event["fields"]["bytes"].is_u64())
    };
    let copied = events.iter().filter(|event| event["fields"]["message"] == "copied");
    assert!(copied.map(fields).all(|fields| fields == (Some("a".into()), true, true)), "{}", ran.err);
    // And nothing that was not asked for.
    assert_eq!(events.len(), 10, "{}", ran.err);
}

#[test]
fn whoever_reads_may_have_seen_enough() {
    let world = World::new();
    world.dray(&["copy", &format!("oci:{IMAGES}:1.0.0"), "oci:out:1"]).ok();
    let image = format!("oci:{IMAGES}:1.0.0");
    for arguments in [
        &["schema"][..],
        &["completions", "bash"],
        &["runs"],
        &["inspect", "--output", "json", &image],
        &["list-tags", "oci:out"],
    ] {
        let mut command = world.command(arguments);
        let mut process = command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
        drop(process.stdout.take());
        let ended = process.wait_with_output().unwrap();
        let told = String::from_utf8(ended.stderr).unwrap();
        assert!(ended.status.success() && told.is_empty(), "{arguments:?}: {told}");
    }
}

#[test]
fn what_is_printed_to_nobody_stops_no_sync_and_what_is_lost_is_a_failure() {
    let world = World::new();
    world.write("policy.toml", &rule(""));
    let mut sync = world.command(&["sync", "policy.toml"]);
    let mut sync = sync.stdout(Stdio::null()).stderr(Stdio::piped()).spawn().unwrap();
    drop(sync.stderr.take());
    assert!(sync.wait().unwrap().success());
    let again = world.dray(&["sync", "--output", "json", "policy.toml"]).ok().json();
    assert_eq!(again["summary"]["unchanged"], 9);
    for arguments in
        [&["schema"][..], &["runs", "--output", "json"], &["sync", "--output", "json", "policy.toml"]]
    {
        let full = std::fs::File::options().write(true).open("/dev/full").unwrap();
        let ended = world.command(arguments).stdout(full).output().unwrap();
        let told = String::from_utf8(ended.stderr).unwrap();
        assert!(
            ended.status.code() == Some(1) && told.contains("failed to write to standard output"),
            "{told}"
        );
    }
}
