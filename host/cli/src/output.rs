//! What is printed: lines made harmless, JSON, and numbers for people.

use crate::failure::Failure;
use dray_core::{Summary, harmless, misleads};
use std::{
    io::{ErrorKind, IsTerminal, Write},
    sync::atomic::{AtomicBool, Ordering},
};

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
pub const LINE: usize = 8 << 10;

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

/// Writes bytes as they are.
///
/// # Errors
/// Fails if they cannot be written, unless whoever reads them has seen enough.
pub fn bytes_out(content: &[u8]) -> Result<(), Failure> {
    let mut out = std::io::stdout();
    match out.write_all(content).and_then(|()| out.flush()) {
        Err(error) if error.kind() != ErrorKind::BrokenPipe => {
            Err(Failure::usage(format!("write to standard output: {error}")))
        }
        _ => Ok(()),
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

/// Whether standard error takes colours (<https://no-color.org>).
pub fn colours() -> bool {
    std::io::stderr().is_terminal() && std::env::var_os("NO_COLOR").is_none_or(|value| value.is_empty())
}

/// Whether standard output takes colours, or is said to (<https://bixense.com/clicolors>).
pub fn colours_out() -> bool {
    let forced = std::env::var_os("CLICOLOR_FORCE").is_some_and(|value| !value.is_empty() && value != "0");
    (forced || std::io::stdout().is_terminal())
        && std::env::var_os("NO_COLOR").is_none_or(|value| value.is_empty())
}

/// `1.5 MiB`
pub fn bytes(count: u64) -> String {
    indicatif::BinaryBytes(count).to_string()
}

/// What a run did, in counts. Deletions and refusals are left out if there are none.
pub fn counts(summary: &Summary) -> String {
    let deleted = match summary.deleted {
        0 => String::new(),
        count => format!("{} deleted, ", counted(count, "tag")),
    };
    let refused = match summary.refused {
        0 => String::new(),
        count => format!("{count} refused, "),
    };
    let Summary { unchanged, failed, .. } = summary;
    format!(
        "{} copied, {deleted}{unchanged} unchanged, {refused}{failed} failed",
        counted(summary.copied, "image")
    )
}

/// `3 images`
pub fn counted(count: u64, what: &str) -> String {
    if count == 1 { format!("1 {what}") } else { format!("{count} {what}s") }
}

/// `1 repository`, `3 repositories`
pub fn counted_y(count: u64, what: &str) -> String {
    if count == 1 { format!("1 {what}y") } else { format!("{count} {what}ies") }
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
