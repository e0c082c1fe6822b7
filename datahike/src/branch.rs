//! The live state of one branch in this process: the newest snapshot, and who waits for the next.
//!
//! The writer advances it, or the mirror that follows a server; connections read it.

use std::fmt;
use std::sync::{Arc, Weak};

use arc_swap::ArcSwap;
use bytes::Bytes;
use datahike_core::block::Address;
use datahike_core::commit::{Dedup, Entry, FlushRecord, Head, Position, open, replay};
use datahike_core::datom::TxId;
use datahike_core::db::Db;
use datahike_core::tx::{ResolvedTx, TxReport};
use datahike_store::Store;
use parking_lot::Mutex;
use tokio::sync::watch;

use crate::blocks::Blocks;
use crate::error::Error;
use crate::past;
use crate::reports::Reports;
use crate::versioning::{no_branch, present};

/// Bytes of log read at once while a branch is loaded.
const LOG_BYTES_AT_ONCE: usize = 4 << 20;

/// Ends the names of branches in which mirrors keep their notes.
pub(crate) const MIRROR_NOTES: &str = "~mirror";

/// A snapshot and where it stands in the branch's history.
#[derive(Clone, Debug)]
pub struct Snapshot {
    /// The database value.
    pub db: Db,
    /// Its place.
    pub at: Position,
    /// What the head record says.
    pub head: Head,
    /// Revision of the store's head that it came from.
    pub revision: u64,
}

/// What happened to a branch, for those who pass it on.
#[derive(Clone, Debug)]
pub enum BranchEvent {
    /// A commit is durable.
    Committed {
        /// Its place.
        at: Position,
        /// Its log entry without the private part.
        public: Bytes,
    },
    /// The indexes were written out as of a commit.
    Flushed {
        /// The commit.
        at: Position,
        /// The flush record's block.
        record: Address,
    },
}

type Observer = dyn Fn(&BranchEvent) + Send + Sync;

#[derive(Default)]
struct Observers(Mutex<Vec<Weak<Observer>>>);

impl fmt::Debug for Observers {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} observer(s)", self.0.lock().len())
    }
}

/// Keeps an observer of a branch; see [`Branch::observe`].
#[must_use = "the observer ends when this is dropped"]
pub struct Observation {
    _observer: Arc<Observer>,
}

impl fmt::Debug for Observation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Observation")
    }
}

/// One branch of one open store.
#[derive(Debug)]
pub struct Branch {
    name: String,
    blocks: Arc<Blocks>,
    current: ArcSwap<Snapshot>,
    reports: Reports,
    newest: watch::Sender<TxId>,
    observers: Observers,
}

impl Branch {
    pub(crate) fn new(name: &str, blocks: Arc<Blocks>, snapshot: Snapshot) -> Self {
        let (newest, _) = watch::channel(snapshot.db.max_tx());
        Self {
            name: name.to_owned(),
            blocks,
            current: ArcSwap::from_pointee(snapshot),
            reports: Reports::default(),
            newest,
            observers: Observers::default(),
        }
    }

    /// Its name, `db` unless told.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// The blocks its snapshots are read through.
    pub fn blocks(&self) -> &Arc<Blocks> {
        &self.blocks
    }

    /// Where it is kept.
    pub fn store(&self) -> &Arc<dyn Store> {
        self.blocks.store()
    }

    /// The newest snapshot.
    pub fn snapshot(&self) -> Arc<Snapshot> {
        self.current.load_full()
    }

    /// Who hears of its transactions.
    pub(crate) fn reports(&self) -> &Reports {
        &self.reports
    }

    /// Calls `observer` with everything that happens to the branch from here on, in order, on the
    /// thread that makes it happen: it must be quick. Ends when what is returned is dropped.
    pub fn observe(&self, observer: impl Fn(&BranchEvent) + Send + Sync + 'static) -> Observation {
        let observer: Arc<Observer> = Arc::new(observer);
        self.observers.0.lock().push(Arc::downgrade(&observer));
        Observation { _observer: observer }
    }

    /// Tells those who observe.
    pub(crate) fn announce(&self, event: &BranchEvent) {
        self.observers
            .0
            .lock()
            .retain(|observer| observer.upgrade().inspect(|observer| observer(event)).is_some());
    }

    /// Shows a newer snapshot, then tells of the transactions that led to it: whoever hears of one
    /// finds it in the connection's database value.
    pub(crate) fn advance(&self, snapshot: Snapshot, reports: &[Arc<TxReport>]) {
        let newest = snapshot.db.max_tx();
        self.current.store(Arc::new(snapshot));
        reports.iter().for_each(|report| self.reports.publish(report));
        self.newest.send_replace(newest);
    }

    /// [`Branch::advance`] by transactions that were made elsewhere: lays them over the newest
    /// snapshot and shows it at the place that `snapshot` names. Their reports, each of which
    /// needs a snapshot of its own, are made only if somebody listens.
    pub(crate) fn advance_by(&self, mut snapshot: Snapshot, transactions: &[&ResolvedTx]) {
        let before = self.snapshot().db.clone();
        snapshot.db = before.apply_all(transactions.iter().copied());
        let (newest, last) = (snapshot.db.max_tx(), snapshot.db.clone());
        self.current.store(Arc::new(snapshot));
        // Asked after the snapshot shows: whoever comes later finds the transactions in it.
        if self.reports.are_heard() {
            let mut before = before;
            for (index, transaction) in transactions.iter().enumerate() {
                let after = match index + 1 == transactions.len() {
                    true => last.clone(),
                    false => before.apply(transaction),
                };
                self.reports.publish(&Arc::new(past::report(&before, &after, transaction)));
                before = after;
            }
        }
        self.newest.send_replace(newest);
    }

    /// Shows another snapshot without a word: the same datoms in other indexes.
    pub(crate) fn replace(&self, snapshot: Snapshot) {
        self.newest.send_replace(snapshot.db.max_tx());
        self.current.store(Arc::new(snapshot));
    }

    /// The newest transaction that shows in [`Branch::snapshot`], and every change of what shows.
    pub(crate) fn newest(&self) -> watch::Receiver<TxId> {
        self.newest.subscribe()
    }

    /// Ready once transaction `tx` shows in [`Branch::snapshot`].
    pub(crate) async fn reached(&self, tx: TxId) -> Result<(), Error> {
        let mut newest = self.newest.subscribe();
        newest.wait_for(|newest| *newest >= tx).await.map(drop).map_err(|_| Error::Released)
    }
}

/// A branch as the store has it.
#[derive(Debug)]
pub(crate) struct Loaded {
    pub(crate) snapshot: Snapshot,
    /// The requests remembered, complete up to the snapshot.
    pub(crate) dedup: Dedup,
}

/// Reads a branch: its flush record, and the log after it.
///
/// # Errors
/// [`Error::NoBranch`] if the store has no such branch; what the store fails with.
pub(crate) async fn load(blocks: &Arc<Blocks>, branch: &str) -> Result<Loaded, Error> {
    let store = blocks.store();
    let stored = store.head(branch).await?.filter(|head| present(Some(head)));
    let Some(stored) = stored else { return Err(no_branch(store.as_ref(), branch).await?) };
    let head = Head::decode(&stored.record)?;
    let record = FlushRecord::decode(&blocks.read(&head.flush_record).await?)?;
    let mut dedup = match &head.dedup {
        Some(address) => Dedup::decode(&blocks.read(address).await?)?,
        None => Dedup::default(),
    };
    let source: Arc<Blocks> = Arc::clone(blocks);
    let base = (open(&record, source), record.at);
    let (db, at) = follow_log(store.as_ref(), branch, &head, base, stored.log.end, |entry| {
        entry.notes.iter().for_each(|note| dedup.remember(note));
    })
    .await?;
    let snapshot = Snapshot { db, at, head, revision: stored.revision };
    Ok(Loaded { snapshot, dedup })
}

/// A newer snapshot than `known`, reading only what came since where that can be.
///
/// # Errors
/// As [`load`].
pub(crate) async fn reload(
    blocks: &Arc<Blocks>,
    branch: &str,
    known: &Snapshot,
) -> Result<Snapshot, Error> {
    let store = blocks.store();
    let stored = store.head(branch).await?;
    let Some(stored) = stored.filter(|stored| {
        Head::decode(&stored.record).is_ok_and(|head| head == known.head)
            && stored.log.start <= known.head.log_number(known.at.seq)
    }) else {
        return Ok(load(blocks, branch).await?.snapshot);
    };
    let base = (known.db.clone(), known.at);
    let (db, at) =
        follow_log(store.as_ref(), branch, &known.head, base, stored.log.end, |_| {}).await?;
    Ok(Snapshot { db, at, head: known.head, revision: stored.revision })
}

/// The snapshot as of a commit between a snapshot's flush and the snapshot itself.
///
/// # Errors
/// What the store fails with, and if the log no longer has the commits since the flush.
pub(crate) async fn as_of_commit(
    blocks: &Arc<Blocks>,
    branch: &str,
    snapshot: &Snapshot,
    seq: u64,
) -> Result<(Db, Position), Error> {
    let record = FlushRecord::decode(&blocks.read(&snapshot.head.flush_record).await?)?;
    let source: Arc<Blocks> = Arc::clone(blocks);
    let base = (open(&record, source), record.at);
    let end = snapshot.head.log_number(seq);
    follow_log(blocks.store().as_ref(), branch, &snapshot.head, base, end, |_| {}).await
}

/// Lays the log from a snapshot's place up to entry number `end` over it.
async fn follow_log(
    store: &dyn Store,
    branch: &str,
    head: &Head,
    (mut db, mut at): (Db, Position),
    end: u64,
    mut see: impl FnMut(&Entry),
) -> Result<(Db, Position), Error> {
    while head.log_number(at.seq) < end {
        let entries = store.log(branch, head.log_number(at.seq), LOG_BYTES_AT_ONCE).await?;
        if entries.is_empty() {
            break;
        }
        let left = usize::try_from(end - head.log_number(at.seq)).unwrap_or(usize::MAX);
        let entries = entries.iter().take(left).map(|entry| &entry[..]);
        (db, at) = replay(&db, at, entries, &mut see)?;
    }
    Ok((db, at))
}
