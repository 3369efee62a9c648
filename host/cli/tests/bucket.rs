//! The example of a transport for S3-style buckets, against a store that checks signatures.
#![allow(clippy::unwrap_used, clippy::print_stderr, reason = "tests")]

mod support;

use serde_json::Value;
use std::{
    io::{BufRead, BufReader, Write},
    path::{Path, PathBuf},
    process::{Child, ChildStdin, ChildStdout, Command, Stdio},
    sync::{Arc, Mutex},
};
use support::{Fake, Ran, World, respond};

/// moto, run by the Python that it is installed for.
struct Store {
    process: Child,
    asks: ChildStdin,
    answers: BufReader<ChildStdout>,
    host: String,
    keys: [(&'static str, String); 2],
    log: PathBuf,
}

impl Drop for Store {
    fn drop(&mut self) {
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}

impl Store {
    fn start(world: &World) -> Self {
        let path = std::env::var_os("PATH").unwrap();
        let mut folders = std::env::split_paths(&path);
        let folder = folders.find(|folder| folder.join("moto_server").exists()).unwrap();
        let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/data/s3.py");
        let log = world.path("store.log");
        let mut process = Command::new(folder.join("python"))
            .arg(script)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(std::fs::File::create(&log).unwrap())
            .spawn()
            .unwrap();
        let (asks, stdout) = (process.stdin.take().unwrap(), process.stdout.take().unwrap());
        let mut answers = BufReader::new(stdout);
        let told = loop {
            let mut line = String::new();
            let read = answers.read_line(&mut line).unwrap();
            assert!(read > 0, "{}", std::fs::read_to_string(&log).unwrap());
            // moto greets before.
            if let Ok(told) = serde_json::from_str::<Value>(&line) {
                break told;
            }
        };
        let text = |name: &str| told[name].as_str().unwrap().to_owned();
        let keys = [("KEY_ID", text("id")), ("KEY", text("secret"))];
        Store { process, asks, answers, host: text("host"), keys, log }
    }

    /// What boto3 sees.
    fn sees(&mut self, verb: &str, name: &str) -> Value {
        writeln!(self.asks, "{verb} {name}").unwrap();
        let mut line = String::new();
        self.answers.read_line(&mut line).unwrap();
        serde_json::from_str(&line).unwrap()
    }

    /// The requests so far: method and path.
    fn requests(&self) -> Vec<String> {
        let log = std::fs::read_to_string(&self.log).unwrap();
        let quoted = log.lines().filter_map(|line| line.split('"').nth(1));
        // Colours stand before the method. They have no capital letters.
        let plain =
            quoted.map(|request| request.trim_start_matches(|c: char| !c.is_ascii_uppercase()).to_owned());
        plain.filter(|request| request.contains(" /images/")).collect()
    }

    fn dray(&self, world: &World, arguments: &[&str]) -> Ran {
        let mut command = world.command(arguments);
        command.envs(self.keys.iter().map(|(name, value)| (*name, value.as_str())));
        Ran::of(&mut command)
    }

    /// The policy of a mirror in the bucket.
    fn policy(&self, rest: &str) -> String {
        policy(&self.host, rest)
    }
}

/// A policy with both plugins and the host of a bucket.
fn policy(host: &str, rest: &str) -> String {
    format!(
        "version = 1\n[plugin.bucket]\nsource = \"bucket.wasm\"\n[plugin.bucket-login]\nsource = \"bucket-login.wasm\"\n\
         [registry.\"{host}\"]\ntls = \"off\"\nauth = {{ provider = \"bucket-login\", access-key-id = \"env:KEY_ID\", \
         secret-access-key = \"env:KEY\" }}\n{rest}"
    )
}

/// Builds both plugins.
fn build(world: &World) {
    for name in ["bucket", "bucket-login"] {
        support::build_plugin(world, &format!("examples/plugins/{name}"), &format!("{name}.wasm"));
    }
}

#[test]
fn a_bucket_is_written_read_and_kept_in_order_with_signed_requests() {
    if !support::has("moto_server") || !support::builds_plugins() {
        return;
    }
    let world = World::new();
    build(&world);
    support::images::seed(&world);
    let mut store = Store::start(&world);
    let to = format!("bucket:{}/images/mirror/seed", store.host);
    world.write("dray.toml", &store.policy(&format!("[[rule]]\nfrom = \"oci:seed\"\nto = \"{to}\"\n")));

    let first = store.dray(&world, &["sync"]).ok();
    let count =
        |ran: &Ran| ran.out.lines().last().unwrap().split(' ').next().unwrap().parse::<u64>().unwrap();
    assert!(count(&first) > 0, "{}", first.out);
    let again = store.dray(&world, &["sync"]).ok();
    assert!(count(&again) == 0 && again.out.contains(" 0 failed"), "{}", again.out);

    // Another tool sees a layout: every object that the index leads to is there, under its digest.
    let index: Value =
        serde_json::from_str(store.sees("get", "mirror/seed/index.json").as_str().unwrap()).unwrap();
    let layout = store.sees("get", "mirror/seed/oci-layout");
    assert_eq!(layout, r#"{"imageLayoutVersion":"1.0.0"}"#);
    let objects = store.sees("list", "mirror/seed/");
    let is_there = |digest: &str| {
        let key = format!("mirror/seed/blobs/{}", digest.replace(':', "/"));
        objects.as_array().unwrap().contains(&key.into())
    };
    let entries = index["manifests"].as_array().unwrap();
    assert_eq!(entries.len() as u64, count(&first));
    assert!(entries.iter().all(|entry| is_there(entry["digest"].as_str().unwrap())), "{objects}");

    // What comes back is the same, and skopeo reads it.
    let tag = entries[0]["annotations"]["org.opencontainers.image.ref.name"].as_str().unwrap();
    let (from, back) = (format!("{to}:{tag}"), format!("oci:back:{tag}"));
    store.dray(&world, &["copy", "--policy", "dray.toml", "--all", &from, &back]).ok();
    assert_eq!(world.digest(&back, &[]), entries[0]["digest"].as_str().unwrap());

    // A tag is deleted by a conditional write, and the others stay.
    store.dray(&world, &["delete", "--policy", "dray.toml", &from]).ok();
    let left = store.dray(&world, &["list-tags", "--policy", "dray.toml", &to]).ok();
    assert!(!left.out.lines().any(|line| line == tag), "{}", left.out);
    assert_eq!(left.out.lines().count(), entries.len() - 1);

    // All tags are copied out of it with a list of its repositories and one of the tags, and without a question about each of them.
    let on = format!("[[rule]]\nfrom = \"{to}\"\nto = \"oci:on\"\n");
    world.write("on.toml", &store.policy(&on));
    let indexes = |store: &Store| {
        store
            .requests()
            .iter()
            .filter(|request| request.contains("GET /images/mirror/seed/index.json"))
            .count()
    };
    let before = indexes(&store);
    let copied = store.dray(&world, &["sync", "on.toml"]).ok();
    assert_eq!((count(&copied), indexes(&store) - before), (entries.len() as u64 - 1, 2), "{}", copied.out);
    // A tag that is listed and whose manifest is gone is left out, and the others are copied.
    let is_index = |entry: &&Value| entry["mediaType"].as_str().unwrap().contains("index");
    // No other one names an index.
    let gone = entries[1..].iter().find(is_index).unwrap()["digest"].as_str().unwrap().replace(':', "/");
    store.sees("delete", &format!("mirror/seed/blobs/{gone}"));
    world.write("on.toml", &store.policy(&on.replace("oci:on", "oci:rest")));
    let rest = store.dray(&world, &["sync", "on.toml"]).ok();
    assert!(rest.err.contains("it was listed, and is not there"), "{}", rest.err);
    assert_eq!(count(&rest), entries.len() as u64 - 2, "{}", rest.out);

    // A child whose manifest is there and whose layers are not is copied with them: a bucket accepts anything.
    let multi = format!("bucket:{}/images/again:1", store.host);
    let copy = |store: &Store| {
        store.dray(&world, &["copy", "--all", "--policy", "dray.toml", "oci:seed:multi", &multi]).ok()
    };
    copy(&store);
    let objects = store.sees("list", "again/blobs/");
    let keys: Vec<&str> = objects.as_array().unwrap().iter().map(|key| key.as_str().unwrap()).collect();
    let layers = keys.iter().filter(|key| !store.sees("get", key).as_str().unwrap().starts_with('{'));
    let layer = (*layers.last().unwrap()).to_owned();
    store.sees("delete", &layer);
    store.sees("delete", "again/index.json");
    copy(&store);
    assert_eq!(store.sees("list", "again/blobs/"), objects, "{layer}");
    // So is a tag whose manifest is gone.
    let index: Value = serde_json::from_str(store.sees("get", "again/index.json").as_str().unwrap()).unwrap();
    let digest = index["manifests"][0]["digest"].as_str().unwrap().replace(':', "/");
    store.sees("delete", &format!("again/blobs/{digest}"));
    copy(&store);
    assert_eq!(store.sees("list", "again/blobs/"), objects);

    // A wrong secret is refused by the store, and nothing shows it.
    let mut wrong = world.command(&["list-tags", "--policy", "dray.toml", &to]);
    let refused = Ran::of(wrong.env("KEY_ID", &store.keys[0].1).env("KEY", "a-wrong-secret"));
    assert!(refused.code == 1 && refused.err.contains("SignatureDoesNotMatch"), "{}", refused.err);
    assert!(!refused.err.contains("a-wrong-secret"), "{}", refused.err);
    // A bucket that is not there is a mistake, and no empty mirror.
    let none = format!("bucket:{}/nothing/x", store.host);
    let missing = store.dray(&world, &["list-tags", "--policy", "dray.toml", &none]);
    assert!(missing.code == 1 && missing.err.contains("make it first"), "{}", missing.err);
}

#[test]
fn a_large_blob_goes_in_parts_whose_hash_nobody_knows_before() {
    if !support::has("moto_server") || !support::builds_plugins() {
        return;
    }
    let world = World::new();
    build(&world);
    let mut store = Store::start(&world);
    world.write("dray.toml", &store.policy("[[rule]]\nfrom = \"oci:none\"\nto = \"oci:nowhere\"\n"));
    let file = std::fs::File::create(world.path("layer.tar")).unwrap();
    file.set_len(70 << 20).unwrap();
    let to = format!("bucket:{}/images/large:1", store.host);
    store.dray(&world, &["copy", "--policy", "dray.toml", "tarball:layer.tar", &to]).ok();
    let requests = store.requests();
    let puts = |query: &str| {
        requests.iter().filter(|request| request.starts_with("PUT") && request.contains(query)).count()
    };
    // 70 MiB in parts of 16 MiB.
    assert_eq!((puts("partNumber="), puts("partNumber=5&")), (5, 1), "{requests:?}");
    let back = store.dray(&world, &["copy", "--policy", "dray.toml", &to, "oci:back:1"]).ok();
    assert!(back.out.contains("1 image copied"), "{}", back.out);
    let index: Value = serde_json::from_str(store.sees("get", "large/index.json").as_str().unwrap()).unwrap();
    assert_eq!(world.digest("oci:back:1", &[]), index["manifests"][0]["digest"].as_str().unwrap());
}

/// The store that checks signatures does not compare the body with the hash that was signed, so this one does.
#[test]
fn a_whole_blob_is_signed_with_its_hash_and_a_part_without() {
    if !support::builds_plugins() {
        return;
    }
    let world = World::new();
    build(&world);
    let mistakes = Arc::new(Mutex::new(Vec::new()));
    let found = mistakes.clone();
    let store = Fake::start_raw(move |request, body, stream| {
        let header = |name: &str| request.lines().find_map(|line| line.strip_prefix(name)).map(str::trim);
        let said = header("x-amz-content-sha256:").unwrap_or_default();
        let target = request.split(' ').nth(1).unwrap_or_default();
        let expected = match target.contains("partNumber=") {
            true => "UNSIGNED-PAYLOAD".to_owned(),
            false => dray_core::Digest::of(body).hex(),
        };
        if said != expected {
            found.lock().unwrap().push(format!("{target}: {said} instead of {expected}"));
        }
        match (request.split(' ').next().unwrap_or_default(), target) {
            ("HEAD" | "GET", _) => respond(stream, "404 Not Found", "", b""),
            ("POST", target) if target.ends_with("?uploads=") => {
                respond(stream, "200 OK", "", b"<R><UploadId>u</UploadId></R>");
            }
            ("POST", _) => respond(stream, "200 OK", "", b"<CompleteMultipartUploadResult/>"),
            _ => respond(stream, "200 OK", "ETag: \"e\"\r\n", b""),
        }
    });
    world.write("dray.toml", &policy(&store.host, "[[rule]]\nfrom = \"oci:none\"\nto = \"oci:nowhere\"\n"));
    for (tag, size) in [("small", 1 << 10), ("large", 40 << 20)] {
        std::fs::File::create(world.path("layer.tar")).unwrap().set_len(size).unwrap();
        let to = format!("bucket:{}/images/x:{tag}", store.host);
        let mut command = world.command(&["copy", "--policy", "dray.toml", "tarball:layer.tar", &to]);
        Ran::of(command.env("KEY_ID", "id").env("KEY", "secret")).ok();
    }
    assert_eq!(*mistakes.lock().unwrap(), Vec::<String>::new());
    let requests = store.requests();
    let puts =
        |part: &str| requests.iter().filter(|line| line.starts_with("PUT") && line.contains(part)).count();
    assert_eq!((puts("partNumber="), puts("/index.json")), (3, 2));
}

#[test]
fn a_bucket_that_everybody_may_read_is_configured_by_its_place() {
    if !support::builds_plugins() {
        return;
    }
    let world = World::new();
    build(&world);
    support::images::seed(&world);
    let layout = world.path("seed");
    let fake = Fake::start(move |request, stream| {
        let path = request.split(' ').nth(1).unwrap().trim_start_matches("/public/");
        let is_signed = request.to_lowercase().contains("authorization:");
        match std::fs::read(layout.join(path)) {
            Ok(content) if !is_signed => respond(stream, "200 OK", "ETag: \"1\"\r\n", &content),
            Ok(_) => respond(stream, "403 Forbidden", "", b""),
            Err(_) => respond(stream, "404 Not Found", "", b""),
        }
    });
    let at = |glob: &str| {
        let glob = format!("[plugin.bucket.at.\"{glob}\"]\nanonymous = true\n");
        world.write("dray.toml", &policy(&fake.host, &glob));
        let place = format!("bucket:{}/public", fake.host);
        let keys = [("KEY_ID", "AKIA"), ("KEY", "secret")];
        Ran::of(world.command(&["list-tags", "--policy", "dray.toml", &place]).envs(keys))
    };
    let listed = at(&format!("{}/pub*", fake.host)).ok();
    assert!(listed.out.lines().any(|line| line == "multi"), "{}", listed.out);
    // Other places of the same plugin are as they were.
    let signed = at(&format!("{}/other", fake.host));
    assert!(signed.code == 1 && signed.err.contains("403"), "{}", signed.err);
    // The schema of the plugin holds for it.
    world.write("dray.toml", &policy(&fake.host, "[plugin.bucket.at.\"x/*\"]\nanonymos = true\n"));
    let wrong = world.dray(&["list-tags", "--policy", "dray.toml", "bucket:x/y"]);
    assert!(wrong.code != 0 && wrong.err.contains("did you mean `anonymous`?"), "{}", wrong.err);
}
