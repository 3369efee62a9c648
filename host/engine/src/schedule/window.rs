//! How many requests of one kind a host has at once: more as long as that pays, half as many when it
//! asks us to wait (slow start, additive increase, multiplicative decrease: RFC 5681, 3.1).

use crate::lock;
use std::{
    sync::{Arc, Mutex},
    time::{Duration, Instant},
};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};

/// So many times its size must be answered before it grows by one: what was found out is not to be
/// found out again at once.
const ROUNDS: usize = 8;

/// How many it begins with. Where a host's processors are the limit, more only makes it slower.
const FIRST: usize = 8;
/// Where small requests usually take more than so many times as long as the fastest one, they wait for each
/// other at the host.
const QUEUED: u32 = 2;
/// After so many answers, what the fastest one took has mostly given way to what they usually take.
const AGING: u32 = 512;

/// A window that opens and closes.
pub(crate) struct Window {
    permits: Arc<Semaphore>,
    state: Mutex<State>,
}

struct State {
    /// What the operator allows.
    ceiling: usize,
    /// What the host allowed in its last answer.
    allowed: usize,
    size: usize,
    /// Permits that are under way and must not come back.
    debt: usize,
    /// Answers since the size was changed.
    answers: usize,
    cut: Option<Instant>,
    /// The shortest time that a small request took.
    fastest: Duration,
    /// What one takes usually: a moving average.
    usual: Duration,
}

/// The right to have a request under way.
pub(crate) struct WindowPermit {
    window: Arc<Window>,
    begun: Instant,
    permit: Option<OwnedSemaphorePermit>,
    /// It was answered at once or not at all: how long it took tells how busy the host is.
    small: bool,
}

impl Window {
    /// One that opens as far as `ceiling`.
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

    /// Waits for a place in it.
    pub async fn pass(self: &Arc<Self>) -> WindowPermit {
        // It is never closed.
        let permit = self.permits.clone().acquire_owned().await.ok();
        WindowPermit { window: self.clone(), begun: Instant::now(), permit, small: false }
    }

    /// How many places there are in it now.
    pub fn room(&self) -> usize {
        self.permits.available_permits()
    }

    /// A place in it, if there is one now.
    pub fn pass_now(self: &Arc<Self>) -> Option<WindowPermit> {
        let permit = self.permits.clone().try_acquire_owned().ok()?;
        Some(WindowPermit { window: self.clone(), begun: Instant::now(), permit: Some(permit), small: false })
    }

    /// Waits for a place in it, for a request without a blob.
    pub async fn small(self: &Arc<Self>) -> WindowPermit {
        let mut pass = self.pass().await;
        pass.small = true;
        pass
    }

    /// The host asked us to wait, in the answer to a request that was begun then. Of those that were
    /// under way together, one cuts it.
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

    /// How many it lets through at once.
    pub fn size(&self) -> usize {
        lock(&self.state).size
    }

    /// The host lets so many more requests of the kind pass: there are never more under way.
    pub fn at_most(&self, remaining: u64) {
        let mut state = lock(&self.state);
        state.allowed = usize::try_from(remaining).unwrap_or(usize::MAX).max(1);
        let size = state.size.min(state.allowed);
        state.debt += state.size - size;
        state.size = size;
        state.debt -= self.permits.forget_permits(state.debt);
    }

    /// A request has been answered, a small one in so much time; whether its permit is to be forgotten.
    fn answered(&self, took: Option<Duration>) -> bool {
        let mut state = lock(&self.state);
        if let Some(took) = took {
            state.usual = if state.usual.is_zero() { took } else { (state.usual * 7 + took) / 8 };
            state.fastest = state.fastest.min(took);
            // The way to a host may become longer: the record does not stand for ever.
            let longer = state.usual.saturating_sub(state.fastest);
            state.fastest += longer / AGING;
        }
        if state.debt > 0 {
            state.debt -= 1;
            return true;
        }
        // So few do not wait for each other.
        let queued = took.is_some() && state.size >= FIRST && state.usual > state.fastest * QUEUED;
        if state.size < state.ceiling.min(state.allowed) && !queued {
            if state.cut.is_none() {
                // Nothing was found out yet: it doubles with every round.
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
    /// The request begins: what went before was the wait for other places.
    pub fn begins(&mut self) {
        self.begun = Instant::now();
    }

    /// Gives it back without a request: nothing was learnt.
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
        // Four of those under way give nothing back.
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
        // Those that wait at the host do not make it ask for more, nor does a fast one among them.
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
        // It opens again when there is a new allowance, however slow the host has become.
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
