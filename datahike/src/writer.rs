//! The writer of a branch: one worker that orders transactions, commits those that wait together
//! as one log entry, and has the tail written out when it has grown.
//!
//! Nothing is acknowledged before it is durable. The worker never waits for a flush, unless the
//! tail has outgrown its budget by far. It has a thread, but a caller that is alone does the
//! worker's next job itself where commits are quick: two changes of thread would cost as much.

mod flush;
mod group;

use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::task::Poll;

use datahike_core::commit::{CommitId, Dedup, Remembered, RequestId};
use datahike_core::tx::{TxOptions, TxReport};
use datahike_value::{Uuid, Value};
use futures::FutureExt;
use tokio::sync::mpsc::error::TryRecvError;
use tokio::sync::{Mutex, Notify, mpsc, oneshot};

pub(crate) use self::flush::{Flush, record_of, store_flush, write_out};
use self::flush::{Flushing, News};
pub(crate) use self::group::value_weight;
use crate::branch::{Branch, Loaded, Snapshot};
use crate::error::Error;
use crate::worker;

/// Jobs that wait for the writer; whoever adds one more waits too.
const JOBS_WAITING_MAX: usize = 4_096;

/// Up to here a commit may keep a caller's thread, in microseconds: about what an async runtime
/// takes for a long step.
const QUICK_COMMIT_MICROS: u64 = 300;

/// Bytes of one transaction in the log: with what else is in its commit, a mirror gets it in one
/// frame.
pub const TRANSACTION_BYTES_MAX: usize = 12 << 20;

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

/// The handle of a writer, which ends with the last of them.
#[derive(Clone, Debug)]
pub(crate) struct Writer {
    /// Dropped before the desk is told, so that the worker finds itself alone.
    jobs: mpsc::Sender<Job>,
    desk: DeskHandle,
    worker: Arc<Mutex<Option<Worker>>>,
}

/// What callers, the worker and its flushes share.
#[derive(Debug)]
struct Desk {
    /// Tells the worker's thread that there is something to do.
    wake: Notify,
    /// Transactions that were asked for and not answered.
    under_way: AtomicUsize,
    /// About how long the latest commits took; the greatest number before the first.
    commit_micros: AtomicU64,
}

impl Desk {
    fn note_commit(&self, micros: u64) {
        let before = self.commit_micros.load(Ordering::Relaxed);
        let about = match before {
            u64::MAX => micros,
            _ => before.saturating_mul(3).saturating_add(micros) / 4,
        };
        self.commit_micros.store(about, Ordering::Relaxed);
    }

    /// Whether whoever asks now may commit by itself.
    fn is_quiet(&self) -> bool {
        self.under_way.load(Ordering::Relaxed) == 1
            && self.commit_micros.load(Ordering::Relaxed) <= QUICK_COMMIT_MICROS
    }
}

/// Wakes the worker whenever one is dropped: it may have been the last.
#[derive(Clone, Debug)]
struct DeskHandle(Arc<Desk>);

impl Drop for DeskHandle {
    fn drop(&mut self) {
        self.0.wake.notify_one();
    }
}

/// Wakes the worker when it is dropped, once.
struct Wake<'a>(Option<&'a Desk>);

impl Drop for Wake<'_> {
    fn drop(&mut self) {
        if let Some(desk) = self.0 {
            desk.wake.notify_one();
        }
    }
}

/// A transaction under way.
struct UnderWay<'a>(&'a Desk);

impl<'a> UnderWay<'a> {
    fn begin(desk: &'a Desk) -> Self {
        desk.under_way.fetch_add(1, Ordering::Relaxed);
        Self(desk)
    }
}

impl Drop for UnderWay<'_> {
    fn drop(&mut self) {
        self.0.under_way.fetch_sub(1, Ordering::Relaxed);
    }
}

impl Writer {
    /// Starts the writer of a branch whose store is locked by this process.
    pub(crate) fn start(
        branch: Arc<Branch>,
        loaded: Loaded,
        options: TxOptions,
    ) -> Result<Self, Error> {
        let (jobs, waiting) = mpsc::channel(JOBS_WAITING_MAX);
        let desk = Arc::new(Desk {
            wake: Notify::new(),
            under_way: AtomicUsize::new(0),
            commit_micros: AtomicU64::new(u64::MAX),
        });
        let mut worker = Worker {
            snapshot: loaded.snapshot,
            branch,
            dedup: loaded.dedup,
            options,
            refused: HashMap::new(),
            waiting,
            next: None,
            desk: desk.clone(),
            news: mpsc::unbounded_channel(),
            flushing: Flushing::No,
            flush_waiters: Vec::new(),
        };
        // A purge whose flush was cut short.
        worker.flush_if_due();
        let worker = Arc::new(Mutex::new(Some(worker)));
        worker::spawn("datahike-writer", run(worker.clone(), desk.clone()))
            .map_err(|source| Error::Worker { what: "the writer", source })?;
        Ok(Self { jobs, desk: DeskHandle(desk), worker })
    }

    /// Ready when the transaction is durable, or refused.
    pub(crate) async fn transact(&self, transaction: Transaction) -> Result<Transacted, Error> {
        let desk = &*self.desk.0;
        let _under_way = UnderWay::begin(desk);
        let (reply, mut answer) = oneshot::channel();
        let job = Job::Transact(Box::new(transaction), reply);
        self.jobs.send(job).await.map_err(|_| Error::Released)?;
        // Whatever becomes of this call, the job gets done.
        let mut wake = Wake(Some(desk));
        if desk.is_quiet() {
            // Lets others on this thread ask too: what waits together is committed together.
            yield_now().await;
            if desk.is_quiet() {
                self.work_here();
                if let Ok(answer) = answer.try_recv() {
                    wake.0 = None;
                    return answer;
                }
            }
        }
        drop(wake);
        answer.await.map_err(|_| Error::Released)?
    }

    /// Does the next job on this thread, if the worker has none. Where that has to wait for the
    /// store, it goes on beside.
    fn work_here(&self) {
        let Ok(mut guard) = self.worker.clone().try_lock_owned() else { return };
        let mut work = Box::pin(async move {
            if let Some(worker) = guard.as_mut()
                && let Worked::Last(Some(reply)) = worker.work().await
            {
                // Not here: the worker's thread has to end too.
                worker.next = Some(Job::Stop(reply));
            }
        });
        if work.as_mut().now_or_never().is_none()
            && let Err(source) = worker::spawn("datahike-writer", work)
        {
            // The transaction is dropped, and with it the reply.
            tracing::error!(%source, "cannot finish a commit");
        }
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
        self.desk.0.wake.notify_one();
        answer.await.map_err(|_| Error::Released)
    }
}

async fn yield_now() {
    let mut yielded = false;
    std::future::poll_fn(|cx| match std::mem::replace(&mut yielded, true) {
        true => Poll::Ready(()),
        false => {
            cx.waker().wake_by_ref();
            Poll::Pending
        }
    })
    .await;
}

#[derive(Debug)]
struct Worker {
    branch: Arc<Branch>,
    snapshot: Snapshot,
    dedup: Dedup,
    /// What the transactions of every caller get.
    options: TxOptions,
    /// The first refused request of each client that sends in sequence.
    refused: HashMap<Uuid, u64>,
    waiting: mpsc::Receiver<Job>,
    /// The job before those that wait.
    next: Option<Job>,
    desk: Arc<Desk>,
    /// What flushes that run beside come to.
    news: (mpsc::UnboundedSender<News>, mpsc::UnboundedReceiver<News>),
    flushing: Flushing,
    flush_waiters: Vec<oneshot::Sender<Result<(), Error>>>,
}

/// What the worker did.
enum Worked {
    /// A job.
    Done,
    /// There was nothing that could be done.
    Nothing,
    /// Its last job, and who waits for that.
    Last(Option<oneshot::Sender<()>>),
}

/// The worker's own thread.
async fn run(worker: Arc<Mutex<Option<Worker>>>, desk: Arc<Desk>) {
    loop {
        let mut guard = worker.lock().await;
        let Some(held) = guard.as_mut() else { return };
        let last = loop {
            match held.work().await {
                Worked::Done => {}
                Worked::Nothing => break None,
                Worked::Last(reply) => break Some(reply),
            }
        };
        if let Some(reply) = last {
            held.branch.reports().close();
            guard.take();
            if let Some(reply) = reply {
                let _ = reply.send(());
            }
            return;
        }
        drop(guard);
        desk.wake.notified().await;
    }
}

impl Worker {
    async fn work(&mut self) -> Worked {
        if let Ok(news) = self.news.1.try_recv() {
            self.hear(news).await;
            return Worked::Done;
        }
        if self.must_wait_for_flush() {
            return Worked::Nothing;
        }
        let job = match self.next.take() {
            Some(job) => job,
            None => match self.waiting.try_recv() {
                Ok(job) => job,
                Err(TryRecvError::Empty) => return Worked::Nothing,
                Err(TryRecvError::Disconnected) => return Worked::Last(None),
            },
        };
        match job {
            Job::Transact(transaction, reply) => {
                self.group(*transaction, reply).await;
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
            Job::Stop(reply) => return Worked::Last(Some(reply)),
        }
        Worked::Done
    }
}
