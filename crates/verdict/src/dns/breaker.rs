//! Whom not to ask for a while. Values: the time is given.

use std::time::Duration;

use tokio::time::Instant;

/// Whether a question may go out.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Leave {
    Ask,
    /// Not for this caller; but it is time to see whether it would be answered. Said once for each pause.
    Try,
    No,
}

/// One zone's: too many questions in a row without a useful answer, and it is left alone.
#[derive(Debug, Default)]
pub(super) struct ZoneBreaker {
    failures: u32,
    /// Set while it is left alone.
    pause_ends: Option<Instant>,
}

/// That of all servers. Many silent names raise a suspicion; only the servers' silence about what they must know makes
/// it true.
#[derive(Debug, Default)]
pub(super) struct ServersBreaker {
    silent: u32,
    trying: bool,
    pause_ends: Option<Instant>,
}

/// A lost packet or two are none: each stands for two tries.
const ZONE_FAILURES: u32 = 3;
/// As long as single failures are remembered.
const ZONE_PAUSE: Duration = Duration::from_secs(30);
/// More than one zone alone brings about.
const SILENCES: u32 = 8;
/// A server that is back shall be of use soon; one question each 5 s is no load.
const SERVERS_PAUSE: Duration = Duration::from_secs(5);

// === impl ZoneBreaker ===

impl ZoneBreaker {
    pub(super) fn leave(&mut self, now: Instant) -> Leave {
        match self.pause_ends {
            None => Leave::Ask,
            Some(end) if now < end => Leave::No,
            Some(_) => {
                // One that gets lost is followed by the next.
                self.pause_ends = Some(now + ZONE_PAUSE);
                Leave::Try
            }
        }
    }

    pub(super) fn answered(&mut self) {
        *self = Self::default();
    }

    pub(super) fn failed(&mut self, now: Instant) {
        self.failures = self.failures.saturating_add(1);
        if self.failures >= ZONE_FAILURES {
            self.pause_ends = Some(now + ZONE_PAUSE);
        }
    }
}

// === impl ServersBreaker ===

impl ServersBreaker {
    /// `Try` means [`Self::tried`] will be told.
    pub(super) fn leave(&mut self, now: Instant) -> Leave {
        match self.pause_ends {
            None => Leave::Ask,
            Some(end) if now < end => Leave::No,
            Some(_) => {
                self.pause_ends = Some(now + SERVERS_PAUSE);
                Leave::Try
            }
        }
    }

    pub(super) fn answered(&mut self) {
        self.silent = 0;
        self.pause_ends = None;
    }

    /// A question was not answered at all. True: it is time to try the servers themselves.
    pub(super) fn silent(&mut self) -> bool {
        self.silent = self.silent.saturating_add(1);
        let suspicious = self.silent >= SILENCES && !self.trying && self.pause_ends.is_none();
        self.trying |= suspicious;
        suspicious
    }

    /// Whether the servers answered what they must know.
    pub(super) fn tried(&mut self, alive: bool, now: Instant) {
        self.trying = false;
        self.silent = 0;
        self.pause_ends = (!alive).then_some(now + SERVERS_PAUSE);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_zone_that_fails_again_and_again_is_left_alone_and_tried_once_a_pause() {
        let (mut breaker, start) = (ZoneBreaker::default(), Instant::now());
        let at = |seconds| start + Duration::from_secs(seconds);
        for _ in 0..ZONE_FAILURES {
            assert_eq!(breaker.leave(start), Leave::Ask);
            breaker.failed(start);
        }
        assert_eq!(breaker.leave(at(0)), Leave::No);
        assert_eq!(breaker.leave(at(29)), Leave::No);
        assert_eq!(breaker.leave(at(30)), Leave::Try);
        assert_eq!(breaker.leave(at(30)), Leave::No, "one try is enough");
        breaker.failed(at(32));
        assert_eq!(breaker.leave(at(61)), Leave::No);
        assert_eq!(breaker.leave(at(62)), Leave::Try);
        // one that never comes back is followed by another
        assert_eq!(breaker.leave(at(92)), Leave::Try);
        breaker.answered();
        assert_eq!(breaker.leave(at(92)), Leave::Ask);
        breaker.failed(at(92));
        assert_eq!(breaker.leave(at(92)), Leave::Ask, "what was before is forgotten");
    }

    #[test]
    fn an_answer_in_between_clears_a_zone() {
        let (mut breaker, now) = (ZoneBreaker::default(), Instant::now());
        for _ in 0..10 {
            breaker.failed(now);
            breaker.failed(now);
            breaker.answered();
        }
        assert_eq!(breaker.leave(now), Leave::Ask);
    }

    #[test]
    fn servers_are_dead_only_if_they_do_not_know_what_they_must() {
        let (mut breaker, start) = (ServersBreaker::default(), Instant::now());
        let at = |seconds| start + Duration::from_secs(seconds);
        let suspicion = |breaker: &mut ServersBreaker| (1..100).find(|_| breaker.silent());
        assert_eq!(suspicion(&mut breaker), Some(SILENCES));
        assert!(!breaker.silent(), "one try at a time");
        assert_eq!(breaker.leave(start), Leave::Ask, "not yet");
        breaker.tried(true, start);
        assert_eq!(breaker.leave(start), Leave::Ask);
        assert_eq!(suspicion(&mut breaker), Some(SILENCES));
        breaker.tried(false, start);
        assert_eq!(breaker.leave(at(4)), Leave::No);
        assert_eq!(suspicion(&mut breaker), None, "it is known already");
        assert_eq!(breaker.leave(at(5)), Leave::Try);
        assert_eq!(breaker.leave(at(5)), Leave::No);
        breaker.tried(false, at(8));
        assert_eq!(breaker.leave(at(12)), Leave::No);
        assert_eq!(breaker.leave(at(13)), Leave::Try);
        breaker.tried(true, at(13));
        assert_eq!(breaker.leave(at(13)), Leave::Ask);
    }

    #[test]
    fn servers_that_answer_are_not_suspected() {
        let mut breaker = ServersBreaker::default();
        for _ in 0..100 {
            assert!((1..SILENCES).all(|_| !breaker.silent()));
            breaker.answered();
        }
    }
}
