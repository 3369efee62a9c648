//! Finds out what kind of place a path is, to help a user who named it by the wrong scheme.

use super::Root;
use crate::{decode::Plain, tar::Reader};
use std::path::{Path, PathBuf};

/// The kinds of places that can be recognised by their files.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Kind {
    /// `index.json` exists.
    Layout,
    /// `manifest.json` is an array, as in archives of `docker save`.
    Saved,
    /// `manifest.json` is an object, as a manifest is.
    Dir,
    /// The folder `docker/registry/v2` of distribution is not empty.
    Storage,
}

fn kind(root: &Root) -> Option<Kind> {
    let there = |path: &str| root.stat(path).is_ok_and(|size| size.is_some());
    let saved = || {
        let manifest = root.read("manifest.json", 0, None).ok()?;
        match serde_json::from_slice(&manifest).ok()? {
            serde_json::Value::Array(_) => Some(Kind::Saved),
            serde_json::Value::Object(_) => Some(Kind::Dir),
            _ => None,
        }
    };
    match () {
        () if there("manifest.json") => saved(),
        () if there("index.json") => Some(Kind::Layout),
        () if root.entries("docker/registry/v2").is_ok_and(|entries| !entries.is_empty()) => {
            Some(Kind::Storage)
        }
        () => None,
    }
}

/// Says what the file or folder is that was named by `scheme`, and how to read it. `None` means that there is nothing
/// to say.
pub(crate) fn hint(root: &Root, scheme: &str, scratch: &Path) -> Option<String> {
    // The path without a slash at its end, which would require a folder.
    let path: PathBuf = root.shown("").components().collect();
    let path = path.as_path();
    let shown = path.display();
    let Ok(metadata) = path.metadata() else {
        return Some(format!("{shown} is not there"));
    };
    let archive = root.is_archive();
    if archive && metadata.is_dir() {
        let scheme = kind(&Root::folder(path)).map_or("dir or oci", |kind| named(kind, false));
        return Some(format!("{shown} is a folder: read it as {scheme}:{shown}"));
    }
    if !archive && metadata.is_file() {
        if !is_tar(path) {
            return Some(format!("{shown} is a file, and no folder"));
        }
        let scheme = kind(&Root::archive(path, scratch))
            .map_or("docker-archive or oci-archive", |kind| named(kind, true));
        return Some(format!("{shown} is an archive: read it as {scheme}:{shown}"));
    }
    if metadata.is_file() && metadata.len() == 0 {
        return Some(format!("{shown} is empty"));
    }
    if archive && !is_tar(path) {
        return Some(format!("{shown} is no tar archive"));
    }
    match kind(root) {
        Some(kind) if named(kind, archive) == scheme => None,
        Some(kind) => Some(format!("read it as {}:{shown}", named(kind, archive))),
        None => Some(format!(
            "{shown} holds neither index.json (an OCI layout) nor manifest.json (docker save, dir:)"
        )),
    }
}

fn named(kind: Kind, archive: bool) -> &'static str {
    match (kind, archive) {
        (Kind::Layout, false) => "oci",
        (Kind::Layout, true) => "oci-archive",
        (Kind::Saved, _) => "docker-archive",
        (Kind::Dir, _) => "dir",
        (Kind::Storage, _) => "registry-storage",
    }
}

/// Whether a file begins with a tar header, compressed or not (POSIX.1, ustar; old tars only have a checksum).
fn is_tar(path: &Path) -> bool {
    let plain = std::fs::File::open(path).and_then(Plain::new);
    plain.is_ok_and(|plain| matches!(Reader::new(plain).advance(), Ok(Some(_))))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn files_tell_by_which_scheme_they_are_read() {
        let top = tempfile::tempdir().unwrap();
        let path = |name: &str| top.path().join(name);
        for (name, file, content) in [
            ("layout", "index.json", "{}"),
            ("saved", "manifest.json", "[]"),
            ("image", "manifest.json", "{}"),
            ("other", "x", ""),
        ] {
            std::fs::create_dir(path(name)).unwrap();
            std::fs::write(path(name).join(file), content).unwrap();
        }
        std::fs::write(path("text"), "hello\n").unwrap();
        std::fs::write(path("empty"), "").unwrap();
        let folder = |name: &str, scheme: &str| {
            hint(&Root::folder(path(name)), scheme, top.path()).unwrap_or_default()
        };
        let archive = |name: &str| {
            hint(&Root::archive(path(name), top.path()), "oci-archive", top.path()).unwrap_or_default()
        };
        assert_eq!(folder("layout", "oci"), "");
        assert!(folder("layout", "dir").starts_with("read it as oci:"));
        assert!(folder("saved", "oci").starts_with("read it as docker-archive:"));
        assert!(folder("image", "oci").starts_with("read it as dir:"));
        assert!(folder("other", "oci").contains("neither index.json"));
        assert!(folder("none", "oci").ends_with("is not there"));
        assert!(folder("text", "oci").contains("is a file"));
        assert!(archive("layout").contains("is a folder: read it as oci:"));
        assert!(archive("text").ends_with("is no tar archive"));
        assert!(archive("empty").ends_with("is empty"));
    }
}
