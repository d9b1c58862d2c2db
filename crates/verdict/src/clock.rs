//! The wall clock, as something that is passed in.

use std::fmt::Debug;
use std::sync::atomic::{AtomicI64, Ordering};
use std::time::{SystemTime, UNIX_EPOCH};

use torwart_policy::greylist::Time;

/// Tells the time in whole seconds. It may jump.
pub trait Clock: Debug + Send + Sync + 'static {
    /// Unix seconds.
    fn now(&self) -> i64;

    /// Unix seconds as greylist records hold them.
    fn record_time(&self) -> Time {
        Time::try_from(self.now().max(0)).unwrap_or(Time::MAX)
    }
}

/// The system's clock.
#[derive(Clone, Copy, Debug, Default)]
pub struct SystemClock;

/// A clock that is set by hand, for tests and for the demonstration, where five minutes should not take five.
#[derive(Debug, Default)]
pub struct ManualClock(AtomicI64);

// === impl SystemClock ===

impl Clock for SystemClock {
    fn now(&self) -> i64 {
        SystemTime::now()
            .duration_since(UNIX_EPOCH)
            .map_or(0, |since| i64::try_from(since.as_secs()).unwrap_or(i64::MAX))
    }
}

// === impl ManualClock ===

impl ManualClock {
    /// `now` is in Unix seconds.
    pub fn new(now: i64) -> Self {
        Self(AtomicI64::new(now))
    }

    pub fn set(&self, now: i64) {
        self.0.store(now, Ordering::Relaxed);
    }

    pub fn advance(&self, seconds: i64) {
        self.0.fetch_add(seconds, Ordering::Relaxed);
    }
}

impl Clock for ManualClock {
    fn now(&self) -> i64 {
        self.0.load(Ordering::Relaxed)
    }
}
