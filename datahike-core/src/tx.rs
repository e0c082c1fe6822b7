//! Transactions: from the forms a user writes to resolved datoms, and to the snapshot after them.
//!
//! The transactor is pure. It reads the snapshot, and so may need blocks that are not in memory; it
//! then says which, has done nothing, and is called again. Time is handed in.

mod call;
mod error;
mod finish;
mod host;
mod import;
mod names;
mod operations;
mod overlay;
mod probe;
mod purge;
mod series;
mod transactor;
mod values;

use std::collections::BTreeMap;
use std::fmt;
use std::sync::Arc;

use datahike_value::{Keyword, Value};
use hashbrown::HashSet;

pub use self::error::TxError;
pub use self::host::{CallError, TxFunctions};
pub use self::import::{RawDatom, transactions_of};
pub use self::series::{Resolution, Series};
pub use self::values::ValueCaps;
use crate::datom::{Datom, EntityId, TxId};
use crate::db::Db;

/// What a transaction comes down to: enough to apply it again without reading anything.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ResolvedTx {
    /// Its id.
    pub tx: TxId,
    /// The attributes that get a number, in this order, following those the snapshot before has.
    pub new_attributes: Arc<[Keyword]>,
    /// In the order in which they happened: the transaction's instant first, a replaced value before
    /// its replacement.
    pub datoms: Arc<[Datom]>,
    /// What is to be gone from now and from the past, each datom of earlier transactions by itself, in
    /// the order of EAVT. Of one fact, an assertion goes together with the retraction that ended it.
    pub purged: Arc<[Datom]>,
}

impl ResolvedTx {
    /// A transaction that names no attributes and purges nothing.
    pub fn new(tx: TxId, datoms: impl Into<Arc<[Datom]>>) -> Self {
        Self { tx, new_attributes: [].into(), datoms: datoms.into(), purged: [].into() }
    }

    /// What was in force before the transaction and is purged by it.
    pub fn purged_from_now(&self) -> impl Iterator<Item = &Datom> {
        let next = self.purged.iter().skip(1).map(Some).chain(std::iter::once(None));
        let ends = |datom: &Datom, next: Option<&Datom>| {
            next.is_none_or(|next| (next.e, next.a, &next.v) != (datom.e, datom.a, &datom.v))
        };
        let last = self.purged.iter().zip(next).filter(move |(datom, next)| ends(datom, *next));
        last.map(|(datom, _)| datom).filter(|datom| datom.added)
    }

    /// What the indexes are to be told, if that is not all. A fact that this transaction both
    /// states for the first time and takes back goes in as its retraction alone: in the order of the
    /// indexes the retraction of a transaction comes before its assertion, so that together they
    /// would put the fact in force. Views of the past show both halves.
    pub(crate) fn for_indexes(&self) -> Option<Vec<Datom>> {
        if self.datoms.iter().all(|datom| datom.added) {
            return None;
        }
        let mut stated = HashSet::new();
        let mut passing = HashSet::new();
        for datom in self.datoms.iter() {
            let fact = (datom.e, datom.a, &datom.v);
            if datom.added {
                stated.insert(fact);
            } else if stated.contains(&fact) {
                passing.insert(fact);
            }
        }
        let lasts =
            |datom: &&Datom| !datom.added || !passing.contains(&(datom.e, datom.a, &datom.v));
        (!passing.is_empty()).then(|| self.datoms.iter().filter(lasts).cloned().collect())
    }
}

/// What a transaction did.
#[derive(Clone, Debug)]
pub struct TxReport {
    /// The snapshot it was made from.
    pub db_before: Db,
    /// The snapshot after it.
    pub db_after: Db,
    /// Its id.
    pub tx: TxId,
    /// Its instant, milliseconds since the epoch.
    pub tx_instant: i64,
    /// Its datoms, in the order in which they happened.
    pub tx_data: Arc<[Datom]>,
    /// What it purged, which is not in `tx_data`; see [`ResolvedTx::purged`].
    pub purged: Arc<[Datom]>,
    /// The attributes that got a number.
    pub new_attributes: Arc<[Keyword]>,
    /// What the tempids came to mean; `:db/current-tx` among them.
    pub tempids: BTreeMap<Value, EntityId>,
    /// The metadata that was handed in, with the instant.
    pub tx_meta: Value,
}

impl TxReport {
    /// What goes into the log.
    pub fn resolved(&self) -> ResolvedTx {
        ResolvedTx {
            tx: self.tx,
            new_attributes: Arc::clone(&self.new_attributes),
            datoms: Arc::clone(&self.tx_data),
            purged: Arc::clone(&self.purged),
        }
    }
}

/// How far ahead of the clock a supplied instant may be: ten years, in milliseconds.
pub const MAX_AHEAD_MS: i64 = 3_653 * 86_400_000;

/// What a transaction gets from outside.
#[derive(Clone)]
#[non_exhaustive]
pub struct TxOptions {
    /// The time, milliseconds since the epoch. The transaction's instant is this or one millisecond
    /// after that of the transaction before, whichever is later.
    pub now: i64,
    /// Attributes and values for the transaction's own entity, as a map, or nil.
    pub meta: Value,
    /// How many milliseconds after `now` a supplied `:db/txInstant` may be.
    pub max_ahead: i64,
    /// The functions that transactions may call, and the predicates that schemas may name.
    pub functions: TxFunctions,
    /// How large values may be.
    pub caps: ValueCaps,
    /// Whether an attribute that has data may become indexed or unique.
    pub allow_index_backfill: bool,
}

impl TxOptions {
    /// At this time, without metadata.
    pub fn at(now: i64) -> Self {
        Self {
            now,
            meta: Value::Nil,
            max_ahead: MAX_AHEAD_MS,
            functions: TxFunctions::new(),
            caps: ValueCaps::NONE,
            allow_index_backfill: false,
        }
    }

    /// The same at another time.
    #[must_use]
    pub fn with_now(self, now: i64) -> Self {
        Self { now, ..self }
    }

    /// With this metadata, a map.
    #[must_use]
    pub fn with_meta(self, meta: Value) -> Self {
        Self { meta, ..self }
    }

    /// With these functions and predicates.
    #[must_use]
    pub fn with_functions(self, functions: TxFunctions) -> Self {
        Self { functions, ..self }
    }

    /// With leave to index attributes that have data, or without.
    #[must_use]
    pub fn with_index_backfill(self, allow_index_backfill: bool) -> Self {
        Self { allow_index_backfill, ..self }
    }

    /// With these caps on values.
    #[must_use]
    pub fn with_caps(self, caps: ValueCaps) -> Self {
        Self { caps, ..self }
    }
}

impl fmt::Debug for TxOptions {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("TxOptions")
            .field("now", &self.now)
            .field("meta", &self.meta)
            .field("max_ahead", &self.max_ahead)
            .field("functions", &self.functions)
            .field("caps", &self.caps)
            .field("allow_index_backfill", &self.allow_index_backfill)
            .finish()
    }
}

impl Db {
    /// Transacts against this snapshot and reports what happened; the snapshot itself stays as it
    /// is. `tx_data` is a collection of forms:
    ///
    /// - maps, `{:db/id …, :person/name "Ada", :person/address {…}, :person/_friend […]}`
    /// - `[:db/add e a v]`, `[:db/retract e a v]`, `[:db/retract e a]`
    /// - `[:db/retractEntity e]`, `[:db.fn/retractAttribute e a]`, `[:db/cas e a old new]`
    /// - `[:db/purge e a v]`, `[:db.purge/attribute e a]`, `[:db.purge/entity e]`,
    ///   `[:db.history.purge/before instant]`, where history is kept
    /// - `[:db.fn/call name argument …]`, and `[:ident argument …]` where the entity with this ident
    ///   has a name as its `:db/fn`: what that function of the host makes of it
    ///
    /// An entity is an id, a tempid (a negative number or a string), an ident, a lookup ref
    /// `[attribute value]`, or `:db/current-tx`. Views do not matter, except that a filtered database
    /// cannot be transacted against.
    ///
    /// # Errors
    /// If the transaction is refused, or [`TxError::Missing`] if blocks are needed to decide: then
    /// call again with the same arguments once they are there.
    pub fn with(&self, tx_data: &Value, options: &TxOptions) -> Result<TxReport, TxError> {
        let resolution = transactor::resolve(self, tx_data, options)?;
        let mut after = self.unviewed();
        resolution.advance(&mut after);
        Ok(resolution.report(self.unviewed(), after))
    }

    /// The snapshot after a transaction, without its report.
    ///
    /// # Errors
    /// As [`Self::with`].
    pub fn db_with(&self, tx_data: &Value, options: &TxOptions) -> Result<Self, TxError> {
        Ok(self.with(tx_data, options)?.db_after)
    }
}
