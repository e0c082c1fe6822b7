//! Log entries.
//!
//! ```text
//! entry        version  length of public  public  notes
//! public       first 4 bytes of the parent's commit id, body
//! body         [0, count of merged commits, their ids]  count of transactions, transactions
//! transaction  id  count of datoms and flags  [instant]  [[purged]  new attributes]  datoms
//! purged       0, count, datoms
//! datom        flags and type  attribute  [entity]  [transaction]  value
//! ```
//! The public part goes to mirrors byte for byte; the notes stay where they were written. The commit
//! id covers the body and, through the whole id of the parent, all that was before. Ids and instants
//! are counted from those before.

use std::sync::Arc;

use datahike_value::{Keyword, Value};

use super::dedup::{Remembered, RequestId};
use super::scalar::Kind;
use super::{CommitError, CommitId, Position, check_version};
use crate::datom::{AttrId, Datom, TX0, TxId};
use crate::index::DecodeError;
use crate::index::codec::{Reader, get_value, put_value, put_varint, put_zigzag};
use crate::schema::system;
use crate::tx::ResolvedTx;

const WHAT: &str = "log entry";
const VERSION: u8 = 1;

/// Bytes of the parent's id in an entry: enough to notice that entries do not follow each other.
const PARENT_BYTES: usize = 4;

/// Flags of a datom: asserted; of another transaction than the one it stands in; about the entity
/// of the datom before; about the transaction itself.
pub(super) const ADDED: u8 = 1;
pub(super) const OTHER_TX: u8 = 2;
pub(super) const SAME_ENTITY: u8 = 4;
pub(super) const TX_ENTITY: u8 = 8;

/// Flags of a transaction, below the count of its datoms: the first datom is its instant, of which
/// only the time is written; it names new attributes or purges.
const HAS_INSTANT: u64 = 1;
const HAS_MORE: u64 = 2;
const TRANSACTION_FLAGS: u32 = 2;

/// Stands in place of the count of new attributes before what is purged.
const PURGES: u64 = 0;

/// Stands in place of the count of transactions before what is merged.
const MERGES: u64 = 0;

/// Commits that one commit may merge, besides the one that it continues.
pub const MERGED_MAX: usize = 1_024;

/// A resolved transaction as it stands in the log.
pub type TxRecord = ResolvedTx;

/// A commit: what happened, and the writer's private notes.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Entry {
    /// The commits that it brings together with the one that it continues: its further parents, at
    /// most [`MERGED_MAX`].
    pub merged: Vec<CommitId>,
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
        put_merged(&mut public, &self.merged);
        put_varint(&mut public, self.transactions.len() as u64);
        let mut before = Before::after(parent);
        for transaction in &self.transactions {
            put_transaction(&mut public, transaction, &mut before);
        }
        let at = parent.next(&public[PARENT_BYTES..]);
        let mut out = Vec::with_capacity(public.len() + 8);
        put_entry(&mut out, &public);
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
        let (entry, at) = Self::from_public(public, parent)?;
        let read = |reader: &mut Reader<'_>| {
            let count = reader.count()?;
            let notes = (0..count).map(|_| Note::get(reader)).collect::<Result<_, _>>()?;
            reader.finish()?;
            Ok(notes)
        };
        let notes = read(&mut reader).map_err(CommitError::decode(WHAT))?;
        Ok((Self { notes, ..entry }, at))
    }

    /// An entry as a mirror stores it: the public part, with no notes.
    ///
    /// # Errors
    /// If the bytes are no public part, or one that continues another commit than `parent`.
    pub fn from_public(public: &[u8], parent: &Position) -> Result<(Self, Position), CommitError> {
        decode_public(public, parent)
    }
}

/// The part of an encoded entry that may leave the server.
///
/// # Errors
/// If the bytes are no entry.
pub fn public_part(entry: &[u8]) -> Result<&[u8], CommitError> {
    read_public(&mut Reader::new(entry))
}

/// The entry, without notes, of which these bytes are the public part: what a mirror appends to its
/// log.
pub fn entry_of_public(public: &[u8]) -> Vec<u8> {
    let mut out = Vec::with_capacity(public.len() + 4);
    put_entry(&mut out, public);
    put_varint(&mut out, 0);
    out
}

fn put_entry(out: &mut Vec<u8>, public: &[u8]) {
    out.push(VERSION);
    put_varint(out, public.len() as u64);
    out.extend_from_slice(public);
}

impl Position {
    /// The place after the entry with this public part, which is not read.
    #[must_use]
    pub fn after(&self, public: &[u8]) -> Self {
        self.next(public.get(PARENT_BYTES..).unwrap_or_default())
    }

    /// Whether an entry with this public part says that it continues the commit of this place.
    pub fn is_continued_by(&self, public: &[u8]) -> bool {
        public.get(..PARENT_BYTES) == self.commit.0.get(..PARENT_BYTES)
    }
}

fn read_public<'a>(reader: &mut Reader<'a>) -> Result<&'a [u8], CommitError> {
    check_version(reader, WHAT, VERSION)?;
    let mut read = || {
        let len = reader.count()?;
        reader.take(len)
    };
    read().map_err(CommitError::decode(WHAT))
}

pub(super) fn put_merged(out: &mut Vec<u8>, merged: &[CommitId]) {
    if !merged.is_empty() {
        put_varint(out, MERGES);
        put_varint(out, merged.len() as u64);
        merged.iter().for_each(|commit| out.extend_from_slice(&commit.0));
    }
}

/// What [`put_merged`] wrote, and the count of transactions after it.
pub(super) fn get_merged(reader: &mut Reader<'_>) -> Result<(Vec<CommitId>, usize), DecodeError> {
    let count = reader.count()?;
    if count as u64 != MERGES {
        return Ok((Vec::new(), count));
    }
    let merged = match reader.count()? {
        count @ 1..=MERGED_MAX => {
            (0..count).map(|_| reader.array().map(CommitId)).collect::<Result<_, _>>()?
        }
        _ => return Err(DecodeError::Malformed { what: "it merges no commit, or too many" }),
    };
    Ok((merged, reader.count()?))
}

fn decode_public(public: &[u8], parent: &Position) -> Result<(Entry, Position), CommitError> {
    let mut reader = Reader::new(public);
    let check: [u8; PARENT_BYTES] = reader.array().map_err(CommitError::decode(WHAT))?;
    if check != parent.commit.0[..PARENT_BYTES] {
        return Err(CommitError::Parent {
            seq: parent.seq.saturating_add(1),
            parent: parent.commit,
        });
    }
    let mut read = || {
        let (merged, count) = get_merged(&mut reader)?;
        let mut before = Before::after(parent);
        let transactions = (0..count)
            .map(|_| get_transaction(&mut reader, &mut before))
            .collect::<Result<_, _>>()?;
        reader.finish()?;
        Ok(Entry { merged, transactions, notes: Vec::new() })
    };
    let entry: Entry = read().map_err(CommitError::decode(WHAT))?;
    if entry.transactions.is_empty() {
        return Err(CommitError::invalid(WHAT, "it has no transaction"));
    }
    let body = public.get(PARENT_BYTES..).unwrap_or_default();
    Ok((entry, parent.next(body)))
}

/// What the numbers of the next transaction are counted from.
pub(super) struct Before {
    pub(super) tx: TxId,
    pub(super) instant: i64,
    pub(super) entity: u64,
}

impl Before {
    /// Where commits hold one transaction each, the first id is the one that is expected.
    pub(super) fn after(parent: &Position) -> Self {
        Self { tx: TX0.wrapping_add(parent.seq), instant: 0, entity: 0 }
    }

    /// The flags of a datom that follows.
    pub(super) fn flags(&self, datom: &Datom) -> u8 {
        let of_transaction = datom.e == self.tx;
        [
            (ADDED, datom.added),
            (OTHER_TX, datom.tx != self.tx),
            (SAME_ENTITY, datom.e == self.entity && !of_transaction),
            (TX_ENTITY, of_transaction),
        ]
        .into_iter()
        .fold(0, |flags, (flag, holds)| if holds { flags | flag } else { flags })
    }
}

/// The instant of a transaction, where it is the first of its datoms, and the other datoms.
fn split_instant(transaction: &TxRecord) -> (Option<i64>, &[Datom]) {
    match &*transaction.datoms {
        [Datom { e, a: system::TX_INSTANT, v: Value::Inst(ms), tx, added: true }, others @ ..]
            if *e == transaction.tx && *tx == transaction.tx =>
        {
            (Some(*ms), others)
        }
        datoms => (None, datoms),
    }
}

/// Everything of a transaction but its datoms, the instant excepted.
pub(super) fn put_transaction_head<'a>(
    out: &mut Vec<u8>,
    transaction: &'a TxRecord,
    before: &mut Before,
) -> &'a [Datom] {
    let (instant, datoms) = split_instant(transaction);
    put_zigzag(out, distance(before.tx.wrapping_add(1), transaction.tx));
    before.tx = transaction.tx;
    let attributes = &transaction.new_attributes;
    let mut head = (datoms.len() as u64) << TRANSACTION_FLAGS;
    head |= if instant.is_some() { HAS_INSTANT } else { 0 };
    let purged = &transaction.purged;
    let has_more = !attributes.is_empty() || !purged.is_empty();
    head |= if has_more { HAS_MORE } else { 0 };
    put_varint(out, head);
    if let Some(ms) = instant {
        put_zigzag(out, ms.wrapping_sub(before.instant));
        before.instant = ms;
    }
    if !purged.is_empty() {
        put_varint(out, PURGES);
        put_varint(out, purged.len() as u64);
        let mut before = Before { tx: transaction.tx, instant: 0, entity: 0 };
        purged.iter().for_each(|datom| put_datom(out, datom, &mut before));
    }
    if has_more {
        put_varint(out, attributes.len() as u64);
        for ident in attributes.iter() {
            put_value(out, &Value::Keyword(ident.clone()));
        }
    }
    datoms
}

/// What [`put_transaction_head`] wrote.
pub(super) struct TransactionHead {
    pub(super) tx: TxId,
    pub(super) instant: Option<i64>,
    pub(super) new_attributes: Arc<[Keyword]>,
    pub(super) purged: Arc<[Datom]>,
    /// Datoms besides the instant.
    pub(super) others: u64,
}

impl TransactionHead {
    pub(super) fn instant_datom(&self) -> Option<Datom> {
        let Self { tx, instant, .. } = *self;
        let v = Value::Inst(instant?);
        Some(Datom { e: tx, a: system::TX_INSTANT, v, tx, added: true })
    }
}

pub(super) fn get_transaction_head(
    reader: &mut Reader<'_>,
    before: &mut Before,
) -> Result<TransactionHead, DecodeError> {
    let tx = displaced(before.tx.wrapping_add(1), reader.zigzag()?);
    check_id(tx)?;
    before.tx = tx;
    let head = reader.varint()?;
    let instant = match head & HAS_INSTANT {
        0 => None,
        _ => {
            before.instant = before.instant.wrapping_add(reader.zigzag()?);
            Some(before.instant)
        }
    };
    let mut purged = Arc::from([]);
    let mut idents = 0;
    if head & HAS_MORE != 0 {
        idents = reader.count()?;
        if idents as u64 == PURGES {
            let count = reader.count()?;
            let mut before = Before { tx, instant: 0, entity: 0 };
            let datoms = (0..count).map(|_| get_datom(reader, &mut before));
            purged = datoms.collect::<Result<_, _>>()?;
            idents = reader.count()?;
        }
    }
    let new_attributes = (0..idents).map(|_| get_ident(reader)).collect::<Result<_, _>>()?;
    let others = head >> TRANSACTION_FLAGS;
    Ok(TransactionHead { tx, instant, new_attributes, purged, others })
}

fn get_ident(reader: &mut Reader<'_>) -> Result<Keyword, DecodeError> {
    match get_value(reader)? {
        Value::Keyword(ident) => Ok(ident),
        _ => Err(DecodeError::Malformed { what: "an attribute is named by no keyword" }),
    }
}

fn put_transaction(out: &mut Vec<u8>, transaction: &TxRecord, before: &mut Before) {
    for datom in put_transaction_head(out, transaction, before) {
        put_datom(out, datom, before);
    }
}

fn put_datom(out: &mut Vec<u8>, datom: &Datom, before: &mut Before) {
    let flags = before.flags(datom);
    out.push(Kind::of(&datom.v).beside(flags));
    put_varint(out, u64::from(datom.a.0));
    if flags & (SAME_ENTITY | TX_ENTITY) == 0 {
        put_zigzag(out, distance(before.entity, datom.e));
        before.entity = datom.e;
    }
    if flags & OTHER_TX != 0 {
        put_zigzag(out, distance(before.tx, datom.tx));
    }
    Kind::put(out, &datom.v);
}

fn get_transaction(reader: &mut Reader<'_>, before: &mut Before) -> Result<TxRecord, DecodeError> {
    let head = get_transaction_head(reader, before)?;
    let datoms = head.instant_datom().map(Ok);
    let datoms = datoms.into_iter().chain((0..head.others).map(|_| get_datom(reader, before)));
    let datoms = datoms.collect::<Result<_, DecodeError>>()?;
    Ok(TxRecord { tx: head.tx, datoms, new_attributes: head.new_attributes, purged: head.purged })
}

fn get_datom(reader: &mut Reader<'_>, before: &mut Before) -> Result<Datom, DecodeError> {
    let flags = reader.byte()?;
    let a = get_attribute(reader)?;
    if flags & (SAME_ENTITY | TX_ENTITY) == 0 {
        before.entity = displaced(before.entity, reader.zigzag()?);
    }
    let e = if flags & TX_ENTITY == 0 { before.entity } else { before.tx };
    let tx = match flags & OTHER_TX {
        0 => before.tx,
        _ => displaced(before.tx, reader.zigzag()?),
    };
    let v = Kind::in_byte(flags).get(reader)?;
    check_id(e)?;
    check_id(tx)?;
    Ok(Datom { e, a, v, tx, added: flags & ADDED != 0 })
}

/// Ids beyond this no database gives out; those who count on from an id rely on it.
const IDS_END: u64 = 1 << 62;

pub(super) fn check_id(id: u64) -> Result<(), DecodeError> {
    match id < IDS_END {
        true => Ok(()),
        false => Err(DecodeError::Malformed { what: "an id is out of range" }),
    }
}

pub(super) fn get_attribute(reader: &mut Reader<'_>) -> Result<AttrId, DecodeError> {
    let id = u32::try_from(reader.varint()?);
    id.map(AttrId).map_err(|_| DecodeError::Malformed { what: "no such attribute" })
}

pub(super) fn distance(from: u64, to: u64) -> i64 {
    to.wrapping_sub(from) as i64
}

pub(super) fn displaced(from: u64, by: i64) -> u64 {
    from.wrapping_add(by as u64)
}

impl Note {
    fn put(&self, out: &mut Vec<u8>) {
        let Self { request, body, tx, tempids } = self.clone();
        request.put(out);
        Remembered { body, tx, tempids }.put(out);
    }

    fn get(reader: &mut Reader<'_>) -> Result<Self, DecodeError> {
        let request = RequestId::get(reader)?;
        let Remembered { body, tx, tempids } = Remembered::get(reader)?;
        Ok(Self { request, body, tx, tempids })
    }
}
