use std::fmt;
use std::str::FromStr;
use std::time;

use serde::{Deserialize, Deserializer, Serialize, Serializer};

/// A length of time: numbers with the units `h`, `m`, `s` and `ms`, as in `5m`, `48h`, `1h30m` or `0s`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Duration(time::Duration);

#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum InvalidDuration {
    #[error("is no duration; write a number and a unit (h, m, s, ms), such as 5m, 48h or 1h30m")]
    Form,
    #[error("has no unit; write {0}s for seconds, {0}m for minutes or {0}h for hours")]
    NoUnit(String),
    #[error("has the unit {0:?}; the units are h, m, s and ms (a day is 24h)")]
    Unit(String),
    #[error("is longer than ten years (87600h)")]
    TooLong,
}

/// Nothing in a mail gateway waits longer; it keeps every sum of durations far from an overflow.
const MAX_MILLISECONDS: u64 = 87_600 * 3_600_000;

// === impl Duration ===

impl Duration {
    pub const fn from_secs(seconds: u64) -> Self {
        Self(time::Duration::from_secs(seconds))
    }

    pub const fn get(self) -> time::Duration {
        self.0
    }
}

impl FromStr for Duration {
    type Err = InvalidDuration;

    fn from_str(text: &str) -> Result<Self, InvalidDuration> {
        if text.is_empty() || !text.is_ascii() {
            return Err(InvalidDuration::Form);
        }
        let mut total = 0u64;
        let mut rest = text;
        while !rest.is_empty() {
            let (digits, after) = split_where(rest, |c| !c.is_ascii_digit());
            let (unit, next) = split_where(after, |c| !c.is_ascii_alphabetic());
            let milliseconds = match unit {
                _ if digits.is_empty() => return Err(InvalidDuration::Form),
                "" if after.is_empty() => return Err(InvalidDuration::NoUnit(digits.to_owned())),
                "" => return Err(InvalidDuration::Form),
                "ms" => 1,
                "s" => 1_000,
                "m" => 60_000,
                "h" => 3_600_000,
                other => return Err(InvalidDuration::Unit(other.to_owned())),
            };
            total = digits
                .parse::<u64>()
                .ok()
                .and_then(|number| number.checked_mul(milliseconds))
                .and_then(|part| total.checked_add(part))
                .filter(|sum| *sum <= MAX_MILLISECONDS)
                .ok_or(InvalidDuration::TooLong)?;
            rest = next;
        }
        Ok(Self(time::Duration::from_millis(total)))
    }
}

fn split_where(text: &str, at: impl Fn(char) -> bool) -> (&str, &str) {
    text.split_at(text.find(at).unwrap_or(text.len()))
}

impl fmt::Display for Duration {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.0.is_zero() {
            return f.write_str("0s");
        }
        let (seconds, milliseconds) = (self.0.as_secs(), self.0.subsec_millis());
        for (number, unit) in [(seconds / 3600, "h"), (seconds / 60 % 60, "m"), (seconds % 60, "s")] {
            if number > 0 {
                write!(f, "{number}{unit}")?;
            }
        }
        if milliseconds > 0 {
            write!(f, "{milliseconds}ms")?;
        }
        Ok(())
    }
}

impl Serialize for Duration {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for Duration {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        super::deserialize_text(deserializer)
    }
}
