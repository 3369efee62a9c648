//! Looking at one image or repository.

use crate::{
    Error, Kind, Places, Result,
    error::Context,
    place::OpenReference,
    place::graph::{names, read_blob, read_manifest},
    run::is_blob,
};
use dray_core::{Children, Manifest, Platform, Reference, select};
use std::sync::Arc;

/// An image that is looked at.
pub struct Image {
    /// Its manifest.
    pub manifest: Manifest,
    spot: OpenReference,
}

impl Image {
    /// Reads the manifest that a reference names.
    ///
    /// # Errors
    /// Where there is none.
    pub async fn open(places: &Arc<Places>, reference: &Reference) -> Result<Self> {
        let spot = places.spot(reference, false).await?;
        let manifest = read_manifest(&spot.place, &spot.repository, spot.reference.as_deref(), None).await;
        Ok(Image { manifest: manifest.context(|| format!("inspect {reference}"))?, spot })
    }

    /// The image of a platform; of an index without it, the first one.
    ///
    /// # Errors
    /// Where it cannot be read.
    pub async fn platform(&self, platform: &Platform) -> Result<Image> {
        let mut manifest = self.manifest.clone();
        while let Children::Index(children) = &manifest.children {
            let chosen = select(children, std::slice::from_ref(platform))
                .ok()
                .and_then(|selection| selection.kept.into_iter().next());
            // Those of BuildKit's caches are layers, and no images.
            let first = || children.iter().find(|child| !is_blob(&child.media_type)).cloned();
            let Some(child) = chosen.filter(|child| !is_blob(&child.media_type)).or_else(first) else {
                break;
            };
            manifest = read_manifest(&self.spot.place, &self.spot.repository, None, Some(&child)).await?;
        }
        Ok(Image { manifest, spot: self.spot.clone() })
    }

    /// The bytes of its config.
    ///
    /// # Errors
    /// Where it has none, or it cannot be read.
    pub async fn config(&self) -> Result<Vec<u8>> {
        match &self.manifest.children {
            Children::Image { config, .. } => {
                read_blob(&self.spot.place, &self.spot.repository, config).await
            }
            Children::Schema1(old) => Ok(old.config(&[])),
            Children::Index(_) => Err(Error::new(Kind::NotFound, "read the config: an empty index has none")),
        }
    }
}

/// The tags of a repository.
///
/// # Errors
/// Where it cannot be listed.
pub async fn list_tags(places: &Arc<Places>, reference: &Reference) -> Result<Vec<String>> {
    let spot = places.spot(reference, false).await?;
    if let Some(tag) = &spot.reference {
        return Err(Error::invalid(format!("list the tags of {reference}: it names {tag} already"))
            .help("leave the tag out"));
    }
    let from = reference.to_string();
    let whole = spot.place.files.is_some() && !reference.rest.contains(':');
    let listed =
        names(&from, false, |next| spot.place.transport.tags(&spot.place, &spot.repository, next)).await;
    let doing = || format!("list the tags of {reference}");
    let mut tags = listed.map_err(|error| spot.place.explained(error)).context(doing)?;
    if whole {
        // The reference names the whole place: images of other repositories in it go by their whole names.
        let place = &spot.place;
        let repositories = names(&from, true, |next| place.transport.repositories(place, next)).await;
        let others = repositories.unwrap_or_default().into_iter().filter(|name| *name != spot.repository);
        for repository in others.filter(|name| !name.is_empty()) {
            let own = names(&from, false, |next| place.transport.tags(place, &repository, next)).await;
            let own = own.context(doing)?;
            tags.extend(own.into_iter().map(|tag| match tag.contains(':') {
                true => format!("{repository}@{tag}"),
                false => format!("{repository}:{tag}"),
            }));
        }
    }
    Ok(tags)
}
