//! The small languages of the manifests: `5m`, `50Mi`, `100/h`, `192.0.2.0/24`, `2027-01-01T00:00:00Z`.
//!
//! Each type reads its text form and writes its normal form, so that equal values are equal texts. An error is the
//! second half of a sentence about the field and says what to write instead.

mod cidr;
mod duration;
mod port;
mod rate;
mod schema;
mod size;
mod time;

pub use cidr::{Cidr, InvalidCidr};
pub use duration::{Duration, InvalidDuration};
pub use port::{InvalidPort, Port, ServicePort};
pub use rate::{InvalidRate, Rate};
pub use size::{InvalidSize, Size};
pub use time::{InvalidTime, Time};

use std::fmt;
use std::marker::PhantomData;
use std::str::FromStr;

use serde::de::{Deserializer, Error, Visitor};

/// Reads a value from its text, or from a number's digits: `messageSize: 1048576` is as good as with quotes.
fn deserialize_text<'de, D, T>(deserializer: D) -> Result<T, D::Error>
where
    D: Deserializer<'de>,
    T: FromStr,
    T::Err: fmt::Display,
{
    struct Text<T>(PhantomData<T>);

    impl<T> Visitor<'_> for Text<T>
    where
        T: FromStr,
        T::Err: fmt::Display,
    {
        type Value = T;

        fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
            f.write_str("a text")
        }

        fn visit_str<E: Error>(self, text: &str) -> Result<T, E> {
            text.parse().map_err(E::custom)
        }

        fn visit_u64<E: Error>(self, number: u64) -> Result<T, E> {
            self.visit_str(&number.to_string())
        }

        fn visit_i64<E: Error>(self, number: i64) -> Result<T, E> {
            self.visit_str(&number.to_string())
        }

        fn visit_f64<E: Error>(self, number: f64) -> Result<T, E> {
            self.visit_str(&number.to_string())
        }
    }

    deserializer.deserialize_any(Text(PhantomData))
}

#[cfg(test)]
mod tests;
