//! Logs, and numbers for people.

use crate::{
    args::{Global, LogFormat},
    failure::colours,
    progress::Screen,
};
use std::io::{ErrorKind, Write};
use tracing_subscriber::{EnvFilter, fmt};

/// Prints a line to standard output.
macro_rules! say {
    ($($arguments:tt)*) => { $crate::output::print(&format!("{}\n", format_args!($($arguments)*))) };
}
pub(crate) use say;

/// Prints to standard output. Who reads it may have seen enough (`dray runs | head`).
pub fn print(text: &str) {
    match std::io::stdout().write_all(text.as_bytes()) {
        Err(error) if error.kind() != ErrorKind::BrokenPipe => {
            eprintln!("error: failed to write to standard output: {error}");
        }
        _ => {}
    }
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
