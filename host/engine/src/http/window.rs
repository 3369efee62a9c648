//! How many requests of one kind a host has at once: more as long as it answers, half as many when it
//! asks for patience (additive increase, multiplicative decrease: RFC 5681, 3.1).

use crate::lock;
use std::{
    sync::{Arc, Mutex},
    time::Instant,
};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};

/// So many times its size must be answered before it grows by one: what was found out is not to be
/// found out again at once.
const ROUNDS: usize = 8;

/// A window that opens and closes.
pub(super) struct Window {
    permits: Arc<Semaphore>,
    state: Mutex<State>,
}

struct State {
    /// What the operator allows.
    ceiling: usize,
    size: usize,
    /// Permits that are under way and must not come back.
    debt: usize,
    /// Answers since the size was changed.
    answers: usize,
    cut: Option<Instant>,
}

/// The right to have a request under way.
pub(super) struct Pass {
    window: Arc<Window>,
    begun: Instant,
    permit: Option<OwnedSemaphorePermit>,
}

impl Window {
    /// One that is as wide as it may become.
    pub fn new(ceiling: usize) -> Arc<Self> {
        let state = State { ceiling, size: ceiling, debt: 0, answers: 0, cut: None };
        Arc::new(Window { permits: Arc::new(Semaphore::new(ceiling)), state: Mutex::new(state) })
    }

    /// Waits for a place in it.
    pub async fn pass(self: &Arc<Self>) -> Pass {
        // It is never closed.
        let permit = self.permits.clone().acquire_owned().await.ok();
        Pass { window: self.clone(), begun: Instant::now(), permit }
    }

    /// The host asked for patience, in the answer to a request that was begun then. Of those that were
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

    /// A request has been answered; whether its permit is to be forgotten.
    fn answered(&self) -> bool {
        let mut state = lock(&self.state);
        if state.debt > 0 {
            state.debt -= 1;
            return true;
        }
        if state.size < state.ceiling {
            state.answers += 1;
            if state.answers >= state.size * ROUNDS {
                (state.size, state.answers) = (state.size + 1, 0);
                self.permits.add_permits(1);
            }
        }
        false
    }
}

impl Pass {
    /// When it was given.
    pub fn begun(&self) -> Instant {
        self.begun
    }
}

impl Drop for Pass {
    fn drop(&mut self) {
        if let Some(permit) = self.permit.take()
            && self.window.answered()
        {
            permit.forget();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn size(window: &Window) -> usize {
        lock(&window.state).size
    }

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
        assert_eq!(size(&window), 4);
        // Four of those under way give nothing back.
        under_way.truncate(4);
        assert_eq!(window.permits.available_permits(), 0);
        under_way.clear();
        assert_eq!((size(&window), window.permits.available_permits()), (4, 4));
        for _ in 0..4 * ROUNDS {
            drop(window.pass().await);
        }
        assert_eq!((size(&window), window.permits.available_permits()), (5, 5));
        for _ in 0..1000 {
            drop(window.pass().await);
        }
        assert_eq!((size(&window), window.permits.available_permits()), (8, 8));
    }

    #[tokio::test]
    async fn one_request_always_gets_through() {
        let window = Window::new(1);
        window.cut(Instant::now());
        drop(window.pass().await);
        assert_eq!((size(&window), window.permits.available_permits()), (1, 1));
    }
}
