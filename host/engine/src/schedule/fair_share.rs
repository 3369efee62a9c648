//! Permits that several routes share, such that a stalled route never holds all of them.

use super::route::Route;
use crate::lock;
use std::{
    collections::{HashMap, VecDeque},
    sync::{Arc, Mutex},
};
use tokio::sync::oneshot;

/// A route may hold at most this many times as many permits as it leaves to others (dynamic thresholds: Choudhury and
/// Hahne, "Dynamic queue length thresholds for shared-memory packet switches", 1998). A route that holds none may take
/// the last one.
const SHARE: usize = 3;

/// Whether a route that holds `held` permits may take one of the `free` ones.
pub(crate) fn may_take(held: usize, free: usize) -> bool {
    free > 0 && (held == 0 || held < SHARE * (free - 1))
}

/// A number of permits. Those who wait on one route get them in the order of their arrival.
pub(crate) struct FairShare(Mutex<State>);

struct State {
    free: usize,
    held: HashMap<Route, usize>,
    waiting: VecDeque<(Route, oneshot::Sender<FairPermit>)>,
}

/// A permit. It is given back when it is dropped.
pub(crate) struct FairPermit {
    shares: Arc<FairShare>,
    of: Route,
}

impl FairShare {
    /// Creates this many permits.
    pub fn new(free: usize) -> Arc<Self> {
        Arc::new(FairShare(Mutex::new(State { free, held: HashMap::new(), waiting: VecDeque::new() })))
    }

    /// Waits for a permit. `of` is the route that it counts for.
    pub async fn permit(self: &Arc<Self>, of: Route) -> FairPermit {
        let (go, told) = oneshot::channel();
        lock(&self.0).waiting.push_back((of.clone(), go));
        self.admit();
        // A waiter that still listens is always served, so the fallback is never used.
        told.await.unwrap_or_else(|_| FairPermit { shares: self.clone(), of })
    }

    fn admit(self: &Arc<Self>) {
        let mut gone = Vec::new();
        {
            let State { free, held, waiting } = &mut *lock(&self.0);
            let mut at = 0;
            while at < waiting.len() && *free > 0 {
                let held_by = held.get(&waiting[at].0).copied().unwrap_or_default();
                if !waiting[at].1.is_closed() && !may_take(held_by, *free) {
                    at += 1;
                    continue;
                }
                let Some((of, go)) = waiting.remove(at) else { break };
                if go.is_closed() {
                    continue;
                }
                *free -= 1;
                *held.entry(of.clone()).or_default() += 1;
                gone.extend(go.send(FairPermit { shares: self.clone(), of }).err());
            }
        }
        // If a receiver is gone, its permit is dropped, which takes the lock again. The lock must be free by then.
        drop(gone);
    }
}

impl Drop for FairPermit {
    fn drop(&mut self) {
        {
            let State { free, held, .. } = &mut *lock(&self.shares.0);
            *free += 1;
            if let Some(count) = held.get_mut(&self.of) {
                *count -= 1;
                if *count == 0 {
                    held.remove(&self.of);
                }
            }
        }
        self.shares.admit();
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use futures_util::FutureExt;

    #[tokio::test]
    async fn whoever_stands_still_leaves_some_to_others() {
        let shares = FairShare::new(64);
        let turn = |from: &str| Box::pin(shares.permit(Route { from: Some(from.into()), to: None }));
        let mut still = Vec::new();
        while let Some(turn) = turn("still").now_or_never() {
            still.push(turn);
        }
        assert_eq!(still.len(), 48);
        let mut other = Vec::new();
        while let Some(turn) = turn("other").now_or_never() {
            other.push(turn);
        }
        assert_eq!(other.len(), 12);
        let third = turn("third").now_or_never();
        assert!(third.is_some());
        // Permits are given in order as soon as one is free, and a waiter that gave up is skipped.
        let mut waiting = turn("other");
        assert!(waiting.as_mut().now_or_never().is_none());
        let mut given_up = turn("still");
        assert!(given_up.as_mut().now_or_never().is_none());
        drop(given_up);
        still.truncate(40);
        assert!(waiting.as_mut().now_or_never().is_some());
        drop((still, other, third, waiting));
        assert_eq!(lock(&shares.0).free, 64);
        assert!(lock(&shares.0).held.is_empty());
    }
}
