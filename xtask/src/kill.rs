//! `cargo xtask kill`: syncs that are killed at random moments and started again must leave the same content as an
//! undisturbed sync.

use crate::workload::{REPOSITORIES, Registry, TAGS, dray, filled, folder, large, policy};
use anyhow::{Context, Result, ensure};
use std::{
    collections::{BTreeMap, BTreeSet},
    fs,
    path::{Path, PathBuf},
    process::{Command, Stdio},
    time::{Duration, Instant},
};

/// What is compared of a file in a registry: the content of a link, or the size of any other file.
#[derive(Clone, PartialEq)]
enum Content {
    Link(String),
    Size(u64),
}

type Tree = BTreeMap<PathBuf, Content>;

/// All files of a registry, except those of abandoned uploads.
fn tree(root: &Path) -> Result<Tree> {
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

/// The links in a registry that say what the tags name.
fn tags(tree: &Tree) -> Tree {
    let current = tree.iter().filter(|(path, _)| path.ends_with("current/link"));
    current.map(|(path, content)| (path.clone(), content.clone())).collect()
}

/// The command that syncs everything.
fn sync(folder: &Path, policy: &Path) -> Command {
    let mut command = Command::new(dray());
    command.arg("sync").arg(policy).env("XDG_STATE_HOME", folder.join("state"));
    command.stdout(Stdio::null()).stderr(Stdio::null());
    command
}

/// The result of several processes that began with an empty destination.
struct Made {
    tree: Tree,
    /// Requests at the destination by all processes.
    requests: usize,
    /// How many processes were still running when they were killed.
    killed: u32,
}

/// Runs one process after the other. Each one has a source, and a time after which it is killed. `None` lets it end by
/// itself.
fn lives(folder: &Path, lives: &[(&Registry, Option<Duration>)], table: &str) -> Result<Made> {
    for kept in ["state", "destination"].map(|name| folder.join(name)) {
        if kept.exists() {
            fs::remove_dir_all(kept)?;
        }
    }
    let destination = Registry::start(folder, "destination")?;
    let mut killed = 0;
    for (source, end) in lives {
        let policy = policy(folder, &source.address, &destination.address, table)?;
        let mut life = sync(folder, &policy).spawn().context("run dray")?;
        match end {
            Some(end) => {
                std::thread::sleep(*end);
                killed += u32::from(life.try_wait()?.is_none());
                life.kill()?;
                life.wait()?;
            }
            None => ensure!(life.wait()?.success(), "a sync failed that nobody killed"),
        }
    }
    Ok(Made { tree: tree(&folder.join("destination"))?, requests: destination.requests()?, killed })
}

/// Kills this many processes, up to three in a row before each one that may end by itself, and writes the results to
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
    let (source, later) = (filled(folder, 0)?, filled(folder, 1)?);
    let begun = Instant::now();
    let calm = lives(folder, &[(&source, None)], "")?;
    let longest = begun.elapsed().mul_f64(0.8);
    let mut random = fastrand::Rng::with_seed(seed);
    let time = |random: &mut fastrand::Rng| Some(longest.mul_f64(random.f64()));
    let (mut killed, mut counts, mut moved) = (0, Vec::new(), Vec::new());
    // The number of rounds is limited, because a process that always ends before it is killed would never be counted.
    for round in 0..kills {
        if killed >= kills {
            break;
        }
        let [one, two, three] = [0; 3].map(|_| (&source, time(&mut random)));
        let made = lives(folder, &[one, two, three, (&source, None)], "")?;
        killed += made.killed;
        ensure!(made.tree == calm.tree, "the destination differs after {killed} kills (seed {seed})");
        counts.push(made.requests);
        println!("{killed} of {kills} killed: the same content");
        if round % 4 > 0 {
            continue;
        }
        // The tags move on and back. The destination is not asked what it has, because `assume-unchanged` trusts the
        // journal.
        let [one, two, three] = [&later, &source, &later].map(|source| (source, time(&mut random)));
        let made =
            lives(folder, &[(&source, None), one, two, three, (&source, None)], "assume-unchanged = true")?;
        moved.push(made.killed);
        ensure!(tags(&made.tree) == tags(&calm.tree), "tags differ after {killed} kills (seed {seed})");
    }
    counts.sort_unstable();
    let (syncs, undisturbed) = (counts.len(), calm.requests);
    let (least, median, most) = (counts[0], counts[syncs / 2], counts[syncs - 1]);
    let (moves, moved): (usize, u32) = (moved.len(), moved.iter().sum());
    let files = downloads(folder, kills / 2, &mut random)?;
    let images = REPOSITORIES * TAGS;
    Ok(format!(
        "# Syncs that are killed\n\nProcesses were killed with SIGKILL at random moments (seed {seed}). `cargo xtask kill` writes this file.\n\n{killed} of them synced {images} images to an empty docker-registry, up to three in a row; then one went on to its end. Each of\n{syncs} times the registry held exactly what an undisturbed sync leaves.\n\n| | Requests at the destination, of all lives |\n|---|---|\n| undisturbed | {undisturbed} |\n| killed: median | {median} |\n| least | {least} |\n| most | {most} |\n\n{moved} more moved tags on and back at a registry that held them, with `assume-unchanged`. Each of {moves} times all tags were\nthose of the source in the end.\n{files}"
    ))
}

/// Sizes in bytes of the layers of the image in [`downloads`].
const LAYERS: [usize; 5] = [90 << 20, 60 << 20, 40 << 20, 20 << 20, 5 << 20];

/// Kills syncs of one large image to a folder and to an archive.
fn downloads(folder: &Path, kills: u32, random: &mut fastrand::Rng) -> Result<String> {
    let mut text = format!(
        "\nOne image of {} MiB was brought to files, at 250 MB/s, up to three in a row killed. Each time all blobs were those of\nthe source, byte for byte, and nothing else was left.\n\n| To | Killed | Bytes read by all lives, median | Most |\n|---|---|---|---|\n",
        LAYERS.iter().sum::<usize>() >> 20
    );
    let size = LAYERS.iter().sum::<usize>() as f64;
    for to in ["oci:out", "oci-archive:out.tar"] {
        let (mut killed, mut read) = (0, Vec::new());
        for _ in 0..kills {
            if killed >= kills {
                break;
            }
            for kept in ["state", "work"].map(|name| folder.join(name)) {
                if kept.exists() {
                    fs::remove_dir_all(kept)?;
                }
            }
            let work = folder.join("work");
            fs::create_dir_all(&work)?;
            let source = large(&work, &LAYERS)?;
            let from = &source.address;
            fs::write(
                work.join("dray.toml"),
                format!(
                    "version = 1\n[registry.\"{from}\"]\nbandwidth = \"250MB/s\"\n[[rule]]\nname = \"large\"\nfrom = \"docker://{from}/large\"\nto = \"{to}\"\n"
                ),
            )?;
            for _ in 0..3 {
                let mut life = sync(folder, &work.join("dray.toml")).spawn().context("run dray")?;
                std::thread::sleep(Duration::from_millis(random.u64(50..700)));
                killed += u32::from(life.try_wait()?.is_none());
                life.kill()?;
                life.wait()?;
            }
            ensure!(
                sync(folder, &work.join("dray.toml")).status()?.success(),
                "a sync failed that nobody killed"
            );
            read.push(source.given()? as f64 / size);
            if to.ends_with(".tar") {
                fs::create_dir_all(work.join("out"))?;
                let unpacked =
                    Command::new("tar").args(["xf", "out.tar", "-C", "out"]).current_dir(&work).status()?;
                ensure!(unpacked.success(), "tar cannot read the archive");
            }
            let blobs = |layout: &str| work.join(layout).join("blobs/sha256");
            let names = |layout: &str| {
                let entries = fs::read_dir(blobs(layout))?.map(|entry| Ok(entry?.file_name()));
                entries.collect::<Result<BTreeSet<_>>>()
            };
            let (there, expected) = (names("out")?, names("large")?);
            ensure!(there == expected, "{to}: {there:?} where {expected:?} were expected");
            for name in there {
                let same = fs::read(blobs("out").join(&name))? == fs::read(blobs("large").join(&name))?;
                ensure!(same, "{to}: {} differs", name.display());
            }
            let left = fs::read_dir(&work)?.filter_map(|entry| entry.ok()?.file_name().into_string().ok());
            ensure!(left.into_iter().all(|name| !name.starts_with(".dray")), "{to}: a part was left");
            println!("{killed} of {kills} killed: {to} is the same");
        }
        read.sort_by(f64::total_cmp);
        let (median, most) = (read[read.len() / 2], read[read.len() - 1]);
        text += &format!("| `{to}` | {killed} | {median:.2} of the image | {most:.2} |\n");
    }
    Ok(text)
}
