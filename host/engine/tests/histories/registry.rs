//! Two registries in memory, and the faults that a history has in store for whoever asks them.

use dray_core::{Descriptor, Digest, Manifest, Naming};
use dray_engine::{
    Error, Kind, Result,
    contract::{
        Arrival, Capabilities, Context, Files, Found, Incoming, Listed, NextStep, Outcome, Page, Parsed,
        RawManifest, Segment, Step, TagPage, Transport,
    },
};
use futures_util::future::BoxFuture;
use std::{
    collections::{BTreeMap, BTreeSet},
    path::Path,
    sync::{Arc, Mutex, MutexGuard},
};
use tokio::sync::Notify;

const MANIFEST: &str = "application/vnd.oci.image.manifest.v1+json";
const INDEX: &str = "application/vnd.oci.image.index.v1+json";
const CONFIG: &str = "application/vnd.oci.image.config.v1+json";
const LAYER: &str = "application/vnd.oci.image.layer.v1.tar";

/// What happens at one call of a transport.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Fate {
    Well,
    /// Others go first.
    Later(u8),
    /// It fails.
    Fails,
    /// It is out of order for a moment.
    Falters,
    /// It is done, and the answer is lost.
    Lost,
    /// The source's tags move on to other images.
    Changes,
    /// They go back to those of before.
    GoesBack,
    /// Somebody signs an image of the source.
    Signs,
    /// The source loses what no tag of it leads to.
    Prunes,
    /// The destination does.
    Collects,
}

/// Who dies.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Victim {
    /// One of two; the other goes on.
    First,
    /// The machine.
    All,
}

/// One process, or two at once.
#[derive(Clone, Debug)]
pub struct Life {
    /// What happens at its calls, again and again.
    pub fates: Vec<Fate>,
    /// At this call it falters.
    pub falters: Option<u8>,
    /// At this call there is a death: before it takes effect, or after that.
    pub dies: Option<(u8, Victim, bool)>,
    /// After how many awaits the first process dies.
    pub awaits: Option<u16>,
    /// Another process does the same at the same time.
    pub two: bool,
    /// The destination is garbage-collected afterwards.
    pub collected: bool,
    /// Which policy it follows.
    pub policy: usize,
}

#[derive(Clone, Default, PartialEq)]
pub struct Repository {
    pub blobs: BTreeSet<String>,
    /// By digest: media type and body.
    pub manifests: BTreeMap<String, (String, Vec<u8>)>,
    pub tags: BTreeMap<String, String>,
}

#[derive(Default)]
pub struct State {
    pub source: BTreeMap<String, Repository>,
    pub destination: BTreeMap<String, Repository>,
    pub content: BTreeMap<String, Vec<u8>>,
    /// Generation of the source's tags.
    generation: u8,
    life: Option<Life>,
    /// Blobs and their repositories, as far as processes heard of them and wrote it down.
    known: BTreeSet<(String, String)>,
    /// Those of this life: two runs at once may not know of each other.
    heard: BTreeSet<(String, String)>,
    /// What was collected in this life: whoever is at work may count on it.
    collected: BTreeSet<(String, String)>,
    calls: u64,
    pub violations: Vec<String>,
}

#[derive(Default)]
pub struct Fake {
    state: Mutex<State>,
    /// Told when the first process dies, or all do.
    pub deaths: Mutex<[Arc<Notify>; 2]>,
}

fn descriptor(media_type: &str, content: &[u8]) -> serde_json::Value {
    serde_json::json!({ "mediaType": media_type, "digest": Digest::of(content).to_string(), "size": content.len() })
}

impl State {
    fn blob(&mut self, repository: &str, media_type: &str, content: Vec<u8>) -> serde_json::Value {
        let descriptor = descriptor(media_type, &content);
        let digest = digest(&descriptor);
        self.source.entry(repository.into()).or_default().blobs.insert(digest.clone());
        self.content.insert(digest, content);
        descriptor
    }

    fn put(&mut self, repository: &str, media_type: &str, manifest: &serde_json::Value) -> serde_json::Value {
        let body = manifest.to_string().into_bytes();
        let descriptor = descriptor(media_type, &body);
        let manifests = &mut self.source.entry(repository.into()).or_default().manifests;
        manifests.insert(digest(&descriptor), (media_type.into(), body));
        descriptor
    }

    /// Repositories with images that share layers, and an index.
    fn fill(&mut self) {
        let generation = self.generation;
        for name in ["a", "b"] {
            let mut images = Vec::new();
            for (number, architecture) in [(0, "amd64"), (1, "arm64")] {
                let shared = self.blob(name, LAYER, vec![1; 300]);
                let own = self.blob(name, LAYER, vec![generation, number, name.as_bytes()[0]]);
                let config = self.blob(name, CONFIG, vec![b'{', number, generation]);
                let image = serde_json::json!({ "schemaVersion": 2, "mediaType": MANIFEST, "config": config, "layers": [shared, own] });
                let mut image = self.put(name, MANIFEST, &image);
                image["platform"] = serde_json::json!({ "os": "linux", "architecture": architecture });
                images.push(image);
            }
            let index = serde_json::json!({ "schemaVersion": 2, "mediaType": INDEX, "manifests": images });
            let index = self.put(name, INDEX, &index);
            let one = digest(&images[0]);
            self.sign(name, &one, b"first");
            let tags = &mut self.source.entry(name.into()).or_default().tags;
            tags.insert("one".into(), one);
            tags.insert("all".into(), digest(&index));
        }
    }

    /// Something that refers to a manifest of the source.
    fn sign(&mut self, name: &str, subject: &str, words: &[u8]) {
        let Some((media_type, body)) = self.source[name].manifests.get(subject).cloned() else { return };
        let config = self.blob(name, "application/vnd.oci.empty.v1+json", b"{}".to_vec());
        let layer = self.blob(name, "text/plain", words.to_vec());
        let signature = serde_json::json!({ "schemaVersion": 2, "mediaType": MANIFEST, "artifactType": "text/plain", "config": config, "layers": [layer], "subject": descriptor(&media_type, &body) });
        self.put(name, MANIFEST, &signature);
    }

    /// The next life begins, after one that came to its end, or one that died and left a journal.
    pub fn begins(&mut self, life: Option<Life>, left: Option<&Path>) {
        let heard = std::mem::take(&mut self.heard);
        self.known.extend(left.map_or(heard, written));
        let destination = &self.destination;
        self.known
            .retain(|(name, blob)| destination.get(name).is_some_and(|there| there.blobs.contains(blob)));
        (self.calls, self.life) = (0, life);
        self.collected.clear();
    }

    fn side(&mut self, place: &Context) -> &mut BTreeMap<String, Repository> {
        if place.location() == "source" { &mut self.source } else { &mut self.destination }
    }

    fn collect(&mut self) {
        for (name, repository) in &mut self.destination {
            let left = repository.reachable(true);
            let manifests =
                repository.manifests.keys().filter(|digest| !left.manifests.contains_key(*digest));
            let gone = manifests.chain(repository.blobs.difference(&left.blobs));
            self.collected.extend(gone.map(|digest| (name.clone(), digest.clone())));
            *repository = left;
        }
    }
}

/// Blobs and their repositories of which a journal knows.
fn written(journal: &Path) -> BTreeSet<(String, String)> {
    let journal = rusqlite::Connection::open(journal).unwrap();
    let known = journal.prepare("select name, digest from blob join repository on id = repository");
    // Who died before it wrote anything has left no tables.
    let Ok(mut ask) = known else { return BTreeSet::new() };
    let rows = ask.query_map([], |row| Ok((row.get(0)?, row.get(1)?))).unwrap();
    rows.map(std::result::Result::unwrap).collect()
}

fn digest(descriptor: &serde_json::Value) -> String {
    descriptor["digest"].as_str().unwrap().to_owned()
}

/// What a manifest names: blobs, other manifests, and its subject.
fn named(body: &[u8]) -> (Vec<String>, Vec<String>, Option<String>) {
    let value: serde_json::Value = serde_json::from_slice(body).unwrap();
    let digests = |key: &str| value[key].as_array().into_iter().flatten().map(digest).collect::<Vec<_>>();
    let mut blobs = digests("layers");
    blobs.extend(value["config"]["digest"].as_str().map(str::to_owned));
    (blobs, digests("manifests"), value["subject"]["digest"].as_str().map(str::to_owned))
}

impl Repository {
    fn referrers(&self, subject: &str) -> Vec<String> {
        let refers =
            |(_, (_, body)): &(&String, &(String, Vec<u8>))| named(body).2.as_deref() == Some(subject);
        self.manifests.iter().filter(refers).map(|(digest, _)| digest.clone()).collect()
    }

    /// What its tags lead to, with what refers to that or without.
    pub fn reachable(&self, referrers: bool) -> Repository {
        let mut wanted: Vec<String> = self.tags.values().cloned().collect();
        let mut reached = Repository { tags: self.tags.clone(), ..Repository::default() };
        while let Some(digest) = wanted.pop() {
            if let Some(manifest) =
                self.manifests.get(&digest).filter(|_| !reached.manifests.contains_key(&digest))
            {
                let (blobs, children, _) = named(&manifest.1);
                reached.blobs.extend(blobs.into_iter().filter(|blob| self.blobs.contains(blob)));
                wanted.extend(children);
                if referrers {
                    wanted.extend(self.referrers(&digest));
                }
                reached.manifests.insert(digest, manifest.clone());
            }
        }
        reached
    }
}

/// Whether an answer arrives.
#[must_use]
enum Answer {
    Arrives,
    Lost,
    /// Whoever waits for it dies.
    Never(Arc<Notify>),
}

impl Answer {
    async fn of<T>(self, value: T) -> Result<T> {
        match self {
            Answer::Arrives => Ok(value),
            Answer::Lost => Err(Error::new(Kind::Invalid, "hear of it: the answer was lost")),
            Answer::Never(death) => {
                death.notify_one();
                std::future::pending().await
            }
        }
    }
}

impl Fake {
    /// With images at the source, and nothing at the destination.
    pub fn filled() -> Arc<Self> {
        let fake = Fake::default();
        fake.state().fill();
        Arc::new(fake)
    }

    pub fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap()
    }

    /// Everything at the destination that no tag leads to is gone.
    pub fn collect(&self) {
        self.state().collect();
    }

    /// What is in store for a call, and a death before it or after it.
    fn next(&self, first: bool) -> (Fate, Option<(Arc<Notify>, bool)>) {
        let mut state = self.state();
        let call = state.calls;
        state.calls += 1;
        let Some(life) = &state.life else { return (Fate::Well, None) };
        if let Some((dies, victim, after)) = life.dies
            && call >= dies.into()
            && (first || victim == Victim::All)
        {
            let death = self.deaths.lock().unwrap()[usize::from(victim == Victim::All)].clone();
            // Nothing takes effect after the first that did.
            return (Fate::Well, Some((death, after && call == u64::from(dies))));
        }
        if life.falters.map(u64::from) == Some(call) {
            return (Fate::Falters, None);
        }
        let fate = life.fates.get(call as usize % life.fates.len().max(1)).copied();
        (fate.unwrap_or(Fate::Well), None)
    }

    /// Something happens at every call.
    async fn fate(&self, first: bool) -> Result<Answer> {
        let (fate, death) = self.next(first);
        match death {
            Some((death, true)) => return Ok(Answer::Never(death)),
            Some((death, false)) => {
                death.notify_one();
                return std::future::pending().await;
            }
            None => {}
        }
        match fate {
            Fate::Well | Fate::Lost => {}
            Fate::Later(turns) => {
                for _ in 0..turns {
                    tokio::task::yield_now().await;
                }
            }
            Fate::Fails => return Err(Error::new(Kind::Invalid, "reach it: a fault of the history")),
            Fate::Falters => {
                return Err(Error::new(Kind::Transient, "reach it: it is out of order for a moment"));
            }
            Fate::Changes => {
                let mut state = self.state();
                state.generation += 1;
                state.fill();
            }
            Fate::GoesBack => {
                let mut state = self.state();
                state.generation = state.generation.saturating_sub(1);
                state.fill();
            }
            Fate::Signs => {
                let mut state = self.state();
                let words = state.calls.to_string();
                let one = state.source["a"].tags["one"].clone();
                // Where it happens again and again, there would be no end to it.
                if state.source["a"].referrers(&one).len() < 4 {
                    state.sign("a", &one, words.as_bytes());
                }
            }
            Fate::Prunes => {
                let mut state = self.state();
                state.source.values_mut().for_each(|repository| *repository = repository.reachable(true));
            }
            Fate::Collects => self.collect(),
        }
        Ok(if fate == Fate::Lost { Answer::Lost } else { Answer::Arrives })
    }
}

/// The registries as one process sees them.
pub struct Way {
    pub fake: Arc<Fake>,
    pub first: bool,
}

impl Way {
    async fn fate(&self) -> Result<Answer> {
        self.fake.fate(self.first).await
    }
}

impl Transport for Way {
    fn name(&self) -> &str {
        "fake"
    }

    fn trusted(&self) -> bool {
        true
    }

    fn granted_hosts(&self) -> &[String] {
        &[]
    }

    fn parse<'a>(&'a self, rest: &'a str, _: bool, _: &'a [String]) -> BoxFuture<'a, Result<Parsed>> {
        let (location, repository) = rest.split_once('/').unwrap();
        let parsed = Parsed {
            location: location.into(),
            repository: repository.into(),
            reference: None,
            root: Some(Files::Folder(location.into())),
            host: Some(format!("{location}.invalid")),
            private: false,
            separate_blobs: false,
        };
        Box::pin(async { Ok(parsed) })
    }

    fn repositories<'a>(&'a self, _: Context, _: Option<String>) -> BoxFuture<'a, Result<Page<String>>> {
        Box::pin(async { Err(Error::new(Kind::Unsupported, "list them")) })
    }

    fn tags<'a>(
        &'a self,
        place: Context,
        repository: &'a str,
        _: Option<String>,
    ) -> BoxFuture<'a, Result<TagPage>> {
        Box::pin(async move {
            let answer = self.fate().await?;
            let tags: Vec<_> = {
                let mut state = self.fake.state();
                let there = state.side(&place).get(repository);
                there.into_iter().flat_map(|there| there.tags.keys().cloned()).collect()
            };
            match tags.is_empty() {
                false => {
                    answer
                        .of(TagPage {
                            items: tags.into_iter().map(Listed::name).collect(),
                            next: None,
                            behind: None,
                        })
                        .await
                }
                true => Err(Error::new(Kind::NotFound, "list its tags: there is no such repository")),
            }
        })
    }

    fn resolve<'a>(
        &'a self,
        place: Context,
        repository: &'a str,
        reference: Option<&'a str>,
        known: Option<&'a Digest>,
    ) -> BoxFuture<'a, Result<Found>> {
        Box::pin(async move {
            match self.fetch(place, repository, reference).await {
                Ok(held) => {
                    let digest = Digest::of(&held.body);
                    if known == Some(&digest) {
                        return Ok(Found::Unchanged);
                    }
                    Ok(Found::Named(Descriptor::new(held.media_type, digest, held.body.len() as u64)))
                }
                Err(error) if error.text.contains("no such manifest") => Ok(Found::Absent),
                Err(error) => Err(error),
            }
        })
    }

    fn fetch<'a>(
        &'a self,
        place: Context,
        repository: &'a str,
        reference: Option<&'a str>,
    ) -> BoxFuture<'a, Result<RawManifest>> {
        Box::pin(async move {
            let answer = self.fate().await?;
            let found = self.fake.state().side(&place).get(repository).and_then(|repository| {
                let reference = reference.unwrap();
                let digest = repository.tags.get(reference).map_or(reference, String::as_str);
                repository.manifests.get(digest).cloned()
            });
            let (media_type, body) =
                found.ok_or_else(|| Error::new(Kind::NotFound, "read it: there is no such manifest"))?;
            answer.of(RawManifest { media_type, body, signatures: Vec::new() }).await
        })
    }

    fn referrers<'a>(
        &'a self,
        place: Context,
        repository: &'a str,
        subject: &'a Digest,
        _: Option<String>,
    ) -> BoxFuture<'a, Result<Page<Descriptor>>> {
        Box::pin(async move {
            let answer = self.fate().await?;
            let there = self.fake.state().side(&place).get(repository).cloned().unwrap_or_default();
            let described = |digest: String| {
                let (media_type, body) = &there.manifests[&digest];
                Descriptor::new(media_type.clone(), digest.parse().unwrap(), body.len() as u64)
            };
            let items = there.referrers(&subject.to_string()).into_iter().map(described).collect();
            answer.of(Page { items, next: None }).await
        })
    }

    fn locate<'a>(
        &'a self,
        place: Context,
        repository: &'a str,
        blob: &'a Descriptor,
    ) -> BoxFuture<'a, Result<Vec<Segment>>> {
        Box::pin(async move {
            let answer = self.fate().await?;
            let digest = blob.digest.to_string();
            let content = {
                let mut state = self.fake.state();
                let held =
                    state.side(&place).get(repository).is_some_and(|there| there.blobs.contains(&digest));
                held.then(|| state.content[&digest].clone())
            };
            match content {
                Some(content) => answer.of(vec![Segment::Inline(content.into())]).await,
                None => Err(Error::new(Kind::NotFound, "read it: there is no such blob")),
            }
        })
    }

    fn capabilities<'a>(&'a self, _: Context) -> BoxFuture<'a, Result<Capabilities>> {
        Box::pin(async {
            Ok(Capabilities {
                mount: true,
                sparse: None,
                shared: false,
                many: true,
                signatures: false,
                exclusive: false,
                holds: None,
            })
        })
    }

    /// As a registry: a blob that may be there is asked for, one in another repository is mounted.
    fn store<'a>(
        &'a self,
        _: Context,
        repository: &'a str,
        incoming: &'a Incoming,
        _: Option<Vec<u8>>,
        last: Option<Outcome>,
    ) -> BoxFuture<'a, Result<NextStep>> {
        Box::pin(async move {
            let answer = self.fate().await?;
            let digest = incoming.blob.digest.to_string();
            let heard = matches!(answer, Answer::Arrives);
            let step = {
                let mut state = self.fake.state();
                let has = |state: &State, name: &str| {
                    state.destination.get(name).is_some_and(|repository| repository.blobs.contains(&digest))
                };
                let here = has(&state, repository);
                let step = match last {
                    Some(Outcome::Written) => {
                        state.destination.entry(repository.into()).or_default().blobs.insert(digest);
                        Step::Finished(Arrival::Stored)
                    }
                    _ if here
                        && incoming.absent
                        && state.known.contains(&(repository.to_owned(), digest.clone())) =>
                    {
                        state
                            .violations
                            .push(format!("{digest} is sent to {repository} again, where it is known to be"));
                        Step::Finished(Arrival::Present)
                    }
                    _ if here => Step::Finished(Arrival::Present),
                    _ if incoming.siblings.iter().any(|sibling| has(&state, sibling)) => {
                        state.destination.entry(repository.into()).or_default().blobs.insert(digest);
                        Step::Finished(Arrival::Mounted)
                    }
                    _ => Step::Write(format!("{repository}/{}", incoming.blob.digest.hex())),
                };
                if matches!(step, Step::Finished(_)) && heard {
                    state.heard.insert((repository.into(), incoming.blob.digest.to_string()));
                }
                step
            };
            answer.of(NextStep { step, state: Vec::new() }).await
        })
    }

    fn publish<'a>(
        &'a self,
        _: Context,
        repository: &'a str,
        manifest: &'a Manifest,
        naming: &'a Naming,
    ) -> BoxFuture<'a, Result<()>> {
        Box::pin(async move {
            let answer = self.fate().await?;
            {
                let mut state = self.fake.state();
                let State { destination, collected, violations, .. } = &mut *state;
                let there = destination.entry(repository.into()).or_default();
                let Descriptor { digest, media_type, .. } = &manifest.descriptor;
                let (blobs, children, _) = named(&manifest.body);
                let missing: Vec<String> = blobs
                    .into_iter()
                    .filter(|blob| !there.blobs.contains(blob))
                    .chain(children.into_iter().filter(|child| !there.manifests.contains_key(child)))
                    .collect();
                if !missing.is_empty() {
                    // What went behind the run's back is not its fault. To ask again would not help, and waiting is real.
                    if missing.iter().all(|digest| collected.contains(&(repository.into(), digest.clone()))) {
                        return Err(Error::new(Kind::Invalid, "publish it: something was collected"));
                    }
                    violations.push(format!("{digest} is published in {repository} before {missing:?}"));
                    return Err(Error::new(Kind::Missing(missing), "publish it: something is missing"));
                }
                there.manifests.insert(digest.to_string(), (media_type.clone(), manifest.body.clone()));
                if let Naming::Tag(tag) = naming {
                    there.tags.insert(tag.clone(), digest.to_string());
                }
            }
            answer.of(()).await
        })
    }

    fn delete_tag<'a>(
        &'a self,
        _: Context,
        _: &'a str,
        _: &'a str,
        _: Option<&'a Digest>,
    ) -> BoxFuture<'a, Result<()>> {
        Box::pin(async { Err(Error::new(Kind::Unsupported, "remove images: no history does")) })
    }

    fn delete_manifest<'a>(&'a self, _: Context, _: &'a str, _: &'a Digest) -> BoxFuture<'a, Result<()>> {
        Box::pin(async { Err(Error::new(Kind::Unsupported, "remove images: no history does")) })
    }

    fn finish<'a>(&'a self, _: Context) -> BoxFuture<'a, Result<()>> {
        Box::pin(async { Ok(()) })
    }
}
