//! Which names a signature may carry (`signedIdentity` of containers-policy.json(5)).

use crate::{Image, Name, Result, Wrong};

/// How the name in a signature is compared with the name of the image.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum Identity {
    /// `matchExact`: the same name, with its tag or digest.
    Exact,
    /// `matchRepoDigestOrExact`: the same; an image that is named by its digest needs only the same repository.
    #[default]
    RepoDigestOrExact,
    /// `matchRepository`: the same repository, with any tag.
    Repository,
    /// `exactReference`: this name.
    ExactReference(Name),
    /// `exactRepository`: any tag of this repository.
    ExactRepository(Name),
    /// Any name, or none: that the digest was signed is enough. policy.json cannot say this.
    Any,
    /// `remapIdentity`: as `matchRepoDigestOrExact`, after a prefix of the image's name is replaced.
    Remap {
        /// What the image's name begins with.
        prefix: String,
        /// What is signed instead.
        signed: String,
    },
}

impl Identity {
    /// Checks the name in a signature.
    ///
    /// # Errors
    /// Says why the name does not fit.
    pub fn check(&self, image: &Image, signed: &str) -> Result<()> {
        if *self == Identity::Any {
            return Ok(());
        }
        let name = Name::parse(signed).map_err(|_| {
            Wrong(format!("it is for `{}`, which is no name of an image", signed.escape_debug()))
        })?;
        let needed = || {
            image.name.clone().ok_or_else(|| {
                Wrong(format!(
                    "images of {}: have no name that could be signed (use exactReference or exactRepository)",
                    image.transport
                ))
            })
        };
        let fits = match self {
            Identity::Exact => exact(&needed()?, &name),
            Identity::RepoDigestOrExact => repo_digest_or_exact(&needed()?, &name),
            Identity::Any => true,
            Identity::Repository => needed()?.repository() == name.repository(),
            Identity::ExactReference(wanted) => exact(wanted, &name),
            Identity::ExactRepository(wanted) => wanted.repository() == name.repository(),
            Identity::Remap { prefix, signed } => {
                repo_digest_or_exact(&remapped(&needed()?, prefix, signed)?, &name)
            }
        };
        match fits {
            true => Ok(()),
            false => Err(Wrong(format!("it is for {name}"))),
        }
    }

    /// Whether a signature that names no image fits: one that gives only a digest, such as a cosign bundle. It says no
    /// more than that these bytes were signed, so whoever demands it must say that this is enough.
    pub fn takes_unnamed(&self) -> bool {
        matches!(self, Identity::Any)
    }
}

fn exact(wanted: &Name, signed: &Name) -> bool {
    !wanted.is_name_only() && !signed.is_name_only() && wanted == signed
}

fn repo_digest_or_exact(image: &Name, signed: &Name) -> bool {
    match (&image.tag, &image.digest) {
        _ if signed.is_name_only() => false,
        (Some(_), _) => image == signed,
        (None, Some(_)) => image.repository() == signed.repository(),
        (None, None) => false,
    }
}

/// Replaces the beginning of a name. It is not replaced if the name does not begin with it.
fn remapped(name: &Name, prefix: &str, signed: &str) -> Result<Name> {
    let whole = name.to_string();
    let rest = match whole.strip_prefix(prefix) {
        Some(rest) if rest.is_empty() || rest.starts_with('/') => rest,
        // A prefix may also be a whole repository, before the tag or the digest.
        Some(rest) if rest.starts_with([':', '@']) && prefix == name.repository() => rest,
        _ => return Ok(name.clone()),
    };
    Name::parse(&format!("{signed}{rest}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn identities_match_as_the_manual_says() {
        let digest = format!("sha256:{}", "a".repeat(64));
        let by_digest = format!("h.example/a@{digest}");
        let name = |text: &str| Name::parse(text).unwrap();
        let remap =
            |prefix: &str, signed: &str| Identity::Remap { prefix: prefix.into(), signed: signed.into() };
        for (identity, image, signed, fits) in [
            (Identity::Exact, "h.example/a:1", "h.example/a:1", true),
            (Identity::Exact, "h.example/a:1", "h.example/a", false),
            (Identity::Exact, "nginx", "docker.io/library/nginx:latest", true),
            (Identity::Exact, by_digest.as_str(), "h.example/a:1", false),
            (Identity::Exact, by_digest.as_str(), by_digest.as_str(), true),
            (Identity::RepoDigestOrExact, "h.example/a:1", "h.example/a:2", false),
            (Identity::RepoDigestOrExact, by_digest.as_str(), "h.example/a:2", true),
            (Identity::RepoDigestOrExact, by_digest.as_str(), "h.example/b:2", false),
            (Identity::RepoDigestOrExact, by_digest.as_str(), "h.example/a", false),
            (Identity::Repository, "h.example/a:1", "h.example/a", true),
            (Identity::Repository, "h.example/a:1", "h.example/a:2", true),
            (Identity::Repository, "h.example/a:1", "h.example/aa", false),
            (Identity::ExactReference(name("v.example/x:1")), "h.example/a:1", "v.example/x:1", true),
            (Identity::ExactReference(name("v.example/x:1")), "h.example/a:1", "v.example/x:2", false),
            (Identity::ExactRepository(name("v.example/x")), "h.example/a:1", "v.example/x:2", true),
            (remap("h.example", "v.example"), "h.example/a:1", "v.example/a:1", true),
            (remap("h.example", "v.example"), "h.example/a:1", "h.example/a:1", false),
            (remap("h.example/a", "v.example/z"), "h.example/a:1", "v.example/z:1", true),
            (remap("h.example/a", "v.example/z"), "h.example/ab:1", "h.example/ab:1", true),
            (remap("h.exam", "v.exam"), "h.example/a:1", "v.example/a:1", false),
        ] {
            let checked = identity.check(&Image::docker(image).unwrap(), signed);
            assert_eq!(checked.is_ok(), fits, "{identity:?} {image} {signed}: {checked:?}");
        }
        let folder = Image::of_transport("dir");
        assert!(Identity::Repository.check(&folder, "h.example/a:1").is_err());
        assert!(Identity::ExactRepository(name("h.example/a")).check(&folder, "h.example/a:1").is_ok());
    }
}
