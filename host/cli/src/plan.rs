//! `dray plan`

use crate::{
    DONE, DUE, FAILED,
    args::{Output, PlanOptions},
    failure::Failure,
    output::{counted, exact, line},
    policy,
    progress::Screen,
    sync,
};
use dray_core::{Action, CopyReport};
use dray_engine::Planned;
use std::io::{BufWriter, IsTerminal, Write};

/// What a plan holds, in numbers.
#[derive(Default, serde::Serialize)]
struct Totals {
    copy: u64,
    unchanged: u64,
    dropped: u64,
    failed: u64,
}

pub async fn run(options: PlanOptions, screen: Screen) -> Result<u8, Failure> {
    let mut loaded = policy::load(&options.policy)?;
    loaded.choose(&options.rules)?;
    let (setup, rules) = loaded.bind(true).await?;
    let mut plan = sync::planning(rules, setup.places.clone());
    // A plan that people read as it grows shows by itself how it goes on.
    let progress = (!std::io::stdout().is_terminal()).then(|| screen.watch_plan());
    let mut totals = Totals::default();
    let mut out = Out { sink: BufWriter::new(std::io::stdout()), output: options.output, first: true };
    let written = async {
        out.begin()?;
        while let Some(planned) = plan.recv().await {
            out.entry(&mut totals, &planned)?;
            if let Some(progress) = &progress {
                progress.planned();
            }
            if plan.is_empty() {
                out.sink.flush()?;
            }
        }
        out.end(&totals)
    };
    let written = written.await;
    if let Some(progress) = progress {
        progress.end();
    }
    // Whoever reads the plan may have seen enough.
    if let Err(error) = written
        && error.kind() != std::io::ErrorKind::BrokenPipe
    {
        return Err(Failure::usage(format!("write the plan: {error}")));
    }
    Ok(match (totals.failed, totals.copy) {
        (1.., _) => FAILED,
        (0, 1..) if options.detailed_exitcode => DUE,
        _ => DONE,
    })
}

struct Out {
    sink: BufWriter<std::io::Stdout>,
    output: Output,
    first: bool,
}

impl Out {
    fn begin(&mut self) -> std::io::Result<()> {
        match self.output {
            Output::Json => write!(self.sink, "{{\"copies\": ["),
            Output::Text => Ok(()),
        }
    }

    fn entry(&mut self, totals: &mut Totals, planned: &Planned) -> std::io::Result<()> {
        let entry = describe(planned);
        match entry.action {
            Action::Copy => totals.copy += 1,
            Action::Unchanged => totals.unchanged += 1,
            Action::Drop => totals.dropped += 1,
            Action::Fail => totals.failed += 1,
        }
        match self.output {
            Output::Json => {
                let separator = if std::mem::take(&mut self.first) { "\n" } else { ",\n" };
                let mut value = serde_json::to_value(&entry).map_err(std::io::Error::other)?;
                // Nothing was sent.
                value.as_object_mut().map(|object| object.remove("bytes"));
                write!(self.sink, "{separator}{}", exact(&value.to_string()))
            }
            Output::Text => {
                let CopyReport { source, destination, reason, .. } = &entry;
                let told = match entry.action {
                    Action::Copy => format!("copy       {source} -> {destination} ({reason})"),
                    Action::Unchanged => format!("unchanged  {destination}"),
                    Action::Drop => format!("drop       {source} ({reason})"),
                    Action::Fail => {
                        let error = entry.error.as_deref().unwrap_or_default();
                        format!("fail       {source} -> {destination}: {error}")
                    }
                };
                self.sink.write_all(line(&told).as_bytes())?;
                match &entry.help {
                    Some(help) => self.sink.write_all(line(&format!("           help: {help}")).as_bytes()),
                    None => Ok(()),
                }
            }
        }
    }

    fn end(&mut self, totals: &Totals) -> std::io::Result<()> {
        match self.output {
            Output::Json => {
                let summary = serde_json::to_string(totals).map_err(std::io::Error::other)?;
                writeln!(self.sink, "\n], \"summary\": {summary}}}")?;
            }
            Output::Text => {
                let Totals { copy, unchanged, dropped, failed } = totals;
                writeln!(
                    self.sink,
                    "{} to copy, {unchanged} unchanged, {dropped} dropped by filters, {failed} failed",
                    counted(*copy, "image")
                )?;
            }
        }
        self.sink.flush()
    }
}

fn describe(planned: &Planned) -> CopyReport {
    let entry = |rule: &str, source: &str, destination: &str, action, reason: String| CopyReport {
        written: None,
        place: String::new(),
        rule: rule.into(),
        source: source.into(),
        destination: destination.into(),
        digest: None,
        action,
        reason,
        bytes: 0,
        error: None,
        help: None,
    };
    match planned {
        Planned::Copy(planned) => {
            let copy = &planned.copy;
            let digest = Some(copy.descriptor.digest.to_string());
            CopyReport {
                digest,
                ..entry(
                    &copy.rule,
                    &copy.source.display,
                    &copy.destination.display,
                    copy.action,
                    match copy.form.is_unchanged() || copy.action != Action::Copy {
                        true => copy.reason.to_string(),
                        false => format!("{}; {}", copy.reason, copy.form),
                    },
                )
            }
        }
        Planned::Dropped { rule, source, by } => {
            entry(rule, &source.display, "", Action::Drop, format!("dropped by {by}"))
        }
        Planned::Failed { rule, source, destination, error } => CopyReport {
            error: Some(format!("failed to {error}")),
            help: error.help.clone(),
            ..entry(rule, source, destination, Action::Fail, "it cannot be planned".into())
        },
    }
}
