//! References and image names as Docker writes them.

use dray_plugin_transport::{
    Error,
    exports::dray::plugin::references::{Parsed, Root},
    is_digest, split_tag,
};

/// The place of `docker-daemon:`. No path of an archive has a colon.
pub const DAEMON: &str = "docker-daemon:";

/// The name by which the host knows the daemon.
const HOST: &str = "docker-daemon";

/// A name in full: `nginx` is `docker.io/library/nginx`.
pub fn full(name: &str) -> String {
    let (first, rest) = name.split_once('/').unwrap_or(("", name));
    let host = first.contains(['.', ':']) || first == "localhost";
    match (host, first.is_empty()) {
        (true, _) if first == "index.docker.io" => full(rest),
        (true, _) if first == "docker.io" && !rest.contains('/') => format!("docker.io/library/{rest}"),
        (true, _) => name.into(),
        (false, true) => format!("docker.io/library/{name}"),
        (false, false) => format!("docker.io/{name}"),
    }
}

/// The full repository and the tag of a name; without a tag, `latest`.
pub fn tagged(name: &str) -> (String, String) {
    let (repository, tag) = split_tag(name);
    (full(repository), tag.unwrap_or("latest").into())
}

/// Reads what stands behind the scheme.
pub fn parse(scheme: &str, rest: &str, pattern: bool) -> Result<Parsed, Error> {
    let (location, name, root, host) = match scheme {
        "docker-daemon" => (DAEMON, Some(rest), Root::Temporary, Some(HOST.to_owned())),
        _ => {
            let (path, name) = rest.split_once(':').map_or((rest, None), |(path, name)| (path, Some(name)));
            (path, name, Root::Archive(path.into()), None)
        }
    };
    if location.is_empty() {
        return Err(Error::Invalid(format!("`{scheme}:{rest}` names no file: {scheme}:FILE[:NAME[:TAG]]")));
    }
    let (repository, reference) = match name {
        None if pattern => ("**".into(), None),
        None => (String::new(), None),
        Some("") => {
            return Err(Error::Invalid(format!(
                "`{scheme}:{rest}` ends with a colon: write the image's name behind it, or leave it out"
            )));
        }
        Some(position) if position.starts_with('@') => (String::new(), Some(position.to_owned())),
        Some(id) if is_digest(id) => (String::new(), Some(id.to_owned())),
        Some(name) if name.contains('@') => {
            return Err(Error::Invalid(format!(
                "`{scheme}:{rest}` names a digest, which Docker does not keep: name a tag"
            )));
        }
        Some(name) => {
            let (repository, tag) = split_tag(name);
            let repository =
                if repository == "*" || repository == "**" { "**".into() } else { full(repository) };
            (repository, tag.map(str::to_owned))
        }
    };
    Ok(Parsed { location: location.into(), repository, reference, root: Some(root), host })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_written_in_full() {
        for (short, long) in [
            ("nginx", "docker.io/library/nginx"),
            ("a/b", "docker.io/a/b"),
            ("docker.io/nginx", "docker.io/library/nginx"),
            ("localhost/a", "localhost/a"),
            ("r.example:5000/a/b", "r.example:5000/a/b"),
        ] {
            assert_eq!(full(short), long);
        }
        assert_eq!(tagged("r.example:5000/a"), ("r.example:5000/a".into(), "latest".into()));
    }

    #[test]
    fn references() {
        let read = |scheme, rest: &str, pattern| {
            parse(scheme, rest, pattern).map(|parsed| (parsed.location, parsed.repository, parsed.reference))
        };
        let expect = |location: &str, repository: &str, reference: Option<&str>| {
            Ok((location.to_owned(), repository.to_owned(), reference.map(str::to_owned)))
        };
        assert_eq!(read("docker-archive", "a.tar", false), expect("a.tar", "", None));
        assert_eq!(read("docker-archive", "a.tar", true), expect("a.tar", "**", None));
        assert_eq!(read("docker-archive", "/x/a.tar:@3", true), expect("/x/a.tar", "", Some("@3")));
        assert_eq!(
            read("docker-archive", "a.tar:nginx:1", false),
            expect("a.tar", "docker.io/library/nginx", Some("1"))
        );
        assert_eq!(
            read("docker-daemon", "r.example:5000/a", false),
            expect(DAEMON, "r.example:5000/a", None)
        );
        for bad in ["", ":x", "a.tar:", "a.tar:x@sha256:0"] {
            assert!(read("docker-archive", bad, false).is_err(), "{bad}");
        }
    }
}
