//! What plugins ask of the operator, and what of a grant they get: what the operator grants and the plugin asks for.

use dray_core::policy::{Grant, narrower_host};
use std::path::{Component, Path, PathBuf};

/// Something that a plugin needs beyond what every plugin of its kind may use.
#[derive(Clone, Debug, PartialEq, Eq, serde::Serialize)]
pub struct Wish {
    /// What it is.
    pub kind: WishKind,
    /// Its name as the policy grants it, or a description where the plugin does not know it.
    pub name: String,
    /// What it is for.
    pub why: String,
}

/// The kinds of things that a policy grants.
#[derive(Clone, Copy, Debug, PartialEq, Eq, serde::Serialize)]
#[serde(rename_all = "lowercase")]
pub enum WishKind {
    /// A host of the network.
    Host,
    /// A secret.
    Secret,
    /// A folder or an archive.
    Files,
}

impl Wish {
    /// Whether it names what is wished, and does not describe it: a name has no spaces.
    pub fn is_named(&self) -> bool {
        !self.name.contains(char::is_whitespace)
    }
}

/// What a plugin gets of a grant. A wish that only describes something stands for all that is granted of its kind. Of a wildcard and
/// a name that it covers, the name is what both mean.
///
/// ```
/// use dray_core::policy::Grant;
/// use dray_runtime::{Wish, WishKind, narrowed};
///
/// let wish = Wish { kind: WishKind::Host, name: "login.example.com".into(), why: "it gives the tokens".into() };
/// let grant = Grant { hosts: vec!["*.example.com".into(), "other.example".into()], ..Grant::default() };
/// assert_eq!(narrowed(&grant, &[wish]).hosts, ["login.example.com"]);
/// assert!(narrowed(&grant, &[]).hosts.is_empty());
/// ```
pub fn narrowed(grant: &Grant, wishes: &[Wish]) -> Grant {
    let of = |kind| wishes.iter().filter(move |wish| wish.kind == kind);
    let hosts = |wish: &Wish| -> Vec<String> {
        let both = |granted: &String| match wish.is_named() {
            true => narrower_host(granted, &wish.name),
            false => Some(granted.clone()),
        };
        grant.hosts.iter().filter_map(both).collect()
    };
    let mut narrowed = Grant {
        hosts: of(WishKind::Host).flat_map(hosts).collect(),
        files: kept(&grant.files, of(WishKind::Files), |path: &PathBuf, name| {
            plain_path(path) == plain_path(Path::new(name))
        }),
        secrets: kept(&grant.secrets, of(WishKind::Secret), |secret, name| secret.to_string() == name),
    };
    narrowed.hosts.sort();
    narrowed.hosts.dedup();
    narrowed
}

/// A path without `.` in it.
fn plain_path(path: &Path) -> PathBuf {
    path.components().filter(|part| *part != Component::CurDir).collect()
}

/// Those of several things that a wish asks for.
fn kept<'a, T: Clone>(
    granted: &[T],
    wishes: impl Iterator<Item = &'a Wish> + Clone,
    is: impl Fn(&T, &str) -> bool,
) -> Vec<T> {
    let asked = |one: &&T| wishes.clone().any(|wish| !wish.is_named() || is(one, &wish.name));
    granted.iter().filter(asked).cloned().collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn wish(kind: WishKind, name: &str) -> Wish {
        Wish { kind, name: name.into(), why: "it is needed".into() }
    }

    #[test]
    fn a_plugin_gets_what_is_granted_and_asked_for() {
        let grant = Grant {
            hosts: vec!["a.example".into(), "*.b.example".into()],
            files: vec!["cache".into(), "other".into()],
            secrets: vec!["env:TOKEN".parse().unwrap(), "env:OTHER".parse().unwrap()],
        };
        let hosts = |names: &[&str]| {
            let wishes: Vec<Wish> = names.iter().map(|name| wish(WishKind::Host, name)).collect();
            narrowed(&grant, &wishes).hosts
        };
        assert_eq!(hosts(&[]), [""; 0]);
        assert_eq!(hosts(&["a.example"]), ["a.example"]);
        assert_eq!(hosts(&["x.b.example"]), ["x.b.example"]);
        assert_eq!(hosts(&["*.b.example"]), ["*.b.example"]);
        assert_eq!(hosts(&["*.example"]), ["*.b.example", "a.example"]);
        assert_eq!(hosts(&["*.x.b.example"]), ["*.x.b.example"]);
        for none in
            ["c.example", "*@127.0.0.1:8123\\.b.example", "*", "*.", "https://a.example", "a.example:80"]
        {
            assert_eq!(hosts(&[none]), [""; 0], "{none}");
        }
        let port = Grant { hosts: vec!["a.example:8443".into()], ..Grant::default() };
        assert_eq!(narrowed(&port, &[wish(WishKind::Host, "a.example")]).hosts, ["a.example:8443"]);
        assert_eq!(hosts(&["the host of your login"]), ["*.b.example", "a.example"]);
        let few = narrowed(&grant, &[wish(WishKind::Secret, "env:TOKEN"), wish(WishKind::Files, "cache")]);
        assert_eq!(few.secrets, ["env:TOKEN".parse().unwrap()]);
        assert_eq!((few.files, few.hosts), (vec![PathBuf::from("cache")], Vec::new()));
        let all = narrowed(&grant, &[wish(WishKind::Secret, "the token"), wish(WishKind::Files, "a folder")]);
        assert_eq!((all.secrets.len(), all.files.len()), (2, 2));
    }
}
