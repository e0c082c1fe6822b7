//! Loading many transactions into a database that nobody else uses.

mod table;

use std::sync::Arc;

use bytes::Bytes;
use datahike_core::commit::{Dedup, Entry, Position};
use datahike_core::datom::{Datom, TX0};
use datahike_core::db::{Counters, Db};
use datahike_core::tx::{ResolvedTx, TxOptions, TxReport};
use datahike_store::{Batch, Expect, Head, Store, StoreError};
use datahike_value::Value;
use tokio::sync::oneshot;

pub use self::table::{Column, Table};
use crate::blocks::Blocks;
use crate::branch::{self, Snapshot};
use crate::config::Config;
use crate::database::{self, Access};
use crate::error::Error;
use crate::worker::{self, now_ms};
use crate::writer::{Flush, store_flush, write_out};

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
    /// As of the newest commit that is durable, without its database value.
    snapshot: Snapshot,
    dedup: Dedup,
    /// With the transactions that are not committed yet, but not those that are loose.
    db: Db,
    /// New facts that were not laid over the database yet, the latest transactions of all: to write
    /// them out needs no look at them in memory.
    loose: Vec<ResolvedTx>,
    loose_datoms: usize,
    /// Of the database with what is loose.
    counters: Counters,
    waiting: Vec<ResolvedTx>,
    /// The commit that is under way.
    committing: Option<oneshot::Receiver<Result<(Head, Position), Error>>>,
    /// A commit failed: what is in memory is not what is durable.
    failed: bool,
}

impl BulkLoad {
    /// Takes the lock of a database.
    ///
    /// # Errors
    /// As [`connect`](crate::connect).
    pub async fn open(config: &Config) -> Result<Self, Error> {
        let store = database::open_store(config, Access::Write).await?;
        let blocks = Arc::new(Blocks::new(store, config.cache_bytes()));
        let loaded = branch::load(&blocks, &config.branch).await?;
        let db = loaded.snapshot.db.clone();
        Ok(Self {
            branch: config.branch.clone(),
            blocks,
            counters: db.counters(),
            snapshot: loaded.snapshot,
            dedup: loaded.dedup,
            db,
            loose: Vec::new(),
            loose_datoms: 0,
            waiting: Vec::new(),
            committing: None,
            failed: false,
        })
    }

    /// The database value with everything that was added.
    pub fn db(&mut self) -> &Db {
        self.lay();
        &self.db
    }

    /// The instant of a transaction that is added now, in milliseconds since the epoch: later than
    /// all before.
    pub fn next_instant(&self) -> i64 {
        let first = self.counters.max_tx == TX0;
        now_ms().max(if first { i64::MIN } else { self.counters.last_instant + 1 })
    }

    /// Adds a transaction as the transactor resolves it.
    ///
    /// # Errors
    /// Why it was refused; nothing of it was added then.
    pub async fn transact(&mut self, data: &Value) -> Result<TxReport, Error> {
        self.lay();
        let options = TxOptions::at(now_ms());
        let report = self.blocks.settle(|| self.db.with(data, &options)).await?;
        self.db = report.db_after.clone();
        self.counters = self.db.counters();
        self.waiting.push(report.resolved());
        Ok(report)
    }

    /// Adds a transaction that is resolved: every datom as it is, unchecked. Its id follows that of
    /// the database, its attributes are those of the database or named by the transaction.
    pub fn add(&mut self, transaction: ResolvedTx) {
        self.lay();
        self.db = self.db.apply(&transaction);
        self.counters = self.db.counters();
        self.waiting.push(transaction);
    }

    /// Adds a transaction of new facts, none of which says anything of attributes.
    fn add_facts(&mut self, transaction: ResolvedTx, counters: Counters) {
        self.loose_datoms += transaction.datoms.len();
        self.loose.push(transaction.clone());
        self.counters = counters;
        self.waiting.push(transaction);
    }

    /// Lays what is loose over the database.
    fn lay(&mut self) {
        if !self.loose.is_empty() {
            self.db = self.db.apply_all(&self.loose);
            self.loose.clear();
            self.loose_datoms = 0;
        }
    }

    /// Makes durable what was added: one commit.
    ///
    /// # Errors
    /// What the store fails with; then nothing of it is durable.
    pub async fn commit(&mut self) -> Result<(), Error> {
        self.begin_commit().await?;
        self.settle_commit().await
    }

    /// Begins to commit what was added beside the caller, once the commit before is durable.
    async fn begin_commit(&mut self) -> Result<(), Error> {
        self.settle_commit().await?;
        if self.waiting.is_empty() {
            return Ok(());
        }
        let entry = Entry { transactions: std::mem::take(&mut self.waiting), ..Entry::default() };
        let (parent, mut batch) = (self.snapshot.at, self.batch());
        let store = self.blocks.store().clone();
        let (done, committing) = oneshot::channel();
        let work = async move {
            let (bytes, at) = entry.encode(&parent);
            batch.entries.push(Bytes::from(bytes));
            let committed = write(&store, batch).await;
            // A load that was given up needs no answer.
            let _ = done.send(committed.map(|head| (head, at)));
        };
        self.committing = Some(committing);
        worker::spawn("datahike-load", work)
            .map_err(|source| Error::Worker { what: "a commit", source })?;
        if self.db.indexes().tail_len() + self.loose_datoms >= TAIL_DATOMS_MAX {
            self.settle_commit().await?;
            self.flush().await?;
        }
        Ok(())
    }

    async fn settle_commit(&mut self) -> Result<(), Error> {
        if let Some(committing) = self.committing.take() {
            self.failed = true;
            let (head, at) = committing.await.map_err(|_| Error::Released)??;
            self.failed = false;
            self.snapshot.at = at;
            self.snapshot.revision = head.revision;
        }
        match self.failed {
            false => Ok(()),
            true => Err(Error::Unavailable {
                what: "a load whose commit failed".to_owned(),
                hint: "open it again: what was committed before is there",
            }),
        }
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

    /// Writes out the indexes of what was committed, which is all there is.
    async fn flush(&mut self) -> Result<(), Error> {
        let flush = self.write_out().await?;
        let Some(flush) = flush else { return Ok(()) };
        let mut batch = self.batch();
        batch.record = Some(flush.head.encode().into());
        batch.log_start = flush.erases_log_before();
        let head = write(self.blocks.store(), batch).await?;
        self.snapshot.revision = head.revision;
        self.snapshot.head = flush.head;
        self.db = flush.db;
        Ok(())
    }

    async fn write_out(&mut self) -> Result<Option<Flush>, Error> {
        if self.loose.is_empty() {
            if self.db.indexes().tail_len() == 0 {
                return Ok(None);
            }
            let snapshot = Snapshot { db: self.db.clone(), ..self.snapshot.clone() };
            return write_out(&self.blocks, &snapshot, Some(&self.dedup)).await.map(Some);
        }
        let (indexes, schema) = (self.db.indexes(), self.db.shared_schema());
        let purged = indexes.has_purged();
        let flushed = self
            .blocks
            .settle(|| {
                let loose: Vec<&[Datom]> = self.loose.iter().map(|tx| &*tx.datoms).collect();
                indexes.flush_with(&loose, &*schema)
            })
            .await?;
        let config = self.db.config().clone();
        let db = Db::restore(config, schema, flushed.indexes.clone(), self.counters);
        self.loose.clear();
        self.loose_datoms = 0;
        let made = (db, flushed.blocks);
        store_flush(&self.blocks, made, &self.snapshot, Some(&self.dedup), purged).await.map(Some)
    }

    fn batch(&self) -> Batch {
        Batch::new(&self.branch, Expect::Revision(self.snapshot.revision))
    }
}

async fn write(store: &Arc<dyn Store>, batch: Batch) -> Result<Head, Error> {
    store.commit(batch).await.map_err(|error| match error {
        StoreError::Conflict { branch, .. } => Error::WriterLost { branch },
        error => error.into(),
    })
}
