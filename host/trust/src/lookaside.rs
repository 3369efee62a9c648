//! Where the signatures of images in registries are kept beside them (containers-registries.d(5)).

use crate::Image;
use std::path::PathBuf;

/// What one section says. `None` means that it does not speak of it, so that a less specific one decides.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Lookaside {
    /// The URL beneath which signatures are read: `file:`, `http:` or `https:`.
    pub read: Option<String>,
    /// The `file:` URL beneath which signatures are written.
    pub write: Option<String>,
    /// Whether signatures of sigstore are written to the registry.
    pub attachments: Option<bool>,
}

/// Where the signatures of images are, by scope.
#[derive(Clone, Debug, Default)]
pub struct Lookasides {
    /// Sections by the names of images, as in a signature policy.
    pub scopes: Vec<(String, Lookaside)>,
    /// The section for all other images.
    pub default: Lookaside,
    /// The folder that is used if no section names a place.
    pub usual: Option<PathBuf>,
}

impl Lookasides {
    /// What holds for an image: of each field, the most specific section that has it.
    pub fn of(&self, image: &Image) -> Lookaside {
        let mut found = Lookaside::default();
        let named =
            image.scopes.iter().filter_map(|scope| self.scopes.iter().find(|(name, _)| name == scope));
        for section in named.map(|(_, section)| section).chain([&self.default]) {
            // Who names only where signatures are read writes them there as well.
            if found.write.is_none() && found.read.is_none() {
                found.write = section.write.clone().or_else(|| section.read.clone());
            }
            found.read = found.read.or_else(|| section.read.clone());
            found.attachments = found.attachments.or(section.attachments);
        }
        let usual = self.usual.as_ref().map(|path| format!("file://{}", path.display()));
        if found.write.is_none() {
            found.write = usual.clone();
        }
        found.read = found.read.or(usual);
        found
    }

    /// The folders that signatures are read from.
    pub fn folders(&self) -> Vec<PathBuf> {
        let sections = self.scopes.iter().map(|(_, section)| section).chain([&self.default]);
        let read = sections.filter_map(|section| section.read.as_deref()?.strip_prefix("file://"));
        read.map(PathBuf::from).chain(self.usual.clone()).collect()
    }

    /// The web servers that are asked for signatures, as `http://host[:port]` or `https://…`.
    pub fn servers(&self) -> Vec<String> {
        let sections = self.scopes.iter().map(|(_, section)| section).chain([&self.default]);
        let bases = sections.filter_map(|section| section.read.as_deref());
        let mut servers: Vec<String> = bases.filter_map(origin).collect();
        servers.sort();
        servers.dedup();
        servers
    }
}

/// `http://host[:port]` or `https://…` of a URL. `None` means that it is no URL of a web server.
pub fn origin(base: &str) -> Option<String> {
    let (scheme, rest) = base.split_once("://")?;
    let authority = rest.split(['/', '?', '#']).next().unwrap_or_default();
    let host = authority.rsplit('@').next().unwrap_or_default().to_lowercase();
    match (scheme, host.is_empty()) {
        ("http" | "https", false) => Some(format!("{scheme}://{host}")),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_most_specific_section_that_speaks_decides() {
        let section = |read: &str, attachments| Lookaside {
            read: (!read.is_empty()).then(|| read.to_owned()),
            write: None,
            attachments,
        };
        let lookasides = Lookasides {
            scopes: vec![
                ("h.example".into(), section("https://host", Some(true))),
                ("h.example/a".into(), section("file:///a", None)),
            ],
            default: section("https://default", None),
            usual: Some("/var/lib/usual".into()),
        };
        let of = |name: &str| lookasides.of(&Image::docker(name).unwrap());
        let a = of("h.example/a/b:1");
        assert_eq!((a.read.as_deref(), a.attachments), (Some("file:///a"), Some(true)));
        assert_eq!(a.write.as_deref(), Some("file:///a"));
        assert_eq!(of("h.example/b:1").read.as_deref(), Some("https://host"));
        assert_eq!(of("other.example/b:1").read.as_deref(), Some("https://default"));
        assert_eq!(lookasides.servers(), ["https://default", "https://host"]);
        let usual = Lookasides { usual: lookasides.usual.clone(), ..Lookasides::default() };
        assert_eq!(usual.of(&Image::docker("a").unwrap()).read.as_deref(), Some("file:///var/lib/usual"));
    }
}
