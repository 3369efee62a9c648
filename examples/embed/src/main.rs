//! Syncs images by a policy that is built in code, with progress and a transport of its own.
//! `cargo run --manifest-path examples/embed/Cargo.toml -- FROM TO`, for instance with
//! `oci:examples/images` and `oci:mirror`, or with `banner:hello` and `oci:mirror:hello`.
#![allow(clippy::print_stdout, reason = "it is a program")]

mod banner;

use anyhow::Context;
use banner::Banner;
use dray_core::policy::{Policy, Rule};
use dray_engine::{Event, Watcher};
use dray_session::{Environment, Session};
use std::sync::{
    Arc,
    atomic::{AtomicU64, Ordering},
};

/// Tells of each image, and counts the bytes that were sent.
#[derive(Default)]
struct Progress(AtomicU64);

impl Watcher for Progress {
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
    let mut environment = Environment::bare(std::env::temp_dir());
    environment.transports.insert("banner".into(), Arc::new(Banner));
    let session = Session::open(policy, &folder, environment).await?;
    let progress = Arc::new(Progress::default());
    let (stop, stopped) = tokio::sync::watch::channel(false);
    // What is under way at Ctrl-C is not published, and the next run goes on with it.
    tokio::spawn(async move {
        if tokio::signal::ctrl_c().await.is_ok() {
            let _ = stop.send(true);
        }
    });
    let report = session.sync(progress.clone(), stopped).await;
    let (copied, unchanged) = (report.summary.copied, report.summary.unchanged);
    println!("{copied} copied, {unchanged} unchanged, {} bytes sent", progress.0.load(Ordering::Relaxed));
    anyhow::ensure!(report.summary.failed == 0, "{} failed", report.summary.failed);
    Ok(())
}
