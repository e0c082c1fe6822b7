//! The worker that follows the transactions of a connection for all that is watched there.

use std::collections::{HashMap, HashSet};
use std::sync::Arc;

use datahike_core::datom::TxId;
use datahike_core::db::Db;
use datahike_core::query::{Context, Input, Query, Standing, Trigger};
use datahike_value::Value;
use futures::future::{Either, select};
use parking_lot::Mutex;
use tokio::sync::Notify;

use super::Watch;
use super::evaluation::{Evaluation, Stretch};
use super::queue::Queue;
use super::router::Router;
use crate::branch::Branch;
use crate::error::Error;
use crate::reports::{TxEvent, TxReports};

/// Datoms after which a stretch takes no further transaction: whoever waits for the first should not
/// wait for all.
const STRETCH_DATOMS_MAX: usize = 10_000;

/// What is watched on one connection.
#[derive(Debug, Default)]
pub(crate) struct Watches {
    state: Mutex<State>,
    /// Something joined or left.
    changed: Notify,
}

#[derive(Debug, Default)]
struct State {
    running: bool,
    /// Those whose first rows are being found.
    entering: usize,
    next: u64,
    by_key: HashMap<Value, Arc<Evaluation>>,
    /// Those that the worker does not know yet, and whether they have missed something.
    joining: Vec<(Arc<Evaluation>, bool)>,
    /// Those that somebody has left.
    left: Vec<u64>,
    /// How far the worker has come.
    reached: TxId,
}

impl Watches {
    /// Watches a query over `branch`; `inputs` are those after the database.
    pub(crate) async fn watch(
        self: &Arc<Self>,
        branch: &Arc<Branch>,
        query: &Query,
        inputs: &[Value],
    ) -> Result<Watch, Error> {
        let key = Value::vector([query.form().clone(), Value::vector(inputs.to_vec())]);
        let known = self.enter(&key, || None);
        if let Some((evaluation, queue)) = known {
            return Ok(self.begin(evaluation, queue).await);
        }
        // The reports must be read from before the snapshot on from which they are followed.
        let _entering = self.ensure_running(branch)?;
        let db = branch.snapshot().db.clone();
        let inputs: Vec<Input> = inputs.iter().cloned().map(Input::from).collect();
        let start = || Standing::start(query, &inputs, &db, Context::default());
        let standing = branch.blocks().settle(start).await?;
        let entered = self.enter(&key, || Some((standing, db)));
        let (evaluation, queue) = entered.ok_or(Error::Released)?;
        Ok(self.begin(evaluation, queue).await)
    }

    /// The evaluation of this key, or a new one.
    fn enter(
        &self,
        key: &Value,
        new: impl FnOnce() -> Option<(Standing, Db)>,
    ) -> Option<(Arc<Evaluation>, Arc<Queue>)> {
        let mut state = self.state.lock();
        let evaluation = match state.by_key.get(key) {
            Some(known) => Arc::clone(known),
            None => {
                let (standing, db) = new().filter(|_| state.running)?;
                let missed = state.reached > db.max_tx();
                state.next += 1;
                let new = Arc::new(Evaluation::new(state.next, key.clone(), standing, db));
                state.by_key.insert(key.clone(), Arc::clone(&new));
                state.joining.push((Arc::clone(&new), missed));
                new
            }
        };
        let queue = evaluation.enter();
        Some((evaluation, queue))
    }

    async fn begin(self: &Arc<Self>, evaluation: Arc<Evaluation>, queue: Arc<Queue>) -> Watch {
        let beginning = evaluation.beginning(&queue).await;
        Watch::new(Arc::clone(self), evaluation, queue, beginning)
    }

    pub(super) fn leave(&self, evaluation: &Evaluation, queue: &Arc<Queue>) {
        evaluation.leave(queue);
        self.state.lock().left.push(evaluation.id());
        self.changed.notify_one();
    }

    fn ensure_running(self: &Arc<Self>, branch: &Arc<Branch>) -> Result<Entering<'_>, Error> {
        let mut state = self.state.lock();
        if state.running {
            state.entering += 1;
            return Ok(Entering(self));
        }
        let reports = branch.reports().stream();
        let db = branch.snapshot().db.clone();
        state.reached = db.max_tx();
        let worker = Worker {
            watches: Arc::clone(self),
            branch: Arc::clone(branch),
            reports,
            db,
            known: HashMap::new(),
            always: HashSet::new(),
            router: Router::default(),
        };
        crate::worker::spawn("datahike-watches", worker.run())
            .map_err(|source| Error::Worker { what: "watched queries", source })?;
        state.running = true;
        state.entering += 1;
        Ok(Entering(self))
    }

    /// Ends everything that is watched.
    fn end(&self) {
        let mut state = self.state.lock();
        state.running = false;
        state.joining.clear();
        let all: Vec<_> = state.by_key.drain().map(|(_, evaluation)| evaluation).collect();
        drop(state);
        all.iter().for_each(|evaluation| evaluation.close());
    }
}

/// While one of these lives, the worker does not end for want of work.
struct Entering<'a>(&'a Watches);

impl Drop for Entering<'_> {
    fn drop(&mut self) {
        self.0.state.lock().entering -= 1;
        self.0.changed.notify_one();
    }
}

struct Worker {
    watches: Arc<Watches>,
    branch: Arc<Branch>,
    reports: TxReports,
    /// The snapshot up to which everything is known to have been gone over.
    db: Db,
    known: HashMap<u64, Known>,
    /// Those that are looked at with every stretch: they are of a snapshot of their own, or could not
    /// be evaluated.
    always: HashSet<u64>,
    router: Router,
}

struct Known {
    evaluation: Arc<Evaluation>,
    /// As the router knows it.
    triggers: Vec<Trigger>,
}

impl Worker {
    async fn run(mut self) {
        loop {
            let watches = Arc::clone(&self.watches);
            let first = {
                let changed = std::pin::pin!(watches.changed.notified());
                let next = std::pin::pin!(self.reports.next());
                match select(next, changed).await {
                    Either::Left((Some(event), _)) => Some(event),
                    Either::Left((None, _)) => {
                        watches.end();
                        return;
                    }
                    Either::Right(_) => None,
                }
            };
            let stretch = first.and_then(|first| self.gather(first));
            let joining = {
                let mut state = watches.state.lock();
                if let Some(stretch) = &stretch {
                    state.reached = stretch.after.max_tx();
                }
                std::mem::take(&mut state.joining)
            };
            for (evaluation, missed) in joining {
                if missed {
                    evaluation.advance(self.branch.blocks(), &Stretch::to(&self.db)).await;
                }
                self.admit(evaluation).await;
            }
            if let Some(stretch) = stretch {
                self.go(&stretch).await;
                self.db = stretch.after;
            }
            if self.is_left(&watches) {
                return;
            }
        }
    }

    /// The transactions from this event on that have happened and are not too many. `None` if all of
    /// them have been gone over.
    fn gather(&mut self, first: TxEvent) -> Option<Stretch> {
        let mut stretch: Option<Stretch> = None;
        let mut next = Some(first);
        while let Some(event) = next {
            match event {
                TxEvent::Report(report) => {
                    let reached = stretch.as_ref().map_or(&self.db, |stretch| &stretch.after);
                    if report.tx > reached.max_tx() {
                        let stretch = stretch.get_or_insert_with(|| Stretch::new(&self.db));
                        stretch.after = report.db_after.clone();
                        stretch.datoms.extend(report.tx_data.iter().cloned());
                        stretch.purged |= !report.purged.is_empty();
                    }
                }
                TxEvent::Gap { .. } => return Some(Stretch::to(&self.branch.snapshot().db)),
            }
            let full = stretch.as_ref().is_some_and(|s| s.datoms.len() >= STRETCH_DATOMS_MAX);
            next = if full { None } else { self.reports.try_next() };
        }
        stretch
    }

    async fn admit(&mut self, evaluation: Arc<Evaluation>) {
        let triggers = evaluation.triggers().await;
        let id = evaluation.id();
        self.router.add(id, &triggers);
        self.always.insert(id);
        self.known.insert(id, Known { evaluation, triggers });
    }

    async fn go(&mut self, stretch: &Stretch) {
        let schema = self.db.shared_schema();
        let same_schema = Arc::ptr_eq(&schema, &stretch.after.shared_schema());
        let all = stretch.gap || stretch.purged || !same_schema;
        let mut touched: HashSet<u64> = if all {
            self.known.keys().copied().collect()
        } else {
            self.router.touched(&stretch.datoms)
        };
        touched.extend(&self.always);
        for id in touched {
            let Some(known) = self.known.get_mut(&id) else { continue };
            let evaluation = &known.evaluation;
            if evaluation.advance(self.branch.blocks(), stretch).await {
                self.always.remove(&id);
            } else {
                self.always.insert(id);
            }
            if !same_schema || stretch.gap {
                self.router.remove(id, &known.triggers);
                known.triggers = evaluation.triggers().await;
                self.router.add(id, &known.triggers);
            }
        }
    }

    /// Forgets what nobody watches any more. Whether that was the last, and the work is done.
    fn is_left(&mut self, watches: &Watches) -> bool {
        let mut state = watches.state.lock();
        for id in std::mem::take(&mut state.left) {
            let Some(known) = self.known.get(&id).filter(|known| known.evaluation.is_left()) else {
                continue;
            };
            self.router.remove(id, &known.triggers);
            state.by_key.remove(known.evaluation.key());
            self.always.remove(&id);
            self.known.remove(&id);
        }
        state.running = !state.by_key.is_empty() || state.entering > 0;
        !state.running
    }
}
