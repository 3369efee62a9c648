//! `dray runs`

use crate::{
    DONE,
    args::{Output, RunsCommand, RunsOptions},
    failure::Failure,
    local,
    output::{bytes, counted, counts, print_json, say},
    progress::Screen,
    undo,
};
use dray_core::{Action, CopyReport};
use dray_engine::{Journal, RunRecord};
use jiff::Timestamp;

pub async fn run(options: RunsOptions, screen: Screen) -> Result<u8, Failure> {
    match options.command {
        Some(RunsCommand::Undo { number, dry_run, access }) => {
            if options.rule.is_some() || options.failed || options.since.is_some() {
                let text = "undo a run in part: --rule, --failed and --since choose what is shown";
                return Err(Failure::usage(text));
            }
            undo::run(number, dry_run, &access, options.output, &screen).await
        }
        _ => look(&options),
    }
}

fn look(options: &RunsOptions) -> Result<u8, Failure> {
    let local = local::local();
    let journal = local.opened()?;
    match &options.command {
        None | Some(RunsCommand::Undo { .. }) => list(&chosen(journal, options)?, options.output),
        Some(RunsCommand::Show { number }) => {
            let record = found(journal, *number)?;
            match options.output {
                Output::Json => {
                    let mut copies = Vec::new();
                    journal.copies(*number, |copy| copies.extend(wanted(&copy, options).then_some(copy)))?;
                    // A report as the run itself printed it, and what the run was.
                    let summary = &record.summary;
                    print_json(&serde_json::json!({ "summary": summary, "copies": copies, "run": record }));
                }
                Output::Text => {
                    say!("{}", line(&record));
                    let shown = |copy: CopyReport| {
                        if wanted(&copy, options) {
                            show(&copy);
                        }
                    };
                    journal.copies(*number, shown)?;
                }
            }
        }
    }
    Ok(DONE)
}

/// The run with this number.
pub fn found(journal: &Journal, number: i64) -> Result<RunRecord, Failure> {
    journal.run(number)?.ok_or_else(|| {
        Failure::usage(format!("find the run {number}: there is none of this number; `dray runs` lists them"))
    })
}

/// Whether a copy of a run is asked for.
fn wanted(copy: &CopyReport, options: &RunsOptions) -> bool {
    let rule = options.rule.as_ref().is_none_or(|rule| *rule == copy.rule);
    rule && (!options.failed || copy.error.is_some())
}

/// The runs that are asked for, the newest first.
fn chosen(journal: &Journal, options: &RunsOptions) -> Result<Vec<RunRecord>, Failure> {
    let filtered = options.failed || options.since.is_some() || options.rule.is_some();
    let all = journal.runs(if filtered { u32::MAX } else { options.number })?;
    let earliest = options.since.map(Timestamp::as_second);
    let wanted = |record: &RunRecord| {
        let failed = record.summary.as_ref().map_or(record.failed, |summary| summary.failed);
        let broken = record.summary.is_none() && !record.under_way;
        (!options.failed || failed > 0 || broken) && earliest.is_none_or(|earliest| record.begun >= earliest)
    };
    let mut found = Vec::new();
    for record in all.into_iter().filter(wanted) {
        let mut of_rule = options.rule.is_none();
        if let Some(rule) = &options.rule {
            journal.copies(record.id, |copy| of_rule |= copy.rule == *rule)?;
        }
        if of_rule {
            found.push(record);
        }
        if found.len() == options.number as usize {
            break;
        }
    }
    Ok(found)
}

/// How a run ended, for people.
fn state(record: &RunRecord) -> String {
    let Some(summary) = &record.summary else {
        let how = if record.under_way { "under way" } else { "broken off" };
        return format!("{how}; {} copied so far, {} failed", counted(record.copied, "image"), record.failed);
    };
    format!(
        "{}{}; {} in {:.1} s",
        if record.stopped { "stopped; " } else { "" },
        counts(summary),
        bytes(summary.bytes),
        summary.seconds
    )
}

fn line(record: &RunRecord) -> String {
    let begun = Timestamp::from_second(record.begun).unwrap_or_default();
    let command = match &record.policy {
        Some(policy) => format!("{} {policy}", record.command),
        None => record.command.clone(),
    };
    format!("{:>6}  {begun}  {command}: {}", record.id, state(record))
}

fn list(runs: &[RunRecord], output: Output) {
    match output {
        Output::Json => print_json(runs),
        Output::Text if runs.is_empty() => say!("there are no such runs"),
        Output::Text => {
            say!("{:>6}  {:<20}  what it was, and what came of it", "run", "began");
            runs.iter().for_each(|record| say!("{}", line(record)));
        }
    }
}

fn show(copy: &CopyReport) {
    let CopyReport { source, destination, reason, .. } = copy;
    match &copy.error {
        None if copy.action == Action::Drop => say!("  refused {source}: {reason}"),
        None => {
            match copy.action {
                Action::Delete => say!("  delete {destination}: {reason}"),
                action => {
                    say!("  {} {source} -> {destination}: {reason}, {}", action.as_str(), bytes(copy.bytes))
                }
            }
            if let Some(backup) = &copy.backup {
                say!("    backed up as {backup}");
            }
            if let Some(digest) = copy.written.as_ref().or(copy.digest.as_ref()) {
                say!("    {digest}");
            }
        }
        Some(error) => {
            say!("  {} {source} -> {destination}", copy.action.as_str());
            say!("    {error}");
        }
    }
    if let Some(help) = &copy.help {
        say!("    help: {help}");
    }
}
