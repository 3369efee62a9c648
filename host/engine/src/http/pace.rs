//! Pace: how fast blobs are sent to a host, which decides in which pieces they travel. What an interrupted request has
//! sent is lost, so a request over a slow line should be short.

use crate::lock;
use std::{sync::Mutex, time::Duration};

/// Smaller blobs are sent whole, whatever the pace. In bytes.
pub(crate) const SHORT: u64 = 4 << 20;
/// A blob that takes longer than this is sent in pieces, in seconds. It is less than a stopped run waits for what is under
/// way: some registries forget all of an upload whose request breaks off.
const LONG: f64 = 5.0;
/// A piece takes about as long, in seconds.
const PIECE: f64 = 4.0;
/// Size of the smallest and of the largest piece in bytes.
const PIECES: (u64, u64) = (1 << 20, 64 << 20);
/// As long as the pace is not known, a blob of more than [`UNKNOWN`] bytes begins with a piece of this many.
const FIRST: u64 = 4 << 20;
const UNKNOWN: u64 = 16 << 20;
/// A request of fewer bytes tells nothing of the pace.
const LITTLE: u64 = 1 << 20;

/// A piece of at most this part of the last one that takes at least this part of its time shows that not the line is slow
/// but the host, which takes its time for each request. One such piece may be chance.
const SMALLER: f64 = 0.5;
const AS_LONG: f64 = 0.8;
const CHANCE: u32 = 1;

/// How fast blobs are sent to a host.
#[derive(Default)]
pub(crate) struct Pace(Mutex<State>);

#[derive(Default)]
struct State {
    /// Bytes a second of one request with a blob, as a moving average. `None` means that none has been answered yet.
    rate: Option<f64>,
    /// Bytes and seconds of the last request.
    last: Option<(f64, f64)>,
    /// How many pieces were smaller and took as long as those before.
    as_slow: u32,
    /// Whether blobs are sent whole, because pieces do not help or the host loses them.
    whole: bool,
}

impl Pace {
    /// Records that a request with so many bytes of a blob was answered.
    pub fn took(&self, bytes: u64, time: Duration) {
        if bytes < LITTLE {
            return;
        }
        let (bytes, time) = (bytes as f64, time.as_secs_f64().max(0.001));
        let mut state = lock(&self.0);
        if let Some((before, took)) = state.last.replace((bytes, time))
            && time > 1.0
            && bytes < before * SMALLER
            && time > took * AS_LONG
        {
            state.as_slow += 1;
            state.whole |= state.as_slow > CHANCE;
        }
        let seen = bytes / time;
        state.rate = Some(state.rate.map_or(seen, |before| (before + seen) / 2.0));
    }

    /// Sends blobs whole from now on, because the host took no pieces, or lost them.
    pub fn no_pieces(&self) {
        lock(&self.0).whole = true;
    }

    /// How many bytes a request should carry, if so many are left of a blob. `None` means all of them.
    pub fn piece(&self, left: u64) -> Option<u64> {
        let state = lock(&self.0);
        let piece = match state.rate {
            _ if left <= SHORT || state.whole => return None,
            None if left <= UNKNOWN => return None,
            None => FIRST,
            Some(pace) if left as f64 <= pace * LONG => return None,
            Some(pace) => (pace * PIECE) as u64,
        };
        Some(piece.clamp(PIECES.0, PIECES.1)).filter(|piece| *piece < left)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MIB: u64 = 1 << 20;

    #[test]
    fn a_host_that_takes_its_time_for_each_request_gets_few() {
        let pace = Pace::default();
        pace.took(4 * MIB, Duration::from_secs(5));
        assert_eq!(pace.piece(28 * MIB), Some(3_355_443));
        pace.took(3 * MIB / 2, Duration::from_secs(5));
        assert!(pace.piece(28 * MIB).is_some(), "once may be chance");
        pace.took(4 * MIB, Duration::from_secs(5));
        pace.took(3 * MIB / 2, Duration::from_secs(5));
        assert_eq!(pace.piece(28 * MIB), None);
        // A smaller piece that takes less says nothing of that kind.
        let slow = Pace::default();
        slow.took(4 * MIB, Duration::from_secs(12));
        slow.took(MIB, Duration::from_secs(3));
        assert!(slow.piece(28 * MIB).is_some());
        slow.no_pieces();
        assert_eq!(slow.piece(28 * MIB), None);
    }

    #[test]
    fn blobs_are_cut_where_they_would_take_long() {
        let pace = Pace::default();
        let pieces = |pace: &Pace| [3, 16, 28, 200, 2000].map(|size| pace.piece(size * MIB));
        assert_eq!(pieces(&pace), [None, None, Some(4 * MIB), Some(4 * MIB), Some(4 * MIB)]);
        // A small request that was quick says nothing.
        pace.took(1000, Duration::from_secs(1));
        assert_eq!(pace.piece(28 * MIB), Some(4 * MIB));
        // 2 MiB a second.
        pace.took(4 * MIB, Duration::from_secs(2));
        assert_eq!(pieces(&pace), [None, Some(8 * MIB), Some(8 * MIB), Some(8 * MIB), Some(8 * MIB)]);
        assert_eq!(pace.piece(10 * MIB), None);
        // The line becomes faster, and then far slower.
        pace.took(400 * MIB, Duration::from_secs(1));
        assert_eq!(pieces(&pace), [None, None, None, None, Some(64 * MIB)]);
        (0..20).for_each(|_| pace.took(MIB, Duration::from_secs(20)));
        assert_eq!(pace.piece(28 * MIB), Some(MIB));
    }
}
