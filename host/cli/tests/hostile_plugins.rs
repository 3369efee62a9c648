//! A plugin that breaks every promise: the report names it and what it did, other rules go on, and dray stays small.
#![allow(clippy::unwrap_used, clippy::print_stderr, reason = "tests")]

mod support;

use std::{
    io::Write,
    process::Stdio,
    time::{Duration, Instant},
};
use support::{Fake, World, respond};

/// Each deed when an image is read, and what the report says of it.
const DEEDS: [(&str, &str); 21] = [
    ("spin", "1s"),
    ("recurse", "wasm trap"),
    ("allocate", "memory"),
    ("panic", "cheese"),
    ("ask-name", "may only ask 127.0.0.1"),
    ("ask-address", "may only ask 127.0.0.1"),
    ("ask-mapped", "may only ask 127.0.0.1"),
    ("ask-user", "may only ask 127.0.0.1"),
    ("redirect", "not granted that host"),
    ("climb", "led outside"),
    ("absolute", "led outside"),
    ("link", "led outside"),
    ("segments", "200000 pieces"),
    ("fetch", "may only ask 127.0.0.1"),
    ("endless", "it is longer than"),
    ("wrong", "digest"),
    ("upload", "broke off 8 times"),
    ("steps", "step after step"),
    ("state", "step after step"),
    ("flood", ""),
    ("honest", ""),
];

/// The largest resident size of a process in MiB, as long as it runs.
fn peak(process: &mut std::process::Child) -> u64 {
    let (mut most, begun) = (0, Instant::now());
    while process.try_wait().unwrap().is_none() {
        assert!(begun.elapsed() < Duration::from_secs(120), "dray hangs");
        let status = std::fs::read_to_string(format!("/proc/{}/status", process.id())).unwrap_or_default();
        let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:"));
        let kib = line.and_then(|line| line.trim().split(' ').next()?.parse::<u64>().ok());
        most = kib.unwrap_or(0).max(most);
        std::thread::sleep(Duration::from_millis(20));
    }
    most >> 10
}

#[test]
fn a_plugin_that_breaks_every_promise_is_named_and_harms_nobody() {
    if !support::builds_plugins() {
        return;
    }
    let world = World::new();
    support::build_plugin(&world, "host/cli/tests/hostile_plugin", "hostile.wasm");
    support::images::seed(&world);
    world.write("secret", "a secret beside the place");
    world.write("place/inside", "x");
    std::os::unix::fs::symlink("../secret", world.path("place/link")).unwrap();

    let other = Fake::start(|_, stream| respond(stream, "200 OK", "", b"the secret of another server"));
    let elsewhere = other.host.clone();
    let server = Fake::start(move |request, stream| match request.split(' ').nth(1) {
        Some("/redirect") => {
            respond(stream, "302 Found", &format!("Location: http://{elsewhere}/\r\n"), b"");
        }
        Some("/endless") => {
            let _ = stream.write_all(b"HTTP/1.1 200 OK\r\nConnection: close\r\n\r\n");
            while stream.write_all(&[b'x'; 65536]).is_ok() {}
        }
        _ => respond(stream, "202 Accepted", "", b""),
    });

    let host = &server.host;
    let rules = DEEDS.map(|(deed, _)| match deed {
        "upload" | "steps" | "state" => {
            format!("[[rule]]\nfrom = \"oci:seed\"\nto = \"hostile:{host}/{deed}:1\"\ntags = [\"single\"]\n")
        }
        _ => format!("[[rule]]\nfrom = \"hostile:{host}/{deed}:1\"\nto = \"oci:out/{deed}\"\n"),
    });
    let policy = format!(
        "version = 1\n[registry.\"{host}\"]\ntls = \"off\"\n[plugin.hostile]\nsource = \"hostile.wasm\"\n\
         grant = {{ files = [\"place\"] }}\nlimits = {{ memory = \"64MiB\", call = \"1s\" }}\n{}[[rule]]\nfrom = \"oci:seed\"\nto = \"oci:good\"\n",
        rules.concat()
    );
    world.write("dray.toml", &policy);
    let mut command = world.command(&["sync", "--output", "json"]);
    let (out, err) = (world.path("out.json"), world.path("err"));
    command.stdin(Stdio::null());
    command.stdout(std::fs::File::create(&out).unwrap()).stderr(std::fs::File::create(&err).unwrap());
    let mut process = command.spawn().unwrap();
    let most = peak(&mut process);
    let told = std::fs::read_to_string(&err).unwrap() + &std::fs::read_to_string(&out).unwrap();
    assert_eq!(process.wait().unwrap().code(), Some(1));

    let report: serde_json::Value = serde_json::from_str(&std::fs::read_to_string(&out).unwrap()).unwrap();
    for (deed, said) in DEEDS {
        let at = format!("hostile:{host}/{deed}:1");
        let copies = report["copies"].as_array().unwrap();
        let copy = copies.iter().find(|copy| copy["source"] == *at || copy["destination"] == *at).unwrap();
        match copy["error"].as_str() {
            None => {
                assert!(said.is_empty() && world.path(&format!("out/{deed}/index.json")).exists(), "{copy}")
            }
            Some(error) => {
                assert!(!said.is_empty() && error.contains(said), "{deed} should say `{said}`: {error}");
                assert!(!world.path(&format!("out/{deed}/index.json")).exists(), "{deed}");
            }
        }
    }
    assert!(world.path("good/index.json").exists());
    assert!(told.contains("logs very much") && told.len() < 4 << 20, "{} bytes", told.len());
    assert_eq!(other.requests(), Vec::<String>::new());
    assert!(!told.contains("a secret beside"));
    assert!(most < 400, "{most} MiB");
}

#[test]
fn a_provider_gets_no_secret_that_was_not_granted() {
    if !support::builds_plugins() {
        return;
    }
    let world = World::new();
    support::build_plugin(&world, "host/cli/tests/hostile_provider", "provider.wasm");
    support::images::seed(&world);
    let registry =
        Fake::start(|request, stream| match request.to_ascii_lowercase().contains("authorization:") {
            true => respond(stream, "404 Not Found", "", b""),
            false => respond(stream, "401 Unauthorized", "WWW-Authenticate: Basic realm=\"x\"\r\n", b""),
        });
    let host = &registry.host;
    let policy = |grant: &str, name: &str| {
        format!(
            "version = 1\n[plugin.provider]\nsource = \"provider.wasm\"\n{grant}[registry.\"{host}\"]\ntls = \"off\"\n\
             auth = {{ provider = \"provider\", name = \"{name}\" }}\n[[rule]]\nfrom = \"docker://{host}/app:1\"\n\
             to = \"oci:app\"\n[[rule]]\nfrom = \"oci:seed\"\nto = \"oci:good\"\n"
        )
    };
    // `hunter2` in Base64, after `thief:`.
    let is_sent = || registry.requests().iter().any(|request| request.contains("dGhpZWY6aHVudGVyMg=="));
    let run = |grant: &str, name: &str| {
        world.write("dray.toml", &policy(grant, name));
        support::Ran::of(world.command(&["sync"]).env(name, "hunter2"))
    };
    let refused = run("", "OTHER");
    assert!(
        refused.err.contains("read the secret env:OTHER: the policy does not grant it"),
        "{}",
        refused.err
    );
    assert!(refused.code == 1 && !is_sent() && !refused.err.contains("hunter2"), "{}", refused.err);
    assert!(world.path("good/index.json").exists(), "{}", refused.err);
    // Nor does it get what is granted and what it has not asked for.
    let both = "grant = { secrets = [\"env:OTHER\", \"env:SECOND\"] }\n";
    let unasked = run(both, "SECOND");
    assert!(unasked.err.contains("the secret env:SECOND: the policy does not grant it"), "{}", unasked.err);
    assert!(!is_sent(), "{}", unasked.err);
    let checked = world.dray(&["check"]).ok();
    let told = "does not ask for secrets = [\"env:SECOND\"], and does not get it";
    assert!(checked.out.contains(told), "{}", checked.out);
    // With the grant it is sent, so the test can tell.
    run(both, "OTHER");
    assert!(is_sent());
}
