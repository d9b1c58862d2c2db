//! The index as JSON.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};
use torwart_core::Revision;

use super::{ChunkHash, FORMATS_READ, Index, InvalidIndex, SLOTS, Slot};

/// What is read first, since all else depends on it.
#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Version {
    format_version: u32,
}

#[derive(Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
struct Written {
    format_version: u32,
    revision: String,
    sequence: u64,
    slots: BTreeMap<String, String>,
}

// === impl Index ===

impl Index {
    pub fn to_json(&self) -> String {
        let Self { sequence, format_version, revision, slots } = self;
        let slots = slots.iter().map(|(slot, hash)| (slot.to_string(), hash.to_string())).collect();
        let revision = revision.0.to_string();
        let written = Written { format_version: *format_version, revision, sequence: *sequence, slots };
        // Texts and numbers always have a JSON form.
        serde_json::to_string(&written).unwrap_or_default()
    }

    /// # Errors
    /// If it is none, or in a format that this build does not read.
    pub fn from_json(text: &str) -> Result<Self, InvalidIndex> {
        let broken = |error: serde_json::Error| InvalidIndex::Broken(error.to_string());
        let Version { format_version } = serde_json::from_str(text).map_err(broken)?;
        if FORMATS_READ.iter().all(|known| *known < format_version) {
            return Err(InvalidIndex::Newer(format_version));
        }
        if !FORMATS_READ.contains(&format_version) {
            return Err(InvalidIndex::Broken(format!("it is in format {format_version}, which is none")));
        }
        let Written { format_version, revision, sequence, slots } =
            serde_json::from_str(text).map_err(broken)?;
        let slots = slots.into_iter().map(|(slot, hash)| {
            let slot = Slot::parse(&slot)
                .ok_or_else(|| InvalidIndex::Broken(format!("{slot:?} is no slot: they are 00 to 3f")))?;
            let hash = ChunkHash::parse(&hash)
                .ok_or_else(|| InvalidIndex::Broken(format!("{hash:?} of slot {slot} is no SHA-256")))?;
            Ok((slot, hash))
        });
        let slots = slots.collect::<Result<_, _>>()?;
        Ok(Self { sequence, format_version, revision: Revision(revision.into()), slots })
    }
}

// === impl Slot ===

impl Slot {
    /// Reads what `Display` writes.
    fn parse(text: &str) -> Option<Self> {
        let slot = u8::from_str_radix(text, 16).ok().filter(|slot| *slot < SLOTS).map(Self)?;
        (slot.to_string() == text).then_some(slot)
    }
}
