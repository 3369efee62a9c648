//! `dray login` and `dray logout`: other tools use what dray keeps, and the reverse.
#![allow(clippy::unwrap_used, clippy::print_stderr, reason = "tests")]

mod support;

use std::{
    fs,
    io::Write,
    os::unix::fs::PermissionsExt,
    process::{Command, Stdio},
};
use support::{IMAGES, Ran, Registry, World, has};

/// A registry that wants the password `right` of `user`.
fn guarded(world: &World) -> Registry {
    let users = world.tool("htpasswd", &["-Bbn", "user", "right"]);
    let users = world.write("users", &users);
    Registry::start(world, "registry", &format!("  htpasswd: {{ realm: here, path: {} }}", users.display()))
}

/// Runs dray with a text on standard input.
fn typed(world: &World, arguments: &[&str], text: &str) -> Ran {
    let mut command: Command = world.command(arguments);
    let piped = command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
    let mut child = piped.spawn().unwrap();
    child.stdin.take().unwrap().write_all(text.as_bytes()).unwrap();
    let output = child.wait_with_output().unwrap();
    let text = |bytes: Vec<u8>| String::from_utf8_lossy(&bytes).into_owned();
    Ran { code: output.status.code().unwrap_or(-1), out: text(output.stdout), err: text(output.stderr) }
}

#[test]
fn a_login_is_checked_kept_and_forgotten() {
    if !["docker-registry", "htpasswd", "skopeo"].iter().all(|program| has(program)) {
        return;
    }
    let world = World::new();
    let registry = guarded(&world);
    let host = registry.host.as_str();
    let kept = world.path("run/containers/auth.json");
    let wrong = typed(&world, &["login", "-u", "user", "--password-stdin", host], "wrong\n");
    assert_eq!(wrong.code, 1, "{}", wrong.out);
    assert!(wrong.err.contains("refused the credentials from the command line"), "{}", wrong.err);
    assert!(!wrong.err.contains("wrong\"") && !kept.exists(), "{}", wrong.err);
    let right = typed(&world, &["login", "-u", "user", "--password-stdin", host], "right\n").ok();
    assert!(right.out.contains(&format!("logged in to {host}")), "{}", right.out);
    assert_eq!(fs::metadata(&kept).unwrap().permissions().mode() & 0o777, 0o600);
    assert_eq!(world.dray(&["login", "--get-login", host]).ok().out, "user\n");
    // dray and skopeo use it.
    let image = format!("docker://{host}/app:1");
    world.dray(&["copy", "--all", &format!("{IMAGES}:1.0.0"), &image]).ok();
    let skopeo = |arguments: &[&str]| Ran::of(world.hermetic("skopeo").args(arguments)).ok();
    skopeo(&["inspect", "--raw", "--tls-verify=false", &image]);
    world.dray(&["logout", host]).ok();
    assert!(world.dray(&["inspect", &image]).err.contains("no credentials for"));
    let again = world.dray(&["logout", host]);
    assert!(again.code == 1 && again.err.contains("nobody is logged in"), "{}", again.err);
    // What skopeo keeps, dray forgets.
    skopeo(&["login", "--tls-verify=false", "-u", "user", "-p", "right", host]);
    assert_eq!(world.dray(&["login", "--get-login", host]).ok().out, "user\n");
    world.dray(&["inspect", &image]).ok();
    world.dray(&["logout", "--all"]).ok();
    assert!(!fs::read_to_string(&kept).unwrap().contains(host));
    // A password on the command line works, and is warned of.
    let open = world.dray(&["login", "-u", "user", "-p", "right", host]).ok();
    assert!(open.err.contains("other users of this machine can read a password"), "{}", open.err);
    for (arguments, text) in [
        (&["login", "--password-stdin", host][..], "needs --username"),
        (&["login", "-u", "user", host], "standard input is no terminal"),
        (&["login", "-u", "user", "-p", "", host], "the password is empty"),
        (&["login", "-u", "a:b", "-p", "x", host], "the user name is empty, or has a colon"),
        (&["login", "-u", "user", "-p", "x", "a b"], "it is no registry"),
    ] {
        let refused = world.dray(arguments);
        assert!(refused.code == 2 && refused.err.contains(text), "{text}: {}", refused.err);
    }
}

#[test]
fn what_else_is_in_the_file_stays_and_helpers_keep_their_logins() {
    let world = World::new();
    let registry = support::memory::Memory::start();
    let host = registry.host();
    let text = r#"{"HttpHeaders":{"x":"y"},"credHelpers":{"helped.example":"mine"},"auths":{"other.example":{"auth":"dTpw"}}}"#;
    let file = world.write("auth.json", text);
    let file = file.to_str().unwrap();
    let open = typed(&world, &["login", "-u", "u", "--password-stdin", "--authfile", file, host], "p").ok();
    assert!(open.err.contains("asks nobody for a login"), "{}", open.err);
    let kept: serde_json::Value = serde_json::from_str(&fs::read_to_string(file).unwrap()).unwrap();
    assert_eq!(
        (&kept["HttpHeaders"]["x"], &kept["auths"]["other.example"]["auth"]),
        (&"y".into(), &"dTpw".into())
    );
    assert_eq!(kept["auths"][host]["auth"], "dTpw");
    // A helper gets the login on its standard input.
    let helper = "#!/bin/sh\necho \"$1\" >> \"$OUT\"\ncat >> \"$OUT\"\n";
    let helper = world.write("bin/docker-credential-mine", helper);
    fs::set_permissions(&helper, fs::Permissions::from_mode(0o755)).unwrap();
    world.write("auth.json", &format!(r#"{{"credHelpers":{{"{host}":"mine"}}}}"#));
    let run = |arguments: &[&str], text: &str| {
        let path = std::env::var("PATH").unwrap();
        let mut command = world.command(arguments);
        command.env("PATH", format!("{}:{path}", world.path("bin").display())).env("OUT", world.path("out"));
        let mut child = command.stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().unwrap();
        child.stdin.take().unwrap().write_all(text.as_bytes()).unwrap();
        assert!(child.wait_with_output().unwrap().status.success());
    };
    run(&["login", "-u", "u", "--password-stdin", "--authfile", file, host], "s3cret");
    run(&["logout", "--authfile", file, host], "");
    let out = fs::read_to_string(world.path("out")).unwrap();
    assert!(out.starts_with("store\n{") && out.contains("\"Secret\":\"s3cret\""), "{out}");
    assert!(out.contains(&format!("erase\n{host}")), "{out}");
    assert!(!fs::read_to_string(file).unwrap().contains("auths"));
    // A file that is broken is left alone.
    world.write("auth.json", "{ broken");
    let broken = typed(&world, &["login", "-u", "u", "--password-stdin", "--authfile", file, host], "p");
    assert!(broken.code == 1 && broken.err.contains("it is no JSON"), "{}", broken.err);
    assert_eq!(fs::read_to_string(file).unwrap(), "{ broken");
}
