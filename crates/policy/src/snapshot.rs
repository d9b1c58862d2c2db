//! What was accepted: the form in which a policy is published, compared and compiled again.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write as _;
use std::sync::Arc;

use serde::{Deserialize, Serialize};
use serde_json::Value;
use sha2::{Digest, Sha256};
use torwart_api::{Kind, MailDomain, MailGateway, Metadata, ObjectRef};
use torwart_core::Revision;

use crate::domains::DomainPattern;
use crate::inputs::ServiceTarget;
use crate::publish::Pieces;

/// Accepted manifests, and what the next compilation must know of the past. It holds no compiled form and no secret.
#[derive(Clone, Debug)]
pub struct Snapshot {
    pub revision: Revision,
    pub gateway: Arc<MailGateway>,
    pub domains: BTreeMap<ObjectRef, Arc<MailDomain>>,
    /// Mail domains that left the policy, and until when (Unix seconds) they answer 451.
    pub removed: BTreeMap<String, i64>,
    /// Those of them whose removal was confirmed, or needed no confirmation for that of others.
    pub confirmed: BTreeSet<String>,
    /// What the references of each object in `domains` led to, as far as it has any.
    pub resolutions: BTreeMap<ObjectRef, Arc<Resolved>>,
    /// Mail domains of objects that are not in force, which are deferred. Found anew by each compilation.
    pub held: BTreeSet<DomainPattern>,
    /// Whatever is not known is deferred: nobody knows all that is there. Found anew by each compilation.
    pub incomplete: bool,
    /// Where each object was read from, for those who read files; no part of the revision.
    pub sources: BTreeMap<ObjectRef, Arc<str>>,
    /// Files that could never be read in full, so that nobody knows what else is in them; no part of the revision.
    pub unread: BTreeSet<Arc<str>>,
}

/// What a snapshot is made of; its revision follows from this.
pub(crate) struct Parts {
    pub(crate) gateway: Arc<MailGateway>,
    pub(crate) domains: BTreeMap<ObjectRef, Arc<MailDomain>>,
    pub(crate) removed: BTreeMap<String, i64>,
    pub(crate) confirmed: BTreeSet<String>,
    pub(crate) resolutions: BTreeMap<ObjectRef, Arc<Resolved>>,
    pub(crate) held: BTreeSet<DomainPattern>,
    pub(crate) incomplete: bool,
}

/// What the references of one object led to.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Resolved {
    /// By the Service's name and port as in the route: `postfix:25`; or, if it names none, `postfix/smtp` or
    /// `postfix/lmtp`, after its protocol.
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    pub services: BTreeMap<String, ServiceTarget>,
    /// By the ConfigMap's name.
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    pub authorities: BTreeMap<String, Arc<str>>,
}

/// Why a text is no snapshot.
#[derive(Debug, thiserror::Error)]
pub enum InvalidSnapshot {
    #[error("it is broken: {0}")]
    Broken(#[from] serde_json::Error),
    #[error("it is in format {0}, which a newer release wrote; this one reads format {FORMAT_VERSION}")]
    Newer(u32),
}

/// Raised when a reader of the older format would misunderstand the newer one.
const FORMAT_VERSION: u32 = 1;

/// What is read first, since all else depends on it.
#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Version {
    format_version: u32,
}

/// A snapshot as it is kept from one run to the next.
#[derive(Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
struct Kept {
    format_version: u32,
    revision: String,
    gateway: MailGateway,
    domains: Vec<MailDomain>,
    removed: BTreeMap<String, i64>,
    /// This and the next three: absent in what older releases wrote.
    #[serde(default)]
    confirmed: BTreeSet<String>,
    #[serde(default)]
    resolutions: BTreeMap<String, Arc<Resolved>>,
    #[serde(default)]
    held: Vec<String>,
    #[serde(default)]
    incomplete: bool,
    sources: Vec<Source>,
    unread: Vec<String>,
}

#[derive(Serialize, Deserialize)]
struct Source {
    kind: String,
    namespace: String,
    name: String,
    file: String,
}

// === impl Snapshot ===

impl Snapshot {
    /// One that was read from no file. `revision` is found here.
    pub(crate) fn new(parts: Parts) -> Self {
        let Parts { gateway, domains, removed, confirmed, resolutions, held, incomplete } = parts;
        let mut snapshot = Self {
            revision: Revision("".into()),
            gateway,
            domains,
            removed,
            confirmed,
            resolutions,
            held,
            incomplete,
            sources: BTreeMap::new(),
            unread: BTreeSet::new(),
        };
        snapshot.revision = Pieces::of(&snapshot).revision();
        snapshot
    }

    /// In the form in which it can be kept; [`from_json`](Self::from_json) reads it.
    ///
    /// # Errors
    /// Only if a manifest has no JSON form, which none should.
    pub fn to_json(&self) -> Result<String, serde_json::Error> {
        let Self {
            revision,
            gateway,
            domains,
            removed,
            confirmed,
            resolutions,
            held,
            incomplete,
            sources,
            unread,
        } = self;
        serde_json::to_string(&Kept {
            format_version: FORMAT_VERSION,
            revision: revision.0.to_string(),
            gateway: (**gateway).clone(),
            domains: domains.values().map(|domain| (**domain).clone()).collect(),
            removed: removed.clone(),
            confirmed: confirmed.clone(),
            resolutions: resolutions.iter().map(|(object, one)| (place(object), one.clone())).collect(),
            held: held.iter().map(ToString::to_string).collect(),
            incomplete: *incomplete,
            sources: sources
                .iter()
                .map(|(ObjectRef { kind, namespace, name }, file)| Source {
                    kind: kind.to_string(),
                    namespace: namespace.clone(),
                    name: name.clone(),
                    file: file.to_string(),
                })
                .collect(),
            unread: unread.iter().map(ToString::to_string).collect(),
        })
    }

    /// Reads what [`to_json`](Self::to_json) wrote, in this release or an older one.
    ///
    /// # Errors
    /// If it is none, or in a newer format.
    pub fn from_json(text: &str) -> Result<Self, InvalidSnapshot> {
        let Version { format_version } = serde_json::from_str(text)?;
        if format_version > FORMAT_VERSION {
            return Err(InvalidSnapshot::Newer(format_version));
        }
        let Kept {
            format_version: _,
            revision,
            gateway,
            domains,
            removed,
            confirmed,
            resolutions,
            held,
            incomplete,
            sources,
            unread,
        } = serde_json::from_str(text)?;
        let resolutions = resolutions.into_iter().filter_map(|(name, one)| Some((object_at(&name)?, one)));
        let sources = sources.into_iter().filter_map(|Source { kind, namespace, name, file }| {
            let kind = Kind::ALL.into_iter().find(|known| known.as_str() == kind)?;
            Some((ObjectRef { kind, namespace, name }, file.into()))
        });
        Ok(Self {
            revision: Revision(revision.into()),
            gateway: Arc::new(gateway),
            domains: domains.into_iter().map(|domain| (domain.object_ref(), Arc::new(domain))).collect(),
            removed,
            confirmed,
            resolutions: resolutions.collect(),
            held: held.iter().filter_map(|text| DomainPattern::parse_any(text).ok()).collect(),
            incomplete,
            sources: sources.collect(),
            unread: unread.into_iter().map(Into::into).collect(),
        })
    }
}

/// `namespace/name`.
pub(crate) fn place(ObjectRef { kind: _, namespace, name }: &ObjectRef) -> String {
    format!("{namespace}/{name}")
}

/// The MailDomain of a `namespace/name`.
pub(crate) fn object_at(place: &str) -> Option<ObjectRef> {
    place.split_once('/').map(|(namespace, name)| ObjectRef::domain(namespace, name))
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

pub(crate) fn hex(bytes: &[u8]) -> String {
    bytes.iter().fold(String::with_capacity(2 * bytes.len()), |mut text, byte| {
        let _ = write!(text, "{byte:02x}");
        text
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::compile::compile;
    use crate::compile::tests::{GATEWAY, mk_domain, mk_inputs};

    fn mk_target() -> ServiceTarget {
        ServiceTarget { host: "postfix.mail.svc".into(), port: 25, address: "10.0.0.1".parse().ok() }
    }

    fn mk_snapshot() -> Snapshot {
        let more = "  greylisting: {delay: 90s, mode: Always}\n  senders: {deny: [{pattern: \"*@spam.example\"}]}\n  \
                    ipRanges: [{name: a, cidrs: [10.0.0.0/8], action: Allow, expires: \"2030-01-01T00:00:00Z\"}]\n  \
                    limits: {messageSize: 10Mi, ratePerNetwork: 10/1m}\n  recipients: {accept: [\"*@*\"]}\n";
        let text = format!(
            "{GATEWAY}---\n{}---\n{}",
            mk_domain("a", &["a.example", "*.a.example"], more),
            mk_domain("b", &["b.example"], "")
        );
        let first = compile(&mk_inputs(&text, None));
        assert!(first.is_clean(), "{:?}", first.outcomes);
        let second = format!("{GATEWAY}---\n{}", mk_domain("a", &["a.example"], more));
        let snapshot = compile(&mk_inputs(&second, Some(&first))).snapshot.unwrap();
        let sources = BTreeMap::from([(ObjectRef::domain("mail", "a"), "a.yaml".into())]);
        let services = [("postfix:25".to_owned(), mk_target())].into();
        let resolved = Arc::new(Resolved { services, authorities: [("ca".to_owned(), "PEM".into())].into() });
        let resolutions = [(ObjectRef::domain("mail", "a"), resolved)].into();
        let held = [DomainPattern::parse("*.held.example").unwrap()].into();
        Snapshot {
            resolutions,
            held,
            incomplete: true,
            sources,
            unread: ["u.yaml".into()].into(),
            ..(*snapshot).clone()
        }
    }

    #[test]
    fn a_snapshot_reads_back_as_it_was_kept() {
        let snapshot = mk_snapshot();
        assert_eq!(snapshot.removed.len(), 2);
        let text = snapshot.to_json().unwrap();
        let read = Snapshot::from_json(&text).unwrap();
        let Snapshot {
            revision,
            gateway,
            domains,
            removed,
            confirmed,
            resolutions,
            held,
            incomplete,
            sources,
            unread,
        } = &read;
        assert_eq!(*revision, snapshot.revision);
        assert_eq!((gateway, domains), (&snapshot.gateway, &snapshot.domains));
        assert_eq!((resolutions, held), (&snapshot.resolutions, &snapshot.held));
        assert_eq!(*incomplete, snapshot.incomplete);
        assert_eq!(*confirmed, snapshot.confirmed);
        assert_eq!((removed, sources, unread), (&snapshot.removed, &snapshot.sources, &snapshot.unread));
        assert_eq!(read.to_json().unwrap(), text);
    }

    #[test]
    fn what_an_older_release_kept_still_reads() {
        let snapshot = mk_snapshot();
        let mut value: Value = serde_json::from_str(&snapshot.to_json().unwrap()).unwrap();
        for field in ["confirmed", "resolutions", "held", "incomplete"] {
            assert!(value.as_object_mut().unwrap().remove(field).is_some());
        }
        let read = Snapshot::from_json(&value.to_string()).unwrap();
        assert_eq!((read.domains, read.removed), (snapshot.domains, snapshot.removed));
        assert!(read.resolutions.is_empty() && read.held.is_empty() && !read.incomplete);
    }

    #[test]
    fn a_broken_or_newer_snapshot_is_refused() {
        let text = mk_snapshot().to_json().unwrap();
        for broken in ["", "{}", "null", &text[..text.len() / 2], &text.replace("\"removed\"", "\"gone\"")] {
            assert!(matches!(Snapshot::from_json(broken), Err(InvalidSnapshot::Broken(_))), "{broken}");
        }
        let newer = text.replace("\"formatVersion\":1", "\"formatVersion\":2,\"more\":1");
        assert!(matches!(Snapshot::from_json(&newer), Err(InvalidSnapshot::Newer(2))));
    }
}
