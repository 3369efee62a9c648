//! Lines: over how many connections at once a blob is read. Object stores and delivery networks give each connection
//! little, and others serve one as fast as many. Which of both a host is is measured.

use super::request::PlaceHttp;
use crate::{lock, schedule::window::WindowPermit};
use std::{sync::Mutex, time::Duration};
use tokio::sync::OwnedSemaphorePermit as Slot;

/// The most lines of one blob.
pub(crate) const MOST: usize = 8;
/// For so long the rate of a number of lines is measured, after the first moments of new ones.
pub(crate) const MEASURED: Duration = Duration::from_millis(500);
pub(crate) const SETTLING: Duration = Duration::from_millis(300);
/// Twice the lines must bring at least this many times the bytes, or they are not worth their connections.
const WORTH: f64 = 1.3;
/// Reading must have waited for the source for at least this part of the time. Otherwise something else is slow.
const WAITED: f64 = 0.7;

/// How many lines to a host are worth it, as the last blob showed. `None` means that nobody has tried.
#[derive(Default)]
pub(super) struct KnownLines(Mutex<Option<usize>>);

/// The right to have one more line to a host, until it is dropped.
pub(crate) struct Line {
    _pass: WindowPermit,
    _slot: Slot,
}

impl PlaceHttp {
    /// The right to have one more line, if the host has room for it now. A blob must not wait for one.
    pub(crate) fn spare_line(&self) -> Option<Line> {
        let slot = self.host.slots.clone().try_acquire_owned().ok()?;
        let pass = self.host.windows.of(crate::schedule::action::Action::Download).pass_now()?;
        Some(Line { _pass: pass, _slot: slot })
    }

    /// How many lines to this host are worth it. `None` means that nobody has tried.
    pub(crate) fn known_lines(&self) -> Option<usize> {
        *lock(&self.host.lines.0)
    }

    /// Remembers how many lines to this host are worth it.
    pub(crate) fn learn_lines(&self, lines: usize) {
        *lock(&self.host.lines.0) = Some(lines);
    }
}

/// What a blob that is being read brought in some time.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Brought {
    pub bytes: u64,
    /// The time that passed, and the part of it in which reading waited for the source.
    pub elapsed: Duration,
    pub waited: Duration,
}

impl Brought {
    /// Bytes a second.
    pub fn rate(&self) -> f64 {
        self.bytes as f64 / self.elapsed.as_secs_f64().max(0.001)
    }

    /// Whether the source was what limited it.
    pub fn waits_for_the_source(&self) -> bool {
        self.waited.as_secs_f64() >= self.elapsed.as_secs_f64() * WAITED
    }
}

/// The search for the number of lines that are worth it: it doubles as long as that helps.
#[derive(Debug)]
pub(crate) struct Climb {
    lines: usize,
    /// The best number so far, and its bytes a second.
    best: (usize, f64),
}

/// What to do after a measurement.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Next {
    /// Read over this many lines, and measure again.
    Try(usize),
    /// Stay with this many lines.
    Stay(usize),
}

impl Climb {
    /// Begins with two lines, after one was seen to bring this many bytes a second.
    pub fn new(one: f64) -> Self {
        Climb { lines: 2, best: (1, one) }
    }

    /// Decides after a measurement of the present number of lines.
    pub fn measured(&mut self, brought: Brought) -> Next {
        let rate = brought.rate();
        if rate < self.best.1 * WORTH {
            return Next::Stay(self.best.0);
        }
        self.best = (self.lines, rate);
        if self.lines >= MOST || !brought.waits_for_the_source() {
            return Next::Stay(self.lines);
        }
        self.lines = (self.lines * 2).min(MOST);
        Next::Try(self.lines)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_are_added_as_long_as_they_are_worth_it() {
        // What a host brings over 1, 2, 4 and 8 lines, in MB/s, and how many lines are worth it.
        for (rates, waits, expected) in [
            ([25, 50, 100, 200], true, 8),
            ([25, 50, 100, 105], true, 4),
            ([25, 50, 60, 60], true, 2),
            ([900, 800, 0, 0], true, 1),
            ([900, 1000, 0, 0], true, 1),
            // The destination has become the slower end.
            ([25, 50, 0, 0], false, 2),
        ] {
            let mut climb = Climb::new(f64::from(rates[0]) * 1e6);
            let mut at = 1;
            let found = loop {
                let brought = Brought {
                    bytes: u64::from(rates[at] as u32) * 1_000_000,
                    elapsed: Duration::from_secs(1),
                    waited: Duration::from_millis(if waits { 900 } else { 100 }),
                };
                match climb.measured(brought) {
                    Next::Try(lines) => {
                        at += 1;
                        assert_eq!(lines, 1 << at);
                    }
                    Next::Stay(lines) => break lines,
                }
            };
            assert_eq!(found, expected, "{rates:?}");
        }
    }
}
