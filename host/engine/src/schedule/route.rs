//! Routes from one host to another. Each route is planned and carried out separately, so that a registry that does not
//! answer does not delay other routes.

use crate::lock;
use std::{
    collections::HashMap,
    sync::{Arc, Mutex},
};
use tokio::sync::{Semaphore, SemaphorePermit};

/// A source host and a destination host. `None` stands for the files of this machine.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(crate) struct Route {
    pub from: Option<String>,
    pub to: Option<String>,
}

/// A value for each route. It is created on first use.
pub(crate) struct Routes<T> {
    known: Mutex<HashMap<Route, Arc<T>>>,
    make: Box<dyn Fn() -> T + Send + Sync>,
}

impl<T> Routes<T> {
    /// Creates an empty map. `make` creates the value of a route.
    pub fn new(make: impl Fn() -> T + Send + Sync + 'static) -> Self {
        Routes { known: Mutex::default(), make: Box::new(make) }
    }

    /// Calls `work` with each existing value.
    pub fn each(&self, work: impl Fn(&T)) {
        lock(&self.known).values().for_each(|kept| work(kept));
    }

    /// The value of a route.
    pub fn of(&self, route: Route) -> Arc<T> {
        lock(&self.known).entry(route).or_insert_with(|| Arc::new((self.make)())).clone()
    }
}

/// Maximum number of repositories of one route that are planned at once.
pub(crate) const REPOSITORIES: usize = 32;
/// Maximum number of tags of one route that are compared at once: enough to use both registries fully. Each tag that
/// waits for a registry holds an instance of a transport.
pub(crate) const TAGS: usize = 64;
/// Maximum number of copies of one route that are planned before they begin.
const LEAD: usize = 256;

/// Limits for planning one route.
pub(crate) struct PlanLimits {
    pub repositories: Semaphore,
    comparing: Semaphore,
    /// The number of permits that `comparing` was given in total.
    given: Mutex<usize>,
    /// Limits how far the plan may run ahead of its execution.
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

    /// Waits for the right to compare a tag. `width` tells how many requests both ends currently accept at once; more
    /// permits would only create transport instances that wait.
    pub async fn compare(&self, width: impl Fn() -> usize) -> Option<SemaphorePermit<'_>> {
        self.open(width());
        // The semaphore is never closed.
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
