//! References of the form `//HOST[:PORT]/REPOSITORY[:TAG|@DIGEST]`, with Docker's short forms.

use super::*;

/// The host of a registry's API. Docker Hub's API has another host than its name says.
pub fn api_host(location: &str) -> &str {
    if location == "docker.io" { "registry-1.docker.io" } else { location }
}

pub fn parse(rest: &str, pattern: bool, registries: &[String]) -> Result<Parsed, Error> {
    let invalid = |why: &str| Error::Invalid(format!("`docker:{rest}`: {why}"));
    let name =
        rest.strip_prefix("//").ok_or_else(|| invalid("a registry's reference begins with docker://"))?;
    let (name, reference) = split(name).map_err(|why| invalid(&why))?;
    let (location, repository) = match name.split_once('/') {
        Some((first, repository)) if is_host(first, registries) => (first, repository.to_owned()),
        Some(_) => ("docker.io", name.to_owned()),
        None if is_host(name, registries) => {
            return Err(invalid("the repository is missing: docker://HOST/REPOSITORY"));
        }
        None => ("docker.io", name.to_owned()),
    };
    let location = if location == "index.docker.io" { "docker.io" } else { location };
    let repository = match location {
        "docker.io" if !repository.contains('/') => format!("library/{repository}"),
        _ => repository,
    };
    check_host(location).map_err(|why| invalid(&why))?;
    check_repository(&repository, pattern).map_err(|why| invalid(&why))?;
    Ok(Parsed {
        extra: Vec::new(),
        location: location.into(),
        repository,
        reference,
        root: None,
        host: Some(api_host(location).into()),
        private: false,
        separate_blobs: false,
    })
}

pub fn is_digest(text: &str) -> bool {
    let hex = text.strip_prefix("sha256:").filter(|hex| hex.len() == 64);
    let hex = hex.or(text.strip_prefix("sha512:").filter(|hex| hex.len() == 128));
    hex.is_some_and(|hex| hex.bytes().all(|byte| matches!(byte, b'0'..=b'9' | b'a'..=b'f')))
}

/// A tag is `[a-zA-Z0-9_][a-zA-Z0-9._-]{0,127}` (3.2).
fn is_tag(text: &str) -> bool {
    let good = |(at, byte): (usize, u8)| {
        byte.is_ascii_alphanumeric() || byte == b'_' || at > 0 && matches!(byte, b'.' | b'-')
    };
    (1..=128).contains(&text.len()) && text.bytes().enumerate().all(good)
}

/// Checks a tag or digest that another place may have named, because it becomes a part of a URL.
pub fn check_reference(reference: &str) -> Result<(), Error> {
    match is_tag(reference) || is_digest(reference) {
        true => Ok(()),
        false => Err(Error::Invalid(format!("`{}` is no tag of a registry", reference.escape_debug()))),
    }
}

/// Whether an entry of a catalog is a repository name.
pub fn is_repository(name: &str) -> bool {
    check_repository(name, false).is_ok()
}

/// Splits the tag or digest from a name.
fn split(name: &str) -> Result<(&str, Option<String>), String> {
    if let Some((name, digest)) = name.split_once('@') {
        let last = name.rsplit('/').next().unwrap_or_default();
        if name.contains('/') && last.contains(':') {
            return Err("give a tag or a digest, not both".into());
        }
        return match is_digest(digest) {
            true => Ok((name, Some(digest.into()))),
            false => {
                Err(format!("`{digest}` is no digest: write @sha256: and 64 lower-case hexadecimal digits"))
            }
        };
    }
    let slash = name.rfind('/').map_or(0, |slash| slash + 1);
    let Some(colon) = name[slash..].find(':') else { return Ok((name, None)) };
    let (name, tag) = (&name[..slash + colon], &name[slash + colon + 1..]);
    // `localhost:5000` alone is a registry without a repository.
    if slash == 0 && tag.bytes().all(|byte| byte.is_ascii_digit()) && name == "localhost" {
        return Err("the repository is missing: docker://HOST/REPOSITORY".into());
    }
    if !is_tag(tag) {
        return Err(format!(
            "`{tag}` is no tag: up to 128 letters, digits, `_`, `.` and `-`, not beginning with `.` or `-`"
        ));
    }
    Ok((name, Some(tag.into())))
}

/// Docker's rule: a first component with a dot or a colon, or `localhost`, is a host. Short names from the
/// policy are hosts, too.
fn is_host(first: &str, registries: &[String]) -> bool {
    first.contains(['.', ':']) || first == "localhost" || registries.iter().any(|name| name == first)
}

fn check_host(host: &str) -> Result<(), String> {
    let (name, port) = match host.rsplit_once(':') {
        Some((name, port)) if !name.contains(':') || name.ends_with(']') => (name, Some(port)),
        _ => (host, None),
    };
    let bracketed = name.strip_prefix('[').and_then(|name| name.strip_suffix(']'));
    let good = match bracketed {
        Some(address) => address.parse::<std::net::Ipv6Addr>().is_ok(),
        None => {
            !name.is_empty()
                && name.bytes().all(|byte| byte.is_ascii_alphanumeric() || matches!(byte, b'.' | b'-' | b'_'))
        }
    };
    if !good {
        return Err(format!("`{host}` is no host name"));
    }
    match port {
        Some(port) if port.parse::<u16>().is_err() => Err(format!("`{port}` is no port")),
        _ => Ok(()),
    }
}

/// Checks the grammar of `<name>` (3.2). A pattern may contain glob characters.
fn check_repository(repository: &str, pattern: bool) -> Result<(), String> {
    if repository.len() > 255 {
        return Err("a repository name has at most 255 characters".into());
    }
    for component in repository.split('/') {
        let glob = component.bytes().any(|byte| matches!(byte, b'*' | b'?' | b'[' | b']'));
        if glob && pattern {
            continue;
        }
        if glob {
            return Err(format!("`{component}`: a glob can stand only in a rule's `from`"));
        }
        if component.bytes().any(|byte| byte.is_ascii_uppercase()) {
            return Err(format!("`{component}`: repository names are lower-case"));
        }
        if !is_component(component) {
            return Err(format!(
                "`{component}` cannot stand in a repository name: components are lower-case letters and digits, joined by `.`, `_`, `__` or dashes"
            ));
        }
    }
    Ok(())
}

/// A component is `[a-z0-9]+((\.|_|__|-+)[a-z0-9]+)*`.
fn is_component(component: &str) -> bool {
    let alphanumeric = |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit();
    let ends_well = component.bytes().next().is_some_and(alphanumeric)
        && component.bytes().last().is_some_and(alphanumeric);
    let mut separators =
        component.split(|character: char| character.is_ascii_lowercase() || character.is_ascii_digit());
    ends_well
        && separators.all(|separator| {
            matches!(separator, "" | "." | "_" | "__") || separator.bytes().all(|byte| byte == b'-')
        })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(rest: &str) -> (String, String, Option<String>) {
        let parsed = parse(rest, false, &["mirror".into()]).unwrap();
        (parsed.location, parsed.repository, parsed.reference)
    }

    #[test]
    fn reads_what_docker_reads() {
        let expect = |location: &str, repository: &str, reference: Option<&str>| {
            (location.to_owned(), repository.to_owned(), reference.map(str::to_owned))
        };
        assert_eq!(read("//busybox"), expect("docker.io", "library/busybox", None));
        assert_eq!(read("//acme/app:1"), expect("docker.io", "acme/app", Some("1")));
        assert_eq!(read("//mirror/app:1"), expect("mirror", "app", Some("1")));
        assert_eq!(read("//localhost/app"), expect("localhost", "app", None));
        assert_eq!(read("//r.example:5000/a/b:v1"), expect("r.example:5000", "a/b", Some("v1")));
        assert_eq!(read("//[::1]:5000/a__b/c-d"), expect("[::1]:5000", "a__b/c-d", None));
        let digest = format!("sha256:{}", "a".repeat(64));
        assert_eq!(read(&format!("//r.example/a@{digest}")), expect("r.example", "a", Some(&digest)));
    }

    #[test]
    fn refuses_the_rest_and_says_why() {
        for (rest, why) in [
            ("r.example/a", "begins with docker://"),
            ("//r.example/A", "lower-case"),
            ("//r.example/a:", "no tag"),
            ("//r.example/a@sha256:12", "no digest"),
            ("//r.example/a:1@sha256:12", "not both"),
            ("//r.example/a..b", "cannot stand"),
            ("//r.example/*", "only in a rule"),
            ("//r.example:x/a", "no port"),
            ("//mirror", "repository is missing"),
            ("//localhost:5000", "repository is missing"),
            ("//r.example//a", "cannot stand"),
        ] {
            let Err(Error::Invalid(text)) = parse(rest, false, &["mirror".into()]) else {
                panic!("{rest} was taken")
            };
            assert!(text.contains(why), "{rest}: {text}");
        }
    }

    #[test]
    fn a_tag_cannot_lead_elsewhere() {
        for reference in ["../../victim/manifests/latest", "a/b", "a?b", "a%2f", "", "sha256:x"] {
            assert!(check_reference(reference).is_err(), "{reference}");
        }
        assert!(check_reference("v1.0-rc_2").is_ok());
    }

    #[test]
    fn patterns_stand_where_they_may() {
        assert_eq!(parse("//r.example/lib*/*", true, &[]).unwrap().repository, "lib*/*");
    }
}
