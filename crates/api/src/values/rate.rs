use std::fmt;
use std::str::FromStr;
use std::time;

use serde::{Deserialize, Deserializer, Serialize, Serializer};

use super::Duration;

/// How often something may happen: a number, a slash and a time, as in `100/h` or `30/10m`. The empty text is no
/// limit.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Rate {
    Unlimited,
    Limited {
        count: u32,
        /// From one second to a day.
        window: Duration,
    },
}

#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum InvalidRate {
    #[error("is no rate; write a number, a slash and a time, such as 100/h or 30/10m (empty: no limit)")]
    Form,
    #[error("allows nothing; write at least 1 before the slash, or leave it empty for no limit")]
    Zero,
    #[error("has more than 4294967295 before the slash")]
    TooMany,
    #[error("has a time that is no time; after the slash comes s, m or h, or a duration from 1s to 24h")]
    Window,
}

const SHORTEST: time::Duration = time::Duration::from_secs(1);
/// Counters live as long as the window; a day bounds what the store must remember.
const LONGEST: time::Duration = time::Duration::from_secs(86_400);

// === impl Rate ===

impl FromStr for Rate {
    type Err = InvalidRate;

    fn from_str(text: &str) -> Result<Self, InvalidRate> {
        if text.is_empty() {
            return Ok(Self::Unlimited);
        }
        let (count, window) = text.split_once('/').ok_or(InvalidRate::Form)?;
        if count.is_empty() || !count.bytes().all(|b| b.is_ascii_digit()) {
            return Err(InvalidRate::Form);
        }
        let count = count.parse().map_err(|_| InvalidRate::TooMany)?;
        if count == 0 {
            return Err(InvalidRate::Zero);
        }
        let window = match window {
            "s" | "m" | "h" => format!("1{window}").parse(),
            _ => window.parse::<Duration>(),
        };
        let window = window.map_err(|_| InvalidRate::Window)?;
        if !(SHORTEST..=LONGEST).contains(&window.get()) {
            return Err(InvalidRate::Window);
        }
        Ok(Self::Limited { count, window })
    }
}

impl fmt::Display for Rate {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Unlimited => Ok(()),
            Self::Limited { count, window } => match window.get().as_secs() {
                1 => write!(f, "{count}/s"),
                60 => write!(f, "{count}/m"),
                3600 => write!(f, "{count}/h"),
                _ => write!(f, "{count}/{window}"),
            },
        }
    }
}

impl Serialize for Rate {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for Rate {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        super::deserialize_text(deserializer)
    }
}
