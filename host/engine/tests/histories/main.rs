//! Generated histories: faults, lost answers, reorderings, deaths at every await, two runs at once, a source that
//! changes and changes back, a destination that is garbage-collected in between or meanwhile, policies that change.
//! Whatever happens, nothing is published before what it names, and in the end the destination is as if nothing
//! had happened.
#![allow(clippy::unwrap_used, clippy::print_stdout, reason = "tests")]

mod registry;

use dray_engine::{
    DISK_WRITES, Error, Event, Kind, LazyJournal, Local, Places, Result, Run, RunOptions, Watcher, bind,
    contract::{Credentials, Dialect, Filter, KnownBy, Mapper, Observer, Plugins, Transport, Verifier},
    http::{Client, RegistrySettings, Settings},
    plan,
};
use futures_util::future::BoxFuture;
use proptest::{prelude::*, test_runner::RngSeed};
use registry::{Fake, Fate, Life, Victim, Way};
use std::{
    collections::hash_map::RandomState,
    fs,
    future::poll_fn,
    hash::BuildHasher,
    path::{Path, PathBuf},
    pin::pin,
    sync::Arc,
    task::Poll,
};
use tokio::{
    sync::{Notify, mpsc, watch},
    task::JoinSet,
};

struct OneWay(Arc<Way>);

impl Plugins for OneWay {
    fn dialect<'a>(&'a self, _: KnownBy<'a>) -> BoxFuture<'a, Result<Option<Arc<dyn Dialect>>>> {
        Box::pin(async { Ok(None) })
    }

    fn transport<'a>(&'a self, _: &'a str) -> BoxFuture<'a, Result<Arc<dyn Transport>>> {
        let way: Arc<dyn Transport> = self.0.clone();
        Box::pin(async { Ok(way) })
    }

    fn filter<'a>(&'a self, _: &'a str, _: &'a serde_json::Value) -> BoxFuture<'a, Result<Arc<dyn Filter>>> {
        Box::pin(async { Err(Error::new(Kind::NotFound, "find it")) })
    }

    fn mapper<'a>(&'a self, _: &'a str, _: &'a serde_json::Value) -> BoxFuture<'a, Result<Arc<dyn Mapper>>> {
        Box::pin(async { Err(Error::new(Kind::NotFound, "find it")) })
    }

    fn observer<'a>(
        &'a self,
        _: &'a str,
        _: &'a serde_json::Value,
    ) -> BoxFuture<'a, Result<Arc<dyn Observer>>> {
        Box::pin(async { Err(Error::new(Kind::NotFound, "find it")) })
    }

    fn verifier<'a>(
        &'a self,
        _: &'a str,
        _: &'a serde_json::Value,
    ) -> BoxFuture<'a, Result<Arc<dyn Verifier>>> {
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

impl Watcher for Silent {
    fn event(&self, _: Event<'_>) {}
}

/// What the rule of each policy says beside from where to where.
const POLICIES: [&str; 3] = ["", "referrers = true\n", "platforms = [\"linux/amd64\"]\nindex = \"trim\"\n"];

/// One process's places and run, to its end.
async fn process(places: Arc<Places>, policy: usize) -> dray_core::Report {
    let policy = format!(
        "version = 1\n[[rule]]\nname = \"all\"\nfrom = [\"fake:source/a\", \"fake:source/b\"]\nto = \"fake:destination/{{name}}\"\n{}",
        POLICIES[policy]
    );
    let policy = dray_core::policy::parse(&policy).unwrap();
    let rules = bind(&policy, &places).await.unwrap_or_else(|_| panic!("the policy is right"));
    let (sender, receiver) = mpsc::channel(8);
    // It ends with the process.
    let mut planning = JoinSet::new();
    planning.spawn(plan(rules, places, None, sender));
    let mut options = RunOptions::default();
    options.keep_going = true;
    let run = Run::new(Arc::new(Silent), options);
    let (_stop, stopped) = watch::channel(false);
    run.carry_out(receiver, stopped).await
}

/// A process until it dies, or comes to its end, or has been awaited so often. Whether it was that.
async fn mortal(places: Arc<Places>, policy: usize, dies: Arc<Notify>, mut awaits: Option<u16>) -> bool {
    let mut process = pin!(process(places, policy));
    let process = poll_fn(|context| {
        match &mut awaits {
            Some(0) => return Poll::Ready(true),
            Some(left) => *left -= 1,
            None => {}
        }
        process.as_mut().poll(context).map(|_| false)
    });
    tokio::select! {
        spent = process => spent,
        () = dies.notified() => false,
    }
}

fn life() -> impl Strategy<Value = Life> {
    let fate = prop_oneof![
        24 => Just(Fate::Well),
        12 => (1..5u8).prop_map(Fate::Later),
        3 => Just(Fate::Fails),
        2 => Just(Fate::Lost),
        2 => Just(Fate::Changes),
        2 => Just(Fate::GoesBack),
        1 => Just(Fate::Signs),
        1 => Just(Fate::Prunes),
        1 => Just(Fate::Collects),
    ];
    let fates = prop::collection::vec(fate, 1..24);
    let victim = prop_oneof![Just(Victim::First), Just(Victim::All)];
    let dies = prop::option::weighted(0.7, (0..90u8, victim, any::<bool>()));
    // Waiting is real.
    let falters = prop::option::weighted(0.02, 0..90u8);
    let awaits = prop::option::weighted(0.3, 0..120u16);
    (fates, falters, dies, awaits, any::<bool>(), prop::bool::weighted(0.3), 0..POLICIES.len()).prop_map(
        |(fates, falters, dies, awaits, two, collected, policy)| Life {
            fates,
            falters,
            dies,
            awaits,
            two,
            collected,
            policy,
        },
    )
}

/// What a process that is killed leaves of its journal: what it had written by then.
fn left(journal: &Path, to: PathBuf) -> PathBuf {
    fs::create_dir_all(&to).unwrap();
    // The log is never emptied in so short a life, so the database can be taken first.
    for name in ["journal.db", "journal.db-wal"] {
        let from = journal.with_file_name(name);
        if from.exists() {
            fs::copy(from, to.join(name)).unwrap();
        }
    }
    to.join("journal.db")
}

fn happens(client: &Client, base: &Path, lives: Vec<Life>, policy: usize) {
    // Each process has a runtime of its own: with it, all that it was doing ends.
    let runtime = || tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    let folder = tempfile::tempdir_in(base).unwrap();
    let fake = Fake::filled();
    let places = |journal: &Path, first| {
        let journal = LazyJournal::new(Some(journal.into()));
        let (scratch, known) = (folder.path().into(), Default::default());
        let (trust, registries) = Default::default();
        let local = Local {
            scratch,
            known,
            journal,
            disk_writes: DISK_WRITES,
            trust,
            registries,
            scan_reports: None,
        };
        let plugins = Arc::new(OneWay(Arc::new(Way { fake: fake.clone(), first })));
        Places::new(plugins, client.clone(), folder.path(), local)
    };
    let mut journal = folder.path().join("0/journal.db");
    let mut died = false;
    for (number, life) in lives.into_iter().enumerate() {
        fake.state().begins(Some(life.clone()), died.then_some(&*journal));
        let (one, other) = (places(&journal, true), places(&journal, false));
        let [first, all]: [Arc<Notify>; 2] = Default::default();
        *fake.deaths.lock().unwrap() = [first.clone(), all.clone()];
        died = runtime().block_on(async {
            let both = async {
                match life.two {
                    true => {
                        let one = mortal(one.clone(), life.policy, first, life.awaits);
                        drop(tokio::join!(one, process(other.clone(), life.policy)));
                        false
                    }
                    false => mortal(one.clone(), life.policy, first, life.awaits).await,
                }
            };
            tokio::select! {
                died = both => died,
                () = all.notified() => true,
            }
        });
        if died {
            journal = left(&journal, folder.path().join((number + 1).to_string()));
        }
        // The end of the process: what it has learnt is written.
        drop((one, other));
        if life.collected {
            fake.collect();
        }
    }
    // The last one is left in peace.
    fake.state().begins(None, died.then_some(&*journal));
    let peacefully = |journal: &Path| runtime().block_on(process(places(journal, true), policy));
    let report = peacefully(&journal);
    assert_eq!(report.summary.failed, 0, "{report:?}");
    let again = peacefully(&journal);
    assert_eq!((again.summary.copied, again.summary.failed), (0, 0), "{again:?}");
    // As if nothing had happened.
    let referrers = POLICIES[policy].contains("referrers");
    let reached = || -> Vec<_> {
        let state = fake.state();
        state.destination.iter().map(|(name, there)| (name.clone(), there.reachable(referrers))).collect()
    };
    let disturbed = reached();
    fake.state().destination.clear();
    assert_eq!(peacefully(&folder.path().join("calm/journal.db")).summary.failed, 0);
    for ((name, disturbed), (_, calm)) in disturbed.iter().zip(reached()) {
        assert_eq!(disturbed.tags, calm.tags, "{name}");
        let missing = calm
            .blobs
            .difference(&disturbed.blobs)
            .chain(calm.manifests.keys().filter(|digest| !disturbed.manifests.contains_key(*digest)));
        assert_eq!(missing.count(), 0, "{name}: parts of its images are missing");
    }
    assert_eq!(fake.state().violations, Vec::<String>::new());
}

/// Whatever happens, nothing is lost and nothing dangles.
fn all_is_well(assume_unchanged: bool) {
    let settings = |name: &str| {
        let assume_unchanged = assume_unchanged && name == "destination";
        (name.to_owned(), RegistrySettings { assume_unchanged, ..RegistrySettings::default() })
    };
    let client = Client::new(Settings {
        registries: ["source", "destination", "source.invalid", "destination.invalid"].map(settings).into(),
        ..Settings::default()
    });
    // Files there cost nothing to sync.
    let base = Path::new("/dev/shm");
    let base = if base.is_dir() { base.to_owned() } else { std::env::temp_dir() };
    let histories = std::env::var("DRAY_HISTORIES").ok().and_then(|text| text.parse().ok()).unwrap_or(5_000);
    let seed = std::env::var("DRAY_SEED").ok().and_then(|text| text.parse().ok());
    let seed = seed.unwrap_or_else(|| RandomState::new().hash_one(0));
    // Told with a failure.
    println!("DRAY_SEED={seed}");
    let config = ProptestConfig {
        cases: histories,
        failure_persistence: None,
        rng_seed: RngSeed::Fixed(seed),
        ..ProptestConfig::default()
    };
    proptest!(config, |(lives in prop::collection::vec(life(), 1..4), policy in 0..POLICIES.len())| {
        happens(&client, &base, lives, policy);
    });
}

#[test]
fn a_destination_that_is_asked_ends_as_it_should() {
    all_is_well(false);
}

#[test]
fn a_destination_that_is_taken_to_be_unchanged_ends_as_it_should() {
    all_is_well(true);
}
