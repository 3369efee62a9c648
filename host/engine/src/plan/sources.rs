//! Resolves the tags of a rule at its sources, without asking any destination. Lock files are made from the result.

use super::{bind::BoundRule, expand::sources, tags::tags};
use crate::{Error, Kind, Result, error::Context, place::OpenReference};
use dray_core::{Digest, without_tag};
use futures_util::{StreamExt, stream};
use std::collections::BTreeMap;

/// Number of tags of one repository that are resolved at once.
const AT_ONCE: usize = 16;

/// The digests that the tags of one repository name.
pub struct SourceTags {
    /// The repository as users write it.
    pub from: String,
    /// The digest of each tag. A digest that a rule names stands for itself.
    pub tags: BTreeMap<String, Digest>,
    /// Whether the place has one image without a tag, which cannot be locked.
    pub untagged: bool,
}

/// Resolves all tags that a rule wants, at its sources. No request is sent for a pinned tag.
pub async fn source_tags(rule: &BoundRule) -> Vec<Result<SourceTags>> {
    let mut found = Vec::new();
    for source in &rule.from {
        match sources(source, &rule.repositories).await {
            Ok(repositories) => {
                for repository in repositories {
                    found.push(resolved(rule, &repository).await);
                }
            }
            Err(error) => found.push(Err(error)),
        }
    }
    found
}

async fn resolved(rule: &BoundRule, source: &OpenReference) -> Result<SourceTags> {
    let listed = tags(rule, source, None).await?;
    if listed.kept.is_empty() {
        rule.empty(source, listed.dropped.len())?;
    }
    let mut answer = SourceTags { from: repository_of(source), tags: BTreeMap::new(), untagged: false };
    let asked = stream::iter(listed.kept).map(|tag| async move {
        let Some(tag) = tag else { return Ok(None) };
        if let Some(digest) = rule.pinned(&tag).cloned().or_else(|| tag.parse().ok()) {
            return Ok(Some((tag, Some(digest))));
        }
        let found = source.repository.resolve(Some(&tag), None).await;
        let found = found.context(|| format!("resolve {}", source.endpoint(Some(&tag))))?;
        if found.is_none() && rule.is_literal(&tag, source) {
            let text = format!("resolve {}: there is no such image", source.endpoint(Some(&tag)));
            return Err(Error::new(Kind::NotFound, text));
        }
        Ok(Some((tag, found.map(|found| found.descriptor.digest))))
    });
    let mut asked = std::pin::pin!(asked.buffered(AT_ONCE));
    while let Some(one) = asked.next().await {
        match one? {
            Some((tag, Some(digest))) => _ = answer.tags.insert(tag, digest),
            // The tag existed when the tags were listed, and has been deleted since.
            Some((_, None)) => {}
            None => answer.untagged = true,
        }
    }
    Ok(answer)
}

/// The reference without its tag or digest.
fn repository_of(source: &OpenReference) -> String {
    let written = source.written.to_string();
    let Some(reference) = &source.reference else { return written };
    without_tag(&written, reference).unwrap_or(&written).to_owned()
}
