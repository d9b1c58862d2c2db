//! What a step does, over any table.

use torwart_policy::greylist::{Counter, Judged, Record, Time, better, delivered, judge_all};

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
}

pub(super) fn check<T: Table>(table: &mut T, call: &Call, now: Time) -> Result<Vec<Judged>, T::Error> {
    let records = call
        .members()
        .map(|member| best_record(table, call.triplets(member), call, now))
        .collect::<Result<Vec<_>, _>>()?;
    let known = best_record(table, call.known(), call, now)?;
    let mut counter: Option<Counter> = None;
    for key in call.counters() {
        let found = table.counter(key)?;
        if found.as_ref().is_some_and(|found| found.passes(now, &call.params)) {
            counter = found;
        }
    }
    let mut answers = Vec::with_capacity(records.len());
    let several_keys = call.identities > 1 || !call.older.is_empty();
    let steps = judge_all(&records, known, counter.as_ref(), now, &call.params);
    for ((member, found), step) in call.members().zip(&records).zip(steps) {
        answers.push(step.judged);
        match (step.write, found) {
            (Some(record), _) => {
                for key in call.written(member) {
                    table.put_record(key, record)?;
                }
            }
            // The client goes by a name that it was not known under when it first came: the wait goes on.
            (None, Some(record)) if several_keys => {
                for key in call.written(member) {
                    if table.record(key)? != Some(*record) {
                        table.put_record(key, *record)?;
                    }
                }
            }
            (None, _) => {}
        }
    }
    Ok(answers)
}

pub(super) fn deliver<T: Table>(table: &mut T, call: &Call, trust: bool, now: Time) -> Result<(), T::Error> {
    for member in call.members() {
        if call.params.single_use() {
            for key in call.triplets(member) {
                table.remove_record(key)?;
            }
            continue;
        }
        let found = best_record(table, call.triplets(member), call, now)?;
        for key in call.written(member) {
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

pub(super) fn revoke<T: Table>(table: &mut T, revocation: &Revocation) -> Result<(), T::Error> {
    for key in &revocation.known {
        table.remove_record(key)?;
    }
    for key in &revocation.counters {
        table.remove_counter(key)?;
    }
    Ok(())
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
    fn members(&self) -> std::ops::Range<usize> {
        0..self.current.triplets.len() / self.identities.max(1)
    }

    /// The keys of one recipient's triplet that are written.
    fn written(&self, member: usize) -> impl Iterator<Item = &Key> {
        self.current.triplets.iter().skip(member * self.identities).take(self.identities)
    }

    /// All keys of one recipient's triplet.
    fn triplets(&self, member: usize) -> impl Iterator<Item = &Key> {
        let older = self
            .older
            .iter()
            .flat_map(move |set| set.triplets.iter().skip(member * self.identities).take(self.identities));
        self.written(member).chain(older)
    }

    fn known(&self) -> impl Iterator<Item = &Key> {
        self.current.known.iter().chain(self.older.iter().flat_map(|set| &set.known))
    }

    fn counters(&self) -> impl Iterator<Item = &Key> {
        self.current.counters.iter().chain(self.older.iter().flat_map(|set| &set.counters))
    }
}
