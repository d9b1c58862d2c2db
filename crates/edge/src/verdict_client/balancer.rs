//! Which backend is asked next: a value that is told what happened, and when. It reads no clock and rolls no dice.
//!
//! ```text
//!   added --> Trial --answer--> Proven --failure--> Trial --third failure in a row--> Ejected --its time--> Trial
//!                                  |                                                     ^ a failed trial: twice as long
//!                                  +--overload--> Resting --its time--> Proven
//! ```
//!
//! Proven backends share the calls. One on trial gets a single call at a time, so what is dead, or hangs, costs one
//! call and not a share of all. An ejected one gets none, unless there is nobody else.

use std::net::SocketAddr;
use std::time::{Duration, Instant};

/// One address that is asked, and how.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(super) struct Target {
    pub(super) address: SocketAddr,
    pub(super) encrypted: bool,
}

/// All backends and how they stand.
#[derive(Debug)]
pub(super) struct Balancer {
    entries: Vec<Entry>,
    next_number: u64,
    ejection: Ejection,
}

/// How long who failed is left alone.
#[derive(Clone, Copy, Debug)]
pub(super) struct Ejection {
    pub(super) first: Duration,
    pub(super) longest: Duration,
}

/// A call under way. It must be ended by [`Balancer::ended`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Lease {
    pub(super) target: Target,
    pub(super) began: Instant,
    number: u64,
}

/// How a call ended, as far as it speaks for or against its backend.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum End {
    /// It spoke: whatever it said, it is alive.
    Answered,
    /// It has too much to do.
    Overloaded,
    Failed,
    /// It was given up too early to tell.
    Open,
}

/// Whether asking a backend that may not answer puts a mail at risk.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Effect {
    /// The question may be asked again elsewhere.
    None,
    /// It may not: it was perhaps remembered.
    Remembered,
}

/// What is chosen from.
#[derive(Clone, Copy, Debug)]
pub(super) struct Choice<'a> {
    pub(super) effect: Effect,
    /// Not these again.
    pub(super) tried: &'a [Target],
    /// This one, if it is proven.
    pub(super) prefer: Option<Target>,
}

/// What the end of a call brought about that people want to know.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Turn {
    /// It is left alone, and was not before.
    Ejected,
    /// It answers again.
    Back,
}

/// The label of `torwart_verdict_backends`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Standing {
    Healthy,
    Trial,
    Overloaded,
    Ejected,
}

#[derive(Debug)]
struct Entry {
    target: Target,
    /// Never used again, so that a lease of a removed target does not end a call of its successor.
    number: u64,
    in_flight: usize,
    /// In a row.
    failures: u32,
    /// Without an answer in between.
    ejections: u32,
    state: State,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum State {
    Proven,
    Trial { since: Instant },
    Resting { until: Instant },
    Ejected { since: Instant, until: Instant },
}

/// So many failures in a row eject: one may be the question's own fault, two a coincidence.
const FAILURES: u32 = 3;
/// After a failure, a trial waits so long for a question without effect (the edge asks one a second wherever clients come), before
/// one is risked that cannot be asked again.
const OVERDUE: Duration = Duration::from_secs(2);
/// An overloaded backend refuses at once, and so looks idle: it is passed over for about so long.
const REST: Duration = Duration::from_millis(100);

// === impl Balancer ===

impl Balancer {
    pub(super) fn new(ejection: Ejection) -> Self {
        Self { entries: Vec::new(), next_number: 0, ejection }
    }

    /// Those that stay keep their standing; calls to those that go are not touched.
    pub(super) fn set_targets(&mut self, targets: &[Target], now: Instant) {
        self.entries.retain(|entry| targets.contains(&entry.target));
        for &target in targets {
            if self.entries.iter().any(|entry| entry.target == target) {
                continue;
            }
            let number = self.next_number;
            self.next_number += 1;
            let state = State::Trial { since: now };
            self.entries.push(Entry { target, number, in_flight: 0, failures: 0, ejections: 0, state });
        }
    }

    pub(super) fn is_empty(&self) -> bool {
        self.entries.is_empty()
    }

    /// Takes a backend for one call. `None`: all have been tried, or there is none. `random` is 64 random bits.
    pub(super) fn choose(&mut self, choice: Choice<'_>, random: u64, now: Instant) -> Option<Lease> {
        self.settle(now);
        let place = self.place(choice, random, now)?;
        let entry = self.entries.get_mut(place)?;
        entry.in_flight += 1;
        Some(Lease { target: entry.target, began: now, number: entry.number })
    }

    fn place(&self, choice: Choice<'_>, random: u64, now: Instant) -> Option<usize> {
        let open =
            || self.entries.iter().enumerate().filter(|(_, entry)| !choice.tried.contains(&entry.target));
        let proven = || open().filter(|(_, entry)| entry.state == State::Proven);
        if let Some((place, _)) = proven().find(|(_, entry)| Some(entry.target) == choice.prefer) {
            return Some(place);
        }
        let may_risk = choice.effect == Effect::None || proven().next().is_none();
        let due = open()
            .filter_map(|(place, entry)| match entry.state {
                State::Trial { since } if entry.in_flight == 0 => Some((since, place, entry.failures)),
                _ => None,
            })
            .filter(|(since, _, failures)| {
                may_risk || *failures == 0 || now.saturating_duration_since(*since) >= OVERDUE
            })
            .min();
        if let Some((_, place, _)) = due {
            return Some(place);
        }
        less_loaded(proven(), random)
            .or_else(|| less_loaded(open().filter(|(_, entry)| entry.is_on_trial()), random))
            .or_else(|| open().min_by_key(|(_, entry)| entry.away_until()).map(|(place, _)| place))
    }

    /// A call that lasts as long as somebody else takes says nothing of how much there is to do, and is not waited for by
    /// others: it is not among those under way until it ends.
    pub(super) fn set_aside(&mut self, lease: Lease) {
        if let Some(entry) = self.entries.iter_mut().find(|entry| entry.number == lease.number) {
            entry.in_flight = entry.in_flight.saturating_sub(1);
        }
    }

    /// Undoes [`Balancer::set_aside`], right before the end.
    pub(super) fn bring_back(&mut self, lease: Lease) {
        if let Some(entry) = self.entries.iter_mut().find(|entry| entry.number == lease.number) {
            entry.in_flight += 1;
        }
    }

    /// Whether a question that has waited long enough has somewhere better to go.
    pub(super) fn has_other(&mut self, tried: &[Target], now: Instant) -> bool {
        self.settle(now);
        self.entries.iter().any(|entry| {
            !tried.contains(&entry.target) && matches!(entry.state, State::Proven | State::Trial { .. })
        })
    }

    pub(super) fn has_untried(&self, tried: &[Target]) -> bool {
        self.entries.iter().any(|entry| !tried.contains(&entry.target))
    }

    /// `random` is 64 random bits. A lease of a target that was removed changes nothing.
    pub(super) fn ended(&mut self, lease: Lease, end: End, random: u64, now: Instant) -> Option<Turn> {
        self.settle(now);
        let ejection = self.ejection;
        let entry = self.entries.iter_mut().find(|entry| entry.number == lease.number)?;
        entry.in_flight = entry.in_flight.saturating_sub(1);
        let was_ejected = entry.ejections > 0;
        match end {
            End::Open => {}
            End::Answered => {
                entry.forgive();
                if !matches!(entry.state, State::Resting { .. }) {
                    entry.state = State::Proven;
                }
            }
            End::Overloaded => {
                entry.forgive();
                entry.state = State::Resting { until: now + jittered(REST, random) };
            }
            End::Failed => entry.fail(lease.began, ejection, random, now),
        }
        match (was_ejected, entry.ejections > 0) {
            (false, true) => Some(Turn::Ejected),
            (true, false) => Some(Turn::Back),
            (false, false) | (true, true) => None,
        }
    }

    /// How many there are of each, in the order of [`Standing::ALL`].
    pub(super) fn count(&mut self, now: Instant) -> [usize; Standing::ALL.len()] {
        self.settle(now);
        Standing::ALL.map(|standing| self.entries.iter().filter(|entry| entry.standing() == standing).count())
    }

    /// Ends what is over.
    fn settle(&mut self, now: Instant) {
        for entry in &mut self.entries {
            entry.state = match entry.state {
                State::Resting { until } if until <= now => State::Proven,
                State::Ejected { until, .. } if until <= now => State::Trial { since: until },
                state => state,
            };
        }
    }
}

// === impl Entry ===

impl Entry {
    fn forgive(&mut self) {
        self.failures = 0;
        self.ejections = 0;
    }

    fn fail(&mut self, began: Instant, ejection: Ejection, random: u64, now: Instant) {
        if let State::Ejected { since, .. } = self.state
            && began < since
        {
            return; // one fault ends many calls; it ejects once
        }
        self.failures = self.failures.saturating_add(1);
        self.state = if self.failures < FAILURES {
            State::Trial { since: now }
        } else {
            let length = ejection.length(self.ejections);
            self.ejections = self.ejections.saturating_add(1);
            State::Ejected { since: now, until: now + jittered(length, random) }
        };
    }

    fn is_on_trial(&self) -> bool {
        matches!(self.state, State::Trial { .. })
    }

    fn away_until(&self) -> Option<Instant> {
        match self.state {
            State::Proven | State::Trial { .. } => None,
            State::Resting { until } | State::Ejected { until, .. } => Some(until),
        }
    }

    fn standing(&self) -> Standing {
        match self.state {
            State::Proven => Standing::Healthy,
            State::Trial { .. } => Standing::Trial,
            State::Resting { .. } => Standing::Overloaded,
            State::Ejected { .. } => Standing::Ejected,
        }
    }
}

/// The power of two choices: of two taken at random, the one with fewer calls under way.
fn less_loaded<'a>(of: impl Iterator<Item = (usize, &'a Entry)>, random: u64) -> Option<usize> {
    let of: Vec<(usize, usize)> = of.map(|(place, entry)| (entry.in_flight, place)).collect();
    let count = u64::try_from(of.len()).unwrap_or(u64::MAX);
    let first = random.checked_rem(count)?;
    let second = match (random >> 32).checked_rem(count - 1) {
        Some(step) => (first + 1 + step) % count,
        None => first,
    };
    let of = |place: u64| of.get(usize::try_from(place).ok()?).copied();
    let (first, second) = (of(first)?, of(second)?);
    Some(if second.0 < first.0 { second.1 } else { first.1 })
}

// === impl Ejection ===

impl Ejection {
    /// Doubles with each that went before.
    fn length(&self, before: u32) -> Duration {
        self.first.saturating_mul(2u32.saturating_pow(before)).min(self.longest)
    }
}

/// From three to five quarters of it, so that edges which saw the same fault do not come back together.
pub(super) fn jittered(length: Duration, random: u64) -> Duration {
    let share = u32::try_from(random >> 44).unwrap_or(0); // 20 bits
    length.saturating_mul(3) / 4 + (length / 2).saturating_mul(share >> 4) / (1 << 16)
}

// === impl Standing ===

impl Standing {
    pub(super) const ALL: [Self; 4] = [Self::Healthy, Self::Trial, Self::Overloaded, Self::Ejected];

    pub(super) fn as_str(self) -> &'static str {
        match self {
            Self::Healthy => "healthy",
            Self::Trial => "trial",
            Self::Overloaded => "overloaded",
            Self::Ejected => "ejected",
        }
    }
}

#[cfg(test)]
mod tests;
