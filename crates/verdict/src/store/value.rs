//! How values are written in a file: a version byte, then big-endian numbers.

use torwart_policy::greylist::{Counter, MAX_COUNTED_SENDERS, Record, Time};

/// Of records and counters both.
const VERSION: u8 = 1;

pub(super) fn encode_record(record: &Record) -> [u8; 13] {
    let mut bytes = [VERSION; 13];
    let fields = [record.first_seen, record.passed.unwrap_or(0), record.expires];
    for (place, field) in bytes[1..].chunks_exact_mut(4).zip(fields) {
        place.copy_from_slice(&field.to_be_bytes());
    }
    bytes
}

/// None for a value of another version, or a damaged one: as good as not there, and overwritten by the next.
pub(super) fn decode_record(bytes: &[u8]) -> Option<Record> {
    match numbers(bytes)?[..] {
        [first_seen, passed, expires] => {
            Some(Record { first_seen, passed: (passed > 0).then_some(passed), expires })
        }
        _ => None,
    }
}

pub(super) fn encode_counter(counter: &Counter) -> Vec<u8> {
    let mut bytes = vec![VERSION];
    let times = [counter.last_counted, counter.last_delivered, counter.expires];
    for field in times.iter().chain(&counter.senders) {
        bytes.extend(field.to_be_bytes());
    }
    bytes
}

/// As [`decode_record`].
pub(super) fn decode_counter(bytes: &[u8]) -> Option<Counter> {
    match &numbers(bytes)?[..] {
        [last_counted, last_delivered, expires, senders @ ..]
            if senders.len() <= MAX_COUNTED_SENDERS as usize =>
        {
            Some(Counter {
                senders: senders.to_vec(),
                last_counted: *last_counted,
                last_delivered: *last_delivered,
                expires: *expires,
            })
        }
        _ => None,
    }
}

fn numbers(bytes: &[u8]) -> Option<Vec<Time>> {
    let (version, rest) = bytes.split_first()?;
    let (chunks, remainder) = rest.as_chunks::<4>();
    (*version == VERSION && remainder.is_empty())
        .then(|| chunks.iter().map(|chunk| Time::from_be_bytes(*chunk)).collect())
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn a_record_reads_back_as_it_was_written(first_seen: u32, passed in proptest::option::of(1u32..), expires: u32) {
            let record = Record { first_seen, passed, expires };
            prop_assert_eq!(decode_record(&encode_record(&record)), Some(record));
        }

        #[test]
        fn a_counter_reads_back_as_it_was_written(
            senders in proptest::collection::vec(any::<u32>(), 0..=32),
            last_counted: u32,
            last_delivered: u32,
            expires: u32,
        ) {
            let counter = Counter { senders, last_counted, last_delivered, expires };
            prop_assert_eq!(decode_counter(&encode_counter(&counter)), Some(counter));
        }

        #[test]
        fn no_bytes_are_too_strange_to_be_read(bytes in proptest::collection::vec(any::<u8>(), 0..200)) {
            let _ = decode_record(&bytes);
            let _ = decode_counter(&bytes);
        }
    }

    #[test]
    fn a_value_of_another_version_is_not_there() {
        let mut bytes = encode_record(&Record { first_seen: 1, passed: None, expires: 2 });
        bytes[0] = VERSION + 1;
        assert_eq!(decode_record(&bytes), None);
    }
}
