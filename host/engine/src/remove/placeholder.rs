//! The placeholder: an index without images, which a tag gets before it is deleted where its image must stay.

use crate::{Error, Result, now};
use dray_core::{Children, Manifest, media_type};

/// The annotation that tells whoever finds a placeholder what it is.
const ANNOTATION: &str = "dev.dray.placeholder";

/// A placeholder for a tag. Its annotation also makes its digest one of its own.
pub(super) fn new(place: &str, repository: &str, tag: &str) -> Result<Manifest> {
    let index = serde_json::json!({
        "schemaVersion": 2,
        "mediaType": media_type::OCI_INDEX,
        "manifests": [],
        "annotations": {
            ANNOTATION: format!("{place}/{repository}:{tag} is being deleted ({}, {})", now(), fastrand::u64(..)),
        },
    });
    Manifest::parse(media_type::OCI_INDEX, index.to_string().into_bytes(), None)
        .map_err(|error| Error::internal(format!("make a placeholder: {error}")))
}

/// Whether a manifest is a placeholder, so that nobody misses it.
pub(crate) fn is_one(manifest: &Manifest) -> bool {
    let is_empty = matches!(&manifest.children, Children::Index(children) if children.is_empty());
    is_empty
        && serde_json::from_slice::<serde_json::Value>(&manifest.body)
            .is_ok_and(|index| index["annotations"].get(ANNOTATION).is_some())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_placeholder_is_known_as_one() {
        let (one, two) = (new("r", "a", "1").unwrap(), new("r", "a", "1").unwrap());
        assert!(is_one(&one) && one.descriptor.digest != two.descriptor.digest);
        let empty = br#"{"schemaVersion":2,"manifests":[]}"#.to_vec();
        assert!(!is_one(&Manifest::parse(media_type::OCI_INDEX, empty, None).unwrap()));
    }
}
