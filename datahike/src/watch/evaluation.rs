//! One watched query, shared by all who watch it.

use std::sync::Arc;

use datahike_core::datom::{Datom, TxId};
use datahike_core::db::Db;
use datahike_core::query::{Delta, Standing, Strategy, Trigger};
use datahike_value::Value;
use parking_lot::Mutex;
use tokio::sync::Mutex as AsyncMutex;

use super::Change;
use super::queue::Queue;
use crate::blocks::Blocks;
use crate::error::Error;

#[derive(Debug)]
pub(super) struct Evaluation {
    id: u64,
    key: Value,
    kept: AsyncMutex<Kept>,
    queues: Mutex<Vec<Arc<Queue>>>,
}

#[derive(Debug)]
struct Kept {
    standing: Standing,
    /// The snapshot that the result is of, until it goes on together with the others.
    own: Option<Db>,
    /// The transaction that the result is known to be as of.
    seen: TxId,
    failed: bool,
}

/// The transactions that are gone over at once.
#[derive(Clone, Debug)]
pub(super) struct Stretch {
    pub(super) before: Db,
    pub(super) after: Db,
    pub(super) datoms: Vec<Datom>,
    /// Some transactions were not told, or never happened after all.
    pub(super) gap: bool,
    /// Something was purged, which datoms do not tell.
    pub(super) purged: bool,
}

impl Stretch {
    /// No transaction yet.
    pub(super) fn new(db: &Db) -> Self {
        Self {
            before: db.clone(),
            after: db.clone(),
            datoms: Vec::new(),
            gap: false,
            purged: false,
        }
    }

    /// From whatever was before to this snapshot.
    pub(super) fn to(db: &Db) -> Self {
        Self { gap: true, ..Self::new(db) }
    }
}

/// What a watch begins with.
pub(super) struct Beginning {
    pub(super) rows: Vec<Value>,
    pub(super) seen: TxId,
    pub(super) strategy: Strategy,
}

impl Evaluation {
    pub(super) fn new(id: u64, key: Value, standing: Standing, db: Db) -> Self {
        let kept = Kept { standing, seen: db.max_tx(), own: Some(db), failed: false };
        Self { id, key, kept: AsyncMutex::new(kept), queues: Mutex::default() }
    }

    pub(super) fn id(&self) -> u64 {
        self.id
    }

    pub(super) fn key(&self) -> &Value {
        &self.key
    }

    /// Another one watches. What it begins with is asked for afterwards.
    pub(super) fn enter(&self) -> Arc<Queue> {
        let queue = Arc::new(Queue::default());
        self.queues.lock().push(Arc::clone(&queue));
        queue
    }

    /// The rows as they are; what comes after them comes through `queue`.
    pub(super) async fn beginning(&self, queue: &Queue) -> Beginning {
        let kept = self.kept.lock().await;
        // It is in the rows.
        queue.clear();
        Beginning {
            rows: kept.standing.rows().collect(),
            seen: kept.seen,
            strategy: kept.standing.strategy(),
        }
    }

    /// Ends what [`Self::enter`] began.
    pub(super) fn leave(&self, queue: &Arc<Queue>) {
        self.queues.lock().retain(|known| !Arc::ptr_eq(known, queue));
    }

    /// Whether nobody watches.
    pub(super) fn is_left(&self) -> bool {
        self.queues.lock().is_empty()
    }

    /// Ends it for all who watch.
    pub(super) fn close(&self) {
        self.queues.lock().drain(..).for_each(|queue| queue.close());
    }

    pub(super) async fn triggers(&self) -> Vec<Trigger> {
        self.kept.lock().await.standing.triggers().to_vec()
    }

    /// Goes over a stretch and tells who watches. Whether it may be passed over by stretches that do
    /// not touch it.
    pub(super) async fn advance(&self, blocks: &Blocks, stretch: &Stretch) -> bool {
        let mut kept = self.kept.lock().await;
        let Kept { standing, own, seen, failed } = &mut *kept;
        let after = &stretch.after;
        if !stretch.gap && *seen >= after.max_tx() {
            return own.is_none() && !*failed;
        }
        let delta = if stretch.gap || stretch.purged || *failed {
            blocks.settle(|| standing.again(after)).await
        } else if let Some(before) = own {
            let unseen = stretch.datoms.iter().filter(|datom| datom.tx > *seen);
            let unseen: Vec<Datom> = unseen.cloned().collect();
            blocks.settle(|| standing.advance(before, after, &unseen)).await
        } else {
            blocks.settle(|| standing.advance(&stretch.before, after, &stretch.datoms)).await
        };
        *failed = delta.is_err();
        *own = None;
        let event = match delta {
            Ok(Delta { added, removed }) => {
                let change = Change { added, removed, from: *seen + 1, to: after.max_tx() };
                *seen = change.to;
                Ok(change)
            }
            Err(error) => Err(Arc::new(error)),
        };
        let quiet = matches!(&event, Ok(change) if change.is_empty());
        if !quiet {
            self.queues.lock().iter().for_each(|queue| queue.push(event.clone()));
        }
        !*failed
    }
}

impl Change {
    fn is_empty(&self) -> bool {
        self.added.is_empty() && self.removed.is_empty()
    }
}

impl From<Arc<Self>> for Error {
    fn from(source: Arc<Self>) -> Self {
        Self::Watch { source }
    }
}
