//! Choosing platforms of an index.

use crate::{Children, Descriptor, Digest, Manifest, ManifestError, Platform, media_type};

/// buildkit's attestations name their image so (buildkit, attestation storage).
const ATTESTED: &str = "vnd.docker.reference.digest";

/// The children of an index that are wanted, and the others.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Selection {
    /// To be copied.
    pub kept: Vec<Descriptor>,
    /// To be left.
    pub dropped: Vec<Descriptor>,
}

/// An index cannot be trimmed.
#[derive(Debug, thiserror::Error)]
pub enum TrimError {
    /// Nothing in it is wanted.
    #[error("choose platforms: the index has none of {wanted}, but {offered}")]
    Nothing {
        /// What was asked for.
        wanted: String,
        /// What there is.
        offered: String,
    },
    /// Not JSON of the shape of an index.
    #[error(transparent)]
    Manifest(#[from] ManifestError),
}

/// Chooses among the children of an index. No platforms: all. Children without a platform stay
/// (nested indexes, artifacts); attestations stay with their image.
///
/// # Errors
/// Fails if nothing that has a platform would be kept.
pub fn select(children: &[Descriptor], wanted: &[Platform]) -> Result<Selection, TrimError> {
    let mut selection = Selection::default();
    if wanted.is_empty() {
        selection.kept = children.to_vec();
        return Ok(selection);
    }
    let mut offered = Vec::new();
    let matching: Vec<&Digest> = children
        .iter()
        .filter(|child| match &child.platform {
            Some(platform) if !is_attestation(child) => {
                offered.push(platform.to_string());
                wanted.iter().any(|wanted| wanted.wants(platform))
            }
            _ => false,
        })
        .map(|child| &child.digest)
        .collect();
    if matching.is_empty() && !offered.is_empty() {
        let wanted: Vec<String> = wanted.iter().map(Platform::to_string).collect();
        return Err(TrimError::Nothing { wanted: wanted.join(", "), offered: offered.join(", ") });
    }
    for child in children {
        let keep = match child.annotations.get(ATTESTED) {
            Some(image) => matching.iter().any(|digest| digest.to_string() == *image),
            None => child.platform.is_none() || matching.contains(&&child.digest),
        };
        if keep { selection.kept.push(child.clone()) } else { selection.dropped.push(child.clone()) }
    }
    Ok(selection)
}

fn is_attestation(child: &Descriptor) -> bool {
    child.annotations.contains_key(ATTESTED)
}

/// A smaller index with the wanted platforms alone: all else of it stays as it is. The same
/// manifest where nothing would go.
///
/// # Errors
/// See [`TrimError`].
pub fn trim(index: &Manifest, wanted: &[Platform]) -> Result<Manifest, TrimError> {
    let Children::Index(children) = &index.children else { return Ok(index.clone()) };
    let selection = select(children, wanted)?;
    if selection.dropped.is_empty() {
        return Ok(index.clone());
    }
    let malformed = |error: serde_json::Error| ManifestError::Malformed(error.to_string());
    let mut value: serde_json::Value = serde_json::from_slice(&index.body).map_err(malformed)?;
    if let Some(manifests) = value.get_mut("manifests").and_then(|manifests| manifests.as_array_mut()) {
        let mut position = 0;
        manifests.retain(|_| {
            position += 1;
            selection.kept.iter().any(|kept| *kept == children[position - 1])
        });
    }
    // A body without a mediaType would lose its type on the way into a layout.
    value["mediaType"] = index.descriptor.media_type.clone().into();
    let body = serde_json::to_vec(&value).map_err(malformed)?;
    debug_assert!(media_type::is_index(&index.descriptor.media_type));
    Ok(Manifest::parse(&index.descriptor.media_type, body, None)?)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn index() -> Manifest {
        let child = |name: &str, rest: &str| {
            let digest = Digest::of(name.as_bytes());
            format!(r#"{{"mediaType":"{}","digest":"{digest}","size":1{rest}}}"#, media_type::OCI_MANIFEST)
        };
        let platform = |os: &str, architecture: &str| {
            format!(r#","platform":{{"os":"{os}","architecture":"{architecture}"}}"#)
        };
        let attests = |name: &str| {
            format!(
                r#"{},"annotations":{{"{ATTESTED}":"{}"}}"#,
                platform("unknown", "unknown"),
                Digest::of(name.as_bytes())
            )
        };
        let children = [
            child("amd", &platform("linux", "amd64")),
            child("arm", &platform("linux", "arm64")),
            child("amd-attestation", &attests("amd")),
            child("arm-attestation", &attests("arm")),
            child("artifact", ""),
        ];
        let body = format!(
            r#"{{"schemaVersion":2,"annotations":{{"k":"v"}},"manifests":[{}]}}"#,
            children.join(",")
        );
        Manifest::parse(media_type::OCI_INDEX, body.into_bytes(), None).unwrap()
    }

    #[test]
    fn attestations_stay_with_their_image() {
        let trimmed = trim(&index(), &["linux/amd64".parse().unwrap()]).unwrap();
        let Children::Index(children) = &trimmed.children else { panic!() };
        let digests: Vec<Digest> = children.iter().map(|child| child.digest.clone()).collect();
        assert_eq!(digests, ["amd", "amd-attestation", "artifact"].map(|name| Digest::of(name.as_bytes())));
        assert!(String::from_utf8(trimmed.body).unwrap().contains(r#""k":"v""#));
    }

    #[test]
    fn what_keeps_everything_keeps_the_bytes() {
        let index = index();
        let all = ["linux/amd64".parse().unwrap(), "linux/arm64".parse().unwrap()];
        assert_eq!(trim(&index, &all).unwrap().body, index.body);
        assert_eq!(trim(&index, &[]).unwrap().body, index.body);
    }

    #[test]
    fn an_index_without_what_is_wanted_is_an_error_that_says_what_there_is() {
        let error = trim(&index(), &["linux/s390x".parse().unwrap()]).unwrap_err().to_string();
        assert!(error.contains("linux/s390x") && error.contains("linux/amd64, linux/arm64"), "{error}");
    }
}
