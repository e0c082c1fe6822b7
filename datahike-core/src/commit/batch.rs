//! Many log entries at once, for whoever catches up.
//!
//! ```text
//! batch    version  length of the columns  lz4 of the columns
//! columns  entries  heads of transactions  flags  attributes  entities  transactions  values
//! ```
//! Fields of one kind stand together, the values of one attribute too, and what is small next to the
//! field before is a difference: lz4 then finds what repeats. The entries that come out are byte for
//! byte the public parts that went in, so that their commit ids prove them.

use std::collections::BTreeMap;

use super::entry::{
    ADDED, Before, Entry, OTHER_TX, SAME_ENTITY, TX_ENTITY, TxRecord, check_id, displaced,
    distance, get_attribute, get_merged, get_transaction_head, public_part, put_merged,
    put_transaction_head,
};
use super::scalar::Kind;
use super::{CommitError, CommitId, Position, check_version};
use crate::datom::{AttrId, Datom};
use crate::index::DecodeError;
use crate::index::codec::{Reader, put_varint, put_zigzag};

const WHAT: &str = "batch of log entries";
const VERSION: u8 = 1;

/// Size of the columns of one batch: what a receiver must be ready to hold. A longer log takes
/// several batches.
pub const BATCH_RAW_BYTES_MAX: usize = 16 << 20;

/// Bytes that one byte of lz4 may stand for.
const LZ4_RATIO_MAX: usize = 255;

/// An entry out of a batch.
#[derive(Clone, Debug, PartialEq)]
pub struct BatchEntry {
    /// Its transactions, and no notes.
    pub entry: Entry,
    /// Its bytes, as a mirror appends them to its log.
    pub bytes: Vec<u8>,
}

/// The encoded entries that follow `from` as one piece, as many of them as fit, and the place of the
/// last. Notes are left out.
///
/// # Errors
/// If one of the entries cannot be read or does not continue the one before.
pub fn encode_batch<'a>(
    entries: impl IntoIterator<Item = &'a [u8]>,
    from: &Position,
) -> Result<(Vec<u8>, Position), CommitError> {
    let mut columns = Columns::after(from);
    let mut at = *from;
    let mut bytes = 0;
    for entry in entries {
        bytes += entry.len();
        // Columns are shorter than entries, so that this bounds them.
        if bytes > BATCH_RAW_BYTES_MAX && columns.entries > 0 {
            break;
        }
        let public = public_part(entry)?;
        let (decoded, next) = Entry::from_public(public, &at)?;
        // Whatever wrote the entry, what is unpacked must have its commit id.
        let (again, _) = decoded.encode(&at);
        if public_part(&again)? != public {
            return Err(CommitError::invalid(WHAT, "an entry is not in its canonical form"));
        }
        columns.put_entry(&decoded);
        at = next;
    }
    let raw = columns.finish();
    let mut out = vec![VERSION];
    put_varint(&mut out, raw.len() as u64);
    out.extend(lz4_flex::block::compress(&raw));
    Ok((out, at))
}

/// The entries of a batch that follows `from`, and the place of the last.
///
/// # Errors
/// If the bytes are no batch. That it continues the right history shows in the place: compare its
/// commit id with the one that was promised.
pub fn decode_batch(
    bytes: &[u8],
    from: &Position,
) -> Result<(Vec<BatchEntry>, Position), CommitError> {
    let mut reader = Reader::new(bytes);
    check_version(&mut reader, WHAT, VERSION)?;
    let raw_len = reader.varint().map_err(CommitError::decode(WHAT))?;
    let compressed = reader.take(reader.remaining()).map_err(CommitError::decode(WHAT))?;
    // One entry may be longer than the bound; then nothing but its own size bounds it.
    let raw_len = usize::try_from(raw_len)
        .ok()
        .filter(|len| *len <= 4 * BATCH_RAW_BYTES_MAX)
        .filter(|len| *len / LZ4_RATIO_MAX <= compressed.len())
        .ok_or_else(|| CommitError::invalid(WHAT, "it claims to be larger than it can be"))?;
    let raw = lz4_flex::block::decompress(compressed, raw_len)
        .map_err(|error| CommitError::invalid(WHAT, error))?;
    if raw.len() != raw_len {
        return Err(CommitError::invalid(WHAT, "it is shorter than it claims to be"));
    }
    let mut columns = ColumnReaders::new(&raw, from).map_err(CommitError::decode(WHAT))?;
    let mut entries = Vec::new();
    let mut at = *from;
    for _ in 0..columns.entries {
        let (merged, transactions) = columns.get_entry().map_err(CommitError::decode(WHAT))?;
        if transactions.is_empty() {
            return Err(CommitError::invalid(WHAT, "an entry has no transaction"));
        }
        let entry = Entry { merged, transactions, notes: Vec::new() };
        let (bytes, next) = entry.encode(&at);
        entries.push(BatchEntry { entry, bytes });
        at = next;
    }
    columns.finish().map_err(CommitError::decode(WHAT))?;
    Ok((entries, at))
}

struct Columns {
    entries: u64,
    /// Per entry how many transactions; per transaction all but its datoms.
    heads: Vec<u8>,
    flags: Vec<u8>,
    attributes: Vec<u8>,
    entities: Vec<u8>,
    transactions: Vec<u8>,
    values: BTreeMap<AttrId, Vec<u8>>,
    before: Before,
}

impl Columns {
    fn after(from: &Position) -> Self {
        Self {
            entries: 0,
            heads: Vec::new(),
            flags: Vec::new(),
            attributes: Vec::new(),
            entities: Vec::new(),
            transactions: Vec::new(),
            values: BTreeMap::new(),
            before: Before::after(from),
        }
    }

    fn put_entry(&mut self, entry: &Entry) {
        self.entries += 1;
        put_merged(&mut self.heads, &entry.merged);
        put_varint(&mut self.heads, entry.transactions.len() as u64);
        for transaction in &entry.transactions {
            let datoms = put_transaction_head(&mut self.heads, transaction, &mut self.before);
            datoms.iter().for_each(|datom| self.put_datom(datom));
        }
    }

    fn put_datom(&mut self, datom: &Datom) {
        let flags = self.before.flags(datom);
        self.flags.push(Kind::of(&datom.v).beside(flags));
        put_varint(&mut self.attributes, u64::from(datom.a.0));
        if flags & (SAME_ENTITY | TX_ENTITY) == 0 {
            put_zigzag(&mut self.entities, distance(self.before.entity, datom.e));
            self.before.entity = datom.e;
        }
        if flags & OTHER_TX != 0 {
            put_zigzag(&mut self.transactions, distance(self.before.tx, datom.tx));
        }
        Kind::put(self.values.entry(datom.a).or_default(), &datom.v);
    }

    fn finish(self) -> Vec<u8> {
        let mut out = Vec::new();
        put_varint(&mut out, self.entries);
        let mut put = |column: &[u8]| {
            put_varint(&mut out, column.len() as u64);
            out.extend_from_slice(column);
        };
        put(&self.heads);
        put(&self.flags);
        put(&self.attributes);
        put(&self.entities);
        put(&self.transactions);
        put_varint(&mut out, self.values.len() as u64);
        for (attribute, column) in &self.values {
            put_varint(&mut out, u64::from(attribute.0));
            put_varint(&mut out, column.len() as u64);
            out.extend_from_slice(column);
        }
        out
    }
}

struct ColumnReaders<'a> {
    entries: usize,
    heads: Reader<'a>,
    flags: Reader<'a>,
    attributes: Reader<'a>,
    entities: Reader<'a>,
    transactions: Reader<'a>,
    values: BTreeMap<AttrId, Reader<'a>>,
    before: Before,
}

impl<'a> ColumnReaders<'a> {
    fn new(raw: &'a [u8], from: &Position) -> Result<Self, DecodeError> {
        let mut reader = Reader::new(raw);
        let entries = reader.count()?;
        let mut column = || {
            let len = reader.count()?;
            Ok(Reader::new(reader.take(len)?))
        };
        let mut readers = Self {
            entries,
            heads: column()?,
            flags: column()?,
            attributes: column()?,
            entities: column()?,
            transactions: column()?,
            values: BTreeMap::new(),
            before: Before::after(from),
        };
        for _ in 0..reader.count()? {
            let attribute = get_attribute(&mut reader)?;
            let len = reader.count()?;
            readers.values.insert(attribute, Reader::new(reader.take(len)?));
        }
        reader.finish()?;
        Ok(readers)
    }

    fn get_entry(&mut self) -> Result<(Vec<CommitId>, Vec<TxRecord>), DecodeError> {
        let (merged, count) = get_merged(&mut self.heads)?;
        let transactions = (0..count).map(|_| self.get_transaction()).collect::<Result<_, _>>()?;
        Ok((merged, transactions))
    }

    fn get_transaction(&mut self) -> Result<TxRecord, DecodeError> {
        let head = get_transaction_head(&mut self.heads, &mut self.before)?;
        let datoms = head.instant_datom().map(Ok);
        let datoms = datoms.into_iter().chain((0..head.others).map(|_| self.get_datom()));
        let datoms = datoms.collect::<Result<_, DecodeError>>()?;
        Ok(TxRecord {
            tx: head.tx,
            datoms,
            new_attributes: head.new_attributes,
            purged: head.purged,
        })
    }

    fn get_datom(&mut self) -> Result<Datom, DecodeError> {
        let flags = self.flags.byte()?;
        let a = get_attribute(&mut self.attributes)?;
        if flags & (SAME_ENTITY | TX_ENTITY) == 0 {
            self.before.entity = displaced(self.before.entity, self.entities.zigzag()?);
        }
        let e = if flags & TX_ENTITY == 0 { self.before.entity } else { self.before.tx };
        let tx = match flags & OTHER_TX {
            0 => self.before.tx,
            _ => displaced(self.before.tx, self.transactions.zigzag()?),
        };
        let column = self.values.get_mut(&a);
        let column = column.ok_or(DecodeError::Malformed { what: "an attribute has no values" })?;
        let v = Kind::in_byte(flags).get(column)?;
        check_id(e)?;
        check_id(tx)?;
        Ok(Datom { e, a, v, tx, added: flags & ADDED != 0 })
    }

    fn finish(&self) -> Result<(), DecodeError> {
        let columns =
            [&self.heads, &self.flags, &self.attributes, &self.entities, &self.transactions];
        columns.into_iter().chain(self.values.values()).try_for_each(Reader::finish)
    }
}
