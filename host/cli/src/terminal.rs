//! The terminal under a progress bar, and where a password is typed.

use rustix::{
    process::getpgrp,
    stdio::stdin,
    termios::{LocalModes, OptionalActions, Termios, tcgetattr, tcgetpgrp, tcsetattr},
};

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

/// A terminal that does not show what is typed. When this is dropped, it does again.
pub struct Hidden(Termios);

impl Hidden {
    /// `None` means that standard input is no terminal that can be told so.
    pub fn begin() -> Option<Self> {
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
