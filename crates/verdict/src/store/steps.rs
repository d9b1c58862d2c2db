//! What a step does, over any table.

use torwart_core::Greylist;
use torwart_policy::greylist::{Counter, Judged, Record, Time, better, delivered, is_lent, judge_all};

use super::overflow::Overflow;
use super::{Call, Key, Revocation};

/// Records under keys. An expired one is not there.
pub(super) trait Table {
    type Error;

    fn record(&mut self, key: &Key) -> Result<Option<Record>, Self::Error>;
    fn put_record(&mut self, key: &Key, record: Record) -> Result<(), Self::Error>;
    fn remove_record(&mut self, key: &Key) -> Result<(), Self::Error>;
    fn counter(&mut self, key: &Key) -> Result<Option<Counter>, Self::Error>;
    fn put_counter(&mut self, key: &Key, counter: Counter) -> Result<(), Self::Error>;
    fn remove_counter(&mut self, key: &Key) -> Result<(), Self::Error>;

    /// Where first tries go that the table has no room for.
    fn overflow(&self) -> &Overflow;
}

pub(super) fn check<T: Table>(table: &mut T, call: &Call, now: Time) -> Result<Vec<Judged>, T::Error> {
    let mut records = Vec::with_capacity(call.members().len());
    let mut dropped = Vec::with_capacity(call.members().len());
    for member in call.members() {
        let kept = best_triplet(table, call, member, now)?;
        let lost = if kept.is_none() { dropped_record(table, call, member, now) } else { None };
        records.push(kept.or(lost));
        dropped.push(lost.is_some());
    }
    let known = best_record(table, call.known(), call, now)?;
    let mut counter: Option<Counter> = None;
    for key in call.counters() {
        let found = table.counter(key)?;
        if found.as_ref().is_some_and(|found| found.passes(now, &call.params)) {
            counter = found;
        }
    }
    let mut answers = Vec::with_capacity(records.len());
    let steps = judge_all(&records, known, counter.as_ref(), now, &call.params);
    for (((member, found), dropped), step) in call.members().zip(&records).zip(dropped).zip(steps) {
        let judged = step.judged;
        if dropped && judged.held.is_some() {
            // It may be another's time that it passes by; its own delivery is what is remembered.
            answers.push(Judged { outcome: Greylist::StoreFailure, wait: 0, held: None });
            continue;
        }
        answers.push(judged);
        if dropped && matches!(judged.outcome, Greylist::Early | Greylist::Auto) {
            // Or this is its first try.
            call.written(member).for_each(|key| table.overflow().note(call.client, key, now, now));
            continue;
        }
        match step.write {
            Some(record) => write(table, call, member, *found, record, now)?,
            None => copy(table, call, member, *found, now)?,
        }
    }
    Ok(answers)
}

/// A first try that there is no record of any more, as far as it is known.
fn dropped_record<T: Table>(table: &T, call: &Call, member: usize, now: Time) -> Option<Record> {
    let first_seen =
        call.triplets(member).filter_map(|key| table.overflow().find(call.client, key, now)).min()?;
    Some(Record::waiting(first_seen, &call.params))
}

fn write<T: Table>(
    table: &mut T,
    call: &Call,
    member: usize,
    found: Option<Record>,
    record: Record,
    now: Time,
) -> Result<(), T::Error> {
    for key in call.written(member) {
        if record.passed.is_none() {
            put_waiting(table, call, key, record, now)?;
            continue;
        }
        if is_waiting(found) && !call.params.single_use() {
            table.overflow().settled(call.client);
        }
        table.put_record(key, record)?;
    }
    if call.params.single_use() && record.passed.is_some() {
        // Under the old key it would be there to be lent again.
        for key in call.read_only(member) {
            table.remove_record(key)?;
        }
    }
    Ok(())
}

/// The client may go by a name that it was not known under when it first came: the wait goes on.
fn copy<T: Table>(
    table: &mut T,
    call: &Call,
    member: usize,
    found: Option<Record>,
    now: Time,
) -> Result<(), T::Error> {
    let several_keys = call.identities > 1 || !call.older.is_empty();
    let Some(record) = found.filter(|_| several_keys) else { return Ok(()) };
    for key in call.written(member) {
        if table.record(key)? == Some(record) {
            continue;
        }
        if record.passed.is_none() {
            put_waiting(table, call, key, record, now)?;
        } else {
            table.put_record(key, record)?;
        }
    }
    Ok(())
}

fn put_waiting<T: Table>(
    table: &mut T,
    call: &Call,
    key: &Key,
    record: Record,
    now: Time,
) -> Result<(), T::Error> {
    if table.record(key)?.is_none() && !table.overflow().admits(call.client, now) {
        table.overflow().note(call.client, key, record.first_seen, now);
        return Ok(());
    }
    table.put_record(key, record)
}

fn is_waiting(record: Option<Record>) -> bool {
    record.is_some_and(|record| record.passed.is_none())
}

pub(super) fn deliver<T: Table>(table: &mut T, call: &Call, trust: bool, now: Time) -> Result<(), T::Error> {
    for member in call.members() {
        if call.params.single_use() {
            for key in call.triplets(member) {
                table.remove_record(key)?;
            }
            call.written(member).for_each(|_| table.overflow().settled(call.client));
            continue;
        }
        let found = best_triplet(table, call, member, now)?;
        for key in call.written(member) {
            if is_waiting(found) {
                table.overflow().settled(call.client);
            }
            table.put_record(key, delivered(found, now, &call.params))?;
        }
    }
    if !trust {
        return Ok(());
    }
    let known = best_record(table, call.known(), call, now)?;
    for key in &call.current.known {
        table.put_record(key, delivered(known, now, &call.params))?;
    }
    for (identity, key) in call.current.counters.iter().enumerate() {
        let mut counter = table.counter(key)?;
        for older in call.older.iter().filter_map(|set| set.counters.get(identity)) {
            if counter.is_none() {
                counter = table.counter(older)?;
            }
        }
        let counter = counter.unwrap_or_default().delivered(call.sender, now, &call.params);
        table.put_counter(key, counter)?;
    }
    Ok(())
}

/// Only the null sender's pass can be given back.
pub(super) fn give_back<T: Table>(table: &mut T, call: &Call) -> Result<(), T::Error> {
    if !call.params.single_use() {
        return Ok(());
    }
    for key in call.members().flat_map(|member| call.written(member)) {
        if let Some(record) = table.record(key)?.filter(|record| record.passed.is_some()) {
            table.put_record(key, record.given_back())?;
        }
    }
    Ok(())
}

pub(super) fn revoke<T: Table>(table: &mut T, revocation: &Revocation) -> Result<(), T::Error> {
    for set in &revocation.sets {
        for key in &set.known {
            table.remove_record(key)?;
        }
        for key in &set.counters {
            table.remove_counter(key)?;
        }
    }
    Ok(())
}

/// A pass that is lent under this store key is not to be had a second time under an older one: what was written
/// there may have been read before it was lent.
fn best_triplet<T: Table>(
    table: &mut T,
    call: &Call,
    member: usize,
    now: Time,
) -> Result<Option<Record>, T::Error> {
    for key in call.written(member) {
        if table.record(key)?.is_some_and(|record| is_lent(&record, now, &call.params)) {
            return best_record(table, call.written(member), call, now);
        }
    }
    best_record(table, call.triplets(member), call, now)
}

fn best_record<'a, T: Table>(
    table: &mut T,
    keys: impl Iterator<Item = &'a Key>,
    call: &Call,
    now: Time,
) -> Result<Option<Record>, T::Error> {
    let mut best = None;
    for key in keys {
        best = better(best, table.record(key)?, now, &call.params);
    }
    Ok(best)
}

// === impl Call ===

impl Call {
    pub(super) fn members(&self) -> std::ops::Range<usize> {
        0..self.current.triplets.len() / self.identities.max(1)
    }

    /// The keys of one recipient's triplet that are written.
    fn written(&self, member: usize) -> impl Iterator<Item = &Key> {
        self.current.triplets.iter().skip(member * self.identities).take(self.identities)
    }

    /// Those of older store keys.
    fn read_only(&self, member: usize) -> impl Iterator<Item = &Key> {
        self.older
            .iter()
            .flat_map(move |set| set.triplets.iter().skip(member * self.identities).take(self.identities))
    }

    /// All keys of one recipient's triplet.
    pub(super) fn triplets(&self, member: usize) -> impl Iterator<Item = &Key> {
        self.written(member).chain(self.read_only(member))
    }

    /// All keys of records.
    pub(super) fn record_keys(&self) -> impl Iterator<Item = &Key> {
        let sets = std::iter::once(&self.current).chain(&self.older);
        sets.flat_map(|set| set.triplets.iter().chain(&set.known))
    }

    /// How many records it reads and may write.
    pub(crate) fn weight(&self) -> usize {
        self.current.triplets.len() + self.current.known.len()
    }

    fn known(&self) -> impl Iterator<Item = &Key> {
        self.current.known.iter().chain(self.older.iter().flat_map(|set| &set.known))
    }

    pub(super) fn counters(&self) -> impl Iterator<Item = &Key> {
        self.current.counters.iter().chain(self.older.iter().flat_map(|set| &set.counters))
    }
}
