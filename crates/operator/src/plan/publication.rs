//! A snapshot to ConfigMaps: which are to be written, and whether they may be.

use std::collections::BTreeMap;
use std::sync::Arc;

use torwart_api::{Kind, ObjectRef};
use torwart_policy::Snapshot;
use torwart_policy::publish::{Chunk, ChunkHash, FORMAT_WRITTEN, Index, MOST_TEXT, Slot};

use super::compiled::Chunks;
use super::reasons;
use crate::values::{IndexWrite, Pods, Published, PublishedIndex, PublishedSlot, SlotWrite, Write};

/// The most bytes of one compressed chunk. A ConfigMap takes 1 MiB, base64 makes four bytes of three, and a slot holds
/// two chunks.
pub(super) const LARGEST_CHUNK: usize = 380 << 10;

/// How many of a slot's objects are named if it is too large.
const NAMED: usize = 3;

/// Why a policy that is ready is not published.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Hold {
    pub(super) reason: &'static str,
    pub(super) message: String,
}

/// A snapshot in the form in which it is written.
#[derive(Debug)]
pub(super) struct Pieces {
    slots: BTreeMap<Slot, (ChunkHash, Arc<[u8]>)>,
}

/// Whether what is published is this snapshot, all of it.
pub(super) fn is_published(published: &Published, snapshot: &Snapshot) -> bool {
    let index = present_index(published);
    index.is_some_and(|index| {
        index.revision == snapshot.revision
            && index.format_version == FORMAT_WRITTEN
            && published.snapshot.as_ref().is_some_and(|published| published.revision == snapshot.revision)
            && index.slots.iter().all(|(slot, hash)| {
                published.slots.get(slot).is_some_and(|found| found.chunks.contains_key(hash))
            })
    })
}

/// Whether a newer release published in a format that this one does not know.
pub(super) fn is_newer(published: &Published) -> bool {
    published.index.as_ref().is_some_and(|index| index.is_newer)
}

/// The index, if it can be read.
pub(super) fn present_index(published: &Published) -> Option<&Index> {
    published.index.as_ref()?.index.as_ref().ok()
}

/// Why the format that this build writes must not be published now.
pub(super) fn format_skew(published: &Published, pods: &Pods) -> Option<Hold> {
    let present = present_index(published).map(|index| index.format_version);
    if pods.asked_at == 0 && present != Some(FORMAT_WRITTEN) {
        let message = "the verdict pods have not been asked yet which formats they read".to_owned();
        return Some(Hold { reason: reasons::PENDING, message });
    }
    let mut unable = pods.ready.iter().filter_map(|(name, report)| {
        let status = &report.as_ref().ok()?.status;
        (!status.formats_read.contains(&FORMAT_WRITTEN)).then_some((name, &status.version))
    });
    let (name, version) = unable.next()?;
    let more = match unable.count() {
        0 => String::new(),
        more => format!(" (and {more} more)"),
    };
    let message = format!(
        "verdict pod {name} of version {version}{more} does not read format {FORMAT_WRITTEN}, which this operator \
         writes; what was published last holds until all verdict pods do"
    );
    Some(Hold { reason: reasons::FORMAT_NOT_READABLE, message })
}

// === impl Pieces ===

impl Pieces {
    /// `Err` if one of them does not fit into a ConfigMap.
    pub(super) fn new(snapshot: &Snapshot, chunks: Chunks, published: &Published) -> Result<Self, Hold> {
        let mut slots = BTreeMap::new();
        for (slot, chunk) in chunks {
            if chunk.is_too_long() {
                return Err(overfull(snapshot, slot, chunk.text.len(), MOST_TEXT));
            }
            let bytes = known(published, slot, &chunk.hash).unwrap_or_else(|| chunk.compress().into());
            if bytes.len() > LARGEST_CHUNK {
                return Err(overfull(snapshot, slot, bytes.len(), LARGEST_CHUNK));
            }
            slots.insert(slot, (chunk.hash, bytes));
        }
        Ok(Self { slots })
    }

    /// The writes that publish them, and what is published then.
    pub(super) fn publish(
        self,
        snapshot: &Arc<Snapshot>,
        published: &Published,
        now_ms: i64,
    ) -> (Vec<Write>, Published) {
        let present = present_index(published);
        let mut after = published.clone();
        let mut writes = Vec::new();
        let mut named = BTreeMap::new();
        for (slot, (hash, bytes)) in self.slots {
            named.insert(slot, hash.clone());
            let there = published.slots.get(&slot);
            // Only a chunk that the present index names is sure to stay: another one may be gone since it was read, and
            // the write, against what was read, finds that out.
            let stays = present.and_then(|index| index.slots.get(&slot)) == Some(&hash);
            if stays && there.is_some_and(|there| there.chunks.get(&hash) == Some(&bytes)) {
                continue;
            }
            // Whoever reads the present index still needs its chunk.
            let mut chunks = BTreeMap::from([(hash, bytes)]);
            if let Some(needed) = present.and_then(|index| index.slots.get(&slot))
                && let Some(needed_bytes) = there.and_then(|there| there.chunks.get(needed))
            {
                chunks.entry(needed.clone()).or_insert_with(|| needed_bytes.clone());
            }
            let against = there.map(|there| there.resource_version.clone());
            let resource_version = against.clone().unwrap_or_default();
            after.slots.insert(slot, PublishedSlot { resource_version, chunks: chunks.clone() });
            writes.push(Write::Slot(SlotWrite { slot, chunks, against }));
        }
        let now = u64::try_from(now_ms).unwrap_or(0);
        let index = Index {
            sequence: present.map_or(0, |index| index.sequence.saturating_add(1)).max(now),
            format_version: FORMAT_WRITTEN,
            revision: snapshot.revision.clone(),
            slots: named,
        };
        let against = published.index.as_ref().map(|index| index.resource_version.clone());
        after.index = Some(PublishedIndex {
            resource_version: against.clone().unwrap_or_default(),
            index: Ok(index.clone()),
            is_newer: false,
        });
        after.snapshot = Some(snapshot.clone());
        writes.push(Write::Index(IndexWrite { index, against }));
        (writes, after)
    }
}

/// The bytes that are there already, if they are what their hash says.
fn known(published: &Published, slot: Slot, hash: &ChunkHash) -> Option<Arc<[u8]>> {
    let bytes = published.slots.get(&slot)?.chunks.get(hash)?;
    let is_in_force = published.snapshot.is_some()
        && present_index(published).is_some_and(|index| index.slots.get(&slot) == Some(hash));
    (is_in_force || Chunk::decompress(hash, bytes).is_ok()).then(|| bytes.clone())
}

/// The objects that changed and that make a slot too large for its ConfigMap, each with what is wrong: of each such slot
/// the largest, until the rest seems to fit.
pub(super) fn too_large(
    snapshot: &Snapshot,
    chunks: &Chunks,
    published: &Published,
) -> Vec<(ObjectRef, String)> {
    let before = published.snapshot.as_deref();
    let is_new = |object: &ObjectRef| match object.kind {
        Kind::MailDomain => {
            snapshot.domains.get(object) != before.and_then(|before| before.domains.get(object))
        }
        Kind::MailGateway => before.is_none_or(|before| before.gateway != snapshot.gateway),
    };
    let mut found = Vec::new();
    for (&slot, chunk) in chunks {
        let text = chunk.text.len();
        // Nothing grows by being compressed to speak of.
        if text <= LARGEST_CHUNK {
            continue;
        }
        let bytes =
            known(published, slot, &chunk.hash).map_or_else(|| chunk.compress().len(), |bytes| bytes.len());
        let most = if bytes > LARGEST_CHUNK { text / bytes.div_ceil(LARGEST_CHUNK) } else { MOST_TEXT };
        let mut over = text.saturating_sub(most.min(MOST_TEXT));
        for (size, object) in objects_of(snapshot, slot).into_iter().filter(|(_, object)| is_new(object)) {
            if over == 0 {
                break;
            }
            over = over.saturating_sub(size);
            let message = format!(
                "is {size} bytes long and shares a ConfigMap of the published policy with other objects, which has no \
                 room for it; make it shorter, or split it into several objects"
            );
            found.push((object, message));
        }
    }
    found
}

/// The objects of a slot with the length of their text, the largest first.
fn objects_of(snapshot: &Snapshot, slot: Slot) -> Vec<(usize, ObjectRef)> {
    let size = |text: Result<String, serde_json::Error>| text.map_or(0, |text| text.len());
    let mut objects: Vec<(usize, ObjectRef)> = snapshot
        .domains
        .iter()
        .filter(|(object, _)| Slot::of(object) == slot)
        .map(|(object, domain)| (size(serde_json::to_string(&domain.spec)), object.clone()))
        .collect();
    let gateway = snapshot.gateway.object_ref();
    if Slot::of(&gateway) == slot {
        objects.push((size(serde_json::to_string(&snapshot.gateway.spec)), gateway));
    }
    objects.sort_by(|a, b| b.cmp(a));
    objects
}

fn overfull(snapshot: &Snapshot, slot: Slot, bytes: usize, limit: usize) -> Hold {
    let objects = objects_of(snapshot, slot);
    let named: Vec<String> = objects
        .iter()
        .take(NAMED)
        .map(|(size, object)| match object.kind {
            Kind::MailGateway => format!("{object} ({size} bytes, and what left the policy)"),
            Kind::MailDomain => format!("{object} ({size} bytes)"),
        })
        .collect();
    let message = format!(
        "slot {slot} of the policy has {bytes} bytes, and {limit} fit; what was published last holds; its \
         largest objects: {}; make them smaller, or split them",
        named.join(", ")
    );
    Hold { reason: reasons::SNAPSHOT_TOO_LARGE, message }
}
