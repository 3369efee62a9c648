//! Logs, and numbers for people.

use crate::{
    args::{Global, LogFormat},
    failure::colours,
    progress::Screen,
};
use std::{
    io::{ErrorKind, Write},
    sync::atomic::{AtomicBool, Ordering},
};
use tracing_subscriber::{EnvFilter, fmt};

/// Prints a line to standard output.
macro_rules! say {
    ($($arguments:tt)*) => { $crate::output::print(&format!("{}\n", format_args!($($arguments)*))) };
}
pub(crate) use say;

/// Prints a line to standard error.
macro_rules! tell {
    ($($arguments:tt)*) => { $crate::output::print_aside(&format!("{}\n", format_args!($($arguments)*))) };
}
pub(crate) use tell;

/// Something could not be printed that was wanted.
static LOST: AtomicBool = AtomicBool::new(false);

/// Prints to standard output. Who reads it may have seen enough (`dray runs | head`).
pub fn print(text: &str) {
    let mut out = std::io::stdout();
    if let Err(error) = out.write_all(text.as_bytes()).and_then(|()| out.flush())
        && error.kind() != ErrorKind::BrokenPipe
        && !LOST.swap(true, Ordering::Relaxed)
    {
        print_aside(&format!("error: failed to write to standard output: {error}\n"));
    }
}

/// Whether something was lost that was to be printed.
pub fn is_lost() -> bool {
    LOST.load(Ordering::Relaxed)
}

/// Prints to standard error. There is nobody to tell that it cannot be written.
pub fn print_aside(text: &str) {
    let _ = std::io::stderr().write_all(text.as_bytes());
}

/// The target of progress, where it is told in events.
pub const PROGRESS: &str = "progress";

/// Sends log messages to standard error, past the progress bar.
pub fn log(global: &Global, screen: &Screen) {
    let level = match (global.quiet, global.verbose) {
        (true, _) => "error",
        (false, 0) => "warn",
        (false, 1) => "warn,dray=info,dray_core=info,dray_engine=info,dray_runtime=info,dray_registry=info",
        (false, 2) => {
            "warn,dray=debug,dray_core=debug,dray_engine=debug,dray_runtime=debug,dray_registry=debug"
        }
        (false, _) => {
            "info,dray=trace,dray_core=trace,dray_engine=trace,dray_runtime=trace,dray_registry=trace"
        }
    };
    // What people read as lines of progress, machines read as events.
    let level = if global.quiet { level.to_owned() } else { format!("{level},{PROGRESS}=info") };
    let base = fmt().with_env_filter(EnvFilter::new(level)).with_writer(screen.clone()).with_target(false);
    let base = base.log_internal_errors(false);
    match global.log_format {
        LogFormat::Text => base.with_ansi(colours()).without_time().init(),
        LogFormat::Json => base.json().init(),
    }
}

/// `1.5 MiB`
pub fn bytes(count: u64) -> String {
    indicatif::BinaryBytes(count).to_string()
}

/// `3 images`
pub fn counted(count: u64, what: &str) -> String {
    if count == 1 { format!("1 {what}") } else { format!("{count} {what}s") }
}
