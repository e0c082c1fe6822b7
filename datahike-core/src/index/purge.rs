//! Purging: datoms that are to be gone from now and from the past, as if they had never been.
//!
//! What is in the tail is taken out of it at once. What is in the trees is hidden from every reader
//! until the next flush removes it there; that takes no reading, so that a logged purge can be applied
//! again anywhere.

use std::cmp::Ordering;
use std::ops::Range as Span;
use std::sync::Arc;

use crate::block::Missing;
use crate::datom::Datom;
use crate::index::cursor::Cursor;
use crate::index::key::{DatomRef, Index, Prefix, Range};
use crate::index::leaf::Leaf;
use crate::index::tail::Tail;
use crate::index::{Indexes, Root};

/// Datoms to be removed from the trees by the next flush, sorted for each index.
#[derive(Clone, Debug)]
pub(crate) struct Purged {
    sorted: [Vec<Datom>; 3],
}

impl Purged {
    fn new(datoms: Vec<Datom>) -> Self {
        let sorted = Index::ALL.map(|index| {
            let mut sorted = datoms.clone();
            sorted.sort_unstable_by(|a, b| compare(a, b, index));
            sorted.dedup();
            sorted
        });
        Self { sorted }
    }

    fn of(&self, index: Index) -> &[Datom] {
        &self.sorted[index.number()]
    }

    pub(crate) fn has(&self, index: Index, row: &DatomRef<'_>) -> bool {
        let found = self.of(index).binary_search_by(|d| DatomRef::from(d).cmp_in(row, index));
        found.is_ok()
    }

    /// These rows of a leaf without what is purged; `None` if nothing can be purged of them.
    pub(crate) fn leaf_without(
        &self,
        index: Index,
        leaf: &Leaf,
        rows: &Span<usize>,
    ) -> Option<(Arc<Leaf>, Span<usize>)> {
        let last = rows.end.checked_sub(1).filter(|_| !rows.is_empty())?;
        let (first, last) = (leaf.row(rows.start), leaf.row(last));
        let start =
            self.of(index).partition_point(|d| DatomRef::from(d).cmp_in(&first, index).is_lt());
        let within = self.of(index).get(start)?;
        if DatomRef::from(within).cmp_in(&last, index).is_gt() {
            return None;
        }
        let kept: Vec<DatomRef<'_>> =
            rows.clone().map(|row| leaf.row(row)).filter(|row| !self.has(index, row)).collect();
        let kept = Arc::new(Leaf::from_rows(&kept));
        let rows = 0..kept.len();
        Some((kept, rows))
    }
}

fn compare(a: &Datom, b: &Datom, index: Index) -> Ordering {
    DatomRef::from(a).cmp_in(&b.into(), index)
}

fn same_fact(a: &Datom, b: &Datom) -> bool {
    a.e == b.e && a.a == b.a && a.v == b.v
}

/// What the next flush does to one tree for the sake of a purge, besides what the tail says.
#[derive(Debug, Default)]
pub(crate) struct Removals {
    datoms: Vec<Datom>,
}

impl Removals {
    /// Puts edits and removals into one order: each datom, whether it is put, and for an edit its
    /// number among the edits. An edit goes before a removal of the same key.
    pub(crate) fn merge<'a>(
        &'a self,
        edits: &[&'a Datom],
        puts: impl Fn(&Datom) -> bool,
        cmp: impl Fn(&DatomRef<'_>, &DatomRef<'_>) -> Ordering,
    ) -> Vec<(&'a Datom, bool, Option<usize>)> {
        let edits = edits.iter().enumerate().map(|(at, d)| (*d, puts(d), Some(at)));
        let mut all: Vec<_> = edits.chain(self.datoms.iter().map(|d| (d, false, None))).collect();
        all.sort_by(|a, b| cmp(&a.0.into(), &b.0.into()));
        all.dedup_by(|b, a| cmp(&a.0.into(), &b.0.into()).is_eq());
        all
    }
}

impl Indexes {
    /// A new snapshot without these datoms, each given whole: neither now nor in the past. Other
    /// datoms of the same facts stay. Reads nothing.
    #[must_use]
    pub fn purge(&self, datoms: &[Datom]) -> Self {
        let mut next = self.clone();
        next.purge_in_place(datoms);
        next
    }

    /// The same in place.
    pub(crate) fn purge_in_place(&mut self, datoms: &[Datom]) {
        if datoms.is_empty() {
            return;
        }
        self.take_covered();
        let mut all = self.purged().to_vec();
        all.extend_from_slice(datoms);
        let purged = Purged::new(all);
        self.tail = self.tail.without(|row| purged.has(Index::Eavt, row));
        self.purged = Some(Arc::new(purged));
        self.merged = Arc::default();
    }

    /// Whether a purge waits for the next flush: what it removes may still be in the trees, and in
    /// whatever log led here.
    pub fn has_purged(&self) -> bool {
        self.purged.is_some()
    }

    /// What is purged and may still be in the trees, in the order of EAVT.
    pub(crate) fn purged(&self) -> &[Datom] {
        self.purged.as_deref().map_or(&[], |purged| purged.of(Index::Eavt))
    }

    /// What is to be removed from a current tree, where a fact is one datom only.
    pub(crate) fn removals_from_current(
        &self,
        index: Index,
        root: Option<Root>,
    ) -> Result<Removals, Missing> {
        let Some(purged) = &self.purged else { return Ok(Removals::default()) };
        let mut datoms = Vec::new();
        let mut missing = Vec::new();
        for datom in purged.of(index).iter().filter(|datom| datom.added) {
            let range = Arc::new(Range::prefix(index, Prefix::of(&datom.into())));
            let mut cursor = Cursor::new(Arc::clone(&self.source), root, range, false);
            match cursor.fill() {
                Ok(()) if cursor.peek().is_some() => datoms.push(datom.clone()),
                Ok(()) => {}
                Err(lacking) => missing.extend(lacking.addresses),
            }
        }
        if missing.is_empty() { Ok(Removals { datoms }) } else { Err(Missing::of(missing)) }
    }

    /// What is to be removed from a tree of the past, if it is there.
    pub(crate) fn removals_from_history(&self, index: Index) -> Removals {
        let datoms = self.purged.as_ref().map(|purged| purged.of(index).to_vec());
        Removals { datoms: datoms.unwrap_or_default() }
    }

    /// The events of everything that was in force and is not any more, in the order of EAVT. Reads
    /// the past and what the tail is about, not what is only asserted.
    ///
    /// # Errors
    /// Blocks that must be read.
    pub(crate) fn ended(&self) -> Result<Vec<Datom>, Missing> {
        let mut facts: Vec<&Datom> = self.tail().collect();
        facts.sort_unstable_by(|a, b| compare(a, b, Index::Eavt));
        facts.dedup_by(|b, a| same_fact(a, b));
        let by_fact = |row: &DatomRef<'_>| {
            facts.binary_search_by(|d| DatomRef::from(*d).cmp_fact(row, Index::Eavt)).is_ok()
        };
        let everything = Arc::new(Range::all(Index::Eavt));
        let root = self.roots.history[Index::Eavt.number()];
        let mut past = Cursor::new(Arc::clone(&self.source), root, everything, false)
            .without(self.purged.clone());
        past.require_all()?;
        let mut events = Vec::new();
        loop {
            past.fill()?;
            let Some(row) = past.peek() else { break };
            if !by_fact(&row) {
                events.push(row.to_datom());
            }
            past.pop();
        }
        for fact in &facts {
            let range = Range::eavt(fact.e, fact.a, fact.v.clone());
            let mut all = self.history(&range).collect::<Result<Vec<Datom>, Missing>>()?;
            if self.current(&range).next().transpose()?.is_some() {
                all.pop();
            }
            events.extend(all);
        }
        events.sort_unstable_by(|a, b| compare(a, b, Index::Eavt));
        Ok(events)
    }
}

impl Tail {
    /// Without the datoms that `purged` holds of, in memory too.
    fn without(&self, purged: impl Fn(&DatomRef<'_>) -> bool) -> Self {
        if !self.arena.iter().any(|d| purged(&(&d.datom).into())) {
            return self.clone();
        }
        let mut kept = Self::default();
        let mut ids = Vec::new();
        for datom in self.arena.iter() {
            let keeps = !purged(&(&datom.datom).into());
            ids.push(keeps.then(|| kept.arena.len()));
            if keeps {
                kept.arena.push(datom.clone());
            }
        }
        for index in Index::ALL {
            let tree = &self.trees[index.number()];
            let mut cursor = tree.cursor(0, tree.len());
            let mut of_tree = Vec::with_capacity(tree.len());
            while let Some(entry) = cursor.first() {
                cursor.pop_first();
                of_tree.extend(ids.get(entry.id as usize).copied().flatten());
            }
            kept.trees[index.number()].extend(&kept.arena, index, of_tree.into_iter());
        }
        kept
    }
}
