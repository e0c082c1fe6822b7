//! The tags that have a meaning here.

use std::sync::Arc;

use uuid::Uuid;

use super::error::ReadErrorKind;
use crate::instant;
use crate::keyword::{Keyword, Symbol};
use crate::value::{Tagged, Value};

/// A tag under which the reader makes a value of its own.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Tag {
    Inst,
    Uuid,
    Bytes,
    Float,
    Floats,
    Doubles,
    Int,
    BigInt,
    Keyword,
    Symbol,
    Tagged,
}

impl Tag {
    pub(super) fn named(tag: &str) -> Option<Self> {
        Some(match tag {
            "inst" => Self::Inst,
            "uuid" => Self::Uuid,
            "bytes" | "dh/bytes" => Self::Bytes,
            "float" | "dh/f32" => Self::Float,
            "floats" | "dh/f32s" => Self::Floats,
            "doubles" | "dh/f64s" => Self::Doubles,
            "dh/i32" => Self::Int,
            "dh/bigint" => Self::BigInt,
            "keyword" => Self::Keyword,
            "symbol" => Self::Symbol,
            "tagged" => Self::Tagged,
            _ => return None,
        })
    }

    fn name(self) -> &'static str {
        match self {
            Self::Inst => "inst",
            Self::Uuid => "uuid",
            Self::Bytes => "bytes",
            Self::Float => "float",
            Self::Floats => "floats",
            Self::Doubles => "doubles",
            Self::Int => "dh/i32",
            Self::BigInt => "dh/bigint",
            Self::Keyword => "keyword",
            Self::Symbol => "symbol",
            Self::Tagged => "tagged",
        }
    }

    /// The value of this tag before `value`.
    pub(super) fn read(self, value: &Value) -> Result<Value, ReadErrorKind> {
        self.of(value).map_err(|reason| ReadErrorKind::InvalidTagged { tag: self.name(), reason })
    }

    fn of(self, value: &Value) -> Result<Value, String> {
        let text = || value.as_str().ok_or_else(|| needs("a string", value));
        match self {
            Self::Inst => Ok(Value::Inst(instant::parse(text()?)?)),
            Self::Uuid => match text()? {
                text if text.len() == 36 => {
                    Uuid::try_parse(text).map(Value::Uuid).map_err(|e| e.to_string())
                }
                _ => Err("needs 36 characters".into()),
            },
            Self::Bytes => hex(text()?).ok_or_else(|| "needs pairs of hexadecimal digits".into()),
            Self::Float => Ok(Value::Float(float(value)?)),
            Self::Floats => Ok(Value::FloatArray(numbers(value, float)?)),
            Self::Doubles => Ok(Value::DoubleArray(numbers(value, double)?)),
            Self::Int => match value {
                Value::Long(n) if i32::try_from(*n).is_ok() => Ok(value.clone()),
                _ => Err(needs("a 32-bit integer", value)),
            },
            Self::BigInt => match value {
                Value::BigInt(_) => Ok(value.clone()),
                Value::Long(n) => Ok(Value::bigint(*n)),
                Value::Str(s) if s.len() <= 4096 => s
                    .parse()
                    .map(|n: num_bigint::BigInt| n.into())
                    .map_err(|_| needs("an integer", value)),
                _ => Err(needs("an integer", value)),
            },
            Self::Keyword => {
                let (namespace, name) = name_parts(value)?;
                Ok(Value::Keyword(Keyword::new(namespace, name)))
            }
            Self::Symbol => {
                let (namespace, name) = name_parts(value)?;
                Ok(Value::Symbol(Symbol::new(namespace, name)))
            }
            Self::Tagged => match value.as_vector() {
                Some([Value::Symbol(tag), value]) => {
                    Ok(Value::Tagged(Arc::new(Tagged { tag: tag.clone(), value: value.clone() })))
                }
                _ => Err("needs a vector of a symbol and a form".into()),
            },
        }
    }
}

fn needs(what: &str, found: &Value) -> String {
    format!("needs {what}, found a {}", found.type_name())
}

fn name_parts(value: &Value) -> Result<(Option<&str>, &str), String> {
    match value.as_vector() {
        Some([Value::Nil, Value::Str(name)]) => Ok((None, name)),
        Some([Value::Str(namespace), Value::Str(name)]) => Ok((Some(namespace), name)),
        _ => Err("needs a vector of namespace (or nil) and name".into()),
    }
}

fn hex(text: &str) -> Option<Value> {
    let digits = text.as_bytes();
    if !digits.len().is_multiple_of(2) {
        return None;
    }
    let nibble = |byte: u8| char::from(byte).to_digit(16);
    let bytes: Option<Vec<u8>> = digits
        .chunks_exact(2)
        .map(|pair| u8::try_from(nibble(pair[0])? * 16 + nibble(pair[1])?).ok())
        .collect();
    bytes.map(Value::bytes)
}

fn numbers<T>(value: &Value, one: fn(&Value) -> Result<T, String>) -> Result<Arc<[T]>, String> {
    let items = value.as_slice().ok_or_else(|| needs("a vector of numbers", value))?;
    items.iter().map(one).collect()
}

fn double(value: &Value) -> Result<f64, String> {
    value.to_f64().ok_or_else(|| needs("a number", value))
}

fn float(value: &Value) -> Result<f32, String> {
    match value {
        Value::Float(f) => Ok(*f),
        _ => {
            let d = double(value)?;
            let f = d as f32;
            match f.is_infinite() && d.is_finite() {
                true => Err("out of the range of a float".into()),
                false => Ok(f),
            }
        }
    }
}
