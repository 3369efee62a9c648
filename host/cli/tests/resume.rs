//! Runs that were killed, and those that go on after them.
#![allow(clippy::unwrap_used, clippy::print_stderr, reason = "tests")]

mod support;

use serde_json::{Value, json};
use std::{
    fs,
    io::{Read, Write},
    net::{TcpListener, TcpStream},
    sync::{
        Arc, Mutex,
        atomic::{AtomicUsize, Ordering::SeqCst},
    },
    time::{Duration, Instant},
};
use support::{Fake, Killed, Ran, Registry, World, count, free_port, has, kept, respond, until};

/// A layout `big` whose layers have so many bytes.
fn big(world: &World, layers: &[usize]) {
    let mut random = 88_172_645_463_325_252u64;
    fs::create_dir_all(world.path("big/blobs/sha256")).unwrap();
    let blob = |media_type: &str, content: &[u8]| {
        let digest = dray_core::Digest::of(content);
        fs::write(world.path("big/blobs/sha256").join(digest.hex()), content).unwrap();
        json!({ "mediaType": media_type, "digest": digest.to_string(), "size": content.len() })
    };
    let layers = layers.iter().map(|bytes| {
        let mut layer = vec![0u8; *bytes];
        for word in layer.chunks_exact_mut(8) {
            random ^= random << 13;
            random ^= random >> 7;
            random ^= random << 17;
            word.copy_from_slice(&random.to_le_bytes());
        }
        blob("application/vnd.oci.image.layer.v1.tar", &layer)
    });
    let layers: Vec<_> = layers.collect();
    let manifest = json!({
        "schemaVersion": 2,
        "mediaType": "application/vnd.oci.image.manifest.v1+json",
        "config": blob("application/vnd.oci.image.config.v1+json", b"{}"),
        "layers": layers,
    });
    let mut entry = blob("application/vnd.oci.image.manifest.v1+json", manifest.to_string().as_bytes());
    entry["annotations"] = json!({ "org.opencontainers.image.ref.name": "1" });
    fs::write(world.path("big/oci-layout"), "{\"imageLayoutVersion\":\"1.0.0\"}").unwrap();
    fs::write(world.path("big/index.json"), json!({ "schemaVersion": 2, "manifests": [entry] }).to_string())
        .unwrap();
}

/// A registry with such an image as `big:1`.
fn filled(world: &World, layers: &[usize]) -> Registry {
    big(world, layers);
    let source = Registry::start(world, "source", "");
    world.dray(&["copy", "oci:big:1", &format!("docker://{}/big:1", source.host)]).ok();
    source
}

fn policy(world: &World, source: &str, destination: &str, bandwidth: &str) -> String {
    let text = format!(
        "version = 1\n[registry.\"{destination}\"]\n{bandwidth}\n[[rule]]\nname = \"big\"\nfrom = \"{source}\"\nto = \"docker://{destination}/big\"\n"
    );
    world.write("policy.toml", &text);
    "policy.toml".into()
}

fn destination_log(world: &World) -> String {
    fs::read_to_string(world.path("destination.log")).unwrap()
}

/// A wire to a registry that lets so many chunks through and holds the next one back, so that a
/// process can be killed between two of them.
struct Wire {
    address: String,
    left: Arc<AtomicUsize>,
}

impl Wire {
    fn to(registry: &str, chunks: usize) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap().to_string();
        let left = Arc::new(AtomicUsize::new(chunks));
        let (allowed, registry) = (left.clone(), registry.to_owned());
        std::thread::spawn(move || {
            for client in listener.incoming() {
                let (client, server) = (client.unwrap(), TcpStream::connect(&registry).unwrap());
                let (mut answers, mut back) = (server.try_clone().unwrap(), client.try_clone().unwrap());
                std::thread::spawn(move || std::io::copy(&mut answers, &mut back));
                let allowed = allowed.clone();
                std::thread::spawn(move || forward(client, server, &allowed));
            }
        });
        Wire { address, left }
    }
}

fn forward(mut client: TcpStream, mut server: TcpStream, allowed: &AtomicUsize) {
    let mut buffer = vec![0; 1 << 20];
    loop {
        let read = client.read(&mut buffer).unwrap_or(0);
        if read == 0 {
            return;
        }
        // A request begins where a client begins to write.
        let may_pass = || allowed.fetch_update(SeqCst, SeqCst, |left| left.checked_sub(1)).is_ok();
        if buffer.starts_with(b"PATCH ") && !may_pass() {
            // It waits until the client is dead, of which the registry then sees the end alone.
            while client.read(&mut buffer).unwrap_or(0) > 0 {
                std::thread::sleep(Duration::from_millis(50));
            }
            return;
        }
        if server.write_all(&buffer[..read]).is_err() {
            return;
        }
    }
}

/// The registry that dray serves itself, and its address.
fn embedded(world: &World) -> (Killed, String) {
    let address = format!("127.0.0.1:{}", free_port());
    let registry =
        Killed::start(world.command(&["registry", "serve", "--root", "mirror", "--addr", &address]));
    until("the registry", || TcpStream::connect(&address).is_ok());
    (registry, address)
}

const LAYER: usize = 300 << 20;

#[test]
fn a_dead_process_is_followed_by_one_that_goes_on_at_the_next_chunk() {
    if !has("docker-registry") {
        return;
    }
    let world = World::new();
    let source = filled(&world, &[LAYER]);
    let destination = Registry::start(&world, "destination", "");
    source.requests();
    let from = format!("docker://{}/big", source.host);
    let wire = Wire::to(&destination.host, 2);
    let sync = policy(&world, &from, &wire.address, "");
    let killed = Killed::start(world.command(&["sync", &sync]));
    until("the end of two chunks", || {
        destination_log(&world).matches("\"PATCH ").count() == 2 && kept(&world)["uploads"] == 1
    });
    // What was learnt is written within a tenth of a second.
    std::thread::sleep(Duration::from_millis(300));
    drop(killed);
    let before = destination.requests();
    assert_eq!(count(&before, "PATCH "), 2, "{before:?}");
    source.requests();

    wire.left.store(usize::MAX, SeqCst);
    let again = world.dray(&["sync", &sync]).ok();
    assert!(again.out.contains("1 image copied"), "{}", again.out);
    let after = destination.requests();
    // The upload that was begun is asked for, and none is begun for the layer; the config was there.
    assert_eq!(count(&after, "GET /v2/big/blobs/uploads/"), 1, "{after:?}");
    assert_eq!(count(&after, "POST "), 0, "{after:?}");
    // 300 MiB are a small piece and a chunk of 64 MiB in the first process, a small piece and three chunks in the second
    // one, and a rest, which the closing PUT carries: a process begins with a small piece to learn how fast the line is.
    assert_eq!(count(&after, "PATCH "), 4, "{after:?}");
    let ranges = source.requests();
    assert!(
        ranges.iter().any(|request| request.contains("/blobs/") && request.ends_with(" 206")),
        "{ranges:?}"
    );
    assert!(
        !ranges.iter().any(|request| request.contains("/blobs/") && request.ends_with(" 200")),
        "{ranges:?}"
    );
    assert_eq!(kept(&world)["uploads"], 0);
    world.dray(&["copy", &format!("docker://{}/big:1", destination.host), "oci:back:1"]).ok();

    // What happened is on record: one broken off, one to its end.
    let runs = world.dray(&["runs", "--output", "json"]).ok().json();
    let runs: Vec<_> = runs.as_array().unwrap().iter().filter(|run| run["command"] == "sync").collect();
    assert!(runs[0]["summary"]["copied"] == 1 && runs[1].get("ended").is_none(), "{runs:?}");
    let listed = world.dray(&["runs"]).ok().out;
    assert!(listed.contains("broken off") && listed.contains("1 image copied"), "{listed}");
    let number = runs[0]["id"].to_string();
    let shown = world.dray(&["runs", "show", &number]).ok().out;
    assert!(shown.contains(&format!("docker://{}/big:1", wire.address)), "{shown}");
    let none = world.dray(&["runs", "show", "999"]);
    assert!(none.code == 2 && none.err.contains("none of this number"), "{}", none.err);
}

#[test]
fn blobs_that_take_turns_are_read_on_and_not_again() {
    if !has("docker-registry") {
        return;
    }
    let world = World::new();
    // One upload at a time: the two layers' pieces alternate.
    let source = filled(&world, &[LAYER, LAYER]);
    let destination = Registry::start(&world, "destination", "");
    source.requests();
    let sync = policy(&world, &format!("docker://{}/big", source.host), &destination.host, "concurrency = 1");
    world.dray(&["sync", &sync]).ok();
    let reads: Vec<_> = source.requests().into_iter().filter(|request| request.contains("/blobs/")).collect();
    // The config and each layer from its beginning once; a layer that had to wait goes on by Range.
    assert_eq!(reads.iter().filter(|request| request.ends_with(" 200")).count(), 3, "{reads:?}");
    assert!(reads.iter().any(|request| request.ends_with(" 206")), "{reads:?}");

    // A source that knows no Range keeps its answers open.
    let plain = serving_big(&world, |content, _, stream| respond(stream, "200 OK", "", content));
    let destination = Registry::start(&world, "other", "");
    let sync = policy(&world, &format!("docker://{}/big", plain.host), &destination.host, "concurrency = 1");
    world.dray(&["sync", &sync]).ok();
    let reads = plain.requests();
    assert_eq!(count(&reads, "GET /v2/big/blobs/"), 3, "{reads:?}");
}

/// Where the bytes begin that a request asks for.
fn asked_from(request: &str) -> usize {
    let range = request.to_lowercase();
    let from = range.lines().find_map(|line| line.strip_prefix("range: bytes=").map(str::to_owned));
    from.map_or(0, |from| from.trim_end_matches('-').parse().unwrap())
}

/// What `answer` does with a blob of the layout `big`, and the rest as a registry answers it.
fn serving_big(world: &World, answer: impl Fn(&[u8], usize, &mut TcpStream) + Send + Sync + 'static) -> Fake {
    let blobs = world.path("big/blobs/sha256");
    let index: Value = serde_json::from_slice(&fs::read(world.path("big/index.json")).unwrap()).unwrap();
    let top = index["manifests"][0]["digest"].as_str().unwrap().trim_start_matches("sha256:").to_owned();
    Fake::start(move |request, stream| {
        let path = request.split(' ').nth(1).unwrap();
        if path.contains("/tags/list") {
            return respond(stream, "200 OK", "", br#"{"name":"big","tags":["1"]}"#);
        }
        let name = path.rsplit_once("sha256:").map_or(top.as_str(), |(_, digest)| digest);
        let content = fs::read(blobs.join(name)).unwrap();
        match path.contains("/blobs/") {
            true => answer(&content, asked_from(request), stream),
            false => {
                respond(
                    stream,
                    "200 OK",
                    "Content-Type: application/vnd.oci.image.manifest.v1+json\r\n",
                    &content,
                );
            }
        }
    })
}

/// Writes the head of an answer with a blob from some byte on, and so much of it.
fn part(stream: &mut TcpStream, content: &[u8], from: usize, length: usize) {
    let (status, range) = match from {
        0 => ("200 OK", String::new()),
        _ => (
            "206 Partial Content",
            format!("Content-Range: bytes {from}-{}/{}\r\n", content.len() - 1, content.len()),
        ),
    };
    let left = content.len() - from;
    let head = format!("HTTP/1.1 {status}\r\nAccept-Ranges: bytes\r\n{range}Content-Length: {left}\r\n\r\n");
    // A client that went away has let go of it.
    let _ = stream
        .write_all(head.as_bytes())
        .and_then(|()| stream.write_all(&content[from..from + length.min(left)]));
}

/// A policy that copies an image to files.
fn download(world: &World, source: &str, bandwidth: &str, to: &str) -> String {
    let text = format!(
        "version = 1\n[registry.\"{source}\"]\n{bandwidth}\n[[rule]]\nname = \"big\"\nfrom = \"docker://{source}/big\"\nto = \"{to}\"\n"
    );
    world.write("download.toml", &text);
    "download.toml".into()
}

/// Bytes that a dead process left of what it was writing to a file, which may have holes.
fn left(world: &World, part: &str) -> u64 {
    use std::os::unix::fs::MetadataExt;
    fs::metadata(world.path(part)).map_or(0, |there| there.size().min(there.blocks() * 512))
}

#[test]
fn a_download_to_a_folder_goes_on_in_the_next_process() {
    if !has("docker-registry") || !has("skopeo") {
        return;
    }
    let world = World::new();
    const LAYER: usize = 48 << 20;
    let source = filled(&world, &[LAYER]);
    let image: Value = world.dray(&["inspect", "--raw", "oci:big:1"]).ok().json();
    let layer = image["layers"][0]["digest"].as_str().unwrap();
    let part = format!("mirror/blobs/sha256/.dray-{}.part", layer.trim_start_matches("sha256:"));
    let write = |bandwidth| download(&world, &source.host, bandwidth, "oci:mirror");
    let killed = Killed::start(world.command(&["sync", &write("bandwidth = \"20MB/s\"")]));
    until("a part", || left(&world, &part) > 20 << 20);
    drop(killed);
    let there = left(&world, &part);
    assert!(there > 20 << 20 && there < LAYER as u64, "{there}");
    source.requests();

    let policy = write("");
    let again = world.dray(&["sync", "--output", "json", &policy]).ok();
    let report = again.json();
    assert_eq!(report["summary"]["copied"], 1);
    // Exactly what was missing was read, by Range.
    assert_eq!(report["summary"]["bytes"].as_u64().unwrap(), LAYER as u64 - there);
    let asked = source.requests();
    let reads: Vec<_> = asked.iter().filter(|request| request.contains(layer)).collect();
    assert!(reads.len() == 1 && reads[0].ends_with(" 206"), "{asked:?}");
    world.tool("skopeo", &["copy", "--quiet", "oci:mirror:1", "dir:verified"]);
    let blobs = world.tool("ls", &["-A", "mirror/blobs/sha256"]);
    assert!(blobs.lines().count() == 3 && !blobs.contains(".dray"), "{blobs}");

    // A part that is wrong is noticed, and read anew.
    fs::remove_dir_all(world.path("mirror")).unwrap();
    fs::create_dir_all(world.path("mirror/blobs/sha256")).unwrap();
    fs::write(world.path(&part), vec![7; 30 << 20]).unwrap();
    let again = world.dray(&["sync", "--output", "json", &policy]).ok();
    assert_eq!(again.json()["summary"]["bytes"].as_u64().unwrap(), LAYER as u64 + 2);
    assert!(again.err.contains("begins anew"), "{}", again.err);
    world.tool("skopeo", &["copy", "--quiet", "oci:mirror:1", "dir:verified-again"]);
    assert_eq!(world.tool("ls", &["-A", "mirror/blobs/sha256"]).lines().count(), 3);
}

#[test]
fn what_was_sent_until_a_stop_is_told_and_not_sent_again() {
    if !has("docker-registry") {
        return;
    }
    let world = World::new();
    const LAYER: usize = 48 << 20;
    let source = filled(&world, &[LAYER]);
    let sync = download(&world, &source.host, "bandwidth = \"4MB/s\"", "oci:mirror");
    let mut stopped = Killed::start(world.command(&["sync", &sync]));
    let there =
        || world.tool("du", &["-sb", "mirror/blobs"]).split('\t').next().unwrap().parse::<u64>().unwrap();
    until("a part", || world.path("mirror/blobs").exists() && there() > 10 << 20);
    world.tool("kill", &["-INT", &stopped.0.id().to_string()]);
    assert_eq!(stopped.0.wait().unwrap().code(), Some(130));
    let sent = |world: &World| {
        world.dray(&["runs", "--output", "json"]).ok().json()[0]["summary"]["bytes"].as_u64().unwrap()
    };
    let before = sent(&world);
    assert!(before > 9 << 20 && before < LAYER as u64, "{before}");
    world.dray(&["sync", &download(&world, &source.host, "", "oci:mirror")]).ok();
    // What was on its way to the disk when it stopped is sent again.
    let all = before + sent(&world);
    assert!(all >= LAYER as u64 + 2 && all < (LAYER + (4 << 20)) as u64, "{all}");
}

#[test]
fn a_download_to_an_archive_goes_on_in_the_next_process() {
    if !has("docker-registry") || !has("skopeo") {
        return;
    }
    let world = World::new();
    let source = filled(&world, &[40 << 20, 24 << 20, 4 << 20]);
    let write = |bandwidth, archive| download(&world, &source.host, bandwidth, archive);
    world.dray(&["sync", &write("", "oci-archive:calm.tar")]).ok();
    let slow = write("bandwidth = \"20MB/s\"", "oci-archive:image.tar");
    let killed = Killed::start(world.command(&["sync", &slow]));
    until("a part", || left(&world, ".dray-image.tar.part") > 40 << 20);
    drop(killed);
    source.requests();
    assert!(!world.path("image.tar").exists());

    let fast = write("", "oci-archive:image.tar");
    let report = world.dray(&["sync", "--output", "json", &fast]).ok().json();
    let sent = report["summary"]["bytes"].as_u64().unwrap();
    // Of each of what was on its way, up to four mebibytes are read again.
    assert!(sent < (28 + 12) << 20, "{report}");
    let asked = source.requests();
    let image: Value = world.dray(&["inspect", "--raw", "oci:big:1"]).ok().json();
    let largest = image["layers"][0]["digest"].as_str().unwrap();
    let reads: Vec<_> = asked.iter().filter(|request| request.contains(largest)).collect();
    assert!(reads.len() == 1 && reads[0].ends_with(" 206"), "{asked:?}");
    world.tool("skopeo", &["copy", "--quiet", "oci-archive:image.tar:1", "dir:verified"]);
    assert!(!world.path(".dray-image.tar.part").exists());
    let size = |name: &str| fs::metadata(world.path(name)).unwrap().len();
    assert_eq!(size("image.tar"), size("calm.tar"));
}

#[test]
fn a_source_of_one_answer_at_a_time_is_not_kept_by_who_waits() {
    if !has("docker-registry") {
        return;
    }
    let world = World::new();
    big(&world, &[LAYER, LAYER]);
    // It answers nobody else while anybody has not read its answer to the end.
    let busy = Mutex::new(());
    let source = serving_big(&world, move |content, from, stream| {
        let _one = busy.lock().unwrap();
        part(stream, content, from, content.len());
    });
    let destination = Registry::start(&world, "destination", "");
    let sync = policy(&world, &format!("docker://{}/big", source.host), &destination.host, "concurrency = 1");
    let sync = ["40", env!("CARGO_BIN_EXE_dray"), "sync", &sync];
    assert!(Ran::of(world.hermetic("timeout").args(sync)).ok().out.contains("1 image copied"));
}

#[test]
fn a_source_that_is_away_for_seconds_costs_no_byte_twice() {
    if !has("docker-registry") {
        return;
    }
    let world = World::new();
    big(&world, &[40 << 20]);
    // After ten megabytes it is away for two seconds, each time.
    let away = Mutex::new(None::<Instant>);
    let source = serving_big(&world, move |content, from, stream| {
        let until = *away.lock().unwrap();
        if until.is_some_and(|until| Instant::now() < until) {
            return respond(stream, "503 Service Unavailable", "", b"");
        }
        part(stream, content, from, 10 << 20);
        if content.len() - from > 10 << 20 {
            *away.lock().unwrap() = Some(Instant::now() + Duration::from_secs(2));
            let _ = stream.shutdown(std::net::Shutdown::Both);
        }
    });
    let destination = Registry::start(&world, "destination", "");
    let sync = policy(&world, &format!("docker://{}/big", source.host), &destination.host, "");
    let report = world.dray(&["sync", "--output", "json", &sync]).ok().json();
    assert_eq!(report["summary"]["copied"], 1);
    // One POST and one PUT for each of two blobs: the layer was sent once, in a first piece and its rest.
    let asked = destination.requests();
    assert_eq!(
        (count(&asked, "POST "), count(&asked, "PUT /v2/big/blobs/"), count(&asked, "PATCH ")),
        (2, 2, 1),
        "{asked:?}"
    );
}

#[test]
fn a_registry_that_takes_a_chunk_for_the_whole_gets_the_whole() {
    let world = World::new();
    big(&world, &[LAYER]);
    // It answers as Amazon's does, and keeps what each PUT brought.
    let brought = Arc::new(AtomicUsize::new(0));
    let most = brought.clone();
    let registry = Fake::start_raw(move |request, body, stream| {
        let line = request.lines().next().unwrap();
        match line.split(' ').next().unwrap() {
            "POST" => respond(stream, "202 Accepted", "Location: /v2/big/blobs/uploads/1\r\n", b""),
            "PATCH" => respond(stream, "201 Created", "Location: /v2/big/blobs/uploads/1\r\n", b""),
            "PUT" => {
                most.fetch_max(body.len(), SeqCst);
                respond(stream, "201 Created", "", b"");
            }
            _ => respond(stream, "404 Not Found", "", b""),
        }
    });
    let report = world.dray(&[
        "sync",
        "--output",
        "json",
        &policy(&world, "oci:big", &registry.host, "tls = \"off\""),
    ]);
    assert_eq!(report.ok().json()["summary"]["copied"], 1);
    assert_eq!(brought.load(SeqCst), LAYER);
    assert_eq!(count(&registry.requests(), "PATCH "), 1);
}

#[test]
fn an_answer_before_the_end_of_a_blob_is_not_believed_but_looked_into() {
    let world = World::new();
    big(&world, &[40 << 20]);
    for there in [true, false] {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let host = listener.local_addr().unwrap().to_string();
        let asked = Arc::new(Mutex::new(Vec::new()));
        let heard = asked.clone();
        // It says that it has a blob as soon as it hears of it.
        std::thread::spawn(move || {
            for mut stream in listener.incoming().flatten() {
                let heard = heard.clone();
                std::thread::spawn(move || {
                    let mut head = [0; 4096];
                    while let Ok(read @ 1..) = stream.read(&mut head) {
                        let line = String::from_utf8_lossy(&head[..read]).lines().next().unwrap().to_owned();
                        let blob = line.contains("/blobs/sha256");
                        let manifest = line.starts_with("PUT") && line.contains("/manifests/");
                        let had = there
                            && heard.lock().unwrap().iter().any(|line: &String| line.contains("digest="));
                        heard.lock().unwrap().push(line.clone());
                        match line.split(' ').next().unwrap() {
                            "POST" => respond(
                                &mut stream,
                                "202 Accepted",
                                "Location: /v2/big/blobs/uploads/1\r\n",
                                b"",
                            ),
                            "PUT" if manifest => respond(&mut stream, "201 Created", "", b""),
                            "PUT" => {
                                respond(&mut stream, "201 Created", "Connection: close\r\n", b"");
                                // What comes meanwhile goes nowhere.
                                std::thread::sleep(Duration::from_millis(500));
                                return;
                            }
                            "HEAD" if blob && had => respond(&mut stream, "200 OK", "", b""),
                            _ => respond(&mut stream, "404 Not Found", "", b""),
                        }
                    }
                });
            }
        });
        let ran =
            world.dray(&["sync", "--output", "json", &policy(&world, "oci:big", &host, "tls = \"off\"")]);
        let asked = asked.lock().unwrap().clone();
        let report = ran.json();
        assert_eq!(report["summary"]["copied"], u64::from(there), "{report} {asked:?}");
        if !there {
            assert!(ran.code != 0 && report.to_string().contains("taken to be there after"), "{report}");
        }
    }
}

#[test]
fn an_upload_of_a_process_that_lives_is_its_own_and_a_damaged_record_is_not_believed() {
    let world = World::new();
    big(&world, &[LAYER]);
    let (_registry, address) = embedded(&world);
    let slow = policy(&world, "oci:big", &address, "bandwidth = \"60MB/s\"");
    let mut first = Killed::start(world.command(&["sync", &slow]));
    until("a recorded chunk", || kept(&world)["uploads"] == 1);
    // Another one does all of it itself, and disturbs nobody.
    let fast = policy(&world, "oci:big", &address, "");
    // Of one policy there is one run at a time.
    fs::copy(world.path(&fast), world.path("fast.toml")).unwrap();
    let report = world.dray(&["sync", "--output", "json", "fast.toml"]).ok().json();
    assert!(report["summary"]["bytes"].as_u64().unwrap() >= LAYER as u64, "{report}");
    assert!(first.0.wait().unwrap().success());

    // A record that was damaged: what goes on from it is not what its digest says, and begins anew.
    fs::remove_dir_all(world.path("mirror/docker/registry/v2")).unwrap();
    fs::remove_dir_all(world.path("home/.local/state/dray")).unwrap();
    let slow = policy(&world, "oci:big", &address, "bandwidth = \"60MB/s\"");
    let second = Killed::start(world.command(&["sync", &slow]));
    until("a recorded chunk", || kept(&world)["uploads"] == 1);
    drop(second);
    let journal = world.path("home/.local/state/dray/journal.db");
    let journal = rusqlite::Connection::open(journal).unwrap();
    let record: Vec<u8> = journal.query_row("select progress from upload", [], |row| row.get(0)).unwrap();
    let mut damaged: Value = serde_json::from_slice(&record).unwrap();
    let byte = damaged["hashed"][12].as_u64().unwrap();
    damaged["hashed"][12] = (byte ^ 1).into();
    journal.execute("update upload set progress = ?1", [damaged.to_string().into_bytes()]).unwrap();
    drop(journal);
    let fast = policy(&world, "oci:big", &address, "");
    let again = world.dray(&["sync", "--output", "json", &fast]).ok();
    assert!(again.err.contains("begins anew"), "{}", again.err);
    // All of the layer was sent; the configuration was there.
    let summary = &again.json()["summary"];
    assert_eq!((&summary["copied"], &summary["bytes"]), (&json!(1), &json!(LAYER)));
    world.dray(&["copy", &format!("docker://{address}/big:1"), "oci:back:1"]).ok();
}

#[test]
fn an_upload_goes_on_inside_a_chunk_where_the_registry_kept_it() {
    let world = World::new();
    big(&world, &[LAYER]);
    let (_registry, address) = embedded(&world);
    let killed = Killed::start(
        world.command(&["sync", &policy(&world, "oci:big", &address, "bandwidth = \"60MB/s\"")]),
    );
    until("a recorded chunk", || kept(&world)["uploads"] == 1);
    // Some of the next chunk arrives.
    let arrived = || {
        let listed = world.tool(
            "find",
            &["mirror", "-path", "*_uploads*", "-name", "data", "-size", "+1M", "-printf", "%s\n"],
        );
        listed.trim().parse::<u64>().unwrap_or(0)
    };
    let chunk = 64 << 20;
    // The journal hears of a chunk a little after it is there, and goes on only from a chunk of which it has heard.
    until("a part of a chunk", || arrived() > chunk + (20 << 20) && arrived() % chunk > 20 << 20);
    let there = arrived();
    drop(killed);
    let again =
        world.dray(&["sync", "-v", "--output", "json", &policy(&world, "oci:big", &address, "")]).ok();
    // What the registry received while the process died counts, too, so the registry's own word is taken.
    let on = again.err.split_once(" goes on at byte ").map(|(_, on)| on.split_once(' ').unwrap().0);
    let on: u64 = on.unwrap_or_else(|| panic!("{}", again.err)).parse().unwrap();
    assert!(on >= there && !on.is_multiple_of(chunk), "{on} {there}");
    // Exactly what was missing was sent.
    let sent = again.json()["summary"]["bytes"].as_u64().unwrap();
    assert_eq!(sent, LAYER as u64 - on, "{}", again.out);
    assert_eq!(again.json()["summary"]["copied"], 1);
    assert_eq!(arrived(), 0, "the upload was not closed");
    world.dray(&["copy", &format!("docker://{address}/big:1"), "oci:back:1"]).ok();
}

#[test]
fn a_sync_that_is_killed_again_and_again_ends_as_a_calm_one() {
    if !has("docker-registry") {
        return;
    }
    let world = World::new();
    let source = Registry::start(&world, "source", "");
    let images = concat!("oci:", env!("CARGO_MANIFEST_DIR"), "/../../examples/images");
    let names: Vec<String> = (0..20).map(|number| format!("team/app{number}")).collect();
    for name in &names {
        world
            .dray(&[
                "copy",
                "--all",
                &format!("{images}:1.2.0"),
                &format!("docker://{}/{name}:1", source.host),
            ])
            .ok();
        world
            .dray(&[
                "copy",
                "--all",
                &format!("{images}:1.0.0"),
                &format!("docker://{}/{name}:2", source.host),
            ])
            .ok();
    }
    let write = |to: &str, name: &str| {
        let policy = format!(
            "version = 1\n[[rule]]\nname = \"all\"\nfrom = \"docker://{}/team/app{{{}}}\"\nto = \"docker://{to}/{{path}}\"\n",
            source.host,
            (0..20).map(|number| number.to_string()).collect::<Vec<_>>().join(",")
        );
        world.write(name, &policy);
        name.to_owned()
    };
    // Undisturbed, to know what must be there.
    let calm = Registry::start(&world, "calm", "");
    world.dray(&["sync", &write(&calm.host, "calm.toml")]).ok();

    let destination = Registry::start(&world, "destination", "");
    let disturbed = write(&destination.host, "disturbed.toml");
    for life in 0..12u64 {
        let killed = Killed::start(world.command(&["sync", &disturbed]));
        std::thread::sleep(Duration::from_millis(30 + 37 * life));
        drop(killed);
    }
    world.dray(&["sync", &disturbed]).ok();
    for name in &names {
        for tag in ["1", "2"] {
            let raw = |host: &str| {
                world.dray(&["inspect", "--raw", &format!("docker://{host}/{name}:{tag}")]).ok().out
            };
            assert_eq!(raw(&calm.host), raw(&destination.host), "{name}:{tag}");
        }
    }
    let again = world.dray(&["sync", &disturbed]).ok();
    assert!(again.out.contains("0 images copied, 40 unchanged"), "{}", again.out);
}
