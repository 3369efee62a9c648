//! `cargo xtask gates`

use crate::tests::step;
use anyhow::{Result, ensure};
use std::process::Command;

/// Formatting, lints, documentation and dependencies, of the host and of the plugins.
pub fn run() -> Result<()> {
    for folder in ["", "plugins", "examples/plugins/calver"] {
        step(folder, "cargo", &["fmt", "--all", "--check"])?;
        step(
            folder,
            "cargo",
            &["clippy", "--workspace", "--all-targets", "--locked", "--", "-D", "warnings"],
        )?;
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
    // They are compiled for a fuzzer elsewhere; here they must not fall behind.
    step("fuzz", "env", &["RUSTFLAGS=--cfg fuzzing", "cargo", "check", "--locked"])?;
    // A program of its own, as anybody's is.
    let mirror = std::env::temp_dir().join(format!("dray-embed-{}", std::process::id()));
    let ran = step(
        "",
        "cargo",
        &[
            "run",
            "--quiet",
            "--locked",
            "--manifest-path",
            "examples/embed/Cargo.toml",
            "--target-dir",
            "target",
            "--",
            "oci:examples/images",
            &format!("oci:{}", mirror.display()),
        ],
    );
    // What it leaves is in nobody's way.
    let _ = std::fs::remove_dir_all(&mirror);
    ran?;
    step("", "cargo", &["deny", "check", "bans", "licenses", "sources"])?;
    advisories()
}

/// Known vulnerabilities. The database lies elsewhere: where it cannot be reached, that is said, and is no failure.
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
