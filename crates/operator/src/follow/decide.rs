//! What a reader makes of an index that it finds, and what it does when a publication can't be loaded. No clock, no I/O.

use std::collections::BTreeMap;
use std::fmt;
use std::sync::Arc;

use torwart_policy::publish::{ChunkHash, Index, InvalidIndex, Slot};

use super::publication::Publication;

/// The index's ConfigMap as it was found.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Found {
    /// Who deletes the ConfigMap and makes it anew may begin to count anew.
    pub(super) uid: String,
    /// What is under the index's key, if anything.
    pub(super) text: Option<String>,
}

/// A publication that should be in force.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Wanted {
    pub(super) uid: String,
    pub(super) index: Index,
}

/// What is to be done about an index.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Step {
    /// It is in force already.
    Rest,
    Load(Wanted),
    /// What was in force stays.
    Keep(Trouble),
}

/// Why something that is published, or should be, is not taken.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Trouble {
    /// There is no such ConfigMap.
    Missing {
        any: bool,
    },
    Broken(String),
    Newer(u32),
    Older {
        found: u64,
        in_force: u64,
    },
    /// A slot's ConfigMap is not there, or does not hold the chunk.
    Lacking {
        slot: Slot,
        hash: ChunkHash,
    },
    /// A chunk is not what its name says.
    BadChunk {
        slot: Slot,
        why: String,
    },
    /// Index and chunks are as they should be, but nothing that can be served by.
    Unusable {
        sequence: u64,
        why: String,
    },
    /// The API server gave no answer, or a refusal.
    Unreachable(String),
}

/// When to try again.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Next {
    /// At once: the operator went on between the index and its chunks.
    AtOnce,
    /// Later, each time a little later.
    Later,
    /// When another index comes.
    WhenItChanges,
}

/// What is in force, and what was tried.
#[derive(Debug, Default)]
pub(super) struct Reader {
    in_force: Option<Arc<Publication>>,
    /// Of no use, whenever it is looked at again, and why.
    refused: Option<(Wanted, Trouble)>,
    /// How often in a row a chunk was lacking.
    lacked: u32,
}

/// The slots are written before their index and hold the chunks of the last two: who reads an index and lacks a chunk
/// was overtaken by two publications. Twice in a row that may happen to anybody.
const AT_ONCE: u32 = 3;

// === impl Reader ===

impl Reader {
    pub(super) fn new(in_force: Option<Arc<Publication>>) -> Self {
        Self { in_force, refused: None, lacked: 0 }
    }

    pub(super) fn in_force(&self) -> Option<&Arc<Publication>> {
        self.in_force.as_ref()
    }

    /// An index was found, or none.
    pub(super) fn found(&self, found: Option<&Found>) -> Step {
        let Some(Found { uid, text }) = found else {
            return Step::Keep(Trouble::Missing { any: self.in_force.is_some() });
        };
        let Some(text) = text else {
            let why = format!("it has no key {}", crate::names::INDEX_KEY);
            return Step::Keep(Trouble::Broken(why));
        };
        let index = match Index::from_json(text) {
            Ok(index) => index,
            Err(InvalidIndex::Broken(why)) => return Step::Keep(Trouble::Broken(why)),
            Err(InvalidIndex::Newer(format)) => return Step::Keep(Trouble::Newer(format)),
        };
        let wanted = Wanted { uid: uid.clone(), index };
        if let Some((_, trouble)) = self.refused.as_ref().filter(|(refused, _)| *refused == wanted) {
            return Step::Keep(trouble.clone());
        }
        let Some(held) = self.in_force.as_ref().filter(|held| held.uid == wanted.uid) else {
            return Step::Load(wanted);
        };
        let (found, in_force) = (wanted.index.sequence, held.index.sequence);
        if held.index == wanted.index {
            Step::Rest
        } else if found <= in_force {
            Step::Keep(Trouble::Older { found, in_force })
        } else {
            Step::Load(wanted)
        }
    }

    /// What must be fetched before it can be put together.
    pub(super) fn lacking(&self, wanted: &Wanted) -> BTreeMap<Slot, ChunkHash> {
        let here = |hash| self.in_force.as_ref().is_some_and(|held| held.chunks.contains_key(hash));
        let slots = wanted.index.slots.iter().filter(|(_, hash)| !here(hash));
        slots.map(|(slot, hash)| (*slot, hash.clone())).collect()
    }

    /// It is in force.
    pub(super) fn loaded(&mut self, publication: Arc<Publication>) {
        *self = Self::new(Some(publication));
    }

    /// It could not be loaded.
    pub(super) fn failed(&mut self, wanted: Wanted, trouble: &Trouble) -> Next {
        match trouble {
            Trouble::Lacking { .. } => {
                self.lacked = self.lacked.saturating_add(1);
                if self.lacked <= AT_ONCE { Next::AtOnce } else { Next::Later }
            }
            // Somebody may mend it; the index would be the same.
            Trouble::BadChunk { .. } | Trouble::Unreachable(_) => Next::Later,
            Trouble::Unusable { .. }
            | Trouble::Missing { .. }
            | Trouble::Broken(_)
            | Trouble::Newer(_)
            | Trouble::Older { .. } => {
                self.refused = Some((wanted, trouble.clone()));
                Next::WhenItChanges
            }
        }
    }
}

// === impl Trouble ===

impl Trouble {
    /// Whether it is about what is published, rather than about the way there or about nothing being there yet.
    pub(super) fn is_of_policy(&self) -> bool {
        match self {
            Self::Missing { .. } | Self::Unreachable(_) => false,
            Self::Broken(_)
            | Self::Newer(_)
            | Self::Older { .. }
            | Self::Lacking { .. }
            | Self::BadChunk { .. }
            | Self::Unusable { .. } => true,
        }
    }
}

impl fmt::Display for Trouble {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Missing { any: false } => f.write_str(
                "there is no index of a policy; the operator writes it once there is a MailGateway",
            ),
            Self::Missing { any: true } => f.write_str(
                "the index of the policy was deleted; the operator writes it again, or is not running",
            ),
            Self::Broken(why) => write!(
                f,
                "the index of the policy can't be read: {why}; delete its ConfigMap, and the operator writes it again"
            ),
            Self::Newer(format) => write!(
                f,
                "the policy is published in format {format}, which a newer release wrote; update this verdict"
            ),
            Self::Older { found, in_force } => write!(
                f,
                "the index of the policy is number {found}, and number {in_force} is in force; if it was restored from \
                 a copy, delete its ConfigMap, and the operator writes it again"
            ),
            Self::Lacking { slot, hash } => write!(
                f,
                "the ConfigMap of slot {slot} does not hold the chunk {} that the index names; if that stays so, delete \
                 that ConfigMap and the index, and the operator writes them again",
                hash.0
            ),
            Self::BadChunk { slot, why } => write!(
                f,
                "the chunk in the ConfigMap of slot {slot} is broken: {why}; delete that ConfigMap and the index, and the \
                 operator writes them again"
            ),
            Self::Unusable { sequence, why } => {
                write!(f, "the policy that is published as number {sequence} can't be used: {why}")
            }
            Self::Unreachable(why) => write!(f, "the API server can't be asked for the policy: {why}"),
        }
    }
}

#[cfg(test)]
mod tests;
