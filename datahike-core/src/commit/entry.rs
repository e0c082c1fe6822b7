//! Log entries.
//!
//! ```text
//! entry    version  length of public  public  private
//! public   first 8 bytes of the parent's commit id, body
//! body     count of transactions, transactions
//! ```
//! The public part goes to mirrors byte for byte; the private part stays where it was written. The
//! commit id covers the body and, through the whole id of the parent, all that was before.

use datahike_value::{Keyword, Value};

use super::dedup::RequestId;
use super::{CommitError, CommitId, Position};
use crate::datom::{AttrId, Datom, TX0, TxId};
use crate::index::DecodeError;
use crate::index::codec::{Reader, get_value, put_value, put_varint, put_zigzag};
use crate::schema::system;
use crate::tx::ResolvedTx;

const WHAT: &str = "log entry";
const VERSION: u8 = 1;

/// Bytes of the parent's id in an entry: enough to notice that entries do not follow each other.
const PARENT_BYTES: usize = 8;

/// Flags of a datom: asserted; of another transaction than the one it stands in; about the entity
/// of the datom before; about the transaction itself.
const ADDED: u8 = 1;
const OTHER_TX: u8 = 2;
const SAME_ENTITY: u8 = 4;
const TX_ENTITY: u8 = 8;

/// A resolved transaction as it stands in the log.
pub type TxRecord = ResolvedTx;

/// A commit: what happened, and the writer's private notes.
#[derive(Clone, Debug, PartialEq)]
pub struct Entry {
    /// The transactions, in order; at least one.
    pub transactions: Vec<TxRecord>,
    /// What the writer remembers of who asked.
    pub notes: Vec<Note>,
}

/// A client's transaction in this commit, so that it happens once.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Note {
    /// Who asked, and for what.
    pub request: RequestId,
    /// Hash of the transaction data as it was sent.
    pub body: [u8; 32],
    /// The transaction it became.
    pub tx: TxId,
    /// Ids given to its tempids.
    pub tempids: Vec<(Value, u64)>,
}

impl Entry {
    /// The bytes of the entry that follows `parent`, and its place.
    pub fn encode(&self, parent: &Position) -> (Vec<u8>, Position) {
        let mut public = Vec::with_capacity(64);
        public.extend_from_slice(&parent.commit.0[..PARENT_BYTES]);
        put_varint(&mut public, self.transactions.len() as u64);
        let mut before = Before::default();
        for transaction in &self.transactions {
            put_transaction(&mut public, transaction, &mut before);
        }
        let at = parent.next(&public[PARENT_BYTES..]);
        let mut out = Vec::with_capacity(public.len() + 8);
        out.push(VERSION);
        put_varint(&mut out, public.len() as u64);
        out.append(&mut public);
        put_varint(&mut out, self.notes.len() as u64);
        self.notes.iter().for_each(|note| note.put(&mut out));
        (out, at)
    }

    /// An entry with its place, read after `parent`.
    ///
    /// # Errors
    /// If the bytes are no entry, or one that continues another commit.
    pub fn decode(bytes: &[u8], parent: &Position) -> Result<(Self, Position), CommitError> {
        let mut reader = Reader::new(bytes);
        let public = read_public(&mut reader)?;
        let (transactions, at) = decode_public(public, parent)?;
        let read = |reader: &mut Reader<'_>| {
            let count = reader.count()?;
            let notes = (0..count).map(|_| Note::get(reader)).collect::<Result<_, _>>()?;
            reader.finish()?;
            Ok(notes)
        };
        let notes = read(&mut reader).map_err(CommitError::decode(WHAT))?;
        Ok((Self { transactions, notes }, at))
    }

    /// An entry as a mirror stores it: the public part, with no notes.
    ///
    /// # Errors
    /// If the bytes are no public part, or one that continues another commit than `parent`.
    pub fn from_public(public: &[u8], parent: &Position) -> Result<(Self, Position), CommitError> {
        let (transactions, at) = decode_public(public, parent)?;
        Ok((Self { transactions, notes: Vec::new() }, at))
    }
}

/// The part of an encoded entry that may leave the server.
///
/// # Errors
/// If the bytes are no entry.
pub fn public_part(entry: &[u8]) -> Result<&[u8], CommitError> {
    read_public(&mut Reader::new(entry))
}

fn read_public<'a>(reader: &mut Reader<'a>) -> Result<&'a [u8], CommitError> {
    let version = reader.byte().map_err(CommitError::decode(WHAT))?;
    if version != VERSION {
        return Err(CommitError::Version { what: WHAT, found: version, supported: VERSION });
    }
    let mut read = || {
        let len = reader.count()?;
        reader.take(len)
    };
    read().map_err(CommitError::decode(WHAT))
}

fn decode_public(
    public: &[u8],
    parent: &Position,
) -> Result<(Vec<TxRecord>, Position), CommitError> {
    let mut reader = Reader::new(public);
    let check: [u8; PARENT_BYTES] = reader.array().map_err(CommitError::decode(WHAT))?;
    if check != parent.commit.0[..PARENT_BYTES] {
        return Err(CommitError::Parent { seq: parent.seq + 1, parent: parent.commit });
    }
    let mut read = || {
        let count = reader.count()?;
        let mut before = Before::default();
        let transactions =
            (0..count).map(|_| get_transaction(&mut reader, &mut before)).collect::<Result<_, _>>()?;
        reader.finish()?;
        Ok(transactions)
    };
    let transactions: Vec<TxRecord> = read().map_err(CommitError::decode(WHAT))?;
    if transactions.is_empty() {
        return Err(CommitError::invalid(WHAT, "it has no transaction"));
    }
    let body = public.get(PARENT_BYTES..).unwrap_or_default();
    Ok((transactions, parent.next(body)))
}

/// What the numbers of the next transaction are counted from.
struct Before {
    tx: TxId,
    instant: i64,
    entity: u64,
}

impl Default for Before {
    fn default() -> Self {
        Self { tx: TX0, instant: 0, entity: 0 }
    }
}

fn put_transaction(out: &mut Vec<u8>, transaction: &TxRecord, before: &mut Before) {
    put_zigzag(out, distance(before.tx, transaction.tx));
    before.tx = transaction.tx;
    put_varint(out, transaction.new_attributes.len() as u64);
    for ident in transaction.new_attributes.iter() {
        put_varint(out, ident.text().len() as u64);
        out.extend_from_slice(ident.text().as_bytes());
    }
    put_varint(out, transaction.datoms.len() as u64);
    for datom in transaction.datoms.iter() {
        put_datom(out, datom, before);
    }
}

fn get_transaction(
    reader: &mut Reader<'_>,
    before: &mut Before,
) -> Result<TxRecord, DecodeError> {
    let tx = displaced(before.tx, reader.zigzag()?);
    before.tx = tx;
    let idents = reader.count()?;
    let new_attributes = (0..idents)
        .map(|_| Ok(Keyword::parse(reader.text()?)))
        .collect::<Result<_, DecodeError>>()?;
    let count = reader.count()?;
    let datoms =
        (0..count).map(|_| get_datom(reader, before)).collect::<Result<_, DecodeError>>()?;
    Ok(TxRecord { tx, datoms, new_attributes })
}

fn put_datom(out: &mut Vec<u8>, datom: &Datom, before: &mut Before) {
    let mut flags = 0;
    for (flag, holds) in [
        (ADDED, datom.added),
        (OTHER_TX, datom.tx != before.tx),
        (SAME_ENTITY, datom.e == before.entity && datom.e != before.tx),
        (TX_ENTITY, datom.e == before.tx),
    ] {
        flags |= if holds { flag } else { 0 };
    }
    out.push(flags);
    put_varint(out, u64::from(datom.a.0));
    if flags & (SAME_ENTITY | TX_ENTITY) == 0 {
        put_zigzag(out, distance(before.entity, datom.e));
        before.entity = datom.e;
    }
    if flags & OTHER_TX != 0 {
        put_zigzag(out, distance(before.tx, datom.tx));
    }
    match (&datom.v, datom.a) {
        (Value::Inst(ms), system::TX_INSTANT) => {
            out.push(1);
            put_zigzag(out, ms.wrapping_sub(before.instant));
            before.instant = *ms;
        }
        (v, system::TX_INSTANT) => {
            out.push(0);
            put_value(out, v);
        }
        (v, _) => put_value(out, v),
    }
}

fn get_datom(
    reader: &mut Reader<'_>,
    before: &mut Before,
) -> Result<Datom, DecodeError> {
    let flags = reader.byte()?;
    let a = u32::try_from(reader.varint()?).map(AttrId);
    let a = a.map_err(|_| DecodeError::Malformed { what: "no such attribute" })?;
    let e = if flags & TX_ENTITY != 0 {
        before.tx
    } else {
        if flags & SAME_ENTITY == 0 {
            before.entity = displaced(before.entity, reader.zigzag()?);
        }
        before.entity
    };
    let tx = if flags & OTHER_TX != 0 { displaced(before.tx, reader.zigzag()?) } else { before.tx };
    let v = if a == system::TX_INSTANT && reader.byte()? == 1 {
        let ms = before.instant.wrapping_add(reader.zigzag()?);
        before.instant = ms;
        Value::Inst(ms)
    } else {
        get_value(reader)?
    };
    Ok(Datom { e, a, v, tx, added: flags & ADDED != 0 })
}

fn distance(from: u64, to: u64) -> i64 {
    to.wrapping_sub(from) as i64
}

fn displaced(from: u64, by: i64) -> u64 {
    from.wrapping_add(by as u64)
}

impl Note {
    fn put(&self, out: &mut Vec<u8>) {
        self.request.put(out);
        out.extend_from_slice(&self.body);
        put_varint(out, self.tx);
        put_varint(out, self.tempids.len() as u64);
        for (tempid, id) in &self.tempids {
            put_value(out, tempid);
            put_varint(out, *id);
        }
    }

    fn get(reader: &mut Reader<'_>) -> Result<Self, DecodeError> {
        let request = RequestId::get(reader)?;
        let body = reader.array()?;
        let tx = reader.varint()?;
        let count = reader.count()?;
        let tempids = (0..count)
            .map(|_| Ok((get_value(reader)?, reader.varint()?)))
            .collect::<Result<_, _>>()?;
        Ok(Self { request, body, tx, tempids })
    }
}
