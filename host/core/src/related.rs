//! Tags that are made of the digest of an image, beneath which something is kept that belongs to it. cosign's are known
//! (cosign, `SIGNATURE_SPEC.md`); a policy names others by templates.

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

/// The tag that a template makes of a digest: `{hex}` stands for the hash. `None` means that it makes none, because the hash is not
/// of SHA-256: a tag has no room for a longer one.
///
/// ```
/// let digest = dray_core::Digest::of(b"image");
/// let tag = dray_core::related_tag("sha256-{hex}.vex", &digest);
/// assert_eq!(tag, Some(format!("sha256-{}.vex", digest.hex())));
/// ```
pub fn related_tag(template: &str, digest: &Digest) -> Option<String> {
    matches!(digest, Digest::Sha256(_)).then(|| template.replace("{hex}", &digest.hex()))
}

/// Whether a template could have made a tag of some digest.
///
/// ```
/// let tag = format!("sha256-{}.vex", "0".repeat(64));
/// assert!(dray_core::is_related("sha256-{hex}.vex", &tag));
/// assert!(!dray_core::is_related("sha256-{hex}.vex", "sha256-00.vex"));
/// ```
pub fn is_related(template: &str, tag: &str) -> bool {
    let Some((before, after)) = template.split_once("{hex}") else { return false };
    let hash = tag.strip_prefix(before).and_then(|rest| rest.strip_suffix(after));
    hash.is_some_and(|hash| hash.len() == 64 && hash.bytes().all(|byte| byte.is_ascii_hexdigit()))
}

/// What is wrong with a template of tags. `None` means that nothing is.
pub(crate) fn wrong_template(template: &str) -> Option<&'static str> {
    if template.matches("{hex}").count() != 1 {
        return Some("it has to have {hex} once, which stands for the hash of the image's digest");
    }
    match crate::is_tag(&template.replace("{hex}", &"0".repeat(64))) {
        true => None,
        false => Some("what it makes is no tag"),
    }
}
