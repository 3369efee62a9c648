//! Embeds the sources of the SDK and the contract, which `dray plugin new` writes into a project.

use std::{
    env, fs,
    path::{Path, PathBuf},
};

fn walk(folder: &Path, files: &mut Vec<PathBuf>) {
    let mut entries: Vec<PathBuf> = fs::read_dir(folder)
        .expect("the SDK is there")
        .map(|entry| entry.expect("an entry").path())
        .collect();
    entries.sort();
    for path in entries {
        // The contract is linked into each crate, and embedded once.
        match path.is_dir() {
            true if path.file_name().is_some_and(|name| name == "wit") => {}
            true => walk(&path, files),
            false => files.push(path),
        }
    }
}

fn main() {
    let top = Path::new(env!("CARGO_MANIFEST_DIR")).join("../..").canonicalize().expect("the repository");
    let sdk = top.join("plugins/sdk");
    println!("cargo::rerun-if-changed={}", sdk.display());
    println!("cargo::rerun-if-changed={}", top.join("wit").display());
    let mut files = Vec::new();
    walk(&sdk, &mut files);
    let entry = |path: &PathBuf| {
        let name = path.strip_prefix(&sdk).expect("beneath the SDK").display().to_string();
        format!("    ({name:?}, include_str!({path:?})),\n")
    };
    let entries: String = files.iter().map(entry).collect();
    let list = format!(
        "/// The files of the SDK, by their paths beneath `plugins/sdk`.\npub(crate) const SDK: &[(&str, &str)] = &[\n{entries}];\n"
    );
    let out = PathBuf::from(env::var_os("OUT_DIR").expect("cargo says it")).join("sdk.rs");
    fs::write(out, list).expect("the list of the SDK can be written");
}
