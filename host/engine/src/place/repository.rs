//! A repository of a place. Everything is read and written through it. It verifies digests and sizes, and it detects
//! endless lists, so that callers always get what they asked for.

use super::{Place, listing};
use crate::{
    Error, Kind, Result, TagChanged,
    contract::{
        Found, Incoming, Known, KnownTag, Listed, NewName, NextStep, Outcome, Page, RawManifest, ScanReport,
        Segment, TagPage, UntaggedManifest,
    },
    error::Context,
    journal::{Journal, RepositoryKey},
    lock,
};
use dray_core::{Descriptor, Digest, Endpoint, Manifest, Naming, Reference, media_type, policy::suggestion};
use futures_util::future::BoxFuture;
use std::{
    collections::{HashMap, HashSet},
    sync::{Arc, Mutex},
    time::Duration,
};

/// A repository of an opened place.
#[derive(Clone)]
pub struct Repository {
    pub(crate) place: Arc<Place>,
    pub(crate) name: String,
}

/// Maximum number of existing tags that are suggested if a tag is missing.
const NEAR: usize = 5;

/// The tags of a repository.
pub(crate) struct TagList {
    pub tags: Vec<Listed>,
    /// For how long a change may be missing in the list. `None` means that it is current.
    pub behind: Option<Duration>,
}

impl TagList {
    /// Reads a whole list of tags, page by page. `shown` is the name of the repository for people. Fails if a page cannot
    /// be read, or if the list does not end.
    async fn read<'a>(
        shown: &str,
        mut page: impl FnMut(Option<String>) -> BoxFuture<'a, Result<TagPage>>,
    ) -> Result<TagList> {
        let longest = Mutex::new(None);
        let tags = listing::names(shown, false, |next| {
            let (asked, longest) = (page(next), &longest);
            Box::pin(async move {
                let TagPage { items, next, behind } = asked.await?;
                let mut longest = lock(longest);
                *longest = behind.max(*longest);
                Ok(Page { items, next })
            })
        })
        .await?;
        let behind = *lock(&longest);
        Ok(TagList { tags, behind })
    }
}

/// The result of resolving a tag or digest.
pub(crate) struct Resolved {
    /// The descriptor of the manifest.
    pub descriptor: Descriptor,
    /// The manifest itself, if the answer contained it.
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

    /// The key of this repository in the journal.
    pub(crate) fn key(&self) -> RepositoryKey {
        RepositoryKey { place: self.place.key(), repository: self.name.clone() }
    }

    /// The journal and the key of this repository in it. `None` means that the place has no host, or that there is no
    /// journal.
    pub(crate) fn memory(&self) -> Option<(&Journal, RepositoryKey)> {
        Some((self.place.memory()?, self.key()))
    }

    /// The names of its tags, as the specification lists them. `shown` is its name for people. Fails with `NotFound` if the
    /// repository does not exist, and with another error if it cannot be listed or its list does not end.
    pub(crate) async fn tags(&self, shown: &str) -> Result<Vec<String>> {
        let list = self.plain(shown, None).await?;
        Ok(list.tags.into_iter().map(|listed| listed.name).collect())
    }

    /// Its tags, with what they name as far as a list says it. A dialect adds that to the names; if its lists have every
    /// tag, they are enough. Fails like [`Repository::tags`].
    pub(crate) async fn listed(&self, shown: &str) -> Result<TagList> {
        let dialect = self.place.listing_dialect().await?;
        let whole = dialect.is_some_and(|dialect| dialect.offers().whole);
        if whole && let Some(list) = self.by_dialect(shown).await {
            return Ok(list);
        }
        let mut list = self.plain(shown, None).await?;
        // A list that was empty or failed above is not asked for again. For a single tag, one question is as good.
        let enough = whole || list.tags.len() < 2 || list.tags.iter().any(|listed| listed.digest.is_some());
        if !enough && let Some(told) = self.by_dialect(shown).await {
            let mut told: HashMap<String, Listed> =
                told.tags.into_iter().map(|listed| (listed.name.clone(), listed)).collect();
            for listed in &mut list.tags {
                if let Some(known) = told.remove(&listed.name) {
                    *listed = known;
                }
            }
        }
        Ok(list)
    }

    /// Its tags as the dialect of the place lists them. `None` means that there is no such list: none is offered, it failed,
    /// or it is empty, which may also mean that the repository does not exist.
    pub(crate) async fn by_dialect(&self, shown: &str) -> Option<TagList> {
        let dialect = self.place.listing_dialect().await.ok().flatten()?;
        let page = |next: Option<String>| -> BoxFuture<'_, Result<TagPage>> {
            let dialect = &dialect;
            Box::pin(async move { dialect.tags(self.place.context(), &self.name, next.as_deref()).await })
        };
        match TagList::read(shown, page).await {
            Ok(list) => Some(list).filter(|list| !list.tags.is_empty()),
            Err(error) => {
                self.place.cannot_list(dialect.as_ref(), &error);
                None
            }
        }
    }

    /// What the registry knows of its tags, if its dialect tells. `None` means that it does not. Fails if the list does not
    /// end, or if the registry cannot be asked.
    pub(crate) async fn known(&self) -> Result<Option<Vec<KnownTag>>> {
        let Some(dialect) = self.place.dialect().await? else { return Ok(None) };
        let page = |next: Option<String>| -> BoxFuture<'_, Result<Page<KnownTag>>> {
            let dialect = &dialect;
            Box::pin(async move { dialect.know(self.place.context(), &self.name, next.as_deref()).await })
        };
        match listing::pages(page).await {
            Ok(known) => Ok(Some(known)),
            Err(error) if error.kind == Kind::Unsupported => Ok(None),
            Err(error) => {
                let doing = format!("ask {} what it knows of {}", self.place.location, self.name);
                Err(error.context(doing))
            }
        }
    }

    /// The manifests that no tag names, as the registry lists them. Fails with `Unsupported` if it does not.
    pub(crate) async fn untagged(&self) -> Result<Vec<UntaggedManifest>> {
        let doing = || format!("list what has no tag in {}", self.name);
        let Some(dialect) = self.place.dialect().await? else {
            let error = Error::new(Kind::Unsupported, format!("{} lists only tags", self.place.location));
            return Err(error.help(
                "say the kind of the registry in `kind`, if it is one of those that docs/registries.md names",
            ))
            .context(doing);
        };
        let page = |next: Option<String>| -> BoxFuture<'_, Result<Page<UntaggedManifest>>> {
            let dialect = &dialect;
            Box::pin(async move { dialect.untagged(self.place.context(), &self.name, next.as_deref()).await })
        };
        listing::pages(page).await.context(doing)
    }

    /// What the registry knows of one of its tags. `None` means that it knows nothing. It is asked once for all tags of the
    /// repository.
    pub(crate) async fn known_of(&self, tag: &str) -> Result<Option<KnownTag>> {
        let cell = lock(&self.place.known).entry(self.name.clone()).or_default().clone();
        let known = cell.get_or_try_init(async || {
            let known = match self.known().await? {
                Some(known) => known,
                None => self.told_by_list().await?,
            };
            Ok::<_, Error>(known.into_iter().map(|known| (known.name.clone(), known)).collect())
        });
        Ok(known.await?.get(tag).cloned())
    }

    /// Records that a run is about to change a tag, so that it can be undone. `shown` is the reference of the tag for people.
    pub(crate) async fn record(
        &self,
        run: Option<i64>,
        (tag, shown): (&str, &str),
        before: Digest,
        after: Option<Digest>,
    ) {
        let (Some(run), Some(journal)) = (run, self.place.local.journal.get()) else { return };
        let reference = self.anywhere(tag, shown);
        journal.changes_tag(run, TagChanged { reference, before, after });
        // Elsewhere the journal is waited for before the tag is written.
        if self.memory().is_none() {
            journal.settled().await;
        }
    }

    /// The reference of one of its tags that means the same from every folder, for the journal. `shown` is that for people.
    fn anywhere(&self, tag: &str, shown: &str) -> String {
        let Some(path) = self.place.path() else { return shown.to_owned() };
        let name = match self.name.as_str() {
            "" => tag.to_owned(),
            name => format!("{name}:{tag}"),
        };
        format!("{}:{}:{name}", self.place.scheme(), path.display())
    }

    /// What the list of its tags tells of them, where a dialect reads it: when they were pushed.
    async fn told_by_list(&self) -> Result<Vec<KnownTag>> {
        if self.place.listing_dialect().await?.is_none() {
            return Ok(Vec::new());
        }
        let told = |listed: Listed| {
            let known = Known { pushed: Some(listed.updated?), ..Known::default() };
            Some(KnownTag { name: listed.name, digest: listed.digest, known })
        };
        Ok(self.listed(&self.name).await?.tags.into_iter().filter_map(told).collect())
    }

    /// The report of the registry's scanner on an image. `None` means that there is none.
    pub(crate) async fn scan_report(&self, digest: &Digest) -> Result<Option<ScanReport>> {
        let Some(dialect) = self.place.dialect().await? else { return Ok(None) };
        match dialect.scan(self.place.context(), &self.name, digest).await {
            Err(error) if error.kind == Kind::Unsupported => Ok(None),
            scanned => scanned,
        }
    }

    /// Its tags as the specification lists them. The first page may have been read already.
    pub(crate) async fn plain(&self, shown: &str, mut first: Option<TagPage>) -> Result<TagList> {
        let page = |next| -> BoxFuture<'_, Result<TagPage>> {
            let first = first.take();
            Box::pin(async move {
                match first {
                    Some(page) => Ok(page),
                    None => self.page(next).await,
                }
            })
        };
        let list = TagList::read(shown, page).await?;
        self.place.saw_list(&list.tags);
        Ok(list)
    }

    /// The first page of its tags, unfiltered. This is for callers that want all tags in one request, or none. Fails
    /// like [`Repository::tags`].
    pub(crate) async fn first_tags(&self) -> Result<TagPage> {
        let page = self.page(None).await?;
        self.place.saw_list(&page.items);
        Ok(page)
    }

    async fn page(&self, next: Option<String>) -> Result<TagPage> {
        let page = self.place.transport.tags(self.place.context(), &self.name, next).await?;
        // The answer may have come with a challenge, by which the registry is recognised the next time.
        if let Err(error) = self.place.dialect().await {
            tracing::debug!(%error, "the kind of {} is not known", self.place.location);
        }
        Ok(page)
    }

    /// Adds help to an error about a missing image: a similar tag, or that even the repository does not exist. This
    /// costs one request, so it is only for commands about a single image.
    pub(crate) async fn instead(&self, tag: Option<&str>, error: Error) -> Error {
        if error.kind != Kind::NotFound {
            return error;
        }
        // If the place's own error has help, nothing is added.
        let error = self.place.explained(error);
        let Some(tag) = tag.filter(|_| error.help.is_none()) else { return error };
        if tag.contains(':') {
            return error.help("it may have been deleted there: ask for a tag, and see what it names now");
        }
        match self.first_tags().await {
            Ok(TagPage { items, .. }) if items.is_empty() => error.help("the repository has no tags"),
            Ok(TagPage { items, next, .. }) => {
                let items: Vec<String> = items.into_iter().map(|listed| listed.name).collect();
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

    /// Resolves a tag or digest. The result contains the manifest if the answer did. `known` is the likely result,
    /// which may be cheaper to confirm. `None` means that the image does not exist. Fails with `Corrupt` if the answer
    /// is not what was asked for, and with another error if the place cannot answer.
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
            // An opaque identifier gives no descriptor, so the manifest must be read.
            Found::OpaqueId(_) => Ok(Some(self.fetch(reference).await?.read(None)?.into())),
        }
    }

    /// The cheapest value that tells one image from another: its digest, or the place's opaque identifier. Fails if the
    /// place cannot answer.
    pub(crate) async fn opaque_id(&self, reference: Option<&str>) -> Result<Option<String>> {
        Ok(match self.find(reference, None).await? {
            Found::Absent => None,
            Found::Unchanged => return Err(self.unasked()),
            Found::OpaqueId(id) => Some(id),
            Found::Named(descriptor) => Some(descriptor.digest.to_string()),
            Found::Manifest(raw) => Some(raw.read(None)?.descriptor.digest.to_string()),
        })
    }

    /// The error for a plugin that answers "unchanged" although nothing was known.
    fn unasked(&self) -> Error {
        let name = self.place.transport.name();
        Error::new(
            Kind::Plugin,
            format!("resolve an image: the plugin {name} says that it is what nobody knew"),
        )
    }

    /// The manifest of a tag or digest. `None` stands for the only image of the place. Fails if the manifest does not
    /// exist, or is not the one that was asked for.
    pub(crate) async fn manifest(&self, reference: Option<&str>) -> Result<Manifest> {
        self.read(reference, None, true).await
    }

    /// The manifest of a descriptor. Fails if the manifest does not exist, or if its digest or size differ.
    pub(crate) async fn manifest_of(&self, descriptor: &Descriptor) -> Result<Manifest> {
        self.read(None, Some(descriptor), true).await
    }

    /// The manifest that a tag was resolved to. The size in the descriptor is only a hint. If the manifest cannot be
    /// read by its digest, it is read by the tag, because caches know some manifests only by their tags. Fails if the
    /// manifest does not exist, or if the tag names another one: nothing else than what was decided on may be copied.
    pub(crate) async fn manifest_named(&self, tag: Option<&str>, named: &Descriptor) -> Result<Manifest> {
        let manifest = self.manifest_now(tag, named).await?;
        match manifest.descriptor.digest == named.digest {
            true => Ok(manifest),
            false => {
                let (is, was) = (manifest.descriptor.digest.short(), named.digest.short());
                let text = format!("read the manifest {was}: it is not there, and the tag names {is}");
                Err(Error::new(Kind::NotFound, text).help("the tag has moved meanwhile: run it again"))
            }
        }
    }

    /// As [`Repository::manifest_named`], but a tag that names another manifest gives that one: a registry's answer about
    /// a tag may be outdated. The caller goes on with the digest of what it gets.
    pub(crate) async fn manifest_now(&self, tag: Option<&str>, named: &Descriptor) -> Result<Manifest> {
        let by_digest = self.read(None, Some(named), false).await;
        match (by_digest, tag) {
            (Err(error), Some(tag))
                if matches!(error.kind, Kind::NotFound | Kind::Denied | Kind::Unsupported) =>
            {
                let digest = named.digest.short();
                tracing::debug!(%error, "{digest} is read by its tag {tag}");
                match self.manifest(Some(tag)).await {
                    Ok(manifest) => Ok(manifest),
                    // The error of the first request, which used the digest, is the better one.
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
        // Some registries send no media type, so the one of the descriptor is used.
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

    /// Whether it has all of these manifests. Fails if it cannot be asked.
    pub(crate) async fn has_all(&self, manifests: &[Descriptor]) -> Result<bool> {
        for manifest in manifests {
            if self.resolve(Some(&manifest.digest.to_string()), None).await?.is_none() {
                return Ok(false);
            }
        }
        Ok(true)
    }

    /// All manifests that have this digest as their subject, without duplicates. Fails if they cannot be listed, or if
    /// the list does not end.
    pub(crate) async fn referrers(&self, subject: &Digest) -> Result<Vec<Descriptor>> {
        let page = |next| self.place.transport.referrers(self.place.context(), &self.name, subject, next);
        let listed = listing::pages(page).await;
        let mut listed = listed.context(|| format!("list the referrers of {}", subject.short()))?;
        let mut known = HashSet::new();
        listed.retain(|referrer| known.insert(referrer.digest.clone()));
        Ok(listed)
    }

    /// The segments of a blob, which tell where its bytes are. Fails if the transport cannot tell.
    pub(crate) async fn locate(&self, blob: &Descriptor) -> Result<Vec<Segment>> {
        self.place.transport.locate(self.place.context(), &self.name, blob).await
    }

    /// Asks the transport for the next step of storing a blob, given the outcome of the last one. Fails if the
    /// transport cannot continue.
    pub(crate) async fn next_step(
        &self,
        incoming: &Incoming,
        state: Option<Vec<u8>>,
        last: Option<Outcome>,
    ) -> Result<NextStep> {
        if last.is_none() {
            self.place.prepare(&self.name).await?;
        }
        self.place.transport.store(self.place.context(), &self.name, incoming, state, last).await
    }

    /// Publishes a manifest. All of its parts must exist. Fails with `Missing` if the place does not have some of them,
    /// and with another error if it refuses the manifest.
    pub(crate) async fn publish(&self, manifest: &Manifest, naming: &Naming) -> Result<()> {
        let (place, transport) = (&self.place, &self.place.transport);
        place.prepare(&self.name).await?;
        if !place.capabilities().await?.exclusive {
            return transport.publish(place.context(), &self.name, manifest, naming).await;
        }
        if transport.names_together() {
            // A child gets no name, so it disturbs nobody.
            transport.publish(place.context(), &self.name, manifest, &Naming::Child).await?;
            let tag = match naming {
                Naming::Child => return Ok(()),
                Naming::Root => None,
                Naming::Tag(tag) => Some(tag.clone()),
            };
            let name = NewName { repository: self.name.clone(), manifest: manifest.descriptor.clone(), tag };
            let step =
                |names: Vec<NewName>| async move { transport.name_together(place.context(), &names).await };
            if let Some(named) = place.names.name(name, step).await {
                return named;
            }
        }
        let _turn = place.names.turn().await;
        transport.publish(place.context(), &self.name, manifest, naming).await
    }
}

/// A reference with its opened place.
#[derive(Clone)]
pub(crate) struct OpenReference {
    pub repository: Repository,
    /// The tag or digest in the reference.
    pub reference: Option<String>,
    /// The reference as the user wrote it.
    pub written: Reference,
    /// The place and the repository that the user named, if registries.conf leads elsewhere: this is a mirror then.
    pub stands_for: Option<Box<Repository>>,
}

impl OpenReference {
    /// The place of its repository.
    pub fn place(&self) -> &Arc<Place> {
        &self.repository.place
    }

    /// The repository that the user named.
    pub fn named(&self) -> &Repository {
        self.stands_for.as_deref().unwrap_or(&self.repository)
    }

    /// One end of a copy: this repository, with `reference` if the user's reference has no tag or digest.
    pub fn endpoint(&self, reference: Option<&str>) -> Endpoint {
        let mut display = self.written.to_string();
        if self.reference.is_none()
            && let Some(reference) = reference
        {
            display.push(if reference.contains(':') { '@' } else { ':' });
            display.push_str(reference);
        }
        let named = self.named();
        Endpoint {
            place: named.place.key(),
            repository: named.name.clone(),
            reference: reference.or(self.reference.as_deref()).map(str::to_owned),
            display,
        }
    }
}
