//! The terminal under a progress bar, and where a password is typed.

use crate::output::tell;
use rustix::{
    process::getpgrp,
    stdio::stdin,
    termios::{LocalModes, OptionalActions, Termios, tcgetattr, tcgetpgrp, tcsetattr},
};
use std::io::{BufRead, Write};

/// A terminal that does not write `^C` when its user stops a command. It would do so in the midst of the bar, which could
/// not be taken away as a whole then. When this is dropped, the terminal is as it was.
pub struct Unechoed(Termios);

impl Unechoed {
    /// `None` means that there is no such terminal, or that it is another command's now.
    pub fn begin() -> Option<Self> {
        // A command in the background that changes the terminal would be halted.
        if tcgetpgrp(stdin()).ok()? != getpgrp() {
            return None;
        }
        let before = tcgetattr(stdin()).ok()?;
        if !before.local_modes.contains(LocalModes::ECHOCTL) {
            return None;
        }
        let mut without = before.clone();
        without.local_modes.remove(LocalModes::ECHOCTL);
        tcsetattr(stdin(), OptionalActions::Now, &without).ok()?;
        Some(Unechoed(before))
    }
}

impl Drop for Unechoed {
    fn drop(&mut self) {
        if tcgetpgrp(stdin()).is_ok_and(|group| group == getpgrp()) {
            // If it cannot be set, the terminal is gone.
            let _ = tcsetattr(stdin(), OptionalActions::Now, &self.0);
        }
    }
}

/// Asks a question at the terminal. `shown` says whether what is typed can be seen.
///
/// # Errors
/// Fails if standard input is no terminal, or one that would show a secret.
pub fn ask(question: &str, shown: bool) -> std::io::Result<String> {
    if !stdin_is_terminal() {
        return Err(std::io::Error::other("standard input is no terminal"));
    }
    let _ = write!(std::io::stderr(), "{question}");
    let _ = std::io::stderr().flush();
    let hidden = if shown { None } else { Hidden::begin() };
    if !shown && hidden.is_none() {
        return Err(std::io::Error::other("the terminal would show what is typed"));
    }
    let mut line = String::new();
    let read = std::io::stdin().lock().read_line(&mut line);
    if hidden.is_some() {
        tell!("");
    }
    read?;
    Ok(line.trim_end_matches(['\r', '\n']).to_owned())
}

fn stdin_is_terminal() -> bool {
    std::io::IsTerminal::is_terminal(&std::io::stdin())
}

/// A terminal that does not show what is typed. When this is dropped, it does again.
struct Hidden(Termios);

impl Hidden {
    /// `None` means that standard input is no terminal that can be told so.
    fn begin() -> Option<Self> {
        let before = tcgetattr(stdin()).ok()?;
        let mut without = before.clone();
        without.local_modes.remove(LocalModes::ECHO);
        tcsetattr(stdin(), OptionalActions::Flush, &without).ok()?;
        Some(Hidden(before))
    }
}

impl Drop for Hidden {
    fn drop(&mut self) {
        // If it cannot be set, the terminal is gone.
        let _ = tcsetattr(stdin(), OptionalActions::Now, &self.0);
    }
}
