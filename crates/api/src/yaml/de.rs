//! A tree to a Rust type, with every mistake on the way.
//!
//! serde stops at the first error. So an error is noted with its node, the node counts as absent from then on, and
//! the type is read again, until nothing new is found. What must be there and is absent is made up, so that there is
//! always a value, and further mistakes can be found in it.

use std::cell::RefCell;
use std::collections::{HashMap, HashSet};
use std::fmt;

use serde::de::value::StrDeserializer;
use serde::de::{
    self, DeserializeOwned, DeserializeSeed, Deserializer, IntoDeserializer, MapAccess, SeqAccess, Visitor,
};
use serde::forward_to_deserialize_any;

use super::doubt::Doubts;
use super::neutral::Neutral;
use super::suggest::{no_such_field, suggestion};
use super::tree::{Content, NodeId, Step, Tree};

/// More mistakes than this in one document are not worth reading.
pub(super) const MAX_MISTAKES: usize = 100;
/// Nodes that are read again for the mistakes of one document: every one of its mistakes costs a reading.
const MAX_REREAD_NODES: usize = 20_000_000;

/// A mistake at a node.
pub(super) struct Found {
    pub(super) node: NodeId,
    /// At the node's key rather than at its value.
    pub(super) at_key: bool,
    pub(super) message: String,
}

/// What was read from a node.
pub(super) struct Reading<T> {
    /// What is mistaken is left out of it or made up. `None` only if there are too many mistakes to go on.
    pub(super) value: Option<T>,
    /// At most [`MAX_MISTAKES`].
    pub(super) found: Vec<Found>,
    /// How many mistakes there are besides `found`.
    pub(super) more: usize,
    /// Whether the search was given up.
    pub(super) unfinished: bool,
    /// Where the value is not what was written.
    pub(super) doubts: Doubts,
}

/// Reads `T` from a node, and the mistakes in it.
pub(super) fn read<T: DeserializeOwned>(tree: &Tree, node: NodeId, tolerated: &[&str]) -> Reading<T> {
    let context = Context { tree, tolerated, state: RefCell::default() };
    let mut reread = 0;
    let value = loop {
        let error = match T::deserialize(Located { context: &context, node }) {
            Ok(value) => break Some(value),
            Err(error) => error,
        };
        context.note(error, node);
        if context.is_absent(node) {
            break Neutral::make();
        }
        reread += tree.len();
        if reread > MAX_REREAD_NODES {
            break None;
        }
    };
    let unfinished = value.is_none();
    let State { found, more, doubts, .. } = context.state.into_inner();
    Reading { value, found, more, unfinished, doubts }
}

struct Context<'t> {
    tree: &'t Tree,
    /// Fields of the root that are known elsewhere and read by nobody here.
    tolerated: &'t [&'t str],
    state: RefCell<State>,
}

#[derive(Default)]
struct State {
    absent: HashSet<NodeId>,
    /// Absent entries of lists for which nothing can be made up: the entries behind them move up.
    dropped: HashSet<NodeId>,
    /// Fields that a mapping must have and has not.
    made_up: HashMap<NodeId, Vec<&'static str>>,
    found: Vec<Found>,
    more: usize,
    doubts: Doubts,
}

#[derive(Clone, Copy)]
struct Located<'c, 't> {
    context: &'c Context<'t>,
    node: NodeId,
}

#[derive(Debug)]
struct Error {
    /// Where, as soon as that is known.
    node: Option<NodeId>,
    kind: ErrorKind,
}

#[derive(Debug)]
enum ErrorKind {
    Message(String),
    MissingField(&'static str),
    /// An entry of a list is absent, and nothing can be made up for it.
    NoStandIn,
}

// === impl Context ===

impl Context<'_> {
    /// Records an error. What it is about is absent or made up from now on, so that the next reading gets further.
    fn note(&self, error: Error, around: NodeId) {
        let tree = self.tree;
        let node = error.node.unwrap_or(around);
        let state = &mut *self.state.borrow_mut();
        match error.kind {
            ErrorKind::MissingField(field) => {
                let fields = state.made_up.entry(node).or_default();
                if fields.contains(&field) {
                    state.absent.insert(node);
                    return;
                }
                fields.push(field);
                let path = tree.path(node);
                state.doubts.at(if path.is_empty() { field.to_owned() } else { format!("{path}.{field}") });
                // It is there, but is itself a mistake that was reported; or it may have been to come.
                let reported = tree.get(node, field).is_some_and(|child| state.absent.contains(&child));
                if !reported && !tree.is_open(node) {
                    state.found(tree, node, false, || format!("the field {field} is missing"));
                }
            }
            ErrorKind::NoStandIn => {
                let list = tree.parent(node).unwrap_or(around);
                state.doubts.at(tree.path(list));
                if !state.dropped.insert(node) {
                    state.absent.insert(around);
                }
            }
            ErrorKind::Message(message) => {
                state.doubts.at(tree.path(node));
                if state.absent.insert(node) {
                    state.found(tree, node, false, || message);
                } else {
                    // Never twice for one node; if it were, this ends it.
                    state.absent.insert(around);
                }
            }
        }
    }

    fn note_unknown(&self, node: NodeId, name: &str, fields: &[&'static str]) {
        let state = &mut *self.state.borrow_mut();
        if !state.absent.insert(node) {
            return;
        }
        state.found(self.tree, node, true, || no_such_field(name, fields));
        if let Some(map) = self.tree.parent(node) {
            state.doubts.around(self.tree.path(map));
        }
    }

    fn is_absent(&self, node: NodeId) -> bool {
        self.state.borrow().absent.contains(&node)
    }

    fn is_dropped(&self, node: NodeId) -> bool {
        self.state.borrow().dropped.contains(&node)
    }

    /// The next of the made up fields of `map`.
    fn made_up(&self, map: NodeId, index: usize) -> Option<&'static str> {
        self.state.borrow().made_up.get(&map).and_then(|fields| fields.get(index)).copied()
    }
}

// === impl State ===

impl State {
    /// Where the text broke off, what seems to be a mistake may be none.
    fn found(&mut self, tree: &Tree, node: NodeId, at_key: bool, message: impl FnOnce() -> String) {
        if !tree.is_trusted(node) {
            return;
        }
        if self.found.len() < MAX_MISTAKES {
            self.found.push(Found { node, at_key, message: message() });
        } else {
            self.more += 1;
        }
    }
}

// === impl Located ===

impl<'c> Located<'c, '_> {
    fn content(&self) -> &'c Content {
        self.context.tree.content(self.node)
    }

    fn wrong(&self, wanted: impl fmt::Display) -> Error {
        let kind = match self.content() {
            Content::Null => return self.error(format!("is empty; it must be {wanted}")),
            Content::Bool(_) => "true or false",
            Content::Unsigned(_) | Content::Signed(_) | Content::Float(_) => "a number",
            Content::Text(_) => "a text",
            Content::List(_) => "a list",
            Content::Map(_) => "a mapping",
        };
        self.error(format!("must be {wanted}, not {kind}"))
    }

    fn error(&self, message: String) -> Error {
        Error { node: Some(self.node), kind: ErrorKind::Message(message) }
    }

    fn whole_number<T>(&self, least: T, most: T) -> Result<T, Error>
    where
        T: TryFrom<u64> + TryFrom<i64> + fmt::Display,
    {
        let wanted = || format!("a whole number from {least} to {most}");
        let number = match self.content() {
            Content::Unsigned(number) => T::try_from(*number).ok(),
            Content::Signed(number) => T::try_from(*number).ok(),
            Content::Float(_) => None,
            _ => return Err(self.wrong(wanted())),
        };
        number.ok_or_else(|| self.error(format!("must be {}", wanted())))
    }

    fn place(self, error: Error) -> Error {
        Error { node: error.node.or(Some(self.node)), ..error }
    }
}

impl<'de> Deserializer<'de> for Located<'_, '_> {
    type Error = Error;

    fn deserialize_any<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Error> {
        match self.content() {
            Content::Null => visitor.visit_unit(),
            Content::Bool(value) => visitor.visit_bool(*value),
            Content::Unsigned(value) => visitor.visit_u64(*value),
            Content::Signed(value) => visitor.visit_i64(*value),
            Content::Float(value) => visitor.visit_f64(*value),
            Content::Text(text) => visitor.visit_str(text),
            Content::List(_) => self.deserialize_seq(visitor),
            Content::Map(_) => self.deserialize_map(visitor),
        }
        .map_err(|error| self.place(error))
    }

    fn deserialize_bool<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Error> {
        match self.content() {
            Content::Bool(value) => visitor.visit_bool(*value),
            _ => Err(self.wrong("true or false")),
        }
    }

    fn deserialize_u8<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Error> {
        visitor.visit_u8(self.whole_number(u8::MIN, u8::MAX)?)
    }

    fn deserialize_u16<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Error> {
        visitor.visit_u16(self.whole_number(u16::MIN, u16::MAX)?)
    }

    fn deserialize_u32<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Error> {
        visitor.visit_u32(self.whole_number(u32::MIN, u32::MAX)?)
    }

    fn deserialize_i32<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Error> {
        visitor.visit_i32(self.whole_number(i32::MIN, i32::MAX)?)
    }

    fn deserialize_i64<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Error> {
        visitor.visit_i64(self.whole_number(i64::MIN, i64::MAX)?)
    }

    fn deserialize_f64<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Error> {
        match self.content() {
            Content::Unsigned(value) => visitor.visit_u64(*value),
            Content::Signed(value) => visitor.visit_i64(*value),
            Content::Float(value) if value.is_finite() => visitor.visit_f64(*value),
            Content::Float(_) => Err(self.error("must be a finite number".to_owned())),
            _ => Err(self.wrong("a number")),
        }
    }

    fn deserialize_str<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Error> {
        match self.content() {
            Content::Text(text) => visitor.visit_str(text).map_err(|error| self.place(error)),
            Content::Bool(_) | Content::Unsigned(_) | Content::Signed(_) | Content::Float(_) => {
                Err(self.wrong("a text (put it in quotes)"))
            }
            _ => Err(self.wrong("a text")),
        }
    }

    fn deserialize_string<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Error> {
        self.deserialize_str(visitor)
    }

    fn deserialize_identifier<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Error> {
        self.deserialize_str(visitor)
    }

    fn deserialize_option<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Error> {
        match self.content() {
            Content::Null => visitor.visit_none(),
            _ => visitor.visit_some(self),
        }
    }

    fn deserialize_seq<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Error> {
        match self.content() {
            Content::List(items) => visitor.visit_seq(Items { context: self.context, items: items.iter() }),
            _ => Err(self.wrong("a list")),
        }
    }

    fn deserialize_map<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Error> {
        match self.content() {
            Content::Map(entries) => {
                let entries = entries.iter();
                visitor.visit_map(Entries {
                    context: self.context,
                    map: self.node,
                    fields: None,
                    entries,
                    made_up: 0,
                    value: Value::None,
                })
            }
            _ => Err(self.wrong("a mapping")),
        }
        .map_err(|error| self.place(error))
    }

    fn deserialize_struct<V: Visitor<'de>>(
        self,
        _: &'static str,
        fields: &'static [&'static str],
        visitor: V,
    ) -> Result<V::Value, Error> {
        match self.content() {
            Content::Map(entries) => {
                let entries = entries.iter();
                visitor.visit_map(Entries {
                    context: self.context,
                    map: self.node,
                    fields: Some(fields),
                    entries,
                    made_up: 0,
                    value: Value::None,
                })
            }
            _ => Err(self.wrong(format_args!("a mapping with {}", fields.join(", ")))),
        }
        .map_err(|error| self.place(error))
    }

    fn deserialize_enum<V: Visitor<'de>>(
        self,
        _: &'static str,
        variants: &'static [&'static str],
        visitor: V,
    ) -> Result<V::Value, Error> {
        match self.content() {
            Content::Text(text) => {
                let name: StrDeserializer<'_, Error> = text.as_str().into_deserializer();
                visitor.visit_enum(name).map_err(|error| self.place(error))
            }
            _ => Err(self.wrong(choice(variants))),
        }
    }

    fn deserialize_newtype_struct<V: Visitor<'de>>(
        self,
        _: &'static str,
        visitor: V,
    ) -> Result<V::Value, Error> {
        visitor.visit_newtype_struct(self)
    }

    forward_to_deserialize_any! {
        i8 i16 i128 u64 u128 f32 char bytes byte_buf unit unit_struct tuple tuple_struct ignored_any
    }
}

fn choice(names: &[&str]) -> String {
    match names {
        [] => String::new(),
        [one] => (*one).to_owned(),
        [first @ .., last] => format!("{} or {last}", first.join(", ")),
    }
}

// === Items: SeqAccess ===

struct Items<'c, 't> {
    context: &'c Context<'t>,
    items: std::slice::Iter<'c, NodeId>,
}

impl<'de> SeqAccess<'de> for Items<'_, '_> {
    type Error = Error;

    fn next_element_seed<T: DeserializeSeed<'de>>(&mut self, seed: T) -> Result<Option<T::Value>, Error> {
        let context = self.context;
        match self.items.by_ref().copied().find(|node| !context.is_dropped(*node)) {
            Some(node) if context.is_absent(node) => seed
                .deserialize(Neutral)
                .map(Some)
                .map_err(|_| Error { node: Some(node), kind: ErrorKind::NoStandIn }),
            Some(node) => seed
                .deserialize(Located { context, node })
                .map(Some)
                .map_err(|error| Located { context, node }.place(error)),
            None => Ok(None),
        }
    }

    fn size_hint(&self) -> Option<usize> {
        Some(self.items.len())
    }
}

// === Entries: MapAccess ===

struct Entries<'c, 't> {
    context: &'c Context<'t>,
    map: NodeId,
    /// `None`: any key will do.
    fields: Option<&'static [&'static str]>,
    entries: std::slice::Iter<'c, NodeId>,
    /// How many of the made up fields came already, after the others.
    made_up: usize,
    value: Value,
}

/// The value of the key that came last.
enum Value {
    None,
    At(NodeId),
    MadeUp,
}

impl<'de> MapAccess<'de> for Entries<'_, '_> {
    type Error = Error;

    fn next_key_seed<K: DeserializeSeed<'de>>(&mut self, seed: K) -> Result<Option<K::Value>, Error> {
        for node in self.entries.by_ref().copied() {
            if self.context.is_absent(node) {
                continue;
            }
            let Step::Key { name, .. } = self.context.tree.step(node) else {
                continue;
            };
            if let Some(fields) = self.fields {
                if !fields.contains(&name.as_str()) {
                    if !self.context.tolerated.contains(&name.as_str()) {
                        self.context.note_unknown(node, name, fields);
                    }
                    continue;
                }
                // A field without a value is a field left out, as in the Kubernetes API.
                if matches!(self.context.tree.content(node), Content::Null) {
                    continue;
                }
            }
            self.value = Value::At(node);
            let key: StrDeserializer<'_, Error> = name.as_str().into_deserializer();
            return seed.deserialize(key).map(Some);
        }
        let Some(field) = self.context.made_up(self.map, self.made_up) else {
            return Ok(None);
        };
        self.made_up += 1;
        self.value = Value::MadeUp;
        let key: StrDeserializer<'_, Error> = field.into_deserializer();
        seed.deserialize(key).map(Some)
    }

    fn next_value_seed<V: DeserializeSeed<'de>>(&mut self, seed: V) -> Result<V::Value, Error> {
        let context = self.context;
        match std::mem::replace(&mut self.value, Value::None) {
            Value::At(node) => seed
                .deserialize(Located { context, node })
                .map_err(|error| Located { context, node }.place(error)),
            Value::MadeUp => seed.deserialize(Neutral).map_err(|error| Error::new(error.to_string())),
            Value::None => Err(de::Error::custom("a value without a key")),
        }
    }
}

// === impl Error ===

impl Error {
    fn new(message: String) -> Self {
        Self { node: None, kind: ErrorKind::Message(message) }
    }
}

impl de::Error for Error {
    fn custom<T: fmt::Display>(message: T) -> Self {
        Self::new(message.to_string())
    }

    fn invalid_type(unexpected: de::Unexpected<'_>, expected: &dyn de::Expected) -> Self {
        let kind = match unexpected {
            de::Unexpected::Unit => return Self::new(format!("is empty; it must be {expected}")),
            de::Unexpected::Bool(_) => "true or false",
            de::Unexpected::Unsigned(_) | de::Unexpected::Signed(_) | de::Unexpected::Float(_) => "a number",
            de::Unexpected::Str(_) => "a text",
            de::Unexpected::Seq => "a list",
            de::Unexpected::Map => "a mapping",
            _ => "something else",
        };
        Self::new(format!("must be {expected}, not {kind}"))
    }

    fn unknown_variant(variant: &str, expected: &'static [&'static str]) -> Self {
        let meant = suggestion(variant, expected).map(|meant| format!("; did you mean {meant}?"));
        Self::new(format!("is {variant:?}; it must be {}{}", choice(expected), meant.unwrap_or_default()))
    }

    fn missing_field(field: &'static str) -> Self {
        Self { node: None, kind: ErrorKind::MissingField(field) }
    }
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.kind {
            ErrorKind::Message(message) => f.write_str(message),
            ErrorKind::MissingField(field) => write!(f, "the field {field} is missing"),
            ErrorKind::NoStandIn => f.write_str("is wrong, and nothing can stand in for it"),
        }
    }
}

impl std::error::Error for Error {}
