//! Copies one image: its manifests, children before parents, and the blobs that they name.

use super::{
    allowance::Allowance,
    claims::{Claim, Sharing},
    finish::Learnt,
    keep::{Kept, keep},
    shared::{Key, Shared},
};
use crate::{
    Error, Event, Kind, PlannedCopy, Repository, Result,
    blob::{Ending, Payload, Transfer, stopped},
    contract::{Arrival, Capabilities, Incoming},
    error::Context,
    journal::{Conversion, RepositoryKey},
    limits::{MANIFEST_BYTES, MANIFESTS},
    lock,
    plan::tag_of,
    remove::surely,
    schedule::rate::RateLimiter,
};
use dray_core::{
    Children, Descriptor, DestinationState, Digest, Endpoint, Form, ImageChoice, Manifest, NESTING, Naming,
    Wanted, is_blob, media_type,
};
use futures_util::future::BoxFuture;
use std::{
    collections::HashSet,
    sync::{
        Arc, Mutex,
        atomic::{AtomicU64, AtomicUsize, Ordering},
    },
};
use tokio::{sync::OnceCell, task::JoinSet};

/// Maximum number of children of one index, or referrers of one manifest, that are copied at once.
pub(super) const CHILDREN: usize = 16;
/// Maximum number of blobs of one image that are copied at once.
const BLOBS: usize = 128;

/// The copy of one image.
pub(super) struct Job {
    pub shared: Arc<Shared>,
    pub source: Repository,
    pub destination: Repository,
    pub capabilities: Capabilities,
    pub wanted: Wanted,
    /// The tag at the source.
    tag: Option<String>,
    /// Whether only a manifest with the digest of the plan may be copied.
    exact: bool,
    /// Whether the destination repository was empty when the plan was made.
    pub fresh: bool,
    pub sent: AtomicU64,
    mounted: AtomicU64,
    pub bounds: Bounds,
    /// Manifests of this image that may have referrers to copy.
    pub subjects: Mutex<Vec<Digest>>,
    /// Manifests in the image that were converted, so that their referrers do not fit them any more.
    pub converted: Mutex<Vec<Digest>>,
    /// Referrers that could not be copied.
    pub behind: Mutex<HashSet<Digest>>,
    /// Blobs that were not sent because the destination reported that it has them.
    claimed: Mutex<HashSet<Digest>>,
    /// The image at the destination, for people.
    pub shown: String,
    /// The repository that the user named as the source, if the tag is the same there. A tag of another name is nobody's at
    /// the source, so nothing tells when it is gone there.
    pub named: Option<RepositoryKey>,
    /// The tag that is written.
    own: Option<String>,
    /// Whether the tag named another image when the plan was made.
    pub replaces: bool,
    /// The template of the tag under which that image is kept.
    backup: Option<String>,
    /// Set when the image that is replaced has been kept and recorded, with the tag that was written for it.
    pub is_kept: OnceCell<Option<Kept>>,
    /// What the copies of the rule may use together.
    allowance: Arc<Allowance>,
    /// Says whether this attempt is to end.
    pub ending: Arc<Ending>,
}

/// The repository of a source, if its tag is the one that is written.
fn named(source: &Endpoint, pinned: Option<&str>, naming: &Naming) -> Option<RepositoryKey> {
    let Naming::Tag(tag) = naming else { return None };
    let read = pinned.or(source.reference.as_deref());
    let key = RepositoryKey { place: source.place.clone(), repository: source.repository.clone() };
    (read == Some(tag)).then_some(key)
}

/// Counts what one image consists of, so that an image that names too much is refused.
#[derive(Default)]
pub(super) struct Bounds {
    manifests: AtomicUsize,
    bytes: AtomicU64,
}

impl Bounds {
    /// Adds manifests, and the bytes of the manifest that names them. Fails if the image exceeds the limits.
    pub fn count(&self, manifests: usize, bytes: u64) -> Result<()> {
        let manifests = self.manifests.fetch_add(manifests, Ordering::Relaxed) + manifests;
        let bytes = self.bytes.fetch_add(bytes, Ordering::Relaxed) + bytes;
        if manifests > MANIFESTS {
            let text =
                format!("copy it: it names more than {MANIFESTS} manifests, children and referrers together");
            return Err(Error::invalid(text));
        }
        if bytes > MANIFEST_BYTES {
            let text = format!("copy it: its manifests have more than {} MiB together", MANIFEST_BYTES >> 20);
            return Err(Error::invalid(text));
        }
        Ok(())
    }
}

impl Job {
    /// Begins the copy of an item. Also returns the manifest, if the planner has read it.
    pub async fn new(
        shared: Arc<Shared>,
        (allowance, ending): (Arc<Allowance>, Arc<Ending>),
        planned: PlannedCopy,
    ) -> Result<(Option<Manifest>, Arc<Job>)> {
        let fresh = planned.is_fresh();
        let PlannedCopy { copy, source, destination, manifest, checked, lead: _ } = planned;
        // A registry's answer about a tag may be outdated, and what the tag names now is then what is wanted. That does not
        // hold for a part of an index, and not where what was checked must be what is copied.
        let exact = checked || copy.seen.source != copy.descriptor.digest;
        let job = Job {
            shared,
            capabilities: destination.place.capabilities().await?,
            source,
            destination,
            wanted: copy.wanted,
            tag: tag_of(copy.source.reference.as_deref()).map(str::to_owned),
            exact,
            fresh,
            sent: 0.into(),
            mounted: 0.into(),
            bounds: Bounds::default(),
            subjects: Mutex::default(),
            converted: Mutex::default(),
            behind: Mutex::default(),
            claimed: Mutex::default(),
            shown: copy.destination.display.clone(),
            named: named(&copy.source, copy.pinned.as_deref(), &copy.naming),
            replaces: matches!(
                copy.seen.destination,
                DestinationState::Named(_) | DestinationState::Untold(_)
            ),
            own: match &copy.naming {
                Naming::Tag(tag) => Some(tag.clone()),
                Naming::Child | Naming::Root => None,
            },
            backup: copy.backup,
            is_kept: OnceCell::new(),
            allowance,
            ending,
        };
        Ok((manifest, Arc::new(job)))
    }

    /// Keeps the image that a tag names before the tag names another one, and records that it did, once. What the tag
    /// names is looked at again, because somebody may have written to it since the plan.
    pub async fn before_replacing(&self, tag: &str, digest: &Digest) -> Result<()> {
        if !self.replaces || self.own.as_deref() != Some(tag) {
            return Ok(());
        }
        let kept = self.is_kept.get_or_try_init(async || {
            let before = match self.destination.resolve(Some(tag), None).await {
                Err(error) if self.backup.is_none() => {
                    tracing::debug!(%error, "what {} names now is not known", self.shown);
                    return Ok(None);
                }
                before => before.context(|| format!("see what to keep of {}", self.shown))?,
            };
            let Some(before) = before.map(|before| before.descriptor.digest).filter(|named| named != digest)
            else {
                return Ok(None);
            };
            let kept = match &self.backup {
                Some(template) => keep(&self.destination, tag, &before, template).await?,
                None => None,
            };
            if let Some(kept) = &kept {
                tracing::info!("what {} named is kept as {}", self.shown, kept.tag);
            }
            let after = Some(digest.clone());
            self.destination.record(self.shared.run, (tag, &self.shown), before, after).await;
            Ok::<_, Error>(kept)
        });
        kept.await.map(drop)
    }

    /// Takes a backup away that is of no use, because the tag was not written after all.
    pub async fn forget_backup(&self) {
        let kept = self.is_kept.get().and_then(Option::as_ref).filter(|kept| kept.is_new);
        let Some(kept) = kept.map(|kept| &kept.tag) else { return };
        if let Err(error) = self.without_backup(kept).await {
            tracing::warn!("the backup {kept} of {} stays: failed to {error}", self.shown);
        }
    }

    /// Takes a backup away. A registry may remove an image with all of its tags although it was asked for one tag, so the tag
    /// of the image is looked at afterwards, and gets its image back.
    async fn without_backup(&self, kept: &str) -> Result<()> {
        let (place, name) = (&self.destination.place, &self.destination.name);
        let manifest = self.destination.manifest(Some(kept)).await?;
        let removed = match place.remove_tag(name, kept).await {
            Ok(true) => Ok(()),
            Ok(false) => {
                let named = &manifest.descriptor.digest;
                place.transport.delete_tag(place.clone(), name, kept, Some(named)).await
            }
            Err(error) => Err(error),
        };
        let Some(tag) = &self.own else { return removed };
        if self.destination.resolve(Some(tag), None).await?.is_none() {
            tracing::warn!("{} lost its image together with the backup {kept}, and gets it back", self.shown);
            surely(&self.destination, &manifest, &Naming::Tag(tag.clone())).await?;
        }
        removed
    }

    /// What limits how fast the bytes of the source are read: the source's rate, and that of the rule.
    pub fn rates(&self) -> Vec<&RateLimiter> {
        self.source.place.rate().into_iter().chain(self.allowance.rate.as_deref()).collect()
    }

    /// The number of bytes that were sent and that were mounted.
    pub fn moved(&self) -> (u64, u64) {
        (self.sent.load(Ordering::Relaxed), self.mounted.load(Ordering::Relaxed))
    }

    /// Copies the image. Returns the descriptor of what was published, if it differs from the source's.
    pub async fn copy(
        self: Arc<Self>,
        descriptor: &Descriptor,
        manifest: Option<Manifest>,
        naming: Naming,
        form: Form,
    ) -> Result<Option<Descriptor>> {
        let manifest = match manifest {
            Some(manifest) => manifest,
            None if self.exact => self.source.manifest_named(self.tag.as_deref(), descriptor).await?,
            None => self.source.manifest_now(self.tag.as_deref(), descriptor).await?,
        };
        match form.is_unchanged() {
            true => self.as_it_is(manifest, naming).await.map(|()| None),
            false => self.in_another_form(manifest, naming, form).await,
        }
    }

    async fn as_it_is(self: Arc<Self>, manifest: Manifest, naming: Naming) -> Result<()> {
        self.bounds.count(1, manifest.descriptor.size)?;
        let mut platforms: Vec<String> = self.platforms().iter().map(ToString::to_string).collect();
        platforms.extend((self.wanted.choice == ImageChoice::Index).then(|| "none".to_owned()));
        let selection = match &manifest.children {
            Children::Index(children) => Some(self.wanted.choice.select(children)?),
            Children::Image { .. } | Children::Schema1(_) => None,
        };
        if let Some(selection) = &selection
            && !selection.dropped.is_empty()
        {
            self.probe(&manifest, &selection.dropped).await?;
        }
        let key = (self.key(&manifest.descriptor.digest), platforms.join(","));
        match self.shared.manifests.claim(&key, &self.destination.name, Sharing::None).await {
            Claim::Held => {}
            Claim::Yours { ticket, .. } => {
                match selection {
                    Some(selection) => self.clone().children(selection.kept, 1).await?,
                    None => self.clone().blobs(&manifest).await?,
                }
                // Others that find the manifest held may refer to it, so it must be published by then. No claim is held
                // while referrers are copied, because they may refer back to the manifest.
                let follows = self.wanted.referrers.are_wanted() || self.wanted.wants_related();
                let first = if follows { &Naming::Child } else { &naming };
                self.publish(&manifest, first).await?;
                ticket.held();
                if !follows {
                    return Ok(());
                }
            }
        }
        lock(&self.subjects).push(manifest.descriptor.digest.clone());
        if self.wanted.wants_related() {
            self.related_tags(self.all_subjects()).await?;
        }
        self.all_referrers().await?;
        self.publish(&manifest, &naming).await
    }

    /// Writes an image in another form. Returns the descriptor of what was published, if it differs from the source's.
    async fn in_another_form(
        self: Arc<Self>,
        manifest: Manifest,
        naming: Naming,
        form: Form,
    ) -> Result<Option<Descriptor>> {
        let tag = match &naming {
            Naming::Tag(tag) => Some(tag.clone()),
            Naming::Child | Naming::Root => None,
        };
        let source = manifest.descriptor.clone();
        let sparse = matches!(manifest.children, Children::Index(_)) && self.wanted.choice.is_partial();
        let written = self.clone().converted(manifest, form, naming, 0).await.map_err(|error| {
            match &error.kind {
                // Its own digest is only known now, so it could not be tried before its images were written.
                Kind::Missing(_) if sparse => {
                    self.destination.place.saw_sparse(false);
                    self.destination.place.refuses_sparse()
                }
                _ => error,
            }
        })?;
        let of = Conversion::new(&source.digest, form, self.platforms(), &self.destination.key());
        // A destination that keeps manifests unchanged must report our digest; anything else is not remembered.
        let expected = self.holds_all().then(|| written.descriptor.digest.to_string());
        let repository = self.destination.clone();
        self.shared.finish.learn(Learnt { of, repository, tag, expected });
        Ok((written.descriptor.digest != source.digest).then_some(written.descriptor))
    }

    /// The platforms of an index that are copied. An empty list means all platforms.
    pub fn platforms(&self) -> &[dray_core::Platform] {
        self.wanted.choice.platforms()
    }

    /// Whether the destination can hold every kind of content.
    pub fn holds_all(&self) -> bool {
        self.capabilities.holds.is_none()
    }

    pub fn key(&self, digest: &Digest) -> Key {
        (self.destination.place.key(), digest.clone())
    }

    /// Checks before any transfer whether the destination accepts an index with missing platforms: the index is pushed
    /// by its digest, without a tag.
    async fn probe(&self, index: &Manifest, dropped: &[Descriptor]) -> Result<()> {
        let place = &self.destination.place;
        if self.capabilities.sparse == Some(true) || place.sparse_seen.load(Ordering::Relaxed) {
            return Ok(());
        }
        let refused = match self.publish_at_once(index, &Naming::Child).await {
            Ok(()) => {
                // An index of which nothing is missing there proves nothing.
                if !self.destination.has_all(dropped).await?
                    && !place.sparse_seen.swap(true, Ordering::Relaxed)
                {
                    place.saw_sparse(true);
                }
                return Ok(());
            }
            Err(error) => error,
        };
        // Wanted children will be copied later; only the dropped ones will stay missing.
        let Kind::Missing(missing) = &refused.kind else { return Err(refused) };
        let stays = |digest: &String| {
            digest.is_empty() || dropped.iter().any(|dropped| dropped.digest.to_string() == *digest)
        };
        if !missing.is_empty() && !missing.iter().any(stays) {
            return Ok(());
        }
        place.saw_sparse(false);
        Err(place.refuses_sparse())
    }

    fn children(self: Arc<Self>, children: Vec<Descriptor>, depth: usize) -> BoxFuture<'static, Result<()>> {
        Box::pin(async move {
            self.bounds.count(children.len(), 0)?;
            let copies = children.into_iter().map(|child| self.clone().manifest(child, Naming::Child, depth));
            all(copies, CHILDREN).await
        })
    }

    /// Copies a manifest by its digest, with everything that it names.
    pub async fn manifest(
        self: Arc<Self>,
        descriptor: Descriptor,
        naming: Naming,
        depth: usize,
    ) -> Result<()> {
        if depth > NESTING {
            return Err(Error::invalid(format!(
                "copy {}: manifests are nested deeper than {NESTING}",
                descriptor.digest
            )));
        }
        lock(&self.subjects).push(descriptor.digest.clone());
        let key = (self.key(&descriptor.digest), String::new());
        let Claim::Yours { ticket, .. } =
            self.shared.manifests.claim(&key, &self.destination.name, Sharing::None).await
        else {
            return Ok(());
        };
        if !self.has(&descriptor).await? {
            self.clone().with_its_parts(&descriptor, &naming, depth).await?;
        }
        ticket.held();
        Ok(())
    }

    /// Copies a manifest and everything that it names, even if the manifest exists already.
    pub async fn with_its_parts(
        self: Arc<Self>,
        descriptor: &Descriptor,
        naming: &Naming,
        depth: usize,
    ) -> Result<()> {
        let Some(manifest) = self.child(descriptor).await? else {
            return self.blob(descriptor.clone()).await;
        };
        self.bounds.count(0, manifest.descriptor.size)?;
        match &manifest.children {
            Children::Index(children) => self.clone().children(children.clone(), depth + 1).await?,
            Children::Image { .. } | Children::Schema1(_) => self.clone().blobs(&manifest).await?,
        }
        self.publish(&manifest, naming).await
    }

    /// Reads a child of an index. `None` means that it is a blob and not a manifest (a layer of a BuildKit cache).
    async fn child(&self, descriptor: &Descriptor) -> Result<Option<Manifest>> {
        if is_blob(&descriptor.media_type) {
            return Ok(None);
        }
        let read = self.source.manifest_of(descriptor).await;
        read.map(Some).map_err(|error| match error.kind {
            Kind::NotFound => error.help("the source has the index and not all of its images; `platforms = [\"linux/amd64\", …]` in the rule, or --platform, copies those that are there"),
            _ => error,
        })
    }

    /// Whether the destination has an image with this digest. It then also has the image's blobs, because it would not
    /// have accepted the image without them. For an index this does not hold, and of a plugin's place nobody knows it.
    async fn has(&self, descriptor: &Descriptor) -> Result<bool> {
        let empty = self.fresh && !self.remembered(&descriptor.digest);
        let no_image = media_type::is_index(&descriptor.media_type) || is_blob(&descriptor.media_type);
        let unknown = self.destination.place.http.as_ref().is_some_and(|http| http.is_strangers());
        if no_image || !self.capabilities.many || empty || unknown {
            return Ok(false);
        }
        let there = self.destination.resolve(Some(&descriptor.digest.to_string()), None).await;
        match there.context(|| format!("resolve {} at the destination", descriptor.digest.short())) {
            // The repository may not exist yet, so the push decides.
            Err(error) if matches!(error.kind, Kind::Denied | Kind::Unauthorized) => Ok(false),
            there => Ok(there?.is_some()),
        }
    }

    pub async fn blobs(self: Arc<Self>, manifest: &Manifest) -> Result<()> {
        let (config, layers) = match &manifest.children {
            Children::Image { config, layers } => (config, layers),
            Children::Index(_) => return Ok(()),
            Children::Schema1(_) => {
                let text = format!("copy {} as it is: it is of schema 1", manifest.descriptor.digest.short());
                return Err(Error::new(Kind::Unsupported, text).help("copy it by a tag of its own"));
            }
        };
        let mut seen = HashSet::new();
        let left = layers.iter().filter(|layer| layer.foreign && !self.wanted.include_foreign).count();
        if left > 0 {
            let digest = manifest.descriptor.digest.short();
            tracing::warn!(
                help = "`include-foreign = true` in the rule, or --include-foreign, copies them",
                "layers of {digest} stay where they are ({left}): their maker lets nobody distribute them"
            );
        }
        let layers = layers.iter().filter(|layer| !layer.foreign || self.wanted.include_foreign);
        let blobs = layers.chain(std::iter::once(config)).filter(|blob| seen.insert(&blob.digest));
        all(blobs.map(|blob| self.clone().blob(blob.clone())), BLOBS).await
    }

    pub async fn blob(self: Arc<Self>, blob: Descriptor) -> Result<()> {
        let sharing = match self.capabilities {
            Capabilities { shared: true, .. } => Sharing::Place,
            Capabilities { mount: true, .. } => Sharing::Mount,
            _ => Sharing::None,
        };
        let key = (self.destination.place.blobs_key(), blob.digest.clone());
        let Claim::Yours { mut siblings, ticket } =
            self.shared.blobs.claim(&key, &self.destination.name, sharing).await
        else {
            lock(&self.claimed).insert(blob.digest);
            return Ok(());
        };
        let holder = self.destination.memory().and_then(|(journal, at)| journal.holder(&at, &blob.digest));
        let here = holder.as_ref() == Some(&self.destination.name);
        if sharing == Sharing::Mount && siblings.is_empty() && !here {
            siblings.extend(holder);
        }
        if let [from] = &siblings[..]
            && !self.destination.place.mounts.may(from, &self.destination.name)
        {
            siblings.clear();
        }
        let incoming = Incoming { blob, siblings, sized: true, absent: self.fresh && !here, piece: None };
        self.bring(incoming, Some(ticket.waiting())).await?;
        ticket.held();
        Ok(())
    }

    /// Brings a blob to the destination in whichever way the transport chooses.
    async fn bring(&self, incoming: Incoming, wanted: Option<Arc<AtomicUsize>>) -> Result<()> {
        let watcher = self.shared.watcher.as_ref();
        let size = incoming.blob.size;
        watcher.event(Event::Expected(size));
        let rates = self.rates();
        let transfer = Transfer {
            image: &self.shown,
            source: &self.source,
            destination: &self.destination,
            payload: Payload::Blob(&incoming.blob),
            incoming: &incoming,
            wanted_by: wanted,
            link: self.wanted.link,
            rates: &rates,
            ending: &self.ending,
            watcher,
        };
        let stored = transfer.run().await?;
        match stored.arrival {
            Arrival::Stored => {
                self.sent.fetch_add(stored.size, Ordering::Relaxed);
            }
            Arrival::Mounted => {
                self.mounted.fetch_add(size, Ordering::Relaxed);
                watcher.event(Event::Spared(size));
                watcher.event(Event::Mounted(size));
            }
            Arrival::Present => watcher.event(Event::Spared(stored.size)),
        }
        if stored.arrival != Arrival::Stored {
            lock(&self.claimed).insert(incoming.blob.digest.clone());
        }
        if let Some((journal, at)) = self.destination.memory() {
            journal.holds(at, &incoming.blob.digest);
        }
        Ok(())
    }

    /// Sends blobs that the destination claimed to have but now reports as missing. Each is sent at most once. Returns
    /// whether any was sent.
    pub async fn bring_missing(&self, manifest: &Manifest, missing: &[String]) -> Result<bool> {
        let Children::Image { config, layers } = &manifest.children else { return Ok(false) };
        let mut sent = false;
        for blob in layers.iter().chain([config]) {
            let named = missing.iter().any(|digest| digest.is_empty() || *digest == blob.digest.to_string());
            if !named || !lock(&self.claimed).remove(&blob.digest) {
                continue;
            }
            tracing::info!(
                "{} said that it has {}, and misses it: it is sent",
                self.destination.place.location,
                blob.digest.short()
            );
            let incoming =
                Incoming { blob: blob.clone(), siblings: Vec::new(), sized: true, absent: true, piece: None };
            self.bring(incoming, None).await?;
            sent = true;
        }
        Ok(sent)
    }

    /// Whether this run or an earlier one has brought content to the destination repository.
    fn remembered(&self, digest: &Digest) -> bool {
        let holder = self.destination.memory().and_then(|(journal, at)| journal.holder(&at, digest));
        holder.as_ref() == Some(&self.destination.name)
    }
}

/// Runs all futures, each in its own task, at most `at_once` at the same time. The first failure cancels the others. If
/// the run is to end, nothing further begins, and what is under way may still come to its end.
pub(super) async fn all<F>(work: impl Iterator<Item = F>, at_once: usize) -> Result<()>
where
    F: Future<Output = Result<()>> + Send + 'static,
{
    let mut tasks = JoinSet::new();
    let mut stopped = Ok(());
    // Boxed, because otherwise the caller's future would have room for each of them, and its caller's again.
    for one in work.map(Box::pin) {
        if tasks.len() >= at_once {
            stopped = unless_stopped(next(&mut tasks).await)?;
        }
        if stopped.is_err() {
            break;
        }
        tasks.spawn(one);
    }
    while !tasks.is_empty() {
        stopped = stopped.and(unless_stopped(next(&mut tasks).await)?);
    }
    stopped
}

/// Sets the error of a stopped run aside from failures.
fn unless_stopped(done: Result<()>) -> Result<Result<()>> {
    match done {
        Err(error) if error.kind == Kind::Cancelled => Ok(Err(error)),
        done => done.map(Ok),
    }
}

async fn next(tasks: &mut JoinSet<Result<()>>) -> Result<()> {
    match tasks.join_next().await {
        Some(Ok(done)) => done,
        Some(Err(error)) if error.is_panic() => {
            Err(Error::internal("copy a part of the image: dray itself failed"))
        }
        Some(Err(_)) => Err(stopped()),
        None => Ok(()),
    }
}
