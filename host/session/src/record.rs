//! The record that a run leaves in the journal.

use dray_core::{Action, Report};
use dray_engine::{Event, Journal, Places, Planned, Run, RunOptions, Watcher};
use std::sync::Arc;
use tokio::sync::{mpsc, watch};

/// What a run is called in the journal.
#[derive(Clone, Copy, Debug)]
#[non_exhaustive]
pub struct Record<'a> {
    /// The command, without secrets.
    pub command: &'a str,
    /// The policy, for people.
    pub policy: Option<&'a str>,
}

impl<'a> Record<'a> {
    /// The record of a command that has no policy.
    pub fn of(command: &'a str) -> Self {
        Record { command, policy: None }
    }

    /// The same of a policy.
    pub fn with_policy(self, policy: &'a str) -> Self {
        Record { policy: Some(policy), ..self }
    }
}

/// Writes down what comes of a run, and passes all events on.
struct Recorded {
    places: Arc<Places>,
    number: Option<i64>,
    watcher: Arc<dyn Watcher>,
}

impl Recorded {
    fn journal(&self) -> Option<(&Journal, i64)> {
        self.places.journal().zip(self.number)
    }
}

impl Watcher for Recorded {
    fn event(&self, event: Event<'_>) {
        if let Event::Finished(copy) = &event
            && copy.action != Action::Unchanged
            && let Some((journal, number)) = self.journal()
        {
            journal.did(number, copy);
        }
        self.watcher.event(event);
    }
}

/// Carries out a plan at some places, and keeps the record of it.
pub async fn run(
    places: &Arc<Places>,
    plan: mpsc::Receiver<Planned>,
    watcher: Arc<dyn Watcher>,
    mut options: RunOptions,
    record: Record<'_>,
    stop: watch::Receiver<bool>,
) -> Report {
    let begun = places.journal().map(|journal| journal.begin(record.command, record.policy));
    let number = begun.and_then(|begun| {
        begun
            .inspect_err(|error| {
                tracing::warn!(help = error.help, "failed to {error}; this run will not be listed");
            })
            .ok()
    });
    options.run = number;
    let recorded = Arc::new(Recorded { places: places.clone(), number, watcher });
    let report = Run::new(recorded.clone(), options).carry_out(plan, stop.clone()).await;
    if let Some((journal, number)) = recorded.journal()
        && let Err(error) = journal.end(number, &report.summary, *stop.borrow())
    {
        tracing::warn!(help = error.help, "failed to {error}; this run will not be listed as ended");
    }
    report
}
