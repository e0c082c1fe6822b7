//! Transactions made from datoms that another database exported: ids, transactions and instants are
//! kept.

use std::collections::BTreeMap;

use datahike_value::{Keyword, Value};
use hashbrown::{HashMap, HashSet};

use super::names::MAX_ENTITY;
use super::{ResolvedTx, TxError};
use crate::datom::{AttrId, Datom, EntityId, HIGH_ENTITIES, TX0, TxId};
use crate::db::Db;
use crate::schema::{Schema, system};

/// One exported datom: `[e a v tx added]`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RawDatom {
    /// Entity.
    pub e: EntityId,
    /// The attribute's ident, or its entity where attributes are references.
    pub a: Value,
    /// Value.
    pub v: Value,
    /// Transaction.
    pub tx: TxId,
    /// Asserted or retracted.
    pub added: bool,
}

impl RawDatom {
    /// From `[e a v tx added]`; `added` may be left out and is true then.
    ///
    /// # Errors
    /// If the value is nothing of the kind, or an id is out of range.
    pub fn from_value(record: &Value) -> Result<Self, TxError> {
        let wrong =
            |reason: &str| TxError::Syntax { reason: reason.to_owned(), form: record.clone() };
        let items = record.as_slice().unwrap_or_default();
        let (e, a, v, tx, added) = match items {
            [e, a, v, tx] => (e, a, v, tx, true),
            [e, a, v, tx, Value::Bool(added)] => (e, a, v, tx, *added),
            _ => return Err(wrong("expected [e a v tx added]")),
        };
        let id = |value: &Value| value.as_long().and_then(|id| u64::try_from(id).ok());
        let e = id(e).filter(|e| *e < MAX_ENTITY).ok_or_else(|| wrong("no entity id"))?;
        let tx = id(tx)
            .filter(|tx| (TX0..HIGH_ENTITIES).contains(tx))
            .ok_or_else(|| wrong("no transaction id"))?;
        if v.is_nil() {
            return Err(wrong("nil is no value"));
        }
        if !matches!(a, Value::Keyword(_) | Value::Long(_)) {
            return Err(wrong("no attribute"));
        }
        Ok(Self { e, a: a.clone(), v: v.clone(), tx, added })
    }
}

/// The transactions that `records`, in any order, are made of, to be applied to `db` in order. What
/// attribute-refs mode holds from the start is left out. Values and uniqueness are taken on trust:
/// the records are those of a whole database, current and history, or of a younger part of one whose
/// older part is in `db`.
///
/// # Errors
/// If an attribute is not known, if a transaction lacks its instant or is not younger than `db`.
pub fn transactions_of(
    db: &Db,
    records: impl IntoIterator<Item = RawDatom>,
) -> Result<Vec<ResolvedTx>, TxError> {
    let mut by_tx: BTreeMap<TxId, Vec<RawDatom>> = BTreeMap::new();
    let mut names: HashMap<EntityId, Keyword> = HashMap::new();
    let ident = Value::keyword("db/ident");
    for record in records {
        if record.tx == TX0 {
            continue;
        }
        let is_ident =
            record.a == ident || (db.config().attribute_refs && record.a == Value::from(1));
        if let Value::Keyword(name) = &record.v
            && is_ident
            && record.added
        {
            names.insert(record.e, name.clone());
        }
        by_tx.entry(record.tx).or_default().push(record);
    }
    let mut schema = db.schema().clone();
    let mut standing: HashSet<(EntityId, AttrId, Value)> = HashSet::new();
    let mut transactions = Vec::with_capacity(by_tx.len());
    for (tx, records) in by_tx {
        if tx <= db.max_tx() {
            return Err(TxError::Syntax {
                reason: format!("transaction {tx} is not younger than the database"),
                form: Value::Nil,
            });
        }
        transactions.push(transaction(tx, records, &mut schema, &names, &mut standing)?);
    }
    Ok(transactions)
}

fn transaction(
    tx: TxId,
    records: Vec<RawDatom>,
    schema: &mut Schema,
    names: &HashMap<EntityId, Keyword>,
    standing: &mut HashSet<(EntityId, AttrId, Value)>,
) -> Result<ResolvedTx, TxError> {
    let known = schema.len();
    let mut datoms = Vec::with_capacity(records.len());
    for record in records {
        let a = attribute(&record, schema, names)?;
        datoms.push(Datom { e: record.e, a, v: record.v, tx, added: record.added });
    }
    let instant = |d: &Datom| d.e == tx && d.a == system::TX_INSTANT;
    if !datoms.iter().any(|d| instant(d) && matches!(d.v, Value::Inst(_))) {
        return Err(TxError::Syntax {
            reason: format!("transaction {tx} has no :db/txInstant"),
            form: Value::Nil,
        });
    }
    // The instant first, a replaced value before its replacement.
    datoms.sort_by(|x, y| {
        (!instant(x), x.e, x.a, x.added)
            .cmp(&(!instant(y), y.e, y.a, y.added))
            .then_with(|| x.v.cmp(&y.v))
    });
    datoms.dedup();
    let mut stated_first: Vec<Datom> = Vec::new();
    datoms.retain(|d| {
        let fact = (d.e, d.a, d.v.clone());
        if d.added {
            standing.insert(fact);
        } else if !standing.remove(&fact) {
            // Taken back by the transaction that stated it: the assertion came before.
            stated_first.push(d.clone());
            return false;
        }
        true
    });
    for taken_back in stated_first {
        standing.remove(&(taken_back.e, taken_back.a, taken_back.v.clone()));
        datoms.push(taken_back);
    }
    for datom in &datoms {
        schema.absorb(datom);
    }
    let new = schema.attributes().get(known..).unwrap_or_default();
    let new_attributes = new.iter().map(|attribute| attribute.ident.clone()).collect();
    Ok(ResolvedTx { new_attributes, ..ResolvedTx::new(tx, datoms) })
}

fn attribute(
    record: &RawDatom,
    schema: &mut Schema,
    names: &HashMap<EntityId, Keyword>,
) -> Result<AttrId, TxError> {
    if let Value::Keyword(ident) = &record.a {
        return Ok(schema.intern(ident));
    }
    let entity = record.a.as_long().and_then(|e| u64::try_from(e).ok());
    if let Some(a) = entity.and_then(|e| schema.attr_of_entity(e)) {
        return Ok(a);
    }
    match entity.and_then(|e| names.get(&e)) {
        Some(ident) => Ok(schema.intern(ident)),
        None => Err(TxError::Syntax {
            reason: format!("{} is no attribute", record.a),
            form: Value::vector([
                crate::db::entity_value(record.e),
                record.a.clone(),
                record.v.clone(),
            ]),
        }),
    }
}
