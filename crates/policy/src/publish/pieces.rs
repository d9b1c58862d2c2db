//! The canonical JSON of a snapshot, by objects and by what belongs to none.

use std::collections::BTreeMap;
use std::fmt::Write as _;

use serde_json::{Value, json};
use sha2::{Digest, Sha256};
use torwart_core::Revision;

use super::{Chunk, Slot};
use crate::snapshot::{Snapshot, hex, object_at, place, to_value, write_canonical};

/// The name of the field that holds the objects.
pub(super) const DOMAINS: &str = "domains";

/// A whole is `{"domains": {NAMESPACE/NAME: {"manifest": .., "resolved": ..}}, "gateway": .., "held": .., ..}`. Its
/// chunks have the same form, each with some of the objects, one with all other fields; so a reader that does not know
/// a field can still put the whole together.
#[derive(Debug, Default)]
pub(crate) struct Pieces<T = String> {
    /// JSON by `namespace/name`.
    pub(super) domains: BTreeMap<String, T>,
    /// JSON of the other fields.
    pub(super) others: BTreeMap<String, T>,
}

// === impl Pieces ===

impl Pieces {
    pub(crate) fn of(snapshot: &Snapshot) -> Self {
        let domains = snapshot.domains.iter().map(|(object, manifest)| {
            let mut text = String::with_capacity(512);
            text.push_str("{\"manifest\":");
            write_canonical(&to_value(&**manifest), &mut text);
            if let Some(resolved) = snapshot.resolutions.get(object) {
                text.push_str(",\"resolved\":");
                write_canonical(&to_value(&**resolved), &mut text);
            }
            text.push('}');
            (place(object), text)
        });
        let held: Vec<String> = snapshot.held.iter().map(ToString::to_string).collect();
        let others = [
            ("gateway", to_value(&*snapshot.gateway)),
            ("held", json!(held)),
            ("incomplete", json!(snapshot.incomplete)),
            ("removed", json!(snapshot.removed)),
        ];
        // Absent while it is empty, as it nearly always is.
        let confirmed = (!snapshot.confirmed.is_empty()).then(|| ("confirmed", json!(snapshot.confirmed)));
        let others =
            others.into_iter().chain(confirmed).map(|(field, value)| (field.to_owned(), canonical(&value)));
        Self { domains: domains.collect(), others: others.collect() }
    }

    /// `rest` is the slot of what belongs to no object.
    pub(super) fn chunks(self, rest: Slot) -> BTreeMap<Slot, Chunk> {
        let mut slots: BTreeMap<Slot, Self> = BTreeMap::new();
        slots.entry(rest).or_default().others = self.others;
        for (name, text) in self.domains {
            let Some(slot) = object_at(&name).map(|object| Slot::of(&object)) else {
                continue;
            };
            slots.entry(slot).or_default().domains.insert(name, text);
        }
        slots.into_iter().map(|(slot, pieces)| (slot, Chunk::new(pieces.text()))).collect()
    }

    pub(super) fn text(&self) -> String {
        let mut text = String::with_capacity(self.domains.values().map(|one| one.len() + 64).sum());
        self.write(|part| text.push_str(part));
        text
    }
}

impl<T: AsRef<str>> Pieces<T> {
    /// The SHA-256 of the whole.
    pub(crate) fn revision(&self) -> Revision {
        let mut digest = Sha256::new();
        self.write(|part| digest.update(part.as_bytes()));
        Revision(hex(&digest.finalize()).into())
    }

    /// Fields in the order of their bytes, as [`write_canonical`] has them.
    fn write(&self, mut put: impl FnMut(&str)) {
        let (before, after): (Vec<_>, Vec<_>) =
            self.others.iter().partition(|(field, _)| field.as_str() < DOMAINS);
        put("{");
        for (field, text) in before {
            put(&key(field));
            put(text.as_ref());
            put(",");
        }
        put(&key(DOMAINS));
        put("{");
        for (index, (name, text)) in self.domains.iter().enumerate() {
            put(if index > 0 { "," } else { "" });
            put(&key(name));
            put(text.as_ref());
        }
        put("}");
        for (field, text) in after {
            put(",");
            put(&key(field));
            put(text.as_ref());
        }
        put("}");
    }
}

fn key(name: &str) -> String {
    let mut text = String::with_capacity(name.len() + 3);
    let _ = write!(text, "{}:", Value::from(name));
    text
}

fn canonical(value: &Value) -> String {
    let mut text = String::new();
    write_canonical(value, &mut text);
    text
}
