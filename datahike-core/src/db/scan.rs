//! Reading a range through a view.

use std::collections::VecDeque;
use std::sync::Arc;

use super::Db;
use super::view::{Bounds, View};
use crate::block::Missing;
use crate::datom::{Datom, TxId};
use crate::index::{Iter, Range};

/// The datoms of a range that a view shows. After a fault, scan again once the blocks are there.
pub struct Scan {
    iter: Iter,
    kind: Kind,
}

enum Kind {
    Current,
    View { view: Arc<View>, bounds: Bounds, facts: Option<Facts> },
    Fault(Option<Missing>),
}

/// Gathers the events of one fact at a time, and tells from them what is to be seen of it.
struct Facts {
    history: bool,
    upto: Option<TxId>,
    reverse: bool,
    events: Vec<Datom>,
    ready: VecDeque<Datom>,
    done: bool,
}

impl Scan {
    pub(crate) fn new(db: &Db, range: &Range, reverse: bool) -> Self {
        let indexes = db.indexes();
        let (past, kind) = match &db.view {
            None => (false, Kind::Current),
            Some(view) => match view.bounds(db) {
                Err(missing) => (false, Kind::Fault(Some(missing))),
                Ok(bounds) => {
                    // A state of the past is told from events; the state of now is in the index.
                    let past = bounds.upto.is_some() || view.is_history();
                    let facts = past.then(|| Facts {
                        history: view.is_history(),
                        upto: bounds.upto,
                        reverse,
                        events: Vec::new(),
                        ready: VecDeque::new(),
                        done: false,
                    });
                    (past, Kind::View { view: Arc::clone(view), bounds, facts })
                }
            },
        };
        let iter = match (past, reverse) {
            (false, false) => indexes.current(range),
            (false, true) => indexes.current_rev(range),
            (true, false) => indexes.history(range),
            (true, true) => indexes.history_rev(range),
        };
        Self { iter, kind }
    }
}

impl Iterator for Scan {
    type Item = Result<Datom, Missing>;

    fn next(&mut self) -> Option<Self::Item> {
        match &mut self.kind {
            Kind::Current => self.iter.next(),
            Kind::Fault(missing) => missing.take().map(Err),
            Kind::View { view, bounds, facts } => loop {
                let next = match facts {
                    None => self.iter.next()?,
                    Some(facts) => facts.next(&mut self.iter)?,
                };
                let datom = match next {
                    Ok(datom) => datom,
                    Err(missing) => return Some(Err(missing)),
                };
                if bounds.after.is_none_or(|after| datom.tx > after)
                    && bounds.upto.is_none_or(|upto| datom.tx <= upto)
                    && view.passes(&datom)
                {
                    return Some(Ok(datom));
                }
            },
        }
    }
}

impl Facts {
    fn next(&mut self, iter: &mut Iter) -> Option<Result<Datom, Missing>> {
        loop {
            if let Some(datom) = self.ready.pop_front() {
                return Some(Ok(datom));
            }
            if self.done {
                return None;
            }
            let event = iter.next();
            match event {
                Some(Err(missing)) => return Some(Err(missing)),
                Some(Ok(event)) if self.upto.is_some_and(|upto| event.tx > upto) => {}
                Some(Ok(event)) => {
                    let ends = self.events.last().is_some_and(|last| {
                        last.e != event.e || last.a != event.a || last.v != event.v
                    });
                    if ends {
                        self.tell();
                    }
                    self.events.push(event);
                }
                None => {
                    self.done = true;
                    self.tell();
                }
            }
        }
    }

    /// Puts what is to be seen of the gathered fact into `ready`.
    ///
    /// A retraction of what does not hold stands for a fact that a transaction both stated and took
    /// back: the indexes keep only its second half, as a fact whose last event is an assertion
    /// would be in force.
    fn tell(&mut self) {
        if self.reverse {
            self.events.reverse();
        }
        let mut state: Option<Datom> = None;
        let mut seen = Vec::with_capacity(self.events.len());
        for event in self.events.drain(..) {
            let passing = !event.added && state.is_none();
            state = event.added.then(|| event.clone());
            if self.history {
                let stated = passing.then(|| Datom { added: true, ..event.clone() });
                seen.push(event);
                seen.extend(stated);
            }
        }
        if !self.history {
            seen.extend(state);
        }
        if self.reverse {
            seen.reverse();
        }
        self.ready.extend(seen);
    }
}
