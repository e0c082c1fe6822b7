//! One value of any type, tagged: canonical, since maps and sets are sorted and there is one NaN.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use datahike_value::{
    BigDecimal, BigInt, Keyword, Limits, Regex, Symbol, Uuid, Value, canonical_f32, canonical_f64,
};

use super::DecodeError;
use super::bytes::{Reader, put_varint, put_zigzag};

const NIL: u8 = 0;
const FALSE: u8 = 1;
const TRUE: u8 = 2;
const LONG: u8 = 3;
const DOUBLE: u8 = 4;
const FLOAT: u8 = 5;
const BIGINT: u8 = 6;
const BIGDEC: u8 = 7;
const STR: u8 = 8;
const CHAR: u8 = 9;
const KEYWORD: u8 = 10;
const SYMBOL: u8 = 11;
const UUID: u8 = 12;
const INST: u8 = 13;
const REGEX: u8 = 14;
const BYTES: u8 = 15;
const FLOATS: u8 = 16;
const DOUBLES: u8 = 17;
const LIST: u8 = 18;
const VECTOR: u8 = 19;
const MAP: u8 = 20;
const SET: u8 = 21;
const TAGGED: u8 = 22;

/// Writes a value.
pub(crate) fn put_value(out: &mut Vec<u8>, value: &Value) {
    match value {
        Value::Nil => out.push(NIL),
        Value::Bool(b) => out.push(if *b { TRUE } else { FALSE }),
        Value::Long(n) => {
            out.push(LONG);
            put_zigzag(out, *n);
        }
        Value::Double(d) => {
            out.push(DOUBLE);
            out.extend(canonical_f64(*d).to_le_bytes());
        }
        Value::Float(f) => {
            out.push(FLOAT);
            out.extend(canonical_f32(*f).to_le_bytes());
        }
        Value::BigInt(n) => {
            out.push(BIGINT);
            put_bytes(out, &n.to_signed_bytes_le());
        }
        Value::BigDec(d) => {
            out.push(BIGDEC);
            let (digits, scale) = d.as_bigint_and_exponent();
            put_zigzag(out, scale);
            put_bytes(out, &digits.to_signed_bytes_le());
        }
        Value::Str(s) => {
            out.push(STR);
            put_bytes(out, s.as_bytes());
        }
        Value::Char(c) => {
            out.push(CHAR);
            put_varint(out, u64::from(u32::from(*c)));
        }
        Value::Keyword(k) => {
            out.push(KEYWORD);
            put_name(out, k.namespace(), k.name());
        }
        Value::Symbol(s) => {
            out.push(SYMBOL);
            put_name(out, s.namespace(), s.name());
        }
        Value::Uuid(u) => {
            out.push(UUID);
            out.extend(u.as_bytes());
        }
        Value::Inst(ms) => {
            out.push(INST);
            put_zigzag(out, *ms);
        }
        Value::Regex(r) => {
            out.push(REGEX);
            put_bytes(out, r.as_str().as_bytes());
        }
        Value::Bytes(b) => {
            out.push(BYTES);
            put_bytes(out, b);
        }
        Value::FloatArray(items) => {
            out.push(FLOATS);
            put_varint(out, items.len() as u64);
            items.iter().for_each(|f| out.extend(canonical_f32(*f).to_le_bytes()));
        }
        Value::DoubleArray(items) => {
            out.push(DOUBLES);
            put_varint(out, items.len() as u64);
            items.iter().for_each(|d| out.extend(canonical_f64(*d).to_le_bytes()));
        }
        Value::List(items) => put_items(out, LIST, items.len(), items.iter()),
        Value::Vector(items) => put_items(out, VECTOR, items.len(), items.iter()),
        Value::Set(items) => put_items(out, SET, items.len(), items.iter()),
        Value::Map(entries) => {
            put_items(out, MAP, entries.len(), entries.iter().flat_map(|(k, v)| [k, v]));
        }
        Value::Tagged(tagged) => {
            out.push(TAGGED);
            put_name(out, tagged.tag.namespace(), tagged.tag.name());
            put_value(out, &tagged.value);
        }
    }
}

/// Reads a value.
pub(crate) fn get_value(reader: &mut Reader<'_>) -> Result<Value, DecodeError> {
    get_nested(reader, Limits::DEFAULT.depth)
}

fn get_nested(reader: &mut Reader<'_>, depth: usize) -> Result<Value, DecodeError> {
    let Some(depth) = depth.checked_sub(1) else {
        return malformed("a value is nested too deeply");
    };
    Ok(match reader.byte()? {
        NIL => Value::Nil,
        FALSE => Value::Bool(false),
        TRUE => Value::Bool(true),
        LONG => Value::Long(reader.zigzag()?),
        DOUBLE => Value::Double(f64::from_le_bytes(reader.array()?)),
        FLOAT => Value::Float(f32::from_le_bytes(reader.array()?)),
        BIGINT => Value::BigInt(Arc::new(get_bigint(reader)?)),
        BIGDEC => {
            let scale = reader.zigzag()?;
            if scale.unsigned_abs() > i64::from(i32::MAX).unsigned_abs() {
                return malformed("a decimal has an absurd scale");
            }
            Value::BigDec(Arc::new(BigDecimal::new(get_bigint(reader)?, scale)))
        }
        STR => Value::Str(reader.text()?.into()),
        CHAR => {
            let code = u32::try_from(reader.varint()?).ok().and_then(char::from_u32);
            Value::Char(code.ok_or(DecodeError::Malformed { what: "no such character" })?)
        }
        KEYWORD => {
            let (namespace, name) = get_name(reader)?;
            Value::Keyword(Keyword::new(namespace, name))
        }
        SYMBOL => Value::Symbol(get_symbol(reader)?),
        UUID => Value::Uuid(Uuid::from_bytes(reader.array()?)),
        INST => Value::Inst(reader.zigzag()?),
        REGEX => match Regex::new(reader.text()?) {
            Ok(regex) => Value::Regex(regex),
            Err(_) => return malformed("a regular expression ends in a backslash"),
        },
        BYTES => {
            let len = reader.count()?;
            Value::Bytes(reader.take(len)?.into())
        }
        FLOATS => Value::FloatArray(get_numbers(reader, f32::from_le_bytes)?.into()),
        DOUBLES => Value::DoubleArray(get_numbers(reader, f64::from_le_bytes)?.into()),
        LIST => Value::List(get_items(reader, depth)?.into()),
        VECTOR => Value::Vector(get_items(reader, depth)?.into()),
        SET => Value::Set(Arc::new(get_items(reader, depth)?.into_iter().collect::<BTreeSet<_>>())),
        MAP => {
            let count = reader.count()?;
            let mut entries = BTreeMap::new();
            for _ in 0..count {
                let key = get_nested(reader, depth)?;
                entries.insert(key, get_nested(reader, depth)?);
            }
            Value::Map(Arc::new(entries))
        }
        TAGGED => {
            let tag = get_symbol(reader)?;
            Value::tagged(tag, get_nested(reader, depth)?)
        }
        _ => return malformed("no such type of value"),
    })
}

fn malformed<T>(what: &'static str) -> Result<T, DecodeError> {
    Err(DecodeError::Malformed { what })
}

fn put_bytes(out: &mut Vec<u8>, bytes: &[u8]) {
    put_varint(out, bytes.len() as u64);
    out.extend(bytes);
}

fn put_name(out: &mut Vec<u8>, namespace: Option<&str>, name: &str) {
    put_bytes(out, namespace.unwrap_or_default().as_bytes());
    put_bytes(out, name.as_bytes());
}

fn put_items<'a>(out: &mut Vec<u8>, tag: u8, count: usize, items: impl Iterator<Item = &'a Value>) {
    out.push(tag);
    put_varint(out, count as u64);
    items.for_each(|item| put_value(out, item));
}

fn get_name<'a>(reader: &mut Reader<'a>) -> Result<(Option<&'a str>, &'a str), DecodeError> {
    let namespace = reader.text()?;
    Ok(((!namespace.is_empty()).then_some(namespace), reader.text()?))
}

fn get_symbol(reader: &mut Reader<'_>) -> Result<Symbol, DecodeError> {
    let (namespace, name) = get_name(reader)?;
    Ok(Symbol::new(namespace, name))
}

fn get_bigint(reader: &mut Reader<'_>) -> Result<BigInt, DecodeError> {
    let len = reader.count()?;
    Ok(BigInt::from_signed_bytes_le(reader.take(len)?))
}

fn get_items(reader: &mut Reader<'_>, depth: usize) -> Result<Vec<Value>, DecodeError> {
    let count = reader.count()?;
    let mut items = Vec::with_capacity(count.min(64));
    for _ in 0..count {
        items.push(get_nested(reader, depth)?);
    }
    Ok(items)
}

fn get_numbers<T, const N: usize>(
    reader: &mut Reader<'_>,
    number: fn([u8; N]) -> T,
) -> Result<Vec<T>, DecodeError> {
    let count = reader.count()?;
    if count > reader.remaining() / N {
        return Err(DecodeError::Truncated { at: count });
    }
    (0..count).map(|_| reader.array().map(number)).collect()
}
