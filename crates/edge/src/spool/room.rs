//! Who has how much of the spool: all together, and each client network.

use std::collections::HashMap;
use std::collections::hash_map::Entry;
use std::sync::{Mutex, MutexGuard, PoisonError};

use super::SpoolFault;
use crate::permits::Network;

/// What may be held at one time.
#[derive(Debug)]
pub(super) struct Room {
    most: Share,
    taken: Mutex<Taken>,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Share {
    pub(super) bytes: u64,
    pub(super) messages: u64,
}

#[derive(Debug, Default)]
struct Taken {
    all: Share,
    /// Of those that hold messages: as many as there are messages at most.
    networks: HashMap<Network, Share>,
}

// === impl Room ===

impl Room {
    pub(super) fn new(most: Share) -> Self {
        Self { most, taken: Mutex::default() }
    }

    /// A place for one more message, which declared this size if it did. Of the bytes nothing is reserved: who declares a
    /// size need not bring it.
    pub(super) fn admit(&self, network: Network, declared: Option<u64>) -> Result<(), SpoolFault> {
        let mut taken = self.taken();
        let mine = taken.of(network);
        let more = Share { messages: 1, ..Share::default() };
        if !taken.leaves_enough(mine, more, self.most) {
            return Err(SpoolFault::Crowded);
        }
        let more = Share { bytes: declared.unwrap_or(0), messages: 1 };
        if !taken.leaves_enough(mine, more, self.most) {
            return Err(SpoolFault::Full);
        }
        taken.add(network, Share { messages: 1, ..Share::default() });
        Ok(())
    }

    /// Room for more of a message.
    pub(super) fn take(&self, network: Network, bytes: u64) -> bool {
        let mut taken = self.taken();
        let more = Share { bytes, messages: 0 };
        let fits = taken.leaves_enough(taken.of(network), more, self.most);
        if fits {
            taken.add(network, more);
        }
        fits
    }

    /// The end of a message that had so many bytes.
    pub(super) fn give_back(&self, network: Network, bytes: u64) {
        let mut taken = self.taken();
        taken.all.bytes = taken.all.bytes.saturating_sub(bytes);
        taken.all.messages = taken.all.messages.saturating_sub(1);
        if let Entry::Occupied(mut share) = taken.networks.entry(network) {
            let left = share.get_mut();
            left.bytes = left.bytes.saturating_sub(bytes);
            left.messages = left.messages.saturating_sub(1);
            if left.messages == 0 {
                share.remove();
            }
        }
    }

    fn taken(&self) -> MutexGuard<'_, Taken> {
        self.taken.lock().unwrap_or_else(PoisonError::into_inner)
    }

    #[cfg(test)]
    pub(super) fn all(&self) -> Share {
        self.taken().all
    }
}

// === impl Taken ===

impl Taken {
    fn of(&self, network: Network) -> Share {
        self.networks.get(&network).copied().unwrap_or_default()
    }

    fn add(&mut self, network: Network, more: Share) {
        let mine = self.networks.entry(network).or_default();
        for share in [&mut self.all, mine] {
            share.bytes = share.bytes.saturating_add(more.bytes);
            share.messages = share.messages.saturating_add(more.messages);
        }
    }

    /// Whoever holds several messages may have half of what the others leave, so there is always something for somebody
    /// else. A single message may take all: it is no larger than messages may be.
    fn leaves_enough(&self, mine: Share, more: Share, most: Share) -> bool {
        let is_only_one = mine.messages.saturating_add(more.messages) <= 1;
        let fits = |all: u64, mine: u64, more: u64, most: u64| {
            let left = most.saturating_sub(all - mine.min(all));
            let after = mine.saturating_add(more);
            if is_only_one { after <= left } else { after <= left / 2 }
        };
        fits(self.all.bytes, mine.bytes, more.bytes, most.bytes)
            && fits(self.all.messages, mine.messages, more.messages, most.messages)
    }
}

#[cfg(test)]
mod tests {
    use std::net::Ipv4Addr;

    use proptest::prelude::*;

    use super::*;

    fn network(n: u8) -> Network {
        Network::of(Ipv4Addr::new(192, 0, n, 1).into())
    }

    fn room(bytes: u64, messages: u64) -> Room {
        Room::new(Share { bytes, messages })
    }

    #[test]
    fn one_network_leaves_half_of_the_room_to_others() {
        let room = room(1000, 100);
        for _ in 0..4 {
            room.admit(network(1), None).unwrap();
        }
        assert!(room.take(network(1), 500) && !room.take(network(1), 1));
        room.admit(network(2), Some(500)).unwrap();
        room.admit(network(2), None).unwrap();
        assert!(room.take(network(2), 250) && !room.take(network(2), 1), "half of what the first leaves");
        room.admit(network(3), Some(250)).unwrap();
        assert!(room.take(network(3), 250), "one message may take what is left");
        assert!(matches!(room.admit(network(4), Some(1)), Err(SpoolFault::Full)));
    }

    #[test]
    fn a_single_message_may_take_all_the_room_there_is() {
        let room = room(1000, 100);
        room.admit(network(1), Some(1000)).unwrap();
        assert!(room.take(network(1), 1000) && !room.take(network(2), 1));
        room.give_back(network(1), 1000);
        assert_eq!(room.all(), Share::default());
        assert!(matches!(room.admit(network(1), Some(1001)), Err(SpoolFault::Full)));
    }

    #[test]
    fn places_are_shared_as_the_bytes_are() {
        let room = room(1000, 8);
        let admitted = (0..10).take_while(|_| room.admit(network(1), None).is_ok()).count();
        assert_eq!(admitted, 4);
        assert!(matches!(room.admit(network(1), None), Err(SpoolFault::Crowded)));
        room.admit(network(2), None).unwrap();
        room.give_back(network(1), 0);
        assert!(room.admit(network(1), None).is_err(), "3 of the 7 that are left");
    }

    proptest! {
        #[test]
        fn the_room_is_never_exceeded_and_all_of_it_comes_back(
            steps in proptest::collection::vec((0u8..4, 0u64..600), 0..60),
        ) {
            let room = room(1000, 10);
            let mut held: Vec<(Network, u64)> = Vec::new();
            for (who, bytes) in steps {
                let who = network(who);
                if bytes % 3 == 0 && let Some((who, bytes)) = held.pop() {
                    room.give_back(who, bytes);
                } else if room.admit(who, None).is_ok() {
                    held.push((who, if room.take(who, bytes) { bytes } else { 0 }));
                }
                let all = room.all();
                prop_assert!(all.bytes <= 1000 && all.messages <= 10);
                prop_assert_eq!(all.bytes, held.iter().map(|(_, bytes)| bytes).sum::<u64>());
                prop_assert_eq!(all.messages, held.len() as u64);
            }
            for (who, bytes) in held {
                room.give_back(who, bytes);
            }
            prop_assert_eq!(room.all(), Share::default());
            prop_assert!(room.taken().networks.is_empty());
        }
    }
}
