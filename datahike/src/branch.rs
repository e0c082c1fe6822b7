//! The live state of one branch in this process: the newest snapshot, and who waits for the next.
//!
//! The writer advances it, or the mirror that follows a server; connections read it.

use std::sync::Arc;

use arc_swap::ArcSwap;
use datahike_core::Db;
use datahike_core::commit::{CommitId, Position};
use datahike_core::datom::TxId;
use datahike_core::tx::TxReport;
use datahike_store::Store;
use tokio::sync::watch;

use crate::blocks::Blocks;
use crate::error::Error;
use crate::reports::Reports;

/// A snapshot and where it stands in the branch's history.
#[derive(Clone, Debug)]
pub struct Snapshot {
    /// The database value.
    pub db: Db,
    /// Its place.
    pub at: Position,
    /// The flush below its tail.
    pub flush: Position,
    /// The flush record's block.
    pub flush_record: datahike_core::block::Address,
    /// Revision of the store's head that names it.
    pub revision: u64,
}

impl Snapshot {
    /// The commit that made it.
    pub fn commit(&self) -> CommitId {
        self.at.commit
    }
}

/// One branch of one open store.
#[derive(Debug)]
pub(crate) struct Branch {
    name: String,
    blocks: Arc<Blocks>,
    current: ArcSwap<Snapshot>,
    reports: Reports,
    newest: watch::Sender<TxId>,
}

impl Branch {
    pub(crate) fn new(name: String, blocks: Arc<Blocks>, snapshot: Snapshot) -> Self {
        let (newest, _) = watch::channel(snapshot.db.max_tx());
        Self {
            name,
            blocks,
            current: ArcSwap::from_pointee(snapshot),
            reports: Reports::default(),
            newest,
        }
    }

    pub(crate) fn name(&self) -> &str {
        &self.name
    }

    pub(crate) fn blocks(&self) -> &Arc<Blocks> {
        &self.blocks
    }

    pub(crate) fn store(&self) -> &Arc<dyn Store> {
        self.blocks.store()
    }

    pub(crate) fn snapshot(&self) -> Arc<Snapshot> {
        self.current.load_full()
    }

    pub(crate) fn reports(&self) -> &Reports {
        &self.reports
    }

    /// Shows a newer snapshot, then tells of the transactions that led to it: whoever hears of one
    /// finds it in `db()`.
    pub(crate) fn advance(&self, snapshot: Snapshot, reports: &[Arc<TxReport>]) {
        let newest = snapshot.db.max_tx();
        self.current.store(Arc::new(snapshot));
        reports.iter().for_each(|report| self.reports.publish(report));
        self.newest.send_replace(newest);
    }

    /// Shows the same datoms in other indexes.
    pub(crate) fn replace(&self, snapshot: Snapshot) {
        self.current.store(Arc::new(snapshot));
    }

    /// Ready once transaction `tx` shows in [`Branch::snapshot`].
    pub(crate) async fn reached(&self, tx: TxId) -> Result<(), Error> {
        let mut newest = self.newest.subscribe();
        newest.wait_for(|newest| *newest >= tx).await.map(drop).map_err(|_| Error::Released)
    }
}
