//! Carrying out a plan: children before parents, what is shared once, images side by side.

pub(crate) mod claims;
pub(crate) mod convert;
pub(crate) mod finish;
mod publish;
mod referrers;

use crate::{
    Error, Event, Kind, Observer, Place, Planned, PlannedCopy, Result,
    blob::transfer::{Payload, Side, transfer},
    contract::{Arrival, Capabilities, Incoming, Naming},
    error::Context,
    journal::{Conversion, Journal, RepositoryKey},
    lock,
    place::Route,
    place::graph::{read_manifest, read_named},
    plan::compare::tag_of,
    run::claims::{Claim, Claims, Sharing},
    run::finish::{Finish, Learnt},
};
use dray_core::{
    Action, Children, Compression, CopyReport, Descriptor, Digest, Form, Manifest, Report, is_image_config,
    layer_compression, media_type, policy::Referrers, select,
};
use futures_util::future::BoxFuture;
use std::{
    collections::{HashMap, HashSet},
    sync::{
        Arc, Mutex,
        atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering},
    },
    time::Instant,
};
use tokio::{
    sync::{OnceCell, Semaphore, mpsc, watch},
    task::JoinSet,
};

/// How a run behaves.
#[derive(Clone, Copy, Debug)]
pub struct RunOptions {
    /// Images on their way at once, from one host to another.
    pub images: usize,
    /// Do the rest after a failure.
    pub keep_going: bool,
    /// The report names images that were unchanged, too. Otherwise it counts them, so that its size is that
    /// of what was done.
    pub unchanged: bool,
}

impl Default for RunOptions {
    fn default() -> Self {
        RunOptions { images: 32, keep_going: false, unchanged: false }
    }
}

/// Children of one index, and referrers of one manifest, that are copied at once.
const CHILDREN: usize = 16;
/// Blobs of one image that are on their way at once.
const BLOBS: usize = 128;

/// Manifests of one image, children and referrers together.
pub(crate) const MANIFESTS: usize = 10_000;
/// Bytes of the manifests of one image.
const LISTS: u64 = 64 << 20;

/// Indexes within indexes after which a source is taken to go round in circles.
pub(crate) const DEPTH: usize = 8;

/// One execution of a plan.
pub struct Run {
    sent: Arc<Counting>,
    shared: Arc<Shared>,
    options: RunOptions,
}

/// What is at a destination: its place and the content.
type Key = (String, Digest);

/// A place, a repository in it, and a manifest there.
type Subject = (String, String, Digest);

/// A layer in another compression at a destination: place, repository, digest of the source's,
/// and what the config says of it.
type Recompressed = (String, String, Digest, Digest, Compression);

/// Brought once; whoever else wants it waits.
type Brought = Arc<OnceCell<(Digest, u64)>>;

/// Size, compression and diff id of a layer whose manifest tells none of them.
type Untold = Arc<OnceCell<(u64, Compression, Digest)>>;

pub(crate) struct Shared {
    pub observer: Arc<dyn Observer>,
    /// People were told that a place is written of which the journal cannot know.
    unremembered: AtomicBool,
    layers: Mutex<HashMap<Recompressed, Brought>>,
    untold: Mutex<HashMap<Digest, Untold>>,
    /// What is left to do at the end.
    endings: Finish,
    blobs: Arc<Claims<Key>>,
    /// The second part says which platforms' children were copied.
    manifests: Arc<Claims<(Key, String)>>,
    /// Manifests whose referrers were copied. Nobody waits for one while he has a claim to a manifest or a blob, so
    /// no graph waits for itself.
    referred: Arc<Claims<Key>>,
    /// One writer a subject at a time: the list of its referrers may be a manifest that is read,
    /// added to and written back.
    subjects: Mutex<HashMap<Subject, Arc<tokio::sync::Mutex<()>>>>,
}

impl Shared {
    /// Where digest and size of a layer are kept once it was brought.
    pub fn layer(&self, key: Recompressed) -> Brought {
        lock(&self.layers).entry(key).or_default().clone()
    }

    /// Where what was learnt of a layer of schema 1 is kept.
    pub fn untold(&self, digest: &Digest) -> Untold {
        lock(&self.untold).entry(digest.clone()).or_default().clone()
    }
}

/// Counts the bytes that are sent, and passes all on.
struct Counting(AtomicU64, Arc<dyn Observer>);

impl Observer for Counting {
    fn event(&self, event: Event<'_>) {
        if let Event::Sent(bytes) = event {
            self.0.fetch_add(bytes, Ordering::Relaxed);
        }
        self.1.event(event);
    }
}

impl Run {
    /// A run that has done nothing.
    pub fn new(observer: Arc<dyn Observer>, options: RunOptions) -> Self {
        let sent = Arc::new(Counting(AtomicU64::new(0), observer));
        let shared = Shared {
            observer: sent.clone(),
            unremembered: AtomicBool::default(),
            layers: Mutex::default(),
            untold: Mutex::default(),
            endings: Finish::default(),
            blobs: Claims::new(),
            manifests: Claims::new(),
            referred: Claims::new(),
            subjects: Mutex::default(),
        };
        Run { shared: Arc::new(shared), options, sent }
    }

    /// Carries out what comes, until the plan ends, something fails (and the rest is not wanted)
    /// or `stop` turns true. What is on its way then is dropped: nothing is half published.
    pub async fn carry_out(
        &self,
        mut plan: mpsc::Receiver<Planned>,
        mut stop: watch::Receiver<bool>,
    ) -> Report {
        let begun = Instant::now();
        let mut report = Report::default();
        let mut copies = JoinSet::new();
        // From where to where: a registry that is slow holds up no other.
        let mut ways: HashMap<Route, Arc<Semaphore>> = HashMap::new();
        let mut planning = true;
        let mut stopped = false;
        while planning || !copies.is_empty() {
            tokio::select! {
                biased;
                _ = stop.wait_for(|stop| *stop) => {
                    stopped = true;
                    break;
                }
                Some(done) = copies.join_next(), if !copies.is_empty() => {
                    match done {
                        Ok(None) => {}
                        Ok(Some(ended)) => self.ended(ended, &mut report),
                        Err(_) => self.broke(&mut report),
                    }
                }
                planned = plan.recv(), if planning => match planned {
                    None => planning = false,
                    Some(Planned::Dropped { .. }) => {}
                    Some(Planned::Failed { rule, source, destination, error }) => {
                        self.finished(&mut report, failure(rule, source, destination, None, &error), 0);
                    }
                    Some(Planned::Copy(planned)) if planned.copy.action == Action::Unchanged => {
                        self.finished(&mut report, account(&planned.copy), 0);
                    }
                    Some(Planned::Copy(planned)) => {
                        let way = planned.source.0.route_to(&planned.destination.0);
                        let way = ways.entry(way).or_insert_with(|| Arc::new(Semaphore::new(self.options.images)));
                        copies.spawn(when_its_turn_comes(way.clone(), self.shared.clone(), planned));
                    }
                },
            }
            if report.summary.failed > 0 && !self.options.keep_going {
                planning = false;
                // Those that have not begun never do.
                ways.values().for_each(|way| way.close());
            }
        }
        drop(plan);
        if stopped {
            copies.shutdown().await;
            // Of images that are not done, too: it went over the wire.
            report.summary.bytes = self.sent.0.load(Ordering::Relaxed);
        }
        let given_up = stopped || report.summary.failed > 0 && !self.options.keep_going;
        self.shared.endings.finish(&mut report, given_up, self.shared.observer.as_ref()).await;
        report.summary.seconds = begun.elapsed().as_secs_f64();
        report
    }

    /// A panic of the engine itself: it must not pass for success.
    fn broke(&self, report: &mut Report) {
        let error = Error::new(Kind::Plugin, "copy an image: dray itself failed");
        self.finished(report, failure("".into(), "".into(), "".into(), None, &error), 0);
    }

    fn ended(&self, ended: Ended, report: &mut Report) {
        let Ended { copy, result, sent, mounted } = ended;
        report.summary.mounted_bytes += mounted;
        let ended = match result {
            Ok(()) => account(&copy),
            Err(error) => {
                let error = error.context(format!("copy {} to {}", copy.source, copy.destination));
                let digest = Some(copy.descriptor.digest.to_string());
                failure(copy.rule, copy.source.display, copy.destination.display, digest, &error)
            }
        };
        self.finished(report, ended, sent);
    }

    fn finished(&self, report: &mut Report, mut copy: CopyReport, sent: u64) {
        copy.bytes = sent;
        report.summary.bytes += sent;
        // What goes into an archive or to a daemon is not there before that is completed.
        if copy.action != Action::Copy || !self.shared.endings.is_whole(&copy.place) {
            self.shared.observer.event(Event::Finished(&copy));
        }
        match copy.action {
            Action::Unchanged if !self.options.unchanged => report.summary.unchanged += 1,
            _ => report.add(copy),
        }
    }
}

fn account(copy: &dray_core::Copy) -> CopyReport {
    CopyReport {
        rule: copy.rule.clone(),
        source: copy.source.display.clone(),
        destination: copy.destination.display.clone(),
        digest: Some(copy.descriptor.digest.to_string()),
        written: copy.written.as_ref().map(|written| written.digest.to_string()),
        place: copy.destination.place.clone(),
        action: copy.action,
        reason: copy.reason.to_string(),
        bytes: 0,
        error: None,
        help: None,
    }
}

fn failure(
    rule: String,
    source: String,
    destination: String,
    digest: Option<String>,
    error: &Error,
) -> CopyReport {
    CopyReport {
        rule,
        source,
        destination,
        digest,
        written: None,
        place: String::new(),
        action: Action::Fail,
        reason: "it failed".into(),
        bytes: 0,
        error: Some(format!("failed to {error}")),
        help: error.help.clone(),
    }
}

struct Ended {
    copy: dray_core::Copy,
    result: Result<()>,
    sent: u64,
    mounted: u64,
}

/// One image on its way.
pub(crate) struct Job {
    pub shared: Arc<Shared>,
    pub source: (Arc<Place>, String),
    pub destination: (Arc<Place>, String),
    pub capabilities: Capabilities,
    choice: crate::ImageChoice,
    referrers: Referrers,
    /// The tag of the source.
    tag: Option<String>,
    pub include_foreign: bool,
    /// What cannot be converted is an error.
    pub strict: bool,
    pub link: bool,
    /// The destination's repository held nothing when the plan was made.
    pub fresh: bool,
    pub sent: AtomicU64,
    mounted: AtomicU64,
    pub bounds: Bounds,
    /// Manifests of this image whose referrers are still to be copied.
    subjects: Mutex<Vec<Digest>>,
    /// Referrers that could not be brought.
    behind: Mutex<HashSet<Digest>>,
    /// Blobs that were not sent because the destination said that it has them.
    claimed: Mutex<HashSet<Digest>>,
}

/// What one image may be made of: whoever names more has no image.
#[derive(Default)]
pub(crate) struct Bounds {
    manifests: AtomicUsize,
    bytes: AtomicU64,
}

impl Bounds {
    /// Takes in manifests that are named, and the bytes of the list that names them.
    pub fn count(&self, manifests: usize, bytes: u64) -> Result<()> {
        let manifests = self.manifests.fetch_add(manifests, Ordering::Relaxed) + manifests;
        let bytes = self.bytes.fetch_add(bytes, Ordering::Relaxed) + bytes;
        if manifests > MANIFESTS {
            let text =
                format!("copy it: it names more than {MANIFESTS} manifests, children and referrers together");
            return Err(Error::invalid(text));
        }
        if bytes > LISTS {
            let text = format!("copy it: its manifests have more than {} MiB together", LISTS >> 20);
            return Err(Error::invalid(text));
        }
        Ok(())
    }
}

/// None: it was given up before it began.
async fn when_its_turn_comes(
    way: Arc<Semaphore>,
    shared: Arc<Shared>,
    mut planned: Box<PlannedCopy>,
) -> Option<Ended> {
    let _one = way.acquire().await.ok()?;
    planned.ahead = None;
    shared.observer.event(Event::Started(&planned.copy));
    Some(image(shared, planned).await)
}

async fn image(shared: Arc<Shared>, planned: Box<PlannedCopy>) -> Ended {
    let PlannedCopy {
        mut copy,
        source,
        destination,
        naming,
        choice,
        referrers,
        include_foreign,
        strict,
        link,
        fresh,
        manifest,
        form,
        ahead: _,
    } = *planned;
    let capabilities = match destination.0.capabilities().await {
        Ok(capabilities) => capabilities,
        Err(error) => return Ended { copy, result: Err(error), sent: 0, mounted: 0 },
    };
    let job = Arc::new(Job {
        shared,
        source,
        destination,
        capabilities,
        choice,
        referrers,
        tag: tag_of(copy.source.reference.as_deref()).map(str::to_owned),
        include_foreign,
        strict,
        link,
        fresh,
        sent: 0.into(),
        mounted: 0.into(),
        bounds: Bounds::default(),
        subjects: Mutex::default(),
        behind: Mutex::default(),
        claimed: Mutex::default(),
    });
    let result = match form.is_unchanged() {
        true => job.clone().top(&copy.descriptor, manifest, naming).await,
        false => match job.clone().other_form(&copy.descriptor, manifest, naming, form).await {
            Ok(written) => {
                copy.written = written;
                Ok(())
            }
            Err(error) => Err(error),
        },
    };
    Ended {
        copy,
        result,
        sent: job.sent.load(Ordering::Relaxed),
        mounted: job.mounted.load(Ordering::Relaxed),
    }
}

impl Job {
    async fn top(
        self: Arc<Self>,
        descriptor: &Descriptor,
        manifest: Option<Manifest>,
        naming: Naming,
    ) -> Result<()> {
        let manifest = match manifest {
            Some(manifest) => manifest,
            None => read_named(&self.source.0, &self.source.1, self.tag.as_deref(), descriptor).await?,
        };
        self.bounds.count(1, manifest.descriptor.size)?;
        let platforms: Vec<String> = self.platforms().iter().map(ToString::to_string).collect();
        let selection = match &manifest.children {
            Children::Index(children) => Some(select(children, self.platforms())?),
            Children::Image { .. } | Children::Schema1(_) => None,
        };
        if let Some(selection) = &selection
            && !selection.dropped.is_empty()
        {
            self.probe(&manifest, &selection.dropped).await?;
        }
        let key = (self.key(&manifest.descriptor.digest), platforms.join(","));
        match self.shared.manifests.claim(&key, &self.destination.1, Sharing::None).await {
            Claim::Held => {}
            Claim::Yours { ticket, .. } => {
                match selection {
                    Some(selection) => self.clone().children(selection.kept, 1).await?,
                    None => self.clone().blobs(&manifest).await?,
                }
                // Who finds it held may name it, so it must be published by then; and no claim is held
                // while referrers travel: they may name what they refer to.
                let first = if self.referrers.are_wanted() { &Naming::Child } else { &naming };
                self.publish(&manifest, first).await?;
                ticket.held();
                if !self.referrers.are_wanted() {
                    return Ok(());
                }
            }
        }
        lock(&self.subjects).push(manifest.descriptor.digest.clone());
        self.all_referrers().await?;
        self.publish(&manifest, &naming).await
    }

    /// Writes an image in another form; what was published, if it is not the source's.
    async fn other_form(
        self: Arc<Self>,
        descriptor: &Descriptor,
        manifest: Option<Manifest>,
        naming: Naming,
        form: Form,
    ) -> Result<Option<Descriptor>> {
        let manifest = match manifest {
            Some(manifest) => manifest,
            None => read_named(&self.source.0, &self.source.1, self.tag.as_deref(), descriptor).await?,
        };
        let tag = match &naming {
            Naming::Tag(tag) => Some(tag.clone()),
            Naming::Child | Naming::Root => None,
        };
        let source = manifest.descriptor.clone();
        let written = self.clone().converted(manifest, form, naming, 0).await?;
        let (place, repository) = &self.destination;
        let of = Conversion::new(&source.digest, form, self.platforms(), (place, repository));
        // Where manifests are kept as they are, nothing but ours may be remembered.
        let expected = self.holds_all().then(|| written.descriptor.digest.to_string());
        self.shared.endings.learn(Learnt {
            of,
            place: place.clone(),
            repository: repository.clone(),
            tag,
            expected,
        });
        Ok((written.descriptor.digest != source.digest).then_some(written.descriptor))
    }

    /// The platforms that an index is to keep; empty: all.
    pub fn platforms(&self) -> &[dray_core::Platform] {
        self.choice.platforms()
    }

    /// Whether the destination holds everything.
    pub fn holds_all(&self) -> bool {
        self.capabilities.holds.is_none()
    }

    fn key(&self, digest: &Digest) -> Key {
        (self.destination.0.key(), digest.clone())
    }

    /// Finds out before anything is moved whether the destination takes an index whose other
    /// platforms are missing: it is pushed by its digest, under no tag.
    async fn probe(&self, index: &Manifest, dropped: &[Descriptor]) -> Result<()> {
        let place = &self.destination.0;
        if self.capabilities.sparse == Some(true) || place.sparse_seen.load(Ordering::Relaxed) {
            return Ok(());
        }
        let refused = match self.publish_at_once(index, &Naming::Child).await {
            Ok(()) => {
                place.sparse_seen.store(true, Ordering::Relaxed);
                return Ok(());
            }
            Err(error) => error,
        };
        // Wanted children are on their way; only the dropped ones will stay missing.
        let Kind::Missing(missing) = &refused.kind else { return Err(refused) };
        let stays = |digest: &String| {
            digest.is_empty() || dropped.iter().any(|dropped| dropped.digest.to_string() == *digest)
        };
        match missing.is_empty() || missing.iter().any(stays) {
            true => Err(publish::sparse(place)),
            false => Ok(()),
        }
    }

    fn children(self: Arc<Self>, children: Vec<Descriptor>, depth: usize) -> BoxFuture<'static, Result<()>> {
        Box::pin(async move {
            self.bounds.count(children.len(), 0)?;
            let copies = children.into_iter().map(|child| self.clone().manifest(child, Naming::Child, depth));
            all(copies, CHILDREN).await
        })
    }

    /// Copies a manifest by its digest, with all that it names.
    async fn manifest(self: Arc<Self>, descriptor: Descriptor, naming: Naming, depth: usize) -> Result<()> {
        if depth > DEPTH {
            return Err(Error::invalid(format!(
                "copy {}: manifests are nested deeper than {DEPTH}",
                descriptor.digest
            )));
        }
        lock(&self.subjects).push(descriptor.digest.clone());
        let key = (self.key(&descriptor.digest), String::new());
        let Claim::Yours { ticket, .. } =
            self.shared.manifests.claim(&key, &self.destination.1, Sharing::None).await
        else {
            return Ok(());
        };
        if !self.has(&descriptor).await? {
            self.clone().with_its_parts(&descriptor, &naming, depth).await?;
        }
        ticket.held();
        Ok(())
    }

    /// Brings a manifest and all that it names, whether or not the manifest is there.
    async fn with_its_parts(
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

    /// A child of an index. `None` means that it is no manifest but a blob (a layer of one of BuildKit's caches).
    async fn child(&self, descriptor: &Descriptor) -> Result<Option<Manifest>> {
        let (place, repository) = &self.source;
        if is_blob(&descriptor.media_type) {
            return Ok(None);
        }
        let read = read_manifest(place, repository, None, Some(descriptor)).await;
        read.map(Some).map_err(|error| match error.kind {
            Kind::NotFound => error.help("the source has the index and not all of its images; `platforms = [\"linux/amd64\", …]` in the rule, or --platform, copies those that are there"),
            _ => error,
        })
    }

    /// Whether the destination has an image by its digest. It would not have taken one without
    /// its blobs; of an index that cannot be said.
    async fn has(&self, descriptor: &Descriptor) -> Result<bool> {
        let empty = self.fresh && !self.remembered(&descriptor.digest);
        let no_image = media_type::is_index(&descriptor.media_type) || is_blob(&descriptor.media_type);
        if no_image || !self.capabilities.many || empty {
            return Ok(false);
        }
        let there =
            self.destination.0.resolve(&self.destination.1, Some(&descriptor.digest.to_string()), None).await;
        match there.context(|| format!("resolve {} at the destination", descriptor.digest.short())) {
            // It may have no such repository yet: the push shows.
            Err(error) if matches!(error.kind, Kind::Denied | Kind::Unauthorized) => Ok(false),
            there => Ok(there?.is_some()),
        }
    }

    /// Both ends of a transfer.
    pub fn sides(&self) -> (Side<'_>, Side<'_>) {
        let (from, to) = (&self.source, &self.destination);
        (
            Side { place: &from.0, repository: &from.1, wanted: None, link: false },
            Side { place: &to.0, repository: &to.1, wanted: None, link: self.link },
        )
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
        let left = layers.iter().filter(|layer| layer.foreign && !self.include_foreign).count();
        if left > 0 {
            let digest = manifest.descriptor.digest.short();
            tracing::warn!(
                help = "`include-foreign = true` in the rule, or --include-foreign, copies them",
                "layers of {digest} stay where they are ({left}): their maker lets nobody distribute them"
            );
        }
        let layers = layers.iter().filter(|layer| !layer.foreign || self.include_foreign);
        let blobs = layers.chain(std::iter::once(config)).filter(|blob| seen.insert(&blob.digest));
        all(blobs.map(|blob| self.clone().blob(blob.clone())), BLOBS).await
    }

    pub async fn blob(self: Arc<Self>, blob: Descriptor) -> Result<()> {
        let sharing = match self.capabilities {
            Capabilities { shared: true, .. } => Sharing::Place,
            Capabilities { mount: true, .. } => Sharing::Mount,
            _ => Sharing::None,
        };
        let key = (self.destination.0.blobs_key(), blob.digest.clone());
        let Claim::Yours { mut siblings, ticket } =
            self.shared.blobs.claim(&key, &self.destination.1, sharing).await
        else {
            lock(&self.claimed).insert(blob.digest);
            return Ok(());
        };
        let holder = self.memory().and_then(|(journal, at)| journal.holder(&at, &blob.digest));
        let here = holder.as_ref() == Some(&self.destination.1);
        if sharing == Sharing::Mount && siblings.is_empty() && !here {
            siblings.extend(holder);
        }
        if let [from] = &siblings[..]
            && !self.destination.0.mounts.may(from, &self.destination.1)
        {
            siblings.clear();
        }
        let incoming = Incoming { blob, siblings, sized: true, absent: self.fresh && !here };
        self.bring(incoming, Some(ticket.waiting())).await?;
        ticket.held();
        Ok(())
    }

    /// Brings a blob to the destination, in whatever way that takes.
    async fn bring(&self, incoming: Incoming, wanted: Option<Arc<AtomicUsize>>) -> Result<()> {
        let observer = self.shared.observer.as_ref();
        let size = incoming.blob.size;
        observer.event(Event::Expected(size));
        let (source, mut destination) = self.sides();
        destination.wanted = wanted;
        let stored =
            transfer(source, destination, Payload::Blob(&incoming.blob), &incoming, observer).await?;
        match stored.finish {
            Arrival::Stored => {
                self.sent.fetch_add(stored.size, Ordering::Relaxed);
            }
            Arrival::Mounted => {
                self.mounted.fetch_add(size, Ordering::Relaxed);
                observer.event(Event::Spared(size));
                observer.event(Event::Mounted(size));
            }
            Arrival::Present => observer.event(Event::Spared(stored.size)),
        }
        if stored.finish != Arrival::Stored {
            lock(&self.claimed).insert(incoming.blob.digest.clone());
        }
        if let Some((journal, at)) = self.memory() {
            journal.holds(at, &incoming.blob.digest);
        }
        Ok(())
    }

    /// Sends the blobs of a manifest that the destination said to have and now misses, each once.
    async fn bring_missing(&self, manifest: &Manifest, missing: &[String]) -> Result<bool> {
        let Children::Image { config, layers } = &manifest.children else { return Ok(false) };
        let mut sent = false;
        for blob in layers.iter().chain([config]) {
            let named = missing.iter().any(|digest| digest.is_empty() || *digest == blob.digest.to_string());
            if !named || !lock(&self.claimed).remove(&blob.digest) {
                continue;
            }
            tracing::info!(
                "{} said that it has {}, and misses it: it is sent",
                self.destination.0.location,
                blob.digest.short()
            );
            let incoming = Incoming { blob: blob.clone(), siblings: Vec::new(), sized: true, absent: true };
            self.bring(incoming, None).await?;
            sent = true;
        }
        Ok(sent)
    }

    /// The journal, where it can spare a request: other places are asked cheaply.
    fn memory(&self) -> Option<(&Journal, RepositoryKey)> {
        let (place, repository) = &self.destination;
        Some((place.memory()?, RepositoryKey::new(place, repository)))
    }

    /// Whether an earlier run, or this one, has brought content to the destination's repository.
    fn remembered(&self, digest: &Digest) -> bool {
        let holder = self.memory().and_then(|(journal, at)| journal.holder(&at, digest));
        holder.as_ref() == Some(&self.destination.1)
    }
}

/// Whether a child of an index is a blob by its type: a layer or a config.
pub(crate) fn is_blob(media_type: &str) -> bool {
    !media_type::is_manifest(media_type)
        && (layer_compression(media_type).is_some()
            || is_image_config(media_type)
            || media_type.starts_with("application/vnd.buildkit.cacheconfig."))
}

/// Does all, so many at once, each in a task of its own; the first failure ends the others.
async fn all<F>(work: impl Iterator<Item = F>, at_once: usize) -> Result<()>
where
    F: Future<Output = Result<()>> + Send + 'static,
{
    let mut tasks = JoinSet::new();
    for one in work {
        if tasks.len() >= at_once {
            next(&mut tasks).await?;
        }
        tasks.spawn(one);
    }
    while !tasks.is_empty() {
        next(&mut tasks).await?;
    }
    Ok(())
}

async fn next(tasks: &mut JoinSet<Result<()>>) -> Result<()> {
    match tasks.join_next().await {
        Some(Ok(done)) => done,
        Some(Err(error)) if error.is_panic() => {
            Err(Error::new(Kind::Plugin, "copy a part of the image: dray itself failed"))
        }
        Some(Err(_)) => Err(Error::new(Kind::Cancelled, "go on: the run was stopped")),
        None => Ok(()),
    }
}
