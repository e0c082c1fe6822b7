//! Who hears of transactions: listeners by key, and streams.

use std::collections::{BTreeMap, VecDeque};
use std::sync::{Arc, Weak};

use datahike_core::datom::TxId;
use datahike_core::tx::TxReport;
use futures::task::AtomicWaker;
use parking_lot::Mutex;

/// Reports that wait for one listener. One that falls further behind is told of a gap instead: a
/// report holds two snapshots, and memory must not grow with the slowest.
pub const WAITING_REPORTS_MAX: usize = 16_384;

/// What a listener hears, in the order of the transactions.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub enum TxEvent {
    /// A transaction happened.
    Report(Arc<TxReport>),
    /// The listener was too slow, or the log did not reach back: these happened unseen. The
    /// database value of the connection has them. A gap that begins with the first transaction of
    /// all also tells that the server went back to an older state, and that what was told before
    /// need not have happened.
    Gap {
        /// The first transaction not told.
        from: TxId,
        /// The last.
        to: TxId,
    },
}

/// The fan-out of one connection.
#[derive(Debug, Default)]
pub(crate) struct Reports {
    subscribers: Mutex<Vec<Weak<Queue>>>,
    listeners: Mutex<BTreeMap<String, Arc<Queue>>>,
    kept: Mutex<Kept>,
}

/// Newest reports, kept while somebody waits for one whose number is not known yet.
#[derive(Debug, Default)]
struct Kept {
    waiting: usize,
    reports: BTreeMap<TxId, Arc<TxReport>>,
}

/// Reports that are kept for those who wait; older ones are read from the log again.
const KEPT_REPORTS_MAX: usize = 4_096;

/// While one of these lives, the newest reports are kept.
#[derive(Debug)]
pub(crate) struct Keeping<'a>(&'a Reports);

impl Keeping<'_> {
    /// The report of this transaction, if it was made since.
    pub(crate) fn find(&self, tx: TxId) -> Option<Arc<TxReport>> {
        self.0.kept.lock().reports.get(&tx).cloned()
    }
}

impl Drop for Keeping<'_> {
    fn drop(&mut self) {
        let mut kept = self.0.kept.lock();
        kept.waiting -= 1;
        if kept.waiting == 0 {
            kept.reports.clear();
        }
    }
}

#[derive(Debug, Default)]
struct Queue {
    state: Mutex<Waiting>,
    waker: AtomicWaker,
}

#[derive(Debug, Default)]
struct Waiting {
    events: VecDeque<TxEvent>,
    closed: bool,
}

impl Reports {
    /// Whether there is anyone to tell.
    pub(crate) fn are_heard(&self) -> bool {
        let mut subscribers = self.subscribers.lock();
        subscribers.retain(|subscriber| subscriber.strong_count() > 0);
        !subscribers.is_empty() || self.kept.lock().waiting > 0
    }

    /// Keeps the reports from here on.
    pub(crate) fn keep(&self) -> Keeping<'_> {
        self.kept.lock().waiting += 1;
        Keeping(self)
    }

    /// Tells everyone. Never waits.
    pub(crate) fn publish(&self, report: &Arc<TxReport>) {
        let mut kept = self.kept.lock();
        if kept.waiting > 0 {
            if kept.reports.len() == KEPT_REPORTS_MAX {
                kept.reports.pop_first();
            }
            kept.reports.insert(report.tx, report.clone());
        }
        drop(kept);
        self.tell(&TxEvent::Report(report.clone()));
    }

    /// Tells everyone that `from..=to` happened and cannot be shown one by one.
    pub(crate) fn publish_gap(&self, from: TxId, to: TxId) {
        // Their numbers may stand for other transactions now.
        self.kept.lock().reports.clear();
        self.tell(&TxEvent::Gap { from, to });
    }

    fn tell(&self, event: &TxEvent) {
        self.subscribers.lock().retain(|subscriber| {
            let Some(queue) = subscriber.upgrade() else { return false };
            queue.push(event.clone());
            true
        });
    }

    /// Everything that happens from here on.
    pub(crate) fn stream(&self) -> TxReports {
        let queue = Arc::new(Queue::default());
        self.subscribers.lock().push(Arc::downgrade(&queue));
        TxReports { queue }
    }

    /// Calls `callback` for every event, in order, on a worker of its own; replaces what listened
    /// under the key.
    pub(crate) fn listen(
        &self,
        key: String,
        mut callback: impl FnMut(&TxEvent) + Send + 'static,
    ) -> std::io::Result<()> {
        let mut events = self.stream();
        if let Some(before) = self.listeners.lock().insert(key, events.queue.clone()) {
            before.close();
        }
        crate::worker::spawn("datahike-listener", async move {
            while let Some(event) = events.next().await {
                callback(&event);
            }
        })
    }

    /// Stops what listens under the key; false if nothing does.
    pub(crate) fn unlisten(&self, key: &str) -> bool {
        let listener = self.listeners.lock().remove(key);
        listener.is_some_and(|queue| {
            queue.close();
            true
        })
    }

    /// Ends every stream after what waits in it.
    pub(crate) fn close(&self) {
        self.listeners.lock().clear();
        for queue in self.subscribers.lock().drain(..).filter_map(|queue| queue.upgrade()) {
            queue.close();
        }
    }
}

impl Queue {
    fn push(&self, event: TxEvent) {
        let mut waiting = self.state.lock();
        if waiting.closed {
            return;
        }
        if waiting.events.len() < WAITING_REPORTS_MAX {
            waiting.events.push_back(event);
        } else {
            // What waits gives way to one gap that spans it all: the newest state is worth more
            // than a prefix of the past.
            let (first, _) = span(&waiting.events[0]);
            let (_, last) = span(&event);
            waiting.events.clear();
            waiting.events.push_back(TxEvent::Gap { from: first, to: last });
        }
        drop(waiting);
        self.waker.wake();
    }

    fn close(&self) {
        self.state.lock().closed = true;
        self.waker.wake();
    }
}

fn span(event: &TxEvent) -> (TxId, TxId) {
    match event {
        TxEvent::Report(report) => (report.tx, report.tx),
        TxEvent::Gap { from, to } => (*from, *to),
    }
}

/// The transactions of a connection as they happen. Ends when the connection is released.
#[derive(Debug)]
pub struct TxReports {
    queue: Arc<Queue>,
}

impl TxReports {
    /// The next event; `None` once the connection is released.
    pub async fn next(&mut self) -> Option<TxEvent> {
        std::future::poll_fn(|cx| self.poll(cx)).await
    }

    /// The next event if one waits already.
    pub fn try_next(&mut self) -> Option<TxEvent> {
        self.queue.state.lock().events.pop_front()
    }

    fn poll(&mut self, cx: &mut std::task::Context<'_>) -> std::task::Poll<Option<TxEvent>> {
        use std::task::Poll;
        self.queue.waker.register(cx.waker());
        let mut waiting = self.queue.state.lock();
        match waiting.events.pop_front() {
            Some(event) => Poll::Ready(Some(event)),
            None if waiting.closed => Poll::Ready(None),
            None => Poll::Pending,
        }
    }
}

impl futures::Stream for TxReports {
    type Item = TxEvent;

    fn poll_next(
        mut self: std::pin::Pin<&mut Self>,
        cx: &mut std::task::Context<'_>,
    ) -> std::task::Poll<Option<TxEvent>> {
        self.poll(cx)
    }
}
