//! What the fuzz target calls: feeds hostile bytes to the reader of what is published.

use std::collections::BTreeMap;

use crate::publish::{Chunk, ChunkHash, FORMAT_WRITTEN, Index, Slot, assemble, chunks};
use crate::snapshot::Snapshot;

/// Reads the bytes as an index, as a compressed chunk, and as the text of the only chunk of a publication whose hashes
/// are right. What comes of the last must be able to be published again.
pub fn publication(data: &[u8]) {
    let text = String::from_utf8_lossy(data);
    if let Ok(index) = Index::from_json(&text) {
        assert_eq!(Index::from_json(&index.to_json()).ok().as_ref(), Some(&index));
    }
    if let Some(hash) = ChunkHash::parse(&"0".repeat(64)) {
        assert!(Chunk::decompress(&hash, data).is_err(), "nobody knows a text with this hash");
    }
    let chunk = Chunk::new(text.into_owned());
    assert_eq!(Chunk::decompress(&chunk.hash, &chunk.compress()).ok().as_ref(), Some(&chunk));
    let Some(revision) = crate::publish::revision_of(&chunk.text) else {
        return;
    };
    let slots: BTreeMap<_, _> = Slot::all().take(1).map(|slot| (slot, chunk.hash.clone())).collect();
    let index = Index { sequence: 1, format_version: FORMAT_WRITTEN, revision, slots };
    let by_hash = BTreeMap::from([(chunk.hash.clone(), chunk)]);
    if let Ok(read) = assemble(&index, &by_hash, None) {
        republish(&read.snapshot);
    }
}

fn republish(snapshot: &Snapshot) {
    let _ = snapshot.compile(&[], 0);
    let pieces = chunks(snapshot);
    let revision = crate::publish::Pieces::of(snapshot).revision();
    let slots = pieces.iter().map(|(slot, chunk)| (*slot, chunk.hash.clone())).collect();
    let index = Index { sequence: 2, format_version: FORMAT_WRITTEN, revision, slots };
    let by_hash = pieces.clone().into_values().map(|chunk| (chunk.hash.clone(), chunk)).collect();
    let again = assemble(&index, &by_hash, None).map(|read| chunks(&read.snapshot));
    assert_eq!(again.ok().as_ref(), Some(&pieces));
}
