//! Circuit breaker: decides whether a server that was given up is worth more than one attempt.

use super::retry::Backoff;
use crate::lock;
use crate::schedule::action::Action;
use std::{
    sync::{
        Mutex,
        atomic::{AtomicBool, Ordering},
    },
    time::{Duration, Instant},
};

/// For this long after a server was given up, it gets a single attempt.
const AWAY: Duration = Duration::from_secs(60);

/// The state of a server. A server that has ever answered may just be restarting, so it keeps all attempts.
#[derive(Default)]
pub(super) struct CircuitBreaker {
    /// Whether the server has ever answered.
    answered: AtomicBool,
    /// When the server was last given up.
    since: Mutex<Option<Instant>>,
}

impl CircuitBreaker {
    pub fn answers(&self) {
        self.answered.store(true, Ordering::Relaxed);
    }

    /// Records that all attempts have failed.
    pub fn given_up(&self) {
        *lock(&self.since) = Some(Instant::now());
    }

    /// Whether the server has never answered and was given up less than [`AWAY`] ago.
    pub fn is_away(&self) -> bool {
        let never = !self.answered.load(Ordering::Relaxed);
        never && lock(&self.since).is_some_and(|since| since.elapsed() < AWAY)
    }

    /// How many attempts the next request gets. If nothing has answered yet, the server may not exist: it gets two.
    pub fn backoff(&self) -> Backoff {
        match (self.is_away(), self.answered.load(Ordering::Relaxed)) {
            (true, _) => Backoff::once(),
            (false, false) => Backoff::twice(),
            (false, true) => Backoff::new(),
        }
    }

    /// Allows all attempts if the server has answered in the meantime.
    pub fn extend(&self, backoff: &mut Backoff) {
        if self.answered.load(Ordering::Relaxed) {
            backoff.extend();
        }
    }
}

/// Which actions a host lets pass. Registries limit each action separately.
#[derive(Default)]
pub(super) struct Refusals([Mutex<Passing>; 5]);

#[derive(Default)]
enum Passing {
    #[default]
    Unknown,
    /// No request of this action has ever passed, and one was given up at this time.
    Refused(Instant),
    /// A request has passed, so later ones get all attempts.
    Passed,
}

impl Refusals {
    pub fn passed(&self, action: Action) {
        *lock(&self.0[action as usize]) = Passing::Passed;
    }

    /// Records that a request was refused in all of its attempts.
    pub fn given_up(&self, action: Action) {
        let mut passing = lock(&self.0[action as usize]);
        if !matches!(*passing, Passing::Passed) {
            *passing = Passing::Refused(Instant::now());
        }
    }

    /// Whether the host currently refuses all requests of this action, as far as we know.
    pub fn refuses(&self, action: Action) -> bool {
        matches!(*lock(&self.0[action as usize]), Passing::Refused(since) if since.elapsed() < AWAY)
    }
}
