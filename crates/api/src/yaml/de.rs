//! A tree to a Rust type, with every mistake on the way.
//!
//! serde stops at the first error. So an error is noted with its node, the node counts as absent from then on, and
//! the type is read again, until nothing new is found or there are enough.

use std::cell::RefCell;
use std::collections::HashSet;
use std::fmt;

use serde::de::value::StrDeserializer;
use serde::de::{
    self, DeserializeOwned, DeserializeSeed, Deserializer, IntoDeserializer, MapAccess, SeqAccess, Visitor,
};
use serde::forward_to_deserialize_any;

use super::suggest::suggestion;
use super::tree::{Content, NodeId, Step, Tree};

/// More mistakes than this in one document are not worth reading.
pub(super) const MAX_MISTAKES: usize = 100;

/// A mistake at a node.
pub(super) struct Found {
    pub(super) node: NodeId,
    /// At the node's key rather than at its value.
    pub(super) at_key: bool,
    pub(super) message: String,
}

/// Reads `T` from a node, and the mistakes in it, in the order of the text. What is mistaken is left out of the value;
/// `None` if too little is left.
pub(super) fn read<T: DeserializeOwned>(
    tree: &Tree,
    node: NodeId,
    tolerated: &[&str],
) -> (Option<T>, Vec<Found>) {
    let context = Context { tree, tolerated, state: RefCell::default() };
    loop {
        let before = context.state.borrow().absent.len();
        let result = T::deserialize(Located { context: &context, node });
        match result {
            Ok(value) => {
                let found = context.state.into_inner().found;
                return (Some(value), found);
            }
            Err(error) => context.note(error, node),
        }
        let state = context.state.borrow();
        if state.absent.contains(&node) || state.absent.len() == before || state.found.len() >= MAX_MISTAKES {
            break;
        }
    }
    (None, context.state.into_inner().found)
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
    found: Vec<Found>,
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
}

// === impl Context ===

impl Context<'_> {
    /// Records an error, whose node is absent from now on.
    fn note(&self, error: Error, around: NodeId) {
        let node = error.node.unwrap_or(around);
        let mut state = self.state.borrow_mut();
        if !state.absent.insert(node) {
            return;
        }
        let message = match error.kind {
            ErrorKind::Message(message) => message,
            ErrorKind::MissingField(field) => {
                // It is there, but is itself a mistake that was reported.
                if self.tree.get(node, field).is_some_and(|child| state.absent.contains(&child)) {
                    return;
                }
                format!("the field {field} is missing")
            }
        };
        if state.found.len() < MAX_MISTAKES {
            state.found.push(Found { node, at_key: false, message });
        }
    }

    fn note_unknown(&self, node: NodeId, name: &str, fields: &[&'static str]) {
        let mut state = self.state.borrow_mut();
        if state.absent.insert(node) && state.found.len() < MAX_MISTAKES {
            let message = match suggestion(name, fields) {
                Some(meant) => format!("there is no such field; did you mean {meant}?"),
                None => format!("there is no such field; here can be {}", fields.join(", ")),
            };
            state.found.push(Found { node, at_key: true, message });
        }
    }

    fn is_absent(&self, node: NodeId) -> bool {
        self.state.borrow().absent.contains(&node)
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
                visitor.visit_map(Entries { context: self.context, fields: None, entries, value: None })
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
                    fields: Some(fields),
                    entries,
                    value: None,
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
        match self.items.by_ref().copied().find(|node| !context.is_absent(*node)) {
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
    /// `None`: any key will do.
    fields: Option<&'static [&'static str]>,
    entries: std::slice::Iter<'c, NodeId>,
    value: Option<NodeId>,
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
            self.value = Some(node);
            let key: StrDeserializer<'_, Error> = name.as_str().into_deserializer();
            return seed.deserialize(key).map(Some);
        }
        Ok(None)
    }

    fn next_value_seed<V: DeserializeSeed<'de>>(&mut self, seed: V) -> Result<V::Value, Error> {
        let context = self.context;
        let Some(node) = self.value.take() else {
            return Err(de::Error::custom("a value without a key"));
        };
        seed.deserialize(Located { context, node }).map_err(|error| Located { context, node }.place(error))
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
        }
    }
}

impl std::error::Error for Error {}
