//! References and image names, as Docker writes them.

use dray_plugin_transport::{
    Error,
    exports::dray::plugin::references::{Parsed, Root},
    full, is_digest, split_tag,
};

/// The location of `docker-daemon:`. It differs from every archive, because no path of an archive has a
/// colon.
pub const DAEMON: &str = "docker-daemon:";

/// The name by which the host knows the daemon.
const HOST: &str = "docker-daemon";

/// Reads the text after the scheme.
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
            // If the path contains a colon, dray would write to the part before it, and the rest is no image
            // name.
            if !pattern && !matches!(repository, "*" | "**") && !is_name(repository) {
                return Err(Error::Invalid(format!(
                    "`{scheme}:{rest}` names the file {path}, and `{name}` is no name of an image: a path with a colon cannot be written here",
                    path = location
                )));
            }
            let repository =
                if repository == "*" || repository == "**" { "**".into() } else { full(repository) };
            (repository, tag.map(str::to_owned))
        }
    };
    Ok(Parsed {
        extra: Vec::new(),
        location: location.into(),
        repository,
        reference,
        root: Some(root),
        host,
        private: false,
        separate_blobs: false,
    })
}

/// Whether an image can have this name: `[HOST[:PORT]/]COMPONENT[/COMPONENT…]`.
fn is_name(name: &str) -> bool {
    let plain = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'.' | b'_' | b'-');
    let good = |part: &str| !part.is_empty() && part.bytes().all(plain);
    let (first, others) = name.split_once('/').unwrap_or((name, ""));
    let host = match first.rsplit_once(':') {
        Some((host, port)) if !port.is_empty() && port.bytes().all(|byte| byte.is_ascii_digit()) => host,
        _ => first,
    };
    good(host) && (!name.contains('/') || others.split('/').all(good))
}

#[cfg(test)]
mod tests {
    use super::*;

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
        for bad in ["", ":x", "a.tar:", "a.tar:x@sha256:0", "t/a:b/x.tar:n/m:1", "a:b//c", "a:/b"] {
            assert!(read("docker-archive", bad, false).is_err(), "{bad}");
        }
    }
}
