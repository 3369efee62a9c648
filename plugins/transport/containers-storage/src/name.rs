//! References of containers-storage (containers-transports(5)).

use dray_plugin_transport::{
    Error,
    exports::dray::plugin::references::{Parsed, Root},
    full, is_digest, split_tag,
};

/// The name by which the host knows the machine's own store. It is also the canonical name of that place.
const KNOWN: &str = "containers-storage";

/// The character before the ID of an image.
pub const ID: char = '@';

fn is_id(text: &str) -> bool {
    text.len() == 64 && text.bytes().all(|byte| matches!(byte, b'0'..=b'9' | b'a'..=b'f'))
}

/// Splits `[[DRIVER@]ROOT[+RUNROOT][:OPTIONS]]NAME` into the folder of the store, if it is given, and the
/// name.
fn store(rest: &str) -> Result<(Option<&str>, &str), Error> {
    let Some(specified) = rest.strip_prefix('[') else { return Ok((None, rest)) };
    let (store, name) = specified
        .split_once(']')
        .ok_or_else(|| Error::Invalid(format!("`{rest}` has no ] behind the store's folder")))?;
    let (driver, folder) = store.split_once('@').unwrap_or(("overlay", store));
    if !matches!(driver, "" | "overlay" | "overlay2") {
        return Err(Error::Unsupported(format!(
            "the store of `{rest}` has the driver {driver}, and dray knows how overlay keeps layers: copy to docker-archive: and load that"
        )));
    }
    let folder = folder.split(['+', ':']).next().unwrap_or_default().trim_end_matches('/');
    match folder.starts_with('/') {
        true => Ok((Some(folder), name)),
        false => Err(Error::Invalid(format!(
            "`{rest}` names no store: containers-storage:[/var/lib/containers/storage]NAME[:TAG]"
        ))),
    }
}

/// Reads the text after the scheme.
pub fn parse(rest: &str, pattern: bool) -> Result<Parsed, Error> {
    let (folder, name) = store(rest)?;
    let id = |id: &str| (String::new(), Some(format!("{ID}{id}")));
    let (repository, reference) = match name.split_once('@') {
        None if name.is_empty() && pattern => ("**".into(), None),
        None if name.is_empty() => {
            return Err(Error::Invalid(format!(
                "`containers-storage:{rest}` names no image: containers-storage:NAME[:TAG]"
            )));
        }
        None if is_id(name) => id(name),
        None if matches!(name, "*" | "**") => ("**".into(), None),
        None => {
            let (repository, tag) = split_tag(name);
            (full(repository), tag.map(str::to_owned))
        }
        Some(("", wanted)) if is_id(wanted) => id(wanted),
        Some((name, digest)) if is_digest(digest) && split_tag(name).1.is_none() => {
            (full(name), Some(digest.to_owned()))
        }
        Some(_) => {
            return Err(Error::Invalid(format!(
                "`{name}` names no image: write NAME:TAG, NAME@sha256:DIGEST or @ID"
            )));
        }
    };
    let root = folder.map_or_else(|| Root::Known(KNOWN.into()), |folder| Root::Folder(folder.into()));
    Ok(Parsed {
        extra: Vec::new(),
        location: folder.unwrap_or(KNOWN).into(),
        repository,
        reference,
        root: Some(root),
        host: None,
        private: true,
        separate_blobs: false,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn references() {
        let id = "3655946cdd41944efa1b67e6b4476a4f08a0d21c2ac169df042c8457c1b8ee35";
        let digest = format!("sha256:{id}");
        let read = |rest: &str| {
            parse(rest, false).map(|parsed| (parsed.location, parsed.repository, parsed.reference))
        };
        let expect = |location: &str, repository: &str, reference: Option<&str>| {
            Ok((location.to_owned(), repository.to_owned(), reference.map(str::to_owned)))
        };
        assert_eq!(read("alpine"), expect(KNOWN, "docker.io/library/alpine", None));
        assert_eq!(read("[overlay@/s+/run:a=b,c=d]q.io/a:1"), expect("/s", "q.io/a", Some("1")));
        assert_eq!(read("[/s/]localhost:5000/a"), expect("/s", "localhost:5000/a", None));
        assert_eq!(read(&format!("q.io/a@{digest}")), expect(KNOWN, "q.io/a", Some(&digest)));
        assert_eq!(read(id), expect(KNOWN, "", Some(&format!("@{id}"))));
        assert_eq!(read(&format!("@{id}")), expect(KNOWN, "", Some(&format!("@{id}"))));
        assert_eq!(parse("[/s]", true).map(|parsed| parsed.repository), Ok("**".to_owned()));
        for bad in ["", "[/s]", "[/s", "[vfs@/s]a", "[s]a", "a@b", "a:1@sha256:0"] {
            assert!(read(bad).is_err(), "{bad}");
        }
    }
}
