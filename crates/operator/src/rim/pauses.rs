//! How long a watch that failed waits before it is tried again.

use std::time::Duration;

use kube::runtime::utils::{Backoff, ResetTimerBackoff};

/// After the first failure; doubled each time up to the second, so that a restarted API server is found soon and one
/// that is away is not pestered.
const FIRST: Duration = Duration::from_millis(250);
const LONGEST: Duration = Duration::from_secs(8);

/// Without a failure for so long, the next one is a first one.
const FORGIVEN: Duration = Duration::from_secs(20);

/// Doubles, within a random half, so that not all watches of all operators come back at once.
#[derive(Debug)]
pub(super) struct Pauses {
    next: Duration,
}

pub(super) fn pauses() -> ResetTimerBackoff<Pauses> {
    ResetTimerBackoff::new(Pauses { next: FIRST }, FORGIVEN)
}

impl Iterator for Pauses {
    type Item = Duration;

    fn next(&mut self) -> Option<Duration> {
        let whole = self.next;
        self.next = (whole * 2).min(LONGEST);
        let share = getrandom::u32().map_or(1.0, |random| f64::from(random) / f64::from(u32::MAX));
        Some(whole.mul_f64(0.5 + share / 2.0))
    }
}

impl Backoff for Pauses {
    fn reset(&mut self) {
        self.next = FIRST;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pauses_grow_to_their_longest_and_never_end() {
        let mut pauses = Pauses { next: FIRST };
        let first = pauses.next().unwrap();
        assert!(FIRST / 2 <= first && first <= FIRST, "{first:?}");
        let later: Vec<_> = pauses.by_ref().skip(10).take(100).collect();
        assert!(later.iter().all(|pause| (LONGEST / 2..=LONGEST).contains(pause)), "{later:?}");
        assert!(later.iter().any(|pause| *pause != later[0]), "all alike: {later:?}");
        pauses.reset();
        assert!(pauses.next().unwrap() <= FIRST);
    }
}
