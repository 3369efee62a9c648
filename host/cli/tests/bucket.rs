//! The example of a transport for S3-style buckets, against a store that checks signatures.
#![allow(clippy::unwrap_used, clippy::print_stderr, reason = "tests")]

mod support;

use serde_json::Value;
use std::{
    io::{BufRead, BufReader, Write},
    path::{Path, PathBuf},
    process::{Child, ChildStdin, ChildStdout, Command, Stdio},
};
use support::{Ran, World};

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
        let host = &self.host;
        format!(
            "version = 1\n[plugin.bucket]\nsource = \"bucket.wasm\"\n[plugin.bucket-login]\nsource = \"bucket-login.wasm\"\n\
             [registry.\"{host}\"]\ntls = \"off\"\nauth = {{ provider = \"bucket-login\", access-key-id = \"env:KEY_ID\", \
             secret-access-key = \"env:KEY\" }}\n{rest}"
        )
    }
}

/// Builds both plugins with a cache that outlives the test.
fn build(world: &World) {
    let examples = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../examples/plugins");
    for name in ["bucket", "bucket-login"] {
        let out = format!("{name}.wasm");
        support::author(world, &["plugin", "build", examples.join(name).to_str().unwrap(), "--out", &out])
            .ok();
    }
}

#[test]
fn a_bucket_is_written_read_and_kept_in_order_with_signed_requests() {
    if !support::has("moto_server") || dray_author::Toolchain::any().is_err() {
        eprintln!("left out: moto or the toolchain is not here");
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

    // A wrong secret is refused by the store, and nothing shows it.
    let mut wrong = world.command(&["list-tags", "--policy", "dray.toml", &to]);
    let refused = Ran::of(wrong.env("KEY_ID", &store.keys[0].1).env("KEY", "a-wrong-secret"));
    assert!(refused.code == 1 && refused.err.contains("SignatureDoesNotMatch"), "{}", refused.err);
    assert!(!refused.err.contains("a-wrong-secret"), "{}", refused.err);
    // A bucket that is not there is a mistake, and no empty mirror.
    let none = format!("bucket:{}/nothing/x", store.host);
    let missing = store.dray(&world, &["list-tags", "--policy", "dray.toml", &none]);
    assert!(missing.code == 1 && missing.err.contains("make the bucket first"), "{}", missing.err);
}

#[test]
fn a_large_blob_goes_in_parts_whose_hash_nobody_knows_before() {
    if !support::has("moto_server") || dray_author::Toolchain::any().is_err() {
        eprintln!("left out: moto or the toolchain is not here");
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
