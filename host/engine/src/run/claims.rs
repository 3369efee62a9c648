//! Work that several copies share is done once: the first copy claims it, and the others wait.

use std::{
    collections::{HashMap, HashSet},
    hash::Hash,
    sync::{
        Arc, Mutex, MutexGuard,
        atomic::{AtomicUsize, Ordering},
    },
};
use tokio::sync::Notify;

/// The state of content at one destination: which repositories have it, and for which ones somebody is bringing it.
pub(crate) struct Claims<K> {
    state: Mutex<HashMap<K, State>>,
    changed: Notify,
}

#[derive(Default)]
struct State {
    /// Repositories that have the content.
    held: HashSet<String>,
    /// Repositories to which the content is being brought.
    busy: HashSet<String>,
    /// The number of tasks that wait for the content.
    waiting: Arc<AtomicUsize>,
}

/// What to do with content that a repository needs.
pub(crate) enum Claim<K: Eq + Hash> {
    /// Nothing: the content is there.
    Held,
    /// Bring the content, and then call [`Ticket::held`]. Dropping the ticket gives up the claim.
    Yours {
        /// Repositories from which the content can be linked.
        siblings: Vec<String>,
        ticket: Ticket<K>,
    },
}

pub(crate) struct Ticket<K: Eq + Hash> {
    claims: Arc<Claims<K>>,
    key: Option<(K, String)>,
    waiting: Arc<AtomicUsize>,
}

/// Counts one waiting task until it is dropped.
struct Waits(Arc<AtomicUsize>);

impl Waits {
    fn new(waiting: Arc<AtomicUsize>) -> Self {
        waiting.fetch_add(1, Ordering::Relaxed);
        Waits(waiting)
    }
}

impl Drop for Waits {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::Relaxed);
    }
}

/// Whether content in one repository makes it unnecessary to bring it to another.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum Sharing {
    /// It does not: each repository needs its own copy.
    None,
    /// The content can be linked, so one repository gets it first and the others wait.
    Mount,
    /// All repositories share their content.
    Place,
}

impl<K: Eq + Hash + Clone> Claims<K> {
    pub fn new() -> Arc<Self> {
        Arc::new(Claims { state: Mutex::default(), changed: Notify::new() })
    }

    fn state(&self) -> MutexGuard<'_, HashMap<K, State>> {
        self.state.lock().unwrap_or_else(|poisoned| poisoned.into_inner())
    }

    /// Claims content for a repository. Waits while somebody else brings it.
    pub async fn claim(self: &Arc<Self>, key: &K, repository: &str, sharing: Sharing) -> Claim<K> {
        loop {
            let changed = self.changed.notified();
            tokio::pin!(changed);
            // The waiter is registered before it looks, so that it cannot miss a change in between.
            changed.as_mut().enable();
            if let Some(claim) = self.look(key, repository, sharing) {
                return claim;
            }
            let waiting = self.state().entry(key.clone()).or_default().waiting.clone();
            let _waits = Waits::new(waiting);
            changed.await;
        }
    }

    fn look(self: &Arc<Self>, key: &K, repository: &str, sharing: Sharing) -> Option<Claim<K>> {
        let mut states = self.state();
        let state = states.entry(key.clone()).or_default();
        let held = match sharing {
            Sharing::Place => !state.held.is_empty(),
            Sharing::None | Sharing::Mount => state.held.contains(repository),
        };
        if held {
            return Some(Claim::Held);
        }
        let busy = match sharing {
            Sharing::None => state.busy.contains(repository),
            // Once one repository has the content, every other one links it for itself.
            Sharing::Mount if !state.held.is_empty() => state.busy.contains(repository),
            Sharing::Mount | Sharing::Place => !state.busy.is_empty(),
        };
        if busy {
            return None;
        }
        state.busy.insert(repository.into());
        let siblings = match sharing {
            Sharing::Mount => state.held.iter().take(1).cloned().collect(),
            Sharing::None | Sharing::Place => Vec::new(),
        };
        let ticket = Ticket {
            claims: self.clone(),
            key: Some((key.clone(), repository.into())),
            waiting: state.waiting.clone(),
        };
        Some(Claim::Yours { siblings, ticket })
    }

    fn settle(&self, key: K, repository: String, held: bool) {
        let mut states = self.state();
        let state = states.entry(key).or_default();
        state.busy.remove(&repository);
        if held {
            state.held.insert(repository);
        }
        drop(states);
        self.changed.notify_waiters();
    }
}

impl<K: Eq + Hash + Clone> Ticket<K> {
    /// The number of others that wait for the content.
    pub fn waiting(&self) -> Arc<AtomicUsize> {
        self.waiting.clone()
    }

    /// Records that the content is there now.
    pub fn held(mut self) {
        if let Some((key, repository)) = self.key.take() {
            self.claims.settle(key, repository, true);
        }
    }
}

impl<K: Eq + Hash> Drop for Ticket<K> {
    fn drop(&mut self) {
        if let Some((key, repository)) = self.key.take() {
            let mut states = self.claims.state.lock().unwrap_or_else(|poisoned| poisoned.into_inner());
            if let Some(state) = states.get_mut(&key) {
                state.busy.remove(&repository);
            }
            drop(states);
            self.claims.changed.notify_waiters();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    async fn yours(
        claims: &Arc<Claims<u8>>,
        repository: &str,
        sharing: Sharing,
    ) -> (Vec<String>, Ticket<u8>) {
        match claims.claim(&1, repository, sharing).await {
            Claim::Yours { siblings, ticket } => (siblings, ticket),
            Claim::Held => panic!("{repository} has it already"),
        }
    }

    #[tokio::test]
    async fn one_brings_it_and_the_others_link_it() {
        let claims = Claims::new();
        let (siblings, first) = yours(&claims, "a", Sharing::Mount).await;
        assert!(siblings.is_empty());
        let waiting = tokio::spawn({
            let claims = claims.clone();
            async move { yours(&claims, "b", Sharing::Mount).await.0 }
        });
        tokio::task::yield_now().await;
        assert!(!waiting.is_finished());
        first.held();
        assert_eq!(waiting.await.unwrap(), ["a"]);
        assert!(matches!(claims.claim(&1, "a", Sharing::Mount).await, Claim::Held));
    }

    #[tokio::test]
    async fn a_claim_that_is_given_up_goes_to_the_next() {
        let claims = Claims::new();
        let (_, first) = yours(&claims, "a", Sharing::Place).await;
        drop(first);
        let (siblings, second) = yours(&claims, "b", Sharing::Place).await;
        assert!(siblings.is_empty());
        second.held();
        assert!(matches!(claims.claim(&1, "c", Sharing::Place).await, Claim::Held));
    }
}
