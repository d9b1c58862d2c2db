//! What things are called in the server.
//!
//! ```text
//!    record    tw{ 8 bytes of the call's slot } 16 bytes     28 bytes: with its length and end, 32 of memory
//!    counter   twc 16 bytes
//!    the key   tw:key
//! ```
//!
//! What is between the braces is what a Cluster hashes, so all records of one call are in one slot, and one script
//! may touch them all. All names begin with `tw`: an ACL user needs `~tw*`.

use crate::store::Key;

pub(super) const STORE_KEY: &[u8] = b"tw:key";

const RECORD: usize = 28;

/// A triplet or a known sender.
pub(super) fn record(slot: &Key, key: &Key) -> [u8; RECORD] {
    let mut name = *b"tw{........}................";
    let (tag, own) = name.split_at_mut(12);
    for (place, byte) in tag.iter_mut().skip(3).zip(slot.0.iter().take(8)) {
        // The first `}` ends what is hashed, and an empty tag is none.
        *place = if *byte == b'}' { b'|' } else { *byte };
    }
    own.copy_from_slice(&key.0);
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
            prop_assert_eq!(tag(names[0]).len(), 8);
            prop_assert_eq!(tag(names[0]), tag(names[1]));
            prop_assert_eq!(names[0] == names[1], one == two);
        }
    }
}
