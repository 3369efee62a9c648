//! What of a planned image would travel at most: the blobs that it consists of.

use super::{before::tag_of, item::PlannedCopy};
use crate::{Error, Result};
use dray_core::{Children, Descriptor, Digest, NESTING, is_blob, select};
use std::collections::BTreeMap;

/// Manifests of one image that are read for its size.
const MANIFESTS: usize = 1000;

impl PlannedCopy {
    /// The blobs of the image with their sizes in bytes, of the platforms that are wanted. Reads every manifest of the image
    /// at the source.
    ///
    /// # Errors
    /// Fails if a manifest cannot be read, or the image has too many.
    pub async fn blobs(&self) -> Result<BTreeMap<Digest, u64>> {
        let copy = &self.copy;
        let top = match &self.manifest {
            Some(manifest) => manifest.clone(),
            None => {
                let tag = tag_of(copy.source.reference.as_deref());
                self.source.manifest_named(tag, &copy.descriptor).await?
            }
        };
        let mut blobs = BTreeMap::new();
        let mut take = |blob: &Descriptor| _ = blobs.insert(blob.digest.clone(), blob.size);
        let (mut waiting, mut read) = (vec![(top, 0)], 0);
        while let Some((manifest, depth)) = waiting.pop() {
            match &manifest.children {
                Children::Image { config, layers } => layers.iter().chain([config]).for_each(&mut take),
                Children::Schema1(_) => {}
                Children::Index(children) => {
                    let platforms = copy.wanted.choice.platforms();
                    let kept = match platforms.is_empty() {
                        true => children.clone(),
                        false => select(children, platforms).map_err(Error::from)?.kept,
                    };
                    for child in kept {
                        if is_blob(&child.media_type) {
                            take(&child);
                            continue;
                        }
                        read += 1;
                        if depth >= NESTING || read > MANIFESTS {
                            return Err(Error::invalid(format!(
                                "reckon the size of {}: it has too many parts",
                                copy.source
                            )));
                        }
                        waiting.push((self.source.manifest_of(&child).await?, depth + 1));
                    }
                }
            }
        }
        Ok(blobs)
    }
}
