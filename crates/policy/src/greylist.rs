//! The arithmetic of greylisting (RFC 6647), on records as values. Every store does what these functions say.
//!
//! ```text
//!     (nothing) --first try--> waiting --delay--> ripe --retry--> passed --pass TTL without mail--> gone
//!                                 |                 |                ^
//!                           an early retry      forgotten       known sender, auto-pass,
//!                           changes nothing   after 4 days      or any other delivery
//!
//!     null sender:  ripe --check--> leased --delivered--> gone
//!                     ^                |
//!                     +-- not delivered, or nothing heard for 10 min
//! ```
//!
//! Nothing is deferred for ever: whatever the settings, a sender that comes back at least every three days passes.
//!
//! Times are Unix seconds in 32 bits (until 2106): a record is small, and there are a million of them.

mod identity;
mod normalise;
mod trust;

#[cfg(test)]
mod tests;

use std::time::Duration;

use torwart_core::Greylist;

use crate::model::Greylisting;

pub use identity::{Identity, identities};
pub use normalise::normalise_sender;
pub use trust::{COUNT_INTERVAL, Counter, MAX_COUNTED_SENDERS};

/// Unix seconds.
pub type Time = u32;

/// What is remembered of one triplet, or of one known sender (which has passed by definition).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Record {
    pub first_seen: Time,
    /// When it last passed or was last delivered; `None` while it has only been deferred. The null sender's: since
    /// when its one pass is lent to a session.
    pub passed: Option<Time>,
    /// From then on a store may forget the record.
    pub expires: Time,
}

/// The numbers of one mail domain's greylisting, made safe: whatever was configured, a sender that keeps
/// trying gets through.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Params {
    delay: u32,
    window: u32,
    pass_ttl: u32,
    auto_pass_after: u32,
    /// A pass is good for one delivery (the null sender).
    single_use: bool,
}

/// What greylisting says of one recipient.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Judged {
    pub outcome: Greylist,
    /// Seconds until a retry passes; 0 if this one does.
    pub wait: u32,
    /// How long mail that passes for the first time had been held up, in seconds.
    pub held: Option<u32>,
}

/// One recipient's answer, and the record to be written for it, if any.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Step {
    pub judged: Judged,
    pub write: Option<Record>,
}

/// However long the delay is set, a retry passes after this time. Mail that was held up for half a day has
/// shown what greylisting asks for; longer waits only make people miss their mail.
pub const LONGEST_DELAY: u32 = 12 * 3600;

/// The retry window is no shorter. RFC 6647 section 5 names 24 hours; senders that retry a few times a day are
/// rare, and real.
const LEAST_WINDOW: u32 = 24 * 3600;

/// A first try is remembered for as long at least, and a retry passes as long as it is: retry intervals of up to
/// three days, and a day to spare. RFC 5321 section 4.5.4.1 has senders give up after four to five days.
pub const LEAST_KEPT: u32 = 4 * 24 * 3600;

/// How long one session has the null sender's single pass, if nothing is heard of it: RFC 5321 section 4.5.3.2.6
/// gives the reply to the final dot 10 minutes.
pub const LEASE: u32 = 600;

/// Judges one triplet by itself. `record` is the oldest one found under any of its keys, and not expired.
pub fn judge(record: Option<Record>, now: Time, params: &Params) -> Step {
    let Some(record) = record else {
        return deferred_anew(Greylist::New, now, params);
    };
    if !params.single_use
        && let Some(passed) = record.passed
    {
        // A time in the future is a clock that was set back; the pass stays good and counts from now.
        if now.saturating_sub(passed) >= params.pass_ttl {
            return deferred_anew(Greylist::Expired, now, params);
        }
        return passes(Greylist::Passed, Some(record), now, params);
    }
    if record.first_seen > now {
        // The clock was set back: the wait starts again from now, so that it ends.
        return deferred_anew(Greylist::New, now, params);
    }
    let age = now - record.first_seen;
    let wait = params.delay.saturating_sub(age).max(record.lease_left(now));
    if wait > 0 {
        return Step { judged: Judged { outcome: Greylist::Early, wait, held: None }, write: None };
    }
    // A retry after the window passes too, as long as the first try is remembered: the window is at least a day,
    // and nothing waits for more than half a day.
    passes(Greylist::Passed, Some(record), now, params)
}

/// Judges all recipients of one mail domain that were asked about in one call. One ripe triplet passes all of
/// them, in whatever order they came; so does a sender or a client that is known to this mail domain.
///
/// What a client passes by its counter is written as if it had none: a first try is remembered, so that trust that
/// is lost does not start waits from nothing. (A store may so judge the records before it has read the counter.)
pub fn judge_all<'a>(
    records: &'a [Option<Record>],
    known: Option<Record>,
    counter: Option<&Counter>,
    now: Time,
    params: &'a Params,
) -> impl Iterator<Item = Step> + 'a {
    let ripe = records.iter().any(|record| judge(*record, now, params).judged.outcome == Greylist::Passed);
    let trusted = if ripe || params.single_use {
        None
    } else if known.is_some_and(|known| is_known(&known, now, params)) {
        Some(Greylist::Known)
    } else if counter.is_some_and(|counter| counter.passes(now, params)) {
        Some(Greylist::Auto)
    } else {
        None
    };
    records.iter().map(move |record| match (judge(*record, now, params), trusted) {
        (step, Some(outcome)) => {
            // What a known sender has delivered is recorded on delivery.
            let write = step.write.filter(|_| outcome == Greylist::Auto);
            Step { judged: Judged { outcome, wait: 0, held: None }, write }
        }
        (step, None) if ripe && step.judged.outcome != Greylist::Passed => {
            passes(Greylist::Passed, None, now, params)
        }
        (step, None) => step,
    })
}

/// The record of a triplet or a known sender whose mail was delivered.
pub fn delivered(record: Option<Record>, now: Time, params: &Params) -> Record {
    let first_seen = record.map_or(now, |record| record.first_seen.min(now));
    Record { first_seen, passed: Some(now), expires: now.saturating_add(params.pass_ttl) }
}

/// The better of two records of one triplet under different keys: one that passes, else the one with the
/// shortest wait, which is the oldest that is still in its window.
pub fn better(a: Option<Record>, b: Option<Record>, now: Time, params: &Params) -> Option<Record> {
    let rank = |record: &Record| {
        let judged = judge(Some(*record), now, params).judged;
        let class = match judged.outcome {
            Greylist::Passed if record.passed.is_some() => 0,
            Greylist::Passed => 1,
            Greylist::Early => 2,
            Greylist::Expired => 3,
            _ => 4,
        };
        (class, judged.wait, record.first_seen, std::cmp::Reverse(record.passed))
    };
    match (a, b) {
        (Some(a), Some(b)) => Some(std::cmp::min_by_key(a, b, rank)),
        (a, b) => a.or(b),
    }
}

/// Whether the null sender's pass, of which this is the record, is another session's.
pub fn is_lent(record: &Record, now: Time, params: &Params) -> bool {
    params.single_use && record.first_seen <= now && record.lease_left(now) > 0
}

fn is_known(known: &Record, now: Time, params: &Params) -> bool {
    known.passed.is_some_and(|passed| now.saturating_sub(passed) < params.pass_ttl)
}

fn deferred_anew(outcome: Greylist, now: Time, params: &Params) -> Step {
    Step {
        judged: Judged { outcome, wait: params.delay, held: None },
        write: Some(Record::waiting(now, params)),
    }
}

/// `record` is the triplet's own; none if another recipient's carries this one.
fn passes(outcome: Greylist, record: Option<Record>, now: Time, params: &Params) -> Step {
    let held =
        record.filter(|record| record.passed.is_none()).map(|record| now.saturating_sub(record.first_seen));
    // A single-use pass is lent to this session. A delivery consumes it, and a failing upstream gives it back.
    let write = if params.single_use {
        record.map(|record| Record { passed: Some(now), ..record })
    } else {
        Some(delivered(record, now, params))
    };
    Step { judged: Judged { outcome, wait: 0, held }, write }
}

// === impl Params ===

impl Params {
    pub fn new(greylisting: &Greylisting, null_sender: bool) -> Self {
        let delay = seconds(greylisting.delay).min(LONGEST_DELAY);
        Self {
            delay,
            window: seconds(greylisting.retry_window).max(LEAST_WINDOW),
            pass_ttl: seconds(greylisting.pass_ttl).max(1),
            auto_pass_after: greylisting.auto_pass_after.min(MAX_COUNTED_SENDERS),
            single_use: null_sender,
        }
    }

    /// Seconds that a new triplet waits.
    pub fn delay(&self) -> u32 {
        self.delay
    }

    /// Seconds after its first try during which a triplet's retry surely passes; a later one does while the first
    /// try is remembered (see [`Params::kept`]).
    pub fn window(&self) -> u32 {
        self.window
    }

    /// Seconds that a first try is remembered: the window, and four days at least.
    pub fn kept(&self) -> u32 {
        self.window.max(LEAST_KEPT)
    }

    /// Seconds without mail after which a pass is forgotten.
    pub fn pass_ttl(&self) -> u32 {
        self.pass_ttl
    }

    /// Whether a pass is good for one delivery only.
    pub fn single_use(&self) -> bool {
        self.single_use
    }
}

fn seconds(duration: Duration) -> u32 {
    u32::try_from(duration.as_secs()).unwrap_or(u32::MAX)
}

// === impl Record ===

impl Record {
    /// A triplet that was first tried at `first_seen`.
    pub fn waiting(first_seen: Time, params: &Params) -> Self {
        // One second more, so that the last one of them counts.
        let expires = first_seen.saturating_add(params.kept()).saturating_add(1);
        Self { first_seen, passed: None, expires }
    }

    /// The null sender's: its pass was not used, and is good for the next session.
    pub fn given_back(self) -> Self {
        Self { passed: None, ..self }
    }

    /// Seconds for which a single pass is another session's. There is no lease on a triplet that is old: servers
    /// that verify senders take one with each call-out, and could keep a bounce out for ever.
    fn lease_left(&self, now: Time) -> u32 {
        let Some(lent) = self.passed.filter(|_| now.saturating_sub(self.first_seen) < LONGEST_DELAY) else {
            return 0;
        };
        // A time in the future is a clock that was set back.
        if lent > now { 0 } else { LEASE.saturating_sub(now - lent) }
    }

    /// Whether a store must treat it as absent.
    pub fn is_expired(&self, now: Time) -> bool {
        self.expires <= now
    }
}

// === impl Judged ===

impl Judged {
    /// Whether the mail goes on.
    pub fn passes(&self) -> bool {
        !matches!(self.outcome, Greylist::New | Greylist::Early | Greylist::Expired)
    }
}
