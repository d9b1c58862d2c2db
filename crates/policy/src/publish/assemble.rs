//! Chunks to a snapshot.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use serde::Deserialize;
use serde::de::DeserializeOwned;
use serde_json::Value;
use serde_json::value::RawValue;
use torwart_api::{MailDomain, MailGateway, ObjectRef};
use torwart_core::Revision;

use super::pieces::{DOMAINS, Pieces};
use super::{Assembled, Chunk, ChunkHash, Index, InvalidChunk};
use crate::domains::DomainPattern;
use crate::snapshot::{Resolved, Snapshot, object_at};

/// One object as a chunk has it; fields that this build does not know are left alone.
#[derive(Deserialize)]
struct Entry {
    manifest: MailDomain,
    #[serde(default)]
    resolved: Option<Arc<Resolved>>,
}

/// A raw JSON text in a chunk.
#[derive(Clone, Copy, Debug)]
struct Raw<'c>(&'c RawValue);

/// Puts a snapshot together again. The chunks may be more than the index names; `last` is what this process had before.
///
/// # Errors
/// If a chunk is missing, or what they come to is not the index's revision, or its MailGateway can't be read and `last`
/// has none.
pub fn assemble(
    index: &Index,
    chunks: &BTreeMap<ChunkHash, Chunk>,
    last: Option<&Snapshot>,
) -> Result<Assembled, InvalidChunk> {
    let mut pieces = Pieces { domains: BTreeMap::new(), others: BTreeMap::new() };
    for (slot, hash) in &index.slots {
        let chunk = chunks
            .get(hash)
            .ok_or_else(|| InvalidChunk(format!("chunk {hash} of slot {slot} is missing")))?;
        add(&mut pieces, &chunk.text).map_err(|error| InvalidChunk(format!("slot {slot}: {error}")))?;
    }
    let found = pieces.revision();
    if found != index.revision {
        let message = format!("the chunks come to revision {}, not to {}", found.0, index.revision.0);
        return Err(InvalidChunk(message));
    }
    read(pieces, index, last)
}

/// What the only chunk of a publication comes to; `None` if it is none.
pub(crate) fn revision_of(text: &str) -> Option<Revision> {
    let mut pieces = Pieces { domains: BTreeMap::new(), others: BTreeMap::new() };
    add(&mut pieces, text).ok()?;
    Some(pieces.revision())
}

/// Takes one chunk's objects and fields, which no other chunk may have.
fn add<'c>(pieces: &mut Pieces<Raw<'c>>, text: &'c str) -> Result<(), String> {
    let fields: BTreeMap<String, &RawValue> =
        serde_json::from_str(text).map_err(|error| format!("it is broken: {error}"))?;
    for (field, raw) in fields {
        if field == DOMAINS {
            let domains: BTreeMap<String, &RawValue> = serde_json::from_str(raw.get())
                .map_err(|error| format!("its {DOMAINS} are broken: {error}"))?;
            for (name, raw) in domains {
                if pieces.domains.contains_key(&name) {
                    return Err(format!("MailDomain {name} is there twice"));
                }
                pieces.domains.insert(name, Raw(raw));
            }
        } else if pieces.others.insert(field.clone(), Raw(raw)).is_some() {
            return Err(format!("the field {field} is there twice"));
        }
    }
    Ok(())
}

fn read(pieces: Pieces<Raw<'_>>, index: &Index, last: Option<&Snapshot>) -> Result<Assembled, InvalidChunk> {
    let mut problems = Vec::new();
    let gateway = match (pieces.field::<MailGateway>("gateway").map(Arc::new), last) {
        (Ok(gateway), _) => gateway,
        (Err(error), Some(last)) => {
            problems.push(format!("the MailGateway can't be read ({error}); the last one stays"));
            last.gateway.clone()
        }
        (Err(error), None) => {
            return Err(InvalidChunk(format!("its MailGateway can't be read: {error}")));
        }
    };
    let removed = pieces.field("removed").map_err(|error| InvalidChunk(format!("removed: {error}")))?;
    let held: Vec<String> = pieces.field("held").map_err(|error| InvalidChunk(format!("held: {error}")))?;
    let incomplete =
        pieces.field("incomplete").map_err(|error| InvalidChunk(format!("incomplete: {error}")))?;
    let mut snapshot = Snapshot {
        revision: index.revision.clone(),
        gateway,
        domains: BTreeMap::new(),
        removed,
        confirmed: pieces.field("confirmed").unwrap_or_default(),
        resolutions: BTreeMap::new(),
        held: held.iter().filter_map(|text| DomainPattern::parse_any(text).ok()).collect(),
        incomplete,
        sources: BTreeMap::new(),
        unread: BTreeSet::new(),
    };
    let mut unreadable = Vec::new();
    for (name, raw) in &pieces.domains {
        match read_entry(name, *raw) {
            Ok((object, Entry { manifest, resolved })) => {
                if let Some(resolved) = resolved {
                    snapshot.resolutions.insert(object.clone(), resolved);
                }
                snapshot.domains.insert(object, Arc::new(manifest));
            }
            Err(error) => unreadable.push((name, *raw, error)),
        }
    }
    let mut taken = if unreadable.is_empty() { BTreeSet::new() } else { snapshot.patterns() };
    for (name, raw, error) in unreadable {
        let known = object_at(name);
        let stands = known.is_some_and(|object| snapshot.stand_in(&object, last, &mut taken));
        if !stands {
            snapshot.hold(&written_domains(raw));
        }
        let then = if stands { "its last form holds" } else { "its mail domains are deferred" };
        problems.push(format!("MailDomain {name} can't be read ({error}); {then}"));
    }
    Ok(Assembled { snapshot, problems })
}

fn read_entry(name: &str, raw: Raw<'_>) -> Result<(ObjectRef, Entry), String> {
    let entry: Entry = serde_json::from_str(raw.0.get()).map_err(|error| error.to_string())?;
    let object = object_at(name).ok_or("its name has no namespace")?;
    if entry.manifest.object_ref() != object {
        return Err(format!("it calls itself {}", entry.manifest.object_ref()));
    }
    Ok((object, entry))
}

/// `spec.domains` of what can't be read otherwise.
fn written_domains(raw: Raw<'_>) -> Vec<String> {
    let value: Value = serde_json::from_str(raw.0.get()).unwrap_or_default();
    let domains = value.pointer("/manifest/spec/domains").and_then(Value::as_array);
    let texts = domains.into_iter().flatten().filter_map(Value::as_str);
    texts.map(ToOwned::to_owned).collect()
}

// === impl Snapshot ===

impl Snapshot {
    /// Every mail domain that an object has.
    pub(super) fn patterns(&self) -> BTreeSet<DomainPattern> {
        self.domains.values().flat_map(|domain| crate::compile::patterns(&domain.spec.domains)).collect()
    }

    /// Lets the form in `last` stand for an object that is not here, as far as nobody has its domains by now. Says
    /// whether there is one.
    pub(super) fn stand_in(
        &mut self,
        object: &ObjectRef,
        last: Option<&Self>,
        taken: &mut BTreeSet<DomainPattern>,
    ) -> bool {
        let Some((last, manifest)) = last.and_then(|last| Some((last, last.domains.get(object)?))) else {
            return false;
        };
        let mut manifest = (**manifest).clone();
        manifest
            .spec
            .domains
            .retain(|text| DomainPattern::parse(text).is_ok_and(|pattern| taken.insert(pattern)));
        if manifest.spec.domains.is_empty() {
            return false;
        }
        if let Some(resolved) = last.resolutions.get(object) {
            self.resolutions.insert(object.clone(), resolved.clone());
        }
        self.domains.insert(object.clone(), Arc::new(manifest));
        true
    }

    /// Defers the mail domains of an object that can't be put in force; if it names none, whatever is not known.
    pub(super) fn hold(&mut self, domains: &[String]) {
        let patterns: BTreeSet<DomainPattern> =
            domains.iter().filter_map(|text| DomainPattern::parse_any(text).ok()).collect();
        self.incomplete |= patterns.is_empty();
        self.held.extend(patterns);
    }
}

// === impl Pieces ===

impl Pieces<Raw<'_>> {
    fn field<T: DeserializeOwned>(&self, field: &str) -> Result<T, String> {
        let raw = self.others.get(field).ok_or_else(|| format!("there is no {field}"))?;
        serde_json::from_str(raw.0.get()).map_err(|error| error.to_string())
    }
}

// === impl Raw ===

impl AsRef<str> for Raw<'_> {
    fn as_ref(&self) -> &str {
        self.0.get()
    }
}
