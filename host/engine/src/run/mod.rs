//! Executes a plan: children before parents, shared content only once, and images concurrently.

mod allowance;
mod claims;
mod convert;
mod deletions;
mod finish;
mod image;
mod keep;
mod publish;
mod referrers;
mod related;
mod shared;

use crate::{
    Error, Event, Planned, PlannedCopy, Result, Watcher,
    blob::{Ending, STOP_GRACE},
    plan::REQUIRE,
    schedule::route::Routes,
};
use allowance::Allowance;
use dray_core::{Action, Copy, CopyReport, Descriptor, Reason, Report, Trouble, policy::RuleLimits};
use image::Job;
use shared::Shared;
use std::{
    collections::{HashMap, HashSet},
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::Instant,
};
use tokio::{
    sync::{Semaphore, mpsc, watch},
    task::JoinSet,
};

/// Options of a run.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct RunOptions {
    /// Maximum number of images that are copied at once on one route.
    pub images: usize,
    /// Whether to continue after a failure.
    pub keep_going: bool,
    /// Whether the report lists unchanged images. Otherwise it only counts them, so that its size depends on what was
    /// done.
    pub unchanged: bool,
    /// What the copies of each rule may use, by its name.
    pub rules: HashMap<String, RuleLimits>,
    /// The number of the run in the journal, which then knows how to undo it. `None` means that it is not recorded.
    pub run: Option<i64>,
}

impl Default for RunOptions {
    fn default() -> Self {
        RunOptions { images: IMAGES, keep_going: false, unchanged: false, rules: HashMap::new(), run: None }
    }
}

/// One execution of a plan.
pub struct Run {
    sent: Arc<Counting>,
    shared: Arc<Shared>,
    options: RunOptions,
    allowances: HashMap<String, Arc<Allowance>>,
}

/// Default for the number of images that are copied at once on one route.
const IMAGES: usize = 32;

/// Counts the bytes that are sent, and forwards all events.
struct Counting(AtomicU64, Arc<dyn Watcher>);

impl Watcher for Counting {
    fn event(&self, event: Event<'_>) {
        if let Event::Sent(bytes) = event {
            self.0.fetch_add(bytes, Ordering::Relaxed);
        }
        self.1.event(event);
    }
}

impl Run {
    /// Creates a run that has not started.
    pub fn new(watcher: Arc<dyn Watcher>, options: RunOptions) -> Self {
        let sent = Arc::new(Counting(AtomicU64::new(0), watcher));
        let shared = Shared::new(sent.clone(), options.run);
        Run { shared: Arc::new(shared), allowances: Allowance::of_rules(&options.rules), options, sent }
    }

    /// Executes the items of a plan until it ends, until `stop` becomes true, or until an item fails (unless
    /// `keep_going` is set). Copies that are then under way are dropped; no image is published in part.
    pub async fn carry_out(
        &self,
        mut plan: mpsc::Receiver<Planned>,
        mut stop: watch::Receiver<bool>,
    ) -> Report {
        let begun = Instant::now();
        let mut report = Report::default();
        let (mut copies, mut deletions) = (JoinSet::new(), Vec::new());
        let mut broken = Broken::default();
        // Each route has its own limit, so that a slow registry does not delay other routes.
        let images = self.options.images;
        let routes = Routes::new(move || Semaphore::new(images));
        let mut planning = true;
        let mut stopped = false;
        while planning || !copies.is_empty() {
            tokio::select! {
                biased;
                _ = stop.wait_for(|stop| *stop) => {
                    stopped = true;
                    break;
                }
                Some(done) = copies.join_next(), if !copies.is_empty() => {
                    match done {
                        Ok(None) => {}
                        Ok(Some(ended)) => self.ended(ended, &mut report, &mut broken),
                        Err(_) => {
                            broken.anything = true;
                            self.broke(&mut report);
                        }
                    }
                }
                planned = plan.recv(), if planning => match planned {
                    None => planning = false,
                    Some(Planned::Dropped { rule, source, by, why }) if by == REQUIRE => {
                        let refused = CopyReport::dropped(&rule, &source.display, &by, why.as_deref());
                        self.finished(&mut report, refused, 0);
                    }
                    Some(Planned::Dropped { .. }) => {}
                    Some(Planned::Delete(deletion)) => deletions.push(*deletion),
                    Some(Planned::Failed { rule, source, destination, error, deletes }) => {
                        // What failed without a rule may be of any: a line of a saved plan, or dray itself.
                        broken.anything |= rule.is_empty();
                        if !deletes {
                            broken.rules.insert(rule.clone());
                        }
                        let failed = failed(&rule, &source, &destination, &error);
                        self.finished(&mut report, failed, 0);
                    }
                    Some(Planned::Copy(planned)) if planned.copy.action == Action::Unchanged => {
                        self.finished(&mut report, CopyReport::of(&planned.copy), 0);
                    }
                    Some(Planned::Copy(planned)) => {
                        let route = planned.source.place.route_to(&planned.destination.place);
                        let allowance = self.allowances.get(&planned.copy.rule).cloned().unwrap_or_default();
                        copies.spawn(carried_out(
                            routes.of(route),
                            self.shared.clone(),
                            allowance,
                            planned,
                        ));
                    }
                },
            }
            if report.summary.failed > 0 && !self.options.keep_going {
                planning = false;
                // Items that have not begun are given up.
                routes.each(Semaphore::close);
            }
        }
        drop(plan);
        if stopped {
            routes.each(Semaphore::close);
            self.wait_for_what_is_nearly_there(&mut copies, &mut report, &mut broken).await;
            copies.shutdown().await;
        }
        if stopped || report.summary.failed > 0 {
            // This includes the bytes of unfinished images, because they were sent, too.
            report.summary.bytes = self.sent.0.load(Ordering::Relaxed);
        }
        let given_up = stopped || report.summary.failed > 0 && !self.options.keep_going;
        if !given_up {
            self.delete(deletions, &broken, &mut report, &stop).await;
        }
        self.shared.finish.finish(&mut report, given_up, self.shared.watcher.as_ref()).await;
        report.stopped = stopped;
        report.summary.seconds = begun.elapsed().as_secs_f64();
        report
    }

    /// Waits a little for blobs that are nearly there, so that the next run need not send them again, and for images
    /// that are complete with them.
    async fn wait_for_what_is_nearly_there(
        &self,
        copies: &mut JoinSet<Option<Ended>>,
        report: &mut Report,
        broken: &mut Broken,
    ) {
        self.shared.ending.begin();
        let deadline = tokio::time::Instant::now() + STOP_GRACE;
        while let Ok(Some(done)) = tokio::time::timeout_at(deadline, copies.join_next()).await {
            // Images that are given up are not failures.
            if let Ok(Some(ended)) = done
                && ended.attempt.result.is_ok()
            {
                self.ended(ended, report, broken);
            }
        }
    }

    /// Reports a panic of the engine itself as a failure, so that the run does not look successful.
    fn broke(&self, report: &mut Report) {
        let error = Error::internal("copy an image: dray itself failed");
        self.finished(report, failed("", "", "", &error), 0);
    }

    fn ended(&self, ended: Ended, report: &mut Report, broken: &mut Broken) {
        let Ended { copy, attempt: Attempt { result, sent, mounted, backup } } = ended;
        report.summary.mounted_bytes += mounted;
        let ended = match result {
            Ok(written) => {
                let written = written.map(|written| written.digest.to_string());
                CopyReport { written, backup, ..CopyReport::of(&copy) }
            }
            Err(error) if copy.wanted.skip_immutable && is_immutable(&error) => {
                // That a tag stays what it was is what the policy wants, but nobody may take it for a copy.
                tracing::warn!("{} stays as it is: its registry makes it immutable", copy.destination);
                tracing::debug!("failed to {error}");
                let reason = Reason::Immutable.to_string();
                CopyReport { action: Action::Unchanged, reason, ..CopyReport::of(&copy) }
            }
            Err(error) => {
                broken.rules.insert(copy.rule.clone());
                let error = of_copy(&copy, error);
                let digest = Some(copy.descriptor.digest.to_string());
                let (source, destination) = (&copy.source.display, &copy.destination.display);
                CopyReport { digest, ..failed(&copy.rule, source, destination, &error) }
            }
        };
        self.finished(report, ended, sent);
    }

    fn finished(&self, report: &mut Report, mut copy: CopyReport, sent: u64) {
        copy.bytes = sent;
        report.summary.bytes += sent;
        // Images for an archive or a daemon are finished only when that is completed.
        if copy.action != Action::Copy || !self.shared.finish.is_whole(&copy.place) {
            self.shared.watcher.event(Event::Finished(&copy));
        }
        match copy.action {
            Action::Unchanged if !self.options.unchanged && copy.reason != Reason::Immutable.to_string() => {
                report.summary.unchanged += 1;
            }
            _ => report.add(copy),
        }
    }
}

/// Of which rules a copy failed.
#[derive(Default)]
struct Broken {
    rules: HashSet<String>,
    /// Whether something failed of which nobody knows the rule.
    anything: bool,
}

fn failed(rule: &str, source: &str, destination: &str, error: &Error) -> CopyReport {
    let trouble = Trouble { text: &error.text, help: error.help.as_deref() };
    CopyReport::failed(rule, source, destination, "it failed", Some(trouble))
}

/// Whether a place refused to change a tag because tags never change there. Registries have no common code for this, and
/// all say it in these words: Harbor ("configured as immutable"), Amazon's ("the repository is immutable"), Google's ("tag
/// immutability"), Quay ("is immutable"), Docker Hub ("immutable tag").
fn is_immutable(error: &Error) -> bool {
    error.text.to_ascii_lowercase().contains("immutab")
}

/// The error of a copy, with what was to be copied.
fn of_copy(copy: &Copy, error: Error) -> Error {
    error.context(format!("copy {} to {}", copy.source, copy.destination))
}

/// The result of executing an item, in however many attempts.
struct Ended {
    copy: Copy,
    attempt: Attempt,
}

/// The result of one attempt, or of all of them together.
struct Attempt {
    /// The descriptor of what was written, if the image was converted.
    result: Result<Option<Descriptor>>,
    /// Bytes that were sent.
    sent: u64,
    /// Bytes that were mounted.
    mounted: u64,
    /// The tag under which is kept what the tag named before.
    backup: Option<String>,
}

impl Attempt {
    /// An attempt that failed before anything moved, or whose bytes nobody counted.
    fn failed(error: Error) -> Self {
        Attempt { result: Err(error), sent: 0, mounted: 0, backup: None }
    }
}

/// Executes an item when its route has a free permit. `None` means that it was given up before it began.
async fn carried_out(
    route: Arc<Semaphore>,
    shared: Arc<Shared>,
    allowance: Arc<Allowance>,
    planned: Box<PlannedCopy>,
) -> Option<Ended> {
    let copy = planned.copy.clone();
    let (mut tried, mut sent, mut mounted) = (0, 0, 0);
    // The last attempt takes it, so that an image that is tried once is not copied in memory.
    let mut planned = Some(*planned);
    let mut last = None;
    loop {
        let mut attempt = {
            let _image = allowance.image().await;
            let Ok(_permit) = route.acquire().await else { break };
            let this = match allowance.may_try_again(tried) {
                true => planned.as_ref().map(PlannedCopy::again),
                false => planned.take(),
            };
            let Some(mut this) = this else { break };
            for planned in planned.iter_mut().chain([&mut this]) {
                planned.lead = None;
            }
            if tried == 0 {
                shared.watcher.event(Event::Started(&copy));
            }
            let ending = Arc::new(Ending::of_attempt(&shared.ending));
            let limits = (allowance.clone(), ending.clone());
            // In a box, because the future of a whole image is large.
            let image = Box::pin(image(shared.clone(), limits, &copy, this));
            allowance.in_time(&ending, image).await
        };
        sent += attempt.sent;
        mounted += attempt.mounted;
        (attempt.sent, attempt.mounted) = (sent, mounted);
        let again = allowance.again(&attempt, tried).filter(|_| shared.ending.check().is_ok());
        if let (Some(after), Err(error)) = (again, &attempt.result) {
            // Others have the permits meanwhile.
            let error = of_copy(&copy, error.clone());
            shared.watcher.event(Event::Retrying {
                image: Some(&copy.destination.display),
                error: &error,
                after,
            });
            tokio::time::sleep(after).await;
            tried += 1;
            last = Some(attempt);
        } else {
            last = Some(attempt);
            break;
        }
    }
    last.map(|attempt| Ended { copy, attempt })
}

async fn image(
    shared: Arc<Shared>,
    limits: (Arc<Allowance>, Arc<Ending>),
    copy: &Copy,
    planned: PlannedCopy,
) -> Attempt {
    let (manifest, job) = match Job::new(shared, limits, planned).await {
        Ok(begun) => begun,
        Err(error) => return Attempt::failed(error),
    };
    let result = job.clone().copy(&copy.descriptor, manifest, copy.naming.clone(), copy.form).await;
    if result.as_ref().is_err_and(is_immutable) {
        job.forget_backup().await;
    }
    let (sent, mounted) = job.moved();
    let backup = job.is_kept.get().and_then(Option::as_ref).map(|kept| kept.tag.clone());
    Attempt { result, sent, mounted, backup }
}
