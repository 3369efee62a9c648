//! What a sync does again and again: hashing, reading archives and manifests, calling plugins.
#![allow(clippy::unwrap_used, missing_docs, reason = "a benchmark")]

use divan::{Bencher, counter::BytesCount};
use dray_core::{Algorithm, Hasher, Manifest, policy::SecretRef};
use dray_engine::{
    Error, Kind, Result, Secret,
    contract::{Choice, Facts, Images, Plugins},
    decode::Plain,
    tar::{Index, Source},
};
use dray_runtime::{Runtime, Secrets, Settings};
use futures_core::future::BoxFuture;
use std::{
    collections::BTreeMap,
    io::{Cursor, Read, Write},
    sync::Arc,
};

fn main() {
    divan::main();
}

const CHUNK: usize = 512 << 10;

/// Bytes that do not compress well.
fn noise(length: usize) -> Vec<u8> {
    let mut state = 88_172_645_463_325_252u64;
    let mut next = || {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        (state >> 32) as u8
    };
    (0..length).map(|_| next()).collect()
}

fn hashed(bencher: Bencher, hasher: impl Fn() -> Hasher + Sync) {
    let bytes = noise(CHUNK);
    bencher.counter(BytesCount::of_slice(&bytes)).bench(|| {
        let mut hasher = hasher();
        hasher.update(&bytes);
        hasher.finish()
    });
}

#[divan::bench]
fn sha256(bencher: Bencher) {
    hashed(bencher, || Hasher::new(Algorithm::Sha256));
}

#[divan::bench]
fn sha256_that_can_be_saved(bencher: Bencher) {
    hashed(bencher, || Hasher::resumable(Algorithm::Sha256));
}

#[divan::bench]
fn gunzip(bencher: Bencher) {
    let bytes: Vec<u8> = noise(CHUNK).iter().map(|byte| byte % 16).collect();
    let mut encoder = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::default());
    encoder.write_all(&bytes).unwrap();
    let zipped = encoder.finish().unwrap();
    bencher
        .counter(BytesCount::of_slice(&bytes))
        .bench(|| std::io::copy(&mut Plain::new(&zipped[..]).unwrap(), &mut std::io::sink()).unwrap());
}

struct Memory<'a>(Cursor<&'a [u8]>);

impl Read for Memory<'_> {
    fn read(&mut self, buffer: &mut [u8]) -> std::io::Result<usize> {
        self.0.read(buffer)
    }
}

impl Source for Memory<'_> {}

/// An archive of a thousand empty members.
#[divan::bench]
fn index_of_an_archive(bencher: Bencher) {
    let mut archive = Vec::new();
    for number in 0..1000 {
        let mut block = [0; 512];
        let name = format!("blobs/sha256/{number:064}");
        block[..name.len()].copy_from_slice(name.as_bytes());
        block[124..135].copy_from_slice(b"00000000000");
        block[148..156].copy_from_slice(b"        ");
        block[156] = b'0';
        block[257..265].copy_from_slice(b"ustar\x0000");
        let sum: u32 = block.iter().map(|byte| u32::from(*byte)).sum();
        block[148..156].copy_from_slice(format!("{sum:06o}\0 ").as_bytes());
        archive.extend_from_slice(&block);
    }
    archive.resize(archive.len() + 1024, 0);
    bencher.bench(|| Index::read(Memory(Cursor::new(&archive))).unwrap());
}

/// An image of twenty layers.
#[divan::bench]
fn manifest(bencher: Bencher) {
    let entry = |kind: &str| {
        format!(
            r#"{{"mediaType":"application/vnd.oci.image.{kind}","digest":"sha256:{}","size":1}}"#,
            "a".repeat(64)
        )
    };
    let layers = vec![entry("layer.v1.tar+gzip"); 20].join(",");
    let body = format!(
        r#"{{"schemaVersion":2,"mediaType":"application/vnd.oci.image.manifest.v1+json","config":{},"layers":[{layers}]}}"#,
        entry("config.v1+json")
    );
    bencher.bench(|| Manifest::parse("", body.clone().into_bytes(), None).unwrap());
}

struct Nothing;

impl Secrets for Nothing {
    fn get(&self, name: &SecretRef) -> Result<Secret> {
        Err(Error::new(Kind::NotFound, name.to_string()))
    }

    fn auth_files(&self) -> Result<Vec<(String, Secret)>> {
        Ok(Vec::new())
    }
}

impl Images for Nothing {
    fn inspect(&self, _: Vec<String>) -> BoxFuture<'_, Result<Vec<Facts>>> {
        Box::pin(async { Ok(Vec::new()) })
    }
}

fn runtime() -> Arc<Runtime> {
    Runtime::new(Settings { cache: None, plugins: BTreeMap::new(), secrets: Arc::new(Nothing) })
}

fn threads() -> tokio::runtime::Runtime {
    tokio::runtime::Builder::new_current_thread().build().unwrap()
}

/// The least that a call of a transport costs.
#[divan::bench]
fn a_transport_reads_a_reference(bencher: Bencher) {
    let (runtime, threads) = (runtime(), threads());
    let transport = threads.block_on(runtime.transport("docker")).unwrap();
    bencher.bench_local(|| {
        threads.block_on(transport.parse("//registry.example.com/team/app:1.0", false, &[])).unwrap()
    });
}

/// Chooses among so many tags, with a filter of dray's.
fn choose(bencher: Bencher, filter: &str, config: &serde_json::Value, count: usize) {
    let (runtime, threads) = (runtime(), threads());
    let filter = threads.block_on(runtime.filter(filter, config)).unwrap();
    let tags: Vec<String> = (0..count).map(|number| format!("v1.{}.{}", number / 10, number % 10)).collect();
    let config = config.to_string();
    bencher.bench_local(|| {
        let given = Choice { repository: "app", tags: &tags, all: &tags };
        threads.block_on(filter.select(given, &config, Arc::new(Nothing))).unwrap().kept.len()
    });
}

#[divan::bench]
fn a_filter_chooses_of_a_thousand_tags(bencher: Bencher) {
    choose(bencher, "semver", &serde_json::json!({ "range": ">=1.2" }), 1000);
}

#[divan::bench]
fn a_glob_chooses_of_a_hundred_thousand_tags(bencher: Bencher) {
    choose(bencher, "glob", &serde_json::json!({ "pattern": "v1.*.5" }), 100_000);
}
