//! Registries that lie, stall and send elsewhere; each must end in a clear error, and nothing
//! must be published.
#![allow(clippy::unwrap_used, clippy::print_stderr, reason = "a test")]

mod support;

use dray_core::Digest;
use std::{
    io::Write,
    net::TcpStream,
    time::{Duration, Instant},
};
use support::{Fake, World, respond};

const MANIFEST: &str = "application/vnd.oci.image.manifest.v1+json";

fn manifest(blob: &Digest, size: usize) -> String {
    let config = Digest::of(b"{}");
    format!(
        r#"{{"schemaVersion":2,"mediaType":"{MANIFEST}","config":{{"mediaType":"application/vnd.oci.image.config.v1+json","digest":"{config}","size":2}},"layers":[{{"mediaType":"application/vnd.oci.image.layer.v1.tar","digest":"{blob}","size":{size}}}]}}"#
    )
}

fn path(request: &str) -> &str {
    request.split(' ').nth(1).unwrap()
}

fn serve_manifest(request: &str, stream: &mut TcpStream, body: &str) {
    let headers =
        format!("Content-Type: {MANIFEST}\r\nDocker-Content-Digest: {}\r\n", Digest::of(body.as_bytes()));
    if request.starts_with("HEAD") {
        let head = format!("HTTP/1.1 200 OK\r\n{headers}Content-Length: {}\r\n\r\n", body.len());
        stream.write_all(head.as_bytes()).unwrap();
    } else {
        respond(stream, "200 OK", &headers, body.as_bytes());
    }
}

/// A registry of one image, whose layer is answered as the test likes.
fn registry(
    layer: &'static [u8],
    size: usize,
    answer: impl Fn(&str, &mut TcpStream) + Send + Sync + 'static,
) -> Fake {
    let body = manifest(&Digest::of(layer), size);
    Fake::start(move |request, stream| match path(request) {
        path if path.contains("/manifests/") => serve_manifest(request, stream, &body),
        path if path.ends_with(&Digest::of(b"{}").to_string()) => respond(stream, "200 OK", "", b"{}"),
        _ => answer(request, stream),
    })
}

/// Copies into a layout; the error, and that nothing was published.
fn refused(fake: &Fake) -> String {
    let world = World::new();
    let began = Instant::now();
    let ran = world.dray(&["copy", &format!("docker://{}/a:1", fake.host), "oci:out:1"]);
    assert_eq!(ran.code, 1, "{}{}", ran.out, ran.err);
    assert!(began.elapsed() < Duration::from_secs(60));
    assert!(!world.path("out/index.json").exists(), "something was published");
    let left = world.path("out/blobs/sha256");
    let left = std::fs::read_dir(left).map(|entries| {
        entries.flatten().filter(|entry| entry.file_name().to_string_lossy().starts_with('.')).count()
    });
    assert_eq!(left.unwrap_or(0), 0, "half-written files are left");
    ran.err
}

#[test]
fn a_blob_with_other_content() {
    let fake = registry(b"good", 4, |_, stream| respond(stream, "200 OK", "", b"evil"));
    assert!(refused(&fake).contains("its bytes have the digest"));
}

#[test]
fn a_blob_that_is_longer_than_it_says() {
    let fake = registry(b"good", 4, |_, stream| {
        // No length: the body ends with the connection, and it does not end.
        let _ = stream.write_all(b"HTTP/1.1 200 OK\r\n\r\n");
        while stream.write_all(&[0; 65536]).is_ok() {}
    });
    assert!(refused(&fake).contains("it is longer than 4 bytes"));
}

#[test]
fn a_blob_that_is_shorter_than_it_says() {
    let fake = registry(b"good", 9, |_, stream| respond(stream, "200 OK", "", b"good"));
    let error = refused(&fake);
    assert!(error.contains("ended after 4 of 9 bytes") || error.contains("416"), "{error}");
}

#[test]
fn a_download_that_breaks_goes_on_by_range() {
    let layer: &[u8] = b"0123456789";
    let fake = registry(layer, 10, move |request, stream| {
        match request.to_lowercase().contains("range: bytes=4-") {
            true => respond(stream, "206 Partial Content", "Content-Range: bytes 4-9/10\r\n", &layer[4..]),
            false => {
                let _ = stream.write_all(b"HTTP/1.1 200 OK\r\nContent-Length: 10\r\n\r\n0123");
                let _ = stream.shutdown(std::net::Shutdown::Both);
            }
        }
    });
    let world = World::new();
    world.dray(&["copy", &format!("docker://{}/a:1", fake.host), "oci:out:1"]).ok();
    let blob = fake
        .requests()
        .into_iter()
        .filter(|request| path(request).ends_with(&Digest::of(layer).to_string()))
        .collect::<Vec<_>>();
    assert_eq!(blob.len(), 2, "{blob:?}");
}

#[test]
fn a_manifest_that_is_not_what_was_asked_for() {
    let named = Digest::of(b"something else");
    let fake = Fake::start(move |request, stream| {
        let body = manifest(&Digest::of(b"x"), 1);
        let headers = format!("Content-Type: {MANIFEST}\r\nDocker-Content-Digest: {named}\r\n");
        match request.starts_with("HEAD") {
            true => {
                let _ = stream.write_all(
                    format!("HTTP/1.1 200 OK\r\n{headers}Content-Length: {}\r\n\r\n", body.len()).as_bytes(),
                );
            }
            false => respond(stream, "200 OK", &headers, body.as_bytes()),
        }
    });
    assert!(refused(&fake).contains("verify the manifest"));
}

#[test]
fn a_manifest_without_end() {
    let fake = Fake::start(|request, stream| {
        if request.starts_with("HEAD") {
            return respond(stream, "405 Method Not Allowed", "", b"");
        }
        let _ = stream.write_all(format!("HTTP/1.1 200 OK\r\nContent-Type: {MANIFEST}\r\n\r\n").as_bytes());
        while stream.write_all(&[b' '; 65536]).is_ok() {}
    });
    let error = refused(&fake);
    assert!(error.contains("longer than") || error.contains("405"), "{error}");
    let world = World::new();
    let ran = world.dray(&["inspect", "--raw", &format!("docker://{}/a:1", fake.host)]);
    assert!(ran.code == 1 && ran.err.contains("longer than"), "{}", ran.err);
}

#[test]
fn lists_that_lead_in_a_circle() {
    let fake = Fake::start(|_, stream| {
        respond(
            stream,
            "200 OK",
            "Link: </v2/a/tags/list?n=1&last=x>; rel=\"next\"\r\n",
            br#"{"name":"a","tags":["x"]}"#,
        )
    });
    let world = World::new();
    let ran = world.dray(&["list-tags", &format!("docker://{}/a", fake.host)]);
    assert!(ran.code == 1 && ran.err.contains("lead back to"), "{}", ran.err);
    assert!(fake.requests().len() < 10);
}

#[test]
fn credentials_stay_at_home() {
    let elsewhere = Fake::start(|_, stream| respond(stream, "200 OK", "", b"good"));
    let to = elsewhere.host.clone();
    let body = manifest(&Digest::of(b"good"), 4);
    let fake = Fake::start(move |request, stream| {
        if !request.to_lowercase().contains("authorization: basic ") {
            return respond(stream, "401 Unauthorized", "WWW-Authenticate: Basic realm=\"x\"\r\n", b"");
        }
        match path(request) {
            path if path.contains("/manifests/") => serve_manifest(request, stream, &body),
            path if path.ends_with(&Digest::of(b"{}").to_string()) => respond(stream, "200 OK", "", b"{}"),
            path => {
                respond(stream, "307 Temporary Redirect", &format!("Location: http://{to}{path}\r\n"), b"")
            }
        }
    });
    let world = World::new();
    world.write("creds", "bob:secret\n");
    world.dray(&["copy", "--creds-file", "creds", &format!("docker://{}/a:1", fake.host), "oci:out:1"]).ok();
    let strayed = elsewhere.requests();
    assert_eq!(strayed.len(), 1);
    assert!(!strayed[0].to_lowercase().contains("authorization"), "{}", strayed[0]);
}

#[test]
fn an_upload_elsewhere_gets_no_credentials() {
    let elsewhere = Fake::start(|_, stream| respond(stream, "201 Created", "", b""));
    let to = elsewhere.host.clone();
    let fake = Fake::start(move |request, stream| {
        if !request.to_lowercase().contains("authorization: basic ") {
            return respond(stream, "401 Unauthorized", "WWW-Authenticate: Basic realm=\"x\"\r\n", b"");
        }
        match request.split(' ').next().unwrap() {
            "POST" => respond(stream, "202 Accepted", &format!("Location: http://{to}/upload?id=1\r\n"), b""),
            "PUT" => respond(stream, "201 Created", "", b""),
            _ => {
                let _ = stream.write_all(b"HTTP/1.1 404 Not Found\r\nContent-Length: 0\r\n\r\n");
            }
        }
    });
    let world = World::new();
    world.write("creds", "bob:secret\n");
    let image = concat!(env!("CARGO_MANIFEST_DIR"), "/../../examples/images");
    world
        .dray(&[
            "copy",
            "--creds-file",
            "creds",
            &format!("oci:{image}:1.0.0"),
            &format!("docker://{}/a:1", fake.host),
        ])
        .ok();
    let strayed = elsewhere.requests();
    assert_eq!(strayed.len(), 3);
    assert!(
        strayed.iter().all(|request| request.starts_with("PUT /upload?id=1&digest=")
            && !request.to_lowercase().contains("authorization")),
        "{strayed:?}"
    );
}

#[test]
fn a_token_server_that_fails_is_given_up_once() {
    let world = World::new();
    let tokens = Fake::start(|_, stream| respond(stream, "503 Service Unavailable", "", b""));
    let realm = format!("WWW-Authenticate: Bearer realm=\"http://{}/token\",service=\"x\"\r\n", tokens.host);
    let registry = Fake::start(move |_, stream| respond(stream, "401 Unauthorized", &realm, b""));
    let ran = world.dray(&["inspect", "--output", "json", &format!("docker://{}/a:1", registry.host)]);
    assert!(ran.code != 0 && ran.err.contains("given up after 8 attempts"), "{}", ran.err);
    assert_eq!(tokens.requests().len(), 8);
}
