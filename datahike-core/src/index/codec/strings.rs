//! Columns of strings: the smallest of plain, dictionary, and what each shares with the one before.

use hashbrown::HashMap;

use super::DecodeError;
use super::bytes::{Reader, put_varint, varint_len};
use super::ints;

/// How a column of strings may be written; the discriminants are bytes of the format.
pub(super) const PLAIN: u8 = 6;
pub(super) const DICTIONARY: u8 = 7;
pub(super) const PREFIXES: u8 = 8;

/// How large the heap of a leaf may grow when strings that share beginnings are written out.
const MAX_HEAP: usize = 8 << 20;

/// Writes the kind and the column.
pub(super) fn put(out: &mut Vec<u8>, strings: &[&str]) {
    let lens: Vec<u64> = strings.iter().map(|s| s.len() as u64).collect();
    let plain = ints::plan(&lens);
    let plain_size = plain.size + strings.iter().map(|s| s.len()).sum::<usize>();

    let shared: Vec<u64> = std::iter::once(0)
        .chain(strings.windows(2).map(|pair| shared_len(pair[0], pair[1])))
        .take(strings.len())
        .collect();
    let rests: Vec<u64> = lens.iter().zip(&shared).map(|(len, shared)| len - shared).collect();
    let (shared_plan, rests_plan) = (ints::plan(&shared), ints::plan(&rests));
    let prefixes_size = shared_plan.size + rests_plan.size + rests.iter().sum::<u64>() as usize;

    let dictionary = dictionary(strings);
    let dictionary_size = dictionary.as_ref().map_or(usize::MAX, |(entries, places)| {
        let lens: Vec<u64> = entries.iter().map(|s| s.len() as u64).collect();
        varint_len(entries.len() as u64)
            + ints::plan(&lens).size
            + entries.iter().map(|s| s.len()).sum::<usize>()
            + ints::plan(places).size
    });

    if let Some((entries, places)) =
        dictionary.filter(|_| dictionary_size < plain_size.min(prefixes_size))
    {
        out.push(DICTIONARY);
        put_varint(out, entries.len() as u64);
        let lens: Vec<u64> = entries.iter().map(|s| s.len() as u64).collect();
        ints::put(out, &lens);
        entries.iter().for_each(|s| out.extend(s.as_bytes()));
        ints::put(out, &places);
    } else if prefixes_size < plain_size {
        out.push(PREFIXES);
        ints::put_planned(out, &shared, shared_plan);
        ints::put_planned(out, &rests, rests_plan);
        for (s, shared) in strings.iter().zip(&shared) {
            out.extend(&s.as_bytes()[*shared as usize..]);
        }
    } else {
        out.push(PLAIN);
        ints::put_planned(out, &lens, plain);
        strings.iter().for_each(|s| out.extend(s.as_bytes()));
    }
}

/// Reads a column of one of the kinds above: appends to `heap`, returns the cells.
pub(super) fn get(
    reader: &mut Reader<'_>,
    kind: u8,
    count: usize,
    heap: &mut Vec<u8>,
) -> Result<Vec<u64>, DecodeError> {
    match kind {
        PLAIN => get_plain(reader, count, heap),
        DICTIONARY => {
            let entries = reader.count()?;
            if entries > count {
                return Err(DecodeError::Malformed { what: "a dictionary larger than its column" });
            }
            let cells = get_plain(reader, entries, heap)?;
            let places = ints::get(reader, count)?;
            let cell = |place: &u64| cells.get(usize::try_from(*place).ok()?).copied();
            let cells: Option<Vec<u64>> = places.iter().map(cell).collect();
            cells.ok_or(DecodeError::Malformed { what: "a string is not in its dictionary" })
        }
        _ => get_prefixes(reader, count, heap),
    }
}

fn get_plain(
    reader: &mut Reader<'_>,
    count: usize,
    heap: &mut Vec<u8>,
) -> Result<Vec<u64>, DecodeError> {
    let mut cells = ints::get(reader, count)?;
    for cell in &mut cells {
        let len = usize::try_from(*cell).unwrap_or(usize::MAX);
        *cell = place(heap, len)?;
        heap.extend(reader.take(len)?);
    }
    Ok(cells)
}

fn get_prefixes(
    reader: &mut Reader<'_>,
    count: usize,
    heap: &mut Vec<u8>,
) -> Result<Vec<u64>, DecodeError> {
    let shared = ints::get(reader, count)?;
    let mut cells = ints::get(reader, count)?;
    let (mut before, first) = (heap.len()..heap.len(), heap.len());
    for (cell, shared) in cells.iter_mut().zip(shared) {
        let shared = usize::try_from(shared).unwrap_or(usize::MAX);
        let rest = reader.take(usize::try_from(*cell).unwrap_or(usize::MAX))?;
        if shared > before.len() {
            return Err(DecodeError::Malformed { what: "a string shares more than there is" });
        }
        if heap.len() - first + shared > MAX_HEAP + rest.len() {
            return Err(DecodeError::Malformed { what: "strings of a block are too large" });
        }
        *cell = place(heap, shared + rest.len())?;
        let start = heap.len();
        heap.extend_from_within(before.start..before.start + shared);
        heap.extend(rest);
        before = start..heap.len();
    }
    Ok(cells)
}

/// The cell of a string of this length at the end of the heap.
fn place(heap: &[u8], len: usize) -> Result<u64, DecodeError> {
    match (u32::try_from(heap.len()), u32::try_from(len)) {
        (Ok(start), Ok(len)) => Ok(u64::from(start) << 32 | u64::from(len)),
        _ => Err(DecodeError::Malformed { what: "strings of a block are too large" }),
    }
}

/// Distinct strings in the order of their first appearance, and which one each row has; `None` where
/// so many are distinct that it cannot pay.
fn dictionary<'a>(strings: &[&'a str]) -> Option<(Vec<&'a str>, Vec<u64>)> {
    let mut entries = Vec::new();
    let mut places = Vec::with_capacity(strings.len());
    let mut known: HashMap<&str, u64> = HashMap::new();
    for s in strings {
        let place = *known.entry(s).or_insert_with(|| {
            entries.push(*s);
            entries.len() as u64 - 1
        });
        if entries.len() > strings.len() / 2 {
            return None;
        }
        places.push(place);
    }
    Some((entries, places))
}

fn shared_len(a: &str, b: &str) -> u64 {
    a.bytes().zip(b.bytes()).take_while(|(a, b)| a == b).count() as u64
}
