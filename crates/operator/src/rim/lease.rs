//! Who writes: the holder of a Lease (`coordination.k8s.io/v1`), for as long as it can be sure of it.
//!
//! A Lease is no fence, so two things stand beside it: leadership ends by our own clock before anybody else may take the
//! Lease, and what is published is written against resource versions.

use std::time::Duration;

use tokio::time::Instant;

/// How long a Lease that nobody renews is left to its holder.
pub(super) const LEASE_DURATION: Duration = Duration::from_secs(15);

/// How long after a renewal was sent its holder still writes. What is left of [`LEASE_DURATION`] is for clocks that do
/// not run alike and for a write that is under way.
pub(super) const RENEW_DEADLINE: Duration = Duration::from_secs(10);

/// How often a holder renews, and others look.
pub(super) const RETRY_PERIOD: Duration = Duration::from_secs(2);

/// A Lease as it was read.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Record {
    /// Empty: nobody holds it.
    pub(super) holder: String,
    pub(super) resource_version: String,
    pub(super) duration: Duration,
    pub(super) transitions: i32,
}

/// What is to be done with the Lease.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Step {
    /// It is somebody else's.
    Wait,
    /// There is none.
    Create,
    /// It is ours: say that we are alive.
    Renew(Record),
    /// Nobody holds it any more.
    Take(Record),
}

/// One candidate's view.
#[derive(Debug)]
pub(super) struct Candidate {
    identity: String,
    /// The Lease when it was last seen to change, and when that was.
    seen: Option<(Record, Instant)>,
}

impl Candidate {
    pub(super) fn new(identity: String) -> Self {
        Self { identity, seen: None }
    }

    pub(super) fn identity(&self) -> &str {
        &self.identity
    }

    /// What to do, given the Lease at `now`. Only changes count, so nobody's clock but ours is read: a Lease that has
    /// not changed for its whole duration is nobody's.
    pub(super) fn step(&mut self, record: Option<Record>, now: Instant) -> Step {
        let Some(record) = record else {
            self.seen = None;
            return Step::Create;
        };
        let since = match &self.seen {
            Some((seen, since)) if *seen == record => *since,
            _ => {
                self.seen = Some((record.clone(), now));
                now
            }
        };
        if record.holder == self.identity {
            return Step::Renew(record);
        }
        // A Lease that claims a longer life than ours is believed; a shorter one is a mistake of somebody's.
        let duration = record.duration.max(LEASE_DURATION);
        if record.holder.is_empty() || now.duration_since(since) >= duration {
            return Step::Take(record);
        }
        Step::Wait
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn record(holder: &str, version: &str) -> Record {
        Record {
            holder: holder.to_owned(),
            resource_version: version.to_owned(),
            duration: LEASE_DURATION,
            transitions: 0,
        }
    }

    #[test]
    fn a_lease_is_taken_only_after_it_stood_still_for_its_whole_duration() {
        let start = Instant::now();
        let after = |seconds| start + Duration::from_secs(seconds);
        let mut candidate = Candidate::new("b".to_owned());
        assert_eq!(candidate.step(Some(record("a", "1")), after(0)), Step::Wait);
        assert_eq!(candidate.step(Some(record("a", "1")), after(14)), Step::Wait);
        assert_eq!(candidate.step(Some(record("a", "2")), after(14)), Step::Wait);
        assert_eq!(candidate.step(Some(record("a", "2")), after(28)), Step::Wait);
        assert_eq!(candidate.step(Some(record("a", "2")), after(29)), Step::Take(record("a", "2")));
    }

    #[test]
    fn a_lease_that_was_given_up_is_taken_at_once_and_ones_own_is_renewed() {
        let now = Instant::now();
        let mut candidate = Candidate::new("b".to_owned());
        assert_eq!(candidate.step(None, now), Step::Create);
        assert_eq!(candidate.step(Some(record("", "3")), now), Step::Take(record("", "3")));
        assert_eq!(candidate.step(Some(record("b", "4")), now), Step::Renew(record("b", "4")));
    }

    #[test]
    fn a_lease_with_a_longer_life_is_left_alone_for_as_long() {
        let start = Instant::now();
        let mut candidate = Candidate::new("b".to_owned());
        let long = Record { duration: Duration::from_secs(60), ..record("a", "1") };
        assert_eq!(candidate.step(Some(long.clone()), start), Step::Wait);
        assert_eq!(candidate.step(Some(long.clone()), start + Duration::from_secs(59)), Step::Wait);
        assert_eq!(candidate.step(Some(long.clone()), start + Duration::from_secs(60)), Step::Take(long));
    }

    #[test]
    fn leadership_ends_before_anybody_else_may_begin() {
        assert!(RENEW_DEADLINE + RETRY_PERIOD < LEASE_DURATION);
    }
}
