//! A deserializer whose input is a value.

use std::sync::Arc;

use num_traits::ToPrimitive;
use serde::de::value::{MapDeserializer, SeqDeserializer};
use serde::de::{
    DeserializeSeed, Deserializer, EnumAccess, Error, IntoDeserializer, VariantAccess, Visitor,
};
use serde::forward_to_deserialize_any;

use super::coded::parts;
use super::{BridgeError, VALUE};
use crate::value::Value;

pub(super) struct FromValue(pub(super) Value);

impl<'de> IntoDeserializer<'de, BridgeError> for FromValue {
    type Deserializer = Self;

    fn into_deserializer(self) -> Self {
        self
    }
}

fn seq<'de, V: Visitor<'de>>(
    visitor: V,
    items: impl Iterator<Item = Value>,
) -> Result<V::Value, BridgeError> {
    let mut items = SeqDeserializer::new(items.map(FromValue));
    let made = visitor.visit_seq(&mut items)?;
    items.end()?;
    Ok(made)
}

impl<'de> Deserializer<'de> for FromValue {
    type Error = BridgeError;

    fn deserialize_any<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, BridgeError> {
        match self.0 {
            Value::Nil => visitor.visit_unit(),
            Value::Bool(b) => visitor.visit_bool(b),
            Value::Long(n) | Value::Inst(n) => visitor.visit_i64(n),
            Value::Double(d) => visitor.visit_f64(d),
            Value::Float(f) => visitor.visit_f32(f),
            Value::BigInt(n) => match (n.to_u64(), n.to_i128(), n.to_u128()) {
                (Some(n), ..) => visitor.visit_u64(n),
                (_, Some(n), _) => visitor.visit_i128(n),
                (_, _, Some(n)) => visitor.visit_u128(n),
                _ => visitor.visit_string(n.to_string()),
            },
            Value::BigDec(d) => visitor.visit_string(d.to_string()),
            Value::Str(s) => visitor.visit_str(&s),
            Value::Char(c) => visitor.visit_char(c),
            Value::Keyword(k) => visitor.visit_str(k.text()),
            Value::Symbol(s) => visitor.visit_str(s.text()),
            Value::Uuid(u) => visitor.visit_bytes(u.as_bytes()),
            Value::Regex(r) => visitor.visit_str(r.as_str()),
            Value::Bytes(bytes) => visitor.visit_bytes(&bytes),
            Value::FloatArray(items) => seq(visitor, items.iter().map(|f| Value::Float(*f))),
            Value::DoubleArray(items) => seq(visitor, items.iter().map(|d| Value::Double(*d))),
            Value::List(items) | Value::Vector(items) => seq(visitor, items.iter().cloned()),
            Value::Set(items) => seq(visitor, Arc::unwrap_or_clone(items).into_iter()),
            Value::Map(entries) => {
                let entries = Arc::unwrap_or_clone(entries).into_iter();
                let mut entries = MapDeserializer::new(entries.map(|(k, v)| (Self(k), Self(v))));
                let made = visitor.visit_map(&mut entries)?;
                entries.end()?;
                Ok(made)
            }
            Value::Tagged(tagged) => Self(tagged.value.clone()).deserialize_any(visitor),
        }
    }

    fn deserialize_option<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, BridgeError> {
        match self.0 {
            Value::Nil => visitor.visit_none(),
            _ => visitor.visit_some(self),
        }
    }

    fn deserialize_newtype_struct<V: Visitor<'de>>(
        self,
        name: &'static str,
        visitor: V,
    ) -> Result<V::Value, BridgeError> {
        match name {
            VALUE => visitor.visit_newtype_struct(WholeValue(self.0)),
            _ => visitor.visit_newtype_struct(self),
        }
    }

    fn deserialize_enum<V: Visitor<'de>>(
        self,
        _name: &'static str,
        _variants: &'static [&'static str],
        visitor: V,
    ) -> Result<V::Value, BridgeError> {
        let (variant, content) = match self.0 {
            Value::Map(entries) if entries.len() == 1 => {
                match Arc::unwrap_or_clone(entries).pop_first() {
                    Some((variant, content)) => (variant, Some(content)),
                    None => return Err(BridgeError::custom("an enum needs a map of one entry")),
                }
            }
            Value::Keyword(_) | Value::Symbol(_) | Value::Str(_) => (self.0, None),
            other => {
                return Err(BridgeError::custom(format_args!(
                    "expected a keyword or a map of one entry, found a {}",
                    other.type_name()
                )));
            }
        };
        visitor.visit_enum(Variant { variant, content })
    }

    fn is_human_readable(&self) -> bool {
        false
    }

    forward_to_deserialize_any! {
        bool i8 i16 i32 i64 i128 u8 u16 u32 u64 u128 f32 f64 char str string bytes byte_buf unit
        unit_struct seq tuple tuple_struct map struct identifier ignored_any
    }
}

/// Asked for as a [`Value`]: what is not one of serde's own types comes as code and parts.
struct WholeValue(Value);

impl<'de> Deserializer<'de> for WholeValue {
    type Error = BridgeError;

    fn deserialize_any<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, BridgeError> {
        match parts(&self.0) {
            Some((code, parts)) => {
                seq(visitor, std::iter::once(Value::Long(code.into())).chain(parts))
            }
            None => FromValue(self.0).deserialize_any(visitor),
        }
    }

    forward_to_deserialize_any! {
        bool i8 i16 i32 i64 i128 u8 u16 u32 u64 u128 f32 f64 char str string bytes byte_buf option unit
        unit_struct newtype_struct seq tuple tuple_struct map struct enum identifier ignored_any
    }
}

struct Variant {
    variant: Value,
    content: Option<Value>,
}

impl<'de> EnumAccess<'de> for Variant {
    type Error = BridgeError;
    type Variant = Content;

    fn variant_seed<S: DeserializeSeed<'de>>(
        self,
        seed: S,
    ) -> Result<(S::Value, Content), BridgeError> {
        Ok((seed.deserialize(FromValue(self.variant))?, Content(self.content)))
    }
}

struct Content(Option<Value>);

impl Content {
    fn needed(self) -> Result<FromValue, BridgeError> {
        self.0.map(FromValue).ok_or_else(|| BridgeError::custom("this variant needs content"))
    }
}

impl<'de> VariantAccess<'de> for Content {
    type Error = BridgeError;

    fn unit_variant(self) -> Result<(), BridgeError> {
        match self.0 {
            None | Some(Value::Nil) => Ok(()),
            Some(_) => Err(BridgeError::custom("this variant has no content")),
        }
    }

    fn newtype_variant_seed<S: DeserializeSeed<'de>>(
        self,
        seed: S,
    ) -> Result<S::Value, BridgeError> {
        seed.deserialize(self.needed()?)
    }

    fn tuple_variant<V: Visitor<'de>>(
        self,
        _len: usize,
        visitor: V,
    ) -> Result<V::Value, BridgeError> {
        self.needed()?.deserialize_any(visitor)
    }

    fn struct_variant<V: Visitor<'de>>(
        self,
        _fields: &'static [&'static str],
        visitor: V,
    ) -> Result<V::Value, BridgeError> {
        self.needed()?.deserialize_any(visitor)
    }
}
