//! A sync confines itself to what its policy names (Landlock). That nothing else can be opened then is tested beside the
//! code (`src/sandbox.rs`), in a thread that is confined; here, that a sync is.
#![allow(clippy::unwrap_used, clippy::print_stderr, reason = "a test")]

mod support;

use std::time::Duration;
use support::{Fake, Killed, World, until};

/// Whether the process may gain privileges: who is confined may not (landlock_restrict_self(2)).
fn no_new_privileges(world: &World, more: &[&str]) -> bool {
    // A registry that does not answer, so that the process is there to be looked at.
    let fake = Fake::start(|_, _| std::thread::sleep(Duration::from_secs(60)));
    let policy = format!(
        "version = 1\n[[rule]]\nname = \"a\"\nfrom = \"docker://{}/app:1\"\nto = \"oci:out\"\n",
        fake.host
    );
    let path = world.write("p.toml", &policy);
    let running = Killed::start(world.command(&[&["sync", path.to_str().unwrap()], more].concat()));
    until("the sync asks", || !fake.requests().is_empty());
    let status = std::fs::read_to_string(format!("/proc/{}/status", running.0.id())).unwrap();
    status.lines().any(|line| line.split_ascii_whitespace().eq(["NoNewPrivs:", "1"]))
}

#[test]
fn a_sync_confines_itself_unless_it_is_told_not_to() {
    let world = World::new();
    assert!(!no_new_privileges(&world, &["--no-sandbox"]));
    let modules = std::fs::read_to_string("/sys/kernel/security/lsm").unwrap_or_default();
    if !modules.contains("landlock") && !no_new_privileges(&world, &[]) {
        eprintln!("left out: this kernel has no Landlock");
        return;
    }
    assert!(no_new_privileges(&world, &[]));
    // A program that keeps passwords needs files of its own.
    world.write("auth.json", r#"{"credsStore":"pass"}"#);
    let named = world.path("auth.json");
    let policy = "version = 1\n[[rule]]\nname = \"a\"\nfrom = \"oci:none:1\"\nto = \"oci:out\"\n";
    let policy = world.write("files.toml", policy);
    let told = world
        .command(&["-v", "sync", policy.to_str().unwrap()])
        .env("REGISTRY_AUTH_FILE", &named)
        .output()
        .unwrap();
    assert!(String::from_utf8_lossy(&told.stderr).contains("not confined"));
}
