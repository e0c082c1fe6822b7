//! The values of one attribute in one leaf: a kind, and a column made for it.

use datahike_value::{Uuid, Value, canonical_f32, canonical_f64};
use hashbrown::HashMap;

use super::DecodeError;
use super::bytes::{Reader, put_varint};
use super::strings;
use super::value::{get_value, put_value};
use super::{MAX_ITEMS, ints};
use crate::index::key::ValueRef;
use crate::index::leaf::Kind;

const BOOL: u8 = 0;
const LONG: u8 = 1;
const INST: u8 = 2;
/// Doubles that are exactly a whole number divided by a power of ten.
const SCALED: u8 = 3;
const DOUBLE: u8 = 4;
const FLOAT: u8 = 5;
// 6 to 8 are the kinds of `strings`.
const UUID: u8 = 9;
/// Any types, one after the other.
const TAGGED: u8 = 10;
/// Any types, each distinct value once.
const TAGGED_DICTIONARY: u8 = 11;

const MAX_SCALE: u8 = 9;

/// Writes kind and column. All of `values` belong to one attribute; there is at least one.
pub(super) fn put(out: &mut Vec<u8>, values: &[ValueRef<'_>]) {
    let Some(first) = values.first() else { return };
    let column: Option<()> = match first {
        ValueRef::Bool(_) => collect(values, |v| match v {
            ValueRef::Bool(b) => Some(u64::from(*b)),
            _ => None,
        })
        .map(|column| put_ints(out, BOOL, &column)),
        ValueRef::Long(_) => collect(values, |v| match v {
            ValueRef::Long(n) => Some(*n as u64),
            _ => None,
        })
        .map(|column| put_ints(out, LONG, &column)),
        ValueRef::Inst(_) => collect(values, |v| match v {
            ValueRef::Inst(ms) => Some(*ms as u64),
            _ => None,
        })
        .map(|column| put_ints(out, INST, &column)),
        ValueRef::Double(_) => collect(values, |v| match v {
            ValueRef::Double(d) => Some(canonical_f64(*d)),
            _ => None,
        })
        .map(|column: Vec<f64>| put_doubles(out, &column)),
        ValueRef::Float(_) => collect(values, |v| match v {
            ValueRef::Float(f) => Some(canonical_f32(*f)),
            _ => None,
        })
        .map(|column: Vec<f32>| {
            out.push(FLOAT);
            column.iter().for_each(|f| out.extend(f.to_le_bytes()));
        }),
        ValueRef::Str(_) => collect(values, |v| match v {
            ValueRef::Str(s) => Some(*s),
            _ => None,
        })
        .map(|column: Vec<&str>| strings::put(out, &column)),
        ValueRef::Other(Value::Uuid(_)) => collect(values, |v| match v {
            ValueRef::Other(Value::Uuid(u)) => Some(*u),
            _ => None,
        })
        .map(|column: Vec<Uuid>| {
            out.push(UUID);
            column.iter().for_each(|u| out.extend(u.as_bytes()));
        }),
        ValueRef::Other(_) => None,
    };
    if column.is_none() {
        put_tagged(out, values);
    }
}

/// Reads a column of `count` values: the kind of its cells, and the cells. Strings go to `heap`,
/// what has no cell of its own to `side`.
pub(super) fn get(
    reader: &mut Reader<'_>,
    count: usize,
    heap: &mut Vec<u8>,
    side: &mut Vec<Value>,
) -> Result<(Kind, Vec<u64>), DecodeError> {
    Ok(match reader.byte()? {
        BOOL => (Kind::Bool, ints::get(reader, count)?),
        LONG => (Kind::Long, ints::get(reader, count)?),
        INST => (Kind::Inst, ints::get(reader, count)?),
        SCALED => {
            let scale = reader.byte()?;
            if scale > MAX_SCALE {
                return Err(DecodeError::Malformed { what: "doubles have an absurd scale" });
            }
            let divisor = 10_f64.powi(i32::from(scale));
            let mut cells = ints::get(reader, count)?;
            for cell in &mut cells {
                *cell = ((*cell as i64) as f64 / divisor).to_bits();
            }
            (Kind::Double, cells)
        }
        DOUBLE => {
            let bytes = reader.take(count.saturating_mul(8))?;
            let cell = |chunk: &[u8; 8]| canonical_f64(f64::from_le_bytes(*chunk)).to_bits();
            (Kind::Double, bytes.as_chunks().0.iter().map(cell).collect())
        }
        FLOAT => {
            let bytes = reader.take(count.saturating_mul(4))?;
            let cell = |chunk: &[u8; 4]| canonical_f32(f32::from_le_bytes(*chunk)).to_bits();
            (Kind::Float, bytes.as_chunks().0.iter().map(cell).map(u64::from).collect())
        }
        strings::DICTIONARY => {
            (Kind::Term, strings::get(reader, strings::DICTIONARY, count, heap)?)
        }
        kind @ (strings::PLAIN | strings::PREFIXES) => {
            (Kind::Str, strings::get(reader, kind, count, heap)?)
        }
        UUID => {
            let bytes = reader.take(count.saturating_mul(16))?;
            let first = side.len() as u64;
            side.extend(bytes.as_chunks().0.iter().map(|u| Value::Uuid(Uuid::from_bytes(*u))));
            (Kind::Side, (first..side.len() as u64).collect())
        }
        TAGGED => {
            let first = side.len() as u64;
            for _ in 0..count {
                side.push(get_value(reader)?);
            }
            (Kind::Side, (first..side.len() as u64).collect())
        }
        TAGGED_DICTIONARY => {
            let entries = reader.count()?;
            if entries > count {
                return Err(DecodeError::Malformed { what: "a dictionary larger than its column" });
            }
            let first = side.len() as u64;
            for _ in 0..entries {
                side.push(get_value(reader)?);
            }
            let mut cells = ints::get(reader, count)?;
            for cell in &mut cells {
                if *cell >= entries as u64 {
                    let what = "a value is not in its dictionary";
                    return Err(DecodeError::Malformed { what });
                }
                *cell += first;
            }
            (Kind::SideTerm, cells)
        }
        _ => return Err(DecodeError::Malformed { what: "values are written in no known way" }),
    })
}

fn collect<'a, 'v, T>(
    values: &'a [ValueRef<'v>],
    of: impl Fn(&'a ValueRef<'v>) -> Option<T>,
) -> Option<Vec<T>> {
    values.iter().map(of).collect()
}

fn put_ints(out: &mut Vec<u8>, kind: u8, column: &[u64]) {
    out.push(kind);
    ints::put(out, column);
}

fn put_doubles(out: &mut Vec<u8>, column: &[f64]) {
    if let Some((scale, whole)) = scaled(column) {
        let plan = ints::plan(&whole);
        if plan.size < column.len() * 8 {
            out.extend([SCALED, scale]);
            ints::put_planned(out, &whole, plan);
            return;
        }
    }
    out.push(DOUBLE);
    column.iter().for_each(|d| out.extend(d.to_le_bytes()));
}

/// The smallest scale at which every number is whole and comes back bit for bit.
fn scaled(column: &[f64]) -> Option<(u8, Vec<u64>)> {
    const EXACT: f64 = 9_007_199_254_740_992.0;
    let mut scale = 0;
    let mut divisor = 1.0;
    let fits = |d: f64, divisor: f64| {
        let whole = (d * divisor).round();
        // Through the integer, as a reader comes: -0.0 does not survive it.
        let back = (whole as i64) as f64 / divisor;
        (whole.abs() < EXACT && back.to_bits() == d.to_bits()).then_some(whole as i64 as u64)
    };
    for d in column {
        // A number that is whole at one scale may not be at a larger one, so the column is tried anew
        // below; this only finds where to begin.
        while fits(*d, divisor).is_none() {
            scale += 1;
            if scale > MAX_SCALE {
                return None;
            }
            divisor = 10_f64.powi(i32::from(scale));
        }
    }
    while scale <= MAX_SCALE {
        divisor = 10_f64.powi(i32::from(scale));
        let whole: Option<Vec<u64>> = column.iter().map(|d| fits(*d, divisor)).collect();
        if let Some(whole) = whole {
            return Some((scale, whole));
        }
        scale += 1;
    }
    None
}

fn put_tagged(out: &mut Vec<u8>, values: &[ValueRef<'_>]) {
    let mut plain: Vec<u8> = Vec::new();
    let mut places = Vec::with_capacity(values.len());
    let mut entries: Vec<u8> = Vec::new();
    let mut known: HashMap<Vec<u8>, u64> = HashMap::new();
    for v in values {
        let mut bytes = Vec::new();
        put_value(&mut bytes, &v.to_value());
        plain.extend(&bytes);
        let next = known.len() as u64;
        let place = *known.entry(bytes).or_insert_with_key(|bytes| {
            entries.extend(bytes);
            next
        });
        places.push(place);
    }
    let mut dictionary: Vec<u8> = Vec::new();
    put_varint(&mut dictionary, known.len() as u64);
    dictionary.extend(entries);
    ints::put(&mut dictionary, &places);
    if dictionary.len() < plain.len() && known.len() <= MAX_ITEMS {
        out.push(TAGGED_DICTIONARY);
        out.extend(dictionary);
    } else {
        out.push(TAGGED);
        out.extend(plain);
    }
}
