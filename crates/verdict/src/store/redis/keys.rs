//! What things are called in the server.
//!
//! ```text
//!    record    tw{ 2 bytes of the call's slot } 8 bytes      14 bytes: with its length and end, 16 of memory
//!    counter   twc 16 bytes
//!    the key   tw:key
//! ```
//!
//! What is between the braces is what a Cluster hashes, so all records of one call are in one slot, and one script
//! may touch them all. A Cluster has 16,384 slots, and 2 bytes tell more apart. 10 bytes of keyed hash meet by chance:
//! two of a hundred million records once in 200 million servers, and a first try is then taken for a retry. A
//! longer name takes 32 bytes where jemalloc has no class of 24.
//!
//! All names begin with `tw`: an ACL user needs `~tw*`.

use crate::store::Key;

pub(super) const STORE_KEY: &[u8] = b"tw:key";

pub(super) const RECORD: usize = 14;

/// A triplet or a known sender.
pub(super) fn record(slot: &Key, key: &Key) -> [u8; RECORD] {
    let mut name = *b"tw{..}........";
    let (tag, own) = name.split_at_mut(6);
    for (place, byte) in tag.iter_mut().skip(3).zip(slot.0.iter().take(2)) {
        // The first `}` ends what is hashed, and an empty tag is none.
        *place = if *byte == b'}' { b'|' } else { *byte };
    }
    for (place, byte) in own.iter_mut().zip(key.0) {
        *place = byte;
    }
    name
}

pub(super) fn counter(key: &Key) -> [u8; 19] {
    let mut name = *b"twc................";
    for (place, byte) in name.iter_mut().skip(3).zip(key.0) {
        *place = byte;
    }
    name
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn the_records_of_one_slot_have_one_hash_tag(slot: [u8; 16], one: [u8; 16], two: [u8; 16]) {
            let tag = |name: [u8; RECORD]| {
                let open = name.iter().position(|byte| *byte == b'{').unwrap();
                let close = name.iter().position(|byte| *byte == b'}').unwrap();
                name[open + 1..close].to_vec()
            };
            let names = [record(&Key(slot), &Key(one)), record(&Key(slot), &Key(two))];
            prop_assert_eq!(tag(names[0]).len(), 2);
            prop_assert_eq!(tag(names[0]), tag(names[1]));
            prop_assert_eq!(names[0] == names[1], one[..8] == two[..8]);
        }
    }
}
