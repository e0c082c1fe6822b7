//! JSON with tags: what JSON has no word for is an array of a tag and what it is made of.
//!
//! | | |
//! |---|---|
//! | keyword, symbol | `["!kw", "ns/name"]`, `["!sym", "?e"]` |
//! | set | `["!set", [1, 2]]` |
//! | uuid | `["!uuid", "00000000-0000-0000-0000-000000000000"]` |
//! | instant | `["!date", "1767225600000"]`: milliseconds since 1970 as text |
//! | big integer, big decimal | `["!bigint", "42"]`, `["!bigdec", "1.50"]` |
//! | character, bytes, regex | `["!char", "a"]`, `["!bytes", "AP8="]` (base64), `["!regex", "[a-z]+"]` |
//! | float, arrays of numbers | `["!float", 1.5]`, `["!floats", […]]`, `["!doubles", […]]` |
//! | NaN and infinities | `["!double", "NaN"]` |
//! | a map with other keys than names and numbers | `["!map", [[k, v], …]]` |
//! | what is tagged otherwise, by a name with a namespace | `["!datahike/DB", {…}]` |
//!
//! The first six are Datahike's. Keys of an object are read as keywords, and written without their
//! colon; lists are written as arrays and read as vectors.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use base64::Engine;
use base64::engine::general_purpose::STANDARD as BASE64;
use serde::ser::{Serialize, SerializeMap, SerializeSeq, Serializer};
use serde_json::Value as Json;
use uuid::Uuid;

use super::{CodecError, decimal_digits, number};
use crate::keyword::{Keyword, Symbol};
use crate::limits::Limits;
use crate::value::{Regex, Value};

/// A value that serializes as tagged JSON, piece by piece.
#[derive(Clone, Copy, Debug)]
pub struct Tagged<'a>(pub &'a Value);

/// A value that serializes as JSON for people: keywords and symbols are their text, sets are arrays,
/// instants RFC 3339, tags are left out. What it was cannot always be told from it.
#[derive(Clone, Copy, Debug)]
pub struct Plain<'a>(pub &'a Value);

/// Writes tagged JSON.
pub fn write(value: &Value) -> String {
    serde_json::to_string(&Tagged(value)).unwrap_or_default()
}

/// Reads tagged JSON.
///
/// # Errors
/// If it is not JSON, or something stands behind a tag that does not belong there.
pub fn read(text: &[u8]) -> Result<Value, CodecError> {
    let json: Json = serde_json::from_slice(text)
        .map_err(|error| CodecError::Syntax { format: "JSON", reason: error.to_string() })?;
    from_json(&json)
}

fn from_json(json: &Json) -> Result<Value, CodecError> {
    Ok(match json {
        Json::Null => Value::Nil,
        Json::Bool(b) => Value::Bool(*b),
        Json::Number(n) => match (n.as_i64(), n.as_u64()) {
            (Some(n), _) => Value::Long(n),
            (None, Some(n)) => Value::bigint(n),
            (None, None) => Value::Double(n.as_f64().unwrap_or(f64::NAN)),
        },
        Json::String(text) => Value::str(text.as_str()),
        Json::Array(items) => match items.as_slice() {
            [Json::String(tag), payload] if tag.starts_with('!') => match tagged(tag, payload)? {
                Some(value) => value,
                None => Value::vector([Value::str(tag.as_str()), from_json(payload)?]),
            },
            items => Value::Vector(items.iter().map(from_json).collect::<Result<_, _>>()?),
        },
        Json::Object(entries) => {
            let mut map = BTreeMap::new();
            for (key, value) in entries {
                map.insert(Value::keyword(key), from_json(value)?);
            }
            Value::Map(Arc::new(map))
        }
    })
}

/// The value of a tag; `None` if it is none that is known.
fn tagged(tag: &str, payload: &Json) -> Result<Option<Value>, CodecError> {
    let wrong = || CodecError::tag(tag, payload);
    let text = || payload.as_str().ok_or_else(wrong);
    let items = || payload.as_array().ok_or_else(wrong);
    Ok(Some(match &tag[1..] {
        "kw" => Value::Keyword(Keyword::parse(name(text()?).ok_or_else(wrong)?)),
        "sym" => Value::Symbol(Symbol::parse(name(text()?).ok_or_else(wrong)?)),
        "set" => Value::Set(Arc::new(
            items()?.iter().map(from_json).collect::<Result<BTreeSet<_>, _>>()?,
        )),
        "list" => Value::List(items()?.iter().map(from_json).collect::<Result<_, _>>()?),
        "uuid" => Value::Uuid(Uuid::try_parse(text()?).map_err(|_| wrong())?),
        "date" => {
            let ms = payload.as_i64().or_else(|| payload.as_str()?.parse().ok());
            Value::Inst(ms.ok_or_else(wrong)?)
        }
        "bigint" => number(tag, text()?, 'N')?,
        "bigdec" => number(tag, text()?, 'M')?,
        "char" => {
            let mut chars = text()?.chars();
            match (chars.next(), chars.next()) {
                (Some(c), None) => Value::Char(c),
                _ => return Err(wrong()),
            }
        }
        "bytes" => Value::bytes(BASE64.decode(text()?).map_err(|_| wrong())?),
        "regex" => Value::Regex(Regex::new(text()?).map_err(|_| wrong())?),
        "float" => Value::Float(real(payload).ok_or_else(wrong)? as f32),
        "double" => Value::Double(real(payload).ok_or_else(wrong)?),
        "floats" => {
            let numbers = items()?.iter().map(|n| real(n).map(|n| n as f32));
            Value::FloatArray(numbers.collect::<Option<_>>().ok_or_else(wrong)?)
        }
        "doubles" => {
            Value::DoubleArray(items()?.iter().map(real).collect::<Option<_>>().ok_or_else(wrong)?)
        }
        "map" => {
            let mut map = BTreeMap::new();
            for entry in items()? {
                let Some([key, value]) = entry.as_array().map(Vec::as_slice) else {
                    return Err(wrong());
                };
                map.insert(from_json(key)?, from_json(value)?);
            }
            Value::Map(Arc::new(map))
        }
        name if name.contains('/') => Value::tagged(name, from_json(payload)?),
        _ => return Ok(None),
    }))
}

/// The text of a keyword or symbol, without a colon that some write.
fn name(text: &str) -> Option<&str> {
    let name = text.strip_prefix(':').unwrap_or(text);
    (super::is_name(name) && name.len() <= Limits::DEFAULT.string_bytes).then_some(name)
}

fn real(json: &Json) -> Option<f64> {
    match json {
        Json::String(text) => Some(match text.as_str() {
            "NaN" => f64::NAN,
            "Infinity" => f64::INFINITY,
            "-Infinity" => f64::NEG_INFINITY,
            _ => return None,
        }),
        json => json.as_f64(),
    }
}

impl Serialize for Tagged<'_> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let tag = |tag: &str, text: &str| (format!("!{tag}"), text.to_owned());
        match self.0 {
            Value::Nil => serializer.serialize_unit(),
            Value::Bool(b) => serializer.serialize_bool(*b),
            Value::Long(n) => serializer.serialize_i64(*n),
            Value::Double(d) if d.is_finite() => serializer.serialize_f64(*d),
            Value::Double(d) => tag("double", irregular(*d)).serialize(serializer),
            Value::Float(f) if f.is_finite() => ("!float", f).serialize(serializer),
            Value::Float(f) => tag("float", irregular(f64::from(*f))).serialize(serializer),
            Value::BigInt(n) => tag("bigint", &n.to_string()).serialize(serializer),
            Value::BigDec(_) => tag("bigdec", &decimal_digits(self.0)).serialize(serializer),
            Value::Str(text) => serializer.serialize_str(text),
            Value::Char(c) => tag("char", &c.to_string()).serialize(serializer),
            Value::Keyword(keyword) => ("!kw", keyword.text()).serialize(serializer),
            Value::Symbol(symbol) => ("!sym", symbol.text()).serialize(serializer),
            Value::Uuid(id) => tag("uuid", &id.to_string()).serialize(serializer),
            Value::Inst(ms) => tag("date", &ms.to_string()).serialize(serializer),
            Value::Regex(regex) => ("!regex", regex.as_str()).serialize(serializer),
            Value::Bytes(bytes) => tag("bytes", &BASE64.encode(bytes)).serialize(serializer),
            Value::FloatArray(items) => {
                let items: Vec<f64> = items.iter().map(|f| f64::from(*f)).collect();
                ("!floats", Reals(&items)).serialize(serializer)
            }
            Value::DoubleArray(items) => ("!doubles", Reals(items)).serialize(serializer),
            Value::List(items) | Value::Vector(items) => Items(items.iter()).serialize(serializer),
            Value::Set(items) => ("!set", Items(items.iter())).serialize(serializer),
            Value::Map(entries) => {
                if !entries.keys().all(is_name) {
                    let pairs: Vec<_> = entries.iter().map(|(k, v)| (Self(k), Self(v))).collect();
                    return ("!map", pairs).serialize(serializer);
                }
                let mut map = serializer.serialize_map(Some(entries.len()))?;
                for (key, value) in entries.iter() {
                    map.serialize_entry(&key_text(key), &Self(value))?;
                }
                map.end()
            }
            Value::Tagged(inner) => {
                (format!("!{}", inner.tag.text()), Self(&inner.value)).serialize(serializer)
            }
        }
    }
}

struct Items<I>(I);

impl<'a, I: Iterator<Item = &'a Value> + Clone> Serialize for Items<I> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_seq(self.0.clone().map(Tagged))
    }
}

struct Reals<'a>(&'a [f64]);

impl Serialize for Reals<'_> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let mut seq = serializer.serialize_seq(Some(self.0.len()))?;
        for item in self.0 {
            match item.is_finite() {
                true => seq.serialize_element(item)?,
                false => seq.serialize_element(irregular(*item))?,
            }
        }
        seq.end()
    }
}

fn irregular(number: f64) -> &'static str {
    match number {
        number if number.is_nan() => "NaN",
        number if number > 0.0 => "Infinity",
        _ => "-Infinity",
    }
}

/// Whether it can stand as the key of an object, as in Datahike.
fn is_name(key: &Value) -> bool {
    matches!(key, Value::Keyword(_) | Value::Symbol(_) | Value::Str(_) | Value::Long(_))
}

fn key_text(key: &Value) -> String {
    match key {
        Value::Keyword(keyword) => keyword.text().to_owned(),
        Value::Symbol(symbol) => symbol.text().to_owned(),
        Value::Str(text) => text.to_string(),
        Value::Char(c) => c.to_string(),
        key => key.to_string(),
    }
}

impl Serialize for Plain<'_> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        match self.0 {
            Value::Keyword(_) | Value::Symbol(_) | Value::Uuid(_) | Value::Char(_) => {
                serializer.serialize_str(&plain_text(self.0))
            }
            Value::Inst(_) | Value::Regex(_) | Value::BigInt(_) | Value::BigDec(_) => {
                serializer.serialize_str(&plain_text(self.0))
            }
            Value::Double(d) if !d.is_finite() => serializer.serialize_str(irregular(*d)),
            Value::Float(f) => Plain(&Value::Double(f64::from(*f))).serialize(serializer),
            Value::Bytes(bytes) => serializer.serialize_str(&BASE64.encode(bytes)),
            Value::FloatArray(items) => {
                let items: Vec<f64> = items.iter().map(|f| f64::from(*f)).collect();
                Reals(&items).serialize(serializer)
            }
            Value::DoubleArray(items) => Reals(items).serialize(serializer),
            Value::List(items) | Value::Vector(items) => {
                serializer.collect_seq(items.iter().map(Plain))
            }
            Value::Set(items) => serializer.collect_seq(items.iter().map(Plain)),
            Value::Map(entries) => {
                let mut map = serializer.serialize_map(Some(entries.len()))?;
                for (key, value) in entries.iter() {
                    map.serialize_entry(&plain_text(key), &Plain(value))?;
                }
                map.end()
            }
            Value::Tagged(inner) => Plain(&inner.value).serialize(serializer),
            Value::Nil | Value::Bool(_) | Value::Long(_) | Value::Double(_) | Value::Str(_) => {
                Tagged(self.0).serialize(serializer)
            }
        }
    }
}

fn plain_text(value: &Value) -> String {
    match value {
        Value::Uuid(id) => id.to_string(),
        Value::Inst(_) => value.to_string().trim_start_matches("#inst ").trim_matches('"').into(),
        Value::Regex(regex) => regex.as_str().to_owned(),
        Value::BigInt(n) => n.to_string(),
        Value::BigDec(_) => decimal_digits(value),
        value => key_text(value),
    }
}
