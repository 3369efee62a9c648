//! What the copies of one rule may use in a run: images at once, bytes a second, time and attempts.

use super::Attempt;
use crate::{
    Error, Kind,
    blob::{Ending, STOP_GRACE},
    schedule::rate::RateLimiter,
};
use dray_core::policy::RuleLimits;
use std::{collections::HashMap, sync::Arc, time::Duration};
use tokio::sync::{Semaphore, SemaphorePermit};

/// The first wait before an image is tried again, and the longest one.
const WAITS: (Duration, Duration) = (Duration::from_secs(1), Duration::from_secs(60));

/// The limits of one rule, shared by its copies.
#[derive(Default)]
pub(super) struct Allowance {
    images: Option<Semaphore>,
    /// Bytes a second of all its copies together.
    pub rate: Option<Arc<RateLimiter>>,
    timeout: Option<Duration>,
    retry: u32,
}

impl Allowance {
    pub fn new(limits: &RuleLimits) -> Self {
        Allowance {
            images: limits.concurrency.map(Semaphore::new),
            rate: limits.bandwidth.map(|rate| Arc::new(RateLimiter::new(rate))),
            timeout: limits.timeout,
            retry: limits.retry,
        }
    }

    /// The allowances of rules by their names.
    pub fn of_rules(rules: &HashMap<String, RuleLimits>) -> HashMap<String, Arc<Allowance>> {
        rules.iter().map(|(name, limits)| (name.clone(), Arc::new(Allowance::new(limits)))).collect()
    }

    /// Waits until another image may be copied.
    pub async fn image(&self) -> Option<SemaphorePermit<'_>> {
        // The semaphore is never closed.
        self.images.as_ref()?.acquire().await.ok()
    }

    /// How long to wait before an image is tried again that failed, and was tried again so often already. `None` means
    /// that the failure stands.
    pub fn again(&self, attempt: &Attempt, tried: u32) -> Option<Duration> {
        let error = attempt.result.as_ref().err()?;
        let wait = (WAITS.0 * 2u32.saturating_pow(tried)).min(WAITS.1);
        (self.may_try_again(tried) && may_pass(error)).then_some(wait)
    }

    /// Whether an image that was tried again so often may be tried once more after this attempt.
    pub fn may_try_again(&self, tried: u32) -> bool {
        tried < self.retry
    }

    /// One attempt to copy an image, within the time that the rule allows. Where it is over, blobs that are nearly there
    /// are finished, as at the end of a run, so that the next attempt goes on behind them.
    pub async fn in_time(&self, ending: &Ending, attempt: impl Future<Output = Attempt> + Unpin) -> Attempt {
        let mut attempt = attempt;
        let Some(limit) = self.timeout else { return attempt.await };
        if let Ok(ended) = tokio::time::timeout(limit, &mut attempt).await {
            return ended;
        }
        ending.begin();
        match tokio::time::timeout(STOP_GRACE, attempt).await {
            Ok(ended) if !ended.result.as_ref().is_err_and(|error| error.kind == Kind::Cancelled) => ended,
            _ => {
                let text = format!("copy it in time: the `timeout` of its rule is {limit:?}");
                Attempt::failed(
                    Error::new(Kind::Exhausted, text).help(
                        "the next run goes on where this one stopped; raise `timeout` if it is too short",
                    ),
                )
            }
        }
    }
}

/// Whether the same copy may succeed later without anybody changing something.
fn may_pass(error: &Error) -> bool {
    matches!(error.kind, Kind::Exhausted | Kind::Transient | Kind::RateLimited(_))
}
