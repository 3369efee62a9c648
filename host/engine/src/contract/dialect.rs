//! Dialects: what one kind of registry does in another way than the distribution specification, or better.

use super::{
    filter::Known,
    transport::Context,
    vocabulary::{Page, TagPage},
};
use crate::Result;
use dray_core::Digest;
use futures_util::future::BoxFuture;

/// By what a kind of registry is known.
#[derive(Clone, Copy, Debug)]
pub enum KnownBy<'a> {
    /// The operator says its kind.
    Kind(&'a str),
    /// The `host[:port]` of the registry.
    Host(&'a str),
    /// The service that the registry names in its challenge.
    Service(&'a str),
}

/// What a dialect offers.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Offers {
    /// It lists tags with what they name.
    pub lists: bool,
    /// Its lists have every tag that the specification's list has.
    pub whole: bool,
    /// Something must exist before a repository can be written to.
    pub prepares: bool,
    /// It removes a tag alone.
    pub removes: bool,
}

/// What a registry knows of one of its tags.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct KnownTag {
    /// The name of the tag.
    pub name: String,
    /// What the tag named when this was known. `None` means that the registry does not say.
    pub digest: Option<Digest>,
    /// What is known of the image.
    pub known: Known,
}

/// A manifest that no tag names.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct UntaggedManifest {
    /// Its digest.
    pub digest: Digest,
    /// When it was pushed, in milliseconds since 1970-01-01T00:00:00Z. `None` means that nobody knows.
    pub pushed: Option<u64>,
}

/// A report of a vulnerability scanner.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ScanReport {
    /// The media type of its content.
    pub media_type: String,
    /// The report.
    pub content: Vec<u8>,
}

/// One kind of registry. What fails is done as the specification says.
pub trait Dialect: Send + Sync {
    /// The name of the kind.
    fn name(&self) -> &str;
    /// What it offers.
    fn offers(&self) -> Offers;
    /// Lists the tags of a repository with what they name.
    fn tags<'a>(
        &'a self,
        context: Context,
        repository: &'a str,
        next: Option<&'a str>,
    ) -> BoxFuture<'a, Result<TagPage>>;
    /// Makes what must exist before a repository can be written to. Returns for what it exists now: a prefix that ends with a
    /// slash, for all repositories beneath it, or else one repository.
    fn prepare<'a>(&'a self, context: Context, repository: &'a str) -> BoxFuture<'a, Result<String>>;
    /// Tells what the registry knows of the images of a repository. Fails with `Unsupported` if it knows nothing.
    fn know<'a>(
        &'a self,
        context: Context,
        repository: &'a str,
        next: Option<&'a str>,
    ) -> BoxFuture<'a, Result<Page<KnownTag>>>;
    /// The latest report of a scanner on an image. `None` means that it was not scanned. Fails with `Unsupported` if the
    /// registry does not scan.
    fn scan<'a>(
        &'a self,
        context: Context,
        repository: &'a str,
        digest: &'a Digest,
    ) -> BoxFuture<'a, Result<Option<ScanReport>>>;
    /// Lists the manifests that no tag names. Fails with `Unsupported` if the registry does not list them.
    fn untagged<'a>(
        &'a self,
        context: Context,
        repository: &'a str,
        next: Option<&'a str>,
    ) -> BoxFuture<'a, Result<Page<UntaggedManifest>>>;
    /// Takes a tag away, and nothing else that names the same manifest.
    fn remove_tag<'a>(
        &'a self,
        context: Context,
        repository: &'a str,
        tag: &'a str,
    ) -> BoxFuture<'a, Result<()>>;
}
