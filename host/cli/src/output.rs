//! Logs, and numbers for people.

use crate::{
    args::{Global, LogFormat},
    failure::colours,
    progress::Screen,
};
use dray_core::{harmless, misleads};
use std::{
    io::{ErrorKind, Write},
    sync::atomic::{AtomicBool, Ordering},
};
use tracing_subscriber::{EnvFilter, field::MakeExt, fmt};

/// Prints a line to standard output, made harmless.
macro_rules! say {
    ($($arguments:tt)*) => { $crate::output::print(&$crate::output::line(&format!($($arguments)*))) };
}
pub(crate) use say;

/// Prints a line to standard error, made harmless.
macro_rules! tell {
    ($($arguments:tt)*) => { $crate::output::print_aside(&$crate::output::line(&format!($($arguments)*))) };
}
pub(crate) use tell;

/// Characters of a line that is printed.
const LINE: usize = 8 << 10;

/// What is printed is one line, whatever names and texts of strangers are in it: the one place where they are made
/// harmless for people. Machines get [`exact`] JSON.
pub fn line(text: &str) -> String {
    let mut line = harmless(text, LINE);
    line.push('\n');
    line
}

/// JSON in which no character steers a terminal: those are escaped, which changes no value (RFC 8259, 7).
pub fn exact(json: &str) -> String {
    let mut out = String::with_capacity(json.len());
    for character in json.chars() {
        // What lies between values is of our own making.
        if character == '\n' || !misleads(character) {
            out.push(character);
            continue;
        }
        let mut units = [0; 2];
        for unit in character.encode_utf16(&mut units) {
            out.push_str(&format!("\\u{unit:04x}"));
        }
    }
    out
}

/// Prints a value as JSON to standard output.
pub fn print_json(value: &(impl serde::Serialize + ?Sized)) {
    match serde_json::to_string(value) {
        Ok(text) => print(&format!("{}\n", exact(&text))),
        Err(error) => tell!("error: failed to write it as JSON: {error}"),
    }
}

/// Prints a value as JSON that people read, too.
pub fn print_pretty(value: &serde_json::Value) {
    print(&format!("{}\n", exact(&format!("{value:#}"))));
}

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
    // Messages and fields hold names and texts of strangers.
    let fields = fmt::format::debug_fn(|writer, field, value| {
        let value = harmless(&format!("{value:?}"), LINE);
        match field.name() {
            "message" => write!(writer, "{value}"),
            name => write!(writer, "{name}={value}"),
        }
    });
    match global.log_format {
        LogFormat::Text => base.fmt_fields(fields.delimited(" ")).with_ansi(colours()).without_time().init(),
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_line_is_one_line_and_json_says_the_same() {
        let odd = "v1\u{1b}[2J\nerror: \u{9b}\u{202e}x\u{e0001}";
        assert_eq!(line(odd), "v1\\u{1b}[2J\\nerror: \\u{9b}\\u{202e}x\\u{e0001}\n");
        let json = exact(&serde_json::to_string(odd).unwrap());
        assert!(!json.chars().any(misleads), "{json}");
        assert_eq!(serde_json::from_str::<String>(&json).unwrap(), odd);
    }
}
