//! The digest of the plugins' sources, which tells whether the prebuilt components were built from them.

use anyhow::{Context, Result};
use dray_core::{Algorithm, Digest, Hasher};
use serde::{Deserialize, Serialize};
use std::{
    collections::BTreeMap,
    fs,
    path::{Path, PathBuf},
};

/// The content of `plugins/prebuilt/manifest.json`.
#[derive(Debug, PartialEq, Serialize, Deserialize)]
pub struct Manifest {
    /// The compiler that built the components, as `rustc --version` prints it.
    pub toolchain: String,
    /// Digest of all sources.
    pub sources: Digest,
    /// Digest of each component, by the name of its plugin.
    pub components: BTreeMap<String, Digest>,
}

impl Manifest {
    pub fn path(top: &Path) -> PathBuf {
        top.join("plugins/prebuilt/manifest.json")
    }

    pub fn read(top: &Path) -> Result<Self> {
        let path = Self::path(top);
        let text = fs::read(&path).with_context(|| format!("read {}", path.display()))?;
        serde_json::from_slice(&text).with_context(|| format!("read {}", path.display()))
    }
}

/// The digest of everything from which components are built: the contract, the manifests, and the code.
pub fn digest(top: &Path) -> Result<Digest> {
    let mut files = vec![top.join("plugins/Cargo.toml"), top.join("plugins/Cargo.lock")];
    for folder in [
        "wit",
        "plugins/sdk",
        "plugins/transport",
        "plugins/auth",
        "plugins/filter",
        "plugins/dialect",
        "plugins/verifier",
    ] {
        walk(&top.join(folder), &mut files)?;
    }
    files.sort();
    let mut hasher = Hasher::new(Algorithm::Sha256);
    for file in files {
        let name = file.strip_prefix(top)?.to_string_lossy().into_owned();
        let content = fs::read(&file).with_context(|| format!("read {}", file.display()))?;
        for part in [name.as_bytes(), &content] {
            hasher.update(&(part.len() as u64).to_le_bytes());
            hasher.update(part);
        }
    }
    Ok(hasher.finish())
}

fn walk(folder: &Path, files: &mut Vec<PathBuf>) -> Result<()> {
    for entry in fs::read_dir(folder).with_context(|| format!("list {}", folder.display()))? {
        let path = entry?.path();
        if path.is_dir() {
            walk(&path, files)?;
        } else {
            files.push(path);
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_prebuilt_components_were_made_from_these_sources() {
        let top = crate::top();
        let manifest = Manifest::read(&top).unwrap();
        let remedy = "run `cargo xtask plugins` and commit plugins/prebuilt";
        assert_eq!(manifest.sources, digest(&top).unwrap(), "sources and components part: {remedy}");
        for (name, digest) in &manifest.components {
            let bytes = fs::read(top.join(format!("plugins/prebuilt/{name}.wasm"))).unwrap();
            assert_eq!(*digest, Digest::of(&bytes), "{name}.wasm is not what its manifest says: {remedy}");
        }
        let folders = crate::plugins::all(&top).unwrap();
        let names: Vec<&String> = folders.iter().map(|plugin| &plugin.name).collect();
        assert_eq!(names, manifest.components.keys().collect::<Vec<_>>(), "{remedy}");
    }
}
