//! Whether a server that was given up is worth more than one attempt.

use super::retry::Backoff;
use crate::lock;
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
pub(super) struct Away {
    /// Anything ever came from it.
    answered: AtomicBool,
    /// When it was given up last.
    since: Mutex<Option<Instant>>,
}

impl Away {
    pub fn answers(&self) {
        self.answered.store(true, Ordering::Relaxed);
    }

    /// It was asked as often as that may help.
    pub fn given_up(&self) {
        *lock(&self.since) = Some(Instant::now());
    }

    /// How often it is asked: once if it was given up so lately, and has never answered.
    pub fn backoff(&self) -> Backoff {
        let never = !self.answered.load(Ordering::Relaxed);
        match never && lock(&self.since).is_some_and(|since| since.elapsed() < AWAY) {
            true => Backoff::once(),
            false => Backoff::new(),
        }
    }
}
