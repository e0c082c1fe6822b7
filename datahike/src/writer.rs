//! The writer of a branch: one worker that orders transactions, commits those that wait together
//! as one log entry, and has the tail written out when it has grown.
//!
//! Nothing is acknowledged before it is durable. The worker never waits for a flush, unless the
//! tail has outgrown its budget by far.

mod flush;

use std::collections::HashMap;
use std::sync::Arc;

use bytes::Bytes;
use datahike_core::commit::{
    CommitId, Dedup, DedupError, Entry, Note, Outcome, Remembered, RequestId, public_part,
};
use datahike_core::db::Db;
use datahike_core::tx::{ResolvedTx, TxOptions, TxReport};
use datahike_store::{Batch, Expect, StoreError};
use datahike_value::{Uuid, Value};
use tokio::sync::{mpsc, oneshot};

pub(crate) use self::flush::{Flush, record_of, store_flush, write_out};
use crate::branch::{Branch, BranchEvent, Loaded, Snapshot};
use crate::error::Error;
use crate::versioning::check_merged;
use crate::worker;

/// Jobs that wait for the writer; whoever adds one more waits too.
const JOBS_WAITING_MAX: usize = 4_096;

/// Transactions in one commit.
const GROUP_MAX: usize = 1_024;

/// Bytes after which a commit takes no further transaction.
const GROUP_BYTES_MAX: usize = 2 << 20;

/// Bytes of one transaction in the log: with what else is in its commit, a mirror gets it in one
/// frame.
pub const TRANSACTION_BYTES_MAX: usize = 12 << 20;

/// Clients whose first refusal is remembered. Each needs it only until it has read of it.
const REFUSED_CLIENTS_MAX: usize = 4_096;

/// A transaction as it is asked for.
#[derive(Clone, Debug, PartialEq)]
pub struct Transaction {
    /// Transaction data: a vector of maps and operations.
    pub data: Value,
    /// Attributes of the transaction's own entity, as a map, or nil.
    pub meta: Value,
    /// Commits that its commit merges: its parents besides the newest of the branch.
    pub parents: Vec<CommitId>,
    /// Under which it happens once, however often it is asked for.
    pub request: Option<RequestId>,
    /// Whether it is refused once an earlier request of its client was: a stream of transactions
    /// that are sent without waiting for each other stops at the first refusal.
    pub in_sequence: bool,
}

impl Transaction {
    /// Transaction data alone.
    pub fn new(data: Value) -> Self {
        Self { data, meta: Value::Nil, parents: Vec::new(), request: None, in_sequence: false }
    }

    /// What tells whether two requests of one number ask for the same.
    fn body_hash(&self) -> [u8; 32] {
        let text = Value::vector([self.data.clone(), self.meta.clone()]).to_string();
        let mut hasher = blake3::Hasher::new();
        hasher.update(text.as_bytes());
        for parent in &self.parents {
            hasher.update(&parent.0);
        }
        *hasher.finalize().as_bytes()
    }
}

/// What became of a transaction.
#[derive(Clone, Debug)]
pub enum Transacted {
    /// It happened now.
    Now(Arc<TxReport>),
    /// It had happened before, under the same request.
    Before(Arc<Remembered>),
}

type FlushResult = Result<Box<Flush>, Error>;
type Reply = oneshot::Sender<Result<Transacted, Error>>;

#[derive(Debug)]
enum Job {
    Transact(Box<Transaction>, Reply),
    /// Write out the tail, even a short one; ready when the head names it.
    Flush(oneshot::Sender<Result<(), Error>>),
    /// Raise the start of the log.
    DropLog(u64, oneshot::Sender<Result<(), Error>>),
    Stop(oneshot::Sender<()>),
}

/// The handle of a writer.
#[derive(Clone, Debug)]
pub(crate) struct Writer {
    jobs: mpsc::Sender<Job>,
}

impl Writer {
    /// Starts the writer of a branch whose store is locked by this process.
    pub(crate) fn start(
        branch: Arc<Branch>,
        loaded: Loaded,
        options: TxOptions,
    ) -> Result<Self, Error> {
        let (jobs, waiting) = mpsc::channel(JOBS_WAITING_MAX);
        let worker = Worker {
            snapshot: loaded.snapshot,
            branch,
            dedup: loaded.dedup,
            options,
            refused: HashMap::new(),
            flushed: mpsc::channel(1),
            flushing: None,
            flush_waiters: Vec::new(),
        };
        worker::spawn("datahike-writer", worker.run(waiting))
            .map_err(|source| Error::Worker { what: "the writer", source })?;
        Ok(Self { jobs })
    }

    /// Ready when the transaction is durable, or refused.
    pub(crate) async fn transact(&self, transaction: Transaction) -> Result<Transacted, Error> {
        self.ask(|reply| Job::Transact(Box::new(transaction), reply)).await?
    }

    /// Ready when all that is durable now is in the indexes.
    pub(crate) async fn flush(&self) -> Result<(), Error> {
        self.ask(Job::Flush).await?
    }

    /// Forgets log entries before this number.
    pub(crate) async fn drop_log(&self, before: u64) -> Result<(), Error> {
        self.ask(|reply| Job::DropLog(before, reply)).await?
    }

    /// Finishes what waits and ends.
    pub(crate) async fn stop(&self) {
        // The worker being gone already is what was asked for.
        let _ = self.ask(Job::Stop).await;
    }

    async fn ask<T>(&self, job: impl FnOnce(oneshot::Sender<T>) -> Job) -> Result<T, Error> {
        let (reply, answer) = oneshot::channel();
        self.jobs.send(job(reply)).await.map_err(|_| Error::Released)?;
        answer.await.map_err(|_| Error::Released)
    }
}

struct Worker {
    branch: Arc<Branch>,
    snapshot: Snapshot,
    dedup: Dedup,
    /// What the transactions of every caller get.
    options: TxOptions,
    /// The first refused request of each client that sends in sequence.
    refused: HashMap<Uuid, u64>,
    /// What flushes that run beside come to.
    flushed: (mpsc::Sender<FlushResult>, mpsc::Receiver<FlushResult>),
    /// What was committed since the flush that runs was started.
    flushing: Option<Vec<ResolvedTx>>,
    flush_waiters: Vec<oneshot::Sender<Result<(), Error>>>,
}

/// A transaction that was resolved and is not durable yet.
struct Accepted {
    report: Arc<TxReport>,
    merged: Vec<CommitId>,
    note: Option<Note>,
    reply: Reply,
}

impl Worker {
    async fn run(mut self, mut waiting: mpsc::Receiver<Job>) {
        let mut next = None;
        // A purge whose flush was cut short.
        self.flush_if_due();
        let stopped = loop {
            let full = self.must_wait_for_flush();
            let job = tokio::select! {
                biased;
                Some(flush) = self.flushed.1.recv() => {
                    self.finish_flush(flush).await;
                    continue;
                }
                job = std::future::ready(next.take()), if next.is_some() && !full => job,
                job = waiting.recv(), if next.is_none() && !full => job,
            };
            let Some(job) = job else { break None };
            match job {
                Job::Transact(transaction, reply) => {
                    next = self.group(*transaction, reply, &mut waiting).await;
                    self.flush_if_due();
                }
                Job::Flush(reply) => {
                    self.flush_waiters.push(reply);
                    self.start_flush();
                }
                Job::DropLog(before, reply) => {
                    let mut batch = self.batch();
                    let head = &self.snapshot.head;
                    batch.log_start = Some(before.min(head.log_number(head.flush.seq)));
                    let done = self.commit(batch).await;
                    let _ = reply.send(done);
                }
                Job::Stop(reply) => break Some(reply),
            }
        };
        self.branch.reports().close();
        if let Some(reply) = stopped {
            let _ = reply.send(());
        }
    }

    /// Commits this transaction and those that wait behind it; returns the first job that is none.
    async fn group(
        &mut self,
        first: Transaction,
        reply: Reply,
        waiting: &mut mpsc::Receiver<Job>,
    ) -> Option<Job> {
        let mut db = self.snapshot.db.clone();
        let mut accepted: Vec<Accepted> = Vec::new();
        let mut answered = Vec::new();
        let mut bytes = 0;
        let mut next = None;
        let mut current = Some((first, reply));
        while let Some((mut transaction, reply)) = current.take() {
            let merges = !transaction.parents.is_empty();
            match self.resolve(&db, &transaction, &accepted).await {
                Ok(Resolved::New(report, note)) => {
                    db = report.db_after.clone();
                    bytes += weight(&report);
                    let merged = std::mem::take(&mut transaction.parents);
                    accepted.push(Accepted { report: Arc::from(report), merged, note, reply });
                }
                Ok(Resolved::Before(remembered)) => {
                    answered.push((reply, Ok(Transacted::Before(remembered))));
                }
                Ok(Resolved::Again(at)) => {
                    answered.push((reply, Ok(Transacted::Now(accepted[at].report.clone()))));
                }
                Err(error) => {
                    self.note_refusal(&transaction);
                    answered.push((reply, Err(error)));
                }
            }
            // One commit merges on behalf of one transaction.
            if accepted.len() < GROUP_MAX && bytes < GROUP_BYTES_MAX && !merges {
                match waiting.try_recv() {
                    Ok(Job::Transact(transaction, reply)) => current = Some((*transaction, reply)),
                    Ok(job) => next = Some(job),
                    Err(_) => {}
                }
            }
        }
        // A refusal may rest on a transaction of this very group: it is told when that is durable.
        let committed =
            if accepted.is_empty() { Ok(()) } else { self.commit_group(db, accepted).await };
        for (reply, answer) in answered {
            let answer = match (&committed, answer) {
                (Err(error), Ok(Transacted::Now(_)) | Err(_)) => Err(error.not_durable()),
                (_, answer) => answer,
            };
            let _ = reply.send(answer);
        }
        next
    }

    async fn resolve(
        &self,
        db: &Db,
        transaction: &Transaction,
        accepted: &[Accepted],
    ) -> Result<Resolved, Error> {
        let body = transaction.request.map(|request| (request, transaction.body_hash()));
        if let Some((request, body)) = &body {
            let same = |one: &Accepted| one.note.as_ref().is_some_and(|n| n.request == *request);
            if let Some(at) = accepted.iter().position(same) {
                let first = accepted[at].note.as_ref().map(|note| note.body);
                if first != Some(*body) {
                    let client = request.client;
                    return Err(DedupError::OtherBody { client, number: request.number }.into());
                }
                return Ok(Resolved::Again(at));
            }
            if let Outcome::Done(remembered) = self.dedup.look_up(*request, body)? {
                return Ok(Resolved::Before(remembered));
            }
        }
        if let Some(RequestId { client, number }) =
            transaction.request.filter(|_| transaction.in_sequence)
            && let Some(refused) = self.refused.get(&client).filter(|refused| **refused < number)
        {
            return Err(Error::AfterRefusal { refused: *refused });
        }
        if !transaction.parents.is_empty() {
            check_merged(&self.branch, &transaction.parents).await?;
        }
        let options =
            self.options.clone().with_now(worker::now_ms()).with_meta(transaction.meta.clone());
        let blocks = self.branch.blocks();
        let report = blocks.settle(|| db.with(&transaction.data, &options)).await?;
        let bytes = weight(&report);
        if bytes > TRANSACTION_BYTES_MAX {
            return Err(Error::TransactionTooLarge { bytes, max: TRANSACTION_BYTES_MAX });
        }
        let note = body.map(|(request, body)| Note {
            request,
            body,
            tx: report.tx,
            tempids: report.tempids.iter().map(|(k, id)| (k.clone(), *id)).collect(),
        });
        Ok(Resolved::New(Box::new(report), note))
    }

    fn note_refusal(&mut self, transaction: &Transaction) {
        let Some(request) = transaction.request.filter(|_| transaction.in_sequence) else { return };
        if self.refused.len() >= REFUSED_CLIENTS_MAX {
            self.refused.clear();
        }
        let first = self.refused.entry(request.client).or_insert(request.number);
        *first = request.number.min(*first);
    }

    async fn commit_group(&mut self, db: Db, accepted: Vec<Accepted>) -> Result<(), Error> {
        let newest = self.snapshot.at.commit;
        let merged = accepted.iter().flat_map(|one| one.merged.iter().copied());
        let entry = Entry {
            merged: merged.filter(|commit| *commit != newest).collect(),
            transactions: accepted.iter().map(|one| one.report.resolved()).collect(),
            notes: accepted.iter().filter_map(|one| one.note.clone()).collect(),
        };
        let (bytes, at) = entry.encode(&self.snapshot.at);
        let bytes = Bytes::from(bytes);
        let mut batch = self.batch();
        batch.entries.push(bytes.clone());
        if let Err(error) = self.commit(batch).await {
            let failure = error.not_durable();
            for one in accepted {
                let _ = one.reply.send(Err(error.not_durable()));
            }
            return Err(failure);
        }
        entry.notes.iter().for_each(|note| self.dedup.remember(note));
        if let Some(since) = &mut self.flushing {
            since.extend(entry.transactions);
        }
        self.snapshot.db = db;
        self.snapshot.at = at;
        let reports: Vec<_> = accepted.iter().map(|one| one.report.clone()).collect();
        self.branch.advance(self.snapshot.clone(), &reports);
        // Before the answers, each of which wakes a thread that would contend with it.
        if let Ok(public) = public_part(&bytes) {
            let public = bytes.slice_ref(public);
            self.branch.announce(&BranchEvent::Committed { at, public });
        }
        for one in accepted {
            let _ = one.reply.send(Ok(Transacted::Now(one.report)));
        }
        Ok(())
    }

    fn batch(&self) -> Batch {
        Batch::new(self.branch.name(), Expect::Revision(self.snapshot.revision))
    }

    /// Makes a batch durable. On this thread where the store can: waiting is all it does here.
    async fn commit(&mut self, batch: Batch) -> Result<(), Error> {
        let store = self.branch.store();
        let committed = match store.commit_now(&batch) {
            Some(committed) => committed,
            None => store.commit(batch).await,
        };
        match committed {
            Ok(head) => {
                self.snapshot.revision = head.revision;
                Ok(())
            }
            Err(StoreError::Conflict { branch, .. }) => Err(Error::WriterLost { branch }),
            Err(error) => Err(error.into()),
        }
    }
}

enum Resolved {
    New(Box<TxReport>, Option<Note>),
    /// As an earlier commit says.
    Before(Arc<Remembered>),
    /// As this one of the same group.
    Again(usize),
}

/// About how many bytes a transaction takes in the log.
fn weight(report: &TxReport) -> usize {
    let datoms = report.tx_data.iter().chain(report.purged.iter());
    datoms.map(|datom| 24 + value_weight(&datom.v)).sum()
}

pub(crate) fn value_weight(value: &Value) -> usize {
    match value {
        Value::Str(text) => text.len(),
        Value::Bytes(bytes) => bytes.len(),
        Value::FloatArray(items) => items.len() * 4,
        Value::DoubleArray(items) => items.len() * 8,
        Value::List(items) | Value::Vector(items) => {
            items.iter().map(|item| 10 + value_weight(item)).sum()
        }
        Value::Set(items) => items.iter().map(|item| 10 + value_weight(item)).sum(),
        Value::Map(entries) => {
            entries.iter().map(|(k, v)| 20 + value_weight(k) + value_weight(v)).sum()
        }
        _ => 0,
    }
}
