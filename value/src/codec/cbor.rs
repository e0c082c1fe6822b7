//! CBOR (RFC 8949).
//!
//! | | |
//! |---|---|
//! | keyword, symbol | tag 39 (identifier) of the text, with a colon for keywords |
//! | set, list | tag 258, tag 102 of an array |
//! | uuid | tag 37 of 16 bytes |
//! | instant | tag 1 of seconds since 1970, or of a fraction of them |
//! | big integer, big decimal | tags 2 and 3; tag 4 |
//! | regex | tag 35 of its source |
//! | float and double arrays | tags 85 and 86 (RFC 8746, little endian) |
//! | character, an instant thousands of years away, and what is tagged otherwise | tag 27 of `[name, value]` |

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use bigdecimal::BigDecimal;
use minicbor::data::{IanaTag, Tag, Type};
use minicbor::{Decoder, Encoder};
use num_bigint::{BigInt, Sign};
use num_traits::ToPrimitive;
use uuid::Uuid;

use super::CodecError;
use crate::keyword::{Keyword, Symbol};
use crate::limits::Limits;
use crate::value::{Regex, Value};

const LIST: u64 = 102;
const GENERIC: u64 = 27;
const REGEX: u64 = 35;
const UUID: u64 = 37;
const IDENTIFIER: u64 = 39;
const FLOATS: u64 = 85;
const DOUBLES: u64 = 86;
const SET: u64 = 258;
const CHARACTER: &str = "char";
const INSTANT: &str = "inst";
const LIMITS: Limits = Limits::DEFAULT;

/// Elements for which memory is set aside before they are there.
const RESERVED_MAX: usize = 1_024;

/// Writes CBOR.
pub fn write(value: &Value) -> Vec<u8> {
    let mut encoder = Encoder::new(Vec::new());
    // Writing to memory does not fail.
    let _ = encode(&mut encoder, value);
    encoder.into_writer()
}

/// Reads one value and nothing after it.
///
/// # Errors
/// If it is not CBOR, is cut short, or has something behind a tag that does not belong there.
pub fn read(bytes: &[u8]) -> Result<Value, CodecError> {
    let mut decoder = Decoder::new(bytes);
    let value = decode(&mut decoder, LIMITS.depth)?;
    if decoder.position() != bytes.len() {
        return Err(syntax(format!("bytes after the value, at {}", decoder.position())));
    }
    Ok(value)
}

fn syntax(reason: impl Into<String>) -> CodecError {
    CodecError::Syntax { format: "CBOR", reason: reason.into() }
}

impl From<minicbor::decode::Error> for CodecError {
    fn from(error: minicbor::decode::Error) -> Self {
        syntax(error.to_string())
    }
}

type Encoded = Result<(), minicbor::encode::Error<std::convert::Infallible>>;

fn encode(to: &mut Encoder<Vec<u8>>, value: &Value) -> Encoded {
    match value {
        Value::Nil => to.null()?,
        Value::Bool(b) => to.bool(*b)?,
        Value::Long(n) => to.i64(*n)?,
        Value::Double(d) => to.f64(*d)?,
        Value::Float(f) => to.f32(*f)?,
        Value::BigInt(n) => return encode_bigint(to, n),
        Value::BigDec(decimal) => {
            let (digits, scale) = decimal.as_bigint_and_exponent();
            to.tag(IanaTag::Decimal)?.array(2)?.i64(scale.saturating_neg())?;
            return match digits.to_i64() {
                Some(small) => to.i64(small).map(drop),
                None => encode_bigint(to, &digits),
            };
        }
        Value::Str(text) => to.str(text)?,
        Value::Char(c) => {
            to.tag(Tag::new(GENERIC))?.array(2)?.str(CHARACTER)?.str(c.encode_utf8(&mut [0; 4]))?
        }
        Value::Keyword(keyword) => {
            to.tag(Tag::new(IDENTIFIER))?.str(&format!(":{}", keyword.text()))?
        }
        Value::Symbol(symbol) => to.tag(Tag::new(IDENTIFIER))?.str(symbol.text())?,
        Value::Uuid(id) => to.tag(Tag::new(UUID))?.bytes(id.as_bytes())?,
        Value::Inst(ms) if ms % 1000 == 0 => to.tag(IanaTag::Timestamp)?.i64(ms / 1000)?,
        // Further than a fraction of seconds can tell exactly.
        Value::Inst(ms) if ms.unsigned_abs() >> 50 != 0 => {
            to.tag(Tag::new(GENERIC))?.array(2)?.str(INSTANT)?.i64(*ms)?
        }
        Value::Inst(ms) => to.tag(IanaTag::Timestamp)?.f64(*ms as f64 / 1000.0)?,
        Value::Regex(regex) => to.tag(Tag::new(REGEX))?.str(regex.as_str())?,
        Value::Bytes(bytes) => to.bytes(bytes)?,
        Value::FloatArray(items) => {
            let bytes: Vec<u8> = items.iter().flat_map(|f| f.to_le_bytes()).collect();
            to.tag(Tag::new(FLOATS))?.bytes(&bytes)?
        }
        Value::DoubleArray(items) => {
            let bytes: Vec<u8> = items.iter().flat_map(|d| d.to_le_bytes()).collect();
            to.tag(Tag::new(DOUBLES))?.bytes(&bytes)?
        }
        Value::Vector(items) => return encode_items(to, items.len(), items.iter()),
        Value::List(items) => {
            to.tag(Tag::new(LIST))?;
            return encode_items(to, items.len(), items.iter());
        }
        Value::Set(items) => {
            to.tag(Tag::new(SET))?;
            return encode_items(to, items.len(), items.iter());
        }
        Value::Map(entries) => {
            to.map(entries.len() as u64)?;
            for (key, value) in entries.iter() {
                encode(to, key)?;
                encode(to, value)?;
            }
            return Ok(());
        }
        Value::Tagged(inner) => {
            to.tag(Tag::new(GENERIC))?.array(2)?.str(inner.tag.text())?;
            return encode(to, &inner.value);
        }
    };
    Ok(())
}

fn encode_items<'a>(
    to: &mut Encoder<Vec<u8>>,
    len: usize,
    items: impl Iterator<Item = &'a Value>,
) -> Encoded {
    to.array(len as u64)?;
    for item in items {
        encode(to, item)?;
    }
    Ok(())
}

fn encode_bigint(to: &mut Encoder<Vec<u8>>, n: &BigInt) -> Encoded {
    if n.sign() == Sign::Minus {
        // A negative number is -1 - n.
        let (_, bytes) = (-n - 1i32).to_bytes_be();
        return to.tag(IanaTag::NegBignum)?.bytes(&bytes).map(drop);
    }
    let (_, bytes) = n.to_bytes_be();
    to.tag(IanaTag::PosBignum)?.bytes(&bytes).map(drop)
}

fn decode(from: &mut Decoder<'_>, depth: usize) -> Result<Value, CodecError> {
    let depth = depth
        .checked_sub(1)
        .ok_or(CodecError::Limit { what: "levels of nesting", max: LIMITS.depth })?;
    Ok(match from.datatype()? {
        Type::Null | Type::Undefined => {
            from.skip()?;
            Value::Nil
        }
        Type::Bool => Value::Bool(from.bool()?),
        Type::U8
        | Type::U16
        | Type::U32
        | Type::U64
        | Type::I8
        | Type::I16
        | Type::I32
        | Type::I64
        | Type::Int => {
            let n = i128::from(from.int()?);
            i64::try_from(n).map_or_else(|_| Value::bigint(n), Value::Long)
        }
        Type::F16 | Type::F32 => Value::Float(crate::canonical_f32(from.f32()?)),
        Type::F64 => Value::Double(crate::canonical_f64(from.f64()?)),
        Type::String | Type::StringIndef => Value::str(text(from)?),
        Type::Bytes | Type::BytesIndef => Value::bytes(bytes(from)?),
        Type::Array | Type::ArrayIndef => Value::Vector(items(from, depth)?.into()),
        Type::Map | Type::MapIndef => {
            let len = from.map()?;
            let mut map = BTreeMap::new();
            let mut read = 0;
            while more(from, len, read)? {
                let key = decode(from, depth)?;
                map.insert(key, decode(from, depth)?);
                read += 1;
            }
            Value::Map(Arc::new(map))
        }
        Type::Tag => {
            let tag = from.tag()?.as_u64();
            tagged(tag, from, depth)?
        }
        other => return Err(syntax(format!("{other} is no value"))),
    })
}

fn more(from: &mut Decoder<'_>, len: Option<u64>, read: usize) -> Result<bool, CodecError> {
    if read > LIMITS.collection_items {
        let max = LIMITS.collection_items;
        return Err(CodecError::Limit { what: "elements in a collection", max });
    }
    match len {
        Some(len) => Ok((read as u64) < len),
        None if from.datatype()? == Type::Break => {
            from.skip()?;
            Ok(false)
        }
        None => Ok(true),
    }
}

fn items(from: &mut Decoder<'_>, depth: usize) -> Result<Vec<Value>, CodecError> {
    let len = from.array()?;
    let reserved = len.map_or(0, |len| len.min(RESERVED_MAX as u64) as usize);
    let mut items = Vec::with_capacity(reserved);
    while more(from, len, items.len())? {
        items.push(decode(from, depth)?);
    }
    Ok(items)
}

fn text(from: &mut Decoder<'_>) -> Result<String, CodecError> {
    let mut all = String::new();
    for piece in from.str_iter()? {
        all.push_str(piece?);
    }
    Ok(all)
}

fn bytes(from: &mut Decoder<'_>) -> Result<Vec<u8>, CodecError> {
    let mut all = Vec::new();
    for piece in from.bytes_iter()? {
        all.extend_from_slice(piece?);
    }
    Ok(all)
}

fn tagged(tag: u64, from: &mut Decoder<'_>, depth: usize) -> Result<Value, CodecError> {
    let wrong = |found: &str| CodecError::tag(format!("tag {tag}"), found);
    let big = |from: &mut Decoder<'_>| -> Result<BigInt, CodecError> {
        let bytes = bytes(from)?;
        if bytes.len() > LIMITS.digits * 10 / 24 + 1 {
            return Err(CodecError::Limit { what: "digits", max: LIMITS.digits });
        }
        Ok(BigInt::from_bytes_be(Sign::Plus, &bytes))
    };
    Ok(match tag {
        0 => {
            let text = text(from)?;
            Value::Inst(crate::instant::parse(&text).map_err(|_| wrong(&text))?)
        }
        1 => match decode(from, depth)? {
            Value::Long(seconds) => {
                Value::Inst(seconds.checked_mul(1000).ok_or_else(|| wrong("a time so far away"))?)
            }
            Value::Double(seconds) => instant_of(seconds).ok_or_else(|| wrong("no time"))?,
            Value::Float(seconds) => {
                instant_of(f64::from(seconds)).ok_or_else(|| wrong("no time"))?
            }
            _ => return Err(wrong("other than a number")),
        },
        2 => Value::bigint(big(from)?),
        3 => Value::bigint(-big(from)? - 1i32),
        4 => match decode(from, depth)?.as_slice() {
            Some([Value::Long(exponent), digits]) => {
                let digits = match digits {
                    Value::Long(n) => BigInt::from(*n),
                    Value::BigInt(n) => (**n).clone(),
                    _ => return Err(wrong("other than integers")),
                };
                if exponent.unsigned_abs() > LIMITS.exponent.unsigned_abs() {
                    let max = usize::try_from(LIMITS.exponent).unwrap_or_default();
                    return Err(CodecError::Limit { what: "of a decimal exponent", max });
                }
                Value::BigDec(Arc::new(BigDecimal::new(digits, -exponent)))
            }
            _ => return Err(wrong("other than two integers")),
        },
        GENERIC => match decode(from, depth)?.as_slice() {
            Some([Value::Str(name), value]) => match (&**name, value.as_str()) {
                (CHARACTER, Some(text)) => {
                    let mut chars = text.chars();
                    match (chars.next(), chars.next()) {
                        (Some(c), None) => Value::Char(c),
                        _ => return Err(wrong("other than one character")),
                    }
                }
                (INSTANT, None) => Value::Inst(value.as_long().ok_or_else(|| wrong("no time"))?),
                (name, _) if !name.is_empty() => Value::tagged(name, value.clone()),
                _ => return Err(wrong("an empty name")),
            },
            _ => return Err(wrong("other than a name and a value")),
        },
        REGEX => {
            let source = text(from)?;
            Value::Regex(Regex::new(&source).map_err(|_| wrong(&source))?)
        }
        UUID => {
            let bytes = bytes(from)?;
            Value::Uuid(Uuid::from_slice(&bytes).map_err(|_| wrong("other than 16 bytes"))?)
        }
        IDENTIFIER => {
            let text = text(from)?;
            match text.strip_prefix(':') {
                Some(name) if super::is_name(name) => Value::Keyword(Keyword::parse(name)),
                None if super::is_name(&text) => Value::Symbol(Symbol::parse(&text)),
                _ => return Err(wrong("an empty name")),
            }
        }
        FLOATS => Value::FloatArray(
            numbers(&bytes(from)?, |n| crate::canonical_f32(f32::from_le_bytes(n)))
                .ok_or_else(|| wrong("a part of a number"))?,
        ),
        DOUBLES => Value::DoubleArray(
            numbers(&bytes(from)?, |n| crate::canonical_f64(f64::from_le_bytes(n)))
                .ok_or_else(|| wrong("a part of a number"))?,
        ),
        LIST => Value::List(items(from, depth)?.into()),
        SET => Value::Set(Arc::new(items(from, depth)?.into_iter().collect::<BTreeSet<_>>())),
        other => return Err(syntax(format!("tag {other} is not known here"))),
    })
}

fn instant_of(seconds: f64) -> Option<Value> {
    let ms = (seconds * 1000.0).round();
    (ms.is_finite() && ms.abs() < 9.0e18).then_some(Value::Inst(ms as i64))
}

fn numbers<const N: usize, T>(bytes: &[u8], read: fn([u8; N]) -> T) -> Option<Arc<[T]>> {
    let (whole, rest) = bytes.as_chunks::<N>();
    rest.is_empty().then(|| whole.iter().map(|chunk| read(*chunk)).collect())
}
