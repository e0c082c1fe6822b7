//! A mirror's copy of a branch, in a store of its own.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use async_trait::async_trait;
use bytes::Bytes;
use datahike_core::block::Address;
use datahike_core::commit::{
    BatchEntry, CommitError, CommitId, Entry, FlushRecord, Head, Position, decode_batch,
    entry_of_public, open, public_part,
};
use datahike_core::datom::TX0;
use datahike_core::db::Db;
use datahike_core::index::{self, DeriveError};
use datahike_core::tx::ResolvedTx;
use datahike_store::{Address as StoreAddress, Batch, Expect, Store, StoreExt};
use datahike_sync::{
    Address as SyncAddress, Derived, FlushPoint, Fold, Have, Head as SyncHead, Identity, Point,
    Replica, ReplicaError, Reset, Shape,
};
use tokio::sync::{Mutex, watch};

use super::log::Log;
use super::meta::{self, Meta};
use super::passed::{Leads, Passed};
use super::{point, position, shape};
use crate::blocks::Blocks;
use crate::branch::{self, Branch, BranchEvent, Snapshot};
use crate::error::Error;
use crate::worker;
use crate::writer::write_out;

/// A copy of a branch that follows a server. At every moment it is one complete snapshot, or empty.
///
/// Transactions show before they are durable here, which they become together with others within
/// [`SAVE_DELAY`](datahike_sync::limits::SAVE_DELAY): they are durable at the server. A copy that a
/// crash cut short is a complete snapshot that may be so much older than what was read from it,
/// and gets what it lacks when it reaches the server again.
#[derive(Debug)]
pub struct StoreReplica {
    name: String,
    blocks: Arc<Blocks>,
    log: Arc<Log>,
    passed: parking_lot::Mutex<Passed>,
    meta: Mutex<Option<Meta>>,
    live: watch::Sender<Option<Arc<Branch>>>,
    /// Whether what is live was given up: connections still read it, but nothing may build on it.
    given_up: AtomicBool,
    on_reset: Resets,
}

/// What to do when the server has another history than the copy.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Resets {
    /// Give the copy up and begin anew.
    Follow,
    /// Keep the copy and stop.
    Refuse,
}

impl StoreReplica {
    /// The copy of branch `name` that is in the store, or the beginning of one.
    ///
    /// # Errors
    /// What the store fails with, or holds that is no mirror.
    pub async fn open(blocks: Arc<Blocks>, name: &str, on_reset: Resets) -> Result<Self, Error> {
        let store = blocks.store().clone();
        let meta = meta::load(store.as_ref(), name).await?;
        let there = store.head(name).await?.is_some_and(|head| !head.record.is_empty());
        let live = match (&meta, there) {
            (Some(_), true) => {
                let snapshot = branch::load(&blocks, name).await?.snapshot;
                Some(Arc::new(Branch::new(name, blocks.clone(), snapshot)))
            }
            (None, true) => return Err(Error::DatabaseExists { place: store.describe() }),
            (_, false) => None,
        };
        let revision = live.as_ref().map_or(0, |branch| branch.snapshot().revision);
        let passed = Passed::since(live.as_ref().map(|branch| branch.snapshot().at));
        let log = Arc::new(Log::new(name, store.clone(), revision));
        let (live, _) = watch::channel(live);
        Ok(Self {
            name: name.to_owned(),
            blocks,
            log,
            passed: passed.into(),
            meta: Mutex::new(meta),
            live,
            given_up: AtomicBool::new(false),
            on_reset,
        })
    }

    /// The branch, once there is a complete snapshot of it.
    ///
    /// # Errors
    /// If the replica is dropped first.
    pub async fn branch(&self) -> Result<Arc<Branch>, Error> {
        let mut live = self.live.subscribe();
        let live = live.wait_for(Option::is_some).await.map_err(|_| Error::Released)?;
        live.clone().ok_or(Error::Released)
    }

    /// How the history that shows stands to the commit of number `seq` that `is_it` knows.
    pub(crate) fn leads(&self, seq: u64, is_it: impl Fn(&Position) -> bool) -> Leads {
        self.passed.lock().leads(seq, is_it)
    }

    /// How many histories were given up since the copy was opened.
    pub(crate) fn histories_given_up(&self) -> u64 {
        self.passed.lock().given_up()
    }

    /// The branch, if it is part of the history that the mirror follows.
    fn live(&self) -> Option<Arc<Branch>> {
        match self.given_up.load(Ordering::Acquire) {
            true => None,
            false => self.live.borrow().clone(),
        }
    }

    fn store(&self) -> &Arc<dyn Store> {
        self.blocks.store()
    }

    fn require(&self) -> Result<Arc<Branch>, ReplicaError> {
        self.live().ok_or(ReplicaError::Diverged { seq: 0 })
    }

    async fn try_append(&self, first: u64, entries: Vec<Bytes>) -> Result<Point, Error> {
        let branch = self.at(first)?;
        let mut at = branch.snapshot().at;
        let mut received = Vec::with_capacity(entries.len());
        for public in &entries {
            let (entry, next) = Entry::from_public(public, &at)?;
            let stored = Bytes::from(entry_of_public(public));
            received.push(Received { entry, at: next, stored });
            at = next;
        }
        self.take_in(&branch, received).await
    }

    async fn try_apply_batch(&self, to: Position, bytes: Bytes) -> Result<(), Error> {
        let live = self.live().ok_or_else(|| diverged(to.seq))?;
        let from = live.snapshot().at;
        let (entries, end) = decode_batch(&bytes, &from)?;
        // The commit id that was promised proves every entry.
        if end != to {
            return Err(diverged(from.seq.saturating_add(1)));
        }
        let mut at = from;
        let mut received = Vec::with_capacity(entries.len());
        for BatchEntry { entry, bytes } in entries {
            at = at.after(public_part(&bytes)?);
            received.push(Received { entry, at, stored: bytes.into() });
        }
        self.take_in(&live, received).await.map(drop)
    }

    /// The branch, if the commit of number `first` is its next.
    fn at(&self, first: u64) -> Result<Arc<Branch>, Error> {
        let live = self.live().filter(|live| live.snapshot().at.seq.checked_add(1) == Some(first));
        live.ok_or_else(|| diverged(first))
    }

    /// Shows and announces commits that follow the branch. They become durable with
    /// [`Replica::save`], or here if very much waits.
    async fn take_in(&self, branch: &Branch, received: Vec<Received>) -> Result<Point, Error> {
        let mut snapshot = (*branch.snapshot()).clone();
        let much = self.log.push(received.iter().map(|one| one.stored.clone()));
        snapshot.at = received.last().map_or(snapshot.at, |last| last.at);
        let transactions: Vec<&ResolvedTx> =
            received.iter().flat_map(|one| &one.entry.transactions).collect();
        let at = snapshot.at;
        received.iter().for_each(|one| self.passed.lock().push(one.at));
        branch.advance_by(snapshot, &transactions);
        for Received { at, stored, .. } in &received {
            let public = stored.slice_ref(public_part(stored)?);
            branch.announce(&BranchEvent::Committed { at: *at, public });
        }
        if much {
            self.log.save().await?;
        }
        Ok(point(at))
    }

    async fn try_fold(&self, flush: FlushPoint) -> Result<Fold, Error> {
        let branch = self.live().ok_or(Error::Released)?;
        // The head that names the flush must not count on commits that a crash may take.
        self.log.save().await?;
        let now = (*branch.snapshot()).clone();
        let (db, at) = match position(flush.at) == now.at {
            true => (now.db.clone(), now.at),
            false => branch::as_of_commit(&self.blocks, &self.name, &now, flush.at.seq).await?,
        };
        if at != position(flush.at) {
            // The commit of that number is another one: this is another history.
            return Err(CommitError::Parent { seq: flush.at.seq, parent: at.commit }.into());
        }
        let as_of = Snapshot { db, at, head: now.head, revision: now.revision };
        // Writing out is a burst of computing: not on a thread that serves connections.
        let blocks = self.blocks.clone();
        let (done, written) = tokio::sync::oneshot::channel();
        worker::spawn("datahike-fold", async move {
            let _ = done.send(write_out(&blocks, &as_of, None).await);
        })
        .map_err(|source| Error::Worker { what: "a flush", source })?;
        let written = written.await.map_err(|_| Error::Released)??;
        if written.head.flush_record != Address(flush.address.0) {
            return Ok(Fold::Different);
        }
        let erase = written.erases_log_before();
        self.name_flush(&branch, written.db, written.head, erase).await?;
        Ok(Fold::Equal)
    }

    /// Lets the head name a flush at or before the branch's snapshot, whose later commits stay.
    async fn name_flush(
        &self,
        branch: &Branch,
        flushed: Db,
        head: Head,
        erase_before: Option<u64>,
    ) -> Result<(), Error> {
        let kept = head.log_number(head.flush.seq).saturating_sub(LOG_KEPT);
        let log_start = erase_before.unwrap_or(kept);
        let revision = self.log.name(&head, log_start).await?;
        let at_flush = Snapshot { db: flushed, at: head.flush, head, revision };
        let mut snapshot = branch::reload(&self.blocks, &self.name, &at_flush).await?;
        snapshot.revision = revision;
        branch.replace(snapshot);
        branch.announce(&BranchEvent::Flushed { at: head.flush, record: head.flush_record });
        Ok(())
    }

    async fn record(&self, flush: &FlushPoint) -> Result<Option<FlushRecord>, Error> {
        match self.blocks.read(&Address(flush.address.0)).await {
            Ok(bytes) => Ok(Some(FlushRecord::decode(&bytes)?)),
            Err(Error::BlockLost { .. }) => Ok(None),
            Err(error) => Err(error),
        }
    }

    async fn try_derive(&self, flush: FlushPoint) -> Result<Derived, Error> {
        let Some(record) = self.record(&flush).await? else {
            return Ok(Derived::Missing(vec![flush.address]));
        };
        if record.at != position(flush.at) {
            return Err(Error::BlockDamaged {
                address: Address(flush.address.0),
                reason: "it is the flush record of another commit".to_owned(),
            });
        }
        let blocks = self.blocks.clone();
        let (done, derived) = tokio::sync::oneshot::channel();
        worker::spawn("datahike-derive", async move {
            let params = record.config.params;
            let _ = done.send(index::derive(params, &record.roots, &*blocks, &record.schema));
        })
        .map_err(|source| Error::Worker { what: "the indexes", source })?;
        match derived.await.map_err(|_| Error::Released)? {
            Ok(made) => {
                let made = made.into_iter().map(|(a, bytes)| (StoreAddress(a.0), bytes.into()));
                self.store().put(made.collect()).await?;
                Ok(Derived::Complete)
            }
            Err(DeriveError::Missing(missing)) => Ok(Derived::Missing(
                missing.addresses.into_iter().map(|a| SyncAddress(a.0)).collect(),
            )),
            Err(error) => Err(Error::BlockDamaged {
                address: Address(flush.address.0),
                reason: error.to_string(),
            }),
        }
    }

    async fn try_adopt(&self, flush: FlushPoint) -> Result<SyncHead, Error> {
        let record = self.record(&flush).await?;
        let record = record.ok_or(Error::BlockLost { address: Address(flush.address.0) })?;
        let source: Arc<Blocks> = Arc::clone(&self.blocks);
        let db = open(&record, source);
        let named = |log_base| Head {
            flush_record: Address(flush.address.0),
            flush: record.at,
            log_base,
            dedup: None,
        };
        let live = self.live();
        if live.is_some() {
            self.log.save().await?;
        }
        let now = live.as_ref().map(|branch| branch.snapshot());
        if let (Some(branch), Some(now)) = (&live, &now)
            && self.continues(now, record.at).await?
        {
            let head = named(now.head.log_base);
            // The log leads through the flush, so that it tells of a purge before it.
            let purged = now.db.indexes().has_purged();
            let erase = purged.then(|| head.log_number(head.flush.seq));
            self.name_flush(branch, db, head, erase).await?;
        } else if let Some(now) = &now
            && now.at.seq >= record.at.seq
        {
            return Err(CommitError::Parent { seq: record.at.seq, parent: now.at.commit }.into());
        } else {
            // The record must say how log numbers and commits go together, and the log of a branch
            // whose name was used before does not begin at 0: so the branch comes first.
            let stored = match self.store().head(&self.name).await? {
                Some(head) => head,
                None => self.store().commit(Batch::new(&self.name, Expect::Absent)).await?,
            };
            let entries = stored.log.end;
            let head = named(record.at.seq.wrapping_sub(entries) as i64);
            self.log.restart(stored.revision).await;
            let revision = self.log.name(&head, entries).await?;
            let snapshot = Snapshot { db, at: record.at, head, revision };
            self.passed.lock().push(record.at);
            let shown = self.live.borrow().clone();
            match shown {
                Some(branch) => {
                    // In another history none of the transactions that were told need be there.
                    let from = match self.given_up.load(Ordering::Acquire) {
                        true => TX0 + 1,
                        false => branch.snapshot().db.max_tx() + 1,
                    };
                    branch.replace(snapshot);
                    branch.reports().publish_gap(from, record.counters.max_tx.max(from));
                }
                None => {
                    let branch = Branch::new(&self.name, self.blocks.clone(), snapshot);
                    self.live.send_replace(Some(Arc::new(branch)));
                }
            }
            self.given_up.store(false, Ordering::Release);
        }
        self.note(|meta| meta.partial = None).await?;
        let branch = self.live().ok_or(Error::Released)?;
        Ok(head_of(&branch.snapshot()))
    }

    /// Whether the snapshot's own log leads through this commit, so that what came after it stays.
    async fn continues(&self, now: &Snapshot, at: Position) -> Result<bool, Error> {
        if now.at.seq < at.seq || now.head.flush.seq > at.seq {
            return Ok(false);
        }
        let through = branch::as_of_commit(&self.blocks, &self.name, now, at.seq).await;
        Ok(through.is_ok_and(|(_, through)| through == at))
    }

    async fn note(&self, change: impl FnOnce(&mut Meta)) -> Result<(), Error> {
        let mut meta = self.meta.lock().await;
        if let Some(meta) = &mut *meta {
            change(meta);
            meta::save(self.store().as_ref(), &self.name, meta).await?;
        }
        Ok(())
    }
}

/// Log entries kept before the newest flush, for those who mirror this mirror.
const LOG_KEPT: u64 = 10_000;

fn head_of(snapshot: &Snapshot) -> SyncHead {
    let flush = FlushPoint {
        at: point(snapshot.head.flush),
        address: SyncAddress(snapshot.head.flush_record.0),
    };
    SyncHead { at: point(snapshot.at), flush }
}

/// A commit that came from the server.
struct Received {
    entry: Entry,
    at: Position,
    /// The entry as the log gets it.
    stored: Bytes,
}

fn diverged(seq: u64) -> Error {
    Error::Commit(CommitError::Parent { seq, parent: CommitId::ROOT })
}

#[cfg_attr(not(target_family = "wasm"), async_trait)]
#[cfg_attr(target_family = "wasm", async_trait(?Send))]
impl Replica for StoreReplica {
    async fn have(&self) -> Result<Have, ReplicaError> {
        let meta = self.meta.lock().await.clone();
        let live = self.live();
        Ok(Have {
            identity: meta.as_ref().map(|meta| meta.identity),
            shape: live.as_ref().map(|branch| shape(branch.snapshot().db.config())),
            head: live.map(|branch| head_of(&branch.snapshot())),
            partial: meta.and_then(|meta| meta.partial()),
        })
    }

    async fn append(&self, first: u64, entries: Vec<Bytes>) -> Result<Point, ReplicaError> {
        self.try_append(first, entries).await.map_err(refused("append to its log", first))
    }

    async fn apply_batch(&self, to: Point, bytes: Bytes) -> Result<(), ReplicaError> {
        let applied = self.try_apply_batch(position(to), bytes).await;
        applied.map_err(refused("append to its log", to.seq))
    }

    async fn save(&self) -> Result<(), ReplicaError> {
        if self.log.is_saved() {
            return Ok(());
        }
        let seq = self.live().map_or(0, |branch| branch.snapshot().at.seq);
        // A disk is slow: not on a thread that serves connections.
        let log = self.log.clone();
        let (done, saved) = tokio::sync::oneshot::channel();
        let worker = worker::spawn("datahike-save", async move {
            let _ = done.send(log.save().await);
        });
        let saved = match worker {
            Ok(()) => saved.await.unwrap_or(Err(Error::Released)),
            Err(source) => Err(Error::Worker { what: "a save", source }),
        };
        saved.map(drop).map_err(refused("append to its log", seq))
    }

    /// Never follows: the changed blocks come instead, see [`BranchSource`](super::BranchSource).
    async fn apply_difference(&self, _: FlushPoint, _: Bytes) -> Result<Fold, ReplicaError> {
        Ok(Fold::Different)
    }

    async fn fold(&self, flush: FlushPoint) -> Result<Fold, ReplicaError> {
        self.require()?;
        self.try_fold(flush).await.map_err(refused("write out its indexes", flush.at.seq))
    }

    async fn begin(
        &self,
        identity: Identity,
        shape: Shape,
        flush: FlushPoint,
    ) -> Result<(), ReplicaError> {
        let mut meta = self.meta.lock().await;
        let seeds = match meta.as_ref().and_then(|meta| meta.partial) {
            Some((address, seeds)) if address == flush.address => seeds,
            _ => 0,
        };
        let begun = Meta { identity, shape, partial: Some((flush.address, seeds)) };
        let saved = meta::save(self.store().as_ref(), &self.name, &begun).await;
        saved.map_err(|e| refused("note a transfer", flush.at.seq)(e.into()))?;
        *meta = Some(begun);
        Ok(())
    }

    fn verify(&self, address: &SyncAddress, bytes: &[u8]) -> bool {
        Address::of(bytes).0 == address.0
    }

    async fn block(&self, address: &SyncAddress) -> Result<Option<Bytes>, ReplicaError> {
        let found = self.store().get_one(&StoreAddress(address.0)).await;
        found.map_err(|e| refused("read a block", 0)(e.into()))
    }

    async fn put(
        &self,
        blocks: Vec<(SyncAddress, Bytes)>,
        seeds: Option<u64>,
    ) -> Result<(), ReplicaError> {
        let blocks = blocks.into_iter().map(|(a, bytes)| (StoreAddress(a.0), bytes)).collect();
        let stored = self.store().put(blocks).await;
        stored.map_err(|e| refused("store blocks", 0)(e.into()))?;
        if let Some(count) = seeds {
            let noted = self.note(|meta| {
                if let Some((_, seeds)) = &mut meta.partial {
                    *seeds = count;
                }
            });
            noted.await.map_err(refused("note its progress", 0))?;
        }
        Ok(())
    }

    async fn lacks(&self, addresses: Vec<SyncAddress>) -> Result<Vec<SyncAddress>, ReplicaError> {
        let addresses: Vec<_> = addresses.into_iter().map(|a| StoreAddress(a.0)).collect();
        let missing = self.store().missing(&addresses).await;
        let missing = missing.map_err(|e| refused("look for blocks", 0)(e.into()))?;
        Ok(missing.into_iter().map(|a| SyncAddress(a.0)).collect())
    }

    async fn derive(&self, flush: FlushPoint) -> Result<Derived, ReplicaError> {
        self.try_derive(flush).await.map_err(refused("make its indexes", flush.at.seq))
    }

    async fn adopt(&self, flush: FlushPoint) -> Result<SyncHead, ReplicaError> {
        self.try_adopt(flush).await.map_err(refused("move its head", flush.at.seq))
    }

    async fn reset(&self, reason: Reset) -> Result<(), ReplicaError> {
        if self.on_reset == Resets::Refuse {
            return Err(ReplicaError::Refused(reason));
        }
        let mut meta = self.meta.lock().await;
        let forgotten = meta::forget(self.store().as_ref(), &self.name).await;
        forgotten.map_err(|e| refused("give up its copy", 0)(e.into()))?;
        *meta = None;
        self.log.restart(0).await;
        self.passed.lock().give_up();
        self.given_up.store(true, Ordering::Release);
        Ok(())
    }
}

/// An error as the protocol sees it: what came does not fit, or the mirror's own store failed.
fn refused(action: &'static str, seq: u64) -> impl Fn(Error) -> ReplicaError {
    move |error| match error {
        Error::Commit(CommitError::Parent { seq, .. }) => ReplicaError::Diverged { seq },
        Error::Commit(error) => {
            ReplicaError::Malformed { what: "log entry", reason: error.to_string() }
        }
        Error::BlockDamaged { address, .. } => {
            ReplicaError::Corrupt { address: SyncAddress(address.0) }
        }
        Error::NotAtOnce { .. } => ReplicaError::Diverged { seq },
        error => ReplicaError::Store { action, source: error.into() },
    }
}
