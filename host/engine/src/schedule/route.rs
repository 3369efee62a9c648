//! Routes: from one host to another. Each is planned and carried out by itself, so a registry that does not answer
//! holds up no other one.

use crate::lock;
use std::{
    collections::HashMap,
    sync::{Arc, Mutex},
};
use tokio::sync::{Semaphore, SemaphorePermit};

/// From which host to which one. `None` stands for the files of this machine.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(crate) struct Route {
    pub from: Option<String>,
    pub to: Option<String>,
}

/// What is kept for each route, made when it is first asked for.
pub(crate) struct Routes<T> {
    known: Mutex<HashMap<Route, Arc<T>>>,
    make: Box<dyn Fn() -> T + Send + Sync>,
}

impl<T> Routes<T> {
    /// For which `make` makes what is kept.
    pub fn new(make: impl Fn() -> T + Send + Sync + 'static) -> Self {
        Routes { known: Mutex::default(), make: Box::new(make) }
    }

    /// Does something with all that is kept.
    pub fn each(&self, work: impl Fn(&T)) {
        lock(&self.known).values().for_each(|kept| work(kept));
    }

    /// What is kept for a route.
    pub fn of(&self, route: Route) -> Arc<T> {
        lock(&self.known).entry(route).or_insert_with(|| Arc::new((self.make)())).clone()
    }
}

/// Repositories of one route that are planned at once.
pub(crate) const REPOSITORIES: usize = 32;
/// Tags of one route that are compared at once, at most: enough for two registries to be asked as much as they allow.
/// Each that waits for its turn at a registry has an instance of a transport.
pub(crate) const TAGS: usize = 64;
/// Copies of one route that are planned before they begin.
const LEAD: usize = 256;

/// What the plan of one route may have under way.
pub(crate) struct PlanLimits {
    pub repositories: Semaphore,
    comparing: Semaphore,
    /// Permits that `comparing` was ever given.
    given: Mutex<usize>,
    /// How far the plan may run ahead of those who carry it out.
    pub lead: Arc<Semaphore>,
}

impl PlanLimits {
    pub fn new() -> Self {
        PlanLimits {
            repositories: Semaphore::new(REPOSITORIES),
            comparing: Semaphore::new(0),
            given: Mutex::default(),
            lead: Arc::new(Semaphore::new(LEAD)),
        }
    }

    /// Waits for the right to compare a tag. `width` tells how many questions both ends answer at once, as far as that
    /// is known now: more would only be instances of transports that wait.
    pub async fn compare(&self, width: impl Fn() -> usize) -> Option<SemaphorePermit<'_>> {
        self.open(width());
        // It is never closed.
        let permit = self.comparing.acquire().await.ok();
        self.open(width());
        permit
    }

    fn open(&self, width: usize) {
        let mut given = lock(&self.given);
        let more = width.min(TAGS).saturating_sub(*given);
        *given += more;
        self.comparing.add_permits(more);
    }
}
