//! When a server that fails is left alone, and for how long.

use std::time::{Duration, Instant};

/// Pauses that double from `least` to `most`. Each is cut to between half and all of its length by chance, so that
/// processes which failed together do not come back together.
#[derive(Clone, Debug)]
pub(super) struct Backoff {
    least: Duration,
    most: Duration,
    next: Duration,
}

/// Closed, calls go through. After [`Breaker::FAILURES`] failures in a row it opens, and no call goes through until
/// a pause is over; then one goes, the probe, and its outcome closes the breaker or opens it again for longer.
#[derive(Debug)]
pub(super) struct Breaker {
    state: State,
    backoff: Backoff,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum State {
    Closed { failures: u32 },
    Open { until: Instant },
    Probing,
}

/// How a call may go through.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Admission {
    Usual,
    /// Its outcome decides.
    Probe,
}

// === impl Backoff ===

impl Backoff {
    pub(super) fn new(least: Duration, most: Duration) -> Self {
        Self { least, most, next: least }
    }

    /// `chance` is any number, drawn by the caller.
    pub(super) fn pause(&mut self, chance: u16) -> Duration {
        let whole = self.next;
        self.next = (whole * 2).min(self.most);
        whole / 2 + whole / 2 * u32::from(chance) / u32::from(u16::MAX)
    }

    pub(super) fn reset(&mut self) {
        self.next = self.least;
    }
}

// === impl Breaker ===

impl Breaker {
    /// So many calls may be under way on a connection that is just lost, and one that is slow by chance must not
    /// open the breaker.
    pub(super) const FAILURES: u32 = 5;

    /// The least is twice the usual time limit of a call, so that probes do not overlap what they ask about; with
    /// the most, a server that is well again is used again within seconds, and a dead one costs one call in so long.
    pub(super) fn new() -> Self {
        let backoff = Backoff::new(Duration::from_millis(200), Duration::from_secs(10));
        Self { state: State::Closed { failures: 0 }, backoff }
    }

    /// `None`: the call fails without being sent. Each admission is followed by `succeeded`, `failed` or
    /// `abandoned`.
    pub(super) fn admit(&mut self, now: Instant) -> Option<Admission> {
        match self.state {
            State::Closed { .. } => Some(Admission::Usual),
            State::Open { until } if until <= now => {
                self.state = State::Probing;
                Some(Admission::Probe)
            }
            State::Open { .. } | State::Probing => None,
        }
    }

    /// For a call whose success shows nothing about other calls: it is never the probe, and nothing is sent to a
    /// server that is left alone. Followed by `failed` or `abandoned`, or by nothing.
    pub(super) fn admit_aside(&self) -> Option<Admission> {
        matches!(self.state, State::Closed { .. }).then_some(Admission::Usual)
    }

    /// An answer came that shows the server to be well, whoever asked.
    pub(super) fn succeeded(&mut self) {
        self.state = State::Closed { failures: 0 };
        self.backoff.reset();
    }

    /// Whether it opened with this. What was sent before it opened decides nothing any more.
    pub(super) fn failed(&mut self, admission: Admission, now: Instant, chance: u16) -> bool {
        let opens = match (self.state, admission) {
            (State::Closed { failures }, _) => {
                self.state = State::Closed { failures: failures + 1 };
                failures + 1 >= Self::FAILURES
            }
            (State::Probing, Admission::Probe) => true,
            (State::Probing, Admission::Usual) | (State::Open { .. }, _) => false,
        };
        if opens {
            self.state = State::Open { until: now + self.backoff.pause(chance) };
        }
        opens
    }

    /// The caller went away before anything was known.
    pub(super) fn abandoned(&mut self, admission: Admission, now: Instant) {
        if self.state == State::Probing && admission == Admission::Probe {
            self.state = State::Open { until: now };
        }
    }

    /// The server has accepted a new connection and answered there: that is worth a probe at once.
    pub(super) fn reconnected(&mut self, now: Instant) {
        match self.state {
            State::Closed { .. } => self.state = State::Closed { failures: 0 },
            State::Open { .. } | State::Probing => self.state = State::Open { until: now },
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const LONG: Duration = Duration::from_secs(10);

    fn mk_open(now: Instant) -> Breaker {
        let mut breaker = Breaker::new();
        for _ in 0..Breaker::FAILURES {
            assert_eq!(breaker.admit(now), Some(Admission::Usual));
            breaker.failed(Admission::Usual, now, u16::MAX);
        }
        breaker
    }

    #[test]
    fn five_failures_in_a_row_open_it_and_four_do_not() {
        let now = Instant::now();
        let mut breaker = Breaker::new();
        for _ in 0..3 {
            for _ in 1..Breaker::FAILURES {
                assert!(!breaker.failed(Admission::Usual, now, 0));
            }
            assert_eq!(breaker.admit(now), Some(Admission::Usual));
            breaker.succeeded();
        }
        assert_eq!(mk_open(now).admit(now), None);
    }

    #[test]
    fn one_probe_goes_when_the_pause_is_over_and_its_success_closes() {
        let now = Instant::now();
        let mut breaker = mk_open(now);
        let later = now + Duration::from_millis(200);
        assert_eq!(breaker.admit(later - Duration::from_millis(1)), None);
        assert_eq!(breaker.admit(later), Some(Admission::Probe));
        assert_eq!(breaker.admit(later + LONG), None, "one at a time");
        breaker.succeeded();
        assert_eq!(breaker.admit(later), Some(Admission::Usual));
    }

    #[test]
    fn a_probe_that_fails_opens_for_twice_as_long_and_never_for_more_than_ten_seconds() {
        let mut now = Instant::now();
        let mut breaker = mk_open(now);
        for millis in [200, 400, 800, 1600, 3200, 6400, 10_000, 10_000] {
            let pause = Duration::from_millis(millis);
            assert_eq!(breaker.admit(now + pause - Duration::from_millis(1)), None, "{millis}");
            now += pause;
            assert_eq!(breaker.admit(now), Some(Admission::Probe), "{millis}");
            assert!(breaker.failed(Admission::Probe, now, u16::MAX));
        }
        breaker.succeeded();
        assert_eq!(mk_open(now).admit(now + Duration::from_millis(200)), Some(Admission::Probe));
    }

    #[test]
    fn what_was_sent_before_it_opened_does_not_prolong_it() {
        let now = Instant::now();
        let mut breaker = mk_open(now);
        let later = now + Duration::from_millis(200);
        assert!(!breaker.failed(Admission::Usual, later, 0));
        assert_eq!(breaker.admit(later), Some(Admission::Probe));
        assert!(!breaker.failed(Admission::Usual, later, 0));
        breaker.succeeded();
        assert_eq!(breaker.admit(later), Some(Admission::Usual));
    }

    #[test]
    fn a_probe_whose_caller_went_away_is_sent_by_the_next() {
        let now = Instant::now();
        let mut breaker = mk_open(now);
        let later = now + LONG;
        assert_eq!(breaker.admit(later), Some(Admission::Probe));
        breaker.abandoned(Admission::Usual, later);
        assert_eq!(breaker.admit(later), None);
        breaker.abandoned(Admission::Probe, later);
        assert_eq!(breaker.admit(later), Some(Admission::Probe));
    }

    #[test]
    fn a_new_connection_is_probed_at_once_and_not_trusted_more() {
        let now = Instant::now();
        let mut breaker = mk_open(now);
        breaker.reconnected(now);
        assert_eq!(breaker.admit(now), Some(Admission::Probe));
        assert_eq!(breaker.admit(now), None);
    }

    #[test]
    fn what_is_asked_aside_is_never_the_probe() {
        let now = Instant::now();
        assert_eq!(Breaker::new().admit_aside(), Some(Admission::Usual));
        let mut breaker = mk_open(now);
        assert_eq!(breaker.admit_aside(), None);
        assert_eq!(breaker.admit(now + LONG), Some(Admission::Probe));
        assert_eq!(breaker.admit_aside(), None);
    }

    proptest! {
        #[test]
        fn pauses_stay_between_half_and_all_of_what_is_due(chances in proptest::collection::vec(any::<u16>(), 1..20)) {
            let (least, most) = (Duration::from_millis(50), Duration::from_secs(5));
            let mut backoff = Backoff::new(least, most);
            let mut due = least;
            for chance in chances {
                let pause = backoff.pause(chance);
                prop_assert!(pause >= due / 2 && pause <= due, "{:?} of {:?}", pause, due);
                due = (due * 2).min(most);
            }
        }

        /// Whatever happens, it is never stuck: when all calls are over and the longest pause is past, one goes.
        #[test]
        fn it_never_stays_shut(events in proptest::collection::vec((0_u8..5, any::<u16>()), 0..200)) {
            let mut now = Instant::now();
            let mut breaker = Breaker::new();
            let mut under_way = Vec::new();
            for (event, chance) in events {
                now += Duration::from_millis(u64::from(chance % 500));
                match event {
                    0 | 1 => under_way.extend(breaker.admit(now)),
                    2 => if under_way.pop().is_some() { breaker.succeeded() },
                    3 => if let Some(admission) = under_way.pop() { breaker.failed(admission, now, chance); },
                    _ => if let Some(admission) = under_way.pop() { breaker.abandoned(admission, now) },
                }
            }
            for admission in under_way {
                breaker.abandoned(admission, now);
            }
            prop_assert!(breaker.admit(now + LONG).is_some());
        }
    }
}
