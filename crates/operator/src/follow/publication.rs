//! A publication as a reader holds it, in memory and on disk.

use std::collections::BTreeMap;
use std::sync::Arc;

use k8s_openapi::ByteString;
use serde::{Deserialize, Serialize};
use torwart_policy::publish::{Assembled, Chunk, ChunkHash, Index, Reading, Slot, assemble};
use torwart_policy::{Policy, Snapshot};

use super::decide::{Trouble, Wanted};

/// An index and the chunks that it names.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Publication {
    /// Of the index's ConfigMap.
    pub(super) uid: String,
    pub(super) index: Index,
    /// Compressed; all that the index names, and no others.
    pub(super) chunks: BTreeMap<ChunkHash, Arc<[u8]>>,
}

/// A publication that can be served by.
#[derive(Clone, Debug)]
pub struct Loaded {
    pub publication: Arc<Publication>,
    pub snapshot: Arc<Snapshot>,
    pub policy: Arc<Policy>,
    /// Objects that this build can't take. They hold in their last form, or are deferred.
    pub problems: Vec<String>,
}

/// Why a file is no publication.
#[derive(Debug, thiserror::Error)]
#[error("{0}")]
pub struct InvalidFile(String);

/// What is kept on disk.
#[derive(Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
struct Kept {
    /// Of this file, not of the publication.
    file_version: u32,
    uid: String,
    index: String,
    chunks: BTreeMap<String, ByteString>,
    /// The snapshot, if it is more than index and chunks come to: it has earlier forms of what this build can't take.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    snapshot: Option<String>,
}

const FILE_VERSION: u32 = 1;

// === impl Publication ===

impl Publication {
    /// Out of what was there before and what was fetched. `Err` if that is not all.
    pub(super) fn new(
        wanted: Wanted,
        before: Option<&Self>,
        fetched: &BTreeMap<ChunkHash, Arc<[u8]>>,
    ) -> Result<Self, Trouble> {
        let Wanted { uid, index } = wanted;
        let mut chunks = BTreeMap::new();
        for (slot, hash) in &index.slots {
            let held = fetched.get(hash).or_else(|| before?.chunks.get(hash));
            let bytes = held.ok_or_else(|| Trouble::Lacking { slot: *slot, hash: hash.clone() })?;
            chunks.insert(hash.clone(), Arc::clone(bytes));
        }
        Ok(Self { uid, index, chunks })
    }

    /// Rises with each publication.
    pub fn sequence(&self) -> u64 {
        self.index.sequence
    }

    /// Verifies all of it and makes the policy. `last` is what was in force before; `now` is in Unix seconds. Takes a
    /// second for 10,000 objects.
    pub(super) fn load(self: &Arc<Self>, last: Option<&Snapshot>, now: i64) -> Result<Loaded, Trouble> {
        let slot_of = |hash: &ChunkHash| -> Option<Slot> {
            self.index.slots.iter().find(|(_, named)| *named == hash).map(|(slot, _)| *slot)
        };
        let mut chunks = BTreeMap::new();
        for (hash, bytes) in &self.chunks {
            let chunk = Chunk::decompress(hash, bytes).map_err(|error| match slot_of(hash) {
                Some(slot) => Trouble::BadChunk { slot, why: error.to_string() },
                None => self.unusable(error.to_string()),
            })?;
            chunks.insert(hash.clone(), chunk);
        }
        let assembled =
            assemble(&self.index, &chunks, last).map_err(|error| self.unusable(error.to_string()))?;
        let Assembled { snapshot, mut problems } = assembled;
        // Where mail is taken is not known here; the operator knows it no better.
        let reading = Arc::new(snapshot).compile_after(last, &[], now).map_err(|why| self.unusable(why))?;
        let Reading { policy, snapshot, problems: more } = reading;
        problems.extend(more);
        Ok(Loaded { publication: Arc::clone(self), snapshot, policy: Arc::new(policy), problems })
    }

    fn unusable(&self, why: String) -> Trouble {
        Trouble::Unusable { sequence: self.index.sequence, why }
    }
}

// === impl Loaded ===

impl Loaded {
    /// The form in which it outlives the process; [`from_file`](Self::from_file) reads it.
    ///
    /// # Errors
    /// Only if a manifest has no JSON form, which none should.
    pub fn to_file(&self) -> Result<String, serde_json::Error> {
        let Publication { uid, index, chunks } = &*self.publication;
        let chunk =
            |(hash, bytes): (&ChunkHash, &Arc<[u8]>)| (hash.0.to_string(), ByteString(bytes.to_vec()));
        let snapshot = if self.problems.is_empty() { None } else { Some(self.snapshot.to_json()?) };
        serde_json::to_string(&Kept {
            file_version: FILE_VERSION,
            uid: uid.clone(),
            index: index.to_json(),
            chunks: chunks.iter().map(chunk).collect(),
            snapshot,
        })
    }

    /// Reads what [`to_file`](Self::to_file) wrote, and verifies it as if it came from the API server.
    ///
    /// # Errors
    /// If it is none, or in a newer format, or nothing that can be served by.
    pub fn from_file(text: &str, now: i64) -> Result<Self, InvalidFile> {
        let broken = |error: &dyn std::fmt::Display| InvalidFile(format!("it is broken: {error}"));
        let kept: Kept = serde_json::from_str(text).map_err(|error| broken(&error))?;
        let Kept { file_version, uid, index, chunks, snapshot } = kept;
        if file_version != FILE_VERSION {
            return Err(InvalidFile(format!(
                "it is in format {file_version}; this release reads {FILE_VERSION}"
            )));
        }
        let index = Index::from_json(&index).map_err(|error| InvalidFile(error.to_string()))?;
        let chunks = chunks.into_iter().map(|(hash, bytes)| (ChunkHash(hash.into()), bytes.0.into()));
        let last = snapshot.map(|text| Snapshot::from_json(&text)).transpose();
        let last = last.map_err(|error| broken(&error))?;
        let publication = Publication::new(Wanted { uid, index }, None, &chunks.collect());
        let publication = publication.map_err(|trouble| broken(&trouble))?;
        Arc::new(publication).load(last.as_ref(), now).map_err(|trouble| InvalidFile(trouble.to_string()))
    }
}

#[cfg(test)]
mod tests;
