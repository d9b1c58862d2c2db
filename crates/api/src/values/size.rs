use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Deserializer, Serialize, Serializer};

/// A number of bytes: plain, or with `Ki`, `Mi`, `Gi` (powers of 1024) or `k`, `M`, `G` (powers of 1000), as in
/// `50Mi`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Size(u64);

#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum InvalidSize {
    #[error("is no size; write a whole number of bytes, or one with Ki, Mi or Gi, such as 50Mi")]
    Form,
    #[error("has the unit {0:?}; the units are Ki, Mi, Gi (1024) and k, M, G (1000)")]
    Unit(String),
    #[error("is larger than 1024Gi")]
    TooLarge,
}

/// The largest first: the first that divides a size is how it is written.
const UNITS: [(&str, u64); 6] =
    [("Gi", 1 << 30), ("Mi", 1 << 20), ("Ki", 1 << 10), ("G", 1_000_000_000), ("M", 1_000_000), ("k", 1_000)];

/// No message is as large as 1 TiB; it keeps every sum of sizes far from an overflow.
const MAX: u64 = 1 << 40;

// === impl Size ===

impl Size {
    pub const fn bytes(bytes: u64) -> Self {
        Self(bytes)
    }

    pub const fn get(self) -> u64 {
        self.0
    }
}

impl FromStr for Size {
    type Err = InvalidSize;

    fn from_str(text: &str) -> Result<Self, InvalidSize> {
        let (digits, unit) = text.split_at(text.find(|c: char| !c.is_ascii_digit()).unwrap_or(text.len()));
        if digits.is_empty() {
            return Err(InvalidSize::Form);
        }
        let factor = match unit {
            "" => 1,
            "K" => 1_000,
            _ if !unit.chars().all(|c| c.is_ascii_alphabetic()) => return Err(InvalidSize::Form),
            _ => UNITS
                .iter()
                .find(|(name, _)| *name == unit)
                .map(|(_, factor)| *factor)
                .ok_or_else(|| InvalidSize::Unit(unit.to_owned()))?,
        };
        digits
            .parse::<u64>()
            .ok()
            .and_then(|number| number.checked_mul(factor))
            .filter(|bytes| *bytes <= MAX)
            .map(Self)
            .ok_or(InvalidSize::TooLarge)
    }
}

impl fmt::Display for Size {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match UNITS.iter().find(|(_, factor)| self.0 != 0 && self.0.is_multiple_of(*factor)) {
            Some((unit, factor)) => write!(f, "{}{unit}", self.0 / factor),
            None => write!(f, "{}", self.0),
        }
    }
}

impl Serialize for Size {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for Size {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        super::deserialize_text(deserializer)
    }
}
