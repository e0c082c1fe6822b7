//! Loading many transactions into a database that nobody else uses.

use std::sync::Arc;

use bytes::Bytes;
use datahike_core::commit::{Dedup, Entry};
use datahike_core::datom::TX0;
use datahike_core::db::Db;
use datahike_core::tx::{ResolvedTx, TxOptions, TxReport};
use datahike_store::{Batch, Expect, Store, StoreError};
use datahike_value::Value;

use crate::blocks::Blocks;
use crate::branch::{self, Snapshot};
use crate::config::Config;
use crate::database::{self, Access};
use crate::error::Error;
use crate::worker::now_ms;
use crate::writer::write_out;

/// Datoms in memory after which the indexes are written out.
const TAIL_DATOMS_MAX: usize = 4_000_000;

/// The writer of a database while it is loaded: like a connection that commits when it is told to
/// and writes its indexes once at the end, instead of every few thousand transactions.
///
/// What was committed is durable, whatever becomes of the rest.
#[derive(Debug)]
pub struct BulkLoad {
    branch: String,
    blocks: Arc<Blocks>,
    snapshot: Snapshot,
    dedup: Dedup,
    /// With the transactions that are not committed yet.
    db: Db,
    waiting: Vec<ResolvedTx>,
}

impl BulkLoad {
    /// Takes the lock of a database.
    ///
    /// # Errors
    /// As [`connect`](crate::connect).
    pub async fn open(config: &Config) -> Result<Self, Error> {
        let store = database::open_store(config, Access::Write)?;
        let blocks = Arc::new(Blocks::new(store, config.cache_bytes()));
        let loaded = branch::load(&blocks, &config.branch).await?;
        let db = loaded.snapshot.db.clone();
        Ok(Self {
            branch: config.branch.clone(),
            blocks,
            snapshot: loaded.snapshot,
            dedup: loaded.dedup,
            db,
            waiting: Vec::new(),
        })
    }

    /// The database value with everything that was added.
    pub fn db(&self) -> &Db {
        &self.db
    }

    /// The instant of a transaction that is added now, in milliseconds since the epoch: later than
    /// all before.
    pub fn next_instant(&self) -> i64 {
        let counters = self.db.counters();
        let first = counters.max_tx == TX0;
        now_ms().max(if first { i64::MIN } else { counters.last_instant + 1 })
    }

    /// Adds a transaction as the transactor resolves it.
    ///
    /// # Errors
    /// Why it was refused; nothing of it was added then.
    pub async fn transact(&mut self, data: &Value) -> Result<TxReport, Error> {
        let options = TxOptions::at(now_ms());
        let report = self.blocks.settle(|| self.db.with(data, &options)).await?;
        self.db = report.db_after.clone();
        self.waiting.push(report.resolved());
        Ok(report)
    }

    /// Adds a transaction that is resolved: every datom as it is, unchecked. Its id follows that of
    /// the database, its attributes are those of the database or named by the transaction.
    pub fn add(&mut self, transaction: ResolvedTx) {
        self.db = self.db.apply(&transaction);
        self.waiting.push(transaction);
    }

    /// Makes durable what was added: one commit.
    ///
    /// # Errors
    /// What the store fails with; then nothing of it is durable.
    pub async fn commit(&mut self) -> Result<(), Error> {
        if self.waiting.is_empty() {
            return Ok(());
        }
        let entry =
            Entry { transactions: std::mem::take(&mut self.waiting), ..Entry::default() };
        let (bytes, at) = entry.encode(&self.snapshot.at);
        let mut batch = self.batch();
        batch.entries.push(Bytes::from(bytes));
        self.write(batch).await?;
        self.snapshot.at = at;
        self.snapshot.db = self.db.clone();
        if self.db.indexes().tail_len() >= TAIL_DATOMS_MAX {
            self.flush().await?;
        }
        Ok(())
    }

    /// Commits, writes the indexes out, and gives up the store.
    ///
    /// # Errors
    /// What the store fails with.
    pub async fn finish(mut self) -> Result<(), Error> {
        self.commit().await?;
        self.flush().await?;
        Ok(self.blocks.store().close().await?)
    }

    async fn flush(&mut self) -> Result<(), Error> {
        if self.snapshot.db.indexes().tail_len() == 0 {
            return Ok(());
        }
        let flush = write_out(&self.blocks, &self.snapshot, Some(&self.dedup)).await?;
        let mut batch = self.batch();
        batch.record = Some(flush.head.encode().into());
        batch.log_start = flush.erases_log_before();
        self.write(batch).await?;
        self.snapshot.head = flush.head;
        self.snapshot.db = flush.db.clone();
        self.db = flush.db;
        Ok(())
    }

    fn batch(&self) -> Batch {
        Batch::new(&self.branch, Expect::Revision(self.snapshot.revision))
    }

    async fn write(&mut self, batch: Batch) -> Result<(), Error> {
        let store: &Arc<dyn Store> = self.blocks.store();
        match store.commit(batch).await {
            Ok(head) => {
                self.snapshot.revision = head.revision;
                Ok(())
            }
            Err(StoreError::Conflict { branch, .. }) => Err(Error::WriterLost { branch }),
            Err(error) => Err(error.into()),
        }
    }
}
