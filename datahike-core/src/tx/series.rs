//! Transactions that are resolved one after another and committed together.

use std::collections::BTreeMap;
use std::sync::Arc;

use datahike_value::Value;

use super::{ResolvedTx, TxError, TxOptions, TxReport, transactor};
use crate::datom::{Datom, EntityId};
use crate::db::Db;
use crate::schema::Schema;

/// What a transaction comes to, before it is laid over the snapshot that it was resolved against.
#[derive(Clone, Debug)]
pub struct Resolution {
    pub(super) resolved: ResolvedTx,
    pub(super) schema: Arc<Schema>,
    pub(super) instant: i64,
    pub(super) tempids: BTreeMap<Value, EntityId>,
    pub(super) meta: Value,
}

impl Resolution {
    /// Its datoms, in the order in which they happened.
    pub fn tx_data(&self) -> &[Datom] {
        &self.resolved.datoms
    }

    /// What it purges; see [`ResolvedTx::purged`].
    pub fn purged(&self) -> &[Datom] {
        &self.resolved.purged
    }

    pub(super) fn advance(&self, db: &mut Db) {
        db.advance(&self.resolved, Arc::clone(&self.schema));
    }

    pub(super) fn report(self, db_before: Db, db_after: Db) -> TxReport {
        let Self { resolved, instant, tempids, meta, .. } = self;
        TxReport {
            db_before,
            db_after,
            tx: resolved.tx,
            tx_instant: instant,
            tx_data: resolved.datoms,
            purged: resolved.purged,
            new_attributes: resolved.new_attributes,
            tempids,
            tx_meta: meta,
        }
    }
}

/// A run of transactions, each against the result of those before it. Only the snapshot at its end
/// is kept up to date; those between, which reports name, are made if somebody looks at them.
#[derive(Debug)]
pub struct Series {
    /// Nobody else holds this snapshot once it has been advanced, so that it is changed in place.
    end: Db,
    /// The same, as reports show it.
    shown: Db,
}

impl Series {
    /// Begins with this snapshot, whatever its view.
    pub fn new(db: &Db) -> Self {
        Self { end: db.unviewed(), shown: db.unviewed() }
    }

    /// What the next transaction comes to; nothing has happened yet.
    ///
    /// # Errors
    /// As [`Db::with`].
    pub fn resolve(&self, tx_data: &Value, options: &TxOptions) -> Result<Resolution, TxError> {
        transactor::resolve(&self.end, tx_data, options)
    }

    /// Lets a transaction happen that was resolved since the one before it happened.
    pub fn accept(&mut self, resolution: Resolution) -> TxReport {
        resolution.advance(&mut self.end);
        let after = self.shown.later(resolution.resolved.clone());
        let before = std::mem::replace(&mut self.shown, after.clone());
        resolution.report(before, after)
    }

    /// The snapshot after all of them; the same as that of the last report, and made.
    pub fn finish(self) -> Db {
        self.end
    }
}
