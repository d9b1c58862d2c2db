//! Documents to objects: which of several of one name is meant, and what stands for the unread.

use std::collections::BTreeMap;

use torwart_api::{Kind, ObjectRef};

use super::judged::Judged;
use super::reading::{Entry, Reading};
use super::{Finding, Severity};
use crate::compile::FieldError;
use crate::inputs::Object;
use crate::snapshot::Snapshot;

/// What to compile.
#[derive(Default)]
pub(super) struct Chosen {
    pub(super) objects: Vec<Object>,
    /// The documents of each object, by their place in the reading.
    pub(super) places: BTreeMap<ObjectRef, Vec<usize>>,
    /// Of those that must leave their name to another.
    pub(super) findings: Vec<Finding>,
}

/// Takes the documents' manifests and drafts.
pub(super) fn choose(reading: &mut Reading, judged: &Judged, last: Option<&Snapshot>) -> Chosen {
    let mut chosen = Chosen::default();
    let mut by_name: BTreeMap<ObjectRef, Vec<usize>> = BTreeMap::new();
    for (index, entry) in reading.entries.iter_mut().enumerate() {
        match &entry.document.object {
            Some(object) => by_name.entry(object.clone()).or_default().push(index),
            None => chosen.add_unnamed(entry),
        }
    }
    for (object, entries) in by_name {
        let winner = winner(&object, &entries, reading, judged, last);
        let taken = winner.and_then(|index| reading.entries.get(index)).map(|winner| taken(&object, winner));
        for index in entries.iter().copied() {
            let Some(entry) = reading.entries.get_mut(index) else {
                continue;
            };
            match taken.as_ref().filter(|_| winner != Some(index)) {
                Some(taken) => {
                    chosen.findings.push(entry.finding(Severity::Mistake, taken));
                    chosen.add_unnamed(entry);
                }
                None => {
                    let (manifest, draft) = (entry.document.manifest.take(), entry.document.draft.take());
                    chosen.objects.push(Object { object: object.clone(), manifest, draft });
                    chosen.places.entry(object.clone()).or_default().push(index);
                }
            }
        }
    }
    // A document that does not say what it is may be any object of its file, so none of these is gone.
    for (object, source) in last.into_iter().flat_map(|last| &last.sources) {
        if reading.partly.contains_key(source) && !chosen.places.contains_key(object) {
            chosen.objects.push(Object { object: object.clone(), manifest: None, draft: None });
        }
    }
    chosen
}

/// Which of the documents of one name is meant: the one that stands where the object stood before, else the only one
/// without a mistake. `None` if nobody can say.
fn winner(
    object: &ObjectRef,
    entries: &[usize],
    reading: &Reading,
    judged: &Judged,
    last: Option<&Snapshot>,
) -> Option<usize> {
    let source = last.and_then(|last| last.sources.get(object));
    let stands_there =
        |index: &usize| reading.entries.get(*index).map(|entry| &entry.file) == source && source.is_some();
    let clean = |index: &usize| {
        reading.entries.get(*index).is_some_and(|entry| entry.document.manifest.is_some())
            && judged.is_clean(*index)
    };
    let there: Vec<usize> = entries.iter().copied().filter(stands_there).collect();
    let candidates = if there.is_empty() { entries } else { &there };
    if let [only] = candidates {
        return Some(*only);
    }
    let mut clean = candidates.iter().copied().filter(clean);
    clean.next().filter(|_| clean.next().is_none())
}

fn taken(object: &ObjectRef, winner: &Entry) -> FieldError {
    let position = winner.document.locate("metadata.name");
    let message = format!("{object} stands in {}:{position} already; rename or remove this one", winner.file);
    FieldError::new("metadata.name", message)
}

// === impl Chosen ===

impl Chosen {
    /// Nothing of it is to hold; but the mail domains that it names are there.
    fn add_unnamed(&mut self, entry: &mut Entry) {
        let name = entry.own_name().filter(|name| name.kind == Kind::MailDomain);
        let form = entry.document.manifest.take().or_else(|| entry.document.draft.take());
        if let (Some(object), Some(_)) = (name, &form) {
            self.objects.push(Object { object, manifest: None, draft: form });
        }
    }
}
