//! Watched queries: the result, then the rows that came and went.
//!
//! All watches of a connection are served by one worker. It follows the transactions, asks an index
//! of attributes, values and entities which queries a transaction may touch, and brings only these
//! up to date; equal watches share one evaluation.

mod evaluation;
mod queue;
mod router;
mod worker;

use std::collections::BTreeSet;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context as TaskContext, Poll};

use datahike_core::datom::TxId;
use datahike_core::query::Strategy;
use datahike_value::Value;
use futures::{Stream, StreamExt};

use self::evaluation::{Beginning, Evaluation};
use self::queue::Queue;
pub(crate) use self::worker::Watches;
use crate::error::Error;

/// A query whose result is followed: first the rows as they are, then each change, in order and none
/// left out. A consumer that is slow gets several changes as one.
///
/// It is a stream that ends when the connection is released.
#[derive(Debug)]
pub struct Watch {
    watches: Arc<Watches>,
    evaluation: Arc<Evaluation>,
    queue: Arc<Queue>,
    strategy: Strategy,
    rows: BTreeSet<Value>,
    seen: TxId,
}

/// The difference between two results of a watched query: no row is both added and removed.
#[derive(Clone, Debug, PartialEq)]
#[non_exhaustive]
pub struct Change {
    /// Rows that are in the result now and were not before.
    pub added: Vec<Value>,
    /// Rows that were in the result before.
    pub removed: Vec<Value>,
    /// The first transaction that the change may be due to.
    pub from: TxId,
    /// The last one.
    pub to: TxId,
}

impl Watch {
    fn new(
        watches: Arc<Watches>,
        evaluation: Arc<Evaluation>,
        queue: Arc<Queue>,
        Beginning { rows, seen, strategy }: Beginning,
    ) -> Self {
        Self { watches, evaluation, queue, strategy, rows: rows.into_iter().collect(), seen }
    }

    /// The rows as of the change that was given last. Results that are no relation have one row per
    /// element, a scalar one row.
    pub fn rows(&self) -> &BTreeSet<Value> {
        &self.rows
    }

    /// The transaction that the rows are as of; later ones that did not change them may have
    /// happened.
    pub fn as_of(&self) -> TxId {
        self.seen
    }

    /// How the result is kept up: from deltas, or why it is run again.
    pub fn strategy(&self) -> Strategy {
        self.strategy
    }

    /// The next change; `None` once the connection is released. Transactions that change nothing
    /// in the result pass unseen.
    ///
    /// # Errors
    /// Why the query could not be answered. It is tried again with the next transaction; what changes
    /// until then comes with the change after it.
    pub async fn next(&mut self) -> Result<Option<Change>, Error> {
        StreamExt::next(self).await.transpose()
    }
}

impl Stream for Watch {
    type Item = Result<Change, Error>;

    fn poll_next(mut self: Pin<&mut Self>, cx: &mut TaskContext<'_>) -> Poll<Option<Self::Item>> {
        self.queue.poll(cx).map(|event| {
            event.map(|event| {
                let change = event?;
                change.removed.iter().for_each(|row| {
                    self.rows.remove(row);
                });
                self.rows.extend(change.added.iter().cloned());
                self.seen = change.to;
                Ok(change)
            })
        })
    }
}

impl Drop for Watch {
    fn drop(&mut self) {
        self.watches.leave(&self.evaluation, &self.queue);
    }
}
