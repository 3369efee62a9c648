//! dray in pipelines: shards, and the files in `action.yml`, `integrations/` and `Dockerfile`.
#![allow(clippy::unwrap_used, clippy::print_stderr, reason = "tests")]

mod support;

use dray_core::Yaml;
use std::{
    collections::BTreeSet,
    fs,
    os::unix::fs::PermissionsExt,
    path::{Path, PathBuf},
    process::Command,
};
use support::{Fake, Ran, World, has, is_root, memory::Memory};

fn top() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../..").canonicalize().unwrap()
}

fn documents(path: &str) -> Vec<Yaml> {
    Yaml::documents(&fs::read_to_string(top().join(path)).unwrap()).unwrap()
}

#[test]
fn shards_share_the_work_and_no_two_write_to_one_repository() {
    let world = World::new();
    let (from, to) = (Memory::start(), Memory::start());
    for number in 0..12 {
        from.image(&format!("team/app-{number}"), "1", format!("layer {number}").as_bytes());
        from.image(&format!("team/app-{number}"), "2", format!("other {number}").as_bytes());
    }
    let numbers: Vec<String> = (0..12).map(|number| number.to_string()).collect();
    world.write(
        "dray.toml",
        &format!(
            "version = 1\n[[rule]]\nfrom = \"docker://{}/team/app-{{{}}}\"\nto = \"docker://{}/{{path}}\"\n",
            from.host(),
            numbers.join(","),
            to.host()
        ),
    );
    let planned = |shard: &str| {
        let plan = world.dray(&["plan", "--shard", shard, "--output", "json"]).ok().json();
        let repository = |copy: &serde_json::Value| {
            copy["destination"].as_str().unwrap().rsplit_once(':').unwrap().0.to_owned()
        };
        let mut repositories: Vec<String> =
            plan["copies"].as_array().unwrap().iter().map(repository).collect();
        repositories.sort();
        repositories
    };
    let parts: Vec<Vec<String>> = ["0/3", "1/3", "2/3"].map(planned).into();
    let each: Vec<BTreeSet<&String>> = parts.iter().map(|part| part.iter().collect()).collect();
    assert_eq!(parts.iter().map(Vec::len).sum::<usize>(), 24, "{parts:?}");
    assert_eq!(each.iter().map(BTreeSet::len).sum::<usize>(), 12, "a repository is in one part: {parts:?}");
    // It is the same each time, and a sync does what the plan says.
    assert_eq!(planned("1/3"), parts[1]);
    let synced = world.dray(&["sync", "--shard", "1/3"]).ok();
    assert!(synced.out.contains(&format!("{} images copied", parts[1].len())), "{}", synced.out);
    for shard in ["0/3", "2/3"] {
        world.dray(&["sync", "--shard", shard]).ok();
    }
    let all = world.dray(&["sync"]).ok();
    assert!(all.out.contains("0 images copied, 24 unchanged"), "{}", all.out);
    let wrong = world.dray(&["sync", "--shard", "3/3"]);
    assert!(wrong.code == 2 && wrong.err.contains("0/3 to 2/3"), "{}", wrong.err);
}

/// Runs a script of the action as a runner does.
fn script(world: &World, name: &str, variables: &[(&str, &str)]) -> Ran {
    let mut command = world.hermetic("bash");
    let path = std::env::var("PATH").unwrap();
    command.arg(top().join("integrations/github").join(name));
    command.env("PATH", format!("{}:{path}", world.path("bin").display()));
    for (variable, file) in [("GITHUB_PATH", "paths"), ("GITHUB_OUTPUT", "outputs"), ("RUNNER_TEMP", "temp")]
    {
        command.env(variable, world.path(file));
    }
    command.envs(variables.iter().copied());
    Ran::of(&mut command)
}

#[test]
fn the_action_installs_only_what_its_checksum_says_and_runs_it() {
    if !has("curl") || cfg!(not(target_arch = "x86_64")) {
        return;
    }
    let world = World::new();
    for folder in ["bin", "temp", "dray-0.1.0-x86_64-unknown-linux-gnu"] {
        fs::create_dir_all(world.path(folder)).unwrap();
    }
    let name = "dray-0.1.0-x86_64-unknown-linux-gnu";
    let program = world.path(&format!("{name}/dray"));
    fs::copy(env!("CARGO_BIN_EXE_dray"), &program).unwrap();
    fs::set_permissions(&program, fs::Permissions::from_mode(0o755)).unwrap();
    world.tool("tar", &["czf", "archive.tar.gz", name]);
    let archive = fs::read(world.path("archive.tar.gz")).unwrap();
    let digest = dray_core::Digest::of(&archive).hex();
    let sum = format!("{digest}  {name}.tar.gz\n");
    let releases = Fake::start_raw(move |head, _, stream| {
        let path = head.split(' ').nth(1).unwrap();
        let body: &[u8] = match path {
            "/v0.1.0/dray-0.1.0-x86_64-unknown-linux-gnu.tar.gz" => &archive,
            "/v0.1.0/dray-0.1.0-x86_64-unknown-linux-gnu.tar.gz.sha256" => sum.as_bytes(),
            _ => return support::memory::answer(stream, "GET", "404 Not Found", "", b""),
        };
        support::memory::answer(stream, "GET", "200 OK", "", body);
    });
    let from = format!("http://{}", releases.host);
    let install = |more: &[(&str, &str)]| {
        script(&world, "install.sh", &[&[("DRAY_RELEASES", from.as_str())], more].concat())
    };
    for version in ["", "main", "v1", "v0.1.0; touch broken", "../v0.1.0"] {
        let wrong = install(&[("DRAY_VERSION", version)]);
        assert!(wrong.code == 2 && wrong.out.contains("::error::"), "{version}: {}", wrong.out);
    }
    let other = "0".repeat(64);
    let wrong = install(&[("DRAY_VERSION", "v0.1.0"), ("DRAY_SHA256", &other)]);
    assert!(wrong.code != 0 && !world.path("paths").exists(), "{}", wrong.out);
    install(&[("DRAY_VERSION", "v0.1.0"), ("DRAY_SHA256", &digest)]).ok();
    let installed = install(&[("DRAY_VERSION", "v0.1.0")]).ok();
    assert!(installed.out.contains("dray 0.1.0"), "{}", installed.out);
    assert!(fs::read_to_string(world.path("paths")).unwrap().contains("temp/dray"));

    fs::copy(world.path("temp/dray/dray"), world.path("bin/dray")).unwrap();
    world.write(
        "a policy.toml",
        &format!(
            "version = 1\n[[rule]]\nname = \"one rule\"\nfrom = \"{}:1.0.0\"\nto = \"oci:out\"\n",
            support::IMAGES
        ),
    );
    let run = |command: &str, args: &str| {
        let inputs = [("DRAY_COMMAND", command), ("DRAY_POLICY", "a policy.toml"), ("DRAY_ARGS", args)];
        script(&world, "run.sh", &inputs)
    };
    let checked = run("check", "").ok();
    assert!(checked.out.contains("is sound"), "{}", checked.out);
    run("sync", "--rule\none rule\n\n").ok();
    let outputs = fs::read_to_string(world.path("outputs")).unwrap();
    let report = outputs.lines().next_back().unwrap().strip_prefix("report=").unwrap();
    let report: serde_json::Value = serde_json::from_str(&fs::read_to_string(report).unwrap()).unwrap();
    assert_eq!(report["summary"]["copied"], 1);
    assert_eq!(run("sync", "--rule\nanother\n").code, 2);
    let wrong = run("sync; touch broken", "");
    assert!(wrong.code == 2 && wrong.out.contains("::error::"), "{}", wrong.out);
    assert!(!world.path("broken").exists());
}

/// The arguments of the containers beneath a value, wherever they are.
fn arguments(value: &Yaml, found: &mut Vec<Vec<String>>) {
    for (key, value) in value.entries() {
        let list: Option<Vec<String>> =
            value.items().iter().map(|item| item.text().map(str::to_owned)).collect();
        match list.filter(|list| key == "args" && !list.is_empty()) {
            Some(list) => found.push(list),
            None => arguments(value, found),
        }
    }
    for item in value.items() {
        arguments(item, found);
    }
}

#[test]
fn what_the_files_for_clusters_say_is_what_dray_takes() {
    let world = World::new();
    let mut found = Vec::new();
    for path in [
        "integrations/kubernetes/cronjob.yaml",
        "integrations/kubernetes/indexed-job.yaml",
        "integrations/tekton/task.yaml",
    ] {
        documents(path).iter().for_each(|document| arguments(document, &mut found));
    }
    assert_eq!(found.len(), 3, "{found:?}");
    let policy = documents("integrations/kubernetes/cronjob.yaml");
    let policy = policy[0].get("data").and_then(|data| data.get("dray.toml")).and_then(Yaml::text).unwrap();
    let policy = world.write("dray.toml", policy).display().to_string();
    // What a cluster fills in. A plan asks a registry, so what is taken is seen by the help.
    for arguments in found {
        let filled = arguments.iter().filter(|argument| !argument.contains("params.args")).map(|argument| {
            argument
                .replace("/etc/dray/dray.toml", &policy)
                .replace("$(params.policy)", &policy)
                .replace("$(params.command)", "check")
                .replace("$(JOB_COMPLETION_INDEX)", "3")
        });
        let filled: Vec<String> = filled.chain(["--help".to_owned()]).collect();
        let filled: Vec<&str> = filled.iter().map(String::as_str).collect();
        assert!(!filled.iter().any(|argument| argument.contains('$')), "{filled:?}");
        world.dray(&filled).ok();
    }
    world.dray(&["check", &policy]).ok();
    // GitLab's jobs are shell commands.
    for document in documents("integrations/gitlab/dray.gitlab-ci.yml") {
        let scripts = document.entries().iter().filter_map(|(_, job)| job.get("script"));
        let lines: Vec<&str> = scripts.flat_map(|script| script.items()).filter_map(Yaml::text).collect();
        assert_eq!(lines.len(), 3);
        for line in lines {
            let mut words: Vec<&str> = line.split('>').next().unwrap().split_whitespace().skip(1).collect();
            words.retain(|word| *word != "\"$DRAY_POLICY\"");
            words.push("--help");
            world.dray(&words).ok();
        }
    }
}

#[test]
fn the_image_is_the_program_alone_and_not_root_s() {
    if !has("podman") || !is_root() {
        return;
    }
    let world = World::new();
    // The program is not compiled for it here, so its stage is replaced by a folder with what that stage leaves.
    for folder in ["built/etc/ssl/certs", "built/data", "built/scratch"] {
        fs::create_dir_all(world.path(folder)).unwrap();
    }
    world.write("built/etc/ssl/certs/ca-certificates.crt", "certificates");
    world.write("built/dray", "program");
    let stores = [
        "--root".to_owned(),
        world.path("store").display().to_string(),
        "--runroot".to_owned(),
        world.path("run").display().to_string(),
    ];
    let podman = |arguments: &[&str]| {
        let mut command = Command::new("podman");
        command.args(&stores).args(["--storage-driver", "vfs"]).args(arguments);
        Ran::of(&mut command).ok()
    };
    let (stage, folder) =
        (format!("build={}", world.path("built").display()), world.path("built").display().to_string());
    let file = top().join("Dockerfile").display().to_string();
    podman(&[
        "build",
        "--isolation",
        "chroot",
        "--target",
        "dray",
        "--build-context",
        &stage,
        "-t",
        "dray",
        "-f",
        &file,
        &folder,
    ]);
    let config = podman(&["inspect", "dray", "--format", "{{json .Config}}"]).json();
    assert_eq!(
        (config["User"].as_str(), config["Entrypoint"][0].as_str()),
        (Some("65532:65532"), Some("/dray"))
    );
    let kept: Vec<&str> = config["Env"].as_array().unwrap().iter().filter_map(|one| one.as_str()).collect();
    assert!(kept.contains(&"XDG_STATE_HOME=/data/state"), "{kept:?}");
}
