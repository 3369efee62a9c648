//! `dray plan`

use crate::{
    DONE, DUE, FAILED,
    args::{Output, PlanOptions},
    failure::Failure,
    lock,
    output::{counted, counted_y, exact, line, tell},
    policy,
    progress::Screen,
};
use dray_core::{Action, CopyReport, PLAN_VERSION, PlanHeader, Trouble};
use dray_engine::Planned;
use dray_session::PlanFile;
use std::io::{BufWriter, ErrorKind, IsTerminal, Write};

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
    if options.locked {
        lock::narrow(&mut loaded)?;
    }
    let mut saved = match &options.out {
        Some(path) => Some(PlanFile::create(path, header(&loaded)?)?),
        None => None,
    };
    let session = loaded.open().await?;
    let mut plan = session.plan();
    // A plan that people read as it grows shows by itself how it goes on.
    let progress = (!std::io::stdout().is_terminal()).then(|| screen.watch_plan());
    let mut totals = Totals::default();
    let mut out = Out { sink: BufWriter::new(std::io::stdout()), output: options.output, first: true };
    let written = async {
        out.begin()?;
        while let Some(planned) = plan.recv().await {
            if let Some(saved) = &mut saved {
                saved.add(&planned).map_err(Stopped::Failed)?;
            }
            out.entry(&mut totals, &planned)?;
            if let Some(progress) = &progress {
                progress.planned();
            }
            if plan.is_empty() {
                out.sink.flush()?;
            }
        }
        out.end(&totals)?;
        Ok::<_, Stopped>(())
    };
    let written = written.await;
    if let Some(progress) = progress {
        progress.end();
    }
    match written {
        Ok(()) => {}
        Err(Stopped::Failed(error)) => return Err(error.into()),
        // Whoever reads the plan may have seen enough; a plan that is to be kept is not whole then.
        Err(Stopped::Output(error)) if error.kind() == ErrorKind::BrokenPipe && saved.is_none() => {}
        Err(Stopped::Output(error)) => return Err(Failure::usage(format!("write the plan: {error}"))),
    }
    if let (Some(saved), Some(path)) = (saved, &options.out) {
        let end = saved.keep()?;
        if end.failed > 0 {
            tracing::warn!(
                "{} could not be planned, and so is not in {}",
                counted(end.failed, "image"),
                path.display()
            );
        }
        let (path, copies) = (path.display(), counted_y(end.copies, "cop"));
        tell!("{path} holds {copies}; `dray apply {path}` carries out exactly that");
    }
    Ok(match (totals.failed, totals.copy) {
        (1.., _) => FAILED,
        (0, 1..) if options.detailed_exitcode => DUE,
        _ => DONE,
    })
}

/// Why a plan was not written to its end.
enum Stopped {
    Output(std::io::Error),
    Failed(dray_engine::Error),
}

impl From<std::io::Error> for Stopped {
    fn from(error: std::io::Error) -> Self {
        Stopped::Output(error)
    }
}

/// What a saved plan begins with.
fn header(loaded: &policy::Loaded) -> Result<PlanHeader, Failure> {
    let policy = loaded.id().ok_or_else(|| {
        Failure::usage("save the plan: its policy comes from standard input, and could not be read again")
    })?;
    Ok(PlanHeader {
        dray_plan: PLAN_VERSION,
        made_by: env!("CARGO_PKG_VERSION").into(),
        made_at: jiff::Timestamp::now().as_second(),
        policy,
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
    match planned {
        Planned::Copy(planned) => {
            let copy = &planned.copy;
            let mut entry = CopyReport::of(copy);
            if !copy.form.is_unchanged() && copy.action == Action::Copy {
                entry.reason = format!("{}; {}", copy.reason, copy.form);
            }
            entry
        }
        Planned::Dropped { rule, source, by } => CopyReport::dropped(rule, &source.display, by),
        Planned::Failed { rule, source, destination, error } => {
            let trouble = Trouble { text: &error.text, help: error.help.as_deref() };
            CopyReport::failed(rule, source, destination, "it cannot be planned", Some(trouble))
        }
    }
}
