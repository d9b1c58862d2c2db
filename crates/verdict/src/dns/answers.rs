//! What was answered, and for how long that holds. Bounded by what it takes in memory.

use std::time::Duration;

use hickory_resolver::lookup::Lookup;
use hickory_resolver::net::{DnsError, NetError};
use hickory_resolver::proto::op::ResponseCode;
use hickory_resolver::proto::rr::{RData, RecordType};
use tokio::time::Instant;

use super::{Answer, Failure, Found, Question};

/// The least used go when there are too many.
pub(super) struct Answers(moka::sync::Cache<Question, Known>);

#[derive(Clone)]
struct Known {
    answer: Answer,
    until: Instant,
}

/// SERVFAIL and silence: no server says how long these hold (RFC 2308 section 7 allows 5 minutes). Without it each mail
/// from one client would wait in vain for the same name.
pub(super) const FAILURE: Duration = Duration::from_secs(30);
/// Some say 0, which would have each mail of a burst ask again.
const SHORTEST: Duration = Duration::from_secs(5);
/// Who is taken off a list, or moves, is not held to what was longer than this.
const LONGEST: Duration = Duration::from_secs(3600);
/// RFC 2308 section 5 recommends 1 to 3 hours at most; who gets listed shall not profit for that long.
const LONGEST_NEGATIVE: Duration = Duration::from_secs(900);
/// Where the zone says nothing of it.
const NEGATIVE: Duration = Duration::from_secs(60);
/// About 100,000 answers of block lists.
const MOST_BYTES: u64 = 32 * 1024 * 1024;
/// What an entry takes beside names and data.
const OVERHEAD: usize = 256;

// === impl Answers ===

impl Default for Answers {
    fn default() -> Self {
        let weigher = |question: &Question, known: &Known| {
            let records = known.answer.iter().flat_map(|found| found.records.iter()).map(size);
            let bytes = OVERHEAD + question.name.len() + records.sum::<usize>();
            u32::try_from(bytes).unwrap_or(u32::MAX)
        };
        Self(moka::sync::Cache::builder().max_capacity(MOST_BYTES).weigher(weigher).build())
    }
}

impl Answers {
    pub(super) fn get(&self, question: &Question, now: Instant) -> Option<Answer> {
        self.0.get(question).filter(|known| now < known.until).map(|known| known.answer)
    }

    pub(super) fn put(&self, question: Question, answer: Answer, ttl: Duration, now: Instant) {
        self.0.insert(question, Known { answer, until: now + ttl });
    }
}

fn size(data: &RData) -> usize {
    match data {
        RData::TXT(text) => 64 + text.txt_data.iter().map(|part| part.len() + 16).sum::<usize>(),
        _ => 256,
    }
}

/// What a look-up brought, and how long it holds.
pub(super) fn read(result: Result<Lookup, NetError>, kind: RecordType) -> (Answer, Duration) {
    match result {
        Ok(lookup) => {
            let ttl = lookup.answers().iter().map(|record| record.ttl).min().unwrap_or(0);
            let records = lookup.answers().iter().map(|record| &record.data);
            let records = records.filter(|data| data.record_type() == kind).cloned().collect();
            (Ok(Found { records, exists: true }), within(ttl, LONGEST))
        }
        Err(NetError::Dns(DnsError::NoRecordsFound(none))) => {
            let exists = none.response_code != ResponseCode::NXDomain;
            let ttl = none.negative_ttl.map_or(NEGATIVE, |ttl| within(ttl, LONGEST_NEGATIVE));
            (Ok(Found { records: [].into(), exists }), ttl)
        }
        Err(error) => (Err(Failure::from(&error)), FAILURE),
    }
}

fn within(ttl: u32, longest: Duration) -> Duration {
    Duration::from_secs(ttl.into()).clamp(SHORTEST, longest)
}

#[cfg(test)]
mod tests {
    use super::super::Name;
    use super::*;

    fn mk_question(n: u32) -> Question {
        Question::new(&Name::from_ascii(format!("{n}.example")).unwrap(), RecordType::TXT)
    }

    #[test]
    fn an_answer_holds_for_its_time_and_not_longer() {
        let answers = Answers::default();
        let now = Instant::now();
        answers.put(mk_question(1), Err(Failure::ServerFailure), FAILURE, now);
        let at = |seconds| answers.get(&mk_question(1), now + Duration::from_secs(seconds)).is_some();
        assert!(at(0) && at(29) && !at(30) && !at(31));
        assert!(answers.get(&mk_question(2), now).is_none());
    }

    #[test]
    fn times_are_kept_within_reason() {
        for (ttl, longest, wanted) in [
            (0, LONGEST, 5),
            (5, LONGEST, 5),
            (300, LONGEST, 300),
            (86_400, LONGEST, 3600),
            (u32::MAX, LONGEST, 3600),
            (86_400, LONGEST_NEGATIVE, 900),
        ] {
            assert_eq!(within(ttl, longest).as_secs(), wanted, "{ttl}");
        }
    }

    #[test]
    fn what_is_remembered_is_bounded_by_its_size() {
        use hickory_resolver::proto::rr::rdata::TXT;
        let answers = Answers::default();
        let now = Instant::now();
        let text = RData::TXT(TXT::new(vec!["x".repeat(250); 250]));
        for n in 0..2000 {
            let found = Found { records: vec![text.clone()].into(), exists: true };
            answers.put(mk_question(n), Ok(found), LONGEST, now);
        }
        answers.0.run_pending_tasks();
        assert!(answers.0.weighted_size() <= MOST_BYTES, "{}", answers.0.weighted_size());
        assert!(answers.0.entry_count() > 100, "{}", answers.0.entry_count());
    }
}
