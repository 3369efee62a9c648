//! Progress: a bar on a terminal, plain lines elsewhere; all on standard error.

use crate::{
    args::{Global, LogFormat},
    output::{bytes, counted, tell},
};
use dray_core::{Action, CopyReport};
use dray_engine::{Event, Observer};
use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};
use std::{
    io::{IsTerminal, Write},
    sync::{
        Arc, Mutex,
        atomic::{AtomicU64, Ordering},
    },
    time::{Duration, Instant},
};

/// The target of progress, where it is told in events.
pub const PROGRESS: &str = "progress";

/// Standard error, which a progress bar may occupy.
#[derive(Clone)]
pub struct Screen {
    bar: Arc<Mutex<Option<ProgressBar>>>,
    quiet: bool,
    /// Everything is an event for machines.
    events: bool,
}

impl Screen {
    pub fn new(global: &Global) -> Self {
        let events = global.log_format == LogFormat::Json;
        Screen { bar: Arc::default(), quiet: global.quiet, events }
    }

    fn bar(&self) -> Option<ProgressBar> {
        self.bar.lock().unwrap_or_else(|poisoned| poisoned.into_inner()).clone()
    }

    /// Writes past the bar.
    fn aside<R>(&self, write: impl FnOnce() -> R) -> R {
        match self.bar() {
            Some(bar) => bar.suspend(write),
            None => write(),
        }
    }

    /// Shows progress of copies from now on.
    pub fn watch(&self) -> Arc<Progress> {
        self.show("{spinner} {bar:24} {binary_bytes}/{binary_total_bytes} {binary_bytes_per_sec} {msg}", true)
    }

    /// Shows progress of a plan, where the plan itself does not.
    pub fn watch_plan(&self) -> Arc<Progress> {
        self.show("{spinner} {elapsed} {msg}", false)
    }

    fn show(&self, template: &str, copying: bool) -> Arc<Progress> {
        if !self.quiet && !self.events && std::io::stderr().is_terminal() {
            let bar = ProgressBar::with_draw_target(Some(0), ProgressDrawTarget::stderr_with_hz(10));
            let style = ProgressStyle::with_template(template);
            bar.set_style(style.unwrap_or_else(|_| ProgressStyle::default_bar()));
            bar.enable_steady_tick(Duration::from_millis(120));
            *self.bar.lock().unwrap_or_else(|poisoned| poisoned.into_inner()) = Some(bar);
        }
        Arc::new(Progress {
            screen: self.clone(),
            copying,
            planned: 0.into(),
            done: 0.into(),
            sent: 0.into(),
            expected: 0.into(),
            told: Mutex::new(Instant::now()),
        })
    }

    fn clear(&self) {
        if let Some(bar) = self.bar.lock().unwrap_or_else(|poisoned| poisoned.into_inner()).take() {
            bar.finish_and_clear();
        }
    }
}

impl Write for Screen {
    fn write(&mut self, buffer: &[u8]) -> std::io::Result<usize> {
        self.aside(|| std::io::stderr().write(buffer))
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

/// How often plain progress says where something long stands.
const EVERY: Duration = Duration::from_secs(10);

/// Shows what happens.
pub struct Progress {
    screen: Screen,
    copying: bool,
    planned: AtomicU64,
    done: AtomicU64,
    sent: AtomicU64,
    expected: AtomicU64,
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

    fn refresh(&self) {
        let count = |counter: &AtomicU64| counter.load(Ordering::Relaxed);
        let (done, planned) = (count(&self.done), count(&self.planned));
        if let Some(bar) = self.screen.bar() {
            bar.set_length(count(&self.expected));
            bar.set_message(match self.copying {
                true => format!("{done}/{planned} images"),
                false => format!("{} planned", counted(planned, "image")),
            });
            return;
        }
        let mut told = self.told.lock().unwrap_or_else(|poisoned| poisoned.into_inner());
        if told.elapsed() < EVERY {
            return;
        }
        *told = Instant::now();
        let (sent, expected) = (bytes(count(&self.sent)), bytes(count(&self.expected)));
        self.line(&match self.copying {
            true => format!("{sent} of {expected} sent, {done} of {planned} images done"),
            false => format!("{} planned", counted(planned, "image")),
        });
    }

    fn line(&self, text: &str) {
        if self.screen.events {
            tracing::info!(target: PROGRESS, "{text}");
        } else if !self.screen.quiet {
            self.screen.aside(|| tell!("{text}"));
        }
    }

    fn sent(&self, count: u64) {
        let sent = self.sent.fetch_add(count, Ordering::Relaxed) + count;
        match self.screen.bar() {
            Some(bar) => bar.set_position(sent),
            None => self.refresh(),
        }
    }

    fn finished(&self, copy: &CopyReport) {
        self.done.fetch_add(1, Ordering::Relaxed);
        let (source, destination) = (&copy.source, &copy.destination);
        match (copy.action, &copy.error) {
            (Action::Copy, _) => {
                self.line(&format!("copied {source} to {destination} ({})", bytes(copy.bytes)))
            }
            (Action::Fail, error) if self.screen.events => {
                tracing::error!(target: PROGRESS, help = copy.help, "{}", error.as_deref().unwrap_or_default());
            }
            (Action::Fail, error) => {
                let error = error.as_deref().unwrap_or_default();
                // Failures are told even to those who want quiet.
                self.screen.aside(|| {
                    tell!("error: {error}");
                    if let Some(help) = &copy.help {
                        tell!("  help: {help}");
                    }
                });
            }
            (Action::Unchanged, _) => tracing::info!("unchanged {destination}"),
            (Action::Drop, _) => {}
        }
        self.refresh();
    }
}

impl Observer for Progress {
    fn event(&self, event: Event<'_>) {
        match event {
            Event::Started(copy) => {
                tracing::info!("copying {} to {}: {}", copy.source, copy.destination, copy.reason)
            }
            Event::Expected(count) => {
                self.expected.fetch_add(count, Ordering::Relaxed);
                self.refresh();
            }
            Event::Spared(count) => {
                self.expected.fetch_sub(count, Ordering::Relaxed);
                self.refresh();
            }
            Event::Sent(count) => self.sent(count),
            Event::Retrying { error, after } => tracing::warn!("trying again in {after:.1?}: {error}"),
            Event::Finished(copy) => self.finished(copy),
            _ => {}
        }
    }
}
