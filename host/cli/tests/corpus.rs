//! Components that were built for each version of the plugin contract, which must run as they did when they were built.
#![allow(clippy::unwrap_used, clippy::print_stderr, reason = "tests")]

mod support;

use std::{
    fs,
    path::{Path, PathBuf},
};
use support::{World, author};

/// What is in a folder of the corpus, sorted.
fn entries(version: &str) -> Vec<PathBuf> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/corpus").join(version);
    let mut entries: Vec<PathBuf> =
        fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path()).collect();
    entries.sort();
    entries
}

#[test]
fn components_of_this_contract_pass_the_fixtures_that_they_were_built_with() {
    let world = World::new();
    let folders = entries("0.3.0");
    assert_eq!(folders.len(), 8);
    for folder in folders {
        let component = folder.join("component.wasm");
        let component = component.to_str().unwrap();
        let tested = author(&world, &["plugin", "test", component, "--output", "json"]).ok().json();
        let fixtures = fs::read_dir(folder.join("fixtures")).unwrap().count();
        assert_eq!(tested["fixtures"].as_array().unwrap().len(), fixtures, "{component}");
        assert_eq!(tested["failed"], 0, "{component}: {tested}");
        let checked = author(&world, &["plugin", "check", component, "--output", "json"]).ok().json();
        assert_eq!(checked["findings"]["contract"], "0.3.0", "{component}");
    }
}

#[test]
fn components_of_a_contract_that_is_gone_are_refused_by_its_name() {
    let world = World::new();
    for component in entries("0.2.0") {
        let refused = author(&world, &["plugin", "check", component.to_str().unwrap()]);
        let told = "it speaks version 0.2.0 of the plugin contract, and this dray speaks version 0.3.0";
        assert!(refused.code == 1 && refused.err.contains(told), "{}: {}", refused.code, refused.err);
    }
}
