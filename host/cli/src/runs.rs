//! `dray runs`

use crate::{
    DONE,
    args::{Output, RunsCommand, RunsOptions},
    failure::Failure,
    local,
    output::{bytes, counted, print_json, say},
};
use dray_core::CopyReport;
use dray_engine::RunRecord;
use jiff::Timestamp;

pub fn run(options: &RunsOptions) -> Result<u8, Failure> {
    let local = local::local();
    let journal = local.opened()?;
    match &options.command {
        None => list(&journal.runs(options.number)?, options.output),
        Some(RunsCommand::Show { number }) => {
            let record = journal.run(*number)?.ok_or_else(|| {
                Failure::usage(format!(
                    "show the run {number}: there is none of this number; `dray runs` lists them"
                ))
            })?;
            match options.output {
                Output::Json => {
                    let mut copies = Vec::new();
                    journal.copies(*number, |copy| copies.push(copy))?;
                    // A report as the run itself printed it, and what the run was.
                    let summary = &record.summary;
                    print_json(&serde_json::json!({ "summary": summary, "copies": copies, "run": record }));
                }
                Output::Text => {
                    say!("{}", line(&record));
                    journal.copies(*number, |copy| show(&copy))?;
                }
            }
        }
    }
    Ok(DONE)
}

/// How a run ended, for people.
fn state(record: &RunRecord) -> String {
    let Some(summary) = &record.summary else {
        let how = if record.under_way { "under way" } else { "broken off" };
        return format!("{how}; {} copied so far, {} failed", counted(record.copied, "image"), record.failed);
    };
    format!(
        "{}{} copied, {} unchanged, {} failed; {} in {:.1} s",
        if record.stopped { "stopped; " } else { "" },
        counted(summary.copied, "image"),
        summary.unchanged,
        summary.failed,
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
        Output::Text if runs.is_empty() => say!("there are no earlier runs"),
        Output::Text => runs.iter().for_each(|record| say!("{}", line(record))),
    }
}

fn show(copy: &CopyReport) {
    let CopyReport { source, destination, reason, .. } = copy;
    match &copy.error {
        None => {
            say!("  {} {source} -> {destination}: {reason}, {}", copy.action.as_str(), bytes(copy.bytes));
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
