//! State in this process's memory: fast, bounded, gone after a restart.
//!
//! A call locks the shards of its records, in order, for a few look-ups. Records are spread over the shards by
//! their own keys, so no sender or mail domain can fill one by itself. Each shard forgets what has expired as it
//! goes, a few records per call, so there is never a sweep over everything.

use std::cmp::Reverse;
use std::collections::{BinaryHeap, HashMap};
use std::convert::Infallible;
use std::fmt;
use std::hash::{BuildHasherDefault, Hasher};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use torwart_core::BoxFuture;
use torwart_policy::greylist::{Counter, Judged, Record, Time};

use super::overflow::Overflow;
use super::steps::{self, Table};
use super::{Call, Key, Revocation, Stats, Store, StoreError};
use crate::clock::Clock;

/// A million triplets: about 85 MiB when full. At the limit those that expire first go first: triplets that
/// were never retried before those that have passed. Their times go to the overflow.
pub const DEFAULT_MAX_RECORDS: usize = 1 << 20;

/// As many as a set in 64 bits can name.
const SHARDS: usize = 64;
/// Counters come by delivered mail only, so they are far fewer. Each takes up to 200 bytes.
const RECORDS_PER_COUNTER: usize = 8;
/// Expired entries that one call clears away: more than it can add, so the backlog shrinks.
const SWEEP_PER_CALL: usize = 4;
/// How many entries one eviction may file anew (each because it was prolonged) before it drops the next whatever
/// its time: some 50 microseconds.
const EVICTION_TRIES: usize = 1024;
/// Index entries of removed records that a shelf bears before it makes the index anew.
const SLACK: usize = 64;

/// See the module's documentation.
pub struct MemoryStore {
    clock: Arc<dyn Clock>,
    records: Vec<Mutex<Shelf<Packed>>>,
    counters: Vec<Mutex<Shelf<Counter>>>,
    overflow: Overflow,
    secret: Mutex<Option<[u8; 32]>>,
}

/// A bounded map whose entries expire.
#[derive(Debug)]
struct Shelf<V> {
    entries: HashMap<Key, V, BuildHasherDefault<KeyHasher>>,
    /// When to look at an entry again: never later than it expires.
    due: BinaryHeap<Reverse<(Time, Key)>>,
    capacity: usize,
}

trait Expiring {
    fn expires(&self) -> Time;
}

/// A [`Record`] in 12 bytes; `passed` 0 is none.
#[derive(Clone, Copy, Debug)]
struct Packed {
    first_seen: Time,
    passed: Time,
    expires: Time,
}

/// Keys are keyed hashes already.
#[derive(Clone, Copy, Debug, Default)]
struct KeyHasher(u64);

struct View<'a> {
    store: &'a MemoryStore,
    /// Those of the shards in `locked`, in order.
    records: Vec<MutexGuard<'a, Shelf<Packed>>>,
    locked: u64,
    now: Time,
}

// === impl MemoryStore ===

impl MemoryStore {
    /// Holds at most `max_records` triplets and known senders (at least one per shard).
    pub fn new(max_records: usize, clock: Arc<dyn Clock>) -> Self {
        let per_shard = max_records.div_ceil(SHARDS);
        let counters = per_shard.div_ceil(RECORDS_PER_COUNTER);
        Self {
            clock,
            records: (0..SHARDS).map(|_| Mutex::new(Shelf::new(per_shard))).collect(),
            counters: (0..SHARDS).map(|_| Mutex::new(Shelf::new(counters))).collect(),
            overflow: Overflow::new(),
            secret: Mutex::new(None),
        }
    }

    /// With so small a quota that a test can fill it.
    #[cfg(test)]
    pub(super) fn with_quota(self, most_waiting: u32) -> Self {
        Self { overflow: Overflow::with_quota(most_waiting), ..self }
    }

    /// Always locks in the order of shards, so no two calls wait for each other.
    fn view<'k>(&self, keys: impl Iterator<Item = &'k Key>) -> View<'_> {
        let locked = keys.fold(0, |set, key| set | 1 << shard(key));
        let shards = self.records.iter().enumerate().filter(|(shard, _)| locked & (1 << shard) != 0);
        let records = shards.map(|(_, records)| lock(records)).collect();
        View { store: self, records, locked, now: self.clock.record_time() }
    }

    fn step<'k, T>(
        &self,
        keys: impl Iterator<Item = &'k Key>,
        step: impl FnOnce(&mut View<'_>, Time) -> Result<T, Infallible>,
    ) -> BoxFuture<'_, Result<T, StoreError>>
    where
        T: Send + 'static,
    {
        let mut view = self.view(keys);
        let now = view.now;
        for records in &mut view.records {
            records.sweep(now, SWEEP_PER_CALL);
        }
        let result = step(&mut view, now).map_err(|never| match never {});
        Box::pin(std::future::ready(result))
    }

    fn counter_shelf(&self, key: &Key) -> Option<MutexGuard<'_, Shelf<Counter>>> {
        self.counters.get(shard(key)).map(lock)
    }
}

impl Store for MemoryStore {
    fn kind(&self) -> &'static str {
        "memory"
    }

    fn is_persistent(&self) -> bool {
        false
    }

    fn check(&self, call: Call) -> BoxFuture<'_, Result<Vec<Judged>, StoreError>> {
        self.step(call.record_keys(), |view, now| steps::check(view, &call, now))
    }

    fn deliver(&self, call: Call, trust: bool) -> BoxFuture<'_, Result<(), StoreError>> {
        self.step(call.record_keys(), |view, now| steps::deliver(view, &call, trust, now))
    }

    fn give_back(&self, call: Call) -> BoxFuture<'_, Result<(), StoreError>> {
        self.step(call.record_keys(), |view, _| steps::give_back(view, &call))
    }

    fn revoke(&self, revocation: Revocation) -> BoxFuture<'_, Result<(), StoreError>> {
        let known = revocation.sets.iter().flat_map(|set| &set.known);
        self.step(known, |view, _| steps::revoke(view, &revocation))
    }

    fn secret(&self, fresh: [u8; 32]) -> BoxFuture<'_, Result<[u8; 32], StoreError>> {
        let secret = *lock(&self.secret).get_or_insert(fresh);
        Box::pin(std::future::ready(Ok(secret)))
    }

    fn sweep(&self) -> BoxFuture<'_, Result<usize, StoreError>> {
        let now = self.clock.record_time();
        let records: usize = self.records.iter().map(|shelf| lock(shelf).sweep(now, usize::MAX)).sum();
        let counters: usize = self.counters.iter().map(|shelf| lock(shelf).sweep(now, usize::MAX)).sum();
        Box::pin(std::future::ready(Ok(records + counters)))
    }

    fn stats(&self) -> BoxFuture<'_, Result<Stats, StoreError>> {
        let records: usize = self.records.iter().map(|shelf| lock(shelf).entries.len()).sum();
        let counters: usize = self.counters.iter().map(|shelf| lock(shelf).entries.len()).sum();
        Box::pin(std::future::ready(Ok(Stats { records: records as u64, counters: counters as u64 })))
    }
}

impl fmt::Debug for MemoryStore {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("MemoryStore").finish_non_exhaustive()
    }
}

/// A panic elsewhere leaves a map that is still sound: every change is one insertion or removal.
fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

fn shard(key: &Key) -> usize {
    usize::from(key.0[13]) % SHARDS
}

// === impl View ===

impl View<'_> {
    /// The shelf of a key whose shard is locked.
    fn shelf(&mut self, key: &Key) -> Option<&mut Shelf<Packed>> {
        let shard = 1_u64 << shard(key);
        let before = (self.locked & (shard - 1)).count_ones() as usize;
        if self.locked & shard == 0 { None } else { self.records.get_mut(before).map(|shelf| &mut **shelf) }
    }
}

impl Table for View<'_> {
    type Error = Infallible;

    fn record(&mut self, key: &Key) -> Result<Option<Record>, Infallible> {
        let now = self.now;
        let record = self.shelf(key).and_then(|shelf| shelf.entries.get(key)).map(|packed| packed.unpack());
        Ok(record.filter(|record| !record.is_expired(now)))
    }

    fn put_record(&mut self, key: &Key, record: Record) -> Result<(), Infallible> {
        let dropped = self.shelf(key).and_then(|shelf| shelf.put(*key, Packed::pack(record)));
        if let Some((key, record)) = dropped
            && record.passed == 0
        {
            self.store.overflow.note(key.tag(), &key, record.first_seen, self.now);
        }
        Ok(())
    }

    fn remove_record(&mut self, key: &Key) -> Result<(), Infallible> {
        if let Some(shelf) = self.shelf(key) {
            shelf.entries.remove(key);
        }
        Ok(())
    }

    fn counter(&mut self, key: &Key) -> Result<Option<Counter>, Infallible> {
        let now = self.now;
        let shelf = self.store.counter_shelf(key);
        Ok(shelf.and_then(|shelf| shelf.entries.get(key).filter(|counter| !counter.is_expired(now)).cloned()))
    }

    fn put_counter(&mut self, key: &Key, counter: Counter) -> Result<(), Infallible> {
        if let Some(mut shelf) = self.store.counter_shelf(key) {
            shelf.sweep(self.now, SWEEP_PER_CALL);
            shelf.put(*key, counter);
        }
        Ok(())
    }

    fn remove_counter(&mut self, key: &Key) -> Result<(), Infallible> {
        if let Some(mut shelf) = self.store.counter_shelf(key) {
            shelf.entries.remove(key);
        }
        Ok(())
    }

    fn overflow(&self) -> &Overflow {
        &self.store.overflow
    }
}

// === impl Shelf ===

impl<V: Expiring> Shelf<V> {
    fn new(capacity: usize) -> Self {
        Self { entries: HashMap::default(), due: BinaryHeap::new(), capacity: capacity.max(1) }
    }

    /// Says what was dropped to make room.
    fn put(&mut self, key: Key, value: V) -> Option<(Key, V)> {
        let expires = value.expires();
        let before = self.entries.insert(key, value).map(|before| before.expires());
        // A prolonged entry is filed anew when its old time comes.
        if before.is_none_or(|before| expires < before) {
            self.due.push(Reverse((expires, key)));
        }
        let dropped = if self.entries.len() > self.capacity { self.evict(key) } else { None };
        if self.due.len() > 2 * self.capacity + SLACK {
            self.due = self.entries.iter().map(|(key, value)| Reverse((value.expires(), *key))).collect();
        }
        dropped
    }

    /// Forgets up to `limit` entries that have expired; says how many it did.
    fn sweep(&mut self, now: Time, limit: usize) -> usize {
        let mut forgotten = 0;
        for _ in 0..limit {
            let Some(Reverse((time, key))) =
                self.due.peek().copied().filter(|Reverse((time, _))| *time <= now)
            else {
                break;
            };
            self.due.pop();
            match self.entries.get(&key).map(Expiring::expires) {
                Some(expires) if expires <= now => {
                    self.entries.remove(&key);
                    forgotten += 1;
                }
                Some(expires) if expires > time => self.due.push(Reverse((expires, key))),
                _ => {}
            }
        }
        forgotten
    }

    /// Drops the entry that expires first, but not `new`.
    fn evict(&mut self, new: Key) -> Option<(Key, V)> {
        let mut kept = None;
        let mut dropped = None;
        for attempt in 0..=EVICTION_TRIES + 1 {
            let Some(Reverse((time, key))) = self.due.pop() else { break };
            if key == new {
                kept = Some(Reverse((time, key)));
                continue;
            }
            match self.entries.get(&key).map(Expiring::expires) {
                None => {}
                Some(expires) if expires > time && attempt < EVICTION_TRIES => {
                    self.due.push(Reverse((expires, key)));
                }
                Some(_) => {
                    dropped = self.entries.remove(&key).map(|value| (key, value));
                    break;
                }
            }
        }
        self.due.extend(kept);
        dropped
    }
}

// === impl Packed ===

impl Packed {
    fn pack(record: Record) -> Self {
        Self { first_seen: record.first_seen, passed: record.passed.unwrap_or(0), expires: record.expires }
    }

    fn unpack(self) -> Record {
        Record {
            first_seen: self.first_seen,
            passed: (self.passed > 0).then_some(self.passed),
            expires: self.expires,
        }
    }
}

impl Expiring for Packed {
    fn expires(&self) -> Time {
        self.expires
    }
}

impl Expiring for Counter {
    fn expires(&self) -> Time {
        self.expires
    }
}

// === impl KeyHasher ===

impl Hasher for KeyHasher {
    fn finish(&self) -> u64 {
        self.0
    }

    fn write(&mut self, bytes: &[u8]) {
        for chunk in bytes.chunks(8) {
            let mut word = [0; 8];
            for (place, byte) in word.iter_mut().zip(chunk) {
                *place = *byte;
            }
            self.0 ^= u64::from_le_bytes(word);
        }
    }

    /// The length of the array, which is always the same.
    fn write_usize(&mut self, _: usize) {}
}

#[cfg(test)]
mod tests {
    use super::*;

    fn mk_key(n: u32) -> Key {
        let mut key = [0; 16];
        key[..4].copy_from_slice(&n.to_be_bytes());
        Key(key)
    }

    fn mk_packed(expires: Time) -> Packed {
        Packed { first_seen: 1, passed: 0, expires }
    }

    #[test]
    fn a_full_shelf_drops_what_expires_first() {
        let mut shelf = Shelf::new(100);
        for n in 0..1000 {
            shelf.put(mk_key(n), mk_packed(10_000 + n));
        }
        assert_eq!(shelf.entries.len(), 100);
        assert!((900..1000).all(|n| shelf.entries.contains_key(&mk_key(n))));
    }

    #[test]
    fn a_flood_of_new_triplets_does_not_wash_out_those_that_passed() {
        let mut shelf = Shelf::new(100);
        for n in 0..50 {
            shelf.put(mk_key(n), mk_packed(100 + n));
            shelf.put(mk_key(n), mk_packed(1_000_000));
        }
        for n in 1000..100_000 {
            shelf.put(mk_key(n), mk_packed(5_000 + n));
        }
        assert!((0..50).all(|n| shelf.entries.contains_key(&mk_key(n))));
        assert_eq!(shelf.entries.len(), 100);
    }

    #[test]
    fn removing_and_adding_without_end_needs_no_more_memory() {
        let mut shelf = Shelf::new(100);
        for n in 0..100_000u32 {
            let key = mk_key(n % 10);
            shelf.entries.remove(&key);
            shelf.put(key, mk_packed(1_000_000 + n));
        }
        assert!(shelf.due.len() <= 2 * 100 + SLACK);
    }

    #[test]
    fn the_newest_entry_is_never_the_one_that_is_dropped() {
        let mut shelf = Shelf::new(2);
        for n in 0..100 {
            shelf.put(mk_key(n), mk_packed(1000 - n));
            assert!(shelf.entries.contains_key(&mk_key(n)));
            assert!(shelf.entries.len() <= 2);
        }
    }

    #[test]
    fn a_sweep_forgets_what_has_expired_and_files_what_was_prolonged() {
        let mut shelf = Shelf::new(10);
        shelf.put(mk_key(1), mk_packed(100));
        shelf.put(mk_key(2), mk_packed(100));
        shelf.put(mk_key(2), mk_packed(200));
        assert_eq!(shelf.sweep(99, usize::MAX), 0);
        assert_eq!(shelf.sweep(100, usize::MAX), 1);
        assert_eq!(shelf.sweep(150, usize::MAX), 0);
        assert_eq!(shelf.sweep(200, usize::MAX), 1);
        assert!(shelf.entries.is_empty() && shelf.due.is_empty());
    }
}
