#![warn(clippy::indexing_slicing)]

use std::cell::Cell;
use std::collections::{BTreeMap, BTreeSet};
use std::fmt;

use datahike_value::{BigDecimal, BigInt, Keyword, Regex, Symbol, Value};
use serde::de::Deserialize as _;
use serde::de::{self, DeserializeSeed, Deserializer, MapAccess, SeqAccess, Visitor};
use serde::ser::{self, Serialize, SerializeMap, SerializeSeq};
use uuid::Uuid;

use super::dictionary::{CODES, KEYWORDS};
use super::{DecodeError, EncodeError, Serializer};
use crate::frame::SerializerId;
use crate::limits::Limits;

/// MessagePack, the default. Plain types are MessagePack's own; what EDN has besides are extension
/// types, and well-known keywords are one byte of a shared [`DICTIONARY`](super::DICTIONARY).
///
/// | extension | content |
/// |---|---|
/// | 1 | keyword: one byte, its position in the dictionary |
/// | 2, 3, 9 | keyword, symbol, regex as text |
/// | 4 | UUID, 16 bytes |
/// | 5 | instant: milliseconds since 1970, 8 bytes big-endian |
/// | 6 | character: its code point, 4 bytes big-endian |
/// | 7 | big integer: two's complement, big-endian |
/// | 8 | big decimal: scale in 8 bytes big-endian, then the digits as in 7 |
/// | 10, 11 | float array, double array: elements big-endian |
/// | 12 | marks the array that it begins: 0 a list, 1 a set, 2 a tag (symbol) and its value |
#[derive(Clone, Copy, Debug, Default)]
pub struct MessagePack;

mod ext {
    pub(super) const WORD: i8 = 1;
    pub(super) const KEYWORD: i8 = 2;
    pub(super) const SYMBOL: i8 = 3;
    pub(super) const UUID: i8 = 4;
    pub(super) const INST: i8 = 5;
    pub(super) const CHAR: i8 = 6;
    pub(super) const BIG_INT: i8 = 7;
    pub(super) const BIG_DEC: i8 = 8;
    pub(super) const REGEX: i8 = 9;
    pub(super) const FLOATS: i8 = 10;
    pub(super) const DOUBLES: i8 = 11;
    pub(super) const MARK: i8 = 12;
}

const LIST: u8 = 0;
const SET: u8 = 1;
const TAGGED: u8 = 2;

impl Serializer for MessagePack {
    fn id(&self) -> SerializerId {
        SerializerId::MESSAGE_PACK
    }

    fn encode(&self, value: &Value, out: &mut Vec<u8>) -> Result<(), EncodeError> {
        let mut serializer = rmp_serde::Serializer::new(out);
        Wire(value).serialize(&mut serializer).map_err(|error| EncodeError(error.to_string()))
    }

    fn decode(&self, bytes: &[u8], limits: &Limits) -> Result<Value, DecodeError> {
        let mut reader = rmp_serde::Deserializer::from_read_ref(bytes);
        // The library counts extensions as a level too.
        reader.set_max_depth(limits.depth.saturating_add(2));
        let items = Cell::new(limits.items);
        let seed = Seed { depth: limits.depth, items: &items };
        let value = seed.deserialize(&mut reader).map_err(|e| DecodeError(e.to_string()))?;
        match de::IgnoredAny::deserialize(&mut reader) {
            Err(rmp_serde::decode::Error::InvalidMarkerRead(_)) => Ok(value),
            _ => Err(DecodeError("more bytes follow the value".into())),
        }
    }
}

/// A value as it is written here.
struct Wire<'a>(&'a Value);

impl Serialize for Wire<'_> {
    fn serialize<S: ser::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        match self.0 {
            Value::Nil => serializer.serialize_unit(),
            Value::Bool(b) => serializer.serialize_bool(*b),
            Value::Long(n) => serializer.serialize_i64(*n),
            Value::Double(d) => serializer.serialize_f64(*d),
            Value::Float(f) => serializer.serialize_f32(*f),
            Value::Str(s) => serializer.serialize_str(s),
            Value::Bytes(b) => serializer.serialize_bytes(b),
            Value::Keyword(keyword) => match CODES.get(keyword) {
                Some(code) => extension(serializer, ext::WORD, &[*code]),
                None => extension(serializer, ext::KEYWORD, keyword.text().as_bytes()),
            },
            Value::Symbol(symbol) => extension(serializer, ext::SYMBOL, symbol.text().as_bytes()),
            Value::Uuid(uuid) => extension(serializer, ext::UUID, uuid.as_bytes()),
            Value::Inst(ms) => extension(serializer, ext::INST, &ms.to_be_bytes()),
            Value::Char(c) => extension(serializer, ext::CHAR, &u32::from(*c).to_be_bytes()),
            Value::BigInt(n) => extension(serializer, ext::BIG_INT, &n.to_signed_bytes_be()),
            Value::BigDec(decimal) => {
                let (digits, scale) = decimal.as_bigint_and_exponent();
                let mut bytes = scale.to_be_bytes().to_vec();
                bytes.extend(digits.to_signed_bytes_be());
                extension(serializer, ext::BIG_DEC, &bytes)
            }
            Value::Regex(regex) => extension(serializer, ext::REGEX, regex.as_str().as_bytes()),
            Value::FloatArray(items) => {
                let bytes: Vec<u8> = items.iter().flat_map(|f| f.to_be_bytes()).collect();
                extension(serializer, ext::FLOATS, &bytes)
            }
            Value::DoubleArray(items) => {
                let bytes: Vec<u8> = items.iter().flat_map(|d| d.to_be_bytes()).collect();
                extension(serializer, ext::DOUBLES, &bytes)
            }
            Value::Vector(items) => sequence(serializer, None, items.len(), items.iter()),
            Value::List(items) => sequence(serializer, Some(LIST), items.len(), items.iter()),
            Value::Set(items) => sequence(serializer, Some(SET), items.len(), items.iter()),
            Value::Tagged(tagged) => {
                let tag = Value::Symbol(tagged.tag.clone());
                sequence(serializer, Some(TAGGED), 2, [&tag, &tagged.value].into_iter())
            }
            Value::Map(entries) => {
                let mut map = serializer.serialize_map(Some(entries.len()))?;
                for (key, value) in entries.iter() {
                    map.serialize_entry(&Wire(key), &Wire(value))?;
                }
                map.end()
            }
        }
    }
}

fn extension<S: ser::Serializer>(serializer: S, tag: i8, bytes: &[u8]) -> Result<S::Ok, S::Error> {
    let content = (tag, serde_bytes::Bytes::new(bytes));
    serializer.serialize_newtype_struct(rmp_serde::MSGPACK_EXT_STRUCT_NAME, &content)
}

struct Mark(u8);

impl Serialize for Mark {
    fn serialize<S: ser::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        extension(serializer, ext::MARK, &[self.0])
    }
}

fn sequence<'a, S: ser::Serializer>(
    serializer: S,
    mark: Option<u8>,
    items: usize,
    values: impl Iterator<Item = &'a Value>,
) -> Result<S::Ok, S::Error> {
    let marked = usize::from(mark.is_some());
    let mut sequence = serializer.serialize_seq(Some(items + marked))?;
    if let Some(mark) = mark {
        sequence.serialize_element(&Mark(mark))?;
    }
    for value in values {
        sequence.serialize_element(&Wire(value))?;
    }
    sequence.end()
}

/// Reads a value of at most this depth, taking from a common count of items.
#[derive(Clone, Copy)]
struct Seed<'a> {
    depth: usize,
    items: &'a Cell<usize>,
}

impl Seed<'_> {
    fn inside<E: de::Error>(self) -> Result<Self, E> {
        let depth = self.depth.checked_sub(1).ok_or_else(|| E::custom("nested too deeply"))?;
        Ok(Self { depth, ..self })
    }

    fn count<E: de::Error>(self) -> Result<(), E> {
        let left = self.items.get().checked_sub(1).ok_or_else(|| E::custom("too many items"))?;
        self.items.set(left);
        Ok(())
    }
}

impl<'de> DeserializeSeed<'de> for Seed<'_> {
    type Value = Value;

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<Value, D::Error> {
        match (Element { seed: self, mark: false }).deserialize(deserializer)? {
            Read::Value(value) => Ok(value),
            Read::Mark(_) => Err(de::Error::custom("a collection mark where a value belongs")),
        }
    }
}

/// What an element of an array turned out to be.
enum Read {
    Value(Value),
    Mark(u8),
}

/// Reads a value, or a mark where one may stand.
#[derive(Clone, Copy)]
struct Element<'a> {
    seed: Seed<'a>,
    mark: bool,
}

impl<'de> DeserializeSeed<'de> for Element<'_> {
    type Value = Read;

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<Read, D::Error> {
        deserializer.deserialize_any(self)
    }
}

fn value<E>(value: impl Into<Value>) -> Result<Read, E> {
    Ok(Read::Value(value.into()))
}

impl<'de> Visitor<'de> for Element<'_> {
    type Value = Read;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a value")
    }

    fn visit_unit<E>(self) -> Result<Read, E> {
        Ok(Read::Value(Value::Nil))
    }

    fn visit_bool<E>(self, b: bool) -> Result<Read, E> {
        value(b)
    }

    fn visit_i64<E>(self, n: i64) -> Result<Read, E> {
        value(n)
    }

    fn visit_u64<E>(self, n: u64) -> Result<Read, E> {
        match i64::try_from(n) {
            Ok(n) => value(n),
            Err(_) => value(BigInt::from(n)),
        }
    }

    fn visit_f32<E>(self, f: f32) -> Result<Read, E> {
        value(f)
    }

    fn visit_f64<E>(self, d: f64) -> Result<Read, E> {
        value(d)
    }

    fn visit_str<E>(self, text: &str) -> Result<Read, E> {
        value(text)
    }

    fn visit_bytes<E>(self, bytes: &[u8]) -> Result<Read, E> {
        Ok(Read::Value(Value::Bytes(bytes.into())))
    }

    fn visit_newtype_struct<D: Deserializer<'de>>(self, content: D) -> Result<Read, D::Error> {
        content.deserialize_any(Extension { mark: self.mark })
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut sequence: A) -> Result<Read, A::Error> {
        let seed = self.seed.inside()?;
        let mut mark = None;
        let mut items = Vec::new();
        let mut first = true;
        while let Some(read) = sequence.next_element_seed(Element { seed, mark: first })? {
            first = false;
            match read {
                Read::Mark(found) => mark = Some(found),
                Read::Value(value) => {
                    seed.count()?;
                    items.push(value);
                }
            }
        }
        match mark {
            None => value(items),
            Some(LIST) => Ok(Read::Value(Value::List(items.into()))),
            Some(SET) => value(items.into_iter().collect::<BTreeSet<Value>>()),
            Some(TAGGED) => match <[Value; 2]>::try_from(items) {
                Ok([Value::Symbol(tag), inner]) => Ok(Read::Value(Value::tagged(tag, inner))),
                _ => Err(de::Error::custom("a tagged value is a symbol and a value")),
            },
            Some(other) => Err(de::Error::custom(format_args!("unknown collection mark {other}"))),
        }
    }

    fn visit_map<A: MapAccess<'de>>(self, mut entries: A) -> Result<Read, A::Error> {
        let seed = self.seed.inside()?;
        let mut map = BTreeMap::new();
        while let Some((key, item)) = entries.next_entry_seed(seed, seed)? {
            seed.count()?;
            seed.count()?;
            if map.insert(key, item).is_some() {
                return Err(de::Error::custom("a map has the same key twice"));
            }
        }
        value(map)
    }
}

/// Reads the content of an extension.
struct Extension {
    mark: bool,
}

impl<'de> Visitor<'de> for Extension {
    type Value = Read;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("an extension")
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut parts: A) -> Result<Read, A::Error> {
        let tag: i8 =
            parts.next_element()?.ok_or_else(|| de::Error::custom("no extension type"))?;
        let bytes: Content<'de> =
            parts.next_element()?.ok_or_else(|| de::Error::custom("no extension content"))?;
        let bytes = bytes.0;
        if tag == ext::MARK && self.mark {
            let [mark] = fixed(bytes)?;
            return Ok(Read::Mark(mark));
        }
        extension_value(tag, bytes).map(Read::Value)
    }
}

/// The bytes of an extension, borrowed from the frame.
#[derive(serde::Deserialize)]
#[serde(transparent)]
struct Content<'a>(#[serde(borrow, with = "serde_bytes")] &'a [u8]);

fn extension_value<E: de::Error>(tag: i8, bytes: &[u8]) -> Result<Value, E> {
    Ok(match tag {
        ext::WORD => {
            let [code] = fixed(bytes)?;
            let keyword = KEYWORDS.get(usize::from(code));
            let keyword = keyword.ok_or_else(|| {
                E::custom(format_args!("keyword {code} is not in the dictionary"))
            })?;
            Value::Keyword(keyword.clone())
        }
        ext::KEYWORD => Value::Keyword(Keyword::parse(text(bytes)?)),
        ext::SYMBOL => Value::Symbol(Symbol::parse(text(bytes)?)),
        ext::UUID => Value::Uuid(Uuid::from_bytes(fixed(bytes)?)),
        ext::INST => Value::Inst(i64::from_be_bytes(fixed(bytes)?)),
        ext::CHAR => {
            let code = u32::from_be_bytes(fixed(bytes)?);
            Value::Char(char::from_u32(code).ok_or_else(|| E::custom("no such character"))?)
        }
        ext::BIG_INT => Value::bigint(big_int(bytes)?),
        ext::BIG_DEC => {
            let Some((scale, digits)) = bytes.split_first_chunk::<8>() else {
                return Err(E::custom("a big decimal without a scale"));
            };
            let scale = i64::from_be_bytes(*scale);
            if scale.unsigned_abs() > datahike_value::Limits::DEFAULT.exponent.unsigned_abs() {
                return Err(E::custom("a big decimal with too large a scale"));
            }
            Value::from(BigDecimal::new(big_int(digits)?, scale))
        }
        ext::REGEX => Value::Regex(Regex::new(text(bytes)?).map_err(E::custom)?),
        ext::FLOATS => {
            let items = bytes.chunks(4).map(|chunk| Ok(f32::from_be_bytes(fixed(chunk)?)));
            Value::FloatArray(items.collect::<Result<_, E>>()?)
        }
        ext::DOUBLES => {
            let items = bytes.chunks(8).map(|chunk| Ok(f64::from_be_bytes(fixed(chunk)?)));
            Value::DoubleArray(items.collect::<Result<_, E>>()?)
        }
        other => return Err(E::custom(format_args!("unknown extension type {other}"))),
    })
}

/// At most as many bytes as the most digits take, so that nobody pays for printing them.
fn big_int<E: de::Error>(bytes: &[u8]) -> Result<BigInt, E> {
    if bytes.len() > datahike_value::Limits::DEFAULT.digits * 416 / 1000 + 1 {
        return Err(E::custom("a number with too many digits"));
    }
    Ok(BigInt::from_signed_bytes_be(bytes))
}

fn fixed<const N: usize, E: de::Error>(bytes: &[u8]) -> Result<[u8; N], E> {
    bytes.try_into().map_err(|_| {
        E::custom(format_args!("an extension has {} bytes where it takes {N}", bytes.len()))
    })
}

fn text<E: de::Error>(bytes: &[u8]) -> Result<&str, E> {
    std::str::from_utf8(bytes).map_err(|_| E::custom("text is not UTF-8"))
}
