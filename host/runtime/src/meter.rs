//! What a guest uses up: its own time (its waiting for the host does not count) and its memory.

use std::time::{Duration, Instant};
use wasmtime::CallHook;

/// How often a running guest is looked at.
pub(crate) const TICK: Duration = Duration::from_millis(10);

/// Counts a guest's time in one call.
pub(crate) struct Meter {
    limit: Duration,
    spent: Duration,
    running: Option<Instant>,
}

/// The guest ran for too long.
#[derive(Debug, thiserror::Error)]
#[error("it ran for more than {0:?}")]
pub(crate) struct OutOfTime(Duration);

impl Meter {
    pub fn new(limit: Duration) -> Self {
        Meter { limit, spent: Duration::ZERO, running: None }
    }

    /// The guest is entered or left.
    pub fn hook(&mut self, hook: CallHook) -> Result<(), OutOfTime> {
        match hook {
            CallHook::CallingWasm | CallHook::ReturningFromHost => {
                self.running = Some(Instant::now());
                Ok(())
            }
            CallHook::CallingHost | CallHook::ReturningFromWasm => {
                self.count();
                self.running = None;
                self.check()
            }
        }
    }

    /// The guest has been running for a tick.
    pub fn tick(&mut self) -> Result<(), OutOfTime> {
        self.count();
        self.check()
    }

    fn count(&mut self) {
        let now = Instant::now();
        if let Some(since) = self.running.replace(now) {
            // Longer than two ticks without a look means that the thread had other work to do.
            self.spent += now.duration_since(since).min(TICK * 2);
        }
    }

    fn check(&self) -> Result<(), OutOfTime> {
        if self.spent > self.limit { Err(OutOfTime(self.limit)) } else { Ok(()) }
    }
}

/// Adds up all memories of an instance: a component may have several.
pub(crate) struct Ceiling {
    /// Bytes.
    pub limit: usize,
    /// Bytes.
    pub used: usize,
}

/// The guest wanted too much memory.
#[derive(Debug, thiserror::Error)]
#[error("it wanted more memory than {} MiB", .0 >> 20)]
pub(crate) struct OutOfMemory(usize);

/// Entries of a guest's tables.
const ENTRIES: usize = 1_000_000;

impl wasmtime::ResourceLimiter for Ceiling {
    fn memory_growing(
        &mut self,
        current: usize,
        desired: usize,
        _maximum: Option<usize>,
    ) -> wasmtime::Result<bool> {
        self.used += desired.saturating_sub(current);
        if self.used > self.limit { Err(OutOfMemory(self.limit).into()) } else { Ok(true) }
    }

    fn table_growing(
        &mut self,
        _current: usize,
        desired: usize,
        _maximum: Option<usize>,
    ) -> wasmtime::Result<bool> {
        Ok(desired <= ENTRIES)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn waiting_for_the_host_is_free() {
        let mut meter = Meter::new(Duration::from_millis(5));
        meter.hook(CallHook::CallingWasm).unwrap();
        meter.hook(CallHook::CallingHost).unwrap();
        std::thread::sleep(Duration::from_millis(20));
        meter.hook(CallHook::ReturningFromHost).unwrap();
        assert!(meter.spent < Duration::from_millis(5));
        std::thread::sleep(Duration::from_millis(20));
        assert!(meter.tick().is_err());
    }
}
