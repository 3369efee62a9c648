//! A repository of a place: the door through which everything is read and written. What comes through it is what was
//! asked for: digests and sizes are verified here, and lists have an end.

use super::{Place, listing};
use crate::{
    Error, Kind, Result,
    contract::{Found, Incoming, NextStep, Outcome, Page, RawManifest, Segment},
    error::Context,
    journal::{Journal, RepositoryKey},
};
use dray_core::{Descriptor, Digest, Endpoint, Manifest, Naming, Reference, media_type, policy::suggestion};
use std::{collections::HashSet, sync::Arc};

/// A repository of an opened place.
#[derive(Clone)]
pub struct Repository {
    pub(crate) place: Arc<Place>,
    pub(crate) name: String,
}

/// Tags that are named instead of one that is not there.
const NEAR: usize = 5;

/// What a name led to.
pub(crate) struct Resolved {
    /// The manifest that it names.
    pub descriptor: Descriptor,
    /// The manifest itself, where that came with the answer.
    pub manifest: Option<Manifest>,
}

impl From<Manifest> for Resolved {
    fn from(manifest: Manifest) -> Self {
        Resolved { descriptor: manifest.descriptor.clone(), manifest: Some(manifest) }
    }
}

impl Repository {
    pub(crate) fn new(place: Arc<Place>, name: String) -> Self {
        Repository { place, name }
    }

    /// How the journal knows it.
    pub(crate) fn key(&self) -> RepositoryKey {
        RepositoryKey { place: self.place.key(), repository: self.name.clone() }
    }

    /// The journal, where it can spare a request, and how it knows this repository.
    pub(crate) fn memory(&self) -> Option<(&Journal, RepositoryKey)> {
        Some((self.place.memory()?, self.key()))
    }

    /// Its tags. `shown` names it for people.
    ///
    /// # Errors
    /// Fails with `NotFound` if there is no such repository; otherwise where it cannot be listed, or its list has no
    /// end.
    pub(crate) async fn tags(&self, shown: &str) -> Result<Vec<String>> {
        let page = |next| self.place.transport.tags(self.place.context(), &self.name, next);
        listing::names(shown, false, page).await
    }

    /// The first page of its tags, as it comes: whoever asks wants to know all tags by one request, or nothing.
    ///
    /// # Errors
    /// As [`Repository::tags`].
    pub(crate) async fn first_tags(&self) -> Result<Page<String>> {
        self.place.transport.tags(self.place.context(), &self.name, None).await
    }

    /// Adds to an error of an image that is not there what there is instead: another tag, or not even the repository.
    /// Costs one request, so it is for commands about one image.
    pub(crate) async fn instead(&self, tag: Option<&str>, error: Error) -> Error {
        let Some(tag) = tag.filter(|tag| !tag.contains(':') && error.kind == Kind::NotFound) else {
            return error;
        };
        // What the place said by itself is not repeated.
        let error = self.place.explained(error);
        if error.help.is_some() {
            return error;
        }
        match self.first_tags().await {
            Ok(Page { items, .. }) if items.is_empty() => error.help("the repository has no tags"),
            Ok(Page { items, next }) => {
                let help = suggestion(tag, items.iter().map(String::as_str)).unwrap_or_else(|| {
                    let some = items.iter().rev().take(NEAR).cloned().collect::<Vec<_>>().join(", ");
                    let more = if next.is_some() { "more than " } else { "" };
                    match items.len() > NEAR {
                        true => format!("it has {more}{} tags, such as {some}", items.len()),
                        false => format!("its tags are {some}"),
                    }
                });
                error.help(help)
            }
            Err(missing) if missing.kind == Kind::NotFound => {
                error.help(format!("there is no repository {} either", self.name))
            }
            Err(_) => error,
        }
    }

    async fn find(&self, reference: Option<&str>, known: Option<&Digest>) -> Result<Found> {
        self.place.transport.resolve(self.place.context(), &self.name, reference, known).await
    }

    async fn fetch(&self, reference: Option<&str>) -> Result<RawManifest> {
        self.place.transport.fetch(self.place.context(), &self.name, reference).await
    }

    /// What a tag or digest names, and the manifest where that came with the answer. `known` is what it is likely to
    /// name, which may be cheaper to learn. `None` means that there is no such image.
    ///
    /// # Errors
    /// Fails with `Corrupt` if the answer is not what was asked for; otherwise where the place cannot be asked.
    pub(crate) async fn resolve(
        &self,
        reference: Option<&str>,
        known: Option<&Descriptor>,
    ) -> Result<Option<Resolved>> {
        let expected: Option<Digest> = reference.and_then(|reference| reference.parse().ok());
        let digest = known.map(|known| &known.digest);
        match self.find(reference, digest).await? {
            Found::Absent => Ok(None),
            Found::Unchanged => {
                let known = known.ok_or_else(|| self.unasked())?;
                Ok(Some(Resolved { descriptor: known.clone(), manifest: None }))
            }
            Found::Named(descriptor) => match expected.filter(|asked| *asked != descriptor.digest) {
                Some(asked) => {
                    let (location, digest) = (&self.place.location, &descriptor.digest);
                    Err(Error::corrupt(format!("resolve {asked}: {location} answered with {digest}")))
                }
                None => Ok(Some(Resolved { descriptor, manifest: None })),
            },
            Found::Manifest(raw) => Ok(Some(raw.read(expected.as_ref())?.into())),
            // Only reading it tells more.
            Found::OpaqueId(_) => Ok(Some(self.fetch(reference).await?.read(None)?.into())),
        }
    }

    /// What tells an image from another as cheaply as can be: its digest, or an identifier of the place's own.
    ///
    /// # Errors
    /// Fails if the place cannot be asked.
    pub(crate) async fn opaque_id(&self, reference: Option<&str>) -> Result<Option<String>> {
        Ok(match self.find(reference, None).await? {
            Found::Absent => None,
            Found::Unchanged => return Err(self.unasked()),
            Found::OpaqueId(id) => Some(id),
            Found::Named(descriptor) => Some(descriptor.digest.to_string()),
            Found::Manifest(raw) => Some(raw.read(None)?.descriptor.digest.to_string()),
        })
    }

    /// A plugin answered that something is as it was known, where nothing was.
    fn unasked(&self) -> Error {
        let name = self.place.transport.name();
        Error::new(
            Kind::Plugin,
            format!("resolve an image: the plugin {name} says that it is what nobody knew"),
        )
    }

    /// The manifest that a tag or digest names. `None` names the only image of the place.
    ///
    /// # Errors
    /// Fails if it is not there, or not what was asked for.
    pub(crate) async fn manifest(&self, reference: Option<&str>) -> Result<Manifest> {
        self.read(reference, None, true).await
    }

    /// The manifest that a descriptor names.
    ///
    /// # Errors
    /// Fails if it is not there, or its digest or size are others.
    pub(crate) async fn manifest_of(&self, descriptor: &Descriptor) -> Result<Manifest> {
        self.read(None, Some(descriptor), true).await
    }

    /// The manifest that a tag was found to name. What was said of its size is a hint. Where it is not to be had by its
    /// digest, it is read by the tag: caches know some manifests by their tags alone, and what a registry says of a tag
    /// may be older than the tag.
    ///
    /// # Errors
    /// Fails if it is not there, or not what was asked for.
    pub(crate) async fn manifest_named(&self, tag: Option<&str>, named: &Descriptor) -> Result<Manifest> {
        let by_digest = self.read(None, Some(named), false).await;
        match (by_digest, tag) {
            (Err(error), Some(tag))
                if matches!(error.kind, Kind::NotFound | Kind::Denied | Kind::Unsupported) =>
            {
                let digest = named.digest.short();
                tracing::debug!(%error, "{digest} is read by its tag {tag}");
                match self.manifest(Some(tag)).await {
                    Ok(manifest) => Ok(manifest),
                    // By its digest it was asked for first.
                    Err(other) if other.kind == error.kind => Err(error),
                    Err(other) => Err(other),
                }
            }
            (read, _) => read,
        }
    }

    async fn read(
        &self,
        reference: Option<&str>,
        descriptor: Option<&Descriptor>,
        sized: bool,
    ) -> Result<Manifest> {
        let named = descriptor.map(|descriptor| descriptor.digest.to_string());
        let shown = match named.as_deref().or(reference) {
            Some(name) => format!("the manifest {name}"),
            None => "the image's manifest".to_owned(),
        };
        let read_held = async {
            if let Some(data) = descriptor.and_then(|descriptor| descriptor.data.clone()) {
                let media_type =
                    descriptor.map(|descriptor| descriptor.media_type.clone()).unwrap_or_default();
                return Ok(RawManifest { media_type, body: data, signatures: Vec::new() });
            }
            self.fetch(named.as_deref().or(reference)).await
        };
        let mut held = read_held.await.context(|| format!("read {shown}"))?;
        // Some registries name no type; the descriptor that led here does.
        if let Some(descriptor) = descriptor.filter(|_| !media_type::is_manifest(&held.media_type)) {
            held.media_type.clone_from(&descriptor.media_type);
        }
        let expected = match descriptor {
            Some(descriptor) => Some(descriptor.digest.clone()),
            None => reference.and_then(|reference| reference.parse().ok()),
        };
        let manifest = held.read(expected.as_ref())?;
        if let Some(descriptor) = descriptor.filter(|_| sized)
            && descriptor.size != manifest.descriptor.size
        {
            let (said, is) = (descriptor.size, manifest.descriptor.size);
            return Err(Error::corrupt(format!("verify {shown}: it has {is} bytes where {said} were named")));
        }
        Ok(manifest)
    }

    /// All manifests whose subject is this digest, each once.
    ///
    /// # Errors
    /// Fails if they cannot be listed, or the list has no end.
    pub(crate) async fn referrers(&self, subject: &Digest) -> Result<Vec<Descriptor>> {
        let page = |next| self.place.transport.referrers(self.place.context(), &self.name, subject, next);
        let listed = listing::pages(page).await;
        let mut listed = listed.context(|| format!("list the referrers of {}", subject.short()))?;
        let mut known = HashSet::new();
        listed.retain(|referrer| known.insert(referrer.digest.clone()));
        Ok(listed)
    }

    /// Where the bytes of a blob are.
    ///
    /// # Errors
    /// Fails if the place cannot tell.
    pub(crate) async fn locate(&self, blob: &Descriptor) -> Result<Vec<Segment>> {
        self.place.transport.locate(self.place.context(), &self.name, blob).await
    }

    /// The next step of storing a blob, by what the last one came to.
    ///
    /// # Errors
    /// Fails if the transport knows no way on.
    pub(crate) async fn next_step(
        &self,
        incoming: &Incoming,
        state: Option<Vec<u8>>,
        last: Option<Outcome>,
    ) -> Result<NextStep> {
        self.place.transport.store(self.place.context(), &self.name, incoming, state, last).await
    }

    /// Publishes a manifest, all of whose parts are there.
    ///
    /// # Errors
    /// Fails with `Missing` if the place misses some of them; otherwise where it refuses the manifest.
    pub(crate) async fn publish(&self, manifest: &Manifest, naming: &Naming) -> Result<()> {
        self.place.transport.publish(self.place.context(), &self.name, manifest, naming).await
    }
}

/// A reference whose place is open.
#[derive(Clone)]
pub(crate) struct OpenReference {
    pub repository: Repository,
    /// Tag or digest.
    pub reference: Option<String>,
    /// The user's own words.
    pub written: Reference,
}

impl OpenReference {
    /// The place of its repository.
    pub fn place(&self) -> &Arc<Place> {
        &self.repository.place
    }

    /// The end of a copy: this repository, with a tag or digest where it is not in the words.
    pub fn endpoint(&self, reference: Option<&str>) -> Endpoint {
        let mut display = self.written.to_string();
        if self.reference.is_none()
            && let Some(reference) = reference
        {
            display.push(if reference.contains(':') { '@' } else { ':' });
            display.push_str(reference);
        }
        Endpoint {
            place: self.place().key(),
            repository: self.repository.name.clone(),
            reference: reference.or(self.reference.as_deref()).map(str::to_owned),
            display,
        }
    }
}
