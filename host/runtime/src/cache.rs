//! Compiled components on disk, in a folder that nobody else can write.

use dray_core::Digest;
use std::{
    fs,
    hash::{DefaultHasher, Hash, Hasher},
    os::unix::fs::{DirBuilderExt, MetadataExt},
    path::{Path, PathBuf},
};
use wasmtime::{Engine, component::Component};

/// Compiles a component, or loads what an earlier run compiled. A cache that cannot be used is
/// none.
pub(crate) fn component(engine: &Engine, wasm: &[u8], folder: Option<&Path>) -> wasmtime::Result<Component> {
    let Some(folder) = folder.filter(|folder| is_ours(folder)) else { return Component::new(engine, wasm) };
    let mut compatibility = DefaultHasher::new();
    engine.precompile_compatibility_hash().hash(&mut compatibility);
    let path = folder.join(format!("{}-{:016x}.cwasm", Digest::of(wasm).hex(), compatibility.finish()));
    if path.exists() {
        match load(engine, &path) {
            Ok(component) => return Ok(component),
            Err(error) => {
                tracing::debug!(%error, path = %path.display(), "the cached component cannot be used")
            }
        }
    }
    let component = Component::new(engine, wasm)?;
    if let Err(error) = keep(&component.serialize()?, folder, &path) {
        tracing::debug!(%error, path = %path.display(), "the compiled component cannot be cached");
    }
    Ok(component)
}

/// Whether the folder belongs to this user alone; it is made if it is not there.
fn is_ours(folder: &Path) -> bool {
    let made = fs::DirBuilder::new().recursive(true).mode(0o700).create(folder);
    let ours = made.and_then(|()| fs::symlink_metadata(folder));
    ours.is_ok_and(|metadata| {
        metadata.is_dir()
            && metadata.uid() == rustix::process::getuid().as_raw()
            && metadata.mode() & 0o077 == 0
    })
}

#[allow(unsafe_code, reason = "compiled code is machine code: loading it is trusting it")]
fn load(engine: &Engine, path: &Path) -> wasmtime::Result<Component> {
    // SAFETY: only this user can write the folder, and files appear in it whole, by rename.
    unsafe { Component::deserialize_file(engine, path) }
}

fn keep(compiled: &[u8], folder: &Path, path: &PathBuf) -> std::io::Result<()> {
    let temporary = folder.join(format!(".{}-{:?}", std::process::id(), std::thread::current().id()));
    fs::write(&temporary, compiled)?;
    fs::rename(&temporary, path)
}
