//! Removes a tag or an image: observes which tags name it, decides what may go, and removes it.

mod decide;
mod survey;
mod undo;

use crate::{
    Error, Kind, Places, Repository, Result,
    error::Context,
    now,
    place::{OpenReference, Resolved},
};
use decide::{Decision, Found, decide};
use dray_core::{Digest, Manifest, Naming, Reference, media_type};
use std::sync::Arc;
use survey::Survey;
pub use undo::{PutBack, put_back};

/// What to remove.
#[derive(Clone, Copy, Debug, Default)]
pub struct RemoveOptions {
    /// Also remove other tags that name the same image.
    pub all_tags: bool,
    /// Only say what would be removed.
    pub dry_run: bool,
}

/// What was removed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Removed {
    /// The digest that the reference named.
    pub digest: Digest,
    /// The tags that were removed, sorted.
    pub tags: Vec<String>,
    /// Whether the manifest was removed, too. Otherwise only the tag was, and the manifest stays under its digest.
    pub manifest: bool,
}

/// Removes what a reference names. Other tags of the same image stay, unless `all_tags` says otherwise.
///
/// # Errors
/// Fails without removing anything if the image does not exist, if the place cannot remove it without other tags that are
/// to stay, or if an index of another tag needs it.
pub async fn remove(places: &Arc<Places>, reference: &Reference, options: RemoveOptions) -> Result<Removed> {
    let opened = match options.dry_run {
        true => places.source(reference, false).await?,
        false => places.destination(reference).await?,
    };
    let doing = || format!("delete {reference}");
    let name = named(&opened, reference)?;
    let digest = digest_of(&opened, &name).await.context(doing)?;
    let mut removal = Removal::new(&opened).await.context(doing)?;
    let found = removal.survey.found(&name, &digest);
    let decision = decide(&name, &found, options.all_tags).context(doing)?;
    if options.dry_run {
        return Ok(Removed { digest: found.digest, tags: decision.removes(), manifest: decision.is_whole() });
    }
    let removed = removal.carry_out(found, decision).await.context(doing)?;
    opened.place().complete().await.context(doing)?;
    Ok(removed)
}

/// The tag or digest that a reference must have.
fn named(opened: &OpenReference, reference: &Reference) -> Result<String> {
    opened.reference.clone().ok_or_else(|| {
        Error::invalid(format!("delete {reference}: it names no tag and no digest"))
            .help("write the tag behind it: a whole repository is never deleted by accident")
    })
}

/// What a tag or digest names.
async fn digest_of(opened: &OpenReference, name: &str) -> Result<Digest> {
    let repository = &opened.repository;
    match repository.resolve(Some(name), None).await? {
        Some(Resolved { descriptor, .. }) => Ok(descriptor.digest),
        None => {
            let error = Error::new(Kind::NotFound, "there is no such image");
            Err(repository.instead(Some(name), error).await)
        }
    }
}

/// An index without images. Its annotation tells whoever finds it what it is, and makes its digest one of its own.
fn placeholder(place: &str, repository: &str, tag: &str) -> Result<Manifest> {
    let index = serde_json::json!({
        "schemaVersion": 2,
        "mediaType": media_type::OCI_INDEX,
        "manifests": [],
        "annotations": {
            "dev.dray.placeholder": format!("{place}/{repository}:{tag} is being deleted ({})", now()),
        },
    });
    Manifest::parse(media_type::OCI_INDEX, index.to_string().into_bytes(), None)
        .map_err(|error| Error::internal(format!("make a placeholder: {error}")))
}

/// Removes images of one repository, of which it knows all tags.
pub(crate) struct Removal<'a> {
    opened: &'a OpenReference,
    survey: Survey,
    /// Whether the place was seen to delete images by their digests.
    deletes: bool,
}

impl<'a> Removal<'a> {
    /// Looks at the tags of a repository. Fails if one of them cannot be resolved.
    pub async fn new(opened: &'a OpenReference) -> Result<Self> {
        Ok(Removal { opened, survey: Survey::of(opened).await?, deletes: false })
    }

    /// Takes in that a tag was written.
    pub fn learn(&mut self, tag: &str, digest: &Digest) {
        self.survey.learn(tag, digest);
    }

    /// Removes a tag that names the image with this digest. If the place removes no tags alone, the image goes with it; and
    /// if others need the image, the tag first gets a placeholder, which can go. Fails without removing anything if that is
    /// not possible either.
    pub async fn tag_alone(&mut self, tag: &str, digest: &Digest) -> Result<()> {
        let found = self.survey.found(tag, digest);
        let needed = !found.siblings.is_empty() || !found.indexes.is_empty();
        let decision = Decision::Tag { tag: tag.to_owned(), keep: found.siblings.clone() };
        match self.carry_out(found, decision).await {
            Err(error) if error.kind == Kind::Conflict && needed => {
                tracing::info!("{}: {error}; so its tag is replaced first", self.opened.endpoint(Some(tag)));
                self.by_placeholder(tag, digest).await?;
            }
            removed => _ = removed?,
        }
        self.survey.forget(&[tag.to_owned()]);
        Ok(())
    }

    /// Gives a tag an image that nobody needs, and removes that by its digest, which takes no other tag along. The tag is
    /// only touched at a place that was seen to delete, and gets its image back if it does not go then.
    async fn by_placeholder(&mut self, tag: &str, digest: &Digest) -> Result<()> {
        let repository = self.repository();
        let before = repository.manifest(Some(&digest.to_string())).await?;
        let place = &self.opened.place().location;
        let placeholder = placeholder(place, &repository.name, tag)?;
        let named = placeholder.descriptor.digest.to_string();
        if !self.deletes {
            repository.publish(&placeholder, &Naming::Root).await?;
            self.take(&named).await?;
        }
        let naming = Naming::Tag(tag.to_owned());
        repository.publish(&placeholder, &naming).await?;
        match self.take(&named).await {
            Ok(()) => {
                self.deletes = true;
                Ok(())
            }
            Err(error) => {
                tracing::warn!("{place} does not remove {tag}, so it gets its image back: failed to {error}");
                repository.publish(&before, &naming).await?;
                Err(error)
            }
        }
    }

    fn repository(&self) -> &Repository {
        &self.opened.repository
    }

    async fn carry_out(&mut self, found: Found, decision: Decision) -> Result<Removed> {
        let removed = self.removed(found, decision).await?;
        self.survey.forget(&removed.tags);
        Ok(removed)
    }

    async fn removed(&self, found: Found, decision: Decision) -> Result<Removed> {
        let digest = found.digest.clone();
        match decision {
            Decision::Tag { tag, keep } => {
                self.forget(&tag).await;
                // The registry may remove the whole image although it was asked for one tag.
                let manifest = match keep.is_empty() && found.indexes.is_empty() {
                    true => None,
                    false => Some(self.repository().manifest(Some(&digest.to_string())).await?),
                };
                match self.take(&tag).await {
                    Ok(()) => {}
                    Err(error) if error.kind == Kind::Unsupported => {
                        let whole = found.with_the_image(&tag, error)?;
                        return self.whole(digest, whole).await;
                    }
                    Err(error) => return Err(error),
                }
                if let Some(manifest) = manifest {
                    self.restore(&manifest, &keep, !found.indexes.is_empty()).await?;
                }
                Ok(Removed { digest, tags: vec![tag], manifest: false })
            }
            Decision::Whole { tags } => self.whole(digest, tags).await,
        }
    }

    /// Removes the manifest with all of its tags.
    async fn whole(&self, digest: Digest, tags: Vec<String>) -> Result<Removed> {
        for tag in &tags {
            self.forget(tag).await;
        }
        self.take(&digest.to_string()).await?;
        Ok(Removed { digest, tags, manifest: true })
    }

    async fn take(&self, name: &str) -> Result<()> {
        let (place, repository) = (self.opened.place(), self.repository());
        if name.parse::<Digest>().is_err() && place.remove_tag(&repository.name, name).await? {
            return Ok(());
        }
        place.transport.remove(place.clone(), &repository.name, name).await
    }

    /// Makes the journal forget what a tag names.
    async fn forget(&self, tag: &str) {
        if let Some((journal, at)) = self.repository().memory()
            && let Err(error) = journal.writes_tag(&at, tag).await
        {
            tracing::debug!(%error, "the journal does not hear of it");
        }
    }

    /// Writes again what the place removed although it was to stay: other tags, and a manifest that an index needs.
    async fn restore(&self, manifest: &Manifest, keep: &[String], needed: bool) -> Result<()> {
        let repository = self.repository();
        let digest = manifest.descriptor.digest.to_string();
        if needed && repository.resolve(Some(&digest), None).await?.is_none() {
            repository.publish(manifest, &Naming::Child).await?;
        }
        for tag in keep {
            if repository.resolve(Some(tag), None).await?.is_none() {
                let place = &self.opened.place().location;
                tracing::warn!("{place} removed the tag {tag} as well, so it is written again");
                repository.publish(manifest, &Naming::Tag(tag.clone())).await?;
            }
        }
        Ok(())
    }
}
