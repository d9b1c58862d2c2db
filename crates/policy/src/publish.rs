//! A snapshot in the pieces in which a cluster holds it.
//!
//! ```text
//!   Snapshot --chunks--> 64 slots, each a canonical JSON text under its SHA-256      a ConfigMap each
//!                        Index { sequence, format, revision, slot -> hash }          one ConfigMap, written last
//!   Index + chunks --assemble--> Snapshot --compile--> Policy
//! ```
//!
//! A change of one object changes one slot. What is read is believed only if its hash is right.

mod assemble;
mod chunk;
mod index;
mod pieces;
mod policy;

use std::collections::BTreeMap;
use std::fmt;

use sha2::{Digest, Sha256};
use torwart_api::ObjectRef;
use torwart_core::Revision;

use crate::snapshot::{Snapshot, place};

pub use assemble::assemble;
pub(crate) use assemble::revision_of;
pub use chunk::MOST_TEXT;
pub(crate) use pieces::Pieces;
pub use policy::Reading;

/// How many pieces; the names of the ConfigMaps, and so the rights to read them, are fixed.
pub const SLOTS: u8 = 64;

/// The format that this build writes.
pub const FORMAT_WRITTEN: u32 = 1;

/// The formats that this build reads, in rising order.
pub const FORMATS_READ: [u32; 1] = [1];

/// One of the pieces, from 0 to 63. Shown as in `3f`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Slot(u8);

/// The SHA-256 of a chunk's text, in hex.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ChunkHash(pub std::sync::Arc<str>);

/// What one slot holds.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Chunk {
    pub hash: ChunkHash,
    /// Canonical JSON.
    pub text: String,
}

/// What says which chunks make the policy.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Index {
    /// Rises with each publication.
    pub sequence: u64,
    pub format_version: u32,
    pub revision: Revision,
    /// Slots that hold nothing are absent.
    pub slots: BTreeMap<Slot, ChunkHash>,
}

/// What came of an index and its chunks.
#[derive(Debug)]
pub struct Assembled {
    pub snapshot: Snapshot,
    /// Objects that this build can't read, each with the reason, for people. They hold in the form that they have in
    /// the last snapshot; without one, their mail domains are deferred.
    pub problems: Vec<String>,
}

/// Why a text is no index.
#[derive(Debug, thiserror::Error)]
pub enum InvalidIndex {
    #[error("it is broken: {0}")]
    Broken(String),
    #[error("it is in format {0}, which a newer release wrote")]
    Newer(u32),
}

/// Why bytes are not the chunk that they should be, or chunks not the policy.
#[derive(Debug, thiserror::Error)]
#[error("{0}")]
pub struct InvalidChunk(pub String);

/// The pieces of a snapshot. A slot in which nothing would be has none.
pub fn chunks(snapshot: &Snapshot) -> BTreeMap<Slot, Chunk> {
    Pieces::of(snapshot).chunks(Slot::of(&snapshot.gateway.object_ref()))
}

// === impl Slot ===

impl Slot {
    /// Where an object is: by the SHA-256 of `namespace/name`. The MailGateway's slot also holds what belongs to no object.
    pub fn of(object: &ObjectRef) -> Self {
        let digest = Sha256::digest(place(object).as_bytes());
        Self(digest.first().copied().unwrap_or_default() % SLOTS)
    }

    pub fn all() -> impl Iterator<Item = Self> {
        (0..SLOTS).map(Self)
    }
}

impl fmt::Display for Slot {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:02x}", self.0)
    }
}

#[cfg(test)]
mod tests;
