//! What one thing may be made of, wherever it comes from: whoever names more is refused.

/// The most bytes of an answer or file that dray holds in memory: manifests, configs, lists.
/// Registries must take manifests of 4 MiB (distribution specification, 4.4).
pub const DOCUMENT_LIMIT: usize = 8 << 20;

/// Manifests of one image, children and referrers together.
pub(crate) const MANIFESTS: usize = 10_000;

/// Bytes of the manifests of one image.
pub(crate) const MANIFEST_BYTES: u64 = 64 << 20;
