//! Inspects one image.

use crate::{Error, Kind, Places, Repository, Result, error::Context};
use dray_core::{Children, Manifest, NESTING, Platform, Reference, is_blob, select};
use std::sync::Arc;

/// An image that is inspected.
pub struct Image {
    /// Its manifest.
    pub manifest: Manifest,
    repository: Repository,
}

impl Image {
    /// Reads the manifest that a reference names.
    ///
    /// # Errors
    /// Fails if the manifest does not exist or cannot be read.
    pub async fn open(places: &Arc<Places>, reference: &Reference) -> Result<Self> {
        let opened = places.source(reference, false).await?;
        let (at, manifest) = places.manifest(&opened).await.context(|| format!("inspect {reference}"))?;
        Ok(Image { manifest, repository: at.repository })
    }

    /// The image of a platform. If an index does not contain the platform, its first image.
    ///
    /// # Errors
    /// Fails if the image cannot be read.
    pub async fn platform(&self, platform: &Platform) -> Result<Image> {
        self.chosen(platform, false).await
    }

    /// The image of a platform, and of no other.
    ///
    /// # Errors
    /// Fails if an index does not contain the platform, or if the image cannot be read.
    pub async fn only_platform(&self, platform: &Platform) -> Result<Image> {
        self.chosen(platform, true).await
    }

    async fn chosen(&self, platform: &Platform, only: bool) -> Result<Image> {
        let mut manifest = self.manifest.clone();
        for _ in 0..NESTING {
            let Children::Index(children) = &manifest.children else { break };
            let chosen = select(children, std::slice::from_ref(platform))
                .ok()
                .and_then(|selection| selection.kept.into_iter().next());
            // The children of an index of a BuildKit cache are layers, and not images.
            let first = || children.iter().find(|child| !is_blob(&child.media_type)).cloned();
            let chosen = chosen.filter(|child| !is_blob(&child.media_type));
            if only && chosen.is_none() {
                let digest = manifest.descriptor.digest.short();
                return Err(Error::invalid(format!(
                    "choose an image: the index {digest} has none for {platform}"
                )));
            }
            let Some(child) = chosen.or_else(first) else { break };
            manifest = self.repository.manifest_of(&child).await?;
        }
        Ok(Image { manifest, repository: self.repository.clone() })
    }

    /// The bytes of its config.
    ///
    /// # Errors
    /// Fails if the image has no config, or if the config cannot be read.
    pub async fn config(&self) -> Result<Vec<u8>> {
        match &self.manifest.children {
            Children::Image { config, .. } => self.repository.small_blob(config).await,
            Children::Schema1(old) => Ok(old.config(&[])),
            Children::Index(_) => Err(Error::new(Kind::NotFound, "read the config: an empty index has none")),
        }
    }
}
