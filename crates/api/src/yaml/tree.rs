//! Text to trees of nodes that know where they stand.

use std::collections::{HashMap, HashSet};

use granit_parser::{Event, Parser, ScalarStyle, Span, StructureStyle, Tag};

use super::Position;

/// Collections within collections: the manifests need ten.
const MAX_DEPTH: usize = 64;
/// Nodes that aliases may add to one file. It stops the "billion laughs", where aliases of aliases of aliases make
/// gigabytes out of a page.
const MAX_ALIASED_NODES: usize = 100_000;

/// One document of a file.
#[derive(Debug)]
pub(super) struct Tree {
    nodes: Vec<Node>,
    /// False if the text broke off: what there is can still tell whose document it was.
    pub(super) complete: bool,
    pub(super) faults: Vec<Fault>,
    /// Where the text broke off: the collections that were open there, outermost first.
    open: Vec<NodeId>,
    /// Nodes from this one on may be something else than what was meant: they stand where the text broke off.
    untrusted: Option<NodeId>,
    /// Values of fields that are there twice: which of them is meant, nobody can say.
    ambiguous: HashSet<NodeId>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(super) struct NodeId(usize);

#[derive(Debug)]
struct Node {
    parent: Option<NodeId>,
    step: Step,
    position: Position,
    content: Content,
}

/// How a node is reached from its parent.
#[derive(Clone, Debug)]
pub(super) enum Step {
    Root,
    Key { name: String, position: Position },
    Index(usize),
}

#[derive(Debug)]
pub(super) enum Content {
    Null,
    Bool(bool),
    Unsigned(u64),
    Signed(i64),
    Float(f64),
    Text(String),
    List(Vec<NodeId>),
    Map(Vec<NodeId>),
}

/// A fault of the text itself.
#[derive(Debug)]
pub(super) struct Fault {
    pub(super) position: Position,
    pub(super) path: String,
    pub(super) message: String,
}

/// Reads all documents of `text`. The first line counts as `first_line`; `aliased` counts what aliases add to the file.
pub(super) fn parse(text: &str, first_line: usize, aliased: &mut usize) -> Vec<Tree> {
    let options = granit_parser::options! {
        emit_comments: false,
        emit_unresolved_aliases: true,
        flow_nesting_limit: MAX_DEPTH,
        block_nesting_limit: MAX_DEPTH,
    };
    let mut trees = Vec::new();
    let mut builder: Option<Builder> = None;
    for event in Parser::new_from_str_with_options(text, options) {
        match event {
            Ok((Event::DocumentStart(..), _)) => builder = Some(Builder::new(first_line, *aliased)),
            Ok((Event::DocumentEnd, _)) => {
                if let Some(done) = builder.take() {
                    *aliased = done.aliased;
                    trees.push(done.tree);
                }
            }
            Ok((event, span)) => {
                if let Some(builder) = &mut builder {
                    builder.take_event(event, span);
                }
            }
            Err(error) => {
                let mut broken = builder.take().map_or_else(Tree::broken, Builder::break_off);
                let marker = error.marker();
                let position = Position::new(marker.line() + first_line - 1, marker.col() + 1);
                let message = format!("this is no valid YAML: {}", error.kind());
                broken.faults.push(Fault { position, path: String::new(), message });
                trees.push(broken);
                break;
            }
        }
    }
    trees
}

// === impl Tree ===

impl Tree {
    /// What is left of a text that can't be read at all.
    fn broken() -> Self {
        Self {
            nodes: Vec::new(),
            complete: false,
            faults: Vec::new(),
            open: Vec::new(),
            untrusted: None,
            ambiguous: HashSet::new(),
        }
    }

    /// Stands for a text that nobody tried to read, and says why.
    pub(super) fn unread(message: String) -> Self {
        let fault = Fault { position: Position::START, path: String::new(), message };
        Self { faults: vec![fault], ..Self::broken() }
    }

    /// Whether there is nothing in it, as between two markers.
    pub(super) fn is_empty(&self) -> bool {
        self.complete
            && self.faults.is_empty()
            && self.root().is_none_or(|root| matches!(self.content(root), Content::Null))
    }

    pub(super) fn len(&self) -> usize {
        self.nodes.len()
    }

    /// Whether the text broke off within this collection, so that more of it may have been to come.
    pub(super) fn is_open(&self, id: NodeId) -> bool {
        self.open.contains(&id)
    }

    pub(super) fn open(&self) -> &[NodeId] {
        &self.open
    }

    pub(super) fn untrusted(&self) -> Option<NodeId> {
        self.untrusted
    }

    /// False if this may be something else than what was meant, because the text broke off there.
    pub(super) fn is_trusted(&self, id: NodeId) -> bool {
        self.untrusted.is_none_or(|first| id < first)
    }

    /// Whether its field is there twice.
    pub(super) fn is_ambiguous(&self, id: NodeId) -> bool {
        self.ambiguous.contains(&id)
    }

    pub(super) fn ambiguous(&self) -> impl Iterator<Item = NodeId> {
        self.ambiguous.iter().copied()
    }

    pub(super) fn parent(&self, id: NodeId) -> Option<NodeId> {
        self.nodes.get(id.0).and_then(|node| node.parent)
    }

    pub(super) fn root(&self) -> Option<NodeId> {
        (!self.nodes.is_empty()).then_some(NodeId(0))
    }

    pub(super) fn content(&self, id: NodeId) -> &Content {
        self.nodes.get(id.0).map_or(&Content::Null, |node| &node.content)
    }

    pub(super) fn step(&self, id: NodeId) -> &Step {
        self.nodes.get(id.0).map_or(&Step::Root, |node| &node.step)
    }

    pub(super) fn position(&self, id: NodeId) -> Position {
        self.nodes.get(id.0).map_or(Position::START, |node| node.position)
    }

    /// The position of the node's key, or of the node if it has none.
    pub(super) fn key_position(&self, id: NodeId) -> Position {
        match self.step(id) {
            Step::Key { position, .. } => *position,
            Step::Root | Step::Index(_) => self.position(id),
        }
    }

    pub(super) fn text(&self, id: NodeId) -> Option<&str> {
        match self.content(id) {
            Content::Text(text) => Some(text),
            _ => None,
        }
    }

    pub(super) fn get(&self, map: NodeId, key: &str) -> Option<NodeId> {
        let Content::Map(entries) = self.content(map) else {
            return None;
        };
        entries.iter().copied().find(|id| matches!(self.step(*id), Step::Key { name, .. } if name == key))
    }

    /// As in `spec.route.upstreams[0].port`; empty for the root.
    pub(super) fn path(&self, id: NodeId) -> String {
        let mut steps = Vec::new();
        let mut next = Some(id);
        while let Some(node) = next.and_then(|id| self.nodes.get(id.0)) {
            steps.push(&node.step);
            next = node.parent;
        }
        let mut path = String::new();
        for step in steps.iter().rev() {
            match step {
                Step::Root => {}
                Step::Key { name, .. } => {
                    if !path.is_empty() {
                        path.push('.');
                    }
                    path.push_str(name);
                }
                Step::Index(index) => path.push_str(&format!("[{index}]")),
            }
        }
        path
    }

    /// Whether something stands at `path`.
    pub(super) fn holds(&self, path: &str) -> bool {
        self.walk(path).1
    }

    /// The node at `path`, or the nearest around it; whether it is the one itself.
    fn walk(&self, path: &str) -> (NodeId, bool) {
        let mut here = NodeId(0);
        for part in path.split(['.', '[']).filter(|part| !part.is_empty()) {
            let next = match part.strip_suffix(']') {
                Some(index) => match self.content(here) {
                    Content::List(items) => index.parse::<usize>().ok().and_then(|i| items.get(i)).copied(),
                    _ => None,
                },
                None => self.get(here, part),
            };
            match next {
                Some(next) => here = next,
                None => return (here, false),
            }
        }
        (here, true)
    }

    /// Where `path` stands, or the nearest thing around it.
    pub(super) fn locate(&self, path: &str) -> Position {
        if self.root().is_none() {
            return Position::START;
        }
        let (here, _) = self.walk(path);
        match self.content(here) {
            Content::Map(_) | Content::List(_) => self.key_position(here),
            _ => self.position(here),
        }
    }
}

// === Builder ===

struct Builder {
    tree: Tree,
    /// The collections that are open, outermost first.
    open: Vec<Open>,
    anchors: HashMap<usize, NodeId>,
    aliased: usize,
    /// Said once is enough.
    said_too_large: bool,
    first_line: usize,
    /// The value that was read last, if nothing came after it.
    latest: Option<NodeId>,
}

struct Open {
    node: NodeId,
    /// Written with brackets or braces.
    flow: bool,
    /// Of a mapping: the key that waits for its value.
    key: Option<Key>,
    /// Of a mapping: its fields so far.
    names: HashMap<String, NodeId>,
}

enum Key {
    Name(String, Position),
    /// A key that is no text, or came before: it was reported, its value is read but belongs to nothing.
    Invalid(Position),
}

impl Builder {
    fn new(first_line: usize, aliased: usize) -> Self {
        Self {
            tree: Tree { complete: true, ..Tree::broken() },
            open: Vec::new(),
            anchors: HashMap::new(),
            aliased,
            said_too_large: false,
            first_line,
            latest: None,
        }
    }

    /// What is left of a text that broke off here. What stands within an open bracket may have been meant to stand
    /// behind it. The outermost counts, unless it holds the whole document, as in JSON.
    fn break_off(self) -> Tree {
        let Self { mut tree, open, latest, .. } = self;
        let bracket = match open.as_slice() {
            [root, .., last] if root.flow => Some(last.node),
            [root] if root.flow => Some(root.node),
            open => open.iter().find(|open| open.flow).map(|open| open.node),
        };
        tree.untrusted = bracket.into_iter().chain(latest).min();
        tree.open = open.into_iter().map(|open| open.node).collect();
        tree.complete = false;
        tree
    }

    fn position(&self, span: Span) -> Position {
        Position::new(span.start.line() + self.first_line - 1, span.start.col() + 1)
    }

    fn fault(&mut self, position: Position, message: impl Into<String>) {
        let path = self.open.last().map(|open| self.tree.path(open.node)).unwrap_or_default();
        self.tree.faults.push(Fault { position, path, message: message.into() });
    }

    fn take_event(&mut self, event: Event<'_>, span: Span) {
        let position = self.position(span);
        self.latest = None;
        match event {
            Event::Scalar(text, style, anchor, tag) => {
                if self.waits_for_key() {
                    self.take_key(Some(text.into_owned()), position);
                    return;
                }
                let content = match tag.as_deref() {
                    None if style == ScalarStyle::Plain => resolve_plain(&text),
                    None => Content::Text(text.into_owned()),
                    Some(tag) if tag.is_yaml_core_schema_tag("str") => Content::Text(text.into_owned()),
                    Some(_) => {
                        self.fault(position, "has a tag; only !!str is known here");
                        Content::Text(text.into_owned())
                    }
                };
                let id = self.place(position, content);
                self.latest = Some(id);
                self.remember(anchor, id);
            }
            Event::SequenceStart(style, anchor, tag) => {
                let flow = style == StructureStyle::Flow;
                self.open(position, Content::List(Vec::new()), flow, anchor, tag.as_deref())
            }
            Event::MappingStart(style, anchor, tag) => {
                let flow = style == StructureStyle::Flow;
                self.open(position, Content::Map(Vec::new()), flow, anchor, tag.as_deref())
            }
            Event::SequenceEnd | Event::MappingEnd => {
                self.open.pop();
            }
            Event::Alias(anchor) => {
                if self.waits_for_key() {
                    self.take_key(None, position);
                } else {
                    self.take_alias(anchor, position);
                }
            }
            Event::UnresolvedAlias(name) => {
                self.fault(position, format!("refers to the anchor &{name}, which is not there"));
                if self.waits_for_key() {
                    self.take_key(None, position);
                } else {
                    self.place(position, Content::Null);
                }
            }
            _ => {}
        }
    }

    fn waits_for_key(&self) -> bool {
        self.open
            .last()
            .is_some_and(|open| open.key.is_none() && matches!(self.tree.content(open.node), Content::Map(_)))
    }

    fn take_key(&mut self, name: Option<String>, position: Position) {
        let there = |name: &String| self.open.last().and_then(|map| map.names.get(name)).copied();
        let key = match name {
            None => {
                self.fault(position, "a field's name must be a text");
                Key::Invalid(position)
            }
            Some(name) => match there(&name) {
                Some(first) => {
                    self.tree.ambiguous.insert(first);
                    self.fault(position, format!("the field {name} is there twice"));
                    Key::Invalid(position)
                }
                None => Key::Name(name, position),
            },
        };
        if let Some(open) = self.open.last_mut() {
            open.key = Some(key);
        }
    }

    fn open(&mut self, position: Position, content: Content, flow: bool, anchor: usize, tag: Option<&Tag>) {
        if tag.is_some_and(|tag| !tag.is_yaml_core_schema_tag("map") && !tag.is_yaml_core_schema_tag("seq")) {
            self.fault(position, "has a tag; only !!str is known here");
        }
        let id = if self.waits_for_key() {
            self.take_key(None, position);
            self.hide(position, content)
        } else {
            self.place(position, content)
        };
        self.remember(anchor, id);
        self.open.push(Open { node: id, flow, key: None, names: HashMap::new() });
    }

    fn remember(&mut self, anchor: usize, id: NodeId) {
        if anchor != 0 {
            self.anchors.insert(anchor, id);
        }
    }

    /// Keeps a collection that stands where a field's name belongs; the field's value is still to come.
    fn hide(&mut self, position: Position, content: Content) -> NodeId {
        let id = NodeId(self.tree.nodes.len());
        let parent = self.open.last().map(|open| open.node);
        let step = Step::Key { name: "?".to_owned(), position };
        self.tree.nodes.push(Node { parent, step, position, content });
        id
    }

    /// Hangs a new node where the next one belongs.
    fn place(&mut self, position: Position, content: Content) -> NodeId {
        let id = NodeId(self.tree.nodes.len());
        let (parent, step) = match self.open.last_mut() {
            None => (None, Step::Root),
            Some(open) => {
                let parent = open.node;
                let step = match (open.key.take(), self.tree.nodes.get_mut(parent.0).map(|n| &mut n.content))
                {
                    (Some(Key::Name(name, position)), Some(Content::Map(entries))) => {
                        entries.push(id);
                        open.names.insert(name.clone(), id);
                        Step::Key { name, position }
                    }
                    (_, Some(Content::List(items))) => {
                        items.push(id);
                        Step::Index(items.len() - 1)
                    }
                    (Some(Key::Invalid(position)), _) => Step::Key { name: "?".to_owned(), position },
                    _ => Step::Root,
                };
                (Some(parent), step)
            }
        };
        self.tree.nodes.push(Node { parent, step, position, content });
        id
    }

    fn take_alias(&mut self, anchor: usize, position: Position) {
        let Some(original) = self.anchors.get(&anchor).copied() else {
            self.place(position, Content::Null);
            return;
        };
        if self.open.iter().any(|open| open.node == original) {
            self.fault(position, "an alias stands within what it refers to");
            self.place(position, Content::Null);
            return;
        }
        if self.copy(original, self.open.len()).is_none() && !self.said_too_large {
            self.said_too_large = true;
            self.fault(position, "aliases make this file too large or too deep; write it out");
        }
    }

    /// Puts a copy of `original` where the next node belongs; `None` if that would be too much.
    fn copy(&mut self, original: NodeId, depth: usize) -> Option<()> {
        self.aliased += 1;
        if self.aliased > MAX_ALIASED_NODES || depth > MAX_DEPTH {
            self.place(self.tree.position(original), Content::Null);
            return None;
        }
        let position = self.tree.position(original);
        let (children, empty) = match self.tree.content(original) {
            Content::List(items) => (items.clone(), Content::List(Vec::new())),
            Content::Map(entries) => (entries.clone(), Content::Map(Vec::new())),
            Content::Null => (Vec::new(), Content::Null),
            Content::Bool(value) => (Vec::new(), Content::Bool(*value)),
            Content::Unsigned(value) => (Vec::new(), Content::Unsigned(*value)),
            Content::Signed(value) => (Vec::new(), Content::Signed(*value)),
            Content::Float(value) => (Vec::new(), Content::Float(*value)),
            Content::Text(text) => (Vec::new(), Content::Text(text.clone())),
        };
        let copy = self.place(position, empty);
        let mut whole = Some(());
        for child in children {
            let key = match self.tree.step(child) {
                Step::Key { name, position } => Some(Key::Name(name.clone(), *position)),
                Step::Root | Step::Index(_) => None,
            };
            self.open.push(Open { node: copy, flow: false, key, names: HashMap::new() });
            whole = whole.and(self.copy(child, depth + 1));
            self.open.pop();
            whole?;
        }
        whole
    }
}

/// The core schema of YAML 1.2 (section 10.3.2): `yes`, `no`, `on` and `off` are texts, `012` is twelve.
fn resolve_plain(text: &str) -> Content {
    match text {
        "" | "~" | "null" | "Null" | "NULL" => return Content::Null,
        "true" | "True" | "TRUE" => return Content::Bool(true),
        "false" | "False" | "FALSE" => return Content::Bool(false),
        ".nan" | ".NaN" | ".NAN" => return Content::Float(f64::NAN),
        ".inf" | ".Inf" | ".INF" | "+.inf" | "+.Inf" | "+.INF" => return Content::Float(f64::INFINITY),
        "-.inf" | "-.Inf" | "-.INF" => return Content::Float(f64::NEG_INFINITY),
        _ => {}
    }
    let radix =
        |digits: &str, radix| u64::from_str_radix(digits, radix).ok().filter(|_| !digits.starts_with('+'));
    let number = match (text.strip_prefix("0o"), text.strip_prefix("0x")) {
        (Some(octal), _) => radix(octal, 8),
        (_, Some(hex)) => radix(hex, 16),
        _ => None,
    };
    if let Some(number) = number {
        return Content::Unsigned(number);
    }
    let unsigned = text.strip_prefix(['+', '-']).unwrap_or(text);
    if !unsigned.starts_with(|c: char| c.is_ascii_digit() || c == '.')
        || !unsigned.contains(|c: char| c.is_ascii_digit())
        || !unsigned.bytes().all(|b| b.is_ascii_digit() || matches!(b, b'.' | b'e' | b'E' | b'+' | b'-'))
    {
        return Content::Text(text.to_owned());
    }
    if let Ok(number) = text.parse() {
        return Content::Unsigned(number);
    }
    if let Ok(number) = text.parse() {
        return Content::Signed(number);
    }
    text.parse().map_or_else(|_| Content::Text(text.to_owned()), Content::Float)
}
