//! `Serialize` and `Deserialize` of [`Value`], compact and lossless in self-describing binary formats
//! such as MessagePack.
//!
//! nil, booleans, longs, doubles, floats, strings, byte arrays and maps are what the format has for
//! them. Everything else is a sequence that begins with one of the codes below, vectors included.

use std::fmt;
use std::sync::Arc;

use bigdecimal::BigDecimal;
use num_bigint::BigInt;
use serde::de::{self, Deserialize, DeserializeSeed, Deserializer, MapAccess, SeqAccess, Visitor};
use serde::ser::{Serialize, SerializeMap, SerializeSeq, Serializer};
use uuid::Uuid;

use super::VALUE;
use crate::keyword::{Keyword, Symbol};
use crate::limits::Limits;
use crate::order::{canonical_f32, canonical_f64};
use crate::value::{Regex, Tagged, Value};

const VECTOR: u8 = 0;
const KEYWORD: u8 = 1;
const SYMBOL: u8 = 2;
const LIST: u8 = 3;
const SET: u8 = 4;
const UUID: u8 = 5;
const INST: u8 = 6;
const BIG_INT: u8 = 7;
const BIG_DEC: u8 = 8;
const CHAR: u8 = 9;
const REGEX: u8 = 10;
const FLOATS: u8 = 11;
const DOUBLES: u8 = 12;
const TAGGED: u8 = 13;

/// The bytes of the largest integer within [`Limits::digits`], rounded up.
const BIG_INT_BYTES_MAX: usize = Limits::DEFAULT.digits * 10 / 24 + 1;

impl Serialize for Value {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_newtype_struct(VALUE, &Coded(self))
    }
}

impl<'de> Deserialize<'de> for Value {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        ValueVisitor { depth: Limits::DEFAULT.depth }.deserialize(deserializer)
    }
}

macro_rules! named {
    ($type:ident, $variant:path, $expected:literal) => {
        impl Serialize for $type {
            fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
                $variant(self.clone()).serialize(serializer)
            }
        }

        impl<'de> Deserialize<'de> for $type {
            fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
                match Value::deserialize(deserializer)? {
                    $variant(name) => Ok(name),
                    other => Err(de::Error::custom(format_args!(
                        "expected a {}, found a {}",
                        $expected,
                        other.type_name()
                    ))),
                }
            }
        }
    };
}

named!(Keyword, Value::Keyword, "keyword");
named!(Symbol, Value::Symbol, "symbol");

struct Coded<'a>(&'a Value);

impl Serialize for Coded<'_> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        match self.0 {
            Value::Nil => serializer.serialize_unit(),
            Value::Bool(b) => serializer.serialize_bool(*b),
            Value::Long(n) => serializer.serialize_i64(*n),
            Value::Double(d) => serializer.serialize_f64(canonical_f64(*d)),
            Value::Float(f) => serializer.serialize_f32(canonical_f32(*f)),
            Value::Str(s) => serializer.serialize_str(s),
            Value::Bytes(bytes) => serializer.serialize_bytes(bytes),
            Value::Map(entries) => {
                let mut map = serializer.serialize_map(Some(entries.len()))?;
                entries.iter().try_for_each(|(k, v)| map.serialize_entry(k, v))?;
                map.end()
            }
            Value::Vector(items) => sequence(serializer, VECTOR, items.len(), items.iter()),
            Value::List(items) => sequence(serializer, LIST, items.len(), items.iter()),
            Value::Set(items) => sequence(serializer, SET, items.len(), items.iter()),
            scalar => match parts(scalar) {
                Some((code, parts)) => sequence(serializer, code, parts.len(), parts.iter()),
                None => serializer.serialize_unit(),
            },
        }
    }
}

fn sequence<'a, S: Serializer>(
    serializer: S,
    code: u8,
    len: usize,
    items: impl Iterator<Item = &'a Value>,
) -> Result<S::Ok, S::Error> {
    let mut seq = serializer.serialize_seq(Some(len + 1))?;
    seq.serialize_element(&code)?;
    for item in items {
        seq.serialize_element(item)?;
    }
    seq.end()
}

/// Code and parts of whatever is written as a sequence.
pub(super) fn parts(value: &Value) -> Option<(u8, Vec<Value>)> {
    let name = |whole: bool, text: &str, namespace: Option<&str>, name: &str| match whole {
        true => vec![Value::from(text)],
        false => vec![Value::from(namespace), Value::from(name)],
    };
    Some(match value {
        Value::Vector(items) => (VECTOR, items.to_vec()),
        Value::List(items) => (LIST, items.to_vec()),
        Value::Set(items) => (SET, items.iter().cloned().collect()),
        Value::Keyword(k) => (KEYWORD, name(k.is_its_text(), k.text(), k.namespace(), k.name())),
        Value::Symbol(s) => (SYMBOL, name(s.is_its_text(), s.text(), s.namespace(), s.name())),
        Value::Uuid(u) => (UUID, vec![Value::bytes(*u.as_bytes())]),
        Value::Inst(ms) => (INST, vec![Value::Long(*ms)]),
        Value::BigInt(n) => (BIG_INT, vec![Value::bytes(n.to_signed_bytes_be())]),
        Value::BigDec(d) => {
            let (unscaled, scale) = d.as_bigint_and_exponent();
            (BIG_DEC, vec![Value::bytes(unscaled.to_signed_bytes_be()), Value::Long(scale)])
        }
        Value::Char(c) => (CHAR, vec![Value::from(u32::from(*c))]),
        Value::Regex(r) => (REGEX, vec![Value::from(r.as_str())]),
        Value::FloatArray(items) => {
            let bytes: Vec<u8> =
                items.iter().flat_map(|f| canonical_f32(*f).to_le_bytes()).collect();
            (FLOATS, vec![Value::bytes(bytes)])
        }
        Value::DoubleArray(items) => {
            let bytes: Vec<u8> =
                items.iter().flat_map(|d| canonical_f64(*d).to_le_bytes()).collect();
            (DOUBLES, vec![Value::bytes(bytes)])
        }
        Value::Tagged(tagged) => {
            (TAGGED, vec![Value::Symbol(tagged.tag.clone()), tagged.value.clone()])
        }
        _ => return None,
    })
}

/// The reverse of [`parts`].
pub(super) fn assemble(code: u64, parts: Vec<Value>) -> Result<Value, String> {
    let code = u8::try_from(code).map_err(|_| format!("unknown value code {code}"))?;
    let value = match (code, parts.as_slice()) {
        (VECTOR, _) => Value::Vector(parts.into()),
        (LIST, _) => Value::List(parts.into()),
        (SET, items) => {
            let set = Value::set(items.iter().cloned());
            match set.as_set().is_some_and(|set| set.len() == items.len()) {
                true => set,
                false => return Err("duplicate element in set".into()),
            }
        }
        (KEYWORD, [Value::Str(text)]) => Value::Keyword(named(text, Keyword::parse)?),
        (KEYWORD, [Value::Nil, Value::Str(name)]) => Value::Keyword(Keyword::new(None, name)),
        (KEYWORD, [Value::Str(ns), Value::Str(name)]) => {
            Value::Keyword(Keyword::new(Some(ns), name))
        }
        (SYMBOL, [Value::Str(text)]) => Value::Symbol(named(text, Symbol::parse)?),
        (SYMBOL, [Value::Nil, Value::Str(name)]) => Value::Symbol(Symbol::new(None, name)),
        (SYMBOL, [Value::Str(ns), Value::Str(name)]) => Value::Symbol(Symbol::new(Some(ns), name)),
        (UUID, [Value::Bytes(bytes)]) => {
            Value::Uuid(Uuid::from_slice(bytes).map_err(|_| "a uuid has 16 bytes")?)
        }
        (INST, [Value::Long(ms)]) => Value::Inst(*ms),
        (BIG_INT, [Value::Bytes(bytes)]) => Value::from(big_int(bytes)?),
        (BIG_DEC, [Value::Bytes(bytes), Value::Long(scale)]) => {
            if scale.unsigned_abs() > Limits::DEFAULT.exponent.unsigned_abs() {
                return Err(format!("decimal exponent beyond {}", Limits::DEFAULT.exponent));
            }
            Value::from(BigDecimal::new(big_int(bytes)?, *scale))
        }
        (CHAR, [Value::Long(code)]) => {
            let c = u32::try_from(*code).ok().and_then(char::from_u32);
            Value::Char(c.ok_or("not a character")?)
        }
        (REGEX, [Value::Str(source)]) => {
            Value::Regex(Regex::new(source).map_err(|e| e.to_string())?)
        }
        (FLOATS, [Value::Bytes(bytes)]) => match bytes.as_chunks::<4>() {
            (items, []) => {
                Value::FloatArray(items.iter().map(|b| f32::from_le_bytes(*b)).collect())
            }
            _ => return Err("floats come in four bytes".into()),
        },
        (DOUBLES, [Value::Bytes(bytes)]) => match bytes.as_chunks::<8>() {
            (items, []) => {
                Value::DoubleArray(items.iter().map(|b| f64::from_le_bytes(*b)).collect())
            }
            _ => return Err("doubles come in eight bytes".into()),
        },
        (TAGGED, [Value::Symbol(tag), value]) => {
            Value::Tagged(Arc::new(Tagged { tag: tag.clone(), value: value.clone() }))
        }
        (KEYWORD..=TAGGED, _) => return Err(format!("wrong parts for value code {code}")),
        _ => return Err(format!("unknown value code {code}")),
    };
    Ok(value)
}

/// A leading colon would be dropped by parsing, so that two texts made one name.
fn named<N>(text: &str, parse: impl Fn(&str) -> N) -> Result<N, String> {
    match text.starts_with(':') {
        true => Err("a name must not begin with a colon".into()),
        false => Ok(parse(text)),
    }
}

fn big_int(bytes: &[u8]) -> Result<BigInt, String> {
    match bytes.len() > BIG_INT_BYTES_MAX {
        true => Err(format!("number of more than {} digits", Limits::DEFAULT.digits)),
        false => Ok(BigInt::from_signed_bytes_be(bytes)),
    }
}

#[derive(Clone, Copy)]
struct ValueVisitor {
    /// Levels that may still open.
    depth: usize,
}

impl ValueVisitor {
    fn deeper<E: de::Error>(self) -> Result<Self, E> {
        match self.depth.checked_sub(1) {
            Some(depth) => Ok(Self { depth }),
            None => Err(E::custom(format_args!(
                "nested more than {} levels deep",
                Limits::DEFAULT.depth
            ))),
        }
    }
}

fn check_items<E: de::Error>(count: usize) -> Result<(), E> {
    match count > Limits::DEFAULT.collection_items {
        true => Err(E::custom(format_args!(
            "more than {} items in one collection",
            Limits::DEFAULT.collection_items
        ))),
        false => Ok(()),
    }
}

impl<'de> DeserializeSeed<'de> for ValueVisitor {
    type Value = Value;

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<Value, D::Error> {
        deserializer.deserialize_newtype_struct(VALUE, self)
    }
}

impl<'de> Visitor<'de> for ValueVisitor {
    type Value = Value;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a value")
    }

    fn visit_newtype_struct<D: Deserializer<'de>>(self, inner: D) -> Result<Value, D::Error> {
        inner.deserialize_any(self)
    }

    fn visit_unit<E>(self) -> Result<Value, E> {
        Ok(Value::Nil)
    }

    fn visit_none<E>(self) -> Result<Value, E> {
        Ok(Value::Nil)
    }

    fn visit_some<D: Deserializer<'de>>(self, inner: D) -> Result<Value, D::Error> {
        inner.deserialize_any(self)
    }

    fn visit_bool<E>(self, b: bool) -> Result<Value, E> {
        Ok(Value::Bool(b))
    }

    fn visit_i64<E>(self, n: i64) -> Result<Value, E> {
        Ok(Value::Long(n))
    }

    fn visit_u64<E>(self, n: u64) -> Result<Value, E> {
        Ok(i64::try_from(n).map_or_else(|_| Value::bigint(n), Value::Long))
    }

    fn visit_f32<E>(self, f: f32) -> Result<Value, E> {
        Ok(Value::Float(f))
    }

    fn visit_f64<E>(self, d: f64) -> Result<Value, E> {
        Ok(Value::Double(d))
    }

    fn visit_str<E>(self, s: &str) -> Result<Value, E> {
        Ok(Value::from(s))
    }

    fn visit_bytes<E>(self, bytes: &[u8]) -> Result<Value, E> {
        Ok(Value::bytes(bytes))
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut seq: A) -> Result<Value, A::Error> {
        let inner = self.deeper()?;
        let code: u64 =
            seq.next_element()?.ok_or_else(|| de::Error::custom("a value code is missing"))?;
        let mut parts = Vec::with_capacity(seq.size_hint().unwrap_or(0).min(4096));
        while let Some(part) = seq.next_element_seed(inner)? {
            parts.push(part);
            check_items(parts.len())?;
        }
        assemble(code, parts).map_err(de::Error::custom)
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Value, A::Error> {
        let inner = self.deeper()?;
        let mut entries = std::collections::BTreeMap::new();
        while let Some(key) = map.next_key_seed(inner)? {
            let value = map.next_value_seed(inner)?;
            if entries.insert(key, value).is_some() {
                return Err(de::Error::custom("duplicate key in map"));
            }
            check_items(entries.len() * 2)?;
        }
        Ok(Value::from(entries))
    }
}
