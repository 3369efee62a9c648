//! `cargo xtask kill`: syncs that are killed at random moments and begun again must leave what an undisturbed one
//! leaves.

use crate::workload::{Registry, dray, filled, folder, policy};
use anyhow::{Context, Result, ensure};
use std::{
    collections::BTreeMap,
    fs,
    path::{Path, PathBuf},
    process::{Command, Stdio},
    time::{Duration, Instant},
};

/// What a file of a registry is: a link's content, or the size of what is named by its digest.
#[derive(PartialEq)]
enum Content {
    Link(String),
    Size(u64),
}

/// All files of a registry but those of uploads that were given up.
fn tree(root: &Path) -> Result<BTreeMap<PathBuf, Content>> {
    let (mut files, mut folders) = (BTreeMap::new(), vec![root.to_owned()]);
    while let Some(folder) = folders.pop() {
        for entry in fs::read_dir(folder)? {
            let (entry, path) = entry.map(|entry| (entry.file_type(), entry.path()))?;
            match path.file_name().and_then(|name| name.to_str()) {
                Some("_uploads") => {}
                _ if entry?.is_dir() => folders.push(path),
                Some("link") => drop(files.insert(path.clone(), Content::Link(fs::read_to_string(&path)?))),
                _ => drop(files.insert(path.clone(), Content::Size(fs::metadata(&path)?.len()))),
            }
        }
    }
    Ok(files)
}

/// A sync of everything, in a process of its own.
fn sync(folder: &Path, policy: &Path) -> Command {
    let mut command = Command::new(dray());
    command.arg("sync").arg(policy).env("XDG_STATE_HOME", folder.join("state"));
    command.stdout(Stdio::null()).stderr(Stdio::null());
    command
}

/// What several processes made of an empty destination.
struct Made {
    tree: BTreeMap<PathBuf, Content>,
    /// Of all of them.
    requests: usize,
    /// Those that had not come to their end by themselves.
    killed: u32,
}

/// Syncs that are killed after these times, and one that comes to its end.
fn lives(folder: &Path, source: &Registry, times: &[Duration]) -> Result<Made> {
    for kept in ["state", "destination"].map(|name| folder.join(name)) {
        if kept.exists() {
            fs::remove_dir_all(kept)?;
        }
    }
    let destination = Registry::start(folder, "destination")?;
    let policy = policy(folder, &source.address, &destination.address)?;
    let mut killed = 0;
    for time in times {
        let mut life = sync(folder, &policy).spawn().context("run dray")?;
        std::thread::sleep(*time);
        killed += u32::from(life.try_wait()?.is_none());
        life.kill()?;
        life.wait()?;
    }
    ensure!(sync(folder, &policy).status()?.success(), "a sync failed that nobody killed");
    Ok(Made { tree: tree(&folder.join("destination"))?, requests: destination.requests()?, killed })
}

/// Kills so many processes, three in a row before each that may come to its end, and writes what came of it to
/// `docs/performance/kills.md`.
pub fn run(kills: u32, seed: u64) -> Result<()> {
    crate::tests::step("", "cargo", &["build", "--release", "--locked"])?;
    let folder = folder("kill")?;
    let done = killed(&folder, kills, seed);
    fs::remove_dir_all(&folder)?;
    let text = done?;
    fs::write(crate::top().join("docs/performance/kills.md"), &text)?;
    println!("{text}");
    Ok(())
}

fn killed(folder: &Path, kills: u32, seed: u64) -> Result<String> {
    let source = filled(folder)?;
    let begun = Instant::now();
    let undisturbed = lives(folder, &source, &[])?;
    let longest = begun.elapsed().mul_f64(0.8);
    let mut random = fastrand::Rng::with_seed(seed);
    let (mut killed, mut counts) = (0, Vec::new());
    while killed < kills {
        let times: Vec<_> = (0..(kills - killed).min(3)).map(|_| longest.mul_f64(random.f64())).collect();
        let made = lives(folder, &source, &times)?;
        killed += made.killed;
        ensure!(made.tree == undisturbed.tree, "the destination differs after {killed} kills (seed {seed})");
        println!("{killed} of {kills} killed: the same content, {} requests", made.requests);
        counts.push(made.requests);
    }
    let undisturbed = undisturbed.requests;
    counts.sort_unstable();
    let (syncs, median) = (counts.len(), counts[counts.len() / 2]);
    let (least, most) = (counts[0], counts[counts.len() - 1]);
    Ok(format!(
        "# Syncs that are killed\n\n{kills} processes were killed with SIGKILL at random moments (seed {seed}) of {syncs} syncs of 200 images to an\nempty docker-registry, up to three in a row; then one went on to its end. Each time the registry held exactly what an\nundisturbed sync leaves. `cargo xtask kill` writes this file.\n\n| | Requests at the destination, of all lives |\n|---|---|\n| undisturbed | {undisturbed} |\n| killed: median | {median} |\n| least | {least} |\n| most | {most} |\n"
    ))
}
