//! Whether a server that was given up is worth more than one attempt.

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

/// Whoever was given up is not waited for again so soon.
const AWAY: Duration = Duration::from_secs(60);

/// What is known of a server. One that has answered may be restarting, and is waited for.
#[derive(Default)]
pub(super) struct CircuitBreaker {
    /// Anything ever came from it.
    answered: AtomicBool,
    /// When it was given up last.
    since: Mutex<Option<Instant>>,
}

impl CircuitBreaker {
    pub fn answers(&self) {
        self.answered.store(true, Ordering::Relaxed);
    }

    /// It was asked as often as that may help.
    pub fn given_up(&self) {
        *lock(&self.since) = Some(Instant::now());
    }

    /// Whether it was given up so lately, and has never answered.
    pub fn is_away(&self) -> bool {
        let never = !self.answered.load(Ordering::Relaxed);
        never && lock(&self.since).is_some_and(|since| since.elapsed() < AWAY)
    }

    /// How often it is asked. Where nothing has answered yet, there may be nobody: it is tried once more.
    pub fn backoff(&self) -> Backoff {
        match (self.is_away(), self.answered.load(Ordering::Relaxed)) {
            (true, _) => Backoff::once(),
            (false, false) => Backoff::twice(),
            (false, true) => Backoff::new(),
        }
    }

    /// It may have answered meanwhile, and then is worth all patience.
    pub fn extend(&self, backoff: &mut Backoff) {
        if self.answered.load(Ordering::Relaxed) {
            backoff.extend();
        }
    }
}

/// What a host lets pass of each action, which registries limit apart.
#[derive(Default)]
pub(super) struct Refusals([Mutex<Passing>; 5]);

#[derive(Default)]
enum Passing {
    #[default]
    Unknown,
    /// Nothing has ever passed, and it was given up then.
    Refused(Instant),
    /// Something has passed, so all else is worth its patience.
    Passed,
}

impl Refusals {
    pub fn passed(&self, action: Action) {
        *lock(&self.0[action as usize]) = Passing::Passed;
    }

    /// A request was refused as often as that may help.
    pub fn given_up(&self, action: Action) {
        let mut passing = lock(&self.0[action as usize]);
        if !matches!(*passing, Passing::Passed) {
            *passing = Passing::Refused(Instant::now());
        }
    }

    /// Whether nothing passes, as far as that is known.
    pub fn refuses(&self, action: Action) -> bool {
        matches!(*lock(&self.0[action as usize]), Passing::Refused(since) if since.elapsed() < AWAY)
    }
}
