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
mod doubt;
mod neutral;
mod suggest;
mod tree;

use std::collections::HashSet;
use std::fmt;
use std::sync::Arc;

use crate::object::{API_VERSION, Kind, MailDomain, MailGateway, Manifest, Metadata, ObjectRef};
use de::MAX_MISTAKES;
use doubt::Doubts;
use neutral::Neutral;
use tree::{Content, NodeId, Step, Tree};

/// The largest file: some 50,000 MailDomains, or half a million prefixes. A larger one is a mistake, such as a mail
/// archive in the policy's directory.
pub const MAX_FILE: usize = 16 << 20;

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
    /// Of which kind it was meant to be, as far as it says so.
    pub kind: Option<Kind>,
    /// What it is, as far as it says so without any doubt.
    pub object: Option<ObjectRef>,
    /// `None` if there was a mistake in it.
    pub manifest: Option<Manifest>,
    /// If there was a mistake: what could be read in spite of it, with stand-ins for what must be there. Good for
    /// finding more mistakes, and never to be put in force.
    pub draft: Option<Manifest>,
    doubts: Doubts,
    tree: Tree,
}

/// Everything in one file.
#[derive(Debug, Default)]
pub struct Loaded {
    pub documents: Vec<Document>,
    /// In the order of the text.
    pub mistakes: Vec<Mistake>,
    /// Documents that are somebody else's, such as a Kubernetes Service. They are not among `documents`.
    pub foreign: Vec<Mistake>,
    /// ConfigMaps that a `caRef` may name. They are neither of both.
    pub authorities: Vec<Authority>,
}

/// A Kubernetes ConfigMap with the label [`CA_LABEL`] and certificates under `ca.crt`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Authority {
    pub position: Position,
    /// Which document of the file, from 1.
    pub document: usize,
    pub namespace: String,
    pub name: String,
    pub pem: String,
}

/// The label (`torwart.dev/ca: "true"`) of ConfigMaps that hold a `ca.crt` for `caRef`: no others are read, in a cluster
/// nor in files.
pub const CA_LABEL: &str = "torwart.dev/ca";

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
        return Loaded { documents: vec![document], mistakes, ..Loaded::default() };
    }
    let mut number = 0;
    let mut aliased = 0;
    let parts = split(text).into_iter();
    for tree in parts.flat_map(|(first_line, part)| tree::parse(part, first_line, &mut aliased)) {
        if tree.is_empty() {
            continue;
        }
        number += 1;
        if let Some(authority) = authority(&tree, number) {
            loaded.authorities.push(authority);
            continue;
        }
        if let Some((position, message)) = foreign(&tree) {
            let (file, path) = (file.clone(), "apiVersion".to_owned());
            let skipped = Mistake { file, position, document: number, object: None, path, message };
            loaded.foreign.push(skipped);
            continue;
        }
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

/// The authority in a ConfigMap of the core API group, if there is one.
fn authority(tree: &Tree, document: usize) -> Option<Authority> {
    let root = tree.root().filter(|_| tree.complete && tree.faults.is_empty())?;
    let text_at = |path: &[&str]| {
        let node = path.iter().try_fold(root, |node, key| tree.get(node, key))?;
        tree.text(node)
    };
    let is_one = text_at(&["apiVersion"])? == "v1"
        && text_at(&["kind"])? == "ConfigMap"
        && text_at(&["metadata", "labels", CA_LABEL])? == "true";
    let pem = text_at(&["data", "ca.crt"]).filter(|_| is_one)?;
    Some(Authority {
        position: tree.position(root),
        document,
        namespace: text_at(&["metadata", "namespace"]).unwrap_or(DEFAULT_NAMESPACE).to_owned(),
        name: text_at(&["metadata", "name"])?.to_owned(),
        pem: pem.to_owned(),
    })
}

/// What to say of a whole document that is none of ours: files may hold what belongs to other programs, too. Under one
/// of our kinds' names it is a mistake in `apiVersion` rather, and a List may hold objects of ours.
fn foreign(tree: &Tree) -> Option<(Position, String)> {
    let root = tree.root().filter(|_| tree.complete)?;
    let node = tree.get(root, "apiVersion").filter(|node| !tree.is_ambiguous(*node))?;
    let group = |version: &str| version.split_once('/').map_or("", |(group, _)| group).to_owned();
    let version = tree.text(node).filter(|version| group(version) != group(API_VERSION))?;
    let kind = tree.get(root, "kind").and_then(|node| tree.text(node)).filter(|kind| !kind.is_empty())?;
    let ours = suggest::suggestion(kind, &Kind::ALL.map(Kind::as_str)).is_some();
    (!ours && tree.get(root, "items").is_none())
        .then(|| (tree.position(node), format!("is {version}: this {kind} is not ours, skipped")))
}

fn read_document(file: &Arc<str>, number: usize, tree: Tree) -> (Document, Vec<Mistake>) {
    let mut reader = Reader::new(&tree);
    let manifest = reader.read();
    let Reader { kind, object, found, mut more, unfinished, doubts, .. } = reader;
    let clean = found.is_empty() && tree.faults.is_empty() && tree.complete;
    let (manifest, draft) = if clean { (manifest, None) } else { (None, manifest) };
    let faults = tree.faults.iter().map(|fault| (fault.position, fault.path.clone(), fault.message.clone()));
    // Where a fault stands already, its consequences are no mistakes of their own.
    let faulty: HashSet<Position> = tree.faults.iter().map(|fault| fault.position).collect();
    let found = found.into_iter().filter(|(position, ..)| !faulty.contains(position));
    let mistake = |(position, path, message)| Mistake {
        file: file.clone(),
        position,
        document: number,
        object: object.clone(),
        path,
        message,
    };
    let mut mistakes: Vec<Mistake> = faults.chain(found).map(mistake).collect();
    mistakes.sort_by_key(|mistake| mistake.position);
    more += mistakes.len().saturating_sub(MAX_MISTAKES);
    if more > 0 || unfinished {
        let at = mistakes.get(MAX_MISTAKES).or(mistakes.last()).map_or(Position::START, |last| last.position);
        mistakes.truncate(MAX_MISTAKES);
        let message = match (more, unfinished) {
            (0, _) => "there may be more mistakes in this document".to_owned(),
            (1, false) => "and 1 more mistake in this document".to_owned(),
            (more, false) => format!("and {more} more mistakes in this document"),
            (more, true) => format!("and {more} more mistakes in this document, or even more"),
        };
        mistakes.push(mistake((at, String::new(), message)));
    }
    (Document { number, kind, object, manifest, draft, doubts, tree }, mistakes)
}

/// Reads one document.
struct Reader<'t> {
    tree: &'t Tree,
    kind: Option<Kind>,
    object: Option<ObjectRef>,
    found: Vec<(Position, String, String)>,
    /// How many mistakes there are besides `found`.
    more: usize,
    /// Whether it was not worth looking for all of them.
    unfinished: bool,
    doubts: Doubts,
}

// === impl Reader ===

impl<'t> Reader<'t> {
    fn new(tree: &'t Tree) -> Self {
        let mut doubts = Doubts::default();
        for fault in &tree.faults {
            doubts.around(fault.path.clone());
        }
        tree.open().iter().for_each(|id| doubts.around(tree.path(*id)));
        tree.untrusted().into_iter().for_each(|id| doubts.at(tree.path(id)));
        tree.ambiguous().for_each(|id| doubts.at(tree.path(id)));
        Self { tree, kind: None, object: None, found: Vec::new(), more: 0, unfinished: false, doubts }
    }

    fn read(&mut self) -> Option<Manifest> {
        let root = self.tree.root()?;
        let Content::Map(entries) = self.tree.content(root) else {
            self.note_missing(root, "a document must be a mapping with apiVersion, kind, metadata and spec");
            return None;
        };
        let written = self.read_kind(root);
        self.object = written.and_then(|kind| self.identify(root, kind));
        self.check_api_version(root);
        for entry in entries {
            if let Step::Key { name, position } = self.tree.step(*entry)
                && !TOP.contains(&name.as_str())
                && name != "status"
                && self.tree.is_trusted(*entry)
            {
                self.doubts.around(String::new());
                if self.found.len() < MAX_MISTAKES {
                    self.found.push((*position, name.clone(), suggest::no_such_field(name, &TOP)));
                } else {
                    self.more += 1;
                }
            }
        }
        let metadata: Option<Metadata> = self.read_part(root, "metadata", &TOLERATED_METADATA);
        match self.kind? {
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

    /// The kind as it is written. `self.kind` gets the one that was meant, too.
    fn read_kind(&mut self, root: NodeId) -> Option<Kind> {
        let names = Kind::ALL.map(Kind::as_str);
        let Some(node) = self.tree.get(root, "kind") else {
            self.note_missing(root, "the field kind is missing; it is MailGateway or MailDomain");
            return None;
        };
        let text = self.tree.text(node).unwrap_or_default();
        let of_name = |name: &str| Kind::ALL.into_iter().find(|kind| kind.as_str() == name);
        let written = of_name(text);
        let meant = suggest::suggestion(text, &names);
        if written.is_none() {
            let message = match meant {
                Some(meant) => format!("is {text:?}; did you mean {meant}?"),
                None if text == "List" => "is List; write its items as documents of their own".to_owned(),
                None => "must be MailGateway or MailDomain".to_owned(),
            };
            self.note(node, &message);
        }
        if !self.tree.is_ambiguous(node) && self.tree.is_trusted(node) {
            self.kind = written.or(meant.and_then(of_name));
        }
        written.filter(|_| self.kind.is_some())
    }

    fn check_api_version(&mut self, root: NodeId) {
        match self.tree.get(root, "apiVersion") {
            None => self.note_missing(root, &format!("the field apiVersion is missing; it is {API_VERSION}")),
            Some(node) if self.tree.text(node) != Some(API_VERSION) => {
                self.note(node, &format!("must be {API_VERSION}"));
            }
            Some(_) => {}
        }
    }

    /// Whose document it is, even if the rest of it is wrong. What is there but is no text, or is there twice, or may
    /// have broken off, names nobody: it must not pass for another object.
    fn identify(&self, root: NodeId, kind: Kind) -> Option<ObjectRef> {
        let certain = |node: NodeId| !self.tree.is_ambiguous(node) && self.tree.is_trusted(node);
        let whole = |node: NodeId| !self.tree.is_ambiguous(node) && !self.tree.is_open(node);
        let metadata = self.tree.get(root, "metadata").filter(|node| whole(*node))?;
        let name = self.tree.get(metadata, "name").filter(|node| certain(*node))?;
        let name = self.tree.text(name)?;
        if kind == Kind::MailGateway {
            return Some(ObjectRef::gateway(name));
        }
        let namespace = match self.tree.get(metadata, "namespace") {
            Some(node) if !certain(node) => return None,
            // A field without a value is a field left out, as in the Kubernetes API.
            Some(node) if matches!(self.tree.content(node), Content::Null) => DEFAULT_NAMESPACE,
            Some(node) => self.tree.text(node)?,
            None => DEFAULT_NAMESPACE,
        };
        Some(ObjectRef::domain(namespace, name))
    }

    fn read_part<T: serde::de::DeserializeOwned>(
        &mut self,
        root: NodeId,
        name: &str,
        tolerated: &[&str],
    ) -> Option<T> {
        let Some(node) = self.tree.get(root, name) else {
            self.note_missing(root, &format!("the field {name} is missing"));
            self.doubts.at(name.to_owned());
            return Neutral::make();
        };
        let de::Reading { value, found, more, unfinished, doubts } = de::read(self.tree, node, tolerated);
        for de::Found { node, at_key, message } in found {
            let position = if at_key { self.tree.key_position(node) } else { self.tree.position(node) };
            self.found.push((position, self.tree.path(node), message));
        }
        self.more += more;
        self.unfinished |= unfinished;
        self.doubts.extend(doubts);
        value
    }

    fn note(&mut self, node: NodeId, message: &str) {
        if self.tree.is_trusted(node) {
            self.found.push((self.tree.position(node), self.tree.path(node), message.to_owned()));
        }
    }

    /// What is missing where a text broke off may have been to come.
    fn note_missing(&mut self, node: NodeId, message: &str) {
        if !self.tree.is_open(node) {
            self.note(node, message);
        }
    }
}

// === impl Document ===

impl Document {
    /// Where `path` stands, or the nearest thing around it if it is not there.
    pub fn locate(&self, path: &str) -> Position {
        self.tree.locate(path)
    }

    /// Whether something may have been misread there, so that what seems wrong with the draft at `path` may not be.
    pub fn is_doubtful(&self, path: &str) -> bool {
        self.draft.is_some() && self.doubts.cover(path, |path| self.tree.holds(path))
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
