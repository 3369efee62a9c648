//! Writes the bindings of C for a project's world (wit-bindgen's generator, which is a library).

use crate::{Error, Result};
use std::{fs, path::Path};
use wit_bindgen_core::Files;
use wit_parser::Resolve;

/// Writes `plugin.h`, `plugin.c` and the object file that describes the world into a folder.
pub fn bindings_of_c(wit: &Path, out: &Path) -> Result<()> {
    let malformed = |error: &dyn std::fmt::Display| Error::new(format!("read {}: {error}", wit.display()));
    let mut resolve = Resolve::default();
    let (package, _) = resolve.push_dir(wit).map_err(|error| malformed(&format!("{error:#}")))?;
    let world = resolve.select_world(&[package], None).map_err(|error| malformed(&format!("{error:#}")))?;
    let mut files = Files::default();
    wit_bindgen_c::Opts::default()
        .build()
        .generate(&mut resolve, world, &mut files)
        .map_err(|error| malformed(&format!("{error:#}")))?;
    fs::create_dir_all(out).map_err(|error| Error::io(format!("make {}", out.display()), &error))?;
    for (name, content) in files.iter() {
        let path = out.join(name);
        fs::write(&path, content).map_err(|error| Error::io(format!("write {}", path.display()), &error))?;
    }
    Ok(())
}
