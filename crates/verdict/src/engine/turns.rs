//! How much of the store's time one client network may have.
//!
//! A store that is slow lets mail pass (`onStoreFailure`), so nobody may make it slow to get past it: what one
//! network has asked and not heard is bounded, and beyond it the network waits for itself.

use std::collections::HashMap;
use std::net::IpAddr;
use std::sync::{Arc, Mutex, PoisonError};

use ipnet::IpNet;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio::time::{Instant, timeout_at};

use crate::keys::client_network;

/// Records that are asked for at a time. A file store writes some 100,000 a second, so this is a few milliseconds
/// of its time; a large sender with a question per session has as many sessions at once.
const RECORDS: u32 = 256;

/// One entry for each network that is asking just now.
#[derive(Debug, Default)]
pub(super) struct Turns(Mutex<HashMap<IpNet, Arc<Semaphore>>>);

/// A network's place in the table; given up with the last of them.
struct Place<'a> {
    turns: &'a Turns,
    network: IpNet,
    semaphore: Arc<Semaphore>,
}

/// Leave to ask; ends when it is dropped.
pub(super) struct Turn<'a> {
    // Before the place: fields are dropped in this order.
    _permit: OwnedSemaphorePermit,
    _place: Place<'a>,
}

// === impl Turns ===

impl Turns {
    /// Waits for a turn of so many records; None if the network's own questions took too long.
    pub(super) async fn take(&self, client: IpAddr, records: usize, deadline: Instant) -> Option<Turn<'_>> {
        let place = self.place(client_network(client));
        let records = u32::try_from(records).unwrap_or(RECORDS).min(RECORDS);
        let permit = Arc::clone(&place.semaphore).acquire_many_owned(records);
        let permit = timeout_at(deadline, permit).await.ok()?.ok()?;
        Some(Turn { _permit: permit, _place: place })
    }

    fn place(&self, network: IpNet) -> Place<'_> {
        let mut table = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let semaphore = table.entry(network).or_insert_with(|| Arc::new(Semaphore::new(RECORDS as usize)));
        Place { turns: self, network, semaphore: Arc::clone(semaphore) }
    }
}

// === impl Place ===

impl Drop for Place<'_> {
    fn drop(&mut self) {
        let mut table = self.turns.0.lock().unwrap_or_else(PoisonError::into_inner);
        // The table's own and this one; others are made under the lock only.
        if Arc::strong_count(&self.semaphore) == 2 {
            table.remove(&self.network);
        }
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    const CLIENT: IpAddr = IpAddr::V4(std::net::Ipv4Addr::new(192, 0, 2, 1));
    const NEIGHBOUR: IpAddr = IpAddr::V4(std::net::Ipv4Addr::new(192, 0, 2, 200));
    const STRANGER: IpAddr = IpAddr::V4(std::net::Ipv4Addr::new(198, 51, 100, 1));

    fn soon() -> Instant {
        Instant::now() + Duration::from_millis(1)
    }

    fn late() -> Instant {
        Instant::now() + Duration::from_secs(60)
    }

    #[tokio::test]
    async fn a_network_waits_for_itself_and_for_nobody_else() {
        let turns = Turns::default();
        let all = turns.take(CLIENT, 10_000, late()).await.unwrap();
        assert!(turns.take(NEIGHBOUR, 1, soon()).await.is_none());
        assert!(turns.take(STRANGER, 1, late()).await.is_some());
        let (next, ()) = tokio::join!(turns.take(NEIGHBOUR, 1, late()), async { drop(all) });
        assert!(next.is_some());
    }

    #[tokio::test]
    async fn whoever_asks_no_more_has_no_place() {
        let turns = Turns::default();
        let one = turns.take(CLIENT, 1, late()).await;
        let two = turns.take(NEIGHBOUR, 255, late()).await;
        assert!(turns.take(CLIENT, 1, soon()).await.is_none());
        assert_eq!(turns.0.lock().unwrap().len(), 1);
        drop(one);
        assert_eq!(turns.0.lock().unwrap().len(), 1);
        drop(two);
        assert!(turns.0.lock().unwrap().is_empty());
    }
}
