//! Greylist state in Redis or Valkey, shared by every process that is given the same server.
//!
//! ```text
//!    check    EVALSHA check, GET counter, GET counter, ..     one write, one round trip
//!    deliver  EVALSHA deliver, EVALSHA count, ..              the same
//! ```
//!
//! What must be atomic lies in one slot and is one script (see `script`): the triplets of a call and its known
//! senders. Counters are elsewhere and need none of that: each is read or changed by itself. The server's time
//! judges, and each value ends with its key's time to live, so the server forgets by itself.
//!
//! While there are older store keys, what they wrote is read first: it lies in other slots. What can't be read there,
//! or of the counters, counts as none: the script's answer stands, and the failure is told by [`Store::take_fault`].
//!
//! How many records of one client wait, each process counts by itself; further first tries go to its overflow.
//!
//! A call that fails may have been carried out in part. That is harmless: a first try is remembered or it is not, a
//! pass is prolonged or it is not; a pass that was lent and not used is lent again after [`LEASE`] seconds. The
//! caller lets mail pass that he has no answer for.
//!
//! [`LEASE`]: torwart_policy::greylist::LEASE

mod answer;
mod breaker;
mod cache;
mod dial;
mod failure;
mod keys;
mod link;
mod node;
mod options;
mod question;
mod room;
mod script;
mod slots;
mod topology;
mod url;

#[cfg(test)]
mod testing;
#[cfg(test)]
mod tests;

use std::collections::VecDeque;
use std::sync::{Arc, Mutex, PoisonError};

use tokio::sync::watch;
use torwart_core::BoxFuture;
use torwart_policy::greylist::Judged;

use self::answer::Answer;
use self::link::{Link, Request};
use self::question::{Older, Questions};
use self::room::Room;
use super::overflow::Overflow;
use super::{Call, Revocation, Stats, Store, StoreError};
use crate::clock::{Clock, SystemClock};

#[cfg(test)]
pub(crate) use self::testing::TestServer;

pub use self::cache::CachedStore;
pub use self::options::RedisOptions;
pub use self::url::{InvalidRedisUrl, RedisUrl};

/// How many keys a node looks at for [`Store::stats`]: some 20 ms of its time.
const COUNTED_KEYS: u32 = 100_000;
/// Faults that are kept until somebody takes them: more than calls can be under way.
const MOST_FAULTS: usize = 4096;

/// See the module's documentation.
#[derive(Debug)]
pub struct RedisStore {
    link: Arc<Link>,
    questions: Questions,
    /// Of this process; see [`Room`].
    clock: Arc<dyn Clock>,
    overflow: Overflow,
    /// What calls that were answered have met.
    faults: Mutex<VecDeque<StoreError>>,
}

// === impl RedisStore ===

impl RedisStore {
    /// Connects in the background, and so must be called within a tokio runtime. Whether the server is there plays
    /// no part; a call while it is not fails at once.
    ///
    /// Errs for files that `options` names and that are of no use.
    pub fn open(url: RedisUrl, options: &RedisOptions) -> Result<Self, StoreError> {
        Ok(Self {
            link: Link::open(url, options)?,
            questions: Questions::by_server_time(),
            clock: Arc::new(SystemClock),
            overflow: Overflow::new(),
            faults: Mutex::default(),
        })
    }

    /// The words of the command that a check is, and the text of the script that it names: for measuring what the
    /// server makes of them without us.
    pub fn check_as_sent(call: &Call) -> (Vec<Vec<u8>>, &'static str) {
        Questions::by_server_time().check_as_sent(call)
    }

    /// With so small a quota that a test can fill it.
    #[cfg(test)]
    fn with_quota(self, most_waiting: u32) -> Self {
        Self { overflow: Overflow::with_quota(most_waiting), ..self }
    }

    /// With a clock of the test's in place of the server's.
    #[cfg(test)]
    fn open_by(url: RedisUrl, options: &RedisOptions, clock: Arc<dyn Clock>) -> Result<Self, StoreError> {
        let questions = Questions::by_test_clock(Arc::clone(&clock));
        Ok(Self { questions, clock, ..Self::open(url, options)? })
    }

    async fn ask(&self, call: &Call) -> Result<Vec<Judged>, StoreError> {
        if call.members().is_empty() {
            return Ok(Vec::new());
        }
        let mut faults = Vec::new();
        let older = self.older(call, &mut faults).await;
        let room = Room::reserve(&self.overflow, call, self.clock.record_time());
        let mut requests = vec![self.questions.check(call, &older, &room)];
        requests.extend(call.counters().map(question::counter));
        let mut values = self.link.send(requests).await.into_iter();
        let answer = match values.next().unwrap_or(Err(StoreError::Closed)) {
            Ok(value) => Answer::read(value, call)?,
            Err(error) => {
                if !may_have_happened(&error) {
                    room.unused();
                }
                return Err(error);
            }
        };
        room.used(call, &answer);
        let counters: Vec<_> = values
            .filter_map(|value| heard(value.and_then(answer::counter), &mut faults).flatten())
            .collect();
        if call.params.single_use() {
            // Under an older key a pass would be there to be lent again, once this loan has ended. Nothing is lost
            // with this answer: the delivery takes it away as well.
            let _unheard = self.link.send(older.removals(call, &answer)).await;
        }
        let judged = answer.judged(&counters, &call.params);
        if let Some(refused) = answer.refused {
            if !judged.iter().all(Judged::passes) {
                return Err(refused);
            }
            // A pass that is not prolonged is a pass.
            faults.push(refused);
        }
        self.note(faults);
        Ok(judged)
    }

    async fn remember(&self, call: &Call, trust: bool) -> Result<(), StoreError> {
        if call.params.single_use() {
            let triplets = u32::try_from(call.current.triplets.len()).unwrap_or(u32::MAX);
            self.overflow.give_back(call.client, triplets);
            return self.all(question::removals(call)).await;
        }
        let mut faults = Vec::new();
        let mut older = self.older(call, &mut faults).await;
        if trust {
            older.counters = self.older_counters(call, &mut faults).await;
        }
        self.note(faults);
        let mut result = Ok(());
        for value in self.link.send(self.questions.deliver(call, trust, &older)).await {
            match value.and_then(answer::settled) {
                Ok(settled) => self.overflow.give_back(call.client, settled),
                Err(error) => result = Err(error),
            }
        }
        result
    }

    /// What was written under older store keys, as far as that can be read: a node that is down has a part of it,
    /// and says nothing about the rest.
    async fn older(&self, call: &Call, faults: &mut Vec<StoreError>) -> Older {
        if call.older.is_empty() {
            return Older::default();
        }
        let mut older = Older::of(call);
        let requests = call.older.iter().map(|set| self.questions.read(set)).collect();
        for (set, values) in call.older.iter().zip(self.link.send(requests).await) {
            if let Some(values) = heard(values.and_then(answer::values), faults) {
                older.take(set, call, values);
            }
        }
        older
    }

    /// For each of the client's names the first that there is.
    async fn older_counters(&self, call: &Call, faults: &mut Vec<StoreError>) -> Vec<Vec<u8>> {
        let mut found = vec![Vec::new(); call.current.counters.len()];
        for set in &call.older {
            let requests = set.counters.iter().map(question::counter).collect();
            for (place, value) in found.iter_mut().zip(self.link.send(requests).await) {
                let value = heard(value.and_then(answer::value), faults).flatten();
                if place.is_empty() {
                    *place = value.unwrap_or_default();
                }
            }
        }
        found
    }

    /// Keeps what a call has met although it was answered, one of each kind.
    fn note(&self, faults: Vec<StoreError>) {
        if faults.is_empty() {
            return;
        }
        let mut seen = Vec::new();
        let mut kept = self.faults.lock().unwrap_or_else(PoisonError::into_inner);
        for fault in faults {
            if !seen.contains(&fault.kind()) && kept.len() < MOST_FAULTS {
                seen.push(fault.kind());
                kept.push_back(fault);
            }
        }
    }

    async fn all(&self, requests: Vec<Request>) -> Result<(), StoreError> {
        self.link.send(requests).await.into_iter().try_for_each(|answer| answer.map(drop))
    }

    async fn own_key(&self, fresh: [u8; 32]) -> Result<[u8; 32], StoreError> {
        let mut set = redis::cmd("SET");
        set.arg(keys::STORE_KEY).arg(&fresh[..]).arg("NX");
        let mut get = redis::cmd("GET");
        get.arg(keys::STORE_KEY);
        let requests = [set, get].map(|command| Request::new(keys::STORE_KEY, command)).into();
        let mut answers = self.link.send(requests).await.into_iter();
        let (set, get) = (answers.next(), answers.next().unwrap_or(Err(StoreError::Closed)));
        let Some(found) = answer::value(get?)? else {
            // A server that takes no writes may well have the key.
            set.unwrap_or(Err(StoreError::Closed))?;
            return Err(StoreError::Closed);
        };
        found
            .try_into()
            .map_err(|_| StoreError::Unusable("tw:key in Redis is none of ours; delete it".into()))
    }

    async fn count(&self) -> Result<Stats, StoreError> {
        let mut scan = redis::cmd("SCAN");
        scan.arg(0).arg("MATCH").arg("tw*").arg("COUNT").arg(COUNTED_KEYS);
        let mut stats = Stats::default();
        for page in self.link.call_everywhere(scan).await {
            for name in answer::page(page?)? {
                stats.records += u64::from(name.starts_with(b"tw{"));
                stats.counters += u64::from(name.starts_with(b"twc"));
            }
        }
        Ok(stats)
    }
}

/// What can't be read is as if it were not there.
fn heard<T>(answer: Result<T, StoreError>, faults: &mut Vec<StoreError>) -> Option<T> {
    answer.map_err(|error| faults.push(error)).ok()
}

/// Whether a step that failed so may have been carried out.
fn may_have_happened(error: &StoreError) -> bool {
    matches!(error, StoreError::TimedOut | StoreError::Io(_))
}

impl Store for RedisStore {
    fn kind(&self) -> &'static str {
        "redis"
    }

    fn is_persistent(&self) -> bool {
        true
    }

    fn check(&self, call: Call) -> BoxFuture<'_, Result<Vec<Judged>, StoreError>> {
        Box::pin(async move { self.ask(&call).await })
    }

    fn deliver(&self, call: Call, trust: bool) -> BoxFuture<'_, Result<(), StoreError>> {
        Box::pin(async move { self.remember(&call, trust).await })
    }

    fn give_back(&self, call: Call) -> BoxFuture<'_, Result<(), StoreError>> {
        Box::pin(async move {
            match self.questions.give_back(&call) {
                Some(request) => self.all(vec![request]).await,
                None => Ok(()),
            }
        })
    }

    fn revoke(&self, revocation: Revocation) -> BoxFuture<'_, Result<(), StoreError>> {
        Box::pin(async move { self.all(question::revocation(&revocation)).await })
    }

    fn secret(&self, fresh: [u8; 32]) -> BoxFuture<'_, Result<[u8; 32], StoreError>> {
        Box::pin(self.own_key(fresh))
    }

    /// The server does so.
    fn sweep(&self) -> BoxFuture<'_, Result<usize, StoreError>> {
        Box::pin(std::future::ready(Ok(0)))
    }

    /// Of the first 100,000 keys or so of each node, ours and others': for tests and for a look by hand. It holds
    /// the server up.
    fn stats(&self) -> BoxFuture<'_, Result<Stats, StoreError>> {
        Box::pin(self.count())
    }

    fn take_fault(&self) -> Option<StoreError> {
        self.faults.lock().unwrap_or_else(PoisonError::into_inner).pop_front()
    }

    fn connects(&self) -> Option<watch::Receiver<u64>> {
        Some(self.link.connects())
    }

    fn connected(&self) -> BoxFuture<'_, ()> {
        Box::pin(self.link.connected())
    }
}
