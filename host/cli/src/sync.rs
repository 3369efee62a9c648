//! `dray sync`, and the end of every command that copies.

use crate::{
    DONE, FAILED,
    args::{Output, RunFlags, SyncOptions},
    failure::Failure,
    failures, lock,
    output::{bytes, counts, print_json, say, tell},
    policy,
    progress::{Progress, Screen},
    running,
    sandbox::confine,
    signals::Stop,
    trace::Trace,
};
use dray_core::{Action, Report};
use dray_engine::{Planned, RunOptions};
use dray_runtime::Tracer;
use dray_session::{Record, Session};
use std::sync::Arc;
use tokio::sync::mpsc;

/// Reads the policy, and confines the process to what it names: before any thread begins, which would not be.
pub fn load(options: &SyncOptions) -> Result<policy::Loaded, Failure> {
    let mut loaded = policy::load(&options.policies)?;
    loaded.has_rules()?;
    loaded.choose(&options.rules)?;
    loaded.prune(&options.prune);
    loaded.with_reports(&options.reports)?;
    if options.locked {
        lock::narrow(&mut loaded)?;
    }
    if !options.run.no_sandbox {
        confine(&loaded);
    }
    Ok(loaded)
}

pub async fn run(options: SyncOptions, mut loaded: policy::Loaded, screen: Screen) -> Result<u8, Failure> {
    let stop = Stop::listen(&screen);
    let _running =
        running::take(&loaded.paths(), (&options.rules, options.shard), options.run.wait, &stop).await?;
    let policy = loaded.whole_name();
    let trace = Trace::of(&options.trace_plugin, &screen);
    loaded.tracer = trace.clone().map(|trace| trace as Arc<dyn Tracer>);
    let session = loaded.open().await?.of_shard(options.shard);
    let plan = session.plan();
    let record = Record::of("sync").with_policy(&policy);
    let code = carried_out(&session, plan, record, &stop, &screen, &options.run).await;
    if let Some(trace) = trace {
        trace.end();
    }
    code
}

/// Carries out a plan and tells of it; the exit code.
pub async fn carried_out(
    session: &Session,
    plan: mpsc::Receiver<Planned>,
    record: Record<'_>,
    stop: &Stop,
    screen: &Screen,
    flags: &RunFlags,
) -> Result<u8, Failure> {
    let RunFlags { output, fail_fast, .. } = *flags;
    let progress = screen.watch(session.places(), stop);
    let unchanged = output == Output::Json;
    let mut options = RunOptions::default();
    (options.keep_going, options.unchanged) = (!fail_fast, unchanged);
    let plan = counting(plan, progress.clone());
    let report = session.run(plan, progress.clone(), options, record, stop.signal.clone()).await;
    progress.end();
    failures::tell_all(&report, screen);
    let unfinished = report.summary.failed > 0 && fail_fast;
    Ok(end(report, output, stop, unfinished))
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
        progress.planned_all();
    });
    receiver
}

/// Writes the report; the exit code.
pub fn end(report: Report, output: Output, stop: &Stop, unfinished: bool) -> u8 {
    match output {
        Output::Json => print_json(&report),
        Output::Text => summarise(&report, unfinished),
    }
    // A run that was whole before it was told to stop did all of its work.
    match stop.code().filter(|_| report.stopped) {
        Some(code) => code,
        None if report.summary.failed > 0 => FAILED,
        None => DONE,
    }
}

fn summarise(report: &Report, unfinished: bool) {
    let summary = report.summary;
    if report.stopped {
        tell!("stopped: what was under way is not published; run it again to go on");
    } else if unfinished {
        tell!("stopped at the first failure, because of --fail-fast");
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
    say!("{}; {} sent{mounted} in {:.1} s", counts(&summary), bytes(summary.bytes), summary.seconds);
}
