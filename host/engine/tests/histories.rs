//! Generated histories: faults, reorderings, deaths at every await, two runs at once, a source that
//! changes and a destination that is garbage-collected in between. Whatever happens, nothing is
//! published before what it names, and in the end the destination is as if nothing had happened.
#![allow(clippy::unwrap_used, reason = "tests")]

use dray_core::{Descriptor, Digest, Manifest};
use dray_engine::{
    Error, Event, Kind, LazyJournal, Local, Observer, Place, Places, Result, Run, RunOptions, bind,
    http::{Client, RegistrySettings, Settings},
    plan,
    plugin::{
        Abilities, Credentials, Files, Filter, Finish, Found, Held, Incoming, Naming, Outcome, Page, Parsed,
        Plugins, Segment, Step, Transport, Turn,
    },
};
use futures_util::future::BoxFuture;
use proptest::prelude::*;
use std::{
    collections::{BTreeMap, BTreeSet},
    path::Path,
    sync::{Arc, Mutex},
};
use tokio::sync::{Notify, mpsc, watch};

const MANIFEST: &str = "application/vnd.oci.image.manifest.v1+json";
const INDEX: &str = "application/vnd.oci.image.index.v1+json";

/// What happens at one call of a transport.
#[derive(Clone, Copy, Debug, PartialEq)]
enum Fate {
    Well,
    /// Others go first.
    Later(u8),
    /// It fails, and may work another time.
    Fails,
    /// The source's tags move on.
    Changes,
}

/// One process.
#[derive(Clone, Debug)]
struct Life {
    /// What happens at its calls, again and again.
    fates: Vec<Fate>,
    /// It dies at this call.
    dies: Option<u8>,
    /// Another one does the same at the same time.
    two: bool,
    /// The destination is garbage-collected afterwards.
    collected: bool,
}

#[derive(Default)]
struct Repository {
    blobs: BTreeSet<String>,
    manifests: BTreeMap<String, (String, Vec<u8>)>,
    tags: BTreeMap<String, String>,
}

#[derive(Default)]
struct State {
    source: BTreeMap<String, Repository>,
    destination: BTreeMap<String, Repository>,
    content: BTreeMap<String, Vec<u8>>,
    /// Generation of the source's tags.
    generation: u8,
    life: Option<Life>,
    /// Repositories and their blobs when the life began: two runs at once may not know of each other.
    known: BTreeSet<(String, String)>,
    calls: u64,
    violations: Vec<String>,
}

struct Fake {
    state: Mutex<State>,
    /// Told when the process dies.
    dead: Mutex<Arc<Notify>>,
}

fn blob(state: &mut State, repository: &str, media_type: &str, content: Vec<u8>) -> serde_json::Value {
    let digest = Digest::of(&content).to_string();
    let size = content.len();
    state.source.entry(repository.into()).or_default().blobs.insert(digest.clone());
    state.content.insert(digest.clone(), content);
    serde_json::json!({ "mediaType": media_type, "digest": digest, "size": size })
}

fn put(
    state: &mut State,
    repository: &str,
    media_type: &str,
    manifest: &serde_json::Value,
) -> serde_json::Value {
    let body = manifest.to_string().into_bytes();
    let digest = Digest::of(&body).to_string();
    let size = body.len();
    let manifests = &mut state.source.entry(repository.into()).or_default().manifests;
    manifests.insert(digest.clone(), (media_type.into(), body));
    serde_json::json!({ "mediaType": media_type, "digest": digest, "size": size })
}

/// Repositories with images that share layers, and an index.
fn fill(state: &mut State) {
    let generation = state.generation;
    for name in ["a", "b"] {
        let mut images = Vec::new();
        for number in 0..2u8 {
            let shared = blob(state, name, "application/vnd.oci.image.layer.v1.tar", vec![1; 300]);
            let own = blob(
                state,
                name,
                "application/vnd.oci.image.layer.v1.tar",
                vec![generation, number, name.as_bytes()[0]],
            );
            let config =
                blob(state, name, "application/vnd.oci.image.config.v1+json", vec![b'{', number, generation]);
            let image = serde_json::json!({ "schemaVersion": 2, "mediaType": MANIFEST, "config": config, "layers": [shared, own] });
            images.push(put(state, name, MANIFEST, &image));
        }
        let tagged = |descriptor: &serde_json::Value| descriptor["digest"].as_str().unwrap().to_owned();
        let index = serde_json::json!({ "schemaVersion": 2, "mediaType": INDEX, "manifests": images });
        let index = put(state, name, INDEX, &index);
        let tags = &mut state.source.get_mut(name).unwrap().tags;
        tags.insert("one".into(), tagged(&images[0]));
        tags.insert("all".into(), tagged(&index));
    }
}

/// What a manifest names: blobs, and other manifests.
fn named(body: &[u8]) -> (Vec<String>, Vec<String>) {
    let value: serde_json::Value = serde_json::from_slice(body).unwrap();
    let digests = |key: &str| {
        let list = value[key].as_array().cloned().unwrap_or_default();
        list.iter().map(|entry| entry["digest"].as_str().unwrap().to_owned()).collect::<Vec<_>>()
    };
    let mut blobs = digests("layers");
    blobs.extend(value["config"]["digest"].as_str().map(str::to_owned));
    (blobs, digests("manifests"))
}

impl Fake {
    fn state(&self) -> std::sync::MutexGuard<'_, State> {
        self.state.lock().unwrap()
    }

    /// Something happens at every call.
    async fn fate(&self) -> Result<()> {
        let (fate, dies) = {
            let mut state = self.state();
            let call = state.calls;
            state.calls += 1;
            let Some(life) = &state.life else { return Ok(()) };
            let dies = life.dies.is_some_and(|dies| call >= dies.into());
            let fate = life.fates.get(call as usize % life.fates.len().max(1)).copied();
            (fate.unwrap_or(Fate::Well), dies)
        };
        if dies {
            self.dead.lock().unwrap().notify_one();
            return std::future::pending().await;
        }
        match fate {
            Fate::Well => {}
            Fate::Later(turns) => {
                for _ in 0..turns {
                    tokio::task::yield_now().await;
                }
            }
            Fate::Fails => return Err(Error::new(Kind::Invalid, "reach it: a fault of the history")),
            Fate::Changes => {
                let mut state = self.state();
                state.generation += 1;
                fill(&mut state);
            }
        }
        Ok(())
    }

    /// Everything that no tag leads to is gone.
    fn collect(&self) {
        let mut state = self.state();
        for repository in state.destination.values_mut() {
            let mut wanted: Vec<String> = repository.tags.values().cloned().collect();
            let (mut manifests, mut blobs) = (BTreeSet::new(), BTreeSet::new());
            while let Some(digest) = wanted.pop() {
                if let Some((_, body)) = repository.manifests.get(&digest) {
                    let (layers, children) = named(body);
                    blobs.extend(layers);
                    wanted.extend(children);
                    manifests.insert(digest);
                }
            }
            repository.manifests.retain(|digest, _| manifests.contains(digest));
            repository.blobs.retain(|digest| blobs.contains(digest));
        }
    }
}

fn known(state: &State) -> BTreeSet<(String, String)> {
    let blobs = |(name, repository): (&String, &Repository)| {
        repository.blobs.iter().map(|blob| (name.clone(), blob.clone())).collect::<Vec<_>>()
    };
    state.destination.iter().flat_map(blobs).collect()
}

struct Way(Arc<Fake>);

fn side<'a>(state: &'a mut State, place: &Place) -> &'a mut BTreeMap<String, Repository> {
    if place.location == "source" { &mut state.source } else { &mut state.destination }
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
        };
        Box::pin(async { Ok(parsed) })
    }

    fn repositories<'a>(
        &'a self,
        _: &'a Arc<Place>,
        _: Option<String>,
    ) -> BoxFuture<'a, Result<Page<String>>> {
        Box::pin(async { Err(Error::new(Kind::Unsupported, "list them")) })
    }

    fn tags<'a>(
        &'a self,
        place: &'a Arc<Place>,
        repository: &'a str,
        _: Option<String>,
    ) -> BoxFuture<'a, Result<Page<String>>> {
        Box::pin(async move {
            self.0.fate().await?;
            let mut state = self.0.state();
            let tags = side(&mut state, place).get(repository).map(|repository| &repository.tags);
            match tags.filter(|tags| !tags.is_empty()) {
                Some(tags) => Ok(Page { items: tags.keys().cloned().collect(), next: None }),
                None => Err(Error::new(Kind::NotFound, "list its tags: there is no such repository")),
            }
        })
    }

    fn resolve<'a>(
        &'a self,
        place: &'a Arc<Place>,
        repository: &'a str,
        reference: Option<&'a str>,
        known: Option<&'a Digest>,
    ) -> BoxFuture<'a, Result<Found>> {
        Box::pin(async move {
            match self.fetch(place, repository, reference).await {
                Ok(held) => {
                    let digest = Digest::of(&held.body);
                    if known == Some(&digest) {
                        return Ok(Found::Same);
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
        place: &'a Arc<Place>,
        repository: &'a str,
        reference: Option<&'a str>,
    ) -> BoxFuture<'a, Result<Held>> {
        Box::pin(async move {
            self.0.fate().await?;
            let mut state = self.0.state();
            let found = side(&mut state, place).get(repository).and_then(|repository| {
                let reference = reference.unwrap();
                let digest = repository.tags.get(reference).map_or(reference, String::as_str);
                repository.manifests.get(digest).cloned()
            });
            let (media_type, body) =
                found.ok_or_else(|| Error::new(Kind::NotFound, "read it: there is no such manifest"))?;
            Ok(Held { media_type, body, signatures: Vec::new() })
        })
    }

    fn referrers<'a>(
        &'a self,
        _: &'a Arc<Place>,
        _: &'a str,
        _: &'a Digest,
        _: Option<String>,
    ) -> BoxFuture<'a, Result<Page<Descriptor>>> {
        Box::pin(async { Ok(Page { items: Vec::new(), next: None }) })
    }

    fn locate<'a>(
        &'a self,
        _: &'a Arc<Place>,
        _: &'a str,
        blob: &'a Descriptor,
    ) -> BoxFuture<'a, Result<Vec<Segment>>> {
        Box::pin(async move {
            self.0.fate().await?;
            let content = self.0.state().content.get(&blob.digest.to_string()).cloned().unwrap();
            Ok(vec![Segment::Inline(content.into())])
        })
    }

    fn able<'a>(&'a self, _: &'a Arc<Place>) -> BoxFuture<'a, Result<Abilities>> {
        Box::pin(async {
            Ok(Abilities {
                mount: true,
                sparse: None,
                shared: false,
                many: true,
                signatures: false,
                holds: None,
            })
        })
    }

    /// As a registry: a blob that may be there is asked for, one in another repository is mounted.
    fn store<'a>(
        &'a self,
        _: &'a Arc<Place>,
        repository: &'a str,
        incoming: &'a Incoming,
        _: Option<Vec<u8>>,
        last: Option<Outcome>,
    ) -> BoxFuture<'a, Result<Turn>> {
        Box::pin(async move {
            self.0.fate().await?;
            let digest = incoming.blob.digest.to_string();
            let mut state = self.0.state();
            let has = |state: &State, name: &str| {
                state.destination.get(name).is_some_and(|repository| repository.blobs.contains(&digest))
            };
            let here = has(&state, repository);
            let step = match last {
                Some(Outcome::Written) => {
                    state.destination.entry(repository.into()).or_default().blobs.insert(digest);
                    Step::Finished(Finish::Stored)
                }
                _ if here
                    && incoming.absent
                    && state.known.contains(&(repository.to_owned(), digest.clone())) =>
                {
                    state
                        .violations
                        .push(format!("{digest} is sent to {repository} again, where it is known to be"));
                    Step::Finished(Finish::Present)
                }
                _ if here => Step::Finished(Finish::Present),
                _ if incoming.siblings.iter().any(|sibling| has(&state, sibling)) => {
                    state.destination.entry(repository.into()).or_default().blobs.insert(digest);
                    Step::Finished(Finish::Mounted)
                }
                _ => Step::Write(format!("{repository}/{}", incoming.blob.digest.hex())),
            };
            Ok(Turn { step, state: Vec::new() })
        })
    }

    fn publish<'a>(
        &'a self,
        _: &'a Arc<Place>,
        repository: &'a str,
        manifest: &'a Manifest,
        naming: &'a Naming,
    ) -> BoxFuture<'a, Result<()>> {
        Box::pin(async move {
            self.0.fate().await?;
            let mut state = self.0.state();
            let there = state.destination.entry(repository.into()).or_default();
            let Descriptor { digest, media_type, .. } = &manifest.descriptor;
            let (blobs, children) = named(&manifest.body);
            let missing: Vec<String> = blobs
                .iter()
                .filter(|blob| !there.blobs.contains(*blob))
                .chain(children.iter().filter(|child| !there.manifests.contains_key(*child)))
                .cloned()
                .collect();
            if !missing.is_empty() {
                let violation = format!("{digest} is published in {repository} before {missing:?}");
                state.violations.push(violation);
                return Err(Error::new(Kind::Missing(missing), "publish it: something is missing"));
            }
            there.manifests.insert(digest.to_string(), (media_type.clone(), manifest.body.clone()));
            if let Naming::Tag(tag) = naming {
                there.tags.insert(tag.clone(), digest.to_string());
            }
            Ok(())
        })
    }

    fn conclude<'a>(&'a self, _: &'a Arc<Place>) -> BoxFuture<'a, Result<()>> {
        Box::pin(async { Ok(()) })
    }
}

struct OneWay(Arc<Way>);

impl Plugins for OneWay {
    fn transport<'a>(&'a self, _: &'a str) -> BoxFuture<'a, Result<Arc<dyn Transport>>> {
        let way: Arc<dyn Transport> = self.0.clone();
        Box::pin(async { Ok(way) })
    }

    fn filter<'a>(&'a self, _: &'a str, _: &'a serde_json::Value) -> BoxFuture<'a, Result<Arc<dyn Filter>>> {
        Box::pin(async { Err(Error::new(Kind::NotFound, "find it")) })
    }

    fn auth<'a>(
        &'a self,
        _: &'a str,
        _: &'a serde_json::Value,
    ) -> BoxFuture<'a, Result<Arc<dyn Credentials>>> {
        Box::pin(async { Err(Error::new(Kind::NotFound, "find it")) })
    }
}

struct Silent;

impl Observer for Silent {
    fn event(&self, _: Event<'_>) {}
}

const POLICY: &str = "version = 1\n[[rule]]\nname = \"all\"\nfrom = [\"fake:source/a\", \"fake:source/b\"]\nto = \"fake:destination/{name}\"\n";

/// One process's places and run, to its end.
async fn process(places: Arc<Places>) -> dray_core::Report {
    let policy = dray_core::policy::parse(POLICY).unwrap();
    let rules = bind(&policy, &places).await.unwrap_or_else(|_| panic!("the policy is right"));
    let (sender, receiver) = mpsc::channel(8);
    let planning = tokio::spawn(plan(rules, places, sender));
    let run = Run::new(Arc::new(Silent), RunOptions { keep_going: true, ..RunOptions::default() });
    let (_stop, stopped) = watch::channel(false);
    let report = run.carry_out(receiver, stopped).await;
    planning.abort();
    report
}

fn life() -> impl Strategy<Value = Life> {
    let fate = prop_oneof![
        6 => Just(Fate::Well),
        3 => (1..5u8).prop_map(Fate::Later),
        1 => Just(Fate::Fails),
        1 => Just(Fate::Changes),
    ];
    let fates = prop::collection::vec(fate, 1..24);
    (fates, prop::option::weighted(0.7, 0..90u8), any::<bool>(), prop::bool::weighted(0.3))
        .prop_map(|(fates, dies, two, collected)| Life { fates, dies, two, collected })
}

fn happens(client: &Client, base: &Path, lives: Vec<Life>) {
    // Each process has a runtime of its own: with it, all that it was doing ends.
    let runtime = || tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    let folder = tempfile::tempdir_in(base).unwrap();
    let fake = Arc::new(Fake { state: Mutex::default(), dead: Mutex::default() });
    fill(&mut fake.state());
    let places = || {
        let journal = LazyJournal::new(Some(folder.path().join("journal.db")));
        let local = Local { scratch: folder.path().into(), known: Default::default(), journal };
        let plugins = Arc::new(OneWay(Arc::new(Way(fake.clone()))));
        Places::new(plugins, client.clone(), folder.path(), local)
    };
    for life in lives {
        {
            let mut state = fake.state();
            state.calls = 0;
            state.life = Some(life.clone());
            state.known = known(&state);
        }
        let (one, other) = (places(), places());
        let dead = Arc::new(Notify::new());
        *fake.dead.lock().unwrap() = dead.clone();
        runtime().block_on(async {
            let both = async {
                match life.two {
                    true => drop(tokio::join!(process(one.clone()), process(other.clone()))),
                    false => drop(process(one.clone()).await),
                }
            };
            tokio::select! {
                () = both => {}
                () = dead.notified() => {}
            }
        });
        // A death gives what was learnt a tenth of a second; here it is all written.
        for places in [one, other] {
            if let Some(journal) = places.journal() {
                journal.flush();
            }
        }
        if life.collected {
            fake.collect();
        }
    }
    // The last one is left in peace.
    {
        let mut state = fake.state();
        state.life = None;
        state.known = known(&state);
    }
    let report = runtime().block_on(process(places()));
    assert_eq!(report.summary.failed, 0, "{report:?}");
    let again = runtime().block_on(process(places()));
    assert_eq!((again.summary.copied, again.summary.failed), (0, 0), "{again:?}");
    let state = fake.state();
    assert_eq!(state.violations, Vec::<String>::new());
    for (name, repository) in &state.source {
        assert_eq!(state.destination[name].tags, repository.tags, "{name}");
    }
}

#[test]
fn whatever_happens_nothing_is_lost_and_nothing_dangles() {
    let client = Client::new(Settings {
        registries: ["source", "destination"]
            .map(|name| (name.to_owned(), RegistrySettings::default()))
            .into(),
        ..Settings::default()
    });
    // Files there cost nothing to sync.
    let base = Path::new("/dev/shm");
    let base = if base.is_dir() { base.to_owned() } else { std::env::temp_dir() };
    let histories = std::env::var("DRAY_HISTORIES").ok().and_then(|text| text.parse().ok()).unwrap_or(10_000);
    let config = ProptestConfig { cases: histories, failure_persistence: None, ..ProptestConfig::default() };
    proptest!(config, |(lives in prop::collection::vec(life(), 0..4))| {
        happens(&client, &base, lives);
    });
}
