//! `dray runs undo`

use crate::{
    DONE, FAILED,
    args::{Access, Output},
    failure::Failure,
    local,
    output::{counted, print_json, say, tell},
    policy,
    progress::Screen,
    running, runs, setup,
    signals::Stop,
};
use dray_core::Summary;
use dray_engine::{Places, PutBack, TagChanged, put_back};
use serde_json::json;
use std::{path::PathBuf, sync::Arc, time::Instant};

pub async fn run(
    number: i64,
    dry_run: bool,
    access: &Access,
    output: Output,
    screen: &Screen,
) -> Result<u8, Failure> {
    let stop = Stop::listen(screen);
    let (record, changes) = {
        let local = local::local();
        let journal = local.opened()?;
        (runs::found(journal, number)?, journal.changes(number)?)
    };
    if changes.is_empty() {
        return told_nothing(number, output);
    }
    let paths = record.policy.as_deref().map(policies).unwrap_or_default();
    // A run of the policy would write to the same tags.
    let _running = running::take(&paths, (&[], None), false, &stop).await?;
    let places = places(paths, access).await?;
    let begun = Instant::now();
    let journal = places.journal().filter(|_| !dry_run);
    let this = match journal {
        Some(journal) => Some(journal.begin(&format!("undo {number}"), record.policy.as_deref())?),
        None => None,
    };
    let (mut summary, mut entries) = (Summary::default(), Vec::new());
    for changed in &changes {
        if stop.code().is_some() {
            break;
        }
        let done = put_back(&places, changed, this, dry_run).await;
        match &done {
            Ok(PutBack::Done) => summary.copied += 1,
            Ok(PutBack::Needless) => summary.unchanged += 1,
            Err(_) => summary.failed += 1,
        }
        match output {
            Output::Json => entries.push(entry(changed, &done)),
            Output::Text => told(changed, &done, dry_run),
        }
    }
    summary.seconds = begun.elapsed().as_secs_f64();
    if let (Some(journal), Some(this)) = (journal, this) {
        journal.end(this, &summary, false)?;
    }
    match output {
        Output::Json => print_json(&json!({ "run": number, "dry_run": dry_run, "tags": entries })),
        Output::Text => say!(
            "{} {}, {} as it was, {} failed",
            counted(summary.copied, "tag"),
            if dry_run { "would be put back" } else { "put back" },
            summary.unchanged,
            summary.failed
        ),
    }
    Ok(match stop.code() {
        Some(code) => code,
        None if summary.failed > 0 => FAILED,
        None => DONE,
    })
}

fn told_nothing(number: i64, output: Output) -> Result<u8, Failure> {
    match output {
        Output::Json => print_json(&json!({ "run": number, "dry_run": false, "tags": [] })),
        Output::Text => say!("the run {number} made no tag name something else, and deleted none"),
    }
    Ok(DONE)
}

/// The policies of a run that are still there. The journal joins their paths with `and`.
fn policies(recorded: &str) -> Vec<PathBuf> {
    let whole = PathBuf::from(recorded);
    match whole.is_file() {
        true => vec![whole],
        false => recorded.split(" and ").map(PathBuf::from).filter(|path| path.is_file()).collect(),
    }
}

/// The places of the run: as flags say, or as its policies do if they are still there.
async fn places(paths: Vec<PathBuf>, access: &Access) -> Result<Arc<Places>, Failure> {
    match paths.is_empty() || access.is_told() {
        true => setup::places(access).await,
        false => Ok(policy::load(&paths)?.open().await?.places().clone()),
    }
}

fn told(changed: &TagChanged, done: &Result<PutBack, dray_engine::Error>, dry_run: bool) {
    let TagChanged { reference, before, .. } = changed;
    match done {
        Ok(PutBack::Done) => {
            let done = if dry_run { "would name" } else { "names" };
            say!("{reference} {done} {} again", before.short());
        }
        Ok(PutBack::Needless) => say!("{reference} names {} already", before.short()),
        Err(error) => {
            tell!("error: failed to {error}");
            if let Some(help) = &error.help {
                tell!("  help: {help}");
            }
        }
    }
}

fn entry(changed: &TagChanged, done: &Result<PutBack, dray_engine::Error>) -> serde_json::Value {
    let TagChanged { reference, before, .. } = changed;
    match done {
        Ok(PutBack::Done) => json!({ "reference": reference, "digest": before, "action": "put-back" }),
        Ok(PutBack::Needless) => json!({ "reference": reference, "digest": before, "action": "unchanged" }),
        Err(error) => json!({
            "reference": reference,
            "digest": before,
            "action": "fail",
            "error": format!("failed to {error}"),
            "help": error.help,
        }),
    }
}
