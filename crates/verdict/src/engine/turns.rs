//! How much of the store's time one client network may have.
//!
//! A store that is slow lets mail pass (`onStoreFailure`), so nobody may make it slow to get past it: what one
//! network has asked and not heard is bounded, and beyond it the network waits for itself.

use std::collections::HashMap;
use std::net::IpAddr;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use ipnet::IpNet;
use tokio::sync::{Notify, OwnedSemaphorePermit, Semaphore};
use tokio::time::{Instant, timeout_at};

/// Records that are asked for at a time. A file store writes some 100,000 a second, so this is a few milliseconds
/// of its time; a large sender with a question per session has as many sessions at once.
const RECORDS: u32 = 256;

/// Whose turn it is: an IPv4 network as greylisting counts it; of IPv6 what one site is given (RFC 6177), since
/// whoever has it has 65,536 networks to ask from.
const PREFIX_IPV4: u8 = 24;
const PREFIX_IPV6: u8 = 48;

#[derive(Debug, Default)]
pub(super) struct Turns {
    /// One entry for each network that is asking just now.
    table: Mutex<HashMap<IpNet, Arc<Semaphore>>>,
    /// Answers of the store.
    answers: AtomicU64,
    answered: Notify,
}

/// Why there was no turn.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum NoTurn {
    /// The store answers; the network's own questions are too many.
    Overloaded,
    /// The store has answered nobody meanwhile.
    NoAnswers,
}

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
    /// Waits half of `limit` for a turn of so many records, and all of it to learn whose fault it is that there was
    /// none. `limit` is what the store may take for an answer: in that time one that still answers has answered
    /// those whose turn it is.
    pub(super) async fn take(
        &self,
        client: IpAddr,
        records: usize,
        limit: Duration,
    ) -> Result<Turn<'_>, NoTurn> {
        let began = Instant::now();
        let before = self.answers.load(Ordering::Relaxed);
        let place = self.place(network(client));
        let records = u32::try_from(records).unwrap_or(RECORDS).min(RECORDS);
        let permit = Arc::clone(&place.semaphore).acquire_many_owned(records);
        if let Ok(Ok(permit)) = timeout_at(began + limit / 2, permit).await {
            return Ok(Turn { _permit: permit, _place: place });
        }
        drop(place);
        let heard = timeout_at(began + limit, self.answer_after(before)).await;
        Err(if heard.is_ok() { NoTurn::Overloaded } else { NoTurn::NoAnswers })
    }

    /// The store has answered somebody.
    pub(super) fn answered(&self) {
        self.answers.fetch_add(1, Ordering::Relaxed);
        self.answered.notify_waiters();
    }

    async fn answer_after(&self, before: u64) {
        loop {
            // Made before the look, it misses nothing that comes after it.
            let next = self.answered.notified();
            if self.answers.load(Ordering::Relaxed) != before {
                return;
            }
            next.await;
        }
    }

    fn place(&self, network: IpNet) -> Place<'_> {
        let mut table = self.table.lock().unwrap_or_else(PoisonError::into_inner);
        let semaphore = table.entry(network).or_insert_with(|| Arc::new(Semaphore::new(RECORDS as usize)));
        Place { turns: self, network, semaphore: Arc::clone(semaphore) }
    }
}

// === impl Place ===

impl Drop for Place<'_> {
    fn drop(&mut self) {
        let mut table = self.turns.table.lock().unwrap_or_else(PoisonError::into_inner);
        // The table's own and this one; others are made under the lock only.
        if Arc::strong_count(&self.semaphore) == 2 {
            table.remove(&self.network);
        }
    }
}

fn network(client: IpAddr) -> IpNet {
    let ip = client.to_canonical();
    let prefix = if ip.is_ipv4() { PREFIX_IPV4 } else { PREFIX_IPV6 };
    IpNet::new(ip, prefix).map_or_else(|_| ip.into(), |network| network.trunc())
}

#[cfg(test)]
mod tests {
    use super::*;

    const CLIENT: IpAddr = IpAddr::V4(std::net::Ipv4Addr::new(192, 0, 2, 1));
    const NEIGHBOUR: IpAddr = IpAddr::V4(std::net::Ipv4Addr::new(192, 0, 2, 200));
    const STRANGER: IpAddr = IpAddr::V4(std::net::Ipv4Addr::new(198, 51, 100, 1));

    const SOON: Duration = Duration::from_millis(2);
    const LATE: Duration = Duration::from_secs(120);

    #[tokio::test]
    async fn a_network_waits_for_itself_and_for_nobody_else() {
        let turns = Turns::default();
        let all = turns.take(CLIENT, 10_000, LATE).await.unwrap();
        assert!(turns.take(NEIGHBOUR, 1, SOON).await.is_err());
        assert!(turns.take(STRANGER, 1, LATE).await.is_ok());
        let (next, ()) = tokio::join!(turns.take(NEIGHBOUR, 1, LATE), async { drop(all) });
        assert!(next.is_ok());
    }

    #[tokio::test]
    async fn whoever_asks_no_more_has_no_place() {
        let turns = Turns::default();
        let one = turns.take(CLIENT, 1, LATE).await;
        let two = turns.take(NEIGHBOUR, 255, LATE).await;
        assert!(turns.take(CLIENT, 1, SOON).await.is_err());
        assert_eq!(turns.table.lock().unwrap().len(), 1);
        drop(one);
        assert_eq!(turns.table.lock().unwrap().len(), 1);
        drop(two);
        assert!(turns.table.lock().unwrap().is_empty());
    }
    #[tokio::test]
    async fn an_ipv6_site_is_one_network_however_many_it_asks_from() {
        let turns = Turns::default();
        let ask = |text: &str| turns.take(text.parse().unwrap(), 256, SOON);
        let _all = ask("2001:db8:1:1::1").await;
        assert!(ask("2001:db8:1:ffff::1").await.is_err());
        assert!(ask("2001:db8:2:1::1").await.is_ok());
        let _mapped = ask("::ffff:192.0.2.1").await;
        assert!(turns.take(NEIGHBOUR, 1, SOON).await.is_err());
    }

    #[tokio::test(start_paused = true)]
    async fn who_got_no_turn_is_told_whether_the_store_answers_at_all() {
        let turns = Turns::default();
        let _all = turns.take(CLIENT, 256, LATE).await;
        let wait = || turns.take(CLIENT, 1, LATE);
        turns.answered();
        assert_eq!(wait().await.err(), Some(NoTurn::NoAnswers), "what was before says nothing");
        let after = async |time| {
            tokio::time::sleep(time).await;
            turns.answered();
        };
        for answer in [LATE / 4, LATE * 3 / 4] {
            let (turn, ()) = tokio::join!(wait(), after(answer));
            assert_eq!(turn.err(), Some(NoTurn::Overloaded), "{answer:?}");
        }
    }
}
