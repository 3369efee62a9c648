//! The choice of platforms in an index.

use crate::{Children, Descriptor, Digest, Manifest, ManifestError, Platform, media_type};

/// The annotation in which BuildKit's attestations name their image (BuildKit, attestation storage).
const ATTESTED: &str = "vnd.docker.reference.digest";

/// The children of an index, divided into those that are wanted and the others.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Selection {
    /// The children to copy.
    pub kept: Vec<Descriptor>,
    /// The children to leave out.
    pub dropped: Vec<Descriptor>,
}

/// Why an index cannot be trimmed.
#[derive(Debug, thiserror::Error)]
pub enum TrimError {
    /// The index has none of the wanted platforms.
    #[error("choose platforms: the index has none of {wanted}, but {offered}")]
    Nothing {
        /// The platforms that were asked for.
        wanted: String,
        /// The platforms that the index has.
        offered: String,
    },
    /// The body is not the JSON of an index.
    #[error(transparent)]
    Manifest(#[from] ManifestError),
}

/// Chooses among the children of an index. If `wanted` is empty, all are kept. Children without a platform (nested
/// indexes, artifacts) are kept, and attestations are kept if their image is.
///
/// # Errors
/// Fails if the index has children with platforms, and none of them is wanted.
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

/// A smaller index that has only the wanted platforms. Everything else in it stays as it is. If nothing is left out,
/// the result is the same manifest.
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
    // Without a mediaType in its body, the index would lose its media type in a layout.
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
