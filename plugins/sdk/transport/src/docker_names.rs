//! Image names as Docker and podman write them.

use crate::split_tag;

/// The full name of an image: `nginx` becomes `docker.io/library/nginx`.
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

/// The full repository and the tag of a name. A name without a tag has the tag `latest`.
pub fn tagged(name: &str) -> (String, String) {
    let (repository, tag) = split_tag(name);
    (full(repository), tag.unwrap_or("latest").into())
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
}
