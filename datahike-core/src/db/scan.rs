//! Reading a range through a view.

use super::Db;
use super::view::{Bounds, View};
use crate::block::Missing;
use crate::datom::Datom;
use crate::index::{Iter, Range};
use std::sync::Arc;

/// The datoms of a range that a view shows. After a fault, scan again once the blocks are there.
pub struct Scan {
    iter: Iter,
    reverse: bool,
    kind: Kind,
}

enum Kind {
    Current,
    View { view: Arc<View>, bounds: Bounds, fold: Option<Fold> },
    Fault(Option<Missing>),
}

/// Gathers the events of one fact and decides whether it holds.
#[derive(Default)]
struct Fold {
    events: Vec<Datom>,
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
                    let folds = bounds.upto.is_some() && !view.is_history();
                    let fold = folds.then(Fold::default);
                    let past = folds || view.is_history();
                    (past, Kind::View { view: Arc::clone(view), bounds, fold })
                }
            },
        };
        let iter = match (past, reverse) {
            (false, false) => indexes.current(range),
            (false, true) => indexes.current_rev(range),
            (true, false) => indexes.history(range),
            (true, true) => indexes.history_rev(range),
        };
        Self { iter, reverse, kind }
    }
}

impl Iterator for Scan {
    type Item = Result<Datom, Missing>;

    fn next(&mut self) -> Option<Self::Item> {
        match &mut self.kind {
            Kind::Current => self.iter.next(),
            Kind::Fault(missing) => missing.take().map(Err),
            Kind::View { view, bounds, fold } => loop {
                let next = match fold {
                    None => self.iter.next()?,
                    Some(fold) => fold.next(&mut self.iter, bounds.upto, self.reverse)?,
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

impl Fold {
    fn next(
        &mut self,
        iter: &mut Iter,
        upto: Option<u64>,
        reverse: bool,
    ) -> Option<Result<Datom, Missing>> {
        while !self.done {
            let event = match iter.next() {
                Some(Ok(event)) => event,
                Some(Err(missing)) => return Some(Err(missing)),
                None => {
                    self.done = true;
                    break;
                }
            };
            if upto.is_some_and(|upto| event.tx > upto) {
                continue;
            }
            let same = self
                .events
                .last()
                .is_none_or(|last| last.e == event.e && last.a == event.a && last.v == event.v);
            if same {
                self.events.push(event);
                continue;
            }
            let events = std::mem::replace(&mut self.events, vec![event]);
            if let Some(datom) = holds(events, reverse) {
                return Some(Ok(datom));
            }
        }
        holds(std::mem::take(&mut self.events), reverse).map(Ok)
    }
}

/// The assertion that is left after these events of one fact. A retraction and an assertion of the
/// same transaction leave it as it was: either it stood and was restated, or it did not and was
/// taken back.
fn holds(mut events: Vec<Datom>, reverse: bool) -> Option<Datom> {
    if reverse {
        events.reverse();
    }
    let mut state = None;
    let mut events = events.into_iter().peekable();
    while let Some(event) = events.next() {
        match events.next_if(|next| next.tx == event.tx) {
            Some(restated) if state.is_some() => state = Some(restated),
            Some(_) => {}
            None => state = event.added.then_some(event),
        }
    }
    state
}
