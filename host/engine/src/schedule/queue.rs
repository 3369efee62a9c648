//! Transfer queue: admits the waiting blob with the largest size × number of waiters whose source and destination both
//! have a free permit. So the largest blobs do not begin last, a blob that many repositories want is soon there to be
//! mounted, and a blob that waits for one end keeps no other one from the other end. Where an end is shared by several
//! ends at its other side, a stalled one never gets all of its permits (see [`may_take`]).

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

/// Permits at each of its ends that go to others before one is kept for a blob that needs two.
const PASSED_OVER: usize = 256;

/// All blobs that are to move, whatever their hosts.
#[derive(Default)]
pub(crate) struct TransferQueue(Mutex<State>);

#[derive(Default)]
struct State {
    waiting: Vec<Waiter>,
    come: u64,
    held: Occupancy,
}

/// Names a window, which lives as long as the queue.
type End = usize;

fn end(window: &Arc<Window>) -> End {
    Arc::as_ptr(window) as End
}

/// Each end, with the one at the other side. `None` stands for a disk.
fn sides(ends: &[End]) -> impl Iterator<Item = (End, Option<End>)> {
    let other = |at: usize| if ends.len() > 1 { ends.get(1 - at).copied() } else { None };
    ends.iter().enumerate().map(move |(at, end)| (*end, other(at)))
}

/// Who shares the permits of each end, by the end at the other side.
#[derive(Default)]
struct Occupancy(HashMap<End, HashMap<Option<End>, Occupant>>);

#[derive(Default)]
struct Occupant {
    /// Permits that it has.
    held: usize,
    /// Those who want one, or are going to.
    waiting: usize,
    /// When it had or wanted one last.
    last: Option<Instant>,
}

/// An end that wanted a permit so lately is expected to want another one.
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

    /// Whether an end may give a place to another, of so many that it has left.
    fn may_give(&self, end: End, other: Option<End>, room: usize) -> bool {
        let Some(others) = self.0.get(&end) else { return true };
        let shared = others.iter().any(|(one, part)| *one != other && part.is_there());
        !shared || may_take(others.get(&other).map_or(0, |part| part.held), room)
    }
}

struct Waiter {
    windows: Vec<Arc<Window>>,
    ends: Vec<End>,
    /// How often a place at each end was given to another.
    passed_over: Vec<usize>,
    load: Load,
    /// How many came before it.
    behind: u64,
    go: oneshot::Sender<TransferPermits>,
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
    /// is stalled gives none away, so nothing is kept for its sake.
    fn is_due(&self) -> bool {
        self.ends.len() > 1 && self.passed_over.iter().all(|count| *count >= PASSED_OVER)
    }

    /// Whether its ends may give it places, where each has as many as it has, and `least` of them.
    fn may_go(&self, held: &Occupancy, least: usize) -> bool {
        let mut sides = sides(&self.ends).zip(&self.windows);
        sides.all(|((end, other), window)| held.may_give(end, other, window.room().max(least)))
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
pub(crate) struct TransferPermits {
    passes: Vec<WindowPermit>,
    ends: Vec<End>,
    line: Arc<TransferQueue>,
}

impl TransferQueue {
    /// Waits until there is room at all ends at once. The line gives out all places of their windows, so
    /// nobody takes one apart.
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
        // A waiter is told, or gone.
        let none = |_| TransferPermits { passes: Vec::new(), ends: Vec::new(), line: self.clone() };
        told.await.unwrap_or_else(none)
    }

    fn admit(self: &Arc<Self>) {
        let mut gone = Vec::new();
        {
            let State { waiting, held, .. } = &mut *lock(&self.0);
            loop {
                // What an end does not give to it, another may have.
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
                    // A window was cut just now.
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
        // Whoever no longer waits gives its places back, which wants the lock.
        drop(gone);
    }
}

/// A way on which blobs are going to move, until it is dropped.
pub(crate) struct Reservation {
    ends: Vec<End>,
    line: Arc<TransferQueue>,
}

impl TransferQueue {
    /// Somebody plans what is to move between these ends: others leave places to it.
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
    /// Gives them back without a request: nothing was learnt.
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
        // Alone it may have them all, and not where another is to come.
        drop((0..8).map(|_| pass(&still).unwrap()).collect::<Vec<_>>());
        let expected = line.reserve(&[other.clone(), to.clone()]);
        assert_eq!(std::iter::from_fn(|| pass(&still)).collect::<Vec<_>>().len(), 6);
        drop(expected);
        let first = pass(&other).unwrap();
        let stuck: Vec<_> = std::iter::from_fn(|| pass(&still)).collect();
        assert_eq!((stuck.len(), to.room()), (5, 2));
        // However much more it wants one more.
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
