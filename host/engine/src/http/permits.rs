//! The right to move a blob between two places. It is given when both source and destination have a free slot.

use super::{host::Host, request::PlaceHttp};
use crate::schedule::{
    action::Action,
    queue::{Load, Reservation, TransferPermits},
};
use std::{pin::pin, sync::Arc, time::Duration};
use tokio::sync::OwnedSemaphorePermit as Slot;

/// If a host has no free slot and nothing has moved there for this long, transfers that wait for it give back their
/// permits at the other host.
const KEPT: Duration = Duration::from_secs(5);
/// How often a waiting transfer checks whether a host is stalled.
const AGAIN: Duration = Duration::from_millis(500);

/// The right to move a blob: permits of the transfer queue, and a request slot at each host.
pub(crate) struct Permits {
    passes: TransferPermits,
    _slots: Vec<Slot>,
}

impl Permits {
    /// Gives the permits back without a request, so the windows do not count an answer.
    pub fn unused(self) {
        self.passes.unused();
    }
}

/// Waits for the right to download from one place and upload to another, where the answer of one is the body of the
/// other. Slots are taken in the order of the hosts' addresses, so that two transfers in opposite directions cannot
/// deadlock. `None` means that neither end is reached over the network.
pub(crate) async fn permits(
    source: Option<&PlaceHttp>,
    destination: Option<&PlaceHttp>,
    load: Load,
) -> Option<Permits> {
    let ends = [(source, Action::Download), (destination, Action::Upload)];
    let ends: Vec<_> = ends.into_iter().filter_map(|(place, action)| Some((place?, action))).collect();
    let queue = ends.first()?.0.client.queue();
    let mut hosts: Vec<_> = ends.iter().map(|(place, _)| &place.host).collect();
    hosts.sort_by(|a, b| a.address.cmp(&b.address));
    loop {
        for host in &hosts {
            host.patience().await;
        }
        let windows = ends.iter().map(|(place, action)| place.host.windows.of(*action).clone());
        let passes = queue.passes(windows.collect(), load.clone()).await;
        match slots_soon(&hosts).await {
            // A host may have asked us to wait in the meantime. We then wait without holding permits at either host.
            Some(slots) if hosts.iter().all(|host| host.asks_for_patience().is_none()) => {
                return Some(Permits { passes, _slots: slots });
            }
            _ => passes.unused(),
        }
        while hosts.iter().any(|host| host.stands_still(KEPT)) {
            tokio::time::sleep(AGAIN).await;
        }
    }
}

/// Reserves permits for blobs that are going to move between two places, until the reservation is dropped. `None` means
/// that neither end is reached over the network.
pub(crate) fn reserve(source: Option<&PlaceHttp>, destination: Option<&PlaceHttp>) -> Option<Reservation> {
    let ends = [(source, Action::Download), (destination, Action::Upload)];
    let windows: Vec<_> =
        ends.iter().filter_map(|(place, action)| Some((*place)?.host.windows.of(*action).clone())).collect();
    let queue = source.or(destination)?.client.queue();
    Some(queue.reserve(&windows))
}

/// Waits for slots. `None` means that one of the hosts has stalled in the meantime.
async fn slots_soon(hosts: &[&Arc<Host>]) -> Option<Vec<Slot>> {
    let mut waiting = pin!(slots(hosts));
    loop {
        match tokio::time::timeout(AGAIN, waiting.as_mut()).await {
            Ok(slots) => return Some(slots),
            Err(_) if hosts.iter().any(|host| host.stands_still(KEPT)) => return None,
            Err(_) => {}
        }
    }
}

async fn slots(hosts: &[&Arc<Host>]) -> Vec<Slot> {
    let mut permits = Vec::new();
    if let [a, b] = hosts
        && a.address == b.address
    {
        // If the host allows only one request at once, source and destination must share the slot.
        let slots = 2.min(a.settings.concurrency) as u32;
        permits.extend(a.slots.clone().acquire_many_owned(slots).await);
        return permits;
    }
    for host in hosts {
        permits.extend(host.slots.clone().acquire_owned().await);
    }
    permits
}
