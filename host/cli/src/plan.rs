//! `dray plan`

use crate::{
    DONE, DUE, FAILED,
    args::{Output, PlanOptions},
    failure::Failure,
    lock,
    output::{colours_out, counted, counted_y, exact, tell},
    plan_checks::Foreseen,
    plan_view::{Totals, View},
    policy,
    progress::{Progress, Screen},
    signals::Stop,
};
use dray_core::{Action, CopyReport, Digest, PLAN_VERSION, PlanHeader, Trouble};
use dray_engine::{Error, Kind, Planned};
use dray_session::PlanFile;
use std::{
    collections::HashSet,
    io::{BufWriter, ErrorKind, Write},
};
use tokio::sync::mpsc;

pub async fn run(options: PlanOptions, screen: Screen) -> Result<u8, Failure> {
    let stop = Stop::listen(&screen);
    let mut signal = stop.signal.clone();
    let planned = made(options, screen.clone());
    tokio::select! {
        code = planned => code,
        _ = signal.wait_for(|stop| *stop) => {
            screen.clear();
            Ok(stop.code().unwrap_or(FAILED))
        }
    }
}

async fn made(options: PlanOptions, screen: Screen) -> Result<u8, Failure> {
    let mut loaded = policy::load(&options.policies)?;
    loaded.has_rules()?;
    // A plan is of its whole policy, whichever rules are chosen.
    let header = options.out.is_some().then(|| header(&loaded)).transpose()?;
    loaded.choose(&options.rules)?;
    loaded.prune(&options.prune);
    loaded.with_reports(&options.reports)?;
    if options.locked {
        lock::narrow(&mut loaded)?;
    }
    let mut saved = match options.out.as_ref().zip(header) {
        Some((path, header)) => Some(PlanFile::create(path, header)?),
        None => None,
    };
    let session = loaded.open().await?.of_shard(options.shard);
    session.places().only_look();
    let mut plan = session.plan();
    let progress = screen.watch_plan(session.places());
    let (mut totals, mut sizes, mut foreseen) = (Totals::default(), Sizes::default(), Foreseen::default());
    let written = async {
        let mut out = Out::begin(options.output, options.explain)?;
        while let Some(planned) = plan.recv().await {
            let planned = foreseen.checked(planned).await;
            if let Some(saved) = &mut saved {
                saved.add(&planned).map_err(Stopped::Failed)?;
            }
            let size = match options.sizes {
                true => sizes.of(&planned).await,
                false => None,
            };
            totals.add(&planned, size);
            out.entry(&planned, size, !plan.is_empty())?;
            progress.planned();
        }
        Ok::<_, Stopped>(out)
    };
    let written = written.await;
    progress.end();
    match written.and_then(|out| Ok(out.end(&totals)?)) {
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
        let deletions = match end.deletions {
            0 => String::new(),
            count => format!(" and {}", counted(count, "deletion")),
        };
        tell!("{path} holds {copies}{deletions}; `dray apply {path}` carries out exactly that");
    }
    Ok(match (totals.failed, totals.copy + totals.delete) {
        (1.., _) => FAILED,
        (0, 1..) if options.detailed_exitcode => DUE,
        _ => DONE,
    })
}

/// Writes a plan that is already made, and that changes nothing.
pub async fn shown(
    mut plan: mpsc::Receiver<Planned>,
    output: Output,
    progress: &Progress,
) -> Result<u8, Failure> {
    let mut totals = Totals::default();
    let written = async {
        let mut out = Out::begin(output, false)?;
        while let Some(planned) = plan.recv().await {
            totals.add(&planned, None);
            out.entry(&planned, None, !plan.is_empty())?;
            progress.planned();
        }
        Ok::<_, std::io::Error>(out)
    };
    let written = written.await;
    progress.end();
    written
        .and_then(|out| out.end(&totals))
        .map_err(|error| Failure::usage(format!("write the plan: {error}")))?;
    Ok(if totals.failed > 0 { FAILED } else { DONE })
}

/// The blobs that were counted already, by the place that gets them.
#[derive(Default)]
struct Sizes(HashSet<(String, Digest)>);

impl Sizes {
    /// How many bytes a copy brings at most that no earlier one of the plan brings. `None` means that it is not known.
    async fn of(&mut self, planned: &Planned) -> Option<u64> {
        let Planned::Copy(planned) = planned else { return None };
        if planned.copy.action != Action::Copy {
            return None;
        }
        let blobs = planned.blobs().await;
        let blobs =
            blobs.inspect_err(|error| tracing::warn!("its size is not known: failed to {error}")).ok()?;
        let place = &planned.copy.destination.place;
        let new = blobs.into_iter().filter(|(digest, _)| self.0.insert((place.clone(), digest.clone())));
        Some(new.map(|(_, size)| size).sum())
    }
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
        let text = "save the plan: its policy must be one file, which can be read again";
        let error = Error::new(Kind::Invalid, text);
        Failure::Usage(error.help("write a policy that includes the others: include = [\"other.toml\"]"))
    })?;
    Ok(PlanHeader {
        dray_plan: PLAN_VERSION,
        made_by: env!("CARGO_PKG_VERSION").into(),
        made_at: jiff::Timestamp::now().as_second(),
        policy,
    })
}

/// Where the plan goes as it grows.
enum Out {
    /// One document, item by item.
    Json { sink: BufWriter<std::io::Stdout>, first: bool },
    /// All at once at the end, by rule and repository: items of several repositories come at the same time.
    Text(View),
}

impl Out {
    fn begin(output: Output, explain: bool) -> std::io::Result<Self> {
        Ok(match output {
            Output::Json => {
                let mut sink = BufWriter::new(std::io::stdout());
                write!(sink, "{{\"copies\": [")?;
                Out::Json { sink, first: true }
            }
            Output::Text => Out::Text(View::new(explain)),
        })
    }

    fn entry(&mut self, planned: &Planned, size: Option<u64>, more: bool) -> std::io::Result<()> {
        match self {
            Out::Text(view) => view.add(planned, size),
            Out::Json { sink, first } => {
                let separator = if std::mem::take(first) { "\n" } else { ",\n" };
                let mut value = serde_json::to_value(describe(planned)).map_err(std::io::Error::other)?;
                // Nothing was sent.
                value.as_object_mut().map(|object| object.remove("bytes"));
                if let Some(size) = size {
                    value["size"] = size.into();
                }
                write!(sink, "{separator}{}", exact(&value.to_string()))?;
                if !more {
                    sink.flush()?;
                }
            }
        }
        Ok(())
    }

    fn end(self, totals: &Totals) -> std::io::Result<()> {
        match self {
            Out::Text(view) => {
                let mut out = std::io::stdout();
                out.write_all(view.text(colours_out()).as_bytes())?;
                out.flush()
            }
            Out::Json { mut sink, .. } => {
                let summary = serde_json::to_string(totals).map_err(std::io::Error::other)?;
                writeln!(sink, "\n], \"summary\": {summary}}}")?;
                sink.flush()
            }
        }
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
        Planned::Delete(planned) => CopyReport::deleted(&planned.deletion),
        Planned::Dropped { rule, source, by, why } => {
            CopyReport::dropped(rule, &source.display, by, why.as_deref())
        }
        Planned::Failed { rule, source, destination, error, .. } => {
            let trouble = Trouble { text: &error.text, help: error.help.as_deref() };
            CopyReport::failed(rule, source, destination, "it cannot be planned", Some(trouble))
        }
    }
}
