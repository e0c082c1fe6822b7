//! The tail in memory: the datoms since the last flush, in a shared arena, and per index one
//! persistent ordered tree of their numbers. Snapshots share everything they have in common.

mod arena;
mod tree;

pub(crate) use self::arena::{Arena, TailDatom};
pub(crate) use self::tree::{TailCursor, TailTree};

use std::ops::{self, Bound};

use crate::datom::{AttrId, Datom};
use crate::index::key::{DatomRef, Index, Prefix, Range};

/// What the indexes need to know of attributes when datoms are added.
pub trait AttrTraits {
    /// Whether the attribute is kept in AVET: indexed, unique or a reference.
    fn avet(&self, a: AttrId) -> bool;

    /// Whether what is retracted or superseded of it is remembered.
    fn history(&self, a: AttrId) -> bool;
}

/// The tail of one snapshot.
#[derive(Clone, Debug, Default)]
pub(crate) struct Tail {
    pub(crate) arena: Arena,
    pub(crate) trees: [TailTree; 3],
}

impl Tail {
    /// Adds datoms in place; copies only what other snapshots still hold.
    pub(crate) fn extend(&mut self, datoms: &[Datom], keep: bool, traits: &dyn AttrTraits) {
        let first = self.arena.len();
        let mut in_avet = Vec::with_capacity(datoms.len());
        for datom in datoms {
            in_avet.push(traits.avet(datom.a));
            let keep = keep && traits.history(datom.a);
            self.arena.push(TailDatom { datom: datom.clone(), keep, repeated: false });
        }
        for index in Index::ALL {
            let ids = (first..self.arena.len()).zip(&in_avet);
            let ids = ids.filter(|(_, avet)| index != Index::Avet || **avet).map(|(id, _)| id);
            self.trees[index.number()].extend(&self.arena, index, ids);
        }
    }

    /// Which entries of an index lie in a range, by rank.
    pub(crate) fn ranks(&self, range: &Range) -> ops::Range<usize> {
        let tree = &self.trees[range.index.number()];
        let rank = |bound: &Bound<Prefix>, reached: &dyn Fn(&DatomRef<'_>) -> bool| {
            let near = match bound {
                Bound::Included(prefix) | Bound::Excluded(prefix) => Some(prefix),
                Bound::Unbounded => None,
            };
            tree.rank(&self.arena, range.index, near, |d| reached(&DatomRef::from(&d.datom)))
        };
        let low = rank(&range.lower, &|row| range.starts_by(row));
        let high = rank(&range.upper, &|row| !range.reaches(row));
        low..high.max(low)
    }

    /// Adds datoms to AVET alone: those of an attribute that has just become indexed. What is to be
    /// forgotten of it already is.
    pub(crate) fn extend_avet(&mut self, datoms: Vec<Datom>) {
        let first = self.arena.len();
        for datom in datoms {
            self.arena.push(TailDatom { datom, keep: true, repeated: true });
        }
        let ids = first..self.arena.len();
        self.trees[Index::Avet.number()].extend(&self.arena, Index::Avet, ids);
    }
}
