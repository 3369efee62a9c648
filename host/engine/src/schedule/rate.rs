//! Rate limiter: a limit in bytes per second that many streams share.

use std::{
    sync::Mutex,
    time::{Duration, Instant},
};

/// A token bucket that may go into debt: a chunk passes at once, and the next chunk waits for it.
pub(crate) struct RateLimiter {
    bytes_per_second: f64,
    /// The time from which on the bytes that have passed so far no longer exceed the rate.
    paid: Mutex<Instant>,
}

/// How much debt, in time at the full rate, may pass without a wait.
const BURST: Duration = Duration::from_millis(50);

impl RateLimiter {
    pub fn new(bytes_per_second: u64) -> Self {
        RateLimiter { bytes_per_second: bytes_per_second as f64, paid: Mutex::new(Instant::now()) }
    }

    /// Waits until this many more bytes may pass.
    pub async fn pass(&self, bytes: usize) {
        let wait = self.book(Instant::now(), bytes);
        if !wait.is_zero() {
            tokio::time::sleep(wait).await;
        }
    }

    fn book(&self, now: Instant, bytes: usize) -> Duration {
        let mut paid = self.paid.lock().unwrap_or_else(|poisoned| poisoned.into_inner());
        let wait = paid.saturating_duration_since(now + BURST);
        let cost = Duration::from_secs_f64(bytes as f64 / self.bytes_per_second);
        *paid = (*paid).max(now) + cost;
        wait
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_passes_is_paid_for() {
        let pace = RateLimiter::new(1000);
        let start = Instant::now();
        assert_eq!(pace.book(start, 1000), Duration::ZERO);
        let second = pace.book(start, 1000);
        assert!((900..=1000).contains(&second.as_millis()), "{second:?}");
        let third = pace.book(start + Duration::from_secs(1), 1);
        assert!((900..=1000).contains(&third.as_millis()), "{third:?}");
    }
}
