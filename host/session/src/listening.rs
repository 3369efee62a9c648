//! Tells the observers of a policy what a run does. They hear of it in batches and in the background, and cannot hold the run up.

use crate::Record;
use dray_core::{
    Action, CopyReport, Report,
    policy::{Call, PolicyError},
};
use dray_engine::{
    Error, Event, Observer, Places,
    contract::{Happening, Listener},
    in_call,
};
use std::{
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicU64, Ordering},
    },
    time::{Duration, SystemTime, UNIX_EPOCH},
};
use tokio::{sync::mpsc, task::JoinHandle, time::timeout};

/// Happenings that wait for one observer. More are only counted.
const WAITING: usize = 10_000;
/// For how long happenings are gathered before they are told together, and how many at most.
const GATHERED: Duration = Duration::from_secs(1);
const TOGETHER: usize = 500;
/// After so many failures one after the other, an observer is not told any more in a run.
const FAILURES: u32 = 3;
/// How long the end of a run waits for observers, and for those of a run that was told to stop.
const PATIENCE: Duration = Duration::from_secs(30);
const LITTLE: Duration = Duration::from_secs(5);

/// Loads the observers of a policy, and lets them check their configuration.
///
/// # Errors
/// Fails with the mistakes in their tables.
pub(crate) async fn bind(
    calls: &[Call],
    places: &Arc<Places>,
) -> Result<Vec<Arc<dyn Listener>>, PolicyError> {
    let (mut listeners, mut problems) = (Vec::new(), Vec::new());
    for call in calls {
        let bound = async {
            let listener = places.plugins().listener(&call.plugin.value, &call.config).await?;
            listener.observe("", &[]).await?;
            Ok::<_, Error>(listener)
        };
        match bound.await {
            Ok(listener) => listeners.push(listener),
            Err(error) => problems.push(in_call(error, call)),
        }
    }
    if problems.is_empty() { Ok(listeners) } else { Err(PolicyError(problems)) }
}

/// Passes the events of a run on, and tells listeners of those that they hear of.
pub(crate) struct Telling {
    inner: Arc<dyn Observer>,
    /// Each listener's queue. They are taken when the run has ended.
    queues: Mutex<Vec<mpsc::Sender<Happening>>>,
    tasks: Mutex<Vec<JoinHandle<()>>>,
    /// Happenings for which a queue had no room.
    lost: AtomicU64,
}

impl Telling {
    /// Begins to tell of a run.
    pub fn begin(listeners: &[Arc<dyn Listener>], inner: Arc<dyn Observer>, record: Record<'_>) -> Arc<Self> {
        let run = number();
        let (mut queues, mut tasks) = (Vec::new(), Vec::new());
        for listener in listeners {
            let (sender, receiver) = mpsc::channel(WAITING);
            queues.push(sender);
            tasks.push(tokio::spawn(told(listener.clone(), run.clone(), receiver)));
        }
        let telling =
            Telling { inner, queues: queues.into(), tasks: tasks.into(), lost: AtomicU64::default() };
        let text = match record.policy {
            Some(policy) => format!("{} {policy}", record.command),
            None => record.command.to_owned(),
        };
        telling.tell(&Happening { kind: "started", time: now(), text, ..Happening::default() });
        Arc::new(telling)
    }

    fn tell(&self, happening: &Happening) {
        for queue in lock(&self.queues).iter() {
            if queue.try_send(happening.clone()).is_err() {
                self.lost.fetch_add(1, Ordering::Relaxed);
            }
        }
    }

    /// Tells of the end, and waits a little until everybody has heard of everything.
    pub async fn end(&self, report: &Report, was_stopped: bool) {
        let summary = &report.summary;
        let counts = [
            ("copied", summary.copied),
            ("unchanged", summary.unchanged),
            ("deleted", summary.deleted),
            ("refused", summary.refused),
            ("failed", summary.failed),
            ("milliseconds", (summary.seconds * 1000.0) as u64),
        ];
        let said = counts[..5].iter().filter(|(name, count)| *count > 0 || *name == "copied");
        let said: Vec<String> = said.map(|(name, count)| format!("{count} {name}")).collect();
        let stopped = if was_stopped { "stopped: " } else { "" };
        let counts = counts.map(|(name, count)| (name.to_owned(), count.to_string()));
        let finished = Happening {
            kind: "finished",
            time: now(),
            bytes: summary.bytes,
            text: format!("{stopped}{}", said.join(", ")),
            counts: counts.to_vec(),
            ..Happening::default()
        };
        // The last word waits for room, because it tells whether all went well.
        let queues = std::mem::take(&mut *lock(&self.queues));
        let tasks = std::mem::take(&mut *lock(&self.tasks));
        let patience = if was_stopped { LITTLE } else { PATIENCE };
        let deadline = tokio::time::Instant::now() + patience;
        for queue in queues {
            if !matches!(timeout(patience, queue.send(finished.clone())).await, Ok(Ok(()))) {
                self.lost.fetch_add(1, Ordering::Relaxed);
            }
        }
        for mut task in tasks {
            if tokio::time::timeout_at(deadline, &mut task).await.is_err() {
                task.abort();
                tracing::warn!(
                    "an observer did not hear of everything in {} s after the run",
                    patience.as_secs()
                );
            }
        }
        match self.lost.load(Ordering::Relaxed) {
            0 => {}
            lost => tracing::warn!("observers did not hear of everything: {lost} events found no room"),
        }
    }
}

impl Observer for Telling {
    fn event(&self, event: Event<'_>) {
        if let Event::Finished(copy) = &event
            && let Some(happening) = happening(copy)
        {
            self.tell(&happening);
        }
        self.inner.event(event);
    }
}

/// What there is to tell of the result of a copy. `None` means that nothing happened.
fn happening(copy: &CopyReport) -> Option<Happening> {
    let kind = match copy.action {
        Action::Copy => "copied",
        Action::Delete => "deleted",
        Action::Fail => "failed",
        Action::Drop => "refused",
        Action::Unchanged => return None,
    };
    Some(Happening {
        kind,
        time: now(),
        rule: copy.rule.clone(),
        source: copy.source.clone(),
        destination: copy.destination.clone(),
        digest: copy.written.clone().or_else(|| copy.digest.clone()),
        bytes: copy.bytes,
        text: copy.error.clone().unwrap_or_else(|| copy.reason.clone()),
        counts: Vec::new(),
    })
}

/// Tells one listener what comes, until nothing comes any more.
async fn told(listener: Arc<dyn Listener>, run: String, mut queue: mpsc::Receiver<Happening>) {
    let mut failures = 0;
    while let Some(first) = queue.recv().await {
        let mut happened = vec![first];
        let gathered = tokio::time::Instant::now() + GATHERED;
        while happened.len() < TOGETHER {
            match tokio::time::timeout_at(gathered, queue.recv()).await {
                Ok(Some(next)) => happened.push(next),
                Ok(None) | Err(_) => break,
            }
        }
        match listener.observe(&run, &happened).await {
            Ok(()) => failures = 0,
            Err(error) => {
                failures += 1;
                let name = listener.name();
                tracing::warn!(help = error.help, "failed to tell the observer {name}: {error}");
                if failures == FAILURES {
                    tracing::warn!(
                        "the observer {name} failed {FAILURES} times, and hears nothing more of this run"
                    );
                    return;
                }
            }
        }
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Milliseconds since 1970.
fn now() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| since.as_millis() as u64)
}

/// A text that no other run has.
fn number() -> String {
    static RUNS: AtomicU64 = AtomicU64::new(0);
    format!("{:x}-{:x}-{:x}", now(), std::process::id(), RUNS.fetch_add(1, Ordering::Relaxed))
}

#[cfg(test)]
mod tests {
    use super::*;
    use dray_engine::{Kind, Result};
    use futures_core::future::BoxFuture;

    #[derive(Default)]
    struct Heard {
        kinds: Mutex<Vec<String>>,
        calls: AtomicU64,
        fails: bool,
    }

    impl Listener for Heard {
        fn name(&self) -> &str {
            "heard"
        }

        fn observe<'a>(&'a self, _: &'a str, happened: &'a [Happening]) -> BoxFuture<'a, Result<()>> {
            self.calls.fetch_add(1, Ordering::Relaxed);
            lock(&self.kinds).extend(happened.iter().map(|one| format!("{} {}", one.kind, one.text)));
            let fails = self.fails;
            Box::pin(async move {
                match fails {
                    true => Err(Error::new(Kind::Transient, "send it")),
                    false => Ok(()),
                }
            })
        }
    }

    struct Nobody;

    impl Observer for Nobody {
        fn event(&self, _: Event<'_>) {}
    }

    #[tokio::test]
    async fn what_happens_is_told_together_and_what_does_not_is_not() {
        let heard = Arc::new(Heard::default());
        let listeners: [Arc<dyn Listener>; 1] = [heard.clone()];
        let record = Record { command: "sync", policy: Some("p.toml") };
        let telling = Telling::begin(&listeners, Arc::new(Nobody), record);
        let failed = CopyReport::failed("r", "a", "b", "it failed", None);
        telling.event(Event::Finished(&failed));
        telling.event(Event::Finished(&CopyReport { action: Action::Unchanged, ..failed.clone() }));
        let mut report = Report::default();
        report.add(failed);
        telling.end(&report, false).await;
        assert_eq!(
            *lock(&heard.kinds),
            ["started sync p.toml", "failed it failed", "finished 0 copied, 1 failed"]
        );
        assert_eq!(heard.calls.load(Ordering::Relaxed), 1);
    }

    #[tokio::test]
    async fn an_observer_that_fails_is_given_up() {
        let heard = Arc::new(Heard { fails: true, ..Heard::default() });
        let (sender, receiver) = mpsc::channel(WAITING);
        for _ in 0..10 * TOGETHER {
            sender.try_send(Happening::default()).unwrap();
        }
        told(heard.clone(), "run".into(), receiver).await;
        assert_eq!(heard.calls.load(Ordering::Relaxed), u64::from(FAILURES));
    }
}
