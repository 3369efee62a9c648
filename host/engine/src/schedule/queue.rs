//! Transfer queue: admits the waiting blob with the largest size × number of waiters whose source and destination both
//! have a free permit. This has three effects: the largest blobs do not begin last, a blob that many repositories want
//! is soon there to be mounted, and a blob that waits for one end does not block the other. If several other ends share
//! one end, a stalled one never gets all of its permits (see [`may_take`]).

use super::window::{Window, WindowPermit};
use crate::{lock, schedule::fair_share::may_take};
use std::{
    cmp::Reverse,
    collections::HashMap,
    sync::{
        Arc, Mutex,
        atomic::{AtomicUsize, Ordering},
    },
    time::{Duration, Instant},
};
use tokio::sync::oneshot;

/// After this many permits at each of its ends have gone to others, a blob that needs two permits gets the next ones.
const PASSED_OVER: usize = 256;

/// All blobs that wait to move, for all hosts.
#[derive(Default)]
pub(crate) struct TransferQueue(Mutex<State>);

#[derive(Default)]
struct State {
    waiting: Vec<Waiter>,
    come: u64,
    held: Occupancy,
}

/// Identifies a window by its address, because windows live as long as the queue.
type End = usize;

fn end(window: &Arc<Window>) -> End {
    Arc::as_ptr(window) as End
}

/// Each end with the end at the other side of the transfer. `None` stands for the local disk.
fn sides(ends: &[End]) -> impl Iterator<Item = (End, Option<End>)> {
    let other = |at: usize| if ends.len() > 1 { ends.get(1 - at).copied() } else { None };
    ends.iter().enumerate().map(move |(at, end)| (*end, other(at)))
}

/// For each end: the ends at the other side that share its permits.
#[derive(Default)]
struct Occupancy(HashMap<End, HashMap<Option<End>, Occupant>>);

#[derive(Default)]
struct Occupant {
    /// The number of permits that it holds.
    held: usize,
    /// The number of waiters and reservations.
    waiting: usize,
    /// When it last held or wanted a permit.
    last: Option<Instant>,
}

/// An end that wanted a permit within this time is expected to want another one.
const LATELY: Duration = Duration::from_secs(10);

impl Occupant {
    fn is_there(&self) -> bool {
        self.held + self.waiting > 0 || self.last.is_some_and(|last| last.elapsed() < LATELY)
    }
}

impl Occupancy {
    fn of(&mut self, ends: &[End], change: impl Fn(&mut Occupant)) {
        for (end, other) in sides(ends) {
            let part = self.0.entry(end).or_default().entry(other).or_default();
            change(part);
            part.last = Some(Instant::now());
        }
    }

    /// Whether an end with `room` free permits may give one to transfers with the end `other`.
    fn may_give(&self, end: End, other: Option<End>, room: usize) -> bool {
        let Some(others) = self.0.get(&end) else { return true };
        let shared = others.iter().any(|(one, part)| *one != other && part.is_there());
        !shared || may_take(others.get(&other).map_or(0, |part| part.held), room)
    }
}

struct Waiter {
    windows: Vec<Arc<Window>>,
    ends: Vec<End>,
    /// How many permits of each end have gone to others while this one waited.
    passed_over: Vec<usize>,
    load: Load,
    /// The number of waiters that arrived before it.
    behind: u64,
    go: oneshot::Sender<TransferPermits>,
}

/// The blob that is to move.
#[derive(Clone)]
pub(crate) struct Load {
    /// The size of the blob in bytes.
    pub size: u64,
    /// How many others wait for the same blob.
    pub wanted: Option<Arc<AtomicUsize>>,
}

impl Waiter {
    /// Whether this waiter was passed over so often at each of its ends that it gets the next permits. A stalled end
    /// gives no permits away, so nothing is kept for a waiter on it.
    fn is_due(&self) -> bool {
        self.ends.len() > 1 && self.passed_over.iter().all(|count| *count >= PASSED_OVER)
    }

    /// Whether each end may give a permit, if it has its current number of free permits, but at least `least`.
    fn may_go(&self, held: &Occupancy, least: usize) -> bool {
        let mut sides = sides(&self.ends).zip(&self.windows);
        sides.all(|((end, other), window)| held.may_give(end, other, window.room().max(least)))
    }
}

impl Load {
    /// A blob of this many bytes that nobody else waits for.
    pub fn of(size: u64) -> Self {
        Load { size, wanted: None }
    }

    fn weight(&self) -> u64 {
        let others = self.wanted.as_ref().map_or(0, |wanted| wanted.load(Ordering::Relaxed));
        self.size.saturating_mul(1 + others as u64)
    }
}

/// The right to move a blob: a permit at each end.
pub(crate) struct TransferPermits {
    passes: Vec<WindowPermit>,
    ends: Vec<End>,
    line: Arc<TransferQueue>,
}

impl TransferQueue {
    /// Waits until all ends have a free permit at the same time. Permits of these windows are taken only through this
    /// queue, so nobody takes one of them alone.
    pub async fn passes(self: &Arc<Self>, windows: Vec<Arc<Window>>, load: Load) -> TransferPermits {
        let (go, told) = oneshot::channel();
        {
            let mut state = lock(&self.0);
            let behind = state.come;
            state.come += 1;
            let ends: Vec<_> = windows.iter().map(end).collect();
            state.held.of(&ends, |part| part.waiting += 1);
            let passed_over = vec![0; ends.len()];
            state.waiting.push(Waiter { windows, ends, passed_over, load, behind, go });
        }
        self.admit();
        // A waiter that still listens is always served, so the fallback is never used.
        let none = |_| TransferPermits { passes: Vec::new(), ends: Vec::new(), line: self.clone() };
        told.await.unwrap_or_else(none)
    }

    fn admit(self: &Arc<Self>) {
        let mut gone = Vec::new();
        {
            let State { waiting, held, .. } = &mut *lock(&self.0);
            loop {
                // Permits are kept only for a waiter that its ends may serve; otherwise others may have them.
                let longest = waiting.iter().filter(|waiter| waiter.is_due() && waiter.may_go(held, 1));
                let kept = longest
                    .min_by_key(|waiter| waiter.behind)
                    .map_or(Vec::new(), |waiter| waiter.ends.clone());
                let ready = waiting.iter().enumerate().filter(|(_, waiter)| {
                    let is_free = |window: &Arc<Window>| {
                        window.room() > usize::from(!waiter.is_due() && kept.contains(&end(window)))
                    };
                    waiter.go.is_closed() || waiter.windows.iter().all(is_free) && waiter.may_go(held, 0)
                });
                let heaviest = ready.max_by_key(|(_, waiter)| {
                    (waiter.is_due(), waiter.load.weight(), Reverse(waiter.behind))
                });
                let Some((heaviest, _)) = heaviest else { break };
                let waiter = waiting.swap_remove(heaviest);
                if waiter.go.is_closed() {
                    held.of(&waiter.ends, |part| part.waiting -= 1);
                    continue;
                }
                let passes: Vec<_> = waiter.windows.iter().filter_map(Window::pass_now).collect();
                if passes.len() < waiter.windows.len() {
                    // A window has shrunk in the meantime.
                    passes.into_iter().for_each(WindowPermit::unused);
                    waiting.push(waiter);
                    continue;
                }
                held.of(&waiter.ends, |part| {
                    part.held += 1;
                    part.waiting -= 1;
                });
                for other in waiting.iter_mut() {
                    for (end, count) in other.ends.iter().zip(&mut other.passed_over) {
                        *count += usize::from(waiter.ends.contains(end));
                    }
                }
                let passes = TransferPermits { passes, ends: waiter.ends, line: self.clone() };
                gone.extend(waiter.go.send(passes).err());
            }
        }
        // If a receiver is gone, its permits are dropped, which takes the lock again. The lock must be free by then.
        drop(gone);
    }
}

/// An announcement that blobs are going to move between two ends. It holds until it is dropped.
pub(crate) struct Reservation {
    ends: Vec<End>,
    line: Arc<TransferQueue>,
}

impl TransferQueue {
    /// Announces that blobs between these ends are being planned, so that others leave permits to them.
    pub fn reserve(self: &Arc<Self>, windows: &[Arc<Window>]) -> Reservation {
        let ends: Vec<_> = windows.iter().map(end).collect();
        lock(&self.0).held.of(&ends, |part| part.waiting += 1);
        Reservation { ends, line: self.clone() }
    }
}

impl Drop for Reservation {
    fn drop(&mut self) {
        lock(&self.line.0).held.of(&self.ends, |part| part.waiting -= 1);
        self.line.admit();
    }
}

impl TransferPermits {
    /// Gives the permits back without a request, so the windows do not count an answer.
    pub fn unused(mut self) {
        self.passes.drain(..).for_each(WindowPermit::unused);
    }
}

impl Drop for TransferPermits {
    fn drop(&mut self) {
        self.passes.clear();
        lock(&self.line.0).held.of(&self.ends, |part| part.held -= 1);
        self.line.admit();
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use futures_util::FutureExt;

    #[tokio::test]
    async fn the_heaviest_goes_first_and_who_gives_up_makes_room() {
        let (line, window) = (Arc::new(TransferQueue::default()), Window::new(1));
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
        // More waiters for the same blob arrive while it waits.
        others.store(4, Ordering::Relaxed);
        drop(first);
        let turn = shared.as_mut().now_or_never().unwrap();
        assert!(large.as_mut().now_or_never().is_none());
        drop(turn);
        let turn = large.as_mut().now_or_never().unwrap();
        // This one gets its permits, but is dropped before it receives them.
        let last = pass(Load::of(5));
        drop(turn);
        drop(small);
        drop(last.await);
        assert!(window.room() > 0 && lock(&line.0).waiting.is_empty());
    }

    #[tokio::test]
    async fn who_waits_for_one_end_keeps_nobody_from_the_other() {
        let line = Arc::new(TransferQueue::default());
        let (fast, slow, to) = (Window::new(1), Window::new(1), Window::new(1));
        let busy = line.passes(vec![slow.clone()], Load::of(1)).await;
        let mut waiting = Box::pin(line.passes(vec![to.clone(), slow.clone()], Load::of(1000)));
        assert!(waiting.as_mut().now_or_never().is_none());
        let passing = line.passes(vec![to.clone(), fast.clone()], Load::of(1)).now_or_never();
        assert_eq!(passing.as_ref().unwrap().passes.len(), 2);
        drop(busy);
        assert!(waiting.as_mut().now_or_never().is_none());
        drop(passing);
        assert_eq!(waiting.as_mut().now_or_never().unwrap().passes.len(), 2);
        assert_eq!([to.room(), slow.room(), fast.room()], [1; 3]);
    }

    #[tokio::test]
    async fn a_source_that_stands_still_leaves_places_at_its_destination() {
        let line = Arc::new(TransferQueue::default());
        let (still, other, to) = (Window::new(8), Window::new(8), Window::new(8));
        let pass =
            |from: &Arc<Window>| line.passes(vec![from.clone(), to.clone()], Load::of(1)).now_or_never();
        // One source alone may hold all permits, but not if another one is announced.
        drop((0..8).map(|_| pass(&still).unwrap()).collect::<Vec<_>>());
        let expected = line.reserve(&[other.clone(), to.clone()]);
        assert_eq!(std::iter::from_fn(|| pass(&still)).collect::<Vec<_>>().len(), 6);
        drop(expected);
        let first = pass(&other).unwrap();
        let stuck: Vec<_> = std::iter::from_fn(|| pass(&still)).collect();
        assert_eq!((stuck.len(), to.room()), (5, 2));
        // The size of its next blob does not change that.
        let mut waiting = Box::pin(line.passes(vec![still.clone(), to.clone()], Load::of(1000)));
        assert!(waiting.as_mut().now_or_never().is_none());
        let second = pass(&other).unwrap();
        drop(first);
        assert!(waiting.as_mut().now_or_never().is_none());
        drop((second, stuck));
        assert!(waiting.as_mut().now_or_never().is_some());
        assert_eq!((to.room(), still.room(), other.room()), (8, 8, 8));
    }

    #[tokio::test]
    async fn two_that_are_always_in_demand_are_had_together_all_the_same() {
        let line = Arc::new(TransferQueue::default());
        let (one, other) = (Window::new(1), Window::new(1));
        for window in [&one, &one, &other, &other] {
            let (line, window) = (line.clone(), window.clone());
            // A permit that is given back goes to a waiter at once, so it is never free for others to take.
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
        assert_eq!(both.await.unwrap().passes.len(), 2);
    }

    #[tokio::test]
    async fn two_ways_between_the_same_ends_do_not_wait_for_each_other() {
        let line = Arc::new(TransferQueue::default());
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
                passes.passes.len()
            });
        }
        assert!(tasks.join_all().await.iter().all(|passes| *passes == 2));
    }
}
