//! Small commands as a user meets them: tag, diff, ls, inspect, runs, and a policy whose secret is missing.
#![allow(clippy::unwrap_used, clippy::print_stderr, reason = "tests")]

mod support;

use support::{Fake, IMAGES, Ran, Registry, World, has, memory::Memory, respond};

#[test]
fn a_registry_is_listed_compared_and_tagged() {
    if !has("docker-registry") {
        return;
    }
    let world = World::new();
    let registry = Registry::start(&world, "r", "");
    let host = &registry.host;
    for (repository, tags) in
        [("team/a", "[\"1.0.0\", \"1.2.0\"]"), ("team/b", "[\"1.2.0\", \"2.0.0\"]"), ("c", "\"1.2.0\"")]
    {
        world.write(
            "dray.toml",
            &format!("version = 1\n[[rule]]\nfrom = \"{IMAGES}\"\nto = \"docker://{host}/{repository}\"\ntags = {tags}\n"),
        );
        world.dray(&["sync"]).ok();
    }
    assert_eq!(world.dray(&["ls", host]).ok().out, "c\nteam/a\nteam/b\n");
    assert_eq!(world.dray(&["ls", &format!("docker://{host}/team/*")]).ok().out, "team/a\nteam/b\n");
    let [a, b] = ["a", "b"].map(|name| format!("docker://{host}/team/{name}"));
    let differs = world.dray(&["diff", &a, &b]);
    assert_eq!(differs.code, 3, "{}", differs.err);
    for line in ["- 1.0.0 sha256:", "+ 2.0.0 sha256:", "2 differences; 1 tag the same"] {
        assert!(differs.out.contains(line), "{line}\n{}", differs.out);
    }
    // Nothing of an image moves when it gets another tag.
    let tagged = world.dray(&["tag", &format!("{a}:1.2.0"), "stable"]).ok();
    assert!(tagged.out.contains("1 image copied") && tagged.out.contains("0 B sent"), "{}", tagged.out);
    assert_eq!(world.dray(&["diff", &format!("{a}:1.2.0"), &format!("{a}:stable")]).ok().code, 0);
    assert_eq!(world.dray(&["list-tags", &a]).ok().out, "1.0.0\n1.2.0\nstable\n");
    for wrong in ["a/b", "a:b", "-a", ""] {
        let refused = world.dray(&["tag", &format!("{a}:1.2.0"), wrong]);
        assert_eq!(refused.code, 2, "{wrong}: {}", refused.out);
    }
    let images = world.dray(&["diff", "--output", "json", &format!("{a}:1.0.0"), &format!("{b}:2.0.0")]);
    assert_eq!(images.code, 3);
    let what: Vec<String> = images.json()["differences"]
        .as_array()
        .unwrap()
        .iter()
        .map(|one| one["what"].as_str().unwrap().to_owned())
        .collect();
    assert!(what.contains(&"linux/amd64".into()) && what.contains(&"config".into()), "{what:?}");
}

#[test]
fn an_image_is_shown_to_people() {
    let world = World::new();
    let shown = world.dray(&["inspect", &format!("{IMAGES}:1.2.0")]).ok().out;
    for line in
        ["index of   linux/amd64", "created    2026-01-04T00:00:00Z (", "in 2 layers", "labels     org."]
    {
        assert!(shown.contains(line), "{line}\n{shown}");
    }
    assert!(shown.lines().all(|line| line.chars().count() <= 100), "{shown}");
}

#[test]
fn runs_are_found_again() {
    let world = World::new();
    let policy = |tag: &str| {
        format!(
            "version = 1\n[[rule]]\nname = \"a\"\nfrom = \"{IMAGES}\"\nto = \"oci:m\"\ntags = [\"1.0.0\", \"{tag}\"]\n"
        )
    };
    world.write("dray.toml", &policy("1.2.0"));
    world.dray(&["sync"]).ok();
    world.write("dray.toml", &policy("nope"));
    assert_eq!(world.dray(&["sync"]).code, 1);
    let number = |arguments: &[&str]| {
        let runs = world.dray(&[&["runs", "--output", "json"], arguments].concat()).ok().json();
        runs.as_array().unwrap().iter().map(|run| run["id"].as_i64().unwrap()).collect::<Vec<_>>()
    };
    assert_eq!((number(&[]), number(&["--failed"])), (vec![2, 1], vec![2]));
    assert_eq!(
        (number(&["--since", "1h"]), number(&["--since", "0s", "--failed"]).len() <= 1),
        (vec![2, 1], true)
    );
    let of = |arguments: &[&str]| {
        let run = world.dray(&[&["runs", "show", "--output", "json"], arguments].concat()).ok().json();
        run["copies"].as_array().unwrap().len()
    };
    assert_eq!(
        (of(&["1"]), of(&["1", "--failed"]), of(&["1", "--rule", "b"]), of(&["2", "--failed"])),
        (2, 0, 0, 1)
    );
}

#[test]
fn a_plan_fails_where_a_sync_would_for_a_missing_secret() {
    let world = World::new();
    world.write(
        "dray.toml",
        &format!("version = 1\n[registry.\"r.example\"]\nauth = {{ username = \"bob\", password = \"env:NOT_SET\" }}\n[[rule]]\nfrom = \"{IMAGES}\"\nto = \"docker://r.example/a\"\n"),
    );
    for command in ["plan", "sync", "check"] {
        let ran = world.dray(&[command]);
        assert_eq!(ran.code, 2, "{command}: {}", ran.out);
        assert!(ran.err.contains("NOT_SET") && ran.err.contains("dray.toml:3:"), "{command}: {}", ran.err);
    }
}

#[test]
fn a_second_run_of_a_policy_ends_or_waits() {
    let world = World::new();
    // A registry that takes connections and says nothing.
    let silent = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let host = silent.local_addr().unwrap();
    world.write(
        "dray.toml",
        &format!("version = 1\n[registry.\"{host}\"]\ntls = \"off\"\n[[rule]]\nname = \"a\"\nfrom = \"docker://{host}/a:1\"\nto = \"oci:m\"\n"),
    );
    let mut first = world.command(&["sync"]).stderr(std::process::Stdio::null()).spawn().unwrap();
    let (_connection, _) = silent.accept().unwrap();
    let second = world.dray(&["sync"]);
    assert_eq!(second.code, 1);
    let process = format!("another run of it is under way (process {})", first.id());
    assert!(second.err.contains(&process) && second.err.contains("--wait"), "{}", second.err);
    // Who waits goes on when the first one is gone, whatever ended it.
    world.write(
        "dray.toml",
        &format!("version = 1\n[[rule]]\nfrom = \"{IMAGES}\"\nto = \"oci:m\"\ntags = \"1.2.0\"\n"),
    );
    let mut waiting = world.command(&["sync", "--wait"]);
    let waiting = waiting.stdout(std::process::Stdio::piped()).stderr(std::process::Stdio::piped());
    let mut waiting = waiting.spawn().unwrap();
    let mut told = std::io::BufReader::new(waiting.stderr.take().unwrap());
    let mut line = String::new();
    std::io::BufRead::read_line(&mut told, &mut line).unwrap();
    assert!(line.starts_with("waiting for another run of "), "{line}");
    first.kill().unwrap();
    first.wait().unwrap();
    let waited = waiting.wait_with_output().unwrap();
    assert!(String::from_utf8_lossy(&waited.stdout).contains("1 image copied"), "{waited:?}");
}

#[test]
fn a_plan_tells_how_much_would_travel() {
    let world = World::new();
    world.write(
        "dray.toml",
        &format!("version = 1\n[[rule]]\nfrom = \"{IMAGES}\"\nto = \"oci:m\"\ntags = \"1.?.0\"\n"),
    );
    let plan = world.dray(&["plan", "--sizes", "--output", "json"]).ok().json();
    let size = plan["summary"]["size"].as_u64().unwrap();
    assert!(world.dray(&["plan", "--sizes"]).ok().out.contains("to copy, at most "));
    // Every blob is counted once, as it is sent once; manifests are no blobs.
    world.dray(&["sync"]).ok();
    let blobs = world.tool("find", &["m/blobs/sha256", "-type", "f", "-printf", "%s\n"]);
    let mut all: u64 = blobs.lines().map(|line| line.parse::<u64>().unwrap()).sum();
    for entry in std::fs::read_dir(world.path("m/blobs/sha256")).unwrap() {
        let text = std::fs::read(entry.unwrap().path()).unwrap();
        if String::from_utf8_lossy(&text).contains("\"schemaVersion\"") {
            all -= text.len() as u64;
        }
    }
    assert_eq!(size, all);
    assert!(
        plan["copies"]
            .as_array()
            .unwrap()
            .iter()
            .filter(|copy| copy["action"] == "copy")
            .all(|copy| copy["size"].is_u64())
    );
}

/// What dray offers a shell (fish, whose protocol is the simplest) for the last word.
fn offered(world: &World, words: &[&str]) -> Vec<String> {
    let mut command = world.command(&[&["--", "dray"], words].concat());
    let ran = Ran::of(command.env("COMPLETE", "fish")).ok();
    ran.out.lines().map(|line| line.split('\t').next().unwrap().to_owned()).collect()
}

#[test]
fn a_shell_is_offered_schemes_policies_and_rules() {
    let world = World::new();
    let rule = |name: &str| format!("[[rule]]\nname = \"{name}\"\nfrom = \"oci:a:1\"\nto = \"oci:b\"\n");
    world.write("dray.toml", &format!("version = 1\n{}{}", rule("base"), rule("tools")));
    world.write("other.toml", &format!("version = 1\n{}", rule("third")));
    world.write("notes.txt", "");
    assert_eq!(offered(&world, &["sync", "--rule", ""]), ["base", "tools"]);
    assert_eq!(offered(&world, &["plan", "other.toml", "--rule", ""]), ["third"]);
    assert_eq!(offered(&world, &["sync", "o"]), ["other.toml"]);
    assert_eq!(offered(&world, &["copy", "oc"]), ["oci:", "oci-archive:"]);
    assert_eq!(offered(&world, &["copy", "docker-archive:no"]), ["docker-archive:notes.txt"]);
    assert!(offered(&world, &["insp"]).contains(&"inspect".to_owned()));
    for shell in ["bash", "zsh", "fish"] {
        assert!(world.dray(&["completions", shell]).ok().out.contains("COMPLETE"), "{shell}");
    }
}

#[test]
fn several_policies_are_one() {
    let world = World::new();
    let rule = |tag: &str| {
        format!("version = 1\n[[rule]]\nname = \"{tag}\"\nfrom = \"{IMAGES}:{tag}\"\nto = \"oci:mirror\"\n")
    };
    world.write("one.toml", &rule("1.0.0"));
    world.write("two.toml", &rule("1.1.0"));
    world.write("same.toml", &rule("1.0.0"));
    assert!(world.dray(&["check", "one.toml", "two.toml"]).ok().out.contains("2 rules"));
    assert!(world.dray(&["sync", "one.toml", "two.toml"]).ok().out.contains("2 images copied"));
    assert!(
        world.dray(&["plan", "one.toml", "two.toml", "--rule", "1.1.0"]).ok().out.contains("1 unchanged")
    );
    let twice = world.dray(&["check", "one.toml", "same.toml"]);
    assert!(twice.code == 2 && twice.err.contains("two rules are named `1.0.0`"), "{}", twice.err);
    assert!(twice.err.contains("same.toml:3"), "{}", twice.err);
    let absent = world.dray(&["check", "one.toml", "none.toml"]);
    assert!(absent.code == 2 && absent.err.contains("read none.toml"), "{}", absent.err);
    let saved = world.dray(&["plan", "one.toml", "two.toml", "--out", "plan.json"]);
    assert!(saved.code == 2 && saved.err.contains("must be one file"), "{}", saved.err);
}

#[test]
fn a_plan_fails_where_the_destination_refuses_the_login() {
    let world = World::new();
    // Everybody may read, and nobody may write.
    let tokens = Fake::start(|request, stream| match request.split(' ').nth(1).unwrap().contains("push") {
        true => respond(stream, "401 Unauthorized", "", br#"{"details":"no pushes for you"}"#),
        false => respond(stream, "200 OK", "", br#"{"token":"reader"}"#),
    });
    let challenge =
        format!("WWW-Authenticate: Bearer realm=\"http://{}/token\",service=\"r\"\r\n", tokens.host);
    let registry = Memory::odd(move |asked, _| {
        let known = asked.head.to_lowercase().contains("authorization: bearer reader");
        (!known).then(|| ("401 Unauthorized", challenge.clone(), b"{}".to_vec()))
    });
    registry.image("app", "1.0.0", b"layer");
    let host = registry.host();
    world.write(
        "dray.toml",
        &format!("version = 1\n[[rule]]\nfrom = \"{IMAGES}\"\nto = \"docker://{host}/app\"\ntags = [\"1.1.0\", \"1.2.0\"]\n"),
    );
    let plan = world.dray(&["plan"]);
    assert_eq!(plan.code, 1, "{}{}", plan.out, plan.err);
    assert!(plan.out.contains("no pushes for you") && plan.out.contains("2 failed"), "{}", plan.out);
    let asked = tokens.requests().iter().filter(|request| request.contains("push")).count();
    assert_eq!(asked, 1, "one login for all images of a destination");
    // A source is only read.
    world.write(
        "dray.toml",
        &format!("version = 1\n[[rule]]\nfrom = \"docker://{host}/app\"\nto = \"oci:mirror\"\n"),
    );
    world.dray(&["plan"]).ok();
}

#[test]
fn a_check_is_told_to_machines() {
    let world = World::new();
    let rule = "[[rule]]\nname = \"a\"\nfrom = \"oci:a:1\"\nto = \"oci:b\"\n";
    world.write("dray.toml", &format!("version = 1\n[registry.\"unused.example\"]\n{rule}"));
    let sound = world.dray(&["check", "--output", "json"]).ok().json();
    assert_eq!((&sound["sound"], &sound["rules"]), (&true.into(), &serde_json::json!(["a"])));
    assert_eq!((&sound["warnings"][0]["line"], &sound["mistakes"]), (&2.into(), &serde_json::json!([])));
    world.write("dray.toml", &format!("version = 1\n{rule}tgas = 3\n"));
    let wrong = world.dray(&["check", "--output", "json"]);
    assert_eq!(wrong.code, 2);
    let mistake = &wrong.json()["mistakes"][0];
    assert_eq!(
        (&mistake["file"], &mistake["line"], &mistake["column"]),
        (&"dray.toml".into(), &6.into(), &1.into())
    );
    assert_eq!(
        (&mistake["message"], &mistake["help"]),
        (&"a rule has no key `tgas`".into(), &"did you mean `tags`?".into())
    );
}

#[test]
fn a_plan_fails_where_a_password_is_wrong() {
    if !has("docker-registry") || !has("htpasswd") {
        return;
    }
    let world = World::new();
    let users = world.tool("htpasswd", &["-Bbn", "user", "right"]);
    let users = world.write("users", &users);
    let registry = Registry::start(
        &world,
        "registry",
        &format!("  htpasswd: {{ realm: here, path: {} }}", users.display()),
    );
    world.write("password", "right");
    let policy = |keys: &str| {
        world.write(
            "dray.toml",
            &format!(
                "version = 1\n[registry.\"{}\"]\n{keys}\n[[rule]]\nfrom = \"{IMAGES}\"\nto = \"docker://{0}/app\"\ntags = [\"1.1.0\", \"1.2.0\"]\n",
                registry.host
            ),
        )
    };
    policy("auth = { username = \"user\", password = \"file:password\" }");
    assert!(world.dray(&["plan"]).ok().out.contains("2 images to copy"));
    world.write("password", "wrong");
    let refused = world.dray(&["plan"]);
    assert!(refused.code == 1 && refused.out.contains("2 failed"), "{}", refused.out);
    assert!(refused.out.contains("help: "), "{}", refused.out);
    policy("");
    let nobody = world.dray(&["plan"]);
    assert!(nobody.code == 1 && nobody.out.contains("no credentials for"), "{}", nobody.out);
}
