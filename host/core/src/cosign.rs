//! The tags beneath which cosign keeps what belongs to an image (cosign, `SIGNATURE_SPEC.md`).

use crate::Digest;

/// The tag beneath which the signatures of a digest are.
///
/// ```
/// let digest = dray_core::Digest::of(b"image");
/// assert_eq!(dray_core::cosign_signatures(&digest), format!("sha256-{}.sig", digest.hex()));
/// ```
pub fn cosign_signatures(digest: &Digest) -> String {
    tag(digest, "sig")
}

/// The tags beneath which the signatures, attestations and SBOMs of a digest are.
///
/// ```
/// let tags: Vec<String> = dray_core::cosign_tags(&dray_core::Digest::of(b"image")).collect();
/// assert!(tags[0].ends_with(".sig") && tags[1].ends_with(".att") && tags[2].ends_with(".sbom"));
/// ```
pub fn cosign_tags(digest: &Digest) -> impl Iterator<Item = String> {
    ["sig", "att", "sbom"].into_iter().map(|kind| tag(digest, kind))
}

fn tag(digest: &Digest, kind: &str) -> String {
    format!("{}-{}.{kind}", digest.algorithm_name(), digest.hex())
}
