//! The end of a run that was told to stop, or of an attempt whose time is over: blobs that are nearly there are finished,
//! others are given up.

use crate::{Error, Kind, Result};
use std::{
    sync::{Arc, OnceLock},
    time::{Duration, Instant},
};

/// How long a run that was told to stop, or an attempt whose time is over, waits for what is under way.
pub const STOP_GRACE: Duration = Duration::from_secs(6);

/// When a run or one of its attempts was told to end. It is empty before that.
#[derive(Default)]
pub(crate) struct Ending {
    begun: OnceLock<Instant>,
    /// The run to which the attempt belongs.
    run: Option<Arc<Ending>>,
}

impl Ending {
    /// The end of an attempt, which ends with its run at the latest.
    pub fn of_attempt(run: &Arc<Ending>) -> Self {
        Ending { begun: OnceLock::new(), run: Some(run.clone()) }
    }

    /// Tells all transfers that it ends.
    pub fn begin(&self) {
        self.begun.get_or_init(Instant::now);
    }

    fn begun(&self) -> Option<&Instant> {
        self.begun.get().or_else(|| self.run.as_ref()?.begun())
    }

    /// Fails if it ends, so nothing further may begin.
    pub fn check(&self) -> Result<()> {
        match self.begun() {
            None => Ok(()),
            Some(_) => Err(stopped()),
        }
    }

    /// Fails if it ends, and a transfer is not nearly there: it has brought `done` bytes in `time`, and `left` bytes
    /// are left.
    pub fn check_left(&self, done: u64, time: Duration, left: u64) -> Result<()> {
        let Some(begun) = self.begun() else { return Ok(()) };
        let still = STOP_GRACE.saturating_sub(begun.elapsed()).as_secs_f64();
        match left as f64 * time.as_secs_f64() <= still * done as f64 {
            true => Ok(()),
            false => Err(stopped()),
        }
    }
}

/// The error for what was given up because its run or its attempt ended.
pub(crate) fn stopped() -> Error {
    Error::new(Kind::Cancelled, "go on: the run was stopped")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_what_is_nearly_there_goes_on() {
        let ending = Ending::default();
        let second = Duration::from_secs(1);
        assert!(ending.check().is_ok() && ending.check_left(1, second, 1000).is_ok());
        ending.begin();
        assert_eq!(ending.check().unwrap_err().kind, Kind::Cancelled);
        // Ten bytes a second.
        assert!(ending.check_left(10, second, 40).is_ok());
        assert!(ending.check_left(10, second, 60).is_err());
        assert!(ending.check_left(0, second, 1).is_err());
        assert!(ending.check_left(0, Duration::ZERO, 0).is_ok());
        let run = Arc::new(Ending::default());
        let attempt = Ending::of_attempt(&run);
        assert!(attempt.check().is_ok());
        run.begin();
        assert!(attempt.check().is_err());
    }
}
