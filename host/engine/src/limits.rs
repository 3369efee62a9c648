//! Limits for content, wherever it comes from. Content that exceeds a limit is refused.

/// The most bytes of an answer or file that dray holds in memory: manifests, configs, lists.
/// Registries must take manifests of 4 MiB (distribution specification, 4.4).
pub const DOCUMENT_LIMIT: usize = 8 << 20;

/// The most manifests of one image, children and referrers together.
pub(crate) const MANIFESTS: usize = 10_000;

/// The most bytes that the manifests of one image may have together.
pub(crate) const MANIFEST_BYTES: u64 = 64 << 20;
