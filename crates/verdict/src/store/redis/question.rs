//! Steps as commands.

#[cfg(test)]
use std::sync::Arc;

use redis::{Arg, Cmd};

use super::answer::Answer;
use super::keys;
use super::link::Request;
use super::room::Room;
use super::script::{Script, Scripts};
use crate::store::{Call, Key, KeySet, Revocation};

/// Length of a record's value.
const RECORD_VALUE: usize = 9;

#[derive(Debug)]
pub(super) struct Questions {
    scripts: &'static Scripts,
    #[cfg(test)]
    clock: Option<Arc<dyn crate::clock::Clock>>,
}

/// What was found under older store keys.
#[derive(Debug, Default)]
pub(super) struct Older {
    /// For each recipient, and last for the sender: one value after the other. Empty without older keys.
    records: Vec<Vec<u8>>,
    /// For each of the client's names; empty where nothing was looked for or found.
    pub(super) counters: Vec<Vec<u8>>,
}

// === impl Questions ===

impl Questions {
    pub(super) fn by_server_time() -> Self {
        Self {
            scripts: Scripts::by_server_time(),
            #[cfg(test)]
            clock: None,
        }
    }

    #[cfg(test)]
    pub(super) fn by_test_clock(clock: Arc<dyn crate::clock::Clock>) -> Self {
        Self { scripts: Scripts::by_test_clock(), clock: Some(clock) }
    }

    pub(super) fn check(&self, call: &Call, older: &Older, room: &Room<'_>) -> Request {
        let set = &call.current;
        let records = names(set, set.triplets.iter().chain(&set.known));
        self.run(&self.scripts.check, &records, |command| {
            add_step(command, call, older);
            command.arg(room.granted()).arg(room.ages(call));
        })
    }

    /// See [`RedisStore::check_as_sent`](super::RedisStore::check_as_sent).
    pub(super) fn check_as_sent(&self, call: &Call) -> (Vec<Vec<u8>>, &'static str) {
        let set = &call.current;
        let records = names(set, set.triplets.iter().chain(&set.known));
        let mut command = self.scripts.check.command(&records);
        add_step(&mut command, call, &Older::default());
        command.arg(set.triplets.len()).arg("");
        let words = command.args_iter().filter_map(|word| match word {
            Arg::Simple(word) => Some(word.to_vec()),
            _ => None,
        });
        (words.collect(), self.scripts.check.text)
    }

    pub(super) fn deliver(&self, call: &Call, trust: bool, older: &Older) -> Vec<Request> {
        let set = &call.current;
        let known = if trust { &set.known[..] } else { &[] };
        let records = names(set, set.triplets.iter().chain(known));
        let mut requests = Vec::new();
        if !records.is_empty() {
            requests
                .push(self.run(&self.scripts.deliver, &records, |command| add_step(command, call, older)));
        }
        if trust {
            for (identity, key) in set.counters.iter().enumerate() {
                let counted = older.counters.get(identity).map_or(&[][..], Vec::as_slice);
                requests.push(self.run(&self.scripts.count, &[keys::counter(key)], |command| {
                    command.arg(&call.sender.to_be_bytes()[..]).arg(call.params.pass_ttl()).arg(counted);
                }));
            }
        }
        requests
    }

    /// None if there is nothing that could be given back.
    pub(super) fn give_back(&self, call: &Call) -> Option<Request> {
        let triplets = names(&call.current, call.current.triplets.iter());
        let is_lent = call.params.single_use() && !triplets.is_empty();
        is_lent.then(|| self.run(&self.scripts.give_back, &triplets, |_| {}))
    }

    pub(super) fn read(&self, set: &KeySet) -> Request {
        let records = names(set, set.triplets.iter().chain(&set.known));
        self.run(&self.scripts.read, &records, |_| {})
    }

    fn run<const N: usize>(
        &self,
        script: &Script,
        keys: &[[u8; N]],
        add_arguments: impl FnOnce(&mut Cmd),
    ) -> Request {
        let mut command = script.command(keys);
        add_arguments(&mut command);
        #[cfg(test)]
        if let Some(clock) = &self.clock {
            command.arg(clock.record_time());
        }
        Request::script(keys.first().map_or(&[][..], |key| key.as_slice()), command, script.text)
    }
}

/// The numbers of a step, and what was found under older keys.
fn add_step(command: &mut Cmd, call: &Call, older: &Older) {
    let params = &call.params;
    for number in [params.delay(), params.kept(), params.pass_ttl(), params.single_use().into()] {
        command.arg(number);
    }
    command.arg(call.identities).arg(call.members().len()).arg(u8::from(!older.records.is_empty()));
    for records in &older.records {
        command.arg(records.as_slice());
    }
}

fn names<'a>(set: &KeySet, keys: impl Iterator<Item = &'a Key>) -> Vec<[u8; keys::RECORD]> {
    keys.map(|key| keys::record(&set.slot, key)).collect()
}

pub(super) fn counter(key: &Key) -> Request {
    let name = keys::counter(key);
    let mut command = redis::cmd("GET");
    command.arg(&name[..]);
    Request::new(&name, command)
}

/// The null sender's triplets, which are used up.
pub(super) fn removals(call: &Call) -> Vec<Request> {
    let sets = std::iter::once(&call.current).chain(&call.older);
    sets.filter_map(|set| removal(&names(set, set.triplets.iter()))).collect()
}

pub(super) fn revocation(revocation: &Revocation) -> Vec<Request> {
    let records = revocation.sets.iter().filter_map(|set| removal(&names(set, set.known.iter())));
    let counters = revocation.sets.iter().flat_map(|set| &set.counters);
    records.chain(counters.filter_map(|key| removal(&[keys::counter(key)]))).collect()
}

/// Of keys in one slot.
fn removal<const N: usize>(keys: &[[u8; N]]) -> Option<Request> {
    let first = keys.first()?;
    let mut command: Cmd = redis::cmd("UNLINK");
    for key in keys {
        command.arg(key.as_slice());
    }
    Some(Request::new(first, command))
}

// === impl Older ===

impl Older {
    pub(super) fn of(call: &Call) -> Self {
        Self { records: vec![Vec::new(); call.members().len() + 1], counters: Vec::new() }
    }

    /// `values` are those of the set's triplets and known senders, in order.
    pub(super) fn take(&mut self, set: &KeySet, call: &Call, values: Vec<Option<Vec<u8>>>) {
        let last = call.members().len();
        for (index, value) in values.into_iter().enumerate() {
            let member = if index < set.triplets.len() { index / call.identities.max(1) } else { last };
            // One of another length is of another version.
            let value = value.filter(|value| value.len() == RECORD_VALUE);
            if let (Some(place), Some(value)) = (self.records.get_mut(member), value) {
                place.extend(value);
            }
        }
    }

    /// What is to be removed so that it is not lent twice: of recipients that have passed. Of others, and of those
    /// that there was no room for, it may be all that is known.
    pub(super) fn removals(&self, call: &Call, answer: &Answer) -> Vec<Request> {
        let is_over = |member: &usize| {
            self.records.get(*member).is_some_and(|found| !found.is_empty()) && answer.holds(*member, call)
        };
        let members: Vec<usize> = call.members().filter(is_over).collect();
        let of = |set: &KeySet| {
            let keys = members
                .iter()
                .flat_map(|member| set.triplets.iter().skip(member * call.identities).take(call.identities));
            removal(&names(set, keys))
        };
        call.older.iter().filter_map(of).collect()
    }
}
