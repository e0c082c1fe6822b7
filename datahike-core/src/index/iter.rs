//! Reading a range: the base trees with the tail laid over them.

use std::cmp::Ordering;
use std::sync::Arc;

use crate::block::Missing;
use crate::datom::Datom;
use crate::index::Indexes;
use crate::index::cursor::{Cursor, Near};
use crate::index::key::{DatomRef, Index, Range};
use crate::index::tail::{Arena, TailCursor};

/// Datoms of a range, one by one, loaded as they are asked for. After a fault the same call may be
/// repeated once the blocks are there.
#[derive(Clone, Debug)]
pub struct Iter {
    index: Index,
    reverse: bool,
    base: Cursor,
    tail: TailCursor,
    arena: Arena,
    /// Only where the past is read too.
    past: Option<Past>,
    /// Only where AVET lacks datoms, until that is made good.
    lacking: Option<Box<(Indexes, Range)>>,
}

#[derive(Clone, Debug)]
struct Past {
    base: Cursor,
    /// The event read last: going forward it still waits for what came after it, in reverse it
    /// decides about what came before it.
    beside: Option<Event>,
}

#[derive(Clone, Debug)]
struct Event {
    datom: Datom,
    /// Ends the past without a trace, as the attribute was `:db/noHistory`.
    forgets: bool,
}

impl Event {
    fn same_fact(&self, other: &Self) -> bool {
        let (a, b) = (&self.datom, &other.datom);
        a.e == b.e && a.a == b.a && a.v == b.v
    }

    /// Whether it is itself part of what is forgotten.
    fn is_forgotten(&self) -> bool {
        self.forgets && !self.datom.added
    }
}

impl Iter {
    pub(crate) fn new(indexes: &Indexes, range: &Range, reverse: bool, with_past: bool) -> Self {
        let number = range.index.number();
        let tree = &indexes.tail.trees[number];
        let arena = indexes.tail.arena.clone();
        let ranks = indexes.tail.ranks(range);
        let shared = Arc::new(range.clone());
        let cursor = |root| {
            Cursor::new(Arc::clone(&indexes.source), root, Arc::clone(&shared), reverse)
                .without(indexes.purged.clone())
        };
        Self {
            index: range.index,
            reverse,
            base: cursor(indexes.roots.current[number]),
            tail: tree.cursor(ranks.start, ranks.end),
            arena,
            past: with_past
                .then(|| Past { base: cursor(indexes.roots.history[number]), beside: None }),
            lacking: indexes.lacks(range.index).then(|| Box::new((indexes.clone(), range.clone()))),
        }
    }

    /// Begins in that leaf if the whole range lies in it.
    pub(crate) fn near(self, near: &Near) -> Self {
        Self { base: self.base.near(near), ..self }
    }

    /// Goes to where the range begins; the leaf there.
    ///
    /// # Errors
    /// The blocks that it lacks.
    pub(crate) fn begin(&mut self) -> Result<Near, Missing> {
        self.base.begin()
    }

    fn peek_tail(&mut self) -> Option<u32> {
        let entry = if self.reverse { self.tail.last() } else { self.tail.first() };
        entry.map(|entry| entry.id)
    }

    fn pop_tail(&mut self) {
        if self.reverse { self.tail.pop_last() } else { self.tail.pop_first() }
    }

    fn direct(reverse: bool, order: Ordering) -> Ordering {
        if reverse { order.reverse() } else { order }
    }

    fn next_current(&mut self) -> Result<Option<Datom>, Missing> {
        loop {
            self.base.fill()?;
            let tail = self.peek_tail();
            let base = self.base.peek();
            let order = match (&base, tail) {
                (None, None) => return Ok(None),
                (Some(_), None) => Ordering::Less,
                (None, Some(_)) => Ordering::Greater,
                (Some(base), Some(id)) => {
                    Self::direct(self.reverse, base.cmp_fact(&self.arena.row(id), self.index))
                }
            };
            if order.is_lt() {
                let datom = base.map(|row| row.to_datom());
                self.base.pop();
                return Ok(datom);
            }
            let Some(first) = tail else { continue };
            if order.is_eq() {
                self.base.pop();
            }
            if let Some(datom) = self.last_of_fact(first) {
                return Ok(Some(datom));
            }
        }
    }

    /// Takes all events of one fact off the tail; what the last of them asserts.
    fn last_of_fact(&mut self, first: u32) -> Option<Datom> {
        let mut last = first;
        self.pop_tail();
        while let Some(next) = self.peek_tail() {
            if self.arena.row(next).cmp_fact(&self.arena.row(first), self.index).is_ne() {
                break;
            }
            if !self.reverse {
                last = next;
            }
            self.pop_tail();
        }
        let datom = &self.arena.get(last).datom;
        datom.added.then(|| datom.clone())
    }

    /// The next event of base, past and tail, whether or not it is to be seen.
    fn next_event(&mut self) -> Result<Option<Event>, Missing> {
        let Some(past) = &mut self.past else { return Ok(None) };
        self.base.fill()?;
        past.base.fill()?;
        let tail = if self.reverse { self.tail.last() } else { self.tail.first() };
        let rows: [Option<DatomRef<'_>>; 3] =
            [self.base.peek(), past.base.peek(), tail.map(|entry| self.arena.row(entry.id))];
        let cmp = |a: &DatomRef<'_>, b: &DatomRef<'_>| {
            Self::direct(self.reverse, a.cmp_in(b, self.index))
        };
        let Some(next) = rows
            .iter()
            .flatten()
            .copied()
            .reduce(|least, row| if cmp(&row, &least).is_lt() { row } else { least })
        else {
            return Ok(None);
        };
        let [base, ended, waiting] =
            rows.map(|row| row.is_some_and(|row| cmp(&row, &next).is_eq()));
        let forgets = waiting && tail.is_some_and(|entry| !self.arena.get(entry.id).keep);
        let event = Event { datom: next.to_datom(), forgets };
        if base {
            self.base.pop();
        }
        if ended {
            past.base.pop();
        }
        if waiting {
            self.pop_tail();
        }
        Ok(Some(event))
    }

    fn next_past(&mut self) -> Result<Option<Datom>, Missing> {
        loop {
            let event = self.next_event()?;
            let Some(past) = &mut self.past else { return Ok(None) };
            let before = std::mem::replace(&mut past.beside, event.clone());
            let (earlier, later) = if self.reverse { (event, before) } else { (before, event) };
            let Some(earlier) = earlier else {
                // Going forward this is the first event, in reverse the end.
                if self.reverse || later.is_none() {
                    return Ok(None);
                }
                continue;
            };
            let ended_silently = earlier.datom.added
                && later.is_some_and(|later| later.forgets && later.same_fact(&earlier));
            if !(earlier.is_forgotten() || ended_silently) {
                return Ok(Some(earlier.datom));
            }
        }
    }
}

impl Iterator for Iter {
    type Item = Result<Datom, Missing>;

    fn next(&mut self) -> Option<Self::Item> {
        if let Some(lacking) = &self.lacking {
            let (indexes, range) = &**lacking;
            match indexes.covered() {
                Ok(covered) => *self = Self::new(covered, range, self.reverse, self.past.is_some()),
                Err(missing) => return Some(Err(missing)),
            }
        }
        let next = if self.past.is_some() { self.next_past() } else { self.next_current() };
        next.transpose()
    }
}
