//! Syncs between real registries over a wire that fails, by processes that are killed: whatever happens, the
//! destination ends as the source is.
#![allow(clippy::unwrap_used, clippy::print_stderr, reason = "a test")]

mod support;

use std::{
    collections::{BTreeMap, HashMap},
    fs,
    io::Write,
    net::{Shutdown, TcpStream},
    path::{Path, PathBuf},
    process::Stdio,
    sync::{
        Arc, Mutex,
        atomic::{AtomicBool, AtomicUsize, Ordering::SeqCst},
    },
    time::Duration,
};
use support::{Fake, Registry, Running, World, answer, has, respond, until};

/// A small generator of numbers below a bound.
struct Random(u64);

impl Random {
    fn below(&mut self, bound: u64) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        self.0 % bound
    }
}

/// What a wire does to requests, and how often each blob was taken by the registry and that was heard of.
#[derive(Clone)]
struct Fate {
    random: Arc<Mutex<Random>>,
    fails: Arc<AtomicBool>,
    /// Requests that are being answered, also for clients that have died.
    busy: Arc<AtomicUsize>,
    stored: Arc<Mutex<HashMap<String, usize>>>,
}

/// Counts a request as long as it is being answered.
struct Busy(Arc<AtomicUsize>);

impl Busy {
    fn new(count: &Arc<AtomicUsize>) -> Self {
        count.fetch_add(1, SeqCst);
        Busy(count.clone())
    }
}

impl Drop for Busy {
    fn drop(&mut self) {
        self.0.fetch_sub(1, SeqCst);
    }
}

/// A wire to a registry.
fn wire(registry: &str, fate: &Fate) -> Fake {
    let (registry, fate) = (registry.to_owned(), fate.clone());
    Fake::start_raw(move |request, body, stream| {
        let line = request.lines().next().unwrap().to_owned();
        let _busy = Busy::new(&fate.busy);
        let chance = if fate.fails.load(SeqCst) { fate.random.lock().unwrap().below(100) } else { 99 };
        let broken = |stream: &TcpStream| drop(stream.shutdown(Shutdown::Both));
        match chance {
            0..4 => return respond(stream, "500 Internal Server Error", "", b""),
            4..7 => return respond(stream, "429 Too Many Requests", "Retry-After: 0\r\n", b""),
            7..10 => return broken(stream),
            _ => {}
        }
        let answer = answer(&registry, &registry, request, body);
        match chance {
            // It is done, and nobody hears of it.
            10..13 => return broken(stream),
            // Nor of all of it.
            13..16 => {
                let _ = stream.write_all(&answer[..answer.len() / 2]);
                return broken(stream);
            }
            _ => {}
        }
        if line.starts_with("PUT ") && line.contains("/blobs/uploads/") && answer.starts_with(b"HTTP/1.1 201")
        {
            let (repository, digest) = (line.split("/blobs/").next().unwrap(), line.split("digest=").nth(1));
            *fate.stored.lock().unwrap().entry(format!("{repository} {}", digest.unwrap())).or_default() += 1;
        }
        let _ = stream.write_all(&answer);
    })
}

/// What a registry keeps but for uploads that were given up: links with what they name, blobs with their sizes.
fn kept(root: &Path) -> BTreeMap<PathBuf, String> {
    let (mut kept, mut folders) = (BTreeMap::new(), vec![root.to_owned()]);
    while let Some(folder) = folders.pop() {
        for entry in fs::read_dir(folder).unwrap() {
            let path = entry.unwrap().path();
            if path.is_dir() {
                if !path.ends_with("_uploads") {
                    folders.push(path);
                }
                continue;
            }
            let content = match path.ends_with("link") {
                true => fs::read_to_string(&path).unwrap(),
                false => fs::metadata(&path).unwrap().len().to_string(),
            };
            kept.insert(path.strip_prefix(root).unwrap().to_owned(), content);
        }
    }
    kept
}

#[test]
fn a_wire_that_fails_and_processes_that_die_lose_nothing() {
    if !has("docker-registry") {
        return;
    }
    let world = World::new();
    let images = concat!("oci:", env!("CARGO_MANIFEST_DIR"), "/../../examples/images");
    let source = Registry::start(&world, "source", "");
    for name in ["one", "two", "three"] {
        let fill = format!(
            "version = 1\n[[rule]]\nname = \"fill\"\nfrom = \"{images}\"\nto = \"docker://{}/{name}\"\ntags = [\"1.0.0\", \"1.2.0\", \"2.0.0\", \"nightly\"]\n",
            source.host
        );
        world.write("fill.toml", &fill);
        world.dray(&["sync", "fill.toml"]).ok();
    }
    let expected = kept(&world.path("source"));
    for seed in 1..=12 {
        let world = World::new();
        let destination = Registry::start(&world, "destination", "");
        let fate = Fate {
            random: Arc::new(Mutex::new(Random(0x9E37_79B9_7F4A_7C15u64.wrapping_mul(seed)))),
            fails: Arc::new(true.into()),
            busy: Arc::default(),
            stored: Arc::default(),
        };
        let (from, to) = (wire(&source.host, &fate), wire(&destination.host, &fate));
        let rules = ["one", "two", "three"].map(|name| {
            let (from, to) = (&from.host, &to.host);
            format!("[[rule]]\nname = \"{name}\"\nfrom = \"docker://{from}/{name}\"\nto = \"docker://{to}/{name}\"\n")
        });
        let assume = if seed % 2 == 0 {
            format!("[registry.\"{}\"]\nassume-unchanged = true\n", to.host)
        } else {
            String::new()
        };
        world.write("policy.toml", &format!("version = 1\n{assume}{}", rules.concat()));
        let lives: Vec<u64> = {
            let mut random = fate.random.lock().unwrap();
            (0..random.below(4)).map(|_| random.below(1500)).collect()
        };
        for milliseconds in lives {
            let mut sync = world.command(&["sync", "--keep-going", "policy.toml"]);
            let life = Running(sync.stdout(Stdio::null()).stderr(Stdio::null()).spawn().unwrap());
            std::thread::sleep(Duration::from_millis(milliseconds));
            drop(life);
        }
        // What a dead process had asked for may still be stored.
        until("the last answer to a dead process", || fate.busy.load(SeqCst) == 0);
        // One that nobody kills gets through by itself, as often as each request is tried again.
        fate.stored.lock().unwrap().clear();
        world.dray(&["sync", "policy.toml"]).ok();
        let twice: Vec<_> =
            fate.stored.lock().unwrap().clone().into_iter().filter(|(_, times)| *times > 1).collect();
        assert!(twice.is_empty(), "seed {seed}: {twice:?}");
        fate.fails.store(false, SeqCst);
        let again = world.dray(&["sync", "policy.toml"]).ok();
        assert!(again.out.contains("0 images copied, 12 unchanged"), "seed {seed}: {}", again.out);
        assert!(kept(&world.path("destination")) == expected, "seed {seed}: the destination differs");
    }
}
