//! Limits what a guest uses: its own time (waiting for the host does not count), the time of a whole call, and memory.

use std::{
    pin::Pin,
    sync::Arc,
    time::{Duration, Instant},
};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use wasmtime::CallHook;

/// How often a running guest is checked.
pub(crate) const TICK: Duration = Duration::from_millis(10);

/// How long a whole call of a plugin that is not built in may take, by the clock. Requests are slow and hashing is
/// work, but a call that asks for them again and again would never end. The time in which the host moves bytes for it
/// does not count.
pub(crate) const DEADLINE: Duration = Duration::from_secs(300);

/// Measures the time of a guest in one call.
pub(crate) struct Meter {
    limit: Duration,
    spent: Duration,
    running: Option<Instant>,
    /// When the call must have ended. `None` means that it has no deadline.
    until: Option<Instant>,
}

/// The guest exceeded a time limit.
#[derive(Debug, thiserror::Error)]
pub(crate) enum OutOfTime {
    #[error("it ran for more than {0:?}")]
    Own(Duration),
    #[error("it did not answer in {} s", DEADLINE.as_secs())]
    Deadline,
}

impl Meter {
    pub fn new(limit: Duration, deadline: Option<Duration>) -> Self {
        let until = deadline.map(|deadline| Instant::now() + deadline);
        Meter { limit, spent: Duration::ZERO, running: None, until }
    }

    /// Called when the guest is entered or left.
    pub fn hook(&mut self, hook: CallHook) -> Result<(), OutOfTime> {
        match hook {
            CallHook::CallingWasm | CallHook::ReturningFromHost => {
                self.running = Some(Instant::now());
                self.check()
            }
            CallHook::CallingHost | CallHook::ReturningFromWasm => {
                self.count();
                self.running = None;
                self.check()
            }
        }
    }

    /// Called when the guest has been running for a tick.
    pub fn tick(&mut self) -> Result<(), OutOfTime> {
        self.count();
        self.check()
    }

    /// How long the call may still take.
    pub fn left(&self) -> Duration {
        self.until.map_or(Duration::MAX, |until| until.saturating_duration_since(Instant::now()))
    }

    /// Extends the deadline by the time in which the host moved bytes.
    pub fn pause(&mut self, passed: Duration) {
        self.until = self.until.map(|until| until + passed);
    }

    fn count(&mut self) {
        let now = Instant::now();
        if let Some(since) = self.running.replace(now) {
            // If more than two ticks passed without a check, the thread had other work to do.
            self.spent += now.duration_since(since).min(TICK * 2);
        }
    }

    fn check(&self) -> Result<(), OutOfTime> {
        match self.until {
            Some(until) if Instant::now() > until => Err(OutOfTime::Deadline),
            _ if self.spent > self.limit => Err(OutOfTime::Own(self.limit)),
            _ => Ok(()),
        }
    }
}

/// Memory limit of a small instance in bytes. A larger instance needs a share of the run's budget.
pub(crate) const SMALL: usize = 4 << 20;
/// Memory that the large instances of a run may have together, in MiB. Transports have a budget of their own, because
/// filters wait for them.
pub(crate) const BUDGET: u32 = 1024;
/// Size of a table entry in bytes.
const ENTRY: usize = 16;

/// Limits the sum of all memories and tables of an instance. A component may have several.
pub(crate) struct Ceiling {
    /// In bytes.
    limit: usize,
    /// In bytes.
    pub used: usize,
    budget: Arc<Semaphore>,
    /// The share of the budget, once the instance is large.
    share: Option<OwnedSemaphorePermit>,
}

/// The guest wanted too much memory.
#[derive(Debug, thiserror::Error)]
#[error("it wanted more memory than {} MiB", .0 >> 20)]
pub(crate) struct OutOfMemory(usize);

impl Ceiling {
    pub fn new(limit: usize, budget: Arc<Semaphore>) -> Self {
        Ceiling { limit, used: 0, budget, share: None }
    }

    /// Counts the growth, and waits while the large instances together use all of their budget.
    async fn grows(&mut self, bytes: usize) -> wasmtime::Result<bool> {
        self.used = self.used.saturating_add(bytes);
        if self.used > self.limit {
            return Err(OutOfMemory(self.limit).into());
        }
        if self.used > SMALL && self.share.is_none() {
            // It acquires all that it may ever need at once, so that no instance holds a share while it waits for more.
            let share = u32::try_from(self.limit.div_ceil(1 << 20)).unwrap_or(BUDGET).min(BUDGET);
            self.share = self.budget.clone().acquire_many_owned(share).await.ok();
        }
        Ok(true)
    }
}

/// The future that wasmtime waits for.
type Grows<'a> = Pin<Box<dyn Future<Output = wasmtime::Result<bool>> + Send + 'a>>;

impl wasmtime::ResourceLimiterAsync for Ceiling {
    fn memory_growing<'s, 'f>(
        &'s mut self,
        current: usize,
        desired: usize,
        _maximum: Option<usize>,
    ) -> Grows<'f>
    where
        's: 'f,
        Self: 'f,
    {
        Box::pin(self.grows(desired.saturating_sub(current)))
    }

    fn table_growing<'s, 'f>(
        &'s mut self,
        current: usize,
        desired: usize,
        _maximum: Option<usize>,
    ) -> Grows<'f>
    where
        's: 'f,
        Self: 'f,
    {
        Box::pin(self.grows(desired.saturating_sub(current).saturating_mul(ENTRY)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use wasmtime::ResourceLimiterAsync;

    #[test]
    fn waiting_for_the_host_is_free() {
        let mut meter = Meter::new(Duration::from_millis(5), None);
        meter.hook(CallHook::CallingWasm).unwrap();
        meter.hook(CallHook::CallingHost).unwrap();
        std::thread::sleep(Duration::from_millis(20));
        meter.hook(CallHook::ReturningFromHost).unwrap();
        assert!(meter.spent < Duration::from_millis(5));
        std::thread::sleep(Duration::from_millis(20));
        assert!(meter.tick().is_err());
    }

    #[test]
    fn a_call_has_an_end_by_the_clock() {
        let mut meter = Meter::new(Duration::from_secs(5), Some(Duration::from_millis(5)));
        meter.hook(CallHook::CallingHost).unwrap();
        std::thread::sleep(Duration::from_millis(10));
        assert!(matches!(meter.hook(CallHook::ReturningFromHost), Err(OutOfTime::Deadline)));
        meter.pause(Duration::from_secs(60));
        meter.hook(CallHook::ReturningFromHost).unwrap();
    }

    #[tokio::test]
    async fn large_instances_share_one_budget_and_tables_count() {
        let budget = Arc::new(Semaphore::new(BUDGET as usize));
        let large = || Ceiling::new(512 << 20, budget.clone());
        let (mut first, mut second, mut third) = (large(), large(), large());
        assert!(first.memory_growing(0, 8 << 20, None).await.unwrap());
        assert!(second.table_growing(0, 1 << 20, None).await.unwrap());
        let mut small = Ceiling::new(512 << 20, budget.clone());
        assert!(small.memory_growing(0, SMALL, None).await.unwrap());
        let waits = tokio::time::timeout(Duration::from_millis(20), third.memory_growing(0, 8 << 20, None));
        assert!(waits.await.is_err());
        drop(first);
        let mut fourth = large();
        assert!(fourth.memory_growing(0, 8 << 20, None).await.unwrap());
        assert!(second.memory_growing(0, 600 << 20, None).await.is_err());
    }
}
