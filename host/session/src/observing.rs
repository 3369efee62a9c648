//! Tells the observers of a policy what a run does. They hear of it in batches and in the background, and hold up its
//! end for a little at most.

use crate::Record;
use dray_core::{
    Action, CopyReport, Report, harmless,
    policy::{Call, PolicyError},
};
use dray_engine::{
    Error, Event, Places, Watcher,
    contract::{Happening, Observer},
    in_call,
};
use futures_util::future::join_all;
use std::{
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicU64, Ordering},
    },
    time::{Duration, SystemTime, UNIX_EPOCH},
};
use tokio::{
    sync::{
        mpsc::{self, error::TrySendError},
        watch,
    },
    task::JoinHandle,
};

/// Happenings that wait for one observer. More are only counted.
const WAITING: usize = 10_000;
/// Characters of a text.
const TEXT: usize = 2000;
/// For how long happenings are gathered before they are told together, and how many at most.
const GATHERED: Duration = Duration::from_secs(1);
const TOGETHER: usize = 500;
/// After so many failures one after the other, an observer is not told any more in a run.
const FAILURES: u32 = 3;
/// How long the end of a run waits for observers, and for how long more after it was told to stop.
const PATIENCE: Duration = Duration::from_secs(10);
const LITTLE: Duration = Duration::from_secs(2);

/// Loads the observers of a policy, and lets them check their configuration.
///
/// # Errors
/// Fails with the mistakes in their tables.
pub(crate) async fn bind(
    calls: &[Call],
    places: &Arc<Places>,
) -> Result<Vec<Arc<dyn Observer>>, PolicyError> {
    let (mut observers, mut problems) = (Vec::new(), Vec::new());
    for call in calls {
        let bound = async {
            let observer = places.plugins().observer(&call.plugin.value, &call.config).await?;
            observer.observe("", &[]).await?;
            Ok::<_, Error>(observer)
        };
        match bound.await {
            Ok(observer) => observers.push(observer),
            Err(error) => problems.push(in_call(error, call)),
        }
    }
    if problems.is_empty() { Ok(observers) } else { Err(PolicyError(problems)) }
}

/// One observer of a run.
struct Ear {
    /// Its name, with its number if several have the same.
    name: String,
    queue: mpsc::Sender<Happening>,
    task: JoinHandle<()>,
    /// Happenings for which the queue had no room.
    lost: AtomicU64,
}

/// Passes the events of a run on, and tells observers of those that they hear of.
pub(crate) struct Telling {
    inner: Arc<dyn Watcher>,
    /// They are taken when the run has ended.
    ears: Mutex<Vec<Ear>>,
}

impl Telling {
    /// Begins to tell of a run.
    pub fn begin(observers: &[Arc<dyn Observer>], inner: Arc<dyn Watcher>, record: Record<'_>) -> Arc<Self> {
        let run = number();
        let ear = |(at, observer): (usize, &Arc<dyn Observer>)| {
            let same = observers.iter().filter(|other| other.name() == observer.name()).count();
            let name = match same {
                1 => observer.name().to_owned(),
                _ => format!("{} (no. {})", observer.name(), at + 1),
            };
            let (queue, receiver) = mpsc::channel(WAITING);
            let task = tokio::spawn(told(observer.clone(), name.clone(), run.clone(), receiver));
            Ear { name, queue, task, lost: AtomicU64::default() }
        };
        let ears = observers.iter().enumerate().map(ear).collect::<Vec<_>>();
        let telling = Telling { inner, ears: ears.into() };
        let text = match record.policy {
            Some(policy) => format!("{} {policy}", record.command),
            None => record.command.to_owned(),
        };
        telling.tell(&Happening { kind: "started", time: now(), text, ..Happening::default() });
        Arc::new(telling)
    }

    fn tell(&self, happening: &Happening) {
        for ear in lock(&self.ears).iter() {
            if let Err(TrySendError::Full(_)) = ear.queue.try_send(happening.clone()) {
                ear.lost.fetch_add(1, Ordering::Relaxed);
            }
        }
    }

    /// Tells of the end, and waits a little until everybody has heard of everything. Once `stop` is true, it waits less.
    pub async fn end(&self, report: &Report, mut stop: watch::Receiver<bool>) {
        let finished = finished(report);
        let ears = std::mem::take(&mut *lock(&self.ears));
        let over = async {
            let stopped = async {
                // Who has the other end may be gone, and cannot stop anything then.
                if stop.wait_for(|stop| *stop).await.is_err() {
                    std::future::pending::<()>().await;
                }
                tokio::time::sleep(LITTLE).await;
            };
            tokio::select! { () = tokio::time::sleep(PATIENCE) => (), () = stopped => () }
        };
        let mut left = Vec::new();
        let heard = ears.into_iter().map(|Ear { name, queue, task, lost }| {
            left.push((name, task.abort_handle(), lost));
            let finished = finished.clone();
            async move {
                // The last word waits for room, because it tells whether all went well.
                let _ = queue.send(finished).await;
                drop(queue);
                if task.await.is_err_and(|error| error.is_panic()) {
                    tracing::warn!("an observer broke off: dray itself failed");
                }
            }
        });
        let heard = join_all(heard);
        tokio::select! { biased; _ = heard => (), () = over => () }
        for (name, task, lost) in left {
            if !task.is_finished() {
                task.abort();
                tracing::warn!("the observer {name} did not hear of everything before the end");
            }
            match lost.load(Ordering::Relaxed) {
                0 => {}
                lost => tracing::warn!("the observer {name} was too slow, and did not hear of {lost} events"),
            }
        }
    }
}

/// The last event of a run.
fn finished(report: &Report) -> Happening {
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
    let stopped = if report.stopped { "stopped: " } else { "" };
    let counts = counts.map(|(name, count)| (name.to_owned(), count.to_string()));
    Happening {
        kind: "finished",
        time: now(),
        bytes: summary.bytes,
        text: format!("{stopped}{}", said.join(", ")),
        counts: counts.to_vec(),
        ..Happening::default()
    }
}

impl Watcher for Telling {
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
    // Registries and pushers of tags wrote parts of these texts, and they go to people.
    let text = copy.error.as_ref().unwrap_or(&copy.reason);
    Some(Happening {
        kind,
        time: now(),
        rule: copy.rule.clone(),
        source: harmless(&copy.source, TEXT),
        destination: harmless(&copy.destination, TEXT),
        digest: copy.written.clone().or_else(|| copy.digest.clone()),
        bytes: copy.bytes,
        text: harmless(text, TEXT),
        counts: Vec::new(),
    })
}

/// Tells one observer what comes, until nothing comes any more.
async fn told(observer: Arc<dyn Observer>, name: String, run: String, mut queue: mpsc::Receiver<Happening>) {
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
        match observer.observe(&run, &happened).await {
            Ok(()) => failures = 0,
            Err(error) => {
                failures += 1;
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

    impl Observer for Heard {
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

    impl Watcher for Nobody {
        fn event(&self, _: Event<'_>) {}
    }

    #[tokio::test]
    async fn what_happens_is_told_together_and_what_does_not_is_not() {
        let heard = Arc::new(Heard::default());
        let observers: [Arc<dyn Observer>; 1] = [heard.clone()];
        let record = Record { command: "sync", policy: Some("p.toml") };
        let telling = Telling::begin(&observers, Arc::new(Nobody), record);
        let failed = CopyReport::failed("r", "a", "b", "it failed", None);
        telling.event(Event::Finished(&failed));
        telling.event(Event::Finished(&CopyReport { action: Action::Unchanged, ..failed.clone() }));
        let mut report = Report::default();
        report.add(failed);
        telling.end(&report, watch::channel(false).1).await;
        assert_eq!(
            *lock(&heard.kinds),
            ["started sync p.toml", "failed it failed", "finished 0 copied, 1 failed"]
        );
        assert_eq!(heard.calls.load(Ordering::Relaxed), 1);
    }

    /// Never answers.
    struct Deaf;

    impl Observer for Deaf {
        fn name(&self) -> &str {
            "deaf"
        }

        fn observe<'a>(&'a self, _: &'a str, _: &'a [Happening]) -> BoxFuture<'a, Result<()>> {
            Box::pin(std::future::pending())
        }
    }

    #[tokio::test(start_paused = true)]
    async fn nobody_waits_long_for_who_does_not_hear() {
        let begin = || {
            let observers: [Arc<dyn Observer>; 2] = [Arc::new(Deaf), Arc::new(Deaf)];
            Telling::begin(&observers, Arc::new(Nobody), Record { command: "sync", policy: None })
        };
        let (_running, stop) = watch::channel(false);
        for (stop, longest) in [(stop, PATIENCE), (watch::channel(true).1, LITTLE)] {
            let (telling, begun) = (begin(), tokio::time::Instant::now());
            // A full queue holds the end up no longer.
            for _ in 0..2 * WAITING {
                telling.tell(&Happening::default());
            }
            assert_eq!(lock(&telling.ears)[0].lost.load(Ordering::Relaxed), WAITING as u64 + 1);
            telling.end(&Report::default(), stop).await;
            assert!(begun.elapsed() <= longest + Duration::from_millis(5), "{:?}", begun.elapsed());
        }
    }

    #[tokio::test]
    async fn an_observer_that_fails_is_given_up() {
        let heard = Arc::new(Heard { fails: true, ..Heard::default() });
        let (sender, receiver) = mpsc::channel(WAITING);
        for _ in 0..10 * TOGETHER {
            sender.try_send(Happening::default()).unwrap();
        }
        told(heard.clone(), "heard".into(), "run".into(), receiver).await;
        assert_eq!(heard.calls.load(Ordering::Relaxed), u64::from(FAILURES));
    }
}
