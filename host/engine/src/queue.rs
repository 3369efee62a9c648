//! Whose blob moves next: of those that wait, the one that lets most bytes of images go on. So the largest
//! do not begin last, and what many repositories want is soon there to be mounted.

use crate::lock;
use std::sync::{
    Arc, Mutex,
    atomic::{AtomicUsize, Ordering},
};
use tokio::sync::oneshot;

/// A line in front of a host.
pub(crate) struct Queue {
    /// How many may move at once; that changes.
    places: Box<dyn Fn() -> usize + Send + Sync>,
    state: Mutex<State>,
}

#[derive(Default)]
struct State {
    moving: usize,
    waiting: Vec<Waiter>,
}

struct Waiter {
    /// Bytes.
    size: u64,
    /// How many others wait for the same blob.
    wanted: Option<Arc<AtomicUsize>>,
    go: oneshot::Sender<Turn>,
}

impl Waiter {
    fn weight(&self) -> u64 {
        let others = self.wanted.as_ref().map_or(0, |wanted| wanted.load(Ordering::Relaxed));
        self.size.saturating_mul(1 + others as u64)
    }
}

/// The right to move a blob.
pub(crate) struct Turn {
    queue: Arc<Queue>,
}

impl Queue {
    /// A line of which so many move at once.
    pub fn new(places: impl Fn() -> usize + Send + Sync + 'static) -> Arc<Self> {
        Arc::new(Queue { places: Box::new(places), state: Mutex::default() })
    }

    /// Waits until a blob of so many bytes may move. `wanted` counts the others that wait for it.
    pub async fn turn(self: &Arc<Self>, size: u64, wanted: Option<Arc<AtomicUsize>>) -> Turn {
        let (go, told) = oneshot::channel();
        lock(&self.state).waiting.push(Waiter { size, wanted, go });
        self.admit();
        // A waiter is told, or gone.
        told.await.unwrap_or_else(|_| Turn { queue: self.clone() })
    }

    fn admit(self: &Arc<Self>) {
        let mut gone = Vec::new();
        let places = (self.places)();
        {
            let mut state = lock(&self.state);
            while state.moving < places {
                let heaviest = (0..state.waiting.len()).max_by_key(|at| state.waiting[*at].weight());
                let Some(heaviest) = heaviest else { break };
                state.moving += 1;
                let waiter = state.waiting.swap_remove(heaviest);
                gone.extend(waiter.go.send(Turn { queue: self.clone() }).err());
            }
        }
        // Whoever no longer waits gives its turn back, which wants the lock.
        drop(gone);
    }
}

impl Drop for Turn {
    fn drop(&mut self) {
        lock(&self.queue.state).moving -= 1;
        self.queue.admit();
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use futures_util::FutureExt;

    #[tokio::test]
    async fn the_heaviest_goes_first_and_who_gives_up_makes_room() {
        let queue = Queue::new(|| 1);
        let first = queue.turn(1, None).await;
        let mut small = Box::pin(queue.turn(10, None));
        let mut large = Box::pin(queue.turn(30, None));
        let others = Arc::new(AtomicUsize::new(0));
        let mut shared = Box::pin(queue.turn(10, Some(others.clone())));
        let mut given_up = Box::pin(queue.turn(1000, None));
        for waiting in [&mut small, &mut large, &mut shared, &mut given_up] {
            assert!(waiting.now_or_never().is_none());
        }
        drop(given_up);
        // Others come to want it while it waits.
        others.store(4, Ordering::Relaxed);
        drop(first);
        let turn = shared.as_mut().now_or_never().unwrap();
        assert!(large.as_mut().now_or_never().is_none());
        drop(turn);
        drop(large.as_mut().now_or_never().unwrap());
        drop(small.await);
        assert_eq!(lock(&queue.state).moving, 0);
    }
}
