//! A large blob is read over several connections where each of them brings little.
#![allow(clippy::unwrap_used, clippy::print_stderr, reason = "tests")]

mod support;

use dray_core::Digest;
use serde_json::json;
use std::{
    io::Write,
    net::TcpStream,
    sync::{Arc, Mutex},
    time::{Duration, Instant},
};
use support::{Fake, World, respond};

const MANIFEST: &str = "application/vnd.oci.image.manifest.v1+json";
/// Bytes a second of each connection of a paced server.
const EACH: f64 = 12e6;

/// How a server answers a request for a part that ends before the blob does.
#[derive(Clone, Copy, PartialEq)]
enum Parts {
    Given,
    /// The whole blob is sent.
    Ignored,
    Refused,
    /// Each answer breaks off after a third of what was asked for.
    Broken,
}

/// A registry with one image, which has one layer. It writes down the parts of the layer that it is asked for.
struct Server {
    fake: Fake,
    layer: Arc<Vec<u8>>,
    parts: Arc<Mutex<Vec<(usize, usize)>>>,
}

fn server(size: usize, parts: Parts, paced: bool) -> Server {
    let mut random = fastrand::Rng::with_seed(7);
    let mut layer = vec![0u8; size];
    random.fill(&mut layer);
    let layer = Arc::new(layer);
    let config =
        br#"{"os":"linux","architecture":"amd64","rootfs":{"type":"layers","diff_ids":[]}}"#.to_vec();
    let part = |media: &str, bytes: &[u8]| json!({"mediaType": media, "digest": Digest::of(bytes), "size": bytes.len()});
    let manifest = json!({
        "schemaVersion": 2, "mediaType": MANIFEST,
        "config": part("application/vnd.oci.image.config.v1+json", &config),
        "layers": [part("application/vnd.oci.image.layer.v1.tar", &layer)],
    })
    .to_string();
    let asked = Arc::new(Mutex::new(Vec::new()));
    let (heard, bytes) = (asked.clone(), layer.clone());
    let (of_layer, of_config) = (Digest::of(&layer).to_string(), Digest::of(&config).to_string());
    let fake = Fake::start_raw(move |request, _, stream| {
        let path = request.split(' ').nth(1).unwrap();
        if path.contains("/manifests/") {
            let headers = format!(
                "Content-Type: {MANIFEST}\r\nDocker-Content-Digest: {}\r\n",
                Digest::of(manifest.as_bytes())
            );
            match request.starts_with("HEAD") {
                true => {
                    let head =
                        format!("HTTP/1.1 200 OK\r\n{headers}Content-Length: {}\r\n\r\n", manifest.len());
                    let _ = stream.write_all(head.as_bytes());
                }
                false => respond(stream, "200 OK", &headers, manifest.as_bytes()),
            }
        } else if path.ends_with(&of_config) {
            respond(stream, "200 OK", "", &config);
        } else if path.ends_with(&of_layer) {
            let (from, to) = range(request).unwrap_or((0, None));
            if let Some(to) = to {
                heard.lock().unwrap().push((from, to));
            }
            match (to, parts) {
                (Some(_), Parts::Refused) => respond(stream, "500 Internal Server Error", "", b""),
                (Some(_), Parts::Ignored) => send(stream, &bytes, 0..bytes.len(), bytes.len(), false, paced),
                (Some(to), Parts::Broken) => {
                    let end = from + (to - from).div_ceil(3);
                    send(stream, &bytes, from..to, end - from, true, paced);
                    let _ = stream.shutdown(std::net::Shutdown::Both);
                }
                (to, _) => {
                    let to = to.unwrap_or(bytes.len());
                    send(stream, &bytes, from..to, to - from, from > 0 || to < bytes.len(), paced);
                }
            }
        } else {
            respond(stream, "200 OK", "", b"");
        }
    });
    Server { fake, layer, parts: asked }
}

/// The range of a request: its first byte, and the byte behind its last one if it names that.
fn range(request: &str) -> Option<(usize, Option<usize>)> {
    let text = request.to_lowercase();
    let range = text.lines().find_map(|line| line.strip_prefix("range: bytes="))?;
    let (first, last) = range.trim().split_once('-')?;
    Some((first.parse().ok()?, last.parse::<usize>().ok().map(|last| last + 1)))
}

/// Sends `count` bytes of a range, as fast as a connection of the server is.
fn send(
    stream: &mut TcpStream,
    bytes: &[u8],
    range: std::ops::Range<usize>,
    count: usize,
    part: bool,
    paced: bool,
) {
    let status = if part { "206 Partial Content" } else { "200 OK" };
    let within = match part {
        true => format!("Content-Range: bytes {}-{}/{}\r\n", range.start, range.end - 1, bytes.len()),
        false => String::new(),
    };
    let head = format!(
        "HTTP/1.1 {status}\r\nAccept-Ranges: bytes\r\n{within}Content-Length: {}\r\n\r\n",
        range.len()
    );
    let (begun, mut sent) = (Instant::now(), 0);
    if stream.write_all(head.as_bytes()).is_err() {
        return;
    }
    for chunk in bytes[range.start..range.start + count].chunks(64 << 10) {
        if stream.write_all(chunk).is_err() {
            return;
        }
        sent += chunk.len();
        let due = Duration::from_secs_f64(sent as f64 / EACH);
        if paced && let Some(wait) = due.checked_sub(begun.elapsed()) {
            std::thread::sleep(wait);
        }
    }
}

/// Copies the image to a layout, and returns the parts that the server was asked for.
fn copied(server: &Server) -> Vec<(usize, usize)> {
    let world = World::new();
    world.dray(&["copy", &format!("docker://{}/big:1", server.fake.host), "oci:layout:1"]).ok();
    let hex = Digest::of(&server.layer).hex().to_owned();
    let stored = std::fs::read(world.path("layout/blobs/sha256").join(hex)).unwrap();
    assert!(stored == *server.layer);
    server.parts.lock().unwrap().clone()
}

#[test]
fn a_large_blob_comes_over_several_connections_where_each_brings_little() {
    let server = server(96 << 20, Parts::Given, true);
    let mut parts = copied(&server);
    assert!(parts.len() >= 4, "{parts:?}");
    // They follow each other to the end, and nothing is asked for twice.
    parts.sort_unstable();
    assert!(parts.windows(2).all(|two| two[0].1 == two[1].0), "{parts:?}");
    assert_eq!(parts.last().unwrap().1, 96 << 20);
}

#[test]
fn what_is_small_or_quick_comes_over_one_connection() {
    for (size, paced) in [(48 << 20, true), (96 << 20, false)] {
        let server = server(size, Parts::Given, paced);
        assert_eq!(copied(&server), []);
    }
}

#[test]
fn a_server_that_gives_no_parts_or_breaks_them_off_gives_the_blob_all_the_same() {
    for parts in [Parts::Ignored, Parts::Refused, Parts::Broken] {
        let server = server(80 << 20, parts, true);
        assert!(!copied(&server).is_empty());
    }
}
