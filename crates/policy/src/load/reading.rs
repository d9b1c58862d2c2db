//! Files to documents.

use std::collections::{BTreeMap, BTreeSet, HashSet, btree_map};
use std::path::Path;
use std::sync::Arc;

use torwart_api::yaml::{self, Authority, Document, Mistake};
use torwart_api::{Kind, Manifest, ObjectRef};

use super::{Finding, Severity, SourceFile};
use crate::compile::FieldError;
use crate::inputs::Resolutions;
use crate::snapshot::Snapshot;

/// All that was read.
#[derive(Default)]
pub(super) struct Reading {
    /// One for each document.
    pub(super) entries: Vec<Entry>,
    /// Mistakes of the documents' form.
    pub(super) findings: Vec<Finding>,
    /// Files of which some part could not be read.
    pub(super) partly: BTreeMap<Arc<str>, Part>,
    /// `namespace/name` of the ConfigMaps that `caRef` may name, and their certificates.
    pub(super) authorities: BTreeMap<String, String>,
}

/// One document.
pub(super) struct Entry {
    pub(super) file: Arc<str>,
    pub(super) document: Document,
}

/// What may be in the unread part of a file.
#[derive(Default)]
pub(super) struct Part {
    pub(super) hides_gateway: bool,
    /// Whether nobody knows which mail domains it names.
    pub(super) hides_domains: bool,
}

// === impl Reading ===

impl Reading {
    pub(super) fn of(files: &[SourceFile]) -> Self {
        let mut reading = Self::default();
        for file in files {
            let name: Arc<str> = file.name.as_str().into();
            match &file.content {
                Ok(text) => reading.read(&name, text),
                Err(error) => {
                    reading.findings.push(Finding::about(name.clone(), error.clone()));
                    reading.partly.insert(name, Part { hides_gateway: true, hides_domains: true });
                }
            }
        }
        reading
    }

    fn read(&mut self, file: &Arc<str>, text: &str) {
        let yaml::Loaded { documents, mistakes, foreign, authorities } = yaml::load(file, text);
        let mistakes = mistakes.into_iter().map(|mistake| (Severity::Mistake, mistake));
        let foreign = foreign.into_iter().map(|warning| (Severity::Warning, warning));
        self.findings.extend(mistakes.chain(foreign).map(|(severity, found)| {
            let subject = subject(found.object.as_ref(), found.document);
            let Mistake { position, path, message, .. } = found;
            Finding { file: file.clone(), position: Some(position), severity, subject, path, message }
        }));
        for authority in authorities {
            self.add_authority(file, authority);
        }
        for document in documents {
            let entry = Entry { file: file.clone(), document };
            self.note_unread(&entry);
            self.entries.push(entry);
        }
    }

    /// Of two of one name nobody can say which is meant; the first holds until one of them goes.
    fn add_authority(&mut self, file: &Arc<str>, authority: Authority) {
        let Authority { position, document: _, namespace, name, pem } = authority;
        match self.authorities.entry(format!("{namespace}/{name}")) {
            btree_map::Entry::Vacant(free) => {
                free.insert(pem);
            }
            btree_map::Entry::Occupied(taken) => self.findings.push(Finding {
                file: file.clone(),
                position: Some(position),
                severity: Severity::Mistake,
                subject: format!("ConfigMap {}", taken.key()),
                path: String::new(),
                message: "is there twice; remove one of them".to_owned(),
            }),
        }
    }

    pub(super) fn resolutions(&self) -> Resolutions {
        Resolutions { authorities: self.authorities.clone(), ..Resolutions::default() }
    }

    fn note_unread(&mut self, entry: &Entry) {
        let Entry { file, document } = entry;
        if document.object.is_some() && document.is_complete() {
            return;
        }
        let part = self.partly.entry(file.clone()).or_default();
        part.hides_gateway |= document.object.is_none() && document.kind != Some(Kind::MailDomain);
        part.hides_domains |= match &document.draft {
            Some(Manifest::MailDomain(_)) => !document.is_complete() || document.is_doubtful("spec.domains"),
            Some(Manifest::MailGateway(_)) => !document.is_complete(),
            None => true,
        };
    }

    /// Files (and folders) that may name mail domains and could never be read in full.
    pub(super) fn unread(&self, last: Option<&Snapshot>) -> BTreeSet<Arc<str>> {
        let sources = last.into_iter().flat_map(|last| last.sources.values());
        let sources: HashSet<&Path> = sources.flat_map(|source| Path::new(&**source).ancestors()).collect();
        let never = |file: &Arc<str>| last.is_some_and(|last| last.unread.contains(file));
        let read = |file: &Arc<str>| sources.contains(Path::new(&**file)) && !never(file);
        let hiding = self.partly.iter().filter(|(_, part)| part.hides_domains).map(|(file, _)| file);
        hiding.filter(|file| !read(file)).cloned().collect()
    }

    /// Whether there may be mail domains of which neither the files nor `last` tell.
    pub(super) fn hides_domains(&self, last: Option<&Snapshot>) -> bool {
        let known = |object: &ObjectRef| last.is_some_and(|last| last.domains.contains_key(object));
        !self.unread(last).is_empty()
            || self.entries.iter().any(|Entry { document, .. }| {
                let domain = document.object.as_ref().filter(|object| object.kind == Kind::MailDomain);
                domain.is_some_and(|object| !known(object)) && document.is_doubtful("spec.domains")
            })
    }
}

// === impl Entry ===

impl Entry {
    /// What there is of it: what is to hold, or what could be read in spite of its mistakes.
    pub(super) fn form(&self) -> Option<&Manifest> {
        self.document.manifest.as_ref().or(self.document.draft.as_ref())
    }

    /// A name that no other document has, for one that has none or must leave it to another.
    pub(super) fn own_name(&self) -> Option<ObjectRef> {
        let form = self.form()?.object_ref();
        let place = format!("(document {} of {})", self.document.number, self.file);
        let name = match &self.document.object {
            Some(object) => format!("{} {place}", object.name),
            None => place,
        };
        Some(ObjectRef { name, ..form })
    }

    pub(super) fn finding(&self, severity: Severity, found: &FieldError) -> Finding {
        Finding {
            file: self.file.clone(),
            position: Some(self.document.locate(&found.path)),
            severity,
            subject: subject(self.document.object.as_ref(), self.document.number),
            path: found.path.clone(),
            message: found.message.clone(),
        }
    }
}

fn subject(object: Option<&ObjectRef>, document: usize) -> String {
    object.map_or_else(|| format!("document {document}"), ToString::to_string)
}
