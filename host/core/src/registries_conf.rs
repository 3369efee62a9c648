//! containers-registries.conf(5), version 2: which mirrors are asked for an image, where names lead, what is blocked, and
//! which registries need no TLS.

use serde::Deserialize;

/// The registries of all files together.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct RegistriesConf {
    registries: Vec<Registry>,
}

#[derive(Clone, Debug, Deserialize, PartialEq, Eq)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
struct Registry {
    #[serde(default)]
    prefix: String,
    #[serde(default)]
    location: String,
    #[serde(default)]
    insecure: bool,
    #[serde(default)]
    blocked: bool,
    #[serde(default)]
    mirror_by_digest_only: bool,
    #[serde(default)]
    mirror: Vec<Mirror>,
}

#[derive(Clone, Debug, Deserialize, PartialEq, Eq)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
struct Mirror {
    location: String,
    #[serde(default)]
    insecure: bool,
    #[serde(default)]
    pull_from_mirror: PullFrom,
}

/// For which images a mirror is asked.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum PullFrom {
    /// For all.
    #[default]
    #[serde(alias = "")]
    All,
    /// For images that are named by a digest.
    DigestOnly,
    /// For images that are named by a tag.
    TagOnly,
}

/// A place where an image may be read.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PullSource {
    /// `host[:port]/path`, without a tag and a digest.
    pub name: String,
    /// For which images it is asked.
    pub pull: PullFrom,
}

/// One file. Keys for short names and helpers are of other readers' concern.
#[derive(Deserialize)]
#[serde(rename_all = "kebab-case")]
struct File {
    #[serde(default)]
    registry: Vec<Registry>,
    registries: Option<toml::Value>,
}

impl RegistriesConf {
    /// Adds what a file says. A registry replaces one of the same prefix in the files before.
    ///
    /// # Errors
    /// Says what is wrong with the file, with its line.
    pub fn add(&mut self, text: &str) -> Result<(), String> {
        let file: File = toml::from_str(text).map_err(|error| {
            let line =
                error.span().map_or(1, |span| text[..span.start.min(text.len())].matches('\n').count() + 1);
            format!("line {line}: {}", error.message())
        })?;
        if file.registries.is_some() {
            return Err(
                "it is of version 1 (`[registries.search]`), which containers' tools gave up; write \
                        [[registry]] tables"
                    .into(),
            );
        }
        for mut registry in file.registry {
            for location in [&mut registry.prefix, &mut registry.location]
                .into_iter()
                .chain(registry.mirror.iter_mut().map(|mirror| &mut mirror.location))
            {
                if location.contains("://") {
                    return Err(format!("`{location}` begins with a protocol: write host[:port][/path]"));
                }
                *location = location.trim_end_matches('/').to_owned();
            }
            if registry.prefix.is_empty() {
                registry.prefix.clone_from(&registry.location);
            }
            let wild = registry.prefix.starts_with("*.");
            if registry.prefix.is_empty() {
                return Err("a [[registry]] has neither a prefix nor a location".into());
            }
            if registry.location.is_empty() && !wild {
                return Err(format!("the registry `{}` has no location", registry.prefix));
            }
            if registry.prefix.contains('*') && (!wild || registry.prefix[2..].contains(['*', '/'])) {
                return Err(format!(
                    "`{}`: a wildcard stands for the first labels of a host alone",
                    registry.prefix
                ));
            }
            let digest_only = registry.mirror_by_digest_only;
            if digest_only && registry.mirror.iter().any(|mirror| mirror.pull_from_mirror != PullFrom::All) {
                return Err(format!(
                    "the mirrors of `{}` say twice for which images they are",
                    registry.prefix
                ));
            }
            self.registries.retain(|other| other.prefix != registry.prefix);
            self.registries.push(registry);
        }
        Ok(())
    }

    /// The registry with the longest prefix of a name.
    fn of(&self, name: &str) -> Option<&Registry> {
        let matching = self.registries.iter().filter(|registry| registry.matches(name));
        matching.max_by_key(|registry| registry.prefix.len())
    }

    /// Whether the images of this name must not be read or written. The prefix that says so is returned.
    pub fn blocked(&self, name: &str) -> Option<&str> {
        self.of(name).filter(|registry| registry.blocked).map(|registry| registry.prefix.as_str())
    }

    /// Where images of a name are read, in the order in which the places are asked. `None` means that no file speaks of
    /// it, so that it is read where its name says.
    pub fn sources(&self, name: &str) -> Option<Vec<PullSource>> {
        let registry = self.of(name)?;
        let mirrors = registry.mirror.iter().map(|mirror| PullSource {
            name: registry.moved(name, &mirror.location),
            pull: if registry.mirror_by_digest_only { PullFrom::DigestOnly } else { mirror.pull_from_mirror },
        });
        let itself = PullSource { name: registry.moved(name, &registry.location), pull: PullFrom::All };
        let all: Vec<PullSource> = mirrors.chain([itself]).collect();
        (all.len() > 1 || all[0].name != name).then_some(all)
    }

    /// Whether a host need not use TLS, or may have any certificate.
    pub fn insecure(&self, host: &str) -> bool {
        let at_host = |location: &str| location == host || location.starts_with(&format!("{host}/"));
        let itself = self.of(host).is_some_and(|registry| registry.insecure);
        itself
            || self.registries.iter().any(|registry| {
                let location =
                    if registry.location.is_empty() { &registry.prefix } else { &registry.location };
                (registry.insecure && at_host(location))
                    || registry.mirror.iter().any(|mirror| mirror.insecure && at_host(&mirror.location))
            })
    }
}

impl Registry {
    fn matches(&self, name: &str) -> bool {
        if let Some(domain) = self.prefix.strip_prefix('*') {
            let host = name.split('/').next().unwrap_or(name);
            // The wildcard stands for any port, too.
            let host = host.split(':').next().unwrap_or(host);
            return host.len() > domain.len() && host.ends_with(domain);
        }
        let rest = name.strip_prefix(&self.prefix);
        rest.is_some_and(|rest| rest.is_empty() || rest.starts_with(['/', ':', '@']))
    }

    /// A name with the prefix replaced by a location.
    fn moved(&self, name: &str, location: &str) -> String {
        match self.prefix.starts_with("*.") {
            _ if location.is_empty() => name.to_owned(),
            // The wildcard stands for the host.
            true => format!("{location}{}", name.find('/').map_or("", |at| &name[at..])),
            false => format!("{location}{}", name.strip_prefix(&self.prefix).unwrap_or_default()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn conf(text: &str) -> RegistriesConf {
        let mut conf = RegistriesConf::default();
        conf.add(text).unwrap();
        conf
    }

    #[test]
    fn the_longest_prefix_says_where_an_image_is_read() {
        let mut conf = conf(
            r#"
            unqualified-search-registries = ["docker.io"]
            [[registry]]
            location = "docker.io"
            [[registry.mirror]]
            location = "mirror.example:5000/hub"
            insecure = true
            [[registry.mirror]]
            location = "digests.example"
            pull-from-mirror = "digest-only"
            [[registry]]
            prefix = "old.example/team"
            location = "new.example/t"
            [[registry]]
            prefix = "*.bad.example"
            blocked = true
            [aliases]
            "#,
        );
        conf.add("[[registry]]\nprefix = \"old.example\"\nlocation = \"old.example\"\ninsecure = true")
            .unwrap();
        let names = |name: &str| {
            conf.sources(name)
                .map(|all| all.into_iter().map(|source| source.name).collect::<Vec<_>>().join(" "))
        };
        let hub =
            "mirror.example:5000/hub/library/nginx digests.example/library/nginx docker.io/library/nginx";
        assert_eq!(names("docker.io/library/nginx").as_deref(), Some(hub));
        assert_eq!(names("old.example/team/app").as_deref(), Some("new.example/t/app"));
        assert_eq!(names("old.example/teams/app"), None);
        assert_eq!(names("quay.io/app"), None);
        assert_eq!(conf.blocked("x.bad.example/app"), Some("*.bad.example"));
        assert_eq!(conf.blocked("x.bad.example:443/app"), Some("*.bad.example"));
        assert_eq!(conf.blocked("bad.example/app"), None);
        assert!(conf.insecure("old.example") && conf.insecure("mirror.example:5000"));
        assert!(!conf.insecure("new.example") && !conf.insecure("digests.example"));
    }

    #[test]
    fn mistakes_are_told() {
        for wrong in [
            "[[registry]]\nprefix = \"a\"",
            "[[registry]]\nlocation = \"https://a\"",
            "[[registry]]\nprefix = \"a*.b\"\nlocation = \"c\"",
            "[[registry]]\nlocation = \"a\"\nblockd = true",
            "[[registry]]\nlocation = \"a\"\n[[registry.mirror]]\nlocation = \"b\"\npull-from-mirror = \"never\"",
            "[registries.search]\nregistries = [\"a\"]",
            "[[registry",
        ] {
            assert!(RegistriesConf::default().add(wrong).is_err(), "{wrong}");
        }
    }
}
