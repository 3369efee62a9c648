//! Progress: a bar on a terminal, plain lines elsewhere; all on standard error.

use crate::{
    args::{Global, LogFormat, ShowProgress},
    output::{bytes, counted, exact, tell},
    progress_events::{MovingBlob, ProgressEvent, Totals, Wait},
    progress_view::{below, stand},
    signals::Stop,
    terminal::Unechoed,
};
use dray_core::{Action, Copy, CopyReport};
use dray_engine::{BlobProgress, Event, Places, STOP_GRACE, Watcher};
use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};
use std::{
    collections::BTreeMap,
    io::{IsTerminal, Write},
    sync::{
        Arc, Mutex, MutexGuard,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
    time::{Duration, Instant},
};

/// The target of progress, where it is told in events.
pub const PROGRESS: &str = "progress";

/// Standard error, which a progress bar may occupy.
#[derive(Clone)]
pub struct Screen {
    bar: Arc<Mutex<Option<ProgressBar>>>,
    /// The terminal, as long as there is a bar.
    terminal: Arc<Mutex<Option<Unechoed>>>,
    mode: Mode,
}

/// How progress is shown.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Mode {
    /// A bar that changes in place.
    Bar,
    Lines,
    /// Events of the log, which machines read.
    Log,
    /// Objects of `--progress json`.
    Json,
    Nothing,
}

impl Screen {
    pub fn new(global: &Global) -> Self {
        let mode = match (global.progress, global.log_format) {
            (ShowProgress::Json, _) => Mode::Json,
            (_, LogFormat::Json) => Mode::Log,
            (ShowProgress::None, _) => Mode::Nothing,
            _ if global.quiet => Mode::Nothing,
            (ShowProgress::Auto, _) if std::io::stderr().is_terminal() => Mode::Bar,
            (ShowProgress::Auto | ShowProgress::Plain, _) => Mode::Lines,
        };
        Screen { bar: Arc::default(), terminal: Arc::default(), mode }
    }

    /// Whether failures are told as events, so that they need not be told again.
    pub fn tells_events(&self) -> bool {
        matches!(self.mode, Mode::Log | Mode::Json)
    }

    fn bar(&self) -> Option<ProgressBar> {
        lock(&self.bar).clone()
    }

    /// Writes past the bar.
    pub fn aside<R>(&self, write: impl FnOnce() -> R) -> R {
        match self.bar() {
            Some(bar) => bar.suspend(write),
            None => write(),
        }
    }

    /// Shows progress of copies from now on, and says so when they are told to stop.
    pub fn watch(&self, places: &Arc<Places>, stop: &Stop) -> Arc<Progress> {
        let progress = self.show(true, places);
        let (shown, mut signal) = (Arc::downgrade(&progress), stop.signal.clone());
        tokio::spawn(async move {
            if signal.wait_for(|stop| *stop).await.is_ok()
                && let Some(progress) = shown.upgrade()
            {
                if progress.screen.mode == Mode::Json {
                    ProgressEvent::Stopping { grace_seconds: STOP_GRACE.as_secs_f64() }.print();
                }
                let grace = STOP_GRACE.as_secs();
                progress.line(&format!(
                    "stopping: blobs that are nearly there have {grace} s to arrive; Ctrl-C again ends at once"
                ));
            }
        });
        progress
    }

    /// Shows progress of a plan, where the plan itself does not.
    pub fn watch_plan(&self, places: &Arc<Places>) -> Arc<Progress> {
        self.show(false, places)
    }

    fn show(&self, copying: bool, places: &Arc<Places>) -> Arc<Progress> {
        if self.mode == Mode::Bar {
            let bar = ProgressBar::with_draw_target(Some(0), ProgressDrawTarget::stderr_with_hz(10));
            if copying {
                *lock(&self.terminal) = Unechoed::begin();
            }
            // The end of the first line is cut to the width of the terminal, and the others are short.
            let style = ProgressStyle::with_template("{spinner} {elapsed} {wide_msg}\n{prefix}");
            bar.set_style(style.unwrap_or_else(|_| ProgressStyle::default_bar()));
            bar.enable_steady_tick(Duration::from_millis(120));
            *lock(&self.bar) = Some(bar);
        }
        let progress = Arc::new(Progress {
            screen: self.clone(),
            copying,
            places: places.clone(),
            blobs: Mutex::default(),
            planned: 0.into(),
            done: 0.into(),
            sent: 0.into(),
            expected: 0.into(),
            complete: false.into(),
            begun: Instant::now(),
            moving: Mutex::default(),
            told: Mutex::new(Instant::now()),
        });
        if matches!(self.mode, Mode::Bar | Mode::Json) {
            // It goes on while nothing moves, to say for whom it waits.
            let shown = Arc::downgrade(&progress);
            tokio::spawn(async move {
                while let Some(progress) = shown.upgrade() {
                    progress.refresh();
                    drop(progress);
                    tokio::time::sleep(EVERY_TICK).await;
                }
            });
        }
        progress
    }

    /// Takes the bar away.
    pub fn clear(&self) {
        if let Some(bar) = lock(&self.bar).take() {
            bar.finish_and_clear();
        }
        lock(&self.terminal).take();
    }
}

impl Write for Screen {
    fn write(&mut self, buffer: &[u8]) -> std::io::Result<usize> {
        if self.mode != Mode::Log {
            return self.aside(|| std::io::stderr().write(buffer));
        }
        // What machines read may be shown on a terminal, too.
        let text = exact(&String::from_utf8_lossy(buffer));
        std::io::stderr().write_all(text.as_bytes())?;
        Ok(buffer.len())
    }

    fn flush(&mut self) -> std::io::Result<()> {
        std::io::stderr().flush()
    }
}

impl<'a> tracing_subscriber::fmt::MakeWriter<'a> for Screen {
    type Writer = Screen;

    fn make_writer(&'a self) -> Screen {
        self.clone()
    }
}

/// How often plain progress says how far something long is.
const EVERY: Duration = Duration::from_secs(10);
/// How often the text beside a bar is written anew while bytes move.
const EVERY_FRAME: Duration = Duration::from_millis(100);
/// How often it is written anew while nothing moves.
const EVERY_TICK: Duration = Duration::from_millis(500);
/// How often an event says so.
const EVERY_EVENT: Duration = Duration::from_secs(1);

/// Shows what happens.
pub struct Progress {
    screen: Screen,
    copying: bool,
    planned: AtomicU64,
    done: AtomicU64,
    sent: AtomicU64,
    expected: AtomicU64,
    /// The plan has come to its end, so nothing is added to what is expected but the blobs of planned images.
    complete: AtomicBool,
    begun: Instant,
    places: Arc<Places>,
    /// The images that move now.
    moving: Mutex<Vec<String>>,
    /// The blobs that move now, by the numbers of their transfers, which grow.
    blobs: Mutex<BTreeMap<u64, MovingBlob>>,
    told: Mutex<Instant>,
}

impl Progress {
    /// Takes the bar away.
    pub fn end(&self) {
        self.screen.clear();
    }

    /// One more image is known.
    pub fn planned(&self) {
        self.planned.fetch_add(1, Ordering::Relaxed);
        self.refresh();
    }

    /// All images are known.
    pub fn planned_all(&self) {
        self.complete.store(true, Ordering::Relaxed);
        if self.screen.mode == Mode::Json {
            ProgressEvent::Planned { images: self.planned.load(Ordering::Relaxed) }.print();
        }
    }

    fn totals(&self) -> Totals {
        let count = |counter: &AtomicU64| counter.load(Ordering::Relaxed);
        Totals {
            sent_bytes: count(&self.sent),
            expected_bytes: count(&self.expected),
            images_done: count(&self.done),
            images_planned: count(&self.planned),
            seconds: self.begun.elapsed().as_secs_f64(),
        }
    }

    fn refresh(&self) {
        let totals = self.totals();
        let complete = self.complete.load(Ordering::Relaxed);
        if let Some(bar) = self.screen.bar() {
            bar.set_length(totals.expected_bytes);
            match self.copying {
                true => {
                    bar.set_message(stand(&totals, complete, bar.per_sec()));
                }
                false => bar.set_message(format!("{} planned", counted(totals.images_planned, "image"))),
            }
            let moving = lock(&self.moving).clone();
            bar.set_prefix(below(&self.blobs(), &moving, &self.waits()));
            return;
        }
        let every = if self.screen.mode == Mode::Json { EVERY_EVENT } else { EVERY };
        let mut told = lock(&self.told);
        if told.elapsed() < every {
            return;
        }
        *told = Instant::now();
        if self.screen.mode == Mode::Json {
            ProgressEvent::Moving { totals, blobs: self.blobs(), waiting: self.waits() }.print();
            return;
        }
        let (sent, expected) = (bytes(totals.sent_bytes), bytes(totals.expected_bytes));
        let Totals { images_done, images_planned, .. } = totals;
        let more = if complete { "" } else { " and more" };
        if self.screen.mode == Mode::Log {
            let Totals { sent_bytes, expected_bytes, .. } = totals;
            tracing::info!(target: PROGRESS, sent_bytes, expected_bytes, images_done, images_planned, complete, "moving");
            return;
        }
        self.line(&match self.copying {
            true => {
                format!(
                    "{sent} of {expected}{more} sent, {images_done} of {images_planned}{more} images done"
                )
            }
            false => format!("{} planned", counted(images_planned, "image")),
        });
    }

    fn blobs(&self) -> Vec<MovingBlob> {
        let blobs = lock(&self.blobs);
        blobs.values().cloned().collect()
    }

    fn waits(&self) -> Vec<Wait> {
        let waits = self.places.waits().into_iter();
        waits.map(|(registry, left)| Wait { registry, seconds: left.as_secs_f64() }).collect()
    }

    fn blob(&self, blob: &BlobProgress<'_>) {
        if !matches!(self.screen.mode, Mode::Bar | Mode::Json) {
            return;
        }
        let mut blobs = lock(&self.blobs);
        let moving = blobs.entry(blob.transfer).or_insert_with(|| MovingBlob {
            image: blob.image.to_owned(),
            digest: blob.digest.to_string(),
            size_bytes: blob.size,
            sent_bytes: 0,
        });
        moving.sent_bytes = blob.position;
    }

    fn line(&self, text: &str) {
        match self.screen.mode {
            Mode::Log => tracing::info!(target: PROGRESS, "{text}"),
            Mode::Bar | Mode::Lines => self.screen.aside(|| tell!("{text}")),
            Mode::Json | Mode::Nothing => {}
        }
    }

    fn sent(&self, count: u64) {
        let sent = self.sent.fetch_add(count, Ordering::Relaxed) + count;
        match self.screen.bar() {
            Some(bar) => {
                bar.set_position(sent);
                let mut told = lock(&self.told);
                if told.elapsed() >= EVERY_FRAME {
                    *told = Instant::now();
                    drop(told);
                    self.refresh();
                }
            }
            None => self.refresh(),
        }
    }

    fn started(&self, copy: &Copy) {
        if self.screen.mode == Mode::Json {
            ProgressEvent::started(copy).print();
        }
        tracing::info!(
            rule = copy.rule,
            source = copy.source.display,
            destination = copy.destination.display,
            digest = %copy.descriptor.digest,
            "copying: {}",
            copy.reason
        );
        let mut moving = lock(&self.moving);
        moving.push(copy.destination.display.clone());
    }

    fn finished(&self, copy: &CopyReport) {
        self.done.fetch_add(1, Ordering::Relaxed);
        lock(&self.moving).retain(|moving| *moving != copy.destination);
        let CopyReport { rule, source, destination, digest, error, bytes: sent, reason, .. } = copy;
        let backup =
            copy.backup.as_ref().map(|backup| format!(", backed up as {backup}")).unwrap_or_default();
        let digest = digest.as_deref();
        match (copy.action, self.screen.mode) {
            (_, Mode::Json) => ProgressEvent::Finished(copy).print(),
            (Action::Copy, Mode::Log) => {
                tracing::info!(target: PROGRESS, rule, source, destination, digest, bytes = sent, "copied");
            }
            (Action::Delete, Mode::Log) => {
                let backup = copy.backup.as_deref();
                tracing::info!(target: PROGRESS, rule, source, destination, digest, backup, "deleted");
            }
            (Action::Fail, Mode::Log) => {
                let (help, error) = (&copy.help, error.as_deref().unwrap_or_default());
                tracing::error!(target: PROGRESS, rule, source, destination, digest, help, "{error}");
            }
            (Action::Copy, _) => {
                self.line(&format!("copied {source} to {destination} ({}){backup}", bytes(*sent)));
            }
            (Action::Delete, _) => self.line(&format!("deleted {destination}{backup}")),
            // Why is told at the end, once for all that failed for the same reason.
            (Action::Fail, _) => {
                self.line(&format!("failed {}", if source.is_empty() { rule } else { source }))
            }
            (Action::Unchanged, _) => tracing::info!(rule, source, destination, digest, "unchanged"),
            (Action::Drop, Mode::Log) => {
                tracing::warn!(target: PROGRESS, rule, source, "refused: {reason}");
            }
            (Action::Drop, _) => self.line(&format!("refused {source}: {reason}")),
        }
        self.refresh();
    }
}

/// Locks a mutex, even if a thread panicked while it held the lock: what it protects is only shown.
fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(|poisoned| poisoned.into_inner())
}

impl Watcher for Progress {
    fn event(&self, event: Event<'_>) {
        match event {
            Event::Started(copy) => self.started(copy),
            Event::Expected(count) => {
                self.expected.fetch_add(count, Ordering::Relaxed);
                self.refresh();
            }
            Event::Spared(count) => {
                self.expected.fetch_sub(count, Ordering::Relaxed);
                self.refresh();
            }
            Event::Sent(count) => self.sent(count),
            Event::Blob(blob) => self.blob(&blob),
            Event::BlobEnded(transfer) => {
                lock(&self.blobs).remove(&transfer);
            }
            Event::Retrying { image, error, after } if self.screen.mode == Mode::Json => {
                let after_seconds = after.as_secs_f64();
                ProgressEvent::Retrying { image, error: error.to_string(), after_seconds }.print();
            }
            Event::Retrying { image, error, after } => {
                tracing::warn!(image, "trying again in {after:.1?}: {error}");
            }
            Event::Finished(copy) => self.finished(copy),
            _ => {}
        }
    }
}
