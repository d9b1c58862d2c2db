//! What was accepted: the form in which a policy is published, compared and compiled again.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::sync::Arc;

use serde::Serialize;
use serde_json::{Value, json};
use sha2::{Digest, Sha256};
use torwart_api::{MailDomain, MailGateway, Metadata, ObjectRef};
use torwart_core::Revision;

/// Accepted manifests, and what the next compilation must know of the past. It holds no compiled form and no secret.
#[derive(Clone, Debug)]
pub struct Snapshot {
    pub revision: Revision,
    pub gateway: Arc<MailGateway>,
    pub domains: BTreeMap<ObjectRef, Arc<MailDomain>>,
    /// Mail domains that left the policy, and until when (Unix seconds) they answer 451.
    pub removed: BTreeMap<String, i64>,
    /// Where each object was read from, for those who read files; no part of the revision.
    pub sources: BTreeMap<ObjectRef, Arc<str>>,
}

/// Raised when a reader of the older format would misunderstand the newer one.
const FORMAT_VERSION: u32 = 1;

// === impl Snapshot ===

impl Snapshot {
    pub(crate) fn new(
        gateway: Arc<MailGateway>,
        domains: BTreeMap<ObjectRef, Arc<MailDomain>>,
        removed: BTreeMap<String, i64>,
        resolutions: Value,
    ) -> Self {
        let mut snapshot =
            Self { revision: Revision("".into()), gateway, domains, removed, sources: BTreeMap::new() };
        let digest = Sha256::digest(snapshot.canonical(resolutions).as_bytes());
        snapshot.revision = Revision(hex(&digest).into());
        snapshot
    }

    fn canonical(&self, resolutions: Value) -> String {
        let mut text = String::with_capacity(256 + 1024 * self.domains.len());
        let _ = write!(text, "{{\"domains\":[");
        for (index, domain) in self.domains.values().enumerate() {
            if index > 0 {
                text.push(',');
            }
            write_canonical(&to_value(&**domain), &mut text);
        }
        let _ = write!(text, "],\"formatVersion\":{FORMAT_VERSION},\"gateway\":");
        write_canonical(&to_value(&*self.gateway), &mut text);
        text.push_str(",\"removed\":");
        write_canonical(&json!(self.removed), &mut text);
        text.push_str(",\"resolutions\":");
        write_canonical(&resolutions, &mut text);
        text.push('}');
        text
    }
}

/// What of the metadata belongs to a policy: labels, annotations and times of creation decide nothing later.
pub(crate) fn essential(metadata: &Metadata) -> Metadata {
    Metadata {
        name: metadata.name.clone(),
        namespace: metadata.namespace.clone(),
        generation: metadata.generation,
        ..Metadata::default()
    }
}

/// A manifest's JSON. Its types hold texts, numbers, lists and mappings with text keys only, for which there is
/// always one.
pub(crate) fn to_value(manifest: &impl Serialize) -> Value {
    serde_json::to_value(manifest).unwrap_or_default()
}

/// Without white space, keys in the order of their bytes: equal values are equal texts, whatever made them.
pub(crate) fn write_canonical(value: &Value, text: &mut String) {
    match value {
        Value::Object(map) => {
            let mut entries: Vec<_> = map.iter().collect();
            entries.sort_by_key(|(key, _)| *key);
            text.push('{');
            for (index, (key, value)) in entries.into_iter().enumerate() {
                if index > 0 {
                    text.push(',');
                }
                let _ = write!(text, "{}:", Value::from(key.as_str()));
                write_canonical(value, text);
            }
            text.push('}');
        }
        Value::Array(items) => {
            text.push('[');
            for (index, item) in items.iter().enumerate() {
                if index > 0 {
                    text.push(',');
                }
                write_canonical(item, text);
            }
            text.push(']');
        }
        scalar => {
            let _ = write!(text, "{scalar}");
        }
    }
}

/// The first half of the SHA-256 of a value's canonical form.
pub(crate) fn digest(value: &Value) -> [u8; 16] {
    let mut text = String::new();
    write_canonical(value, &mut text);
    let mut half = [0; 16];
    half.copy_from_slice(&Sha256::digest(text.as_bytes())[..16]);
    half
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().fold(String::with_capacity(2 * bytes.len()), |mut text, byte| {
        let _ = write!(text, "{byte:02x}");
        text
    })
}
