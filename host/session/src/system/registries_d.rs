//! registries.d (containers-registries.d(5)): where the signatures of images are.

use dray_core::Yaml;
use dray_engine::{Error, Kind};
use dray_trust::{Lookaside, Lookasides};
use std::path::PathBuf;

/// Reads all files of a folder, and tells which they are. `None` means that there is no folder.
///
/// # Errors
/// Fails with the file and the line if a file is not understood, or if two of them say something about the same images.
pub fn read(folder: Option<&PathBuf>) -> Result<(Lookasides, Vec<PathBuf>), Error> {
    let (mut all, mut files) = (Lookasides::default(), Vec::new());
    let Some(folder) = folder else { return Ok((all, files)) };
    let mut default = None;
    for path in super::files_in(folder, "yaml")? {
        let Some(text) = super::read(&path)? else { continue };
        let wrong = |why: &dyn std::fmt::Display| {
            Error::new(Kind::Invalid, format!("read {}: {why}", path.display()))
        };
        for document in Yaml::documents(&text).map_err(|error| wrong(&error))? {
            add(&mut all, &mut default, &document).map_err(|why| wrong(&why))?;
        }
        files.push(path);
    }
    all.default = default.unwrap_or_default();
    Ok((all, files))
}

fn add(all: &mut Lookasides, default: &mut Option<Lookaside>, document: &Yaml) -> Result<(), String> {
    for (key, value) in document.entries() {
        let line = value.line;
        match key.as_str() {
            "default-docker" => {
                if default.replace(section(value)?).is_some() {
                    return Err(format!("line {line}: another file has `default-docker` as well"));
                }
            }
            "docker" => {
                for (scope, value) in value.entries() {
                    if all.scopes.iter().any(|(other, _)| other == scope) {
                        return Err(format!("line {}: another file has `{scope}` as well", value.line));
                    }
                    all.scopes.push((scope.clone(), section(value)?));
                }
            }
            other => {
                return Err(format!("line {line}: `{}` is no key of registries.d", other.escape_debug()));
            }
        }
    }
    Ok(())
}

fn section(value: &Yaml) -> Result<Lookaside, String> {
    let mut section = Lookaside::default();
    let (mut old_read, mut old_write) = (None, None);
    for (key, value) in value.entries() {
        let line = value.line;
        let text = || {
            let text = value.text().ok_or_else(|| format!("line {line}: `{key}` is no text"))?;
            let known = ["file://", "http://", "https://"].iter().any(|scheme| text.starts_with(scheme));
            match known {
                true => Ok(Some(text.to_owned())),
                false => {
                    Err(format!("line {line}: `{key}` begins with none of file://, http:// and https://"))
                }
            }
        };
        match key.as_str() {
            "lookaside" => section.read = text()?,
            "lookaside-staging" => section.write = text()?,
            // The names before containers/image 5.22.
            "sigstore" => old_read = text()?,
            "sigstore-staging" => old_write = text()?,
            "use-sigstore-attachments" => {
                let on =
                    value.bool().ok_or_else(|| format!("line {line}: `{key}` is neither true nor false"))?;
                section.attachments = Some(on);
            }
            other => {
                return Err(format!("line {line}: `{}` is no key of registries.d", other.escape_debug()));
            }
        }
    }
    section.read = section.read.or(old_read);
    section.write = section.write.or(old_write);
    Ok(section)
}
