//! Removes a tag or an image: observes which tags name it, decides what may go, and removes it.

mod decide;
pub(crate) mod placeholder;
mod undo;

use crate::{
    Error, Kind, Places, Repository, Result,
    error::Context,
    http::Backoff,
    journal::{RepositoryKey, SeenTag, Writing},
    place::{OpenReference, Resolved, Survey},
};
use decide::{Decision, Found, decide};
use dray_core::{Children, Digest, Manifest, Naming, Reference, without_tag};
use std::{
    collections::HashSet,
    sync::Arc,
    time::{Duration, Instant},
};
pub use undo::{PutBack, put_back};

/// What to remove.
#[derive(Clone, Copy, Debug, Default)]
pub struct RemoveOptions {
    /// Also remove other tags that name the same image.
    pub all_tags: bool,
    /// Only say what would be removed.
    pub dry_run: bool,
    /// The run of which the journal records what its tags named. `None` means that nothing records it.
    pub run: Option<i64>,
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
    let found = self::found(&removal.survey, &name, &digest);
    let decision = decide(&name, &found, options.all_tags).context(doing)?;
    if options.dry_run {
        return Ok(Removed { digest: found.digest, tags: decision.removes(), manifest: decision.is_whole() });
    }
    let written = reference.to_string();
    let shown = |tag: &str| format!("{}:{tag}", without_tag(&written, &name).unwrap_or(&written));
    for tag in decision.removes() {
        opened.repository.record(options.run, (&tag, &shown(&tag)), found.digest.clone(), None).await;
    }
    let removed = removal.carry_out(found, decision).await.context(doing)?;
    opened.place().complete().await.context(doing)?;
    Ok(removed)
}

/// What else depends on an image, if it is named by `name`.
fn found(survey: &Survey, name: &str, digest: &Digest) -> Found {
    let (siblings, indexes) = survey.needing(name, digest);
    Found { digest: digest.clone(), siblings, indexes }
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

/// Removes images of one repository, of which it knows all tags.
pub(crate) struct Removal<'a> {
    opened: &'a OpenReference,
    survey: Survey,
    /// When it was made.
    surveyed: Instant,
    /// What indexes contain that were to go and stayed.
    kept: HashSet<Digest>,
    /// Whether the place was seen to delete images by their digests.
    deletes: bool,
}

impl<'a> Removal<'a> {
    /// Looks at the tags of a repository. Fails if one of them cannot be resolved.
    pub async fn new(opened: &'a OpenReference) -> Result<Self> {
        let survey = Survey::of(opened).await?;
        Ok(Removal { opened, survey, surveyed: Instant::now(), kept: HashSet::new(), deletes: false })
    }

    /// Takes in that a tag was written.
    pub fn learn(&mut self, tag: &str, digest: &Digest) {
        self.survey.learn(tag, digest);
    }

    /// Fails if the place deletes nothing, which is tried with an image that nobody needs.
    pub async fn can_delete(&mut self, tag: &str) -> Result<()> {
        let place = self.opened.place();
        if self.deletes || place.http.is_none() || place.removes_tags().await {
            return Ok(());
        }
        let placeholder = placeholder::new(&place.location, &self.repository().name, tag)?;
        self.tries(&placeholder).await
    }

    /// Writes a placeholder without a tag, and deletes it.
    async fn tries(&mut self, placeholder: &Manifest) -> Result<()> {
        let named = &placeholder.descriptor.digest;
        surely(self.repository(), placeholder, &Naming::Root).await?;
        self.take_manifest(named).await?;
        self.is_gone(&named.to_string()).await?;
        self.deletes = true;
        Ok(())
    }

    /// Removes a manifest that no tag names.
    ///
    /// # Errors
    /// Fails if a tag names it by now, if an index of a tag contains it or one that was to go before it and did not, or if it
    /// cannot be removed.
    pub async fn untagged(&mut self, digest: &Digest) -> Result<()> {
        let named = digest.to_string();
        if self.surveyed.elapsed() > FRESH {
            self.survey = Survey::of(self.opened).await?;
            self.surveyed = Instant::now();
        }
        let manifest = self.repository().manifest(Some(&named)).await?;
        let removed = async {
            if self.kept.contains(digest) {
                let text = "an index that contains it is still there, which would be broken without it";
                return Err(Error::new(Kind::Conflict, text));
            }
            // Without `all_tags`, a manifest with a tag does not go.
            decide(&named, &found(&self.survey, &named, digest), false)?;
            self.take_manifest(digest).await?;
            self.is_gone(&named).await
        };
        let removed = removed.await;
        if let (Err(_), Children::Index(children)) = (&removed, &manifest.children) {
            self.kept.extend(children.iter().map(|child| child.digest.clone()));
        }
        removed
    }

    /// Removes a tag that names the image with this digest, and nothing that others need. `source` is where dray copied
    /// the tag from. Where the place may take the image along with its tag, and others need the image, the tag first gets a
    /// placeholder, which can go.
    ///
    /// # Errors
    /// Fails if the tag cannot be removed. It names its image then, unless the text says otherwise.
    pub async fn tag_alone(&mut self, tag: &str, digest: &Digest, source: &RepositoryKey) -> Result<()> {
        let now = found(&self.survey, tag, digest);
        let is_needed = |found: &Found| !found.siblings.is_empty() || !found.indexes.is_empty();
        let place = self.opened.place();
        let is_exact = place.http.is_none() || place.removes_tags().await;
        if is_needed(&now) && !is_exact {
            match self.by_placeholder(tag, digest, source).await {
                // The place deletes nothing by its digest, but perhaps a tag.
                Err(error) if error.kind == Kind::Unsupported => {}
                done => return done,
            }
        }
        let decision = Decision::Tag { tag: tag.to_owned(), keep: now.siblings.clone() };
        match self.carry_out(now, decision).await {
            // Somebody has given the image another tag in the meantime.
            Err(error) if error.kind == Kind::Conflict && is_needed(&found(&self.survey, tag, digest)) => {
                self.by_placeholder(tag, digest, source).await
            }
            removed => removed.map(drop),
        }
    }

    /// Gives a tag an image that nobody needs, and removes that by its digest, which takes no other tag along. The tag is
    /// only touched at a place that was seen to delete, and gets its image back if it does not go then.
    async fn by_placeholder(&mut self, tag: &str, digest: &Digest, source: &RepositoryKey) -> Result<()> {
        let repository = self.repository().clone();
        let before = repository.manifest(Some(&digest.to_string())).await?;
        let place = &self.opened.place().location;
        let placeholder = placeholder::new(place, &repository.name, tag)?;
        let named = &placeholder.descriptor.digest;
        if !self.deletes {
            self.tries(&placeholder).await?;
        }
        // Somebody may have written to the tag in the meantime.
        let now = repository.resolve(Some(tag), None).await?.map(|there| there.descriptor.digest);
        if now.as_ref() != Some(digest) {
            return Err(Error::new(
                Kind::Conflict,
                format!("remove {tag}: it does not name its image any more"),
            ));
        }
        let naming = Naming::Tag(tag.to_owned());
        let writing = self.begins(tag).await;
        surely(&repository, &placeholder, &naming).await?;
        if let (Some((journal, at)), Some(writing)) = (repository.memory(), writing) {
            // If dray is killed now, the next run knows the placeholder as its own, and deletes it.
            let seen = SeenTag::now(&placeholder.descriptor, "");
            journal.wrote_tag(&at, tag, seen, writing, source.clone());
        }
        let gone = match self.take_manifest(named).await {
            Ok(()) => self.is_gone(tag).await,
            Err(error) => Err(error),
        };
        let Err(error) = gone else {
            let writing = self.begins(tag).await;
            self.ends(tag, writing);
            self.survey.forget(&[tag.to_owned()]);
            return Ok(());
        };
        tracing::warn!("{place} does not remove {tag}, so it gets its image back: failed to {error}");
        match surely(&repository, &before, &naming).await {
            Ok(()) => Err(error),
            Err(lost) => {
                let text = format!(
                    "{error}; and its tag names a placeholder now, as its image could not be put back ({lost})"
                );
                Err(error.retold(text).help("`dray runs undo` puts it back"))
            }
        }
    }

    fn repository(&self) -> &Repository {
        &self.opened.repository
    }

    async fn carry_out(&mut self, found: Found, decision: Decision) -> Result<Removed> {
        let removed = self.removed(found, decision).await?;
        self.survey.forget(&removed.tags);
        for tag in &removed.tags {
            self.is_gone(tag).await?;
        }
        Ok(removed)
    }

    async fn removed(&mut self, found: Found, decision: Decision) -> Result<Removed> {
        let digest = found.digest.clone();
        match decision {
            Decision::Tag { tag, keep } => {
                let writing = self.begins(&tag).await;
                // The registry may remove the whole image although it was asked for one tag.
                let manifest = match keep.is_empty() && found.indexes.is_empty() {
                    true => None,
                    false => Some(self.repository().manifest(Some(&digest.to_string())).await?),
                };
                match self.take_tag(&tag, &digest).await {
                    Ok(()) => {}
                    Err(error) if error.kind == Kind::Unsupported => {
                        self.survey.refresh(self.opened).await?;
                        let whole = self::found(&self.survey, &tag, &digest).with_the_image(&tag, error)?;
                        return self.whole(digest, whole, Some((&tag, writing))).await;
                    }
                    Err(error) => return Err(error),
                }
                self.ends(&tag, writing);
                if let Some(manifest) = manifest {
                    self.restore(&manifest, &keep, !found.indexes.is_empty()).await?;
                }
                Ok(Removed { digest, tags: vec![tag], manifest: false })
            }
            Decision::Whole { tags } => self.whole(digest, tags, None).await,
        }
    }

    /// Removes the manifest with all of its tags. The journal may have been told of one of them already.
    async fn whole(
        &self,
        digest: Digest,
        tags: Vec<String>,
        begun: Option<(&str, Option<Writing>)>,
    ) -> Result<Removed> {
        let mut all = Vec::new();
        for tag in &tags {
            let writing = match begun.filter(|(known, _)| *known == tag) {
                Some((_, writing)) => writing,
                None => self.begins(tag).await,
            };
            all.push((tag, writing));
        }
        self.take_manifest(&digest).await?;
        for (tag, writing) in all {
            self.ends(tag, writing);
        }
        Ok(Removed { digest, tags, manifest: true })
    }

    /// Takes a tag away that names this digest.
    async fn take_tag(&self, tag: &str, digest: &Digest) -> Result<()> {
        let (place, repository) = (self.opened.place(), self.repository());
        if place.remove_tag(&repository.name, tag).await? {
            return Ok(());
        }
        place.transport.delete_tag(place.clone(), &repository.name, tag, Some(digest)).await
    }

    async fn take_manifest(&self, digest: &Digest) -> Result<()> {
        let (place, repository) = (self.opened.place(), self.repository());
        place.transport.delete_manifest(place.clone(), &repository.name, digest).await
    }

    /// Fails if a tag or digest is still there after it was deleted. Some registries accept a deletion and do nothing, and
    /// others show it only after some seconds.
    async fn is_gone(&self, name: &str) -> Result<()> {
        for wait in GONE {
            tokio::time::sleep(wait).await;
            if self.repository().resolve(Some(name), None).await?.is_none() {
                return Ok(());
            }
        }
        let place = &self.opened.place().location;
        let text = format!("delete {name}: {place} accepted that, and still has it");
        Err(Error::new(Kind::Unsupported, text)
            .help("the registry may delete later, or only what it calls garbage"))
    }

    /// Makes the journal forget what a tag names, before it is removed.
    async fn begins(&self, tag: &str) -> Option<Writing> {
        let (journal, at) = self.repository().memory()?;
        let begun = journal.writes_tag(&at, tag).await;
        begun.inspect_err(|error| tracing::debug!(%error, "the journal does not hear of it")).ok()
    }

    /// Tells the journal that a tag is gone.
    fn ends(&self, tag: &str, writing: Option<Writing>) {
        if let (Some((journal, at)), Some(writing)) = (self.repository().memory(), writing) {
            journal.tag_gone(&at, tag, writing);
        }
    }

    /// Writes again what the place removed although it was to stay: other tags, and a manifest that an index needs. All of
    /// it is tried before this fails.
    async fn restore(&self, manifest: &Manifest, keep: &[String], needed: bool) -> Result<()> {
        let repository = self.repository();
        let digest = manifest.descriptor.digest.to_string();
        let (mut lost, mut why) = (Vec::new(), None);
        let child = needed.then_some(Naming::Child);
        for naming in child.into_iter().chain(keep.iter().cloned().map(Naming::Tag)) {
            let name = match &naming {
                Naming::Tag(tag) => tag.as_str(),
                Naming::Child | Naming::Root => &digest,
            };
            let restored = async {
                if repository.resolve(Some(name), None).await?.is_none() {
                    let place = &self.opened.place().location;
                    let what = if matches!(naming, Naming::Tag(_)) { "the tag " } else { "" };
                    tracing::warn!("{place} removed {what}{name} as well, so it is written again");
                    surely(repository, manifest, &naming).await?;
                }
                Ok::<_, Error>(())
            };
            if let Err(error) = restored.await {
                lost.push(name.to_owned());
                why = Some(error);
            }
        }
        match why {
            None => Ok(()),
            Some(error) => {
                let lost = lost.join(", ");
                Err(error.context(format!("write again what the registry removed as well ({lost})")))
            }
        }
    }
}

/// For how long it is believed what tags name while manifests without a tag are deleted.
const FRESH: Duration = Duration::from_secs(30);

/// Waits for a deletion to be seen.
const GONE: [Duration; 4] =
    [Duration::ZERO, Duration::from_millis(300), Duration::from_secs(1), Duration::from_secs(3)];

/// Publishes a manifest, and tries again for a while if that fails: something would be lost otherwise.
pub(crate) async fn surely(repository: &Repository, manifest: &Manifest, naming: &Naming) -> Result<()> {
    let mut backoff = Backoff::new();
    loop {
        let error = match repository.publish(manifest, naming).await {
            Ok(()) => return Ok(()),
            Err(error) => error,
        };
        let Some(after) = backoff.after(&error) else { return Err(backoff.give_up(error)) };
        tracing::debug!(%error, ?after, "publishing it again");
        tokio::time::sleep(after).await;
    }
}
