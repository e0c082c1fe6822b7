//! Transactions that wait together: resolved against each other's results, committed as one entry,
//! answered when that is durable.

use std::sync::Arc;

use bytes::Bytes;
use datahike_core::commit::{
    CommitId, DedupError, Entry, Note, Outcome, Remembered, RequestId, public_part,
};
use datahike_core::tx::{Resolution, Series, TxReport};
use datahike_store::{Batch, Expect, StoreError};
use datahike_value::Value;

use super::flush::Flushing;
use super::{Job, Reply, TRANSACTION_BYTES_MAX, Transacted, Transaction, Worker};
use crate::branch::BranchEvent;
use crate::error::Error;
use crate::versioning::check_merged;
use crate::worker;

/// Transactions in one commit.
const GROUP_MAX: usize = 1_024;

/// Bytes after which a commit takes no further transaction.
const GROUP_BYTES_MAX: usize = 2 << 20;

/// Clients whose first refusal is remembered. Each needs it only until it has read of it.
const REFUSED_CLIENTS_MAX: usize = 4_096;

/// A transaction that was resolved and is not durable yet.
struct Accepted {
    report: Arc<TxReport>,
    merged: Vec<CommitId>,
    note: Option<Note>,
    /// Its request, if those of its client that come after it depend on it.
    in_sequence: Option<RequestId>,
    reply: Reply,
}

impl Worker {
    /// Commits this transaction and those that wait behind it.
    pub(super) async fn group(&mut self, first: Transaction, reply: Reply) {
        let mut series = Series::new(&self.snapshot.db);
        let mut accepted: Vec<Accepted> = Vec::new();
        let mut answered = Vec::new();
        let mut bytes = 0;
        let mut current = Some((first, reply));
        while let Some((mut transaction, reply)) = current.take() {
            let merges = !transaction.parents.is_empty();
            match self.resolve(&series, &transaction, &accepted).await {
                Ok(Resolved::New { resolution, request, bytes: more }) => {
                    bytes += more;
                    let report = Arc::new(series.accept(*resolution));
                    let note = request.map(|(request, body)| note_of(&report, request, body));
                    let merged = std::mem::take(&mut transaction.parents);
                    let in_sequence = transaction.request.filter(|_| transaction.in_sequence);
                    accepted.push(Accepted { report, merged, note, in_sequence, reply });
                }
                Ok(Resolved::Before(remembered)) => {
                    answered.push((reply, Ok(Transacted::Before(remembered))));
                }
                Ok(Resolved::Again(at)) => {
                    answered.push((reply, Ok(Transacted::Now(accepted[at].report.clone()))));
                }
                Err(error) => {
                    self.note_refusal(transaction.request.filter(|_| transaction.in_sequence));
                    answered.push((reply, Err(error)));
                }
            }
            // One commit merges on behalf of one transaction.
            if accepted.len() < GROUP_MAX && bytes < GROUP_BYTES_MAX && !merges {
                match self.waiting.try_recv() {
                    Ok(Job::Transact(transaction, reply)) => current = Some((*transaction, reply)),
                    Ok(job) => self.next = Some(job),
                    Err(_) => {}
                }
            }
        }
        // A refusal may rest on a transaction of this very group: it is told when that is durable.
        let committed =
            if accepted.is_empty() { Ok(()) } else { self.commit_group(series, accepted).await };
        for (reply, answer) in answered {
            let answer = match (&committed, answer) {
                (Err(error), Ok(Transacted::Now(_)) | Err(_)) => Err(error.not_durable()),
                (_, answer) => answer,
            };
            let _ = reply.send(answer);
        }
    }

    async fn resolve(
        &self,
        series: &Series,
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
        let resolution = blocks.settle(|| series.resolve(&transaction.data, &options)).await?;
        let bytes = weight(&resolution);
        if bytes > TRANSACTION_BYTES_MAX {
            return Err(Error::TransactionTooLarge { bytes, max: TRANSACTION_BYTES_MAX });
        }
        Ok(Resolved::New { resolution: Box::new(resolution), request: body, bytes })
    }

    fn note_refusal(&mut self, in_sequence: Option<RequestId>) {
        let Some(request) = in_sequence else { return };
        if self.refused.len() >= REFUSED_CLIENTS_MAX {
            self.refused.clear();
        }
        let first = self.refused.entry(request.client).or_insert(request.number);
        *first = request.number.min(*first);
    }

    async fn commit_group(
        &mut self,
        series: Series,
        mut accepted: Vec<Accepted>,
    ) -> Result<(), Error> {
        let db = series.finish();
        if let Some(last) = accepted.last_mut().and_then(|one| Arc::get_mut(&mut one.report)) {
            // The same snapshot, but made already.
            last.db_after = db.clone();
        }
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
                self.note_refusal(one.in_sequence);
                let _ = one.reply.send(Err(error.not_durable()));
            }
            return Err(failure);
        }
        entry.notes.iter().for_each(|note| self.dedup.remember(note));
        for request in accepted.iter().filter_map(|one| one.in_sequence) {
            // What could not be made durable before, and was sent again.
            if self.refused.get(&request.client) == Some(&request.number) {
                self.refused.remove(&request.client);
            }
        }
        if let Flushing::Running(since) = &mut self.flushing {
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

    pub(super) fn batch(&self) -> Batch {
        Batch::new(self.branch.name(), Expect::Revision(self.snapshot.revision))
    }

    /// Makes a batch durable. On this thread where the store can: waiting is all it does here.
    pub(super) async fn commit(&mut self, batch: Batch) -> Result<(), Error> {
        let store = self.branch.store();
        let clock = worker::Clock::start();
        let committed = match store.commit_now(&batch) {
            Some(committed) => committed,
            None => store.commit(batch).await,
        };
        self.desk.note_commit(clock.micros());
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
    New {
        resolution: Box<Resolution>,
        request: Option<(RequestId, [u8; 32])>,
        bytes: usize,
    },
    /// As an earlier commit says.
    Before(Arc<Remembered>),
    /// As this one of the same group.
    Again(usize),
}

fn note_of(report: &TxReport, request: RequestId, body: [u8; 32]) -> Note {
    let tempids = report.tempids.iter().map(|(tempid, id)| (tempid.clone(), *id)).collect();
    Note { request, body, tx: report.tx, tempids }
}

/// About how many bytes a transaction takes in the log.
fn weight(resolution: &Resolution) -> usize {
    let datoms = resolution.tx_data().iter().chain(resolution.purged());
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
