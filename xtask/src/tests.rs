//! `cargo xtask test`: all tests.

use anyhow::{Result, ensure};
use std::{path::Path, process::Command};

/// The programs that the tests run, each with the Debian package that contains it.
const PROGRAMS: [(&str, &str); 11] = [
    ("docker-registry", "docker-registry"),
    ("skopeo", "skopeo"),
    ("podman", "podman"),
    ("runc", "runc"),
    ("dockerd", "docker.io"),
    ("openssl", "openssl"),
    ("gpg", "gnupg"),
    ("htpasswd", "apache2-utils"),
    ("busybox", "busybox-static"),
    ("clang-19", "clang-19"),
    ("mkfs.btrfs", "btrfs-progs"),
];

/// The examples of plugins in Rust, each of which is a workspace of its own.
pub const EXAMPLES: [&str; 5] = ["attested", "bucket", "bucket-login", "calver", "vault"];

/// What compiles an example in the folder of `plugins`, as most of it is the same.
pub const SHARED: &str = "--target-dir=../../../plugins/target";

fn is_there(program: &str) -> bool {
    let folders = std::env::var_os("PATH").unwrap_or_default();
    std::env::split_paths(&folders).any(|folder| folder.join(program).exists())
}

fn missing() -> Vec<(&'static str, &'static str)> {
    PROGRAMS.into_iter().filter(|(program, _)| !is_there(program)).collect()
}

/// Runs a command in a folder of the repository.
pub fn step(folder: &str, program: &str, arguments: &[&str]) -> Result<()> {
    println!("\n== {program} {}", arguments.join(" "));
    let status = Command::new(program)
        .args(arguments)
        .current_dir(crate::top().join(folder))
        .env("CARGO_TERM_COLOR", "auto")
        .status()?;
    ensure!(status.success(), "`{program} {}` failed", arguments.join(" "));
    Ok(())
}

/// Installs what the tests need, if apt is installed and the user is root, and runs every test.
pub fn run() -> Result<()> {
    let root = std::env::var("USER").is_ok_and(|user| user == "root")
        || Path::new("/root").metadata().is_ok() && std::fs::read_dir("/root").is_ok();
    if !missing().is_empty() && is_there("apt-get") && root {
        let packages: Vec<&str> = missing().into_iter().map(|(_, package)| package).collect();
        step("", "apt-get", &["update", "-qq"])?;
        step(
            "",
            "apt-get",
            &[&["install", "-y", "-qq", "--no-install-recommends"], packages.as_slice()].concat(),
        )?;
    }
    for (program, package) in missing() {
        println!("left out: the tests against {program} (install {package} to run them)");
    }
    for name in ["calver", "attested"] {
        match crate::plugins::build_one(&crate::top().join("examples/plugins").join(name)) {
            Ok(()) => {}
            Err(error) => println!("left out: the example plugin {name}: {error:#}"),
        }
    }
    step("", "cargo", &["test", "--workspace", "--locked"])?;
    step("plugins", "cargo", &["test", "--workspace", "--locked"])?;
    for name in EXAMPLES {
        step(&format!("examples/plugins/{name}"), "cargo", &["test", "--locked", SHARED])?;
    }
    Ok(())
}
