//! Reading a range leaf by leaf, for engines that work on columns.

use std::collections::HashMap;
use std::ops;
use std::sync::{Arc, Mutex, PoisonError};

use smallvec::SmallVec;

use crate::block::{Address, BlockSource, Missing};
use crate::datom::{AttrId, Datom, EntityId};
use crate::index::cursor::{Cursor, LeafSlice, MOST_AT_ONCE};
use crate::index::iter::Iter;
use crate::index::key::{DatomRef, Index, Prefix, Range};
use crate::index::leaf::Leaf;
use crate::index::node::{Branch, Node};
use crate::index::tail::{TailCursor, TailDatom};
use crate::index::{Indexes, Root};

/// Rows of a leaf, all of them in the range that was asked for.
#[derive(Clone, Debug)]
pub struct Slice {
    /// A leaf of the tree, or one made of leaf and tail.
    pub leaf: Arc<Leaf>,
    /// Which rows.
    pub rows: ops::Range<usize>,
}

impl Slice {
    /// The rows.
    pub fn iter(&self) -> impl DoubleEndedIterator<Item = DatomRef<'_>> + ExactSizeIterator {
        self.rows.clone().map(|row| self.leaf.row(row))
    }
}

/// How many rows a leaf made for a scan has at most.
const ROWS: usize = 1024;

/// Up to here a stretch is merged by itself, without its leaf.
const FEW: usize = 64;

/// A leaf with more waiting edits than this is merged piece by piece and not kept.
const MANY: usize = 2048;

/// Merged leaves that are kept per line of snapshots.
const KEPT: usize = 256;

/// Leaves with their waiting edits merged, for a line of snapshots in which edits are only added:
/// there the number of waiting edits says which.
#[derive(Debug, Default)]
pub(crate) struct MergedLeaves {
    leaves: Mutex<HashMap<(Index, Address), Merged>>,
}

#[derive(Debug)]
struct Merged {
    /// With how many waiting edits.
    waiting: usize,
    leaf: Arc<Leaf>,
}

impl MergedLeaves {
    fn get(&self, key: (Index, Address), waiting: usize) -> Option<Arc<Leaf>> {
        let leaves = self.leaves.lock().unwrap_or_else(PoisonError::into_inner);
        let merged = leaves.get(&key).filter(|merged| merged.waiting == waiting);
        merged.map(|merged| Arc::clone(&merged.leaf))
    }

    fn keep(&self, key: (Index, Address), waiting: usize, leaf: Arc<Leaf>) {
        let mut leaves = self.leaves.lock().unwrap_or_else(PoisonError::into_inner);
        if leaves.len() >= KEPT && !leaves.contains_key(&key) {
            leaves.clear();
        }
        leaves.insert(key, Merged { waiting, leaf });
    }
}

/// Slices of a range in index order, never empty. The first fault names every block that the range
/// lacks; after it the same call may be repeated.
#[derive(Debug)]
pub struct Scan(Kind);

#[derive(Debug)]
enum Kind {
    Current(Box<Current>),
    Past(Box<Iter>),
}

#[derive(Debug)]
struct Current {
    indexes: Indexes,
    range: Range,
    base: Cursor,
    prepared: bool,
    /// Entries of the tail that are in the range and not yet given out, by rank.
    ranks: ops::Range<usize>,
    merging: Option<Merge>,
}

impl Scan {
    pub(crate) fn current(indexes: &Indexes, range: &Range) -> Self {
        Self(Kind::Current(Box::new(Current::of(indexes, range))))
    }

    pub(crate) fn history(indexes: &Indexes, range: &Range) -> Self {
        Self(Kind::Past(Box::new(indexes.history(range))))
    }
}

impl Current {
    fn of(indexes: &Indexes, range: &Range) -> Self {
        let root = indexes.roots.current[range.index.number()];
        let base = Cursor::new(Arc::clone(&indexes.source), root, Arc::new(range.clone()), false);
        let ranks = indexes.tail.ranks(range);
        Self {
            indexes: indexes.clone(),
            range: range.clone(),
            base,
            prepared: false,
            ranks,
            merging: None,
        }
    }
}

/// Most ranges lie in one leaf.
pub(crate) type Slices = SmallVec<[Slice; 1]>;

impl Indexes {
    /// The current view of `range` at once: the slices that [`Indexes::scan`] would give.
    ///
    /// # Errors
    /// All blocks that the range lacks, as far as it can tell.
    pub(crate) fn slices(&self, range: &Range) -> Result<Slices, Missing> {
        let as_stored = self.purged.is_none() && !self.lacks(range.index);
        if !as_stored || !self.tail.ranks(range).is_empty() {
            return self.scan(range).collect();
        }
        let root = self.roots.current[range.index.number()];
        leaves(&*self.source, root, range, |_, _| true)
    }

    /// The rows of one attribute that have one of these ascending entities are in these slices of
    /// AEVT, which leave out leaves without any.
    ///
    /// # Errors
    /// All blocks that are lacking, as far as it can tell.
    pub(crate) fn slices_of(&self, a: AttrId, entities: &[EntityId]) -> Result<Slices, Missing> {
        let (Some(first), Some(last)) = (entities.first(), entities.last()) else {
            return Ok(Slices::new());
        };
        let end = |e: &EntityId| {
            ops::Bound::Included(Prefix { a: Some(a), e: Some(*e), ..Prefix::default() })
        };
        let range = Range { index: Index::Aevt, lower: end(first), upper: end(last) };
        if self.purged.is_some() || !self.tail.ranks(&range).is_empty() {
            if entities.len().saturating_mul(FEW) > self.estimate(&range) {
                return self.scan(&range).collect();
            }
            let mut slices = Slices::new();
            let mut missing = Vec::new();
            for same in entities.chunk_by(|x, y| x == y) {
                match self.slices(&Range::aevt(a, same[0])) {
                    Ok(found) => slices.extend(found),
                    Err(Missing { addresses }) => missing.extend(addresses),
                }
            }
            return if missing.is_empty() { Ok(slices) } else { Err(Missing::of(missing)) };
        }
        let root = self.roots.current[Index::Aevt.number()];
        leaves(&*self.source, root, &range, |branch, child| {
            let keys = &branch.keys;
            let low = child.checked_sub(1).filter(|before| keys.attribute(*before) == a);
            let low = low.map_or(0, |before| keys.entity(before));
            let high = Some(child).filter(|at| keys.attribute(*at) == a);
            let high = high.map_or(EntityId::MAX, |at| keys.entity(at));
            let next = entities.partition_point(|e| *e < low);
            entities.get(next).is_some_and(|e| *e <= high)
        })
    }
}

/// A block on the way to the leaves of a range, and whether the range starts or ends in it.
struct Part {
    address: Address,
    starts: bool,
    ends: bool,
}

/// The rows of a tree in `range`, but for the children of branches that are not wanted.
fn leaves(
    source: &dyn BlockSource,
    root: Option<Root>,
    range: &Range,
    wanted: impl Fn(&Branch, usize) -> bool,
) -> Result<Slices, Missing> {
    let mut slices = Slices::new();
    let mut level: SmallVec<[Part; 4]> = SmallVec::new();
    level.extend(root.map(|root| Part { address: root.address, starts: true, ends: true }));
    while !level.is_empty() {
        let mut below = SmallVec::new();
        let mut missing = Vec::new();
        for Part { address, starts, ends } in &level {
            let Some(node) = source.node(address) else {
                missing.push(*address);
                continue;
            };
            match &*node {
                Node::Leaf(leaf) => {
                    let low = if *starts { leaf.first_of(range) } else { 0 };
                    let high = if *ends { leaf.end_of(range, low) } else { leaf.len() };
                    if low < high {
                        slices.push(Slice { leaf: Arc::clone(leaf), rows: low..high });
                    }
                }
                Node::Branch(branch) => {
                    let end = branch.addresses.len().saturating_sub(1);
                    let low = if *starts { branch.keys.first_of(range).min(end) } else { 0 };
                    let high = if *ends { branch.keys.end_of(range, low).min(end) } else { end };
                    let children = branch.addresses.iter().enumerate().take(high + 1).skip(low);
                    for (child, address) in children.filter(|(child, _)| wanted(branch, *child)) {
                        below.push(Part {
                            address: *address,
                            starts: *starts && child == low,
                            ends: *ends && child == high,
                        });
                    }
                }
            }
        }
        if !missing.is_empty() {
            missing.truncate(MOST_AT_ONCE);
            return Err(Missing::of(missing));
        }
        level = below;
    }
    Ok(slices)
}

impl Iterator for Scan {
    type Item = Result<Slice, Missing>;

    fn next(&mut self) -> Option<Self::Item> {
        match &mut self.0 {
            Kind::Current(current) => current.next().transpose(),
            Kind::Past(iter) => {
                let datoms: Result<Vec<Datom>, Missing> = iter.take(ROWS).collect();
                match datoms {
                    Err(missing) => Some(Err(missing)),
                    Ok(datoms) if datoms.is_empty() => None,
                    Ok(datoms) => {
                        let rows: Vec<DatomRef<'_>> = datoms.iter().map(Into::into).collect();
                        Some(Ok(whole(Leaf::from_rows(&rows))))
                    }
                }
            }
        }
    }
}

fn whole(leaf: Leaf) -> Slice {
    Slice { rows: 0..leaf.len(), leaf: Arc::new(leaf) }
}

impl Current {
    fn next(&mut self) -> Result<Option<Slice>, Missing> {
        if !self.prepared {
            if self.indexes.lacks(self.range.index) {
                *self = Self::of(self.indexes.covered()?, &self.range);
            }
            self.base.require_all()?;
            self.prepared = true;
        }
        loop {
            if let Some(merge) = &mut self.merging {
                let leaf = merge.take(&self.indexes, self.range.index, ROWS);
                if !leaf.is_empty() {
                    return Ok(Some(whole(leaf)));
                }
                self.merging = None;
            }
            let Some(slice) = self.base.next_slice()? else {
                if self.ranks.is_empty() {
                    return Ok(None);
                }
                let ranks = std::mem::replace(&mut self.ranks, 0..0);
                self.merging = Some(Merge::new(&self.indexes, self.range.index, None, ranks));
                continue;
            };
            if let Some(slice) = self.with_tail(slice) {
                return Ok(Some(slice));
            }
        }
    }

    /// A stretch of a leaf with what the tail says about it; `None` if nothing is left of it or it is
    /// to be merged piece by piece.
    fn with_tail(&mut self, slice: LeafSlice) -> Option<Slice> {
        let LeafSlice { leaf, rows, address, .. } = &slice;
        let index = self.range.index;
        let (tail, number) = (&self.indexes.tail, index.number());
        let past = |row: &DatomRef<'_>| {
            let past = |d: &TailDatom| DatomRef::from(&d.datom).cmp_fact(row, index).is_gt();
            tail.trees[number].rank(&tail.arena, index, None, past)
        };
        // A leaf owns the keys after the leaf before it; the last one all that follow.
        let end = match leaf.len().checked_sub(1) {
            Some(last) if !slice.is_last => past(&leaf.row(last)),
            _ => tail.trees[number].len(),
        };
        let ranks = self.ranks.start..end.clamp(self.ranks.start, self.ranks.end);
        self.ranks.start = ranks.end;
        let purged = self.indexes.purged.as_deref();
        if let Some(part) = purged.and_then(|purged| purged.leaf_without(index, leaf, rows)) {
            self.merging = Some(Merge::new(&self.indexes, index, Some(part), ranks));
            return None;
        }
        if ranks.is_empty() {
            return (!rows.is_empty())
                .then(|| Slice { leaf: Arc::clone(leaf), rows: rows.clone() });
        }
        let waiting = slice.after.as_ref().map_or(0, |key| past(&key.into()))..end;
        let few = rows.len() + ranks.len() <= FEW;
        if few || waiting.len() > MANY {
            let part = Some((Arc::clone(leaf), rows.clone()));
            self.merging = Some(Merge::new(&self.indexes, index, part, ranks));
            return None;
        }
        let key = (index, *address);
        let merged = self.indexes.merged.get(key, waiting.len()).unwrap_or_else(|| {
            let count = waiting.len();
            let part = Some((Arc::clone(leaf), 0..leaf.len()));
            let mut merge = Merge::new(&self.indexes, index, part, waiting);
            let merged = Arc::new(merge.take(&self.indexes, index, usize::MAX));
            self.indexes.merged.keep(key, count, Arc::clone(&merged));
            merged
        });
        let low = merged.first_of(&self.range);
        let high = merged.end_of(&self.range, low);
        (low < high).then_some(Slice { leaf: merged, rows: low..high })
    }
}

/// Rows of a leaf with entries of the tail laid over them, on the way.
#[derive(Debug)]
struct Merge {
    leaf: Option<Arc<Leaf>>,
    rows: ops::Range<usize>,
    tail: TailCursor,
}

impl Merge {
    fn new(
        indexes: &Indexes,
        index: Index,
        part: Option<(Arc<Leaf>, ops::Range<usize>)>,
        ranks: ops::Range<usize>,
    ) -> Self {
        let tail = indexes.tail.trees[index.number()].cursor(ranks.start, ranks.end);
        let (leaf, rows) = part.map_or((None, 0..0), |(leaf, rows)| (Some(leaf), rows));
        Self { leaf, rows, tail }
    }

    /// The next rows, at most `limit`.
    fn take(&mut self, indexes: &Indexes, index: Index, limit: usize) -> Leaf {
        let arena = &indexes.tail.arena;
        let leaf = self.leaf.clone().unwrap_or_default();
        let mut out: Vec<DatomRef<'_>> =
            Vec::with_capacity(limit.min(self.rows.len() + self.tail.len()));
        while out.len() < limit {
            let base = (self.rows.start < self.rows.end).then(|| leaf.row(self.rows.start));
            let Some(entry) = self.tail.first() else {
                let Some(base) = base else { break };
                self.rows.start += 1;
                out.push(base);
                continue;
            };
            let mut event = arena.row(entry.id);
            if let Some(base) = base {
                let order = base.cmp_fact(&event, index);
                if order.is_le() {
                    self.rows.start += 1;
                }
                if order.is_lt() {
                    out.push(base);
                    continue;
                }
            }
            // The last event of the fact decides.
            self.tail.pop_first();
            while let Some(next) = self.tail.first() {
                let next = arena.row(next.id);
                if next.cmp_fact(&event, index).is_ne() {
                    break;
                }
                event = next;
                self.tail.pop_first();
            }
            if event.added {
                out.push(event);
            }
        }
        Leaf::from_rows(&out)
    }
}
