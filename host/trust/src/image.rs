//! What is signed and what policies speak of: images, by their names.

use crate::{Result, Wrong};
use std::{fmt, path::Path};

/// A docker reference, written out: `docker.io/library/nginx:1`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Name {
    /// `host[:port]`.
    pub domain: String,
    /// The path below the host.
    pub path: String,
    /// The tag.
    pub tag: Option<String>,
    /// The digest.
    pub digest: Option<String>,
}

impl Name {
    /// Reads a reference as Docker does: without a host it is of `docker.io`, and there without a folder of `library`. No
    /// tag is made up.
    ///
    /// # Errors
    /// Fails if it is no reference (the grammar of distribution/reference).
    pub fn parse(text: &str) -> Result<Self> {
        let wrong = || Wrong(format!("`{}` is no name of an image", text.escape_debug()));
        let (name, digest) = match text.split_once('@') {
            Some((name, digest)) => (name, Some(digest)),
            None => (text, None),
        };
        let last = name.rfind('/').map_or(0, |at| at + 1);
        let (name, tag) = match name[last..].find(':') {
            Some(at) => (&name[..last + at], Some(&name[last + at + 1..])),
            None => (name, None),
        };
        let (domain, path) = match name.split_once('/') {
            Some((first, rest))
                if first.contains(['.', ':']) || first == "localhost" || first.to_lowercase() != first =>
            {
                (first, rest.to_owned())
            }
            _ => ("docker.io", name.to_owned()),
        };
        let domain = if domain == "index.docker.io" { "docker.io" } else { domain };
        let path = match domain == "docker.io" && !path.contains('/') {
            true => format!("library/{path}"),
            false => path,
        };
        let is_host = |text: &str| {
            !text.is_empty()
                && text.bytes().all(|byte| byte.is_ascii_alphanumeric() || b".-:[]_".contains(&byte))
        };
        let is_part = |part: &str| {
            let inner =
                |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit() || b"._-".contains(&byte);
            let ends = |byte: Option<u8>| {
                byte.is_some_and(|byte| byte.is_ascii_lowercase() || byte.is_ascii_digit())
            };
            part.bytes().all(inner) && ends(part.bytes().next()) && ends(part.bytes().last())
        };
        let is_tag = |tag: &str| {
            let ok = |byte: u8| byte.is_ascii_alphanumeric() || b"._-".contains(&byte);
            (1..=128).contains(&tag.len()) && tag.bytes().all(ok) && !tag.starts_with(['.', '-'])
        };
        let right = is_host(domain)
            && path.split('/').all(is_part)
            && tag.is_none_or(is_tag)
            && digest.is_none_or(|digest| digest.parse::<dray_core::Digest>().is_ok());
        match right {
            true => Ok(Name {
                domain: domain.to_owned(),
                path,
                tag: tag.map(str::to_owned),
                digest: digest.map(str::to_owned),
            }),
            false => Err(wrong()),
        }
    }

    /// The name without a tag and a digest.
    pub fn repository(&self) -> String {
        format!("{}/{}", self.domain, self.path)
    }

    /// Whether it names neither a tag nor a digest.
    pub fn is_name_only(&self) -> bool {
        self.tag.is_none() && self.digest.is_none()
    }
}

impl fmt::Display for Name {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.domain, self.path)?;
        if let Some(tag) = &self.tag {
            write!(f, ":{tag}")?;
        }
        match &self.digest {
            Some(digest) => write!(f, "@{digest}"),
            None => Ok(()),
        }
    }
}

/// An image as a signature policy sees it: by its transport and the scopes that it is in (containers-policy.json(5)).
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Image {
    /// The transport: `docker`, `dir`, `oci` and so on.
    pub transport: String,
    /// The scopes that it is in, the most specific one first. The whole transport (`""`) is not among them.
    pub scopes: Vec<String>,
    /// Its docker reference. `None` means that it has none, as in folders and archives.
    pub name: Option<Name>,
}

impl Image {
    /// An image in a registry. Without a tag and a digest, its tag is `latest`.
    ///
    /// # Errors
    /// Fails if the text is no docker reference, or has both a tag and a digest.
    pub fn docker(text: &str) -> Result<Self> {
        let mut name = Name::parse(text)?;
        if name.tag.is_some() && name.digest.is_some() {
            return Err(Wrong(format!("`{name}` has a tag and a digest")));
        }
        if name.is_name_only() {
            name.tag = Some("latest".into());
        }
        Ok(Image { transport: "docker".into(), scopes: scopes_of(&name), name: Some(name) })
    }

    /// An image with a docker reference in another transport, such as a store.
    pub fn named(transport: &str, name: Name) -> Self {
        Image { transport: transport.into(), scopes: scopes_of(&name), name: Some(name) }
    }

    /// An image in a folder or an archive, at an absolute path whose symbolic links are resolved.
    pub fn at_path(transport: &str, path: &Path) -> Self {
        let above = path.ancestors().filter(|path| *path != Path::new("/"));
        let scopes = above.filter_map(Path::to_str).filter(|path| !path.is_empty()).map(str::to_owned);
        Image { transport: transport.into(), scopes: scopes.collect(), name: None }
    }

    /// An image of which a policy knows only the transport.
    pub fn of_transport(transport: &str) -> Self {
        Image { transport: transport.into(), scopes: Vec::new(), name: None }
    }

    /// The image for people.
    pub fn shown(&self) -> String {
        match (&self.name, self.scopes.first()) {
            (Some(name), _) => name.to_string(),
            (None, Some(scope)) => format!("{}:{scope}", self.transport),
            (None, None) => format!("an image of {}:", self.transport),
        }
    }
}

/// The scopes of a name: itself, its repository, each namespace above it, the host, and the domains of which the host is
/// a part. A host without a port does not stand for the host with one.
fn scopes_of(name: &Name) -> Vec<String> {
    let mut scopes = vec![name.to_string()];
    let repository = name.repository();
    if !name.is_name_only() {
        scopes.push(repository.clone());
    }
    let mut above = repository.as_str();
    while let Some(at) = above.rfind('/') {
        above = &above[..at];
        scopes.push(above.to_owned());
    }
    let mut domain = name.domain.split(':').next().unwrap_or_default();
    while let Some((_, rest)) = domain.split_once('.') {
        scopes.push(format!("*.{rest}"));
        domain = rest;
    }
    scopes
}

/// The scopes of an image in a store of containers (containers-policy.json(5), "containers-storage:"): with the driver and
/// the folder of the store before the name, from the name upwards. The driver is overlayfs, the only one that dray reads.
pub fn store_scopes(root: &Path, name: &str) -> Vec<String> {
    let root = root.display();
    let stores = [format!("[overlay@{root}]"), format!("[{root}]")];
    let names = Name::parse(name).map(|name| scopes_of(&name)).unwrap_or_else(|_| vec![name.to_owned()]);
    let below = names.iter().filter(|name| !name.starts_with('*'));
    let mut scopes: Vec<String> = below.map(|name| format!("{}{name}", stores[0])).collect();
    scopes.extend(stores);
    scopes
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_written_out_as_docker_does() {
        for (text, name) in [
            ("nginx", Some("docker.io/library/nginx")),
            ("nginx:1", Some("docker.io/library/nginx:1")),
            ("a/b", Some("docker.io/a/b")),
            ("index.docker.io/a", Some("docker.io/library/a")),
            ("localhost/a", Some("localhost/a")),
            ("h:5000/a/b:t", Some("h:5000/a/b:t")),
            ("Host/a", Some("Host/a")),
            ("h.example/A", None),
            ("h.example/a:", None),
            ("h.example/a:.x", None),
            ("h.example//a", None),
            ("h.example/a@sha256:12", None),
            ("h.example/../a", None),
            ("", None),
            ("h.exa mple/a", None),
            ("h.example/a\n", None),
        ] {
            assert_eq!(Name::parse(text).ok().map(|name| name.to_string()).as_deref(), name, "{text}");
        }
    }

    #[test]
    fn an_image_is_in_the_scopes_that_the_manual_names() {
        let image = Image::docker("a.b.example.com:5000/x/y:1").unwrap();
        let expected = [
            "a.b.example.com:5000/x/y:1",
            "a.b.example.com:5000/x/y",
            "a.b.example.com:5000/x",
            "a.b.example.com:5000",
            "*.b.example.com",
            "*.example.com",
            "*.com",
        ];
        assert_eq!(image.scopes, expected);
        assert_eq!(Image::docker("nginx").unwrap().scopes[0], "docker.io/library/nginx:latest");
        let folder = Image::at_path("oci", Path::new("/srv/images/app"));
        assert_eq!(folder.scopes, ["/srv/images/app", "/srv/images", "/srv"]);
    }
}
