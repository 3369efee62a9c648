//! `dray runs`, and the record that a run leaves.

use crate::{
    DONE,
    args::{Output, RunsCommand, RunsOptions},
    failure::Failure,
    local,
    output::{bytes, counted},
    setup::Setup,
};
use dray_core::Report;
use dray_engine::{Journal, RunRecord};
use jiff::Timestamp;

/// A run that is recorded, where there is a journal.
pub struct Recorded<'a>(Option<(&'a Journal, i64)>);

impl<'a> Recorded<'a> {
    pub fn begin(setup: &'a Setup, command: &str, policy: Option<&str>) -> Self {
        let journal = setup.places.journal();
        Recorded(journal.and_then(|journal| match journal.begin(command, policy) {
            Ok(number) => Some((journal, number)),
            Err(error) => {
                tracing::warn!("failed to {error}; this run will not be listed");
                None
            }
        }))
    }

    pub fn end(self, report: &Report) {
        let Some((journal, number)) = self.0 else { return };
        journal.flush();
        if let Err(error) = journal.end(number, report) {
            tracing::warn!("failed to {error}; this run will not be listed");
        }
    }
}

pub fn run(options: &RunsOptions) -> Result<u8, Failure> {
    let local = local::local();
    let journal = local.opened()?;
    match &options.command {
        None => list(&journal.runs(options.number)?, options.output),
        Some(RunsCommand::Show { number }) => {
            let found = journal.run(*number)?;
            let (record, copies) = found.ok_or_else(|| {
                Failure::usage(format!(
                    "show the run {number}: there is none of this number; `dray runs` lists them"
                ))
            })?;
            show(&record, &copies, options.output);
        }
    }
    Ok(DONE)
}

/// How a run ended, for people.
fn state(record: &RunRecord) -> String {
    match (&record.summary, record.ended) {
        (Some(summary), _) => format!(
            "{} copied, {} unchanged, {} failed; {} in {:.1} s",
            counted(summary.copied, "image"),
            summary.unchanged,
            summary.failed,
            bytes(summary.bytes),
            summary.seconds
        ),
        (None, None) if record.under_way => "under way".into(),
        _ => "broken off".into(),
    }
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
        Output::Text if runs.is_empty() => println!("there are no earlier runs"),
        Output::Text => runs.iter().for_each(|record| println!("{}", line(record))),
    }
}

fn show(record: &RunRecord, copies: &serde_json::Value, output: Output) {
    match output {
        Output::Json => print_json(&serde_json::json!({ "run": record, "copies": copies })),
        Output::Text => {
            println!("{}", line(record));
            for copy in copies.as_array().into_iter().flatten() {
                let text = |key: &str| copy.get(key).and_then(serde_json::Value::as_str).unwrap_or_default();
                println!(
                    "  {} {} -> {}: {}",
                    text("action"),
                    text("source"),
                    text("destination"),
                    text("reason")
                );
                if !text("error").is_empty() {
                    println!("    {}", text("error"));
                }
            }
        }
    }
}

/// One JSON document on standard output.
pub fn print_json(value: &(impl serde::Serialize + ?Sized)) {
    match serde_json::to_string(value) {
        Ok(text) => println!("{text}"),
        Err(error) => eprintln!("error: failed to write it as JSON: {error}"),
    }
}
