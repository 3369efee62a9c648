//! Verifiers, which judge whether an image may be copied.

use crate::Result;
use dray_core::Manifest;
use futures_util::future::BoxFuture;

/// Something that vouches for an image, as it was found. Nothing of it has been checked.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Evidence {
    /// `simple-signing`, `sigstore`, `sigstore-bundle`, or the artifact type of a referrer.
    pub kind: String,
    /// The signature. For `sigstore` it is the payload that was signed; for a referrer, its first layer.
    pub content: Vec<u8>,
    /// The annotations beside it.
    pub annotations: Vec<(String, String)>,
}

/// What a verifier decided.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Judgement {
    /// By whom the image is vouched for, for people.
    Accepted(String),
    /// Why it is not.
    Refused(Vec<String>),
}

/// Judges whether an image may be copied. It is bound to its configuration.
pub trait Verifier: Send + Sync {
    /// The name of the plugin.
    fn name(&self) -> &str;
    /// The artifact types of the referrers that it wants to see, beside signatures. Fails if its configuration is wrong.
    fn wants(&self) -> BoxFuture<'_, Result<Vec<String>>>;
    /// Judges an image. `reference` is the name by which the user asked for it, if it has one.
    fn verify<'a>(
        &'a self,
        reference: Option<&'a str>,
        manifest: &'a Manifest,
        evidence: Vec<Evidence>,
    ) -> BoxFuture<'a, Result<Judgement>>;
}
