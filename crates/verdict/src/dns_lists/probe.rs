//! Whether a list works: the entries that it must, and must not, have. Values: nothing is asked here.

use std::time::Duration;

use torwart_policy::dns_lists::{ListProbe, ListWord};

use super::describe;
use crate::dns::Failure;

/// What one question of a probe brought.
pub(super) type Probed = Result<ListWord, Failure>;

/// What the probes so far say.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) enum Probes {
    /// There was none.
    #[default]
    Unproven,
    Usable {
        wrong: u8,
    },
    Unusable {
        good: u8,
    },
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Change {
    On,
    Off,
}

/// One wrong answer may be a mishap on the way, one good one a list that comes and goes.
const ENOUGH: u8 = 2;
/// A list that closes is noticed within minutes; two questions each are nothing to it.
const CALM: Duration = Duration::from_secs(300);
/// After a probe that says something new.
const CURIOUS: Duration = Duration::from_secs(10);
/// While it does not work.
const OFF: Duration = Duration::from_secs(30);

// === impl Probes ===

impl Probes {
    pub(super) fn usable(self) -> bool {
        matches!(self, Self::Usable { .. })
    }

    /// The first probe decides at once; after that two wrong ones in a row switch off, two good ones in a row on.
    pub(super) fn take(&mut self, good: bool) -> Option<Change> {
        let (next, change) = match (*self, good) {
            (Self::Unproven, true) => (Self::Usable { wrong: 0 }, Some(Change::On)),
            (Self::Unproven, false) => (Self::Unusable { good: 0 }, Some(Change::Off)),
            (Self::Usable { .. }, true) => (Self::Usable { wrong: 0 }, None),
            (Self::Usable { wrong }, false) if wrong + 1 >= ENOUGH => {
                (Self::Unusable { good: 0 }, Some(Change::Off))
            }
            (Self::Usable { wrong }, false) => (Self::Usable { wrong: wrong + 1 }, None),
            (Self::Unusable { .. }, false) => (Self::Unusable { good: 0 }, None),
            (Self::Unusable { good }, true) if good + 1 >= ENOUGH => {
                (Self::Usable { wrong: 0 }, Some(Change::On))
            }
            (Self::Unusable { good }, true) => (Self::Unusable { good: good + 1 }, None),
        };
        *self = next;
        change
    }

    /// Until the next probe.
    pub(super) fn pause(self) -> Duration {
        match self {
            Self::Usable { wrong: 0 } => CALM,
            Self::Unusable { good: 0 } => OFF,
            Self::Unproven | Self::Usable { .. } | Self::Unusable { .. } => CURIOUS,
        }
    }
}

/// # Errors
/// Says what is wrong, for people: silence and errors are as bad as wrong answers.
pub(super) fn judge(probe: &ListProbe, listed: Probed, not_listed: Probed) -> Result<(), String> {
    let ListProbe { listed: must, not_listed: must_not } = probe;
    match listed {
        Ok(ListWord::Listed { .. } | ListWord::Unweighed { .. }) => {}
        Ok(ListWord::NotListed) => {
            return Err(format!("it does not list {must}, which a list that works has"));
        }
        Ok(ListWord::Error { code }) => return Err(format!("it answers {code} to everything, or to us")),
        Err(failure) => return Err(describe(failure)),
    }
    match not_listed {
        Ok(ListWord::NotListed) => Ok(()),
        Ok(ListWord::Listed { code, .. } | ListWord::Unweighed { code }) => {
            Err(format!("it lists {must_not} ({code}), which no list that works has: it lists everything"))
        }
        Ok(ListWord::Error { code }) => Err(format!("it answers {code} to everything, or to us")),
        Err(failure) => Err(describe(failure)),
    }
}

#[cfg(test)]
mod tests {
    use std::net::Ipv4Addr;

    use proptest::prelude::*;

    use super::*;

    #[test]
    fn two_wrong_answers_switch_off_and_two_good_ones_on() {
        let mut probes = Probes::default();
        assert!(!probes.usable(), "nothing is asked before it was probed");
        // probe, usable from then on, what is said of it, seconds to the next
        for (good, usable, change, pause) in [
            (true, true, Some(Change::On), 300),
            (false, true, None, 10),
            (true, true, None, 300),
            (false, true, None, 10),
            (false, false, Some(Change::Off), 30),
            (false, false, None, 30),
            (true, false, None, 10),
            (false, false, None, 30),
            (true, false, None, 10),
            (true, true, Some(Change::On), 300),
        ] {
            assert_eq!(probes.take(good), change);
            assert_eq!((probes.usable(), probes.pause().as_secs()), (usable, pause), "{probes:?}");
        }
        let mut probes = Probes::default();
        assert_eq!(probes.take(false), Some(Change::Off));
        assert_eq!((probes.take(true), probes.take(true)), (None, Some(Change::On)));
    }

    #[test]
    fn a_list_works_if_it_lists_what_it_must_and_nothing_that_it_must_not() {
        let listed = Ok(ListWord::Listed { code: Ipv4Addr::new(127, 0, 0, 2), score: 1.0 });
        let unweighed = Ok(ListWord::Unweighed { code: Ipv4Addr::new(127, 0, 0, 99) });
        let (none, error) =
            (Ok(ListWord::NotListed), Ok(ListWord::Error { code: Ipv4Addr::BROADCAST.into() }));
        let silent = Err(Failure::TimedOut);
        for (must, must_not, works) in [
            (listed, none, true),
            (unweighed, none, true),
            (none, none, false),
            (listed, listed, false),
            (listed, unweighed, false),
            (none, listed, false),
            (error, none, false),
            (listed, error, false),
            (silent, none, false),
            (listed, silent, false),
            (silent, silent, false),
        ] {
            let judged = judge(&ListProbe::default(), must, must_not);
            assert_eq!(judged.is_ok(), works, "{must:?} {must_not:?}: {judged:?}");
        }
    }

    proptest! {
        /// Whatever comes, the last two alike ones say how it stands.
        #[test]
        fn two_alike_decide(probes in prop::collection::vec(any::<bool>(), 1..40)) {
            let mut state = Probes::default();
            let mut usable = false;
            for (index, good) in probes.iter().enumerate() {
                let change = state.take(*good);
                if index == 0 || probes.get(index - 1) == Some(good) {
                    prop_assert_eq!(state.usable(), *good);
                }
                prop_assert_eq!(change.is_some(), index == 0 || state.usable() != usable);
                usable = state.usable();
            }
        }
    }
}
