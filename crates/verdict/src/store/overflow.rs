//! First tries that a store has no room for.
//!
//! A store is bounded, and whoever sends enough first tries fills it: records that wait are dropped then. What was
//! dropped must not be new again, or a flood would defer a chosen sender for ever. So of a dropped record its time
//! stays, in a table of fixed size which holds no keys:
//!
//! ```text
//!     key = 14 bytes of hash, 2 bytes of its client's hash (its "tag")
//!            |                    |
//!           cell <------------- region      cell: the oldest first try of this and the last generation
//! ```
//!
//! Two keys may share a cell, and the younger one has the older one's time. So nothing that was dropped is
//! forgotten, but a flood lets others of the same region pass early: those of one in 256 clients.
//!
//! Each client network has a quota of records that wait. What is beyond it comes here at once, to the network's own
//! region, whatever names the client goes by. So only a flood from many networks drops the records of others.
//!
//! This table is in memory with every store; a restart of the process forgets it. Processes that share a server
//! have one each, and so has a client its quota in each.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};

use torwart_policy::greylist::{LEAST_KEPT, Time};

use super::{Key, Tag};

/// How many records of one client network wait at a time; further first tries go to the overflow at once. A
/// large mailing service has fewer new triplets in four days, and loses nothing by having more.
pub(super) const MAX_WAITING: u32 = 10_000;

const REGIONS: usize = 256;
const CELLS: usize = 4096;

/// 8 MiB when every region is used; nothing until records are dropped.
#[derive(Debug)]
pub(super) struct Overflow {
    regions: Vec<Mutex<Region>>,
    /// Whether anything was ever noted.
    used: AtomicBool,
    /// [`MAX_WAITING`], but in tests.
    most_waiting: u32,
}

#[derive(Debug, Default)]
struct Region {
    /// By a key's first bytes; empty until the first is needed.
    cells: Vec<Cell>,
    /// By the other byte of a tag.
    quotas: Vec<Quota>,
}

/// The oldest first try of an even and of an odd generation; 0 is none.
type Cell = [Time; 2];

/// A bucket that leaks: its records expire by and by.
#[derive(Clone, Copy, Debug, Default)]
struct Quota {
    waiting: u32,
    at: Time,
}

/// What is noted stays for one to two generations, which is as long as a record that waits is kept.
const GENERATION: Time = LEAST_KEPT;

// === impl Overflow ===

impl Overflow {
    pub(super) fn new() -> Self {
        let regions = std::iter::repeat_with(Mutex::default).take(REGIONS).collect();
        Self { regions, used: AtomicBool::new(false), most_waiting: MAX_WAITING }
    }

    /// With so small a quota that a test can fill it.
    #[cfg(test)]
    pub(super) fn with_quota(most_waiting: u32) -> Self {
        Self { most_waiting, ..Self::new() }
    }

    /// Whether this client may have one more record that waits; counts it if so.
    pub(super) fn admits(&self, client: Tag, now: Time) -> bool {
        self.reserve(client, 1, now) > 0
    }

    /// How many of `wanted` records that wait this client may have; counts them. Those that are not written after
    /// all are to be given back.
    pub(super) fn reserve(&self, client: Tag, wanted: u32, now: Time) -> u32 {
        let Some(mut region) = self.region(client) else { return wanted };
        region.quota(client).map_or(wanted, |quota| quota.reserve(wanted, now, self.most_waiting))
    }

    /// One of the client's records waits no more.
    pub(super) fn settled(&self, client: Tag) {
        self.give_back(client, 1);
    }

    /// So many of the client's records wait no more, or were not written.
    pub(super) fn give_back(&self, client: Tag, count: u32) {
        if count > 0
            && let Some(mut region) = self.region(client)
            && let Some(quota) = region.quota(client)
        {
            quota.waiting = quota.waiting.saturating_sub(count);
        }
    }

    /// This triplet was first tried at that time, and there is no record of it: it was dropped, and `of` is its own
    /// tag; or there was none, and `of` is the client's.
    pub(super) fn note(&self, of: Tag, key: &Key, first_seen: Time, now: Time) {
        self.used.store(true, Ordering::Relaxed);
        let Some(mut region) = self.region(of) else { return };
        region.cells.resize(CELLS, [0; 2]);
        // What is older still is ripe in any case.
        let first_seen = first_seen.max(generation(now).saturating_sub(1) * GENERATION).min(now);
        if let Some(place) =
            region.cells.get_mut(cell(key)).and_then(|cell| cell.get_mut(parity(generation(first_seen))))
        {
            // Another generation is past, or of a clock that was set back since.
            let is_current = generation(*place) == generation(first_seen) && *place <= now;
            *place = if is_current { first_seen.min(*place) } else { first_seen };
        }
    }

    /// When this triplet was first tried, or earlier, if it may have been noted.
    pub(super) fn find(&self, client: Tag, key: &Key, now: Time) -> Option<Time> {
        if !self.used.load(Ordering::Relaxed) {
            return None;
        }
        let last = generation(now).saturating_sub(1);
        let cells = [client, key.tag()].into_iter().filter_map(|of| self.cell(of, key));
        cells.flatten().filter(|time| *time > 0 && *time <= now && generation(*time) >= last).min()
    }

    fn cell(&self, of: Tag, key: &Key) -> Option<Cell> {
        self.region(of)?.cells.get(cell(key)).copied()
    }

    fn region(&self, of: Tag) -> Option<MutexGuard<'_, Region>> {
        let region = self.regions.get(usize::from(of[1]) % REGIONS)?;
        Some(region.lock().unwrap_or_else(PoisonError::into_inner))
    }
}

fn cell(key: &Key) -> usize {
    usize::from(u16::from_be_bytes([key.0[0], key.0[1]])) % CELLS
}

fn generation(time: Time) -> Time {
    time / GENERATION
}

fn parity(generation: Time) -> usize {
    usize::from(generation % 2 == 1)
}

// === impl Region ===

impl Region {
    fn quota(&mut self, client: Tag) -> Option<&mut Quota> {
        self.quotas.resize(REGIONS, Quota::default());
        self.quotas.get_mut(usize::from(client[0]))
    }
}

// === impl Quota ===

impl Quota {
    fn reserve(&mut self, wanted: u32, now: Time, most: u32) -> u32 {
        let elapsed = u64::from(now.saturating_sub(self.at));
        let gone = elapsed * u64::from(most) / u64::from(LEAST_KEPT);
        if self.waiting == 0 || gone >= u64::from(self.waiting) || now < self.at {
            self.waiting = self.waiting.saturating_sub(u32::try_from(gone).unwrap_or(u32::MAX));
            self.at = now;
        } else if gone > 0 {
            self.waiting = self.waiting.saturating_sub(u32::try_from(gone).unwrap_or(u32::MAX));
            // The rest of the time counts later.
            let used = gone * u64::from(LEAST_KEPT) / u64::from(most);
            self.at = self.at.saturating_add(u32::try_from(used).unwrap_or(u32::MAX));
        }
        let granted = wanted.min(most.saturating_sub(self.waiting));
        self.waiting += granted;
        granted
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const NOW: Time = 1_800_000_000;

    fn mk_key(n: u16, tag: u16) -> Key {
        let mut key = [0; 16];
        key[..2].copy_from_slice(&n.to_be_bytes());
        key[14..].copy_from_slice(&tag.to_be_bytes());
        Key(key)
    }

    proptest! {
        #[test]
        fn what_was_noted_is_found_for_as_long_as_records_wait(
            others in proptest::collection::vec((any::<u16>(), 0..4 * LEAST_KEPT), 0..300),
            first_seen in 0..LEAST_KEPT,
            after in 0..=LEAST_KEPT,
        ) {
            let overflow = Overflow::new();
            let (key, first_seen) = (mk_key(7, 1), NOW + first_seen);
            let now = first_seen + after;
            let mut all: Vec<_> = others.iter().map(|(n, at)| (mk_key(n % 16, 1), NOW - LEAST_KEPT + at)).collect();
            all.push((key, first_seen));
            all.sort_by_key(|(_, at)| *at);
            for (other, at) in all.iter().filter(|(_, at)| *at <= now) {
                overflow.note([0, 1], other, *at, *at);
            }
            overflow.note([0, 1], &mk_key(7, 1), NOW - 3 * LEAST_KEPT, now);
            let found = overflow.find([0, 9], &key, now);
            prop_assert!(found.is_some_and(|found| found <= first_seen), "{:?}", found);
            prop_assert!(found.is_some_and(|found| now - found <= 2 * LEAST_KEPT), "{:?}", found);
        }
    }

    #[test]
    fn other_clients_see_nothing_of_it_and_in_the_end_it_is_over() {
        let overflow = Overflow::new();
        let find = |n, tag, client, now| overflow.find([0, client], &mk_key(n, tag), now);
        assert_eq!(find(7, 1, 1, NOW), None);
        for n in 0..u16::MAX {
            overflow.note([0, 1], &mk_key(n, 2), NOW, NOW);
        }
        assert_eq!(find(7, 1, 9, NOW), Some(NOW));
        assert_eq!(find(7, 9, 1, NOW), Some(NOW));
        assert_eq!(find(7, 2, 2, NOW), None);
        assert_eq!(find(7, 1, 1, NOW + 2 * LEAST_KEPT), None);
    }

    #[test]
    fn a_client_has_so_many_records_that_wait_and_no_more() {
        let overflow = Overflow::new();
        let admitted = |tag, times: u32, now| (0..times).filter(|_| overflow.admits([0, tag], now)).count();
        assert_eq!(admitted(1, 30_000, NOW), 10_000);
        assert_eq!(admitted(2, 5_000, NOW), 5_000);
        overflow.settled([0, 1]);
        assert_eq!(admitted(1, 10, NOW), 1);
        for second in 1..=3600 {
            overflow.admits([0, 2], NOW + second);
        }
        // Of 4 days: an hour later a 96th has expired, however often it was asked in between.
        assert!((100..=105).contains(&admitted(1, 30_000, NOW + 3600)));
        assert!((1_504..=1_506).contains(&admitted(2, 30_000, NOW + 3600)));
        assert_eq!(admitted(1, 30_000, NOW + 2 * LEAST_KEPT), 10_000);
    }
}
