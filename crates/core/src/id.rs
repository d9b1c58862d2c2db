//! Session and transaction ids.

use std::fmt;
use std::str::FromStr;
use std::sync::atomic::{AtomicU64, Ordering};

/// A 128-bit id in ULID form: 48 bits of Unix milliseconds, then 80 bits that make it unique.
///
/// It is the one name of a transaction in the SMTP reply, the log line, the trace and the message header.
/// Written as 26 characters of Crockford's base 32, which sort by time.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Id(u128);

/// Makes ids that never repeat within a process and practically never between processes.
///
/// The caller brings the randomness (once) and the time (each call), so that this crate reads neither.
#[derive(Debug)]
pub struct IdSource {
    process: u64,
    next: AtomicU64,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct InvalidId;

const CROCKFORD: &[u8; 32] = b"0123456789ABCDEFGHJKMNPQRSTVWXYZ";
/// ceil(128 / 5)
const LENGTH: usize = 26;
/// Bits of the id that count within the process; the remaining 48 of the 80 are the process's own.
const COUNTER_BITS: u32 = 32;

// === impl Id ===

impl Id {
    pub const fn from_u128(value: u128) -> Self {
        Self(value)
    }

    pub const fn as_u128(self) -> u128 {
        self.0
    }
}

impl fmt::Display for Id {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut text = [0u8; LENGTH];
        for (i, place) in text.iter_mut().enumerate() {
            let shift = 5 * (LENGTH - 1 - i);
            *place = CROCKFORD[(self.0 >> shift) as usize & 31];
        }
        f.write_str(std::str::from_utf8(&text).map_err(|_| fmt::Error)?)
    }
}

impl FromStr for Id {
    type Err = InvalidId;

    fn from_str(text: &str) -> Result<Self, InvalidId> {
        if text.len() != LENGTH || text.as_bytes()[0] > b'7' {
            return Err(InvalidId);
        }
        let mut value = 0u128;
        for byte in text.bytes() {
            let digit = CROCKFORD.iter().position(|c| *c == byte.to_ascii_uppercase()).ok_or(InvalidId)?;
            value = value << 5 | digit as u128;
        }
        Ok(Self(value))
    }
}

// === impl IdSource ===

impl IdSource {
    /// `random` should come from the operating system: it is what keeps two processes apart.
    pub fn new(random: u64) -> Self {
        Self { process: random & 0xffff_ffff_ffff, next: AtomicU64::new(random >> 48) }
    }

    /// The next id, stamped with `unix_ms` (milliseconds since 1970).
    pub fn next(&self, unix_ms: u64) -> Id {
        let count = self.next.fetch_add(1, Ordering::Relaxed) & ((1 << COUNTER_BITS) - 1);
        Id(u128::from(unix_ms & 0xffff_ffff_ffff) << 80
            | u128::from(self.process) << COUNTER_BITS
            | u128::from(count))
    }
}

impl fmt::Display for InvalidId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("an id is 26 characters of Crockford's base 32, the first at most 7")
    }
}

impl std::error::Error for InvalidId {}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn an_id_reads_back_as_it_was_written(value: u128) {
            prop_assert_eq!(Id(value).to_string().parse(), Ok(Id(value)));
        }

        #[test]
        fn ids_sort_as_text_like_they_sort_as_numbers(a: u128, b: u128) {
            prop_assert_eq!(Id(a).to_string().cmp(&Id(b).to_string()), a.cmp(&b));
        }
    }

    #[test]
    fn ids_of_one_process_differ_within_a_millisecond() {
        let source = IdSource::new(7);
        assert_ne!(source.next(1), source.next(1));
    }

    #[test]
    fn a_later_id_sorts_later() {
        let source = IdSource::new(u64::MAX);
        assert!(source.next(1) < source.next(2));
    }

    #[test]
    fn what_is_no_id_is_refused() {
        for text in
            ["", "0", "8ZZZZZZZZZZZZZZZZZZZZZZZZZ", "0000000000000000000000000U", "000000000000000000000000é"]
        {
            assert_eq!(text.parse::<Id>(), Err(InvalidId), "{text}");
        }
    }
}
