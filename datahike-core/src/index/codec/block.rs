//! Leaves and branches as bytes.
//!
//! ```text
//! leaf   = version level=0 rows
//! branch = version level rows counts:ints open:ints (32-byte address)*     rows: last key per child
//! rows   = count flags attributes (shapes | e:ints [a:ints]) [added:ints] tx:ints values*
//! ```

use std::sync::Arc;

use datahike_value::Value;

use super::bytes::{Reader, put_varint};
use super::{DecodeError, FORMAT_VERSION, MAX_ITEMS, ints, values};
use crate::block::Address;
use crate::datom::AttrId;
use crate::index::key::{DatomRef, Index, ValueRef};
use crate::index::leaf::{Attributes, Ids, Leaf};
use crate::index::node::{Branch, Child, Node};

/// Entities with the attributes of each as one of few shapes, instead of two columns.
const SHAPES: u8 = 1;
/// There are retractions.
const RETRACTIONS: u8 = 2;

/// How many levels a tree may have; 32 to the 24th children are more than anybody has.
const MAX_LEVEL: u8 = 24;

/// The bytes of a leaf. `rows` are in the order of `index`, at most [`MAX_ITEMS`].
pub(crate) fn encode_leaf(rows: &[DatomRef<'_>], index: Index) -> Vec<u8> {
    let mut out = Vec::with_capacity(64 + rows.len() * 4);
    out.extend([FORMAT_VERSION, 0]);
    put_rows(&mut out, rows, index);
    out
}

/// The bytes of a branch of this level.
pub(crate) fn encode_branch(
    level: u8,
    keys: &[DatomRef<'_>],
    children: &[Child],
    index: Index,
) -> Vec<u8> {
    let mut out = Vec::with_capacity(64 + children.len() * 48);
    out.extend([FORMAT_VERSION, level]);
    put_rows(&mut out, keys, index);
    ints::put(&mut out, &children.iter().map(|c| c.count).collect::<Vec<_>>());
    ints::put(&mut out, &children.iter().map(|c| u64::from(c.open)).collect::<Vec<_>>());
    children.iter().for_each(|c| out.extend(c.address.0));
    out
}

impl Node {
    /// Decodes a block. Bytes that are no block give an error; a block that breaks the order of its
    /// rows is found by [`derive`](crate::index::derive()) only.
    ///
    /// # Errors
    /// If this version does not know the format, or the bytes are damaged.
    pub fn decode(bytes: &[u8]) -> Result<Self, DecodeError> {
        let mut reader = Reader::new(bytes);
        let found = reader.byte()?;
        if found != FORMAT_VERSION {
            return Err(DecodeError::Version { found });
        }
        let level = reader.byte()?;
        if level > MAX_LEVEL {
            return Err(DecodeError::Malformed { what: "a tree of absurd depth" });
        }
        let keys = get_rows(&mut reader)?;
        if level == 0 {
            reader.finish()?;
            return Ok(Self::Leaf(Arc::new(keys)));
        }
        let count = keys.len();
        let counts = ints::get(&mut reader, count)?.into();
        let open = ints::get(&mut reader, count)?.iter().map(|open| *open != 0).collect();
        let addresses = reader.take(count.saturating_mul(32))?;
        let addresses = addresses.as_chunks().0.iter().map(|bytes| Address(*bytes)).collect();
        reader.finish()?;
        Ok(Self::Branch(Branch { level, keys: Arc::new(keys), counts, addresses, open }))
    }
}

fn put_rows(out: &mut Vec<u8>, rows: &[DatomRef<'_>], index: Index) {
    let mut table: Vec<AttrId> = rows.iter().map(|row| row.a).collect();
    table.sort_unstable();
    table.dedup();
    let places: Vec<u64> =
        rows.iter().map(|row| table.partition_point(|a| *a < row.a) as u64).collect();
    let retractions = rows.iter().any(|row| !row.added);

    let mut columns = Vec::new();
    let entities: Vec<u64> = rows.iter().map(|row| row.e).collect();
    ints::put(&mut columns, &entities);
    if table.len() > 1 {
        ints::put(&mut columns, &places);
    }
    let shapes = (index == Index::Eavt).then(|| shapes(&entities, &places));
    let shapes = shapes.filter(|shapes| shapes.len() < columns.len());

    put_varint(out, rows.len() as u64);
    let flags = [(SHAPES, shapes.is_some()), (RETRACTIONS, retractions)];
    out.push(flags.into_iter().filter(|(_, on)| *on).map(|(flag, _)| flag).sum());
    put_varint(out, table.len() as u64);
    let ids: Vec<u64> = table.iter().map(|a| u64::from(a.0)).collect();
    ints::put(out, &ids);
    out.extend(shapes.unwrap_or(columns));
    if retractions {
        ints::put(out, &rows.iter().map(|row| u64::from(row.added)).collect::<Vec<_>>());
    }
    ints::put(out, &rows.iter().map(|row| row.tx).collect::<Vec<_>>());

    let mut groups: Vec<Vec<ValueRef<'_>>> = vec![Vec::new(); table.len()];
    for (row, place) in rows.iter().zip(&places) {
        groups[*place as usize].push(row.v);
    }
    groups.iter().for_each(|group| values::put(out, group));
}

fn get_rows(reader: &mut Reader<'_>) -> Result<Leaf, DecodeError> {
    let count = usize::try_from(reader.varint()?).unwrap_or(usize::MAX);
    if count == 0 || count > MAX_ITEMS {
        return Err(DecodeError::Malformed { what: "a block without rows, or with too many" });
    }
    let flags = reader.byte()?;
    if flags & !(SHAPES | RETRACTIONS) != 0 {
        return Err(DecodeError::Malformed { what: "unknown flags" });
    }
    let attributes = usize::try_from(reader.varint()?).unwrap_or(usize::MAX);
    if attributes == 0 || attributes > count {
        return Err(DecodeError::Malformed { what: "more attributes than rows, or none" });
    }
    let table: Option<Box<[AttrId]>> = ints::get(reader, attributes)?
        .into_iter()
        .map(|a| u32::try_from(a).ok().map(AttrId))
        .collect();
    let table = table.ok_or(DecodeError::Malformed { what: "an attribute beyond 32 bits" })?;

    let (entities, places) = if flags & SHAPES != 0 {
        get_shapes(reader, count)?
    } else {
        let entities = ints::get(reader, count)?;
        let places = if attributes > 1 { ints::get(reader, count)? } else { vec![0; count] };
        (entities, places)
    };
    let mut starts = vec![0_usize; attributes + 1];
    for place in &places {
        match usize::try_from(*place).ok().and_then(|at| starts.get_mut(at.checked_add(1)?)) {
            Some(start) => *start += 1,
            None => return Err(DecodeError::Malformed { what: "an attribute not in the table" }),
        }
    }
    let added = match flags & RETRACTIONS {
        0 => None,
        _ => Some(ints::get(reader, count)?.iter().map(|added| *added != 0).collect()),
    };
    let tx = ints::get(reader, count)?;

    for at in 1..starts.len() {
        starts[at] += starts[at - 1];
    }
    let places: Vec<u32> = places.iter().map(|place| *place as u32).collect();
    let mut order = vec![0_u32; if attributes > 1 { count } else { 0 }];
    if attributes > 1 {
        let mut next = starts.clone();
        for (row, place) in places.iter().enumerate() {
            order[next[*place as usize]] = row as u32;
            next[*place as usize] += 1;
        }
    }
    let (mut heap, mut side) = (Vec::new(), Vec::<Value>::new());
    let mut kinds = Vec::with_capacity(attributes);
    let mut cells = vec![0_u64; if attributes > 1 { count } else { 0 }];
    for attribute in 0..attributes {
        let (start, end) = (starts[attribute], starts[attribute + 1]);
        if start == end {
            return Err(DecodeError::Malformed { what: "an attribute without rows" });
        }
        let (kind, column) = values::get(reader, end - start, &mut heap, &mut side)?;
        kinds.push(kind);
        if attributes == 1 {
            cells = column;
        } else {
            for (row, cell) in order[start..end].iter().zip(column) {
                cells[*row as usize] = cell;
            }
        }
    }
    let leaf = Leaf {
        e: Ids::new(&entities),
        a: Attributes::new(table, &places),
        kinds: kinds.into(),
        cells: cells.into(),
        heap: utf8(heap)?,
        side: side.into(),
        tx: Ids::new(&tx),
        added,
    };
    leaf.strings_are_whole()
        .then_some(leaf)
        .ok_or(DecodeError::Malformed { what: "a string is not UTF-8" })
}

fn utf8(heap: Vec<u8>) -> Result<Box<str>, DecodeError> {
    String::from_utf8(heap)
        .map(Into::into)
        .map_err(|_| DecodeError::Malformed { what: "a string is not UTF-8" })
}

/// Entities, the distinct lists of attributes that they have, and which of them each has.
fn shapes(entities: &[u64], places: &[u64]) -> Vec<u8> {
    let mut distinct: Vec<u64> = Vec::new();
    let mut shapes: Vec<&[u64]> = Vec::new();
    let mut choices: Vec<u64> = Vec::new();
    let mut start = 0;
    for run in entities.chunk_by(|a, b| a == b) {
        let shape = &places[start..start + run.len()];
        start += run.len();
        distinct.push(run[0]);
        let known = shapes.iter().position(|known| *known == shape);
        choices.push(known.unwrap_or_else(|| {
            shapes.push(shape);
            shapes.len() - 1
        }) as u64);
    }
    let mut out = Vec::new();
    put_varint(&mut out, distinct.len() as u64);
    ints::put(&mut out, &distinct);
    put_varint(&mut out, shapes.len() as u64);
    for shape in shapes {
        put_varint(&mut out, shape.len() as u64);
        ints::put(&mut out, shape);
    }
    ints::put(&mut out, &choices);
    out
}

fn get_shapes(reader: &mut Reader<'_>, count: usize) -> Result<(Vec<u64>, Vec<u64>), DecodeError> {
    const WRONG: DecodeError = DecodeError::Malformed { what: "shapes do not give the rows" };
    let bounded = |n: u64| usize::try_from(n).ok().filter(|n| *n <= count).ok_or(WRONG);
    let distinct = bounded(reader.varint()?)?;
    let distinct = ints::get(reader, distinct)?;
    let shapes = bounded(reader.varint()?)?;
    let (mut ends, mut all) = (Vec::with_capacity(shapes), Vec::new());
    for _ in 0..shapes {
        let len = bounded(reader.varint()?)?;
        all.extend(ints::get(reader, len)?);
        // Distinct shapes of a leaf never have more places than it has rows.
        bounded(all.len() as u64)?;
        ends.push(all.len());
    }
    let choices = ints::get(reader, distinct.len())?;
    let (mut entities, mut places) = (Vec::with_capacity(count), Vec::with_capacity(count));
    for (entity, choice) in distinct.iter().zip(choices) {
        let choice = usize::try_from(choice).map_err(|_| WRONG)?;
        let end = *ends.get(choice).ok_or(WRONG)?;
        let start = choice.checked_sub(1).map_or(0, |before| ends[before]);
        if end - start > count - entities.len() {
            return Err(WRONG);
        }
        places.extend(&all[start..end]);
        entities.extend(std::iter::repeat_n(*entity, end - start));
    }
    if entities.len() == count { Ok((entities, places)) } else { Err(WRONG) }
}
