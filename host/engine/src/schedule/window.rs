//! Window: how many requests of one action a host gets at once. It grows as long as that helps, and halves when the
//! host asks us to wait (slow start, additive increase, multiplicative decrease: RFC 5681, 3.1).

use crate::lock;
use std::{
    sync::{Arc, Mutex},
    time::{Duration, Instant},
};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};

/// After a cut, the window grows by one only after this many times its size of answers. This keeps it from reaching the
/// same limit again at once.
const ROUNDS: usize = 8;

/// The initial size. If a host is limited by its processors, more requests only slow it down.
const FIRST: usize = 8;
/// If small requests usually take more than this many times as long as the fastest one, they are queued at the host.
const QUEUED: u32 = 2;
/// After this many answers, the record of the fastest request has mostly been replaced by the usual time.
const AGING: u32 = 512;

/// A limit for the requests under way. It grows and shrinks.
pub(crate) struct Window {
    permits: Arc<Semaphore>,
    state: Mutex<State>,
}

struct State {
    /// The limit that the operator set.
    ceiling: usize,
    /// The limit that the host gave in its last answer.
    allowed: usize,
    size: usize,
    /// The number of permits in use that are to be removed when they are given back.
    debt: usize,
    /// The number of answers since the size last changed.
    answers: usize,
    cut: Option<Instant>,
    /// The shortest time that a small request took. It grows slowly (see [`AGING`]).
    fastest: Duration,
    /// The moving average of the time that small requests take.
    usual: Duration,
}

/// The right to have a request under way.
pub(crate) struct WindowPermit {
    window: Arc<Window>,
    begun: Instant,
    permit: Option<OwnedSemaphorePermit>,
    /// Whether the request is small, so that its duration tells how busy the host is.
    small: bool,
}

impl Window {
    /// Creates a window that opens up to `ceiling` requests.
    pub fn new(ceiling: usize) -> Arc<Self> {
        let size = ceiling.min(FIRST);
        let state = State {
            ceiling,
            allowed: usize::MAX,
            size,
            debt: 0,
            answers: 0,
            cut: None,
            fastest: Duration::MAX,
            usual: Duration::ZERO,
        };
        Arc::new(Window { permits: Arc::new(Semaphore::new(size)), state: Mutex::new(state) })
    }

    /// Waits for a free permit.
    pub async fn pass(self: &Arc<Self>) -> WindowPermit {
        // The semaphore is never closed.
        let permit = self.permits.clone().acquire_owned().await.ok();
        WindowPermit { window: self.clone(), begun: Instant::now(), permit, small: false }
    }

    /// The number of free permits.
    pub fn room(&self) -> usize {
        self.permits.available_permits()
    }

    /// Takes a permit if one is free.
    pub fn pass_now(self: &Arc<Self>) -> Option<WindowPermit> {
        let permit = self.permits.clone().try_acquire_owned().ok()?;
        Some(WindowPermit { window: self.clone(), begun: Instant::now(), permit: Some(permit), small: false })
    }

    /// Waits for a free permit for a request without a blob.
    pub async fn small(self: &Arc<Self>) -> WindowPermit {
        let mut pass = self.pass().await;
        pass.small = true;
        pass
    }

    /// Halves the window, because the host asked us to wait in the answer to a request that began at `begun`. If
    /// several requests were under way together, only the first such answer halves it.
    pub fn cut(&self, begun: Instant) {
        let mut state = lock(&self.state);
        let now = Instant::now();
        if state.cut.is_some_and(|cut| begun < cut) {
            return;
        }
        let size = (state.size / 2).max(1);
        state.debt += state.size - size;
        (state.size, state.answers, state.cut) = (size, 0, Some(now));
        state.debt -= self.permits.forget_permits(state.debt);
        tracing::debug!(size, "fewer requests at once: the host asks for patience");
    }

    /// The maximum number of requests that may be under way at once.
    pub fn size(&self) -> usize {
        lock(&self.state).size
    }

    /// Limits the window to the number of requests that the host still allows.
    pub fn at_most(&self, remaining: u64) {
        let mut state = lock(&self.state);
        state.allowed = usize::try_from(remaining).unwrap_or(usize::MAX).max(1);
        let size = state.size.min(state.allowed);
        state.debt += state.size - size;
        state.size = size;
        state.debt -= self.permits.forget_permits(state.debt);
    }

    /// Records an answer; `took` is the duration of a small request. Returns whether its permit must be removed.
    fn answered(&self, took: Option<Duration>) -> bool {
        let mut state = lock(&self.state);
        if let Some(took) = took {
            state.usual = if state.usual.is_zero() { took } else { (state.usual * 7 + took) / 8 };
            state.fastest = state.fastest.min(took);
            // The latency to a host may grow, so the record of the fastest request ages.
            let longer = state.usual.saturating_sub(state.fastest);
            state.fastest += longer / AGING;
        }
        if state.debt > 0 {
            state.debt -= 1;
            return true;
        }
        // A window that is smaller than the initial size grows in any case.
        let queued = took.is_some() && state.size >= FIRST && state.usual > state.fastest * QUEUED;
        if state.size < state.ceiling.min(state.allowed) && !queued {
            if state.cut.is_none() {
                // Slow start: no limit is known yet, so the window doubles with every round.
                state.size += 1;
                self.permits.add_permits(1);
                return false;
            }
            state.answers += 1;
            if state.answers >= state.size * ROUNDS {
                (state.size, state.answers) = (state.size + 1, 0);
                self.permits.add_permits(1);
            }
        }
        false
    }
}

impl WindowPermit {
    /// Starts the measurement when the request begins. The time before was spent waiting for other permits.
    pub fn begins(&mut self) {
        self.begun = Instant::now();
    }

    /// Gives the permit back without a request, so it does not count as an answer.
    pub fn unused(mut self) {
        let Some(permit) = self.permit.take() else { return };
        let mut state = lock(&self.window.state);
        if state.debt > 0 {
            state.debt -= 1;
            permit.forget();
        }
    }

    /// When the request began.
    pub fn begun(&self) -> Instant {
        self.begun
    }
}

impl Drop for WindowPermit {
    fn drop(&mut self) {
        if let Some(permit) = self.permit.take()
            && self.window.answered(self.small.then(|| self.begun.elapsed()))
        {
            permit.forget();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn it_halves_once_a_round_and_grows_by_one() {
        let window = Window::new(8);
        let mut under_way = Vec::new();
        for _ in 0..8 {
            under_way.push(window.pass().await);
        }
        for pass in &under_way {
            window.cut(pass.begun());
        }
        assert_eq!(window.size(), 4);
        // The permits of four of the requests under way are removed.
        under_way.truncate(4);
        assert_eq!(window.permits.available_permits(), 0);
        under_way.clear();
        assert_eq!((window.size(), window.permits.available_permits()), (4, 4));
        for _ in 0..4 * ROUNDS {
            drop(window.pass().await);
        }
        assert_eq!((window.size(), window.permits.available_permits()), (5, 5));
        for _ in 0..1000 {
            drop(window.pass().await);
        }
        assert_eq!((window.size(), window.permits.available_permits()), (8, 8));
    }

    #[tokio::test]
    async fn it_opens_as_long_as_that_pays() {
        let window = Window::new(32);
        assert_eq!(window.size(), FIRST);
        let took = |milliseconds| window.answered(Some(Duration::from_millis(milliseconds)));
        for _ in 0..4 {
            took(10);
        }
        assert_eq!(window.size(), FIRST + 4);
        // While requests queue at the host, the window does not grow, even if one of them is fast.
        took(100);
        let before = window.size();
        for _ in 0..20 {
            took(50);
            took(10);
        }
        assert_eq!(window.size(), before);
        for _ in 0..100 {
            took(15);
        }
        assert_eq!((window.size(), window.permits.available_permits()), (32, 32));
    }

    #[tokio::test]
    async fn what_may_still_be_asked_bounds_it() {
        let window = Window::new(8);
        window.at_most(100);
        assert_eq!(window.size(), 8);
        let under_way = [window.pass().await, window.pass().await];
        window.at_most(3);
        assert_eq!((window.size(), window.permits.available_permits()), (3, 1));
        drop(under_way);
        window.at_most(0);
        assert_eq!((window.size(), window.permits.available_permits()), (1, 1));
        // The window opens again when the host allows more, however slow it has become.
        window.answered(Some(Duration::from_millis(1)));
        assert_eq!(window.size(), 1);
        window.at_most(1000);
        for _ in 0..100 {
            window.answered(Some(Duration::from_millis(50)));
        }
        assert_eq!(window.size(), 8);
    }

    #[tokio::test]
    async fn one_request_always_gets_through() {
        let window = Window::new(1);
        window.cut(Instant::now());
        drop(window.pass().await);
        assert_eq!((window.size(), window.permits.available_permits()), (1, 1));
    }
}
