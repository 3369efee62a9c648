//! The images that are synced in benchmarks: repositories of images that share layers, and two registries on this
//! machine.

use anyhow::{Context, Result, ensure};
use dray_core::Digest;
use serde_json::{Value, json};
use std::{
    fs,
    net::{TcpListener, TcpStream},
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
    time::{Duration, Instant},
};

/// Number of repositories.
pub const REPOSITORIES: usize = 100;
/// Tags in each repository. An image has two layers: one is shared by the images of the same tag in all repositories,
/// and the other one is its own.
pub const TAGS: usize = 5;
const SHARED: usize = 1 << 20;
const OWN: usize = 64 << 10;

/// Creates a folder for all files of a benchmark, in memory if possible.
pub fn folder(purpose: &str) -> Result<PathBuf> {
    let memory = Path::new("/dev/shm");
    let base = if memory.is_dir() { memory.to_owned() } else { std::env::temp_dir() };
    let folder = base.join(format!("dray-{purpose}-{}", std::process::id()));
    fs::create_dir_all(&folder)?;
    Ok(folder)
}

/// The path of the dray program that is measured.
pub fn dray() -> PathBuf {
    crate::top().join("target/release/dray")
}

/// A running docker-registry of Debian. It is killed when this is dropped.
pub struct Registry {
    /// `host:port`
    pub address: String,
    log: PathBuf,
    process: Child,
}

impl Registry {
    /// Starts a registry with the folder `name` in `folder` as its storage.
    pub fn start(folder: &Path, name: &str) -> Result<Self> {
        let address = TcpListener::bind("127.0.0.1:0")?.local_addr()?.to_string();
        let (root, log) = (folder.join(name), folder.join(format!("{name}.log")));
        let config = folder.join(format!("{name}.yml"));
        let text = json!({
            "version": "0.1",
            "log": { "level": "error", "accesslog": { "disabled": false } },
            "storage": { "filesystem": { "rootdirectory": root }, "cache": { "blobdescriptor": "inmemory" } },
            "http": { "addr": address },
        });
        fs::write(&config, text.to_string())?;
        let out = fs::File::create(&log)?;
        let mut command = Command::new("docker-registry");
        command.arg("serve").arg(config).stdout(out.try_clone()?).stderr(out);
        let process = command.spawn().context("start docker-registry: install Debian's package of it")?;
        let begun = Instant::now();
        while TcpStream::connect(&address).is_err() {
            ensure!(begun.elapsed() < Duration::from_secs(20), "docker-registry does not listen");
            std::thread::sleep(Duration::from_millis(20));
        }
        Ok(Registry { address, log, process })
    }

    /// Bytes of all bodies that the registry sent in answers to GET.
    pub fn given(&self) -> Result<u64> {
        std::thread::sleep(Duration::from_millis(100));
        let log = fs::read_to_string(&self.log)?;
        let bodies = log.lines().filter_map(|line| {
            let (request, answer) = line.split_once(" HTTP/1.1\" ")?;
            request.contains("\"GET ").then(|| answer.split(' ').nth(1)?.parse::<u64>().ok())?
        });
        Ok(bodies.sum())
    }

    /// How many requests the registry received.
    pub fn requests(&self) -> Result<usize> {
        // The registry writes its log after it has answered.
        std::thread::sleep(Duration::from_millis(100));
        Ok(fs::read_to_string(&self.log)?.lines().filter(|line| line.contains(" HTTP/1.1\" ")).count())
    }
}

impl Drop for Registry {
    fn drop(&mut self) {
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}

/// The name of a repository, by its number.
pub fn name(repository: usize) -> String {
    format!("team/app{repository}")
}

/// Writes images into a layout. Their bytes cannot be compressed.
struct Layout {
    folder: PathBuf,
    random: u64,
    entries: Vec<Value>,
}

impl Layout {
    fn new(folder: PathBuf) -> Result<Self> {
        fs::create_dir_all(folder.join("blobs/sha256"))?;
        fs::write(folder.join("oci-layout"), r#"{"imageLayoutVersion":"1.0.0"}"#)?;
        Ok(Layout { folder, random: 88_172_645_463_325_252, entries: Vec::new() })
    }

    fn bytes(&mut self, length: usize) -> Vec<u8> {
        let mut bytes = vec![0; length];
        for word in bytes.chunks_exact_mut(8) {
            self.random ^= self.random << 13;
            self.random ^= self.random >> 7;
            self.random ^= self.random << 17;
            word.copy_from_slice(&self.random.to_le_bytes());
        }
        bytes
    }

    fn blob(&self, media_type: &str, content: &[u8]) -> Result<Value> {
        let digest = Digest::of(content);
        fs::write(self.folder.join("blobs/sha256").join(digest.hex()), content)?;
        Ok(json!({ "mediaType": media_type, "digest": digest.to_string(), "size": content.len() }))
    }

    fn image(&mut self, name: &str, layers: &[&[u8]]) -> Result<()> {
        let diff_ids: Vec<_> = layers.iter().map(|layer| Digest::of(layer).to_string()).collect();
        let config = json!({
            "architecture": "amd64", "os": "linux", "rootfs": { "type": "layers", "diff_ids": diff_ids }
        });
        let layers: Result<Vec<_>> =
            layers.iter().map(|layer| self.blob("application/vnd.oci.image.layer.v1.tar", layer)).collect();
        let manifest = "application/vnd.oci.image.manifest.v1+json";
        let image = json!({
            "schemaVersion": 2,
            "mediaType": manifest,
            "config": self.blob("application/vnd.oci.image.config.v1+json", config.to_string().as_bytes())?,
            "layers": layers?,
        });
        let mut entry = self.blob(manifest, image.to_string().as_bytes())?;
        entry["annotations"] = json!({ "org.opencontainers.image.ref.name": name });
        self.entries.push(entry);
        Ok(())
    }

    fn finish(self) -> Result<()> {
        let index = json!({ "schemaVersion": 2, "manifests": self.entries });
        Ok(fs::write(self.folder.join("index.json"), index.to_string())?)
    }
}

/// Writes a layout with all images. Each image gets the tag that is `shift` places later.
fn fill(folder: PathBuf, shift: usize) -> Result<()> {
    let mut layout = Layout::new(folder)?;
    let shared: Vec<_> = (0..TAGS).map(|_| layout.bytes(SHARED)).collect();
    for repository in 0..REPOSITORIES {
        for (tag, shared) in shared.iter().enumerate() {
            let (own, tag) = (layout.bytes(OWN), (tag + shift) % TAGS);
            layout.image(&format!("r.example/{}:v{tag}", name(repository)), &[shared, &own])?;
        }
    }
    layout.finish()
}

/// Starts a registry with all images. Each image has the tag that is `shift` places later.
pub fn filled(folder: &Path, shift: usize) -> Result<Registry> {
    let layout = format!("images{shift}");
    fill(folder.join(&layout), shift)?;
    let source = Registry::start(folder, &format!("source{shift}"))?;
    let policy = folder.join("fill.toml");
    let to = &source.address;
    fs::write(
        &policy,
        format!(
            "version = 1\n[[rule]]\nname = \"fill\"\nfrom = \"oci:{layout}\"\nto = \"docker://{to}/{{path}}\"\n"
        ),
    )?;
    let filled = Command::new(dray())
        .arg("sync")
        .arg(policy)
        .env("XDG_STATE_HOME", folder.join("filling"))
        .status()?;
    ensure!(filled.success(), "the source could not be filled");
    Ok(source)
}

/// Starts a registry with one image, `large:1`, that has layers of these sizes in bytes. The image is also in the
/// layout `large`.
pub fn large(folder: &Path, layers: &[usize]) -> Result<Registry> {
    let mut layout = Layout::new(folder.join("large"))?;
    let layers: Vec<_> = layers.iter().map(|length| layout.bytes(*length)).collect();
    layout.image("1", &layers.iter().map(Vec::as_slice).collect::<Vec<_>>())?;
    layout.finish()?;
    let source = Registry::start(folder, "source-large")?;
    let to = format!("docker://{}/large:1", source.address);
    let mut fill = Command::new(dray());
    fill.arg("copy").arg("oci:large:1").arg(to).current_dir(folder).stdout(Stdio::null());
    let filled = fill.env("XDG_STATE_HOME", folder.join("filling")).status()?;
    ensure!(filled.success(), "the source could not be filled");
    Ok(source)
}

/// Writes a policy that syncs all of one registry to another, and returns its path. `more` is added to the table of the
/// destination.
pub fn policy(folder: &Path, source: &str, destination: &str, more: &str) -> Result<PathBuf> {
    let rule = |number| {
        let name = name(number);
        format!(
            "[[rule]]\nname = \"{name}\"\nfrom = \"docker://{source}/{name}\"\nto = \"docker://{destination}/{name}\"\n"
        )
    };
    let rules: String = (0..REPOSITORIES).map(rule).collect();
    let path = folder.join("dray.toml");
    let table = format!("[registry.\"{destination}\"]\n{more}\n");
    fs::write(&path, format!("version = 1\n{table}{rules}"))?;
    Ok(path)
}
