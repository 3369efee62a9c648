//! `cargo xtask gates`

use crate::tests::step;
use anyhow::Result;

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
    step("", "cargo", &["deny", "check", "bans", "licenses", "sources"])
}
