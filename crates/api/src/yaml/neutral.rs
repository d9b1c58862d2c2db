//! Stand-ins for what a manifest should hold and doesn't: empty texts and lists, zeros, `false`.
//!
//! They only serve to read the rest of the manifest, and never come into force.

use std::fmt;

use serde::de::value::StrDeserializer;
use serde::de::{
    self, DeserializeOwned, DeserializeSeed, Deserializer, IntoDeserializer, MapAccess, Visitor,
};
use serde::forward_to_deserialize_any;

/// Gives every type its stand-in, as far as it has one.
#[derive(Clone, Copy)]
pub(super) struct Neutral;

/// The type wants something else.
#[derive(Debug)]
pub(super) struct NoStandIn;

/// A mapping with every field of a type.
struct Fields(std::slice::Iter<'static, &'static str>);

// === impl Neutral ===

impl Neutral {
    pub(super) fn make<T: DeserializeOwned>() -> Option<T> {
        T::deserialize(Self).ok()
    }
}

impl<'de> Deserializer<'de> for Neutral {
    type Error = NoStandIn;

    fn deserialize_any<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, NoStandIn> {
        visitor.visit_str("")
    }

    fn deserialize_bool<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, NoStandIn> {
        visitor.visit_bool(false)
    }

    fn deserialize_u8<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, NoStandIn> {
        visitor.visit_u8(0)
    }

    fn deserialize_u16<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, NoStandIn> {
        visitor.visit_u16(0)
    }

    fn deserialize_u32<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, NoStandIn> {
        visitor.visit_u32(0)
    }

    fn deserialize_i32<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, NoStandIn> {
        visitor.visit_i32(0)
    }

    fn deserialize_i64<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, NoStandIn> {
        visitor.visit_i64(0)
    }

    fn deserialize_f64<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, NoStandIn> {
        visitor.visit_f64(0.0)
    }

    fn deserialize_option<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, NoStandIn> {
        visitor.visit_none()
    }

    fn deserialize_seq<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, NoStandIn> {
        visitor.visit_seq(de::value::SeqDeserializer::new(std::iter::empty::<&str>()))
    }

    fn deserialize_map<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, NoStandIn> {
        visitor.visit_map(Fields([].iter()))
    }

    fn deserialize_struct<V: Visitor<'de>>(
        self,
        _: &'static str,
        fields: &'static [&'static str],
        visitor: V,
    ) -> Result<V::Value, NoStandIn> {
        visitor.visit_map(Fields(fields.iter()))
    }

    fn deserialize_enum<V: Visitor<'de>>(
        self,
        _: &'static str,
        variants: &'static [&'static str],
        visitor: V,
    ) -> Result<V::Value, NoStandIn> {
        let name: StrDeserializer<'_, NoStandIn> =
            variants.first().copied().unwrap_or_default().into_deserializer();
        visitor.visit_enum(name)
    }

    fn deserialize_newtype_struct<V: Visitor<'de>>(
        self,
        _: &'static str,
        visitor: V,
    ) -> Result<V::Value, NoStandIn> {
        visitor.visit_newtype_struct(self)
    }

    forward_to_deserialize_any! {
        i8 i16 i128 u64 u128 f32 char str string bytes byte_buf unit unit_struct tuple tuple_struct identifier ignored_any
    }
}

// === impl Fields ===

impl<'de> MapAccess<'de> for Fields {
    type Error = NoStandIn;

    fn next_key_seed<K: DeserializeSeed<'de>>(&mut self, seed: K) -> Result<Option<K::Value>, NoStandIn> {
        let Some(field) = self.0.next() else {
            return Ok(None);
        };
        let key: StrDeserializer<'_, NoStandIn> = (*field).into_deserializer();
        seed.deserialize(key).map(Some)
    }

    fn next_value_seed<V: DeserializeSeed<'de>>(&mut self, seed: V) -> Result<V::Value, NoStandIn> {
        seed.deserialize(Neutral)
    }
}

// === impl NoStandIn ===

impl de::Error for NoStandIn {
    fn custom<T: fmt::Display>(_: T) -> Self {
        Self
    }
}

impl fmt::Display for NoStandIn {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("nothing can stand in for it")
    }
}

impl std::error::Error for NoStandIn {}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{Cidr, MailDomain, MailGateway, Manifest, Upstream};

    #[test]
    fn both_kinds_can_be_made_of_nothing() {
        let gateway: Option<MailGateway> = Neutral::make();
        assert_eq!(gateway.map(|gateway| gateway.spec.hostname), Some(String::new()));
        let domain = Neutral::make().map(|domain: MailDomain| Manifest::MailDomain(domain));
        assert!(domain.is_some_and(|domain| domain.metadata().name.is_empty()));
        assert_eq!(Neutral::make(), Some(Upstream::default()));
    }

    #[test]
    fn what_has_no_neutral_value_gets_none() {
        assert_eq!(Neutral::make::<Cidr>(), None);
    }
}
