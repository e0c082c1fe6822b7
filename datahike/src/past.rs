//! Reports of transactions that happened before, made again from what is stored.

use std::sync::Arc;

use datahike_core::commit::{FlushRecord, Remembered, open, replay};
use datahike_core::datom::TxId;
use datahike_core::db::Db;
use datahike_core::schema::system;
use datahike_core::tx::{ResolvedTx, TxReport};
use datahike_store::StoreError;
use datahike_value::{Value, kw};

use crate::branch::Branch;
use crate::error::Error;

/// Bytes of log read at once.
const LOG_BYTES_AT_ONCE: usize = 4 << 20;

/// What is told of a resolved transaction. Its tempids only its writer knew.
pub(crate) fn report(before: &Db, after: &Db, transaction: &ResolvedTx) -> TxReport {
    let instant = transaction.datoms.iter().find_map(|datom| match datom.v {
        Value::Inst(ms) if datom.e == transaction.tx && datom.a == system::TX_INSTANT => Some(ms),
        _ => None,
    });
    let tx_instant = instant.unwrap_or_else(|| after.counters().last_instant);
    TxReport {
        db_before: before.clone(),
        db_after: after.clone(),
        tx: transaction.tx,
        tx_instant,
        tx_data: transaction.datoms.clone(),
        new_attributes: transaction.new_attributes.clone(),
        purged: transaction.purged.clone(),
        tempids: Default::default(),
        tx_meta: Value::map([(kw!("db/txInstant").into(), Value::Inst(tx_instant))]),
    }
}

/// The report of a transaction that the branch holds: from the newest flush before it, and the log
/// up to it.
///
/// # Errors
/// [`Error::LogGone`] if either is no longer there; what the store fails with.
pub(crate) async fn report_of(branch: &Branch, remembered: &Remembered) -> Result<TxReport, Error> {
    let tx = remembered.tx;
    let (mut db, mut at) = flushed_before(branch, tx).await?;
    let head = branch.snapshot().head;
    loop {
        let number = head.log_number(at.seq);
        let entries = match branch.store().log(branch.name(), number, LOG_BYTES_AT_ONCE).await {
            Ok(entries) if !entries.is_empty() => entries,
            Ok(_) | Err(StoreError::LogGone { .. }) => return Err(Error::LogGone { tx }),
            Err(error) => return Err(error.into()),
        };
        for bytes in &entries {
            let mut here = None;
            let (next, end) = replay(&db, at, [&bytes[..]], |entry| {
                let found = entry.transactions.iter().position(|one| one.tx == tx);
                here = found.map(|index| entry.transactions[..=index].to_vec());
            })?;
            if let Some((transaction, others)) = here.as_deref().and_then(<[_]>::split_last) {
                let before = db.apply_all(others);
                let after = before.apply(transaction);
                let tempids = remembered.tempids.iter().cloned().collect();
                return Ok(TxReport { tempids, ..report(&before, &after, transaction) });
            }
            (db, at) = (next, end);
        }
        if db.max_tx() >= tx {
            return Err(Error::LogGone { tx });
        }
    }
}

/// The newest snapshot with written indexes in which the transaction has not happened yet.
async fn flushed_before(
    branch: &Branch,
    tx: TxId,
) -> Result<(Db, datahike_core::commit::Position), Error> {
    let blocks = branch.blocks();
    let mut address = Some(branch.snapshot().head.flush_record);
    while let Some(at) = address {
        let bytes = match blocks.read(&at).await {
            Ok(bytes) => bytes,
            // Collected, or never mirrored.
            Err(Error::BlockLost { .. }) => break,
            Err(error) => return Err(error),
        };
        let record = FlushRecord::decode(&bytes)?;
        if record.counters.max_tx < tx {
            let source: Arc<crate::blocks::Blocks> = Arc::clone(blocks);
            return Ok((open(&record, source), record.at));
        }
        address = record.previous;
    }
    Err(Error::LogGone { tx })
}
