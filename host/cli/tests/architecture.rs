//! The direction of dependencies: cli → {runtime, registry} → engine → core.
#![allow(clippy::unwrap_used, clippy::print_stderr, reason = "a test")]

use std::{collections::BTreeSet, fs, path::Path};

/// The crates of this workspace that a crate names in its manifest.
fn named(member: &str) -> BTreeSet<String> {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("..").join(member).join("Cargo.toml");
    let text = fs::read_to_string(path).unwrap();
    let ours = text.lines().filter_map(|line| line.split([' ', '.']).next()?.strip_prefix("dray-"));
    ours.map(str::to_owned).collect()
}

#[test]
fn dependencies_point_inwards() {
    let allowed: [(&str, &[&str]); 5] = [
        ("core", &[]),
        ("engine", &["core"]),
        ("runtime", &["core", "engine"]),
        ("registry", &["core", "engine"]),
        ("cli", &["core", "engine", "registry", "runtime"]),
    ];
    for (member, allowed) in allowed {
        let named = named(member);
        let wrong: Vec<_> = named.iter().filter(|name| !allowed.contains(&name.as_str())).collect();
        assert!(wrong.is_empty(), "{member} depends on {wrong:?}");
    }
}

#[test]
fn only_the_runtime_names_wasmtime_and_only_the_cli_the_environment() {
    let house = Path::new(env!("CARGO_MANIFEST_DIR")).join("..");
    for member in ["core", "engine", "registry", "runtime", "cli"] {
        for file in fs::read_dir(house.join(member).join("src")).unwrap() {
            let path = file.unwrap().path();
            let Ok(text) = fs::read_to_string(&path) else { continue };
            assert!(member == "runtime" || !text.contains("wasmtime::"), "{} names wasmtime", path.display());
            assert!(
                member == "cli" || !text.contains("env::var"),
                "{} reads the environment",
                path.display()
            );
        }
    }
}
