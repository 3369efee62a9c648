//! `cargo xtask gates`: the checks that are not tests.

use crate::tests::{EXAMPLES, SHARED, step};
use anyhow::{Result, ensure};
use std::process::Command;

/// Checks formatting and lints of a workspace. `more` is what clippy is told beside.
fn lint(folder: &str, more: &[&str]) -> Result<()> {
    step(folder, "cargo", &["fmt", "--all", "--check"])?;
    let clippy = ["clippy", "--workspace", "--all-targets", "--locked"];
    step(folder, "cargo", &[&clippy, more, &["--", "-D", "warnings"]].concat())
}

/// Checks formatting, lints, documentation and dependencies, of the host and of the plugins.
pub fn run() -> Result<()> {
    crate::reference::check()?;
    lint("", &[])?;
    lint("plugins", &[])?;
    for name in EXAMPLES {
        lint(&format!("examples/plugins/{name}"), &[SHARED])?;
    }
    step(
        "",
        "env",
        &[
            "RUSTDOCFLAGS=-D warnings",
            "cargo",
            "doc",
            "--workspace",
            "--no-deps",
            "--locked",
            "--document-private-items",
        ],
    )?;
    // The crates of the SDK can be published as they are.
    let crates = ["", "-filter", "-auth", "-dialect", "-transport", "-source", "-verifier", "-sign"];
    let packages: Vec<String> = crates.iter().map(|name| format!("--package=dray-plugin{name}")).collect();
    let mut package = vec!["package", "--quiet", "--allow-dirty", "--no-verify"];
    package.extend(packages.iter().map(String::as_str));
    step("plugins", "cargo", &package)?;
    // A program that embeds dray without components.
    let without = ["--package", "dray-session", "--no-default-features", "--test", "without"];
    step("", "cargo", &[&["test", "--locked"], &without[..]].concat())?;
    // The fuzz targets are compiled for a fuzzer elsewhere. This only checks that they still compile.
    step(
        "",
        "cargo",
        &["check", "--locked", "--target-dir", "target", "--manifest-path", "fuzz/Cargo.toml"],
    )?;
    // The example is a program of its own, as any user of the crates would write it. It is checked as that, and run as the
    // workspace has built it for the tests.
    let manifest = ["--manifest-path", "examples/embed/Cargo.toml"];
    step("", "cargo", &[&["check", "--locked", "--target-dir", "target"], &manifest[..]].concat())?;
    let mirror = std::env::temp_dir().join(format!("dray-embed-{}", std::process::id()));
    // With the whole workspace, so that its features are those of the tests and little is built anew.
    step("", "cargo", &["build", "--workspace", "--examples", "--locked"])?;
    let embed = crate::top().join("target/debug/examples/embed");
    let ran = step(
        "",
        &embed.display().to_string(),
        &["oci:examples/images", &format!("oci:{}", mirror.display())],
    );
    let native = format!("oci:{}:hello", mirror.display());
    let native = step("", &embed.display().to_string(), &["banner:hello", &native]);
    // A folder that cannot be removed does no harm.
    let _ = std::fs::remove_dir_all(&mirror);
    ran.and(native)?;
    step("", "cargo", &["deny", "check", "bans", "licenses", "sources"])?;
    advisories()
}

/// Checks for known vulnerabilities. The database is on another server. If it cannot be reached, this is reported, but
/// it is no failure.
fn advisories() -> Result<()> {
    println!("\n== cargo deny check advisories");
    let ran =
        Command::new("cargo").args(["deny", "check", "advisories"]).current_dir(crate::top()).output()?;
    let told = String::from_utf8_lossy(&ran.stderr);
    let unreachable =
        ["failed to fetch advisory database", "failed to load advisory database", "unable to fetch"];
    if !ran.status.success() && unreachable.iter().any(|why| told.contains(why)) {
        println!(
            "left out: the database of advisories cannot be reached, so nothing is known of vulnerabilities"
        );
        return Ok(());
    }
    print!("{told}");
    ensure!(ran.status.success(), "`cargo deny check advisories` failed");
    Ok(())
}
