//! Detects downloads that are too slow to finish.

use std::time::Duration;

/// The time of waiting over which the rate is measured.
const WINDOW: Duration = Duration::from_secs(60);

/// Measures the rate of one download.
pub(super) struct Rate {
    /// The lowest allowed rate, in bytes per second.
    least: u64,
    waited: Duration,
    bytes: u64,
}

impl Rate {
    pub fn new(least: u64) -> Self {
        Rate { least, waited: Duration::ZERO, bytes: 0 }
    }

    /// Records that `bytes` arrived after waiting `waited` for the source; the time that the destination takes is not
    /// counted. Returns the reason if the download is too slow.
    pub fn passes(&mut self, bytes: u64, waited: Duration) -> Option<String> {
        self.bytes += bytes;
        self.waited += waited;
        if self.waited < WINDOW {
            return None;
        }
        let (came, seconds) = (self.bytes, self.waited.as_secs());
        (self.waited, self.bytes) = (Duration::ZERO, 0);
        (came / seconds < self.least)
            .then(|| format!("only {came} bytes came in {seconds} s, and {} a second are wanted", self.least))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_trickle_ends_after_a_minute_and_a_slow_line_does_not() {
        let run = |each: u64, waited: u64| {
            let mut rate = Rate::new(256);
            (0..200).find_map(|_| rate.passes(each, Duration::from_secs(waited)))
        };
        assert_eq!(run(1, 1).unwrap(), "only 60 bytes came in 60 s, and 256 a second are wanted");
        assert_eq!(run(300, 1), None);
        assert_eq!(run(1, 0), None);
    }
}
