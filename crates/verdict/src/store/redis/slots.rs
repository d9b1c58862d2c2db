//! Which node has which keys: a Cluster's 16384 hash slots.

use std::sync::Arc;
use std::sync::atomic::{AtomicU16, Ordering};

use redis::{Value, from_redis_value};

use super::node::Node;
use super::url::Server;

const SLOTS: u16 = 16384;

/// Of no slot.
const NOBODY: u16 = u16::MAX;

/// More primaries than a Cluster can sensibly have (Redis recommends at most 1000 nodes); bounds what an answer can
/// make us open.
const MAX_NODES: usize = 2048;

/// The slots of one server, from first to last.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Range {
    first: u16,
    last: u16,
    pub(super) owner: Server,
}

/// The nodes, and who owns which slot.
#[derive(Debug)]
pub(super) struct SlotMap {
    nodes: Vec<(Server, Arc<Node>)>,
    /// Places in `nodes`; empty if the first node has everything.
    owners: Vec<AtomicU16>,
}

// === impl SlotMap ===

impl SlotMap {
    /// Of a store that is no Cluster.
    pub(super) fn single(server: Server, node: Node) -> Self {
        Self { nodes: vec![(server, Arc::new(node))], owners: Vec::new() }
    }

    /// Of a Cluster that has not been asked yet.
    pub(super) fn unknown() -> Self {
        Self::cluster(&[], &[], |_| None)
    }

    /// The owners of slots and `others`; `node` makes one, or none if it cannot.
    pub(super) fn cluster(
        ranges: &[Range],
        others: &[Server],
        mut node: impl FnMut(&Server) -> Option<Arc<Node>>,
    ) -> Self {
        let owners: Vec<AtomicU16> = (0..SLOTS).map(|_| AtomicU16::new(NOBODY)).collect();
        let mut map = Self { nodes: Vec::new(), owners };
        for range in ranges {
            let Some(place) = map.add(&range.owner, &mut node) else { continue };
            for slot in range.first..=range.last {
                map.set_owner(slot, place);
            }
        }
        for server in others {
            let _added_or_not = map.add(server, &mut node);
        }
        map
    }

    fn add(&mut self, server: &Server, mut node: impl FnMut(&Server) -> Option<Arc<Node>>) -> Option<u16> {
        if let Some(place) = self.place_of(server) {
            return Some(place);
        }
        if self.nodes.len() >= MAX_NODES {
            return None;
        }
        self.nodes.push((server.clone(), node(server)?));
        self.place_of(server)
    }

    fn place_of(&self, server: &Server) -> Option<u16> {
        let place = self.nodes.iter().position(|(known, _)| known == server)?;
        u16::try_from(place).ok()
    }

    fn set_owner(&self, slot: u16, place: u16) {
        if let Some(owner) = self.owners.get(usize::from(slot)) {
            owner.store(place, Ordering::Relaxed);
        }
    }

    pub(super) fn owner(&self, slot: u16) -> Option<&Arc<Node>> {
        let place = match self.owners.get(usize::from(slot)) {
            Some(owner) => owner.load(Ordering::Relaxed),
            None if self.owners.is_empty() => 0,
            None => return None,
        };
        self.nodes.get(usize::from(place)).map(|(_, node)| node)
    }

    /// A server said that the slot is this one's. `None`: nothing is known of it.
    pub(super) fn moved(&self, slot: u16, server: &Server) -> Option<&Arc<Node>> {
        let place = self.place_of(server)?;
        self.set_owner(slot, place);
        self.owner(slot)
    }

    pub(super) fn node(&self, server: &Server) -> Option<&Arc<Node>> {
        self.nodes.iter().find(|(known, _)| known == server).map(|(_, node)| node)
    }

    pub(super) fn nodes(&self) -> impl Iterator<Item = &Arc<Node>> + Clone {
        self.nodes.iter().map(|(_, node)| node)
    }

    /// Whether there is anything, and a connection to each.
    pub(super) fn is_connected(&self) -> bool {
        !self.nodes.is_empty() && self.nodes().all(|node| node.is_connected())
    }
}

/// Reads the answer to `CLUSTER SLOTS`. A server that does not know its own name gives none: it is the one that was
/// asked.
pub(super) fn parse_slots(answer: Value, asked: &Server) -> Option<Vec<Range>> {
    let Value::Array(entries) = answer else { return None };
    entries.into_iter().map(|entry| parse_entry(entry, asked)).collect()
}

fn parse_entry(entry: Value, asked: &Server) -> Option<Range> {
    let Value::Array(parts) = entry else { return None };
    let mut parts = parts.into_iter();
    let mut number = || number_in(parts.next()?).filter(|slot| *slot < SLOTS);
    let (first, last) = (number()?, number()?);
    let Value::Array(primary) = parts.next()? else { return None };
    let mut primary = primary.into_iter();
    let host: Option<String> = from_redis_value(primary.next()?).ok()?;
    let port = number_in(primary.next()?)?;
    let host = match host.as_deref() {
        None | Some("" | "?") => asked.host.clone(),
        Some(host) => host.into(),
    };
    Some(Range { first, last, owner: Server { host, port } })
}

/// The library would cut a larger one.
fn number_in(value: Value) -> Option<u16> {
    let Value::Int(number) = value else { return None };
    u16::try_from(number).ok()
}

/// The slot of a key: CRC16 (XMODEM) of what stands between the first `{` and the next `}`, if that is not empty, or
/// else of the whole (Redis Cluster specification, "Hash tags").
pub(super) fn slot_of(key: &[u8]) -> u16 {
    crc16(hash_tag(key)) % SLOTS
}

fn hash_tag(key: &[u8]) -> &[u8] {
    let tag = key.iter().position(|byte| *byte == b'{').and_then(|open| {
        let rest = key.get(open + 1..)?;
        let close = rest.iter().position(|byte| *byte == b'}')?;
        rest.get(..close).filter(|tag| !tag.is_empty())
    });
    tag.unwrap_or(key)
}

fn crc16(bytes: &[u8]) -> u16 {
    bytes.iter().fold(0, |crc: u16, byte| {
        (0..8).fold(crc ^ (u16::from(*byte) << 8), |crc, _| {
            if crc & 0x8000 == 0 { crc << 1 } else { (crc << 1) ^ 0x1021 }
        })
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn slots_are_those_of_the_specification() {
        assert_eq!(crc16(b"123456789"), 0x31C3);
        let table: [(&[u8], u16); 5] =
            [(b"foo", 12182), (b"bar", 5061), (b"hello", 866), (b"", 0), (b"user1000", 3443)];
        for (key, slot) in table {
            assert_eq!(slot_of(key), slot, "{key:?}");
        }
        let same = [
            (&b"{user1000}.following"[..], &b"user1000"[..]),
            (b"foo{bar}{zap}", b"bar"),
            (b"foo{{bar}}", b"{bar"),
        ];
        for (tagged, tag) in same {
            assert_eq!(slot_of(tagged), crc16(tag) % SLOTS);
        }
        for whole in [&b"foo{}{bar}"[..], b"foo{bar", b"}foo{"] {
            assert_eq!(slot_of(whole), crc16(whole) % SLOTS);
        }
    }

    #[test]
    fn an_answer_to_cluster_slots_is_read() {
        let asked = Server { host: "asked".into(), port: 1 };
        let text = b"*3\r\n\
            *3\r\n:0\r\n:5460\r\n*2\r\n$8\r\n10.0.0.1\r\n:30001\r\n\
            *4\r\n:5461\r\n:10922\r\n*4\r\n$0\r\n\r\n:30002\r\n$4\r\nabcd\r\n*0\r\n*2\r\n$8\r\n10.0.0.3\r\n:30005\r\n\
            *3\r\n:16383\r\n:16383\r\n*2\r\n$-1\r\n:30003\r\n";
        let ranges = parse_slots(redis::parse_redis_value(text).unwrap(), &asked).unwrap();
        let mk =
            |first, last, host: &str, port| Range { first, last, owner: Server { host: host.into(), port } };
        let expected = [
            mk(0, 5460, "10.0.0.1", 30001),
            mk(5461, 10922, "asked", 30002),
            mk(16383, 16383, "asked", 30003),
        ];
        assert_eq!(ranges, expected);
    }

    #[test]
    fn an_answer_that_makes_no_sense_is_none() {
        let asked = Server { host: "asked".into(), port: 1 };
        let texts = [
            "+OK\r\n",
            "*1\r\n:1\r\n",
            "*1\r\n*2\r\n:0\r\n:1\r\n",
            "*1\r\n*3\r\n:0\r\n:16384\r\n*2\r\n$1\r\na\r\n:1\r\n",
            "*1\r\n*3\r\n:0\r\n:1\r\n*2\r\n$1\r\na\r\n:65536\r\n",
        ];
        for text in texts {
            assert_eq!(
                parse_slots(redis::parse_redis_value(text.as_bytes()).unwrap(), &asked),
                None,
                "{text}"
            );
        }
    }
}
