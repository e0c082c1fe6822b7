//! Rows of new entities, resolved without the transactor: where all attributes are new, nothing can
//! be there that a row could update, contradict or replace.

use datahike::BulkLoad;
use datahike::Value;
use datahike::core::datom::{AttrId, Datom, HIGH_ENTITIES, LOW_ENTITIES_END};
use datahike::core::schema::system;
use datahike::core::tx::ResolvedTx;

use super::Imported;
use crate::failure::Failure;

/// Rows that become one transaction.
#[derive(Debug)]
pub(super) enum Batch {
    /// Of new entities.
    New(Rows),
    /// Maps for the transactor: they may be about entities that are there.
    Maps(Vec<Value>),
}

/// The cells of several rows.
#[derive(Debug, Default)]
pub(super) struct Rows {
    pub(super) cells: Vec<(AttrId, Value)>,
    /// Where each row ends.
    pub(super) ends: Vec<usize>,
}

impl Rows {
    pub(super) fn len(&self) -> usize {
        self.ends.len()
    }
}

/// Adds and commits a batch.
pub(super) async fn add(
    load: &mut BulkLoad,
    batch: Batch,
    done: &mut Imported,
) -> Result<(), Failure> {
    match batch {
        Batch::New(rows) => {
            let transaction = resolve(load, rows);
            done.add(transaction.datoms.len());
            load.add(transaction);
        }
        Batch::Maps(maps) => {
            let report = load.transact(&Value::vector(maps)).await?;
            done.add(report.tx_data.len());
        }
    }
    Ok(load.commit().await?)
}

fn resolve(load: &BulkLoad, rows: Rows) -> ResolvedTx {
    let counters = load.db().counters();
    let tx = counters.max_tx + 1;
    let instant = load.next_instant();
    let mut datoms = Vec::with_capacity(rows.cells.len() + 1);
    let v = Value::Inst(instant);
    datoms.push(Datom { e: tx, a: system::TX_INSTANT, v, tx, added: true });
    let mut e = counters.next_entity();
    let mut cells = rows.cells.into_iter();
    let mut begin = 0;
    for end in rows.ends {
        // A row without cells is no entity.
        if end > begin {
            let row = cells.by_ref().take(end - begin);
            datoms.extend(row.map(|(a, v)| Datom { e, a, v, tx, added: true }));
            e = if e + 1 == LOW_ENTITIES_END { HIGH_ENTITIES } else { e + 1 };
        }
        begin = end;
    }
    ResolvedTx::new(tx, datoms)
}
