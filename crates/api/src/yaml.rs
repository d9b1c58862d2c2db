//! Files to objects, with every mistake.
//!
//! ```text
//!   text -> split at ---   -> tree of located nodes -> MailGateway, MailDomain
//!           one document's     YAML 1.2's core         unknown fields, wrong types and words, missing
//!           fault is its own   schema, no repeats      fields: all of them, not only the first
//! ```
//!
//! A document that is not accepted still tells, where it can, which object it was meant to be, so that the object's
//! last good form can stay.

mod de;
mod suggest;
mod tree;

use std::fmt;
use std::sync::Arc;

use crate::object::{API_VERSION, Kind, MailDomain, MailGateway, Manifest, Metadata, ObjectRef};
use de::MAX_MISTAKES;
use tree::{Content, NodeId, Step, Tree};

/// The largest file: some 50,000 MailDomains, or a million prefixes. A larger one is a mistake, such as a mail
/// archive in the policy's directory.
pub const MAX_FILE: usize = 64 << 20;

/// The namespace of a MailDomain in a file that names none.
pub const DEFAULT_NAMESPACE: &str = "default";

/// A place in a file; both count from 1, columns in characters.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Position {
    pub line: usize,
    pub column: usize,
}

/// What is wrong, and where.
///
/// Shown as `FILE:LINE:COLUMN: KIND namespace/name: spec.path: message`; a document that does not say what it is goes
/// by its number.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Mistake {
    pub file: Arc<str>,
    pub position: Position,
    /// Which document of the file, from 1.
    pub document: usize,
    pub object: Option<ObjectRef>,
    /// As in `spec.route.upstreams[0].port`; empty if it is about the whole document.
    pub path: String,
    /// With the path in front of it, a sentence.
    pub message: String,
}

/// One document of a file.
#[derive(Debug)]
pub struct Document {
    /// Which of the file, from 1.
    pub number: usize,
    /// What it is, as far as it says so.
    pub object: Option<ObjectRef>,
    /// `None` if there was a mistake in it.
    pub manifest: Option<Manifest>,
    /// If there was a mistake: what could be read in spite of it. Good for finding more mistakes, and for nothing else.
    pub draft: Option<Manifest>,
    tree: Tree,
}

/// Everything in one file.
#[derive(Debug, Default)]
pub struct Loaded {
    pub documents: Vec<Document>,
    /// In the order of the text.
    pub mistakes: Vec<Mistake>,
}

/// Fields of Kubernetes' ObjectMeta that mean nothing here.
const TOLERATED_METADATA: [&str; 9] = [
    "uid",
    "resourceVersion",
    "managedFields",
    "ownerReferences",
    "finalizers",
    "selfLink",
    "generateName",
    "deletionTimestamp",
    "deletionGracePeriodSeconds",
];

/// What an object has at its top.
const TOP: [&str; 4] = ["apiVersion", "kind", "metadata", "spec"];

/// Reads every document of a file. `file` is only for the messages.
pub fn load(file: &str, text: &str) -> Loaded {
    let file: Arc<str> = file.into();
    let mut loaded = Loaded::default();
    if text.len() > MAX_FILE {
        let message = format!("the file is larger than {} MiB; split it", MAX_FILE >> 20);
        let (document, mistakes) = read_document(&file, 1, Tree::unread(message));
        return Loaded { documents: vec![document], mistakes };
    }
    let mut number = 0;
    for tree in split(text).into_iter().flat_map(|(first_line, part)| tree::parse(part, first_line)) {
        if tree.is_empty() {
            continue;
        }
        number += 1;
        let (document, mistakes) = read_document(&file, number, tree);
        loaded.documents.push(document);
        loaded.mistakes.extend(mistakes);
    }
    loaded
}

/// The documents of a file with the number of their first line. A line that starts with `---` begins a document
/// whatever stands before it (YAML 1.2.2 section 9.2), so that a broken document ends there.
fn split(text: &str) -> Vec<(usize, &str)> {
    let mut parts = Vec::new();
    let (mut start, mut first_line) = (0, 1);
    let (mut offset, mut content) = (0, false);
    for (index, line) in text.split_inclusive('\n').enumerate() {
        let marker = line
            .strip_prefix("---")
            .is_some_and(|rest| rest.is_empty() || rest.starts_with(char::is_whitespace));
        if marker && content {
            parts.push((first_line, text.get(start..offset).unwrap_or_default()));
            (start, first_line) = (offset, index + 1);
        }
        // Comments and directives belong to the document that follows them.
        content |= !line.trim().is_empty() && !line.starts_with(['#', '%', '\u{feff}']);
        offset += line.len();
    }
    parts.push((first_line, text.get(start..).unwrap_or_default()));
    parts
}

fn read_document(file: &Arc<str>, number: usize, tree: Tree) -> (Document, Vec<Mistake>) {
    let mut reader = Reader { tree: &tree, object: None, found: Vec::new() };
    let manifest = reader.read();
    let Reader { object, found, .. } = reader;
    let clean = found.is_empty() && tree.faults.is_empty() && tree.complete;
    let (manifest, draft) = if clean { (manifest, None) } else { (None, manifest) };
    let faults = tree.faults.iter().map(|fault| (fault.position, fault.path.clone(), fault.message.clone()));
    // What is missing from a text that broke off, or where a fault stands already, is no mistake of its own.
    let faulty = |position| tree.faults.iter().any(|fault| fault.position == position);
    let found = found.into_iter().filter(|(position, ..)| tree.complete && !faulty(*position));
    let mut mistakes: Vec<Mistake> = faults
        .chain(found)
        .map(|(position, path, message)| Mistake {
            file: file.clone(),
            position,
            document: number,
            object: object.clone(),
            path,
            message,
        })
        .collect();
    mistakes.sort_by_key(|mistake| mistake.position);
    mistakes.truncate(MAX_MISTAKES);
    (Document { number, object, manifest, draft, tree }, mistakes)
}

/// Reads one document.
struct Reader<'t> {
    tree: &'t Tree,
    object: Option<ObjectRef>,
    found: Vec<(Position, String, String)>,
}

// === impl Reader ===

impl Reader<'_> {
    fn read(&mut self) -> Option<Manifest> {
        let root = self.tree.root()?;
        let Content::Map(entries) = self.tree.content(root) else {
            self.note(root, "a document must be a mapping with apiVersion, kind, metadata and spec");
            return None;
        };
        let kind = self.read_kind(root);
        self.object = kind.and_then(|kind| self.identify(root, kind));
        self.check_api_version(root);
        for entry in entries {
            if let Step::Key { name, position } = self.tree.step(*entry)
                && !TOP.contains(&name.as_str())
                && name != "status"
            {
                let message = match suggest::suggestion(name, &TOP) {
                    Some(meant) => format!("there is no such field; did you mean {meant}?"),
                    None => format!("there is no such field; here can be {}", TOP.join(", ")),
                };
                self.found.push((*position, name.clone(), message));
            }
        }
        let metadata: Option<Metadata> = self.read_part(root, "metadata", &TOLERATED_METADATA);
        match kind? {
            Kind::MailGateway => {
                let spec = self.read_part(root, "spec", &[]);
                let metadata = Metadata { namespace: None, ..metadata? };
                Some(Manifest::MailGateway(MailGateway { metadata, spec: spec? }))
            }
            Kind::MailDomain => {
                let spec = self.read_part(root, "spec", &[]);
                let mut metadata = metadata?;
                metadata.namespace.get_or_insert_with(|| DEFAULT_NAMESPACE.to_owned());
                Some(Manifest::MailDomain(MailDomain { metadata, spec: spec? }))
            }
        }
    }

    fn read_kind(&mut self, root: NodeId) -> Option<Kind> {
        let names = Kind::ALL.map(Kind::as_str);
        let Some(node) = self.tree.get(root, "kind") else {
            self.note(root, "the field kind is missing; it is MailGateway or MailDomain");
            return None;
        };
        let written = self.tree.text(node).unwrap_or_default();
        let kind = Kind::ALL.into_iter().find(|kind| kind.as_str() == written);
        if kind.is_none() {
            let message = match suggest::suggestion(written, &names) {
                Some(meant) => format!("is {written:?}; did you mean {meant}?"),
                None => "must be MailGateway or MailDomain".to_owned(),
            };
            self.note(node, &message);
        }
        kind
    }

    fn check_api_version(&mut self, root: NodeId) {
        match self.tree.get(root, "apiVersion") {
            None => self.note(root, &format!("the field apiVersion is missing; it is {API_VERSION}")),
            Some(node) if self.tree.text(node) != Some(API_VERSION) => {
                self.note(node, &format!("must be {API_VERSION}"));
            }
            Some(_) => {}
        }
    }

    /// Whose document it is, even if the rest of it is wrong.
    fn identify(&self, root: NodeId, kind: Kind) -> Option<ObjectRef> {
        let metadata = self.tree.get(root, "metadata")?;
        let name = self.tree.get(metadata, "name").and_then(|node| self.tree.text(node))?;
        let namespace = self.tree.get(metadata, "namespace").and_then(|node| self.tree.text(node));
        Some(match kind {
            Kind::MailGateway => ObjectRef::gateway(name),
            Kind::MailDomain => ObjectRef::domain(namespace.unwrap_or(DEFAULT_NAMESPACE), name),
        })
    }

    fn read_part<T: serde::de::DeserializeOwned>(
        &mut self,
        root: NodeId,
        name: &str,
        tolerated: &[&str],
    ) -> Option<T> {
        let Some(node) = self.tree.get(root, name) else {
            self.note(root, &format!("the field {name} is missing"));
            return None;
        };
        let (value, found) = de::read(self.tree, node, tolerated);
        for de::Found { node, at_key, message } in found {
            let position = if at_key { self.tree.key_position(node) } else { self.tree.position(node) };
            self.found.push((position, self.tree.path(node), message));
        }
        value
    }

    fn note(&mut self, node: NodeId, message: &str) {
        self.found.push((self.tree.position(node), self.tree.path(node), message.to_owned()));
    }
}

// === impl Document ===

impl Document {
    /// Where `path` stands, or the nearest thing around it if it is not there.
    pub fn locate(&self, path: &str) -> Position {
        self.tree.locate(path)
    }

    /// False if the text broke off, so that nobody knows what else it would have held.
    pub fn is_complete(&self) -> bool {
        self.tree.complete
    }
}

// === impl Position ===

impl Position {
    pub const START: Self = Self { line: 1, column: 1 };

    pub(crate) fn new(line: usize, column: usize) -> Self {
        Self { line, column }
    }
}

impl fmt::Display for Position {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}", self.line, self.column)
    }
}

// === impl Mistake ===

impl fmt::Display for Mistake {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}: ", self.file, self.position)?;
        match &self.object {
            Some(object) => write!(f, "{object}: ")?,
            None => write!(f, "document {}: ", self.document)?,
        }
        if !self.path.is_empty() {
            write!(f, "{}: ", self.path)?;
        }
        f.write_str(&self.message)
    }
}

#[cfg(test)]
mod tests;
