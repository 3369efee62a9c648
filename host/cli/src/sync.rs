//! `dray sync`, and the end of every command that copies.

use crate::{
    DONE, FAILED,
    args::{Output, SyncOptions},
    failure::Failure,
    output::{bytes, counted, print_json, say},
    policy,
    progress::{Progress, Screen},
    runs::Recorded,
    sandbox::{Confined, confine},
    signals::Stop,
};
use dray_core::{Action, Report};
use dray_engine::{Error, Kind, Places, Planned, Run, RunOptions, plan};
use std::sync::Arc;
use tokio::sync::mpsc;

/// Reads the policy, and confines the process to what it names: before any thread begins, which would not be.
pub fn load(options: &SyncOptions) -> Result<policy::Loaded, Failure> {
    let mut loaded = policy::load(&options.policy)?;
    loaded.choose(&options.rules)?;
    if !options.no_sandbox
        && let Confined::No(why) = confine(&loaded)
    {
        tracing::info!("not confined to the paths that the policy names: {why}");
    }
    Ok(loaded)
}

pub async fn run(options: SyncOptions, loaded: policy::Loaded, screen: Screen) -> Result<u8, Failure> {
    let stop = Stop::listen();
    let (setup, rules) = loaded.bind(true).await?;
    let progress = screen.watch();
    let recorded =
        Recorded::begin(&setup, "sync", Some(&options.policy.display().to_string()), progress.clone());
    let unchanged = options.output == Output::Json;
    let run = RunOptions { keep_going: options.keep_going, unchanged, ..RunOptions::default() };
    let run = Run::new(recorded.clone(), run);
    let planned = counting(planning(rules, setup.places.clone()), progress);
    let report = run.carry_out(planned, stop.signal.clone()).await;
    recorded.end(&report, &stop);
    let unfinished = report.summary.failed > 0 && !options.keep_going;
    Ok(end(&report, options.output, &stop, unfinished))
}

/// A plan that grows in the background.
pub fn planning(rules: Vec<dray_engine::BoundRule>, places: Arc<Places>) -> mpsc::Receiver<Planned> {
    let (sender, receiver) = mpsc::channel(256);
    let planning = tokio::spawn(plan(rules, places, sender.clone()));
    tokio::spawn(async move {
        if planning.await.is_err() {
            // A plan that broke off must not pass for one that ended.
            let error = Error::new(Kind::Plugin, "plan: dray itself failed");
            let failed = Planned::Failed {
                rule: String::new(),
                source: String::new(),
                destination: String::new(),
                error,
            };
            let _ = sender.send(failed).await;
        }
    });
    receiver
}

/// Shows how many images there are as the plan passes.
fn counting(mut plan: mpsc::Receiver<Planned>, progress: Arc<Progress>) -> mpsc::Receiver<Planned> {
    let (sender, receiver) = mpsc::channel(256);
    tokio::spawn(async move {
        while let Some(planned) = plan.recv().await {
            if !matches!(planned, Planned::Dropped { .. }) {
                progress.planned();
            }
            if sender.send(planned).await.is_err() {
                return;
            }
        }
    });
    receiver
}

/// Writes the report; the exit code.
pub fn end(report: &Report, output: Output, stop: &Stop, unfinished: bool) -> u8 {
    match output {
        Output::Json => print_json(report),
        Output::Text => summarise(report, stop.code().is_some(), unfinished),
    }
    match stop.code() {
        Some(code) => code,
        None if report.summary.failed > 0 => FAILED,
        None => DONE,
    }
}

fn summarise(report: &Report, stopped: bool, unfinished: bool) {
    let summary = report.summary;
    if stopped {
        say!("stopped: what was under way is not published; run it again to go on");
    } else if unfinished {
        say!("stopped at the first failure; --keep-going does the rest");
    }
    for copy in report.copies.iter().filter(|copy| copy.action == Action::Copy) {
        if let Some(written) = &copy.written {
            say!(
                "{} was converted: {} became {written}",
                copy.destination,
                copy.digest.as_deref().unwrap_or("it")
            );
        }
    }
    let mounted = match summary.mounted_bytes {
        0 => String::new(),
        count => format!(", {} spared by mounts", bytes(count)),
    };
    say!(
        "{} copied, {} unchanged, {} failed; {} sent{mounted} in {:.1} s",
        counted(summary.copied, "image"),
        summary.unchanged,
        summary.failed,
        bytes(summary.bytes),
        summary.seconds
    );
}
