//! Transit over JSON, with its caching codes: <https://github.com/cognitect/transit-format>, version 0.8.
//!
//! What transit has no word for is under a tag of its own: `~#regex`, `~#floats`, `~#doubles`,
//! `~#float`, and whatever tag a value has.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use base64::Engine;
use base64::engine::general_purpose::STANDARD as BASE64;
use serde_json::Value as Json;
use uuid::Uuid;

use super::{CodecError, decimal_digits, number};
use crate::instant;
use crate::keyword::{Keyword, Symbol};
use crate::value::{Regex, Value};

/// Integers beyond this are text, for JavaScript's sake.
const JSON_INT_MAX: i64 = 1 << 53;

/// Marks a map in the form of an array.
const MAP: &str = "^ ";

const CODE_DIGITS: usize = 44;
const CODE_FIRST: u8 = 48;
const CACHE_MAX: usize = CODE_DIGITS * CODE_DIGITS;
const CACHEABLE_MIN: usize = 4;

/// Writes transit.
pub fn write(value: &Value) -> String {
    let mut writer = Writer { cache: BTreeMap::new() };
    let json = match value {
        // A scalar at the top is quoted.
        Value::Vector(_) | Value::List(_) | Value::Set(_) | Value::Map(_) | Value::Tagged(_) => {
            writer.value(value)
        }
        value => {
            let quote = writer.text("~#'", false);
            Json::Array(vec![quote, writer.value(value)])
        }
    };
    json.to_string()
}

/// Reads transit.
///
/// # Errors
/// If it is not JSON, or not transit.
pub fn read(text: &[u8]) -> Result<Value, CodecError> {
    let json: Json = serde_json::from_slice(text)
        .map_err(|error| CodecError::Syntax { format: "transit", reason: error.to_string() })?;
    Reader { cache: Vec::new() }.value(&json, false)
}

fn is_cacheable(text: &str, as_key: bool) -> bool {
    text.len() >= CACHEABLE_MIN
        && (as_key || text.starts_with("~:") || text.starts_with("~$") || text.starts_with("~#"))
}

fn code(index: usize) -> String {
    let digit = |n: usize| char::from(CODE_FIRST + n as u8);
    match (index / CODE_DIGITS, index % CODE_DIGITS) {
        (0, low) => format!("^{}", digit(low)),
        (high, low) => format!("^{}{}", digit(high), digit(low)),
    }
}

fn index_of(code: &str) -> Option<usize> {
    let digit = |byte: u8| {
        let digit = usize::from(byte.checked_sub(CODE_FIRST)?);
        (digit < CODE_DIGITS).then_some(digit)
    };
    match code.as_bytes() {
        [b'^', low] => digit(*low),
        [b'^', high, low] => Some(digit(*high)? * CODE_DIGITS + digit(*low)?),
        _ => None,
    }
}

struct Writer {
    cache: BTreeMap<String, usize>,
}

impl Writer {
    fn text(&mut self, text: &str, as_key: bool) -> Json {
        if !is_cacheable(text, as_key) {
            return Json::from(text);
        }
        if let Some(index) = self.cache.get(text) {
            return Json::from(code(*index));
        }
        if self.cache.len() == CACHE_MAX {
            self.cache.clear();
        }
        self.cache.insert(text.to_owned(), self.cache.len());
        Json::from(text)
    }

    fn tagged(&mut self, tag: &str, value: impl FnOnce(&mut Self) -> Json) -> Json {
        let tag = self.text(&format!("~#{tag}"), false);
        let value = value(self);
        Json::Array(vec![tag, value])
    }

    fn items<'a>(&mut self, items: impl Iterator<Item = &'a Value>) -> Json {
        Json::Array(items.map(|item| self.value(item)).collect())
    }

    fn value(&mut self, value: &Value) -> Json {
        match value {
            Value::Nil => Json::Null,
            Value::Bool(b) => Json::from(*b),
            Value::Long(n) if n.unsigned_abs() < JSON_INT_MAX as u64 => Json::from(*n),
            Value::Double(d) if d.is_finite() => Json::from(*d),
            Value::Float(f) => self.tagged("float", |_| real(f64::from(*f))),
            Value::Regex(regex) => {
                let source = Value::str(regex.as_str());
                self.tagged("regex", |writer| writer.value(&source))
            }
            Value::FloatArray(items) => self.tagged("floats", |_| {
                Json::Array(items.iter().map(|f| real(f64::from(*f))).collect())
            }),
            Value::DoubleArray(items) => {
                self.tagged("doubles", |_| Json::Array(items.iter().map(|d| real(*d)).collect()))
            }
            Value::Vector(items) => self.items(items.iter()),
            Value::List(items) => self.tagged("list", |writer| writer.items(items.iter())),
            Value::Set(items) => self.tagged("set", |writer| writer.items(items.iter())),
            Value::Map(entries) => {
                if entries.keys().all(|key| scalar(key).is_some()) {
                    let mut array = vec![Json::from(MAP)];
                    for (key, value) in entries.iter() {
                        let text = scalar(key).unwrap_or_default();
                        array.push(self.text(&text, true));
                        array.push(self.value(value));
                    }
                    return Json::Array(array);
                }
                self.tagged("cmap", |writer| {
                    writer.items(entries.iter().flat_map(|(key, value)| [key, value]))
                })
            }
            Value::Tagged(inner) => {
                self.tagged(inner.tag.text(), |writer| writer.value(&inner.value))
            }
            value => {
                let text = scalar(value).unwrap_or_default();
                self.text(&text, false)
            }
        }
    }
}

fn real(number: f64) -> Json {
    match number.is_finite() {
        true => Json::from(number),
        false => Json::from(irregular(number)),
    }
}

fn irregular(number: f64) -> &'static str {
    match number {
        number if number.is_nan() => "~zNaN",
        number if number > 0.0 => "~zINF",
        _ => "~z-INF",
    }
}

/// A scalar as text, as keys of maps are; `None` for what cannot be a key.
fn scalar(value: &Value) -> Option<String> {
    Some(match value {
        Value::Nil => "~_".to_owned(),
        Value::Bool(b) => if *b { "~?t" } else { "~?f" }.to_owned(),
        Value::Long(n) => format!("~i{n}"),
        Value::Double(d) if d.is_finite() => format!("~d{d:?}"),
        Value::Double(d) => irregular(*d).to_owned(),
        Value::BigInt(n) => format!("~n{n}"),
        Value::BigDec(_) => format!("~f{}", decimal_digits(value)),
        Value::Str(text) => match text.as_bytes().first() {
            Some(b'~' | b'^' | b'`') => format!("~{text}"),
            _ => text.to_string(),
        },
        Value::Char(c) => format!("~c{c}"),
        Value::Keyword(keyword) => format!("~:{}", keyword.text()),
        Value::Symbol(symbol) => format!("~${}", symbol.text()),
        Value::Uuid(id) => format!("~u{id}"),
        Value::Inst(ms) => format!("~m{ms}"),
        Value::Bytes(bytes) => format!("~b{}", BASE64.encode(bytes)),
        _ => return None,
    })
}

struct Reader {
    cache: Vec<String>,
}

impl Reader {
    /// The text that stands here, out of the cache if it is a code.
    fn text(&mut self, text: &str, as_key: bool) -> Result<String, CodecError> {
        if text.starts_with('^') && text != MAP {
            let known = index_of(text).and_then(|index| self.cache.get(index)).cloned();
            return known.ok_or_else(|| CodecError::Syntax {
                format: "transit",
                reason: format!("cache code {text} stands for nothing"),
            });
        }
        if is_cacheable(text, as_key) {
            if self.cache.len() == CACHE_MAX {
                self.cache.clear();
            }
            self.cache.push(text.to_owned());
        }
        Ok(text.to_owned())
    }

    fn value(&mut self, json: &Json, as_key: bool) -> Result<Value, CodecError> {
        Ok(match json {
            Json::Null => Value::Nil,
            Json::Bool(b) => Value::Bool(*b),
            Json::Number(n) => match (n.as_i64(), n.as_u64()) {
                (Some(n), _) => Value::Long(n),
                (None, Some(n)) => Value::bigint(n),
                (None, None) => Value::Double(n.as_f64().unwrap_or(f64::NAN)),
            },
            Json::String(text) => {
                let text = self.text(text, as_key)?;
                scalar_of(&text)?
            }
            // The verbose form.
            Json::Object(entries) => {
                if let Some((tag, value)) = entries.iter().next().filter(|_| entries.len() == 1)
                    && let Some(tag) = tag.strip_prefix("~#")
                {
                    return self.tagged(tag, value);
                }
                let mut map = BTreeMap::new();
                for (key, value) in entries {
                    let key = self.value(&Json::from(key.as_str()), true)?;
                    map.insert(key, self.value(value, false)?);
                }
                Value::Map(Arc::new(map))
            }
            Json::Array(items) => self.array(items)?,
        })
    }

    fn array(&mut self, items: &[Json]) -> Result<Value, CodecError> {
        let Some(Json::String(first)) = items.first() else {
            return Ok(Value::Vector(self.items(items)?.into()));
        };
        if first == MAP {
            let entries = items[1..].chunks_exact(2);
            if !entries.remainder().is_empty() {
                return Err(CodecError::tag("a map", "an odd number of keys and values"));
            }
            let mut map = BTreeMap::new();
            for entry in entries {
                let key = self.value(&entry[0], true)?;
                map.insert(key, self.value(&entry[1], false)?);
            }
            return Ok(Value::Map(Arc::new(map)));
        }
        let first = self.text(first, false)?;
        match (first.strip_prefix("~#"), items) {
            (Some(tag), [_, value]) => self.tagged(tag, value),
            (Some(tag), _) => Err(CodecError::tag(format!("~#{tag}"), "other than one value")),
            (None, _) => {
                let mut values = vec![scalar_of(&first)?];
                values.extend(self.items(&items[1..])?);
                Ok(Value::Vector(values.into()))
            }
        }
    }

    fn items(&mut self, items: &[Json]) -> Result<Vec<Value>, CodecError> {
        items.iter().map(|item| self.value(item, false)).collect()
    }

    fn tagged(&mut self, tag: &str, json: &Json) -> Result<Value, CodecError> {
        let value = self.value(json, false)?;
        let wrong = || CodecError::tag(format!("~#{tag}"), json);
        let items = || value.as_slice().ok_or_else(wrong);
        Ok(match tag {
            "'" => value,
            "list" => Value::List(items()?.into()),
            "set" => Value::Set(Arc::new(items()?.iter().cloned().collect::<BTreeSet<_>>())),
            "cmap" => {
                let entries = items()?.chunks_exact(2);
                if !entries.remainder().is_empty() {
                    return Err(wrong());
                }
                Value::map(entries.map(|entry| (entry[0].clone(), entry[1].clone())))
            }
            "regex" => {
                let source = value.as_str().ok_or_else(wrong)?;
                Value::Regex(Regex::new(source).map_err(|_| wrong())?)
            }
            "float" => Value::Float(value.to_f64().ok_or_else(wrong)? as f32),
            "floats" => {
                let numbers = items()?.iter().map(|n| n.to_f64().map(|n| n as f32));
                Value::FloatArray(numbers.collect::<Option<_>>().ok_or_else(wrong)?)
            }
            "doubles" => {
                let numbers = items()?.iter().map(Value::to_f64);
                Value::DoubleArray(numbers.collect::<Option<_>>().ok_or_else(wrong)?)
            }
            tag => Value::tagged(tag, value),
        })
    }
}

fn scalar_of(text: &str) -> Result<Value, CodecError> {
    let Some(rest) = text.strip_prefix('~') else { return Ok(Value::str(text)) };
    let wrong = || CodecError::tag("~", text);
    let Some(kind) = rest.chars().next() else { return Err(wrong()) };
    let body = &rest[kind.len_utf8()..];
    let name = || if super::is_name(body) { Ok(body) } else { Err(wrong()) };
    Ok(match kind {
        '~' | '^' | '`' => Value::str(rest),
        '_' => Value::Nil,
        '?' => match body {
            "t" => Value::Bool(true),
            "f" => Value::Bool(false),
            _ => return Err(wrong()),
        },
        ':' => Value::Keyword(Keyword::parse(name()?)),
        '$' => Value::Symbol(Symbol::parse(name()?)),
        'i' => match body.parse() {
            Ok(n) => Value::Long(n),
            Err(_) => number("~i", body, 'N')?,
        },
        'n' => number("~n", body, 'N')?,
        'f' => number("~f", body, 'M')?,
        'd' => Value::Double(body.parse().map_err(|_| wrong())?),
        'z' => Value::Double(match body {
            "NaN" => f64::NAN,
            "INF" => f64::INFINITY,
            "-INF" => f64::NEG_INFINITY,
            _ => return Err(wrong()),
        }),
        'm' => Value::Inst(body.parse().map_err(|_| wrong())?),
        't' => Value::Inst(instant::parse(body).map_err(|_| wrong())?),
        'u' => Value::Uuid(Uuid::try_parse(body).map_err(|_| wrong())?),
        'b' => Value::bytes(BASE64.decode(body).map_err(|_| wrong())?),
        'c' => {
            let mut chars = body.chars();
            match (chars.next(), chars.next()) {
                (Some(c), None) => Value::Char(c),
                _ => return Err(wrong()),
            }
        }
        'r' => Value::str(body),
        _ => return Err(wrong()),
    })
}
