//! Syncs images by a policy that is built in code, with progress of its own.
//! `cargo run --manifest-path examples/embed/Cargo.toml -- FROM TO`, for instance with
//! `oci:examples/images` and `oci:mirror`.
#![allow(clippy::print_stdout, reason = "it is a program")]

use anyhow::Context;
use dray_core::policy::{Policy, Rule};
use dray_engine::{Event, Observer, RunOptions};
use dray_session::{Environment, Record, Session};
use std::sync::{
    Arc,
    atomic::{AtomicU64, Ordering},
};

/// Tells of each image, and counts the bytes that were sent.
#[derive(Default)]
struct Progress(AtomicU64);

impl Observer for Progress {
    fn event(&self, event: Event<'_>) {
        match event {
            Event::Sent(bytes) => _ = self.0.fetch_add(bytes, Ordering::Relaxed),
            Event::Finished(copy) => println!("{:?} {}: {}", copy.action, copy.destination, copy.reason),
            _ => {}
        }
    }
}

#[tokio::main]
async fn main() -> anyhow::Result<()> {
    let mut arguments = std::env::args().skip(1);
    let (from, to) = arguments.next().zip(arguments.next()).context("say from where to where")?;
    let mut rule = Rule::new("images", from.parse()?, to.parse()?);
    rule.platforms = vec!["linux/amd64".parse()?];
    let policy = Policy { rules: vec![rule], ..Policy::default() };

    let folder = std::env::current_dir()?;
    let session = Session::open(policy, &folder, Environment::bare(std::env::temp_dir())).await?;
    let progress = Arc::new(Progress::default());
    let (_stop, stopped) = tokio::sync::watch::channel(false);
    let record = Record { command: "embed", policy: None };
    let options = RunOptions { keep_going: true, ..RunOptions::default() };
    let report = session.run(session.plan(), progress.clone(), options, record, stopped).await;
    let (copied, unchanged) = (report.summary.copied, report.summary.unchanged);
    println!("{copied} copied, {unchanged} unchanged, {} bytes sent", progress.0.load(Ordering::Relaxed));
    anyhow::ensure!(report.summary.failed == 0, "{} failed", report.summary.failed);
    Ok(())
}
