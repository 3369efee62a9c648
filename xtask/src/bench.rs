//! `cargo xtask bench`: whole syncs between two registries on this machine, dray beside whichever other
//! tools are there. Speed is measured here, and asserted nowhere.

use anyhow::{Context, Result, ensure};
use dray_core::Digest;
use serde_json::json;
use std::{
    fmt::Write as _,
    fs,
    net::{TcpListener, TcpStream},
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
    time::{Duration, Instant},
};

/// Repositories of five tags each; an image has a layer that all share and one of its own.
const REPOSITORIES: usize = 40;
const TAGS: usize = 5;
const SHARED: usize = 1 << 20;
const OWN: usize = 64 << 10;
/// Of one operation the median of so many is told.
const RUNS: usize = 3;

/// One tool on one operation.
struct Row {
    tool: String,
    operation: &'static str,
    /// Seconds.
    wall: f64,
    /// Seconds of processor time, its children's with it.
    cpu: f64,
    /// Requests at the source and at the destination.
    requests: (usize, usize),
}

struct Registry {
    address: String,
    log: PathBuf,
    process: Child,
}

impl Registry {
    fn start(folder: &Path, name: &str) -> Result<Self> {
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

    fn requests(&self) -> Result<usize> {
        // It writes its log behind its answers.
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

fn name(repository: usize) -> String {
    format!("team/app{repository}")
}

/// A layout with all images.
fn fill(folder: &Path) -> Result<()> {
    let blobs = folder.join("images/blobs/sha256");
    fs::create_dir_all(&blobs)?;
    fs::write(folder.join("images/oci-layout"), r#"{"imageLayoutVersion":"1.0.0"}"#)?;
    let mut random = 88_172_645_463_325_252u64;
    let mut bytes = |length: usize| {
        let mut bytes = vec![0; length];
        for word in bytes.chunks_exact_mut(8) {
            random ^= random << 13;
            random ^= random >> 7;
            random ^= random << 17;
            word.copy_from_slice(&random.to_le_bytes());
        }
        bytes
    };
    let blob = |media_type: &str, content: &[u8]| {
        let digest = Digest::of(content);
        fs::write(blobs.join(digest.hex()), content)?;
        anyhow::Ok(json!({ "mediaType": media_type, "digest": digest.to_string(), "size": content.len() }))
    };
    let layer = "application/vnd.oci.image.layer.v1.tar";
    let manifest = "application/vnd.oci.image.manifest.v1+json";
    let shared = (0..TAGS).map(|_| bytes(SHARED)).collect::<Vec<_>>();
    let mut entries = Vec::new();
    for repository in 0..REPOSITORIES {
        for (tag, shared) in shared.iter().enumerate() {
            let own = bytes(OWN);
            let diff_ids = [shared, &own].map(|layer| Digest::of(layer).to_string());
            let config = json!({ "architecture": "amd64", "os": "linux", "rootfs": { "type": "layers", "diff_ids": diff_ids } });
            let image = json!({
                "schemaVersion": 2,
                "mediaType": manifest,
                "config": blob("application/vnd.oci.image.config.v1+json", config.to_string().as_bytes())?,
                "layers": [blob(layer, shared)?, blob(layer, &own)?],
            });
            let mut entry = blob(manifest, image.to_string().as_bytes())?;
            entry["annotations"] = json!({ "org.opencontainers.image.ref.name": format!("r.example/{}:v{tag}", name(repository)) });
            entries.push(entry);
        }
    }
    let index = json!({ "schemaVersion": 2, "manifests": entries });
    fs::write(folder.join("images/index.json"), index.to_string())?;
    Ok(())
}

fn is_there(program: &str) -> bool {
    Command::new(program).arg("--version").stdout(Stdio::null()).stderr(Stdio::null()).status().is_ok()
}

/// How a tool is called to sync all of one registry to another.
fn command(tool: &str, folder: &Path, source: &str, destination: &str) -> Result<Command> {
    let each = |line: &dyn Fn(&str) -> String| {
        (0..REPOSITORIES).map(|number| line(&name(number))).collect::<Vec<_>>().join("\n")
    };
    let written = |file: &str, text: String| {
        let path = folder.join(file);
        fs::write(&path, text).map(|()| path)
    };
    Ok(match tool {
        "skopeo" => {
            let images = each(&|name| format!("    {name}: []"));
            let yaml =
                written("skopeo.yml", format!("{source}:\n  tls-verify: false\n  images:\n{images}\n"))?;
            let mut command = Command::new("skopeo");
            command.args(["sync", "--all", "--src", "yaml", "--dest", "docker", "--dest-tls-verify=false"]);
            // It keeps the last component of a name alone.
            command.arg(yaml).arg(format!("{destination}/team"));
            command
        }
        "regsync" => {
            let syncs = each(&|name| {
                format!("  - source: {source}/{name}\n    target: {destination}/{name}\n    type: repository")
            });
            let creds = format!(
                "creds:\n  - registry: {source}\n    tls: disabled\n  - registry: {destination}\n    tls: disabled"
            );
            let yaml = written(
                "regsync.yml",
                format!("version: 1\n{creds}\ndefaults:\n  parallel: 4\nsync:\n{syncs}\n"),
            )?;
            let mut command = Command::new("regsync");
            command.arg("once").arg("-c").arg(yaml);
            command
        }
        "crane" => {
            let lines = each(&|name| {
                format!("crane copy --insecure --all-tags {source}/{name} {destination}/{name}")
            });
            let mut command = Command::new("sh");
            command.arg(written("crane.sh", lines)?);
            command
        }
        "regctl" => {
            let lines = each(&|name| {
                let tags = (0..TAGS).map(|tag| format!("regctl --host reg={source},tls=disabled --host reg={destination},tls=disabled image copy {source}/{name}:v{tag} {destination}/{name}:v{tag}"));
                tags.collect::<Vec<_>>().join("\n")
            });
            let mut command = Command::new("sh");
            command.arg(written("regctl.sh", lines)?);
            command
        }
        _ => {
            let rules = each(&|name| {
                format!(
                    "[[rule]]\nname = \"{name}\"\nfrom = \"docker://{source}/{name}\"\nto = \"docker://{destination}/{name}\"\n"
                )
            });
            let policy = written("dray.toml", format!("version = 1\n{rules}"))?;
            let mut command = Command::new(crate::top().join("target/release/dray"));
            command.arg("sync").arg(policy);
            command
        }
    })
}

/// Processor time of all children that have ended (proc(5), `cutime` and `cstime`), in seconds.
fn children() -> Result<f64> {
    let stat = fs::read_to_string("/proc/self/stat")?;
    let fields: Vec<&str> = stat.rsplit(')').next().unwrap_or_default().split_whitespace().collect();
    let ticks: u64 = fields
        .get(13..15)
        .context("read /proc/self/stat")?
        .iter()
        .filter_map(|field| field.parse::<u64>().ok())
        .sum();
    // A hundred ticks a second, on every Linux that dray knows.
    Ok(ticks as f64 / 100.0)
}

fn measure(tool: &str, folder: &Path, source: &Registry) -> Result<[Row; 2]> {
    let state = folder.join("state");
    for kept in [state.clone(), folder.join("destination")] {
        if kept.exists() {
            fs::remove_dir_all(kept)?;
        }
    }
    let destination = Registry::start(folder, "destination")?;
    let once = |operation| {
        let before = (source.requests()?, destination.requests()?, children()?);
        let mut command = command(tool, folder, &source.address, &destination.address)?;
        command.env("XDG_STATE_HOME", &state).stdout(Stdio::null()).stderr(Stdio::null());
        let begun = Instant::now();
        let status = command.status().with_context(|| format!("run {tool}"))?;
        let wall = begun.elapsed().as_secs_f64();
        let cpu = children()? - before.2;
        ensure!(status.success(), "{tool} failed");
        let requests = (source.requests()? - before.0, destination.requests()? - before.1);
        Ok(Row { tool: tool.into(), operation, wall, cpu, requests })
    };
    Ok([once("cold")?, once("no-op")?])
}

fn median(mut rows: Vec<Row>) -> Option<Row> {
    rows.sort_by(|a, b| a.wall.total_cmp(&b.wall));
    let middle = rows.len() / 2;
    rows.into_iter().nth(middle)
}

fn table(rows: &[Row]) -> String {
    let mut text = format!(
        "# A sync on one machine\n\n{REPOSITORIES} repositories of {TAGS} tags between two docker-registries on loopback; medians of {RUNS} runs.\n`cargo xtask bench` writes this file.\n\n| Operation | Tool | Wall s | CPU s | Requests source / destination |\n|---|---|---|---|---|\n"
    );
    for Row { tool, operation, wall, cpu, requests } in rows {
        // Writing to a string cannot fail.
        let _ = writeln!(
            text,
            "| {operation} | {tool} | {wall:.2} | {cpu:.2} | {} / {} |",
            requests.0, requests.1
        );
    }
    text
}

/// Bars of wall times.
fn chart(rows: &[Row]) -> String {
    let longest = rows.iter().map(|row| row.wall).fold(0.1, f64::max);
    let height = 28 * rows.len() + 16;
    let mut svg = format!(
        "<svg xmlns=\"http://www.w3.org/2000/svg\" width=\"720\" height=\"{height}\" font-family=\"sans-serif\" font-size=\"13\">\n<rect width=\"720\" height=\"{height}\" fill=\"white\"/>\n"
    );
    for (at, row) in rows.iter().enumerate() {
        let (y, width) = (8 + 28 * at, (row.wall / longest * 480.0).max(1.0));
        let colour = if row.tool == "dray" { "#1f6feb" } else { "#9aa4b2" };
        let _ = writeln!(
            svg,
            "<text x=\"8\" y=\"{}\">{}, {}</text><rect x=\"150\" y=\"{y}\" width=\"{width:.0}\" height=\"20\" fill=\"{colour}\"/><text x=\"{:.0}\" y=\"{}\">{:.2} s</text>",
            y + 15,
            row.tool,
            row.operation,
            158.0 + width,
            y + 15,
            row.wall
        );
    }
    svg + "</svg>\n"
}

/// The hot inner parts, by themselves.
fn inner() -> Result<String> {
    let mut command = Command::new("cargo");
    command.args(["bench", "--locked", "--package", "dray-runtime", "--bench", "inner"]);
    let output =
        command.current_dir(crate::top()).stderr(Stdio::inherit()).output().context("run cargo bench")?;
    ensure!(output.status.success(), "the benchmarks of the inner parts failed");
    let table = String::from_utf8(output.stdout)?;
    let lines: Vec<&str> =
        table.lines().map(str::trim_end).skip_while(|line| !line.starts_with("inner")).collect();
    println!("{table}");
    Ok(format!(
        "# The inner parts\n\nTimes of one call, by divan. `cargo xtask bench` writes this file.\n\n```text\n{}\n```\n",
        lines.join("\n").trim_end()
    ))
}

/// Measures, and writes `docs/performance/`.
pub fn run() -> Result<()> {
    crate::tests::step("", "cargo", &["build", "--release", "--locked"])?;
    let memory = Path::new("/dev/shm");
    let base = if memory.is_dir() { memory.to_owned() } else { std::env::temp_dir() };
    let folder = base.join(format!("dray-bench-{}", std::process::id()));
    fs::create_dir_all(&folder)?;
    let done = measured(&folder).and_then(|rows| Ok((rows, crate::scale::run(&folder)?)));
    fs::remove_dir_all(&folder)?;
    let (rows, scale) = done?;
    let out = crate::top().join("docs/performance");
    fs::create_dir_all(&out)?;
    fs::write(out.join("results.md"), table(&rows))?;
    fs::write(out.join("results.svg"), chart(&rows))?;
    fs::write(out.join("scale.md"), &scale)?;
    fs::write(out.join("inner.md"), inner()?)?;
    println!("{}\n{scale}", table(&rows));
    Ok(())
}

fn measured(folder: &Path) -> Result<Vec<Row>> {
    fill(folder)?;
    let source = Registry::start(folder, "source")?;
    let policy = folder.join("fill.toml");
    let to = &source.address;
    fs::write(
        &policy,
        format!(
            "version = 1\n[[rule]]\nname = \"fill\"\nfrom = \"oci:images\"\nto = \"docker://{to}/{{path}}\"\n"
        ),
    )?;
    let dray = crate::top().join("target/release/dray");
    let filled =
        Command::new(dray).arg("sync").arg(policy).env("XDG_STATE_HOME", folder.join("filling")).status()?;
    ensure!(filled.success(), "the source could not be filled");
    let tools = ["dray", "skopeo", "regsync", "crane", "regctl"]
        .into_iter()
        .filter(|tool| *tool == "dray" || is_there(tool));
    let (mut cold, mut warm) = (Vec::new(), Vec::new());
    for tool in tools {
        let (mut first, mut second) = (Vec::new(), Vec::new());
        for run in 1..=RUNS {
            println!("{tool}, run {run} of {RUNS}");
            let [one, other] = measure(tool, folder, &source)?;
            first.push(one);
            second.push(other);
        }
        cold.extend(median(first));
        warm.extend(median(second));
    }
    cold.extend(warm);
    Ok(cold)
}
