//! Whose blob moves next: of those whose ends both have room, the one that lets most bytes of images go
//! on. So the largest do not begin last, and what many repositories want is soon there to be mounted; and
//! who waits for one end keeps nobody from the other.

use super::window::{Pass, Window};
use crate::lock;
use std::{
    cmp::Reverse,
    sync::{
        Arc, Mutex,
        atomic::{AtomicUsize, Ordering},
    },
};
use tokio::sync::oneshot;

/// So many places at each of its ends go to others before one is kept for a blob that wants two.
const PASSED_OVER: usize = 256;

/// The line of all blobs that are to move, whatever their hosts.
#[derive(Default)]
pub(super) struct Line(Mutex<State>);

#[derive(Default)]
struct State {
    waiting: Vec<Waiter>,
    come: u64,
}

struct Waiter {
    ends: Vec<Arc<Window>>,
    /// How often a place at each end was given to another.
    passed_over: Vec<usize>,
    load: Load,
    /// How many came before it.
    behind: u64,
    go: oneshot::Sender<Passes>,
}

/// What is to move.
#[derive(Clone)]
pub(crate) struct Load {
    /// Bytes.
    pub size: u64,
    /// How many others wait for the same blob.
    pub wanted: Option<Arc<AtomicUsize>>,
}

impl Waiter {
    /// Others have had so many places at each of its ends that the next one at each is its own. An end that
    /// stands still gives none away, so nothing is kept for its sake.
    fn is_due(&self) -> bool {
        self.ends.len() > 1 && self.passed_over.iter().all(|count| *count >= PASSED_OVER)
    }
}

impl Load {
    /// A blob of so many bytes that nobody else waits for.
    pub fn of(size: u64) -> Self {
        Load { size, wanted: None }
    }

    fn weight(&self) -> u64 {
        let others = self.wanted.as_ref().map_or(0, |wanted| wanted.load(Ordering::Relaxed));
        self.size.saturating_mul(1 + others as u64)
    }
}

/// The right to move a blob: a place at each end.
pub(super) struct Passes {
    ends: Vec<Pass>,
    line: Arc<Line>,
}

impl Line {
    /// Waits until there is room at all ends at once. The line gives out all places of their windows, so
    /// nobody takes one apart.
    pub async fn passes(self: &Arc<Self>, ends: Vec<Arc<Window>>, load: Load) -> Passes {
        let (go, told) = oneshot::channel();
        {
            let mut state = lock(&self.0);
            let behind = state.come;
            state.come += 1;
            let passed_over = vec![0; ends.len()];
            state.waiting.push(Waiter { ends, passed_over, load, behind, go });
        }
        self.admit();
        // A waiter is told, or gone.
        told.await.unwrap_or_else(|_| Passes { ends: Vec::new(), line: self.clone() })
    }

    fn admit(self: &Arc<Self>) {
        let mut gone = Vec::new();
        {
            let State { waiting, .. } = &mut *lock(&self.0);
            loop {
                let longest =
                    waiting.iter().filter(|waiter| waiter.is_due()).min_by_key(|waiter| waiter.behind);
                let kept = longest.map_or(Vec::new(), |waiter| waiter.ends.clone());
                let ready = waiting.iter().enumerate().filter(|(_, waiter)| {
                    let is_free = |window: &Arc<Window>| {
                        let is_kept = !waiter.is_due() && kept.iter().any(|kept| Arc::ptr_eq(kept, window));
                        window.room() > usize::from(is_kept)
                    };
                    waiter.go.is_closed() || waiter.ends.iter().all(is_free)
                });
                let heaviest = ready.max_by_key(|(_, waiter)| {
                    (waiter.is_due(), waiter.load.weight(), Reverse(waiter.behind))
                });
                let Some((heaviest, _)) = heaviest else { break };
                let waiter = waiting.swap_remove(heaviest);
                if waiter.go.is_closed() {
                    continue;
                }
                let ends: Vec<_> = waiter.ends.iter().filter_map(Window::pass_now).collect();
                if ends.len() < waiter.ends.len() {
                    // A window was cut just now.
                    ends.into_iter().for_each(Pass::unused);
                    waiting.push(waiter);
                    continue;
                }
                for other in waiting.iter_mut() {
                    for (window, count) in other.ends.iter().zip(&mut other.passed_over) {
                        *count += usize::from(waiter.ends.iter().any(|taken| Arc::ptr_eq(taken, window)));
                    }
                }
                gone.extend(waiter.go.send(Passes { ends, line: self.clone() }).err());
            }
        }
        // Whoever no longer waits gives its places back, which wants the lock.
        drop(gone);
    }
}

impl Passes {
    /// Gives them back without a request: nothing was learnt.
    pub fn unused(mut self) {
        self.ends.drain(..).for_each(Pass::unused);
    }
}

impl Drop for Passes {
    fn drop(&mut self) {
        self.ends.clear();
        self.line.admit();
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use futures_util::FutureExt;

    #[tokio::test]
    async fn the_heaviest_goes_first_and_who_gives_up_makes_room() {
        let (line, window) = (Arc::new(Line::default()), Window::new(1));
        let pass = |load| Box::pin(line.passes(vec![window.clone()], load));
        let first = pass(Load::of(1)).await;
        let mut small = pass(Load::of(10));
        let mut large = pass(Load::of(30));
        let others = Arc::new(AtomicUsize::new(0));
        let mut shared = pass(Load { size: 10, wanted: Some(others.clone()) });
        let mut given_up = pass(Load::of(1000));
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
        let turn = large.as_mut().now_or_never().unwrap();
        // Told, and gone before it heard of it.
        let last = pass(Load::of(5));
        drop(turn);
        drop(small);
        drop(last.await);
        assert!(window.room() > 0 && lock(&line.0).waiting.is_empty());
    }

    #[tokio::test]
    async fn who_waits_for_one_end_keeps_nobody_from_the_other() {
        let line = Arc::new(Line::default());
        let (fast, slow, to) = (Window::new(1), Window::new(1), Window::new(1));
        let busy = line.passes(vec![slow.clone()], Load::of(1)).await;
        let mut waiting = Box::pin(line.passes(vec![to.clone(), slow.clone()], Load::of(1000)));
        assert!(waiting.as_mut().now_or_never().is_none());
        let passing = line.passes(vec![to.clone(), fast.clone()], Load::of(1)).now_or_never();
        assert_eq!(passing.as_ref().unwrap().ends.len(), 2);
        drop(busy);
        assert!(waiting.as_mut().now_or_never().is_none());
        drop(passing);
        assert_eq!(waiting.as_mut().now_or_never().unwrap().ends.len(), 2);
        assert_eq!([to.room(), slow.room(), fast.room()], [1; 3]);
    }

    #[tokio::test]
    async fn two_that_are_always_in_demand_are_had_together_all_the_same() {
        let line = Arc::new(Line::default());
        let (one, other) = (Window::new(1), Window::new(1));
        for window in [&one, &one, &other, &other] {
            let (line, window) = (line.clone(), window.clone());
            // A place that is given back goes to who waits for it: it never lies there to be taken.
            tokio::spawn(async move {
                loop {
                    let passes = line.passes(vec![window.clone()], Load::of(10)).await;
                    tokio::task::yield_now().await;
                    drop(passes);
                }
            });
        }
        tokio::task::yield_now().await;
        let both = line.passes(vec![one, other], Load::of(1));
        let both = tokio::time::timeout(std::time::Duration::from_secs(10), both);
        assert_eq!(both.await.unwrap().ends.len(), 2);
    }

    #[tokio::test]
    async fn two_ways_between_the_same_ends_do_not_wait_for_each_other() {
        let line = Arc::new(Line::default());
        let ends = [Window::new(1), Window::new(1)];
        let mut tasks = tokio::task::JoinSet::new();
        for at in 0..100 {
            let (line, mut ends) = (line.clone(), ends.to_vec());
            if at % 2 == 0 {
                ends.reverse();
            }
            tasks.spawn(async move {
                let passes = line.passes(ends, Load::of(at)).await;
                tokio::task::yield_now().await;
                passes.ends.len()
            });
        }
        assert!(tasks.join_all().await.iter().all(|ends| *ends == 2));
    }
}
