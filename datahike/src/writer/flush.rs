//! Writing out the tail, beside the writer.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use datahike_core::block::{Address, Missing};
use datahike_core::commit::{Dedup, FlushRecord, Head, Position};
use datahike_core::db::Db;
use datahike_core::index::{Flushed, Indexes, Node};
use datahike_core::tx::ResolvedTx;
use datahike_peer::MaybeSend;
use datahike_store::Address as StoreAddress;

use super::Worker;
use crate::blocks::Blocks;
use crate::branch::{Branch, BranchEvent, Snapshot};
use crate::error::Error;
use crate::worker;

/// Datoms of tail after which it is written out, at least.
const TAIL_DATOMS_MIN: usize = 2_000;

/// Datoms of tail after which it is written out in any case.
const TAIL_DATOMS_MAX: usize = 50_000;

/// The tail may be one part in this many of the database: past it, waiting edits slow scans down.
const TAIL_PART: u64 = 33;

/// How many times its budget a tail may be while transactions come fast: a flush rewrites what lies
/// around each datom, so that few large ones cost a fraction of many small ones.
const TAIL_BUSY: usize = 8;

/// How many times its budget a tail may be before the writer waits for the flush that runs.
const TAIL_OVERRUN: usize = 16;

/// How often a tail over its budget is looked at again.
const REST: Duration = Duration::from_millis(100);

/// Transactions come fast if the tail grows by one part in this many of its budget meanwhile.
const REST_PART: usize = 8;

/// Where the writer stands with writing out its tail.
#[derive(Debug)]
pub(super) enum Flushing {
    No,
    /// The tail is over its budget, was so long when it was last looked at, and may grow on while
    /// transactions come fast.
    Resting(usize),
    /// Beside, with what was committed since it was started.
    Running(Vec<ResolvedTx>),
}

/// What the writer hears from beside.
#[derive(Debug)]
pub(super) enum News {
    Rested,
    Flushed(Result<Box<Flush>, Error>),
}

/// A snapshot whose indexes are written out, durable but not yet named by the head.
#[derive(Debug)]
pub(crate) struct Flush {
    pub(crate) db: Db,
    pub(crate) head: Head,
    /// It removed purged datoms, which the log up to it still tells.
    pub(crate) purged: bool,
}

impl Flush {
    /// Where the log is to start once the head names the flush, if it must not start before.
    pub(crate) fn erases_log_before(&self) -> Option<u64> {
        self.purged.then(|| self.head.log_number(self.head.flush.seq))
    }
}

/// Writes out the tail of a snapshot. The head does not move.
///
/// # Errors
/// What reading or writing the store fails with.
pub(crate) async fn write_out(
    blocks: &Arc<Blocks>,
    snapshot: &Snapshot,
    dedup: Option<&Dedup>,
) -> Result<Flush, Error> {
    write_out_by(Indexes::flush, blocks, snapshot, dedup).await
}

async fn write_out_by(
    flush: fn(&Indexes) -> Result<Flushed, Missing>,
    blocks: &Arc<Blocks>,
    snapshot: &Snapshot,
    dedup: Option<&Dedup>,
) -> Result<Flush, Error> {
    let flushed = blocks.settle(|| flush(snapshot.db.indexes())).await?;
    for (address, bytes) in &flushed.blocks {
        if let Ok(node) = Node::decode(bytes) {
            blocks.insert(*address, Arc::new(node));
        }
    }
    let db = snapshot.db.with_indexes(flushed.indexes);
    let purged = snapshot.db.indexes().has_purged();
    store_flush(blocks, (db, flushed.blocks), snapshot, dedup, purged).await
}

/// Makes the blocks of a database durable that were written out as of `snapshot`.
///
/// # Errors
/// What writing the store fails with.
pub(crate) async fn store_flush(
    blocks: &Blocks,
    (db, made): (Db, Vec<(Address, Vec<u8>)>),
    snapshot: &Snapshot,
    dedup: Option<&Dedup>,
    purged: bool,
) -> Result<Flush, Error> {
    let (record_address, record) = record_of(&db, snapshot.at, snapshot.head.flush_record);
    let mut out: Vec<(StoreAddress, Bytes)> = Vec::with_capacity(made.len() + 2);
    out.extend(made.into_iter().map(|(address, bytes)| (StoreAddress(address.0), bytes.into())));
    out.push((StoreAddress(record_address.0), record));
    let dedup = dedup.map(|dedup| {
        let bytes = Bytes::from(dedup.encode());
        let address = Address::of(&bytes);
        out.push((StoreAddress(address.0), bytes));
        address
    });
    blocks.store().put(out).await?;
    Ok(Flush {
        db,
        purged,
        head: Head {
            flush_record: record_address,
            flush: snapshot.at,
            log_base: snapshot.head.log_base,
            dedup,
        },
    })
}

/// The flush record of a database whose tail is empty, and its address.
pub(crate) fn record_of(db: &Db, at: Position, previous: Address) -> (Address, Bytes) {
    let previous = (at != Position::START).then_some(previous);
    let record = FlushRecord::of(db, at, previous, *db.indexes().roots());
    let bytes = Bytes::from(record.encode());
    (Address::of(&bytes), bytes)
}

impl Worker {
    /// Starts a flush when the tail has outgrown its budget, or tells what is purged, and none runs.
    /// While transactions come fast, larger tails are written out.
    pub(super) fn flush_if_due(&mut self) {
        let indexes = self.snapshot.db.indexes();
        let (tail, budget) = (indexes.tail_len(), self.tail_budget());
        if indexes.has_purged() || tail >= budget * TAIL_BUSY {
            self.start_flush();
        } else if tail >= budget && matches!(self.flushing, Flushing::No) {
            let rest = worker::pause(REST);
            match self.beside("datahike-rest", async move {
                rest.await;
                News::Rested
            }) {
                true => self.flushing = Flushing::Resting(tail),
                false => self.start_flush(),
            }
        }
    }

    /// Whether so much waits that no more may be added until the flush that runs is done.
    pub(super) fn must_wait_for_flush(&self) -> bool {
        matches!(self.flushing, Flushing::Running(_))
            && self.snapshot.db.indexes().tail_len() >= self.tail_budget() * TAIL_OVERRUN
    }

    fn tail_budget(&self) -> usize {
        let roots = self.snapshot.db.indexes().roots();
        let written = roots.current[0].map_or(0, |root| root.count);
        usize::try_from(written / TAIL_PART)
            .unwrap_or(TAIL_DATOMS_MAX)
            .clamp(TAIL_DATOMS_MIN, TAIL_DATOMS_MAX)
    }

    pub(super) fn start_flush(&mut self) {
        if matches!(self.flushing, Flushing::Running(_)) {
            return;
        }
        let snapshot = self.snapshot.clone();
        if snapshot.db.indexes().tail_len() == 0 {
            self.flush_waiters.drain(..).for_each(|waiter| drop(waiter.send(Ok(()))));
            return;
        }
        let (branch, dedup) = (Arc::<Branch>::clone(&self.branch), self.dedup.clone());
        let flush = async move {
            worker::give_way();
            // On one thread: those who transact meanwhile have need of the others.
            let by = Indexes::flush_alone;
            let flush = write_out_by(by, branch.blocks(), &snapshot, Some(&dedup)).await;
            News::Flushed(flush.map(Box::new))
        };
        self.flushing = match self.beside("datahike-flush", flush) {
            true => Flushing::Running(Vec::new()),
            false => Flushing::No,
        };
    }

    /// Has something done beside; false if it cannot be.
    fn beside(&self, name: &str, work: impl Future<Output = News> + MaybeSend + 'static) -> bool {
        let (news, desk) = (self.news.0.clone(), self.desk.clone());
        let work = async move {
            // A writer that has ended needs to hear nothing.
            let _ = news.send(work.await);
            desk.wake.notify_one();
        };
        let spawned = worker::spawn(name, work);
        if let Err(source) = &spawned {
            tracing::error!(%source, "cannot start {name}; the tail keeps growing");
        }
        spawned.is_ok()
    }

    pub(super) async fn hear(&mut self, news: News) {
        match (news, &self.flushing) {
            (News::Flushed(flush), _) => self.finish_flush(flush).await,
            (News::Rested, Flushing::Resting(before)) => {
                let grown = self.snapshot.db.indexes().tail_len().saturating_sub(*before);
                let calm = grown * REST_PART < self.tail_budget();
                self.flushing = Flushing::No;
                match calm {
                    true => self.start_flush(),
                    false => self.flush_if_due(),
                }
            }
            (News::Rested, _) => {}
        }
    }

    /// Lets the head name what was written out.
    async fn finish_flush(&mut self, flush: Result<Box<Flush>, Error>) {
        let since = match std::mem::replace(&mut self.flushing, Flushing::No) {
            Flushing::Running(since) => since,
            _ => Vec::new(),
        };
        let named = match flush {
            Ok(flush) => self.name_flush(*flush, &since).await,
            Err(error) => Err(error),
        };
        if let Err(error) = &named {
            tracing::error!(%error, branch = self.branch.name(), "the flush failed; the tail stays in the log");
        }
        for waiter in self.flush_waiters.drain(..) {
            let _ = waiter.send(match &named {
                Ok(()) => Ok(()),
                Err(error) => Err(error.not_durable()),
            });
        }
        if named.is_ok() {
            // A purge may have been committed while it ran.
            self.flush_if_due();
        }
    }

    async fn name_flush(&mut self, flush: Flush, since: &[ResolvedTx]) -> Result<(), Error> {
        let mut batch = self.batch();
        batch.record = Some(flush.head.encode().into());
        batch.log_start = flush.erases_log_before();
        self.commit(batch).await?;
        self.snapshot.db = flush.db.apply_all(since);
        self.snapshot.head = flush.head;
        self.branch.replace(self.snapshot.clone());
        self.branch.announce(&BranchEvent::Flushed {
            at: flush.head.flush,
            record: flush.head.flush_record,
        });
        Ok(())
    }
}
