//! Removes a tag or an image: observes which tags name it, decides what may go, and removes it.

mod decide;

use crate::{
    Error, Kind, Places, Repository, Result,
    error::Context,
    place::{OpenReference, Resolved},
};
use decide::{Decision, Found, decide};
use dray_core::{Children, Digest, Manifest, Naming, Reference, media_type};
use futures_util::{StreamExt, stream};
use std::sync::Arc;

/// Number of tags that are resolved at once.
const AT_ONCE: usize = 16;

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
    let removal = Removal { opened: &opened, name: named(&opened, reference)? };
    let found = removal.observe().await.context(doing)?;
    let decision = decide(&removal.name, &found, options.all_tags).context(doing)?;
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

struct Removal<'a> {
    opened: &'a OpenReference,
    /// The tag or digest.
    name: String,
}

impl Removal<'_> {
    fn repository(&self) -> &Repository {
        &self.opened.repository
    }

    /// Finds out what the reference names, and what else depends on it.
    async fn observe(&self) -> Result<Found> {
        let repository = self.repository();
        let Some(Resolved { descriptor, .. }) = repository.resolve(Some(&self.name), None).await? else {
            let error = Error::new(Kind::NotFound, "there is no such image");
            return Err(repository.instead(Some(&self.name), error).await);
        };
        let digest = descriptor.digest;
        let tags = match repository.tags(&self.opened.written.to_string()).await {
            Ok(tags) => tags,
            // A place without a list of its tags may hold other names for the image.
            Err(error) if error.kind == Kind::NotFound => Vec::new(),
            Err(error) => return Err(error.context("find out which other tags name it")),
        };
        let others = tags.into_iter().filter(|tag| *tag != self.name && tag.parse::<Digest>().is_err());
        let looked = stream::iter(others).map(|tag| self.look(tag, &digest)).buffered(AT_ONCE);
        let looked: Vec<Result<Option<Dependant>>> = looked.collect().await;
        let mut found = Found { digest: digest.clone(), siblings: Vec::new(), indexes: Vec::new() };
        for dependant in looked {
            match dependant? {
                Some(Dependant::Sibling(tag)) => found.siblings.push(tag),
                Some(Dependant::Index(tag)) => found.indexes.push(tag),
                None => {}
            }
        }
        found.siblings.sort();
        Ok(found)
    }

    /// Looks whether a tag names the same image, or an index that needs it.
    async fn look(&self, tag: String, digest: &Digest) -> Result<Option<Dependant>> {
        let repository = self.repository();
        let Some(Resolved { descriptor, manifest }) = repository.resolve(Some(&tag), None).await? else {
            return Ok(None);
        };
        if descriptor.digest == *digest {
            return Ok(Some(Dependant::Sibling(tag)));
        }
        if !media_type::is_index(&descriptor.media_type) {
            return Ok(None);
        }
        let index = match manifest {
            Some(index) => index,
            None => repository.manifest_of(&descriptor).await?,
        };
        let Children::Index(children) = &index.children else { return Ok(None) };
        let needs = children.iter().any(|child| child.digest == *digest);
        Ok(needs.then_some(Dependant::Index(tag)))
    }

    async fn carry_out(&self, found: Found, decision: Decision) -> Result<Removed> {
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

/// What another tag has to do with the image.
enum Dependant {
    /// It names the same image.
    Sibling(String),
    /// It names an index that has the image as a child.
    Index(String),
}
