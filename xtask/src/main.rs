//! Builds, checks and tests dray: `cargo xtask --help`.
#![allow(clippy::print_stdout, clippy::print_stderr, reason = "a command-line tool")]

mod bench;
mod dist;
mod gates;
mod kill;
mod plugins;
mod reference;
mod scale;
mod sources;
mod still;
mod tests;
mod workload;

use anyhow::Result;
use clap::{Parser, Subcommand};
use std::path::{Path, PathBuf};

#[derive(Parser)]
#[command(name = "cargo xtask", about = "Builds, checks and tests dray")]
struct Arguments {
    #[command(subcommand)]
    task: Task,
}

#[derive(Subcommand)]
enum Task {
    /// Build the first-party plugins into plugins/prebuilt, or a plugin of your own
    Plugins {
        /// Rebuild with the canonical toolchain and compare bytes; write nothing
        #[arg(long)]
        check: bool,
        /// Folder of a plugin outside of plugins/; the component is written into it
        path: Option<PathBuf>,
    },
    /// Install what the tests need (with apt, as root) and run every test
    Test,
    /// Measure whole syncs with dray and with other tools that are installed; writes docs/performance/
    Bench,
    /// Kill syncs at random moments, and compare the final content with that of an undisturbed sync; writes
    /// docs/performance/kills.md
    Kill {
        /// How many processes to kill
        #[arg(long, default_value_t = 100)]
        kills: u32,
        /// Seed of the random moments
        #[arg(long, default_value_t = 1)]
        seed: u64,
    },
    /// Draw what a plan and a sync print as docs/plan.svg, for the README
    Still,
    /// Write the reference of the plugin contract, docs/plugins/reference.md, from the comments of wit/plugin.wit
    Reference,
    /// Make a release of this machine: target/dist/dray-VERSION-TARGET.tar.gz and its checksum
    Dist,
    /// Check formatting, lints, documentation and dependencies
    Gates,
}

fn main() -> Result<()> {
    match Arguments::parse().task {
        Task::Plugins { check: true, .. } => plugins::check(),
        Task::Plugins { path: Some(path), .. } => plugins::build_one(&path),
        Task::Plugins { .. } => plugins::build(),
        Task::Test => tests::run(),
        Task::Bench => bench::run(),
        Task::Kill { kills, seed } => kill::run(kills, seed),
        Task::Still => still::run(),
        Task::Reference => reference::write(),
        Task::Dist => dist::run(),
        Task::Gates => gates::run(),
    }
}

/// The root folder of the repository.
fn top() -> PathBuf {
    let here = Path::new(env!("CARGO_MANIFEST_DIR"));
    here.parent().unwrap_or(here).to_owned()
}
