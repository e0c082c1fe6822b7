//! A persistent B+ tree of arena ids in the order of one index. Nodes are copied only where another
//! snapshot holds them.

use std::cmp::Ordering;
use std::sync::Arc;

use super::arena::{Arena, TailDatom};
use crate::index::key::{DatomRef, Index};

/// A datom of the arena, with the first bytes of its key so that most comparisons need no look at it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Entry {
    prefix: u64,
    pub(crate) id: u32,
}

impl Entry {
    fn new(arena: &Arena, index: Index, id: u32) -> Self {
        let row = arena.row(id);
        Self { prefix: prefix(&row, index), id }
    }

    fn cmp(self, other: Self, arena: &Arena, index: Index) -> Ordering {
        let by_key = || arena.row(self.id).cmp_in(&arena.row(other.id), index);
        self.prefix.cmp(&other.prefix).then_with(by_key)
    }
}

/// Never greater for a smaller key; equal for different keys now and then.
fn prefix(row: &DatomRef<'_>, index: Index) -> u64 {
    let attribute = u64::from(row.a.0);
    match index {
        Index::Eavt if row.e >> (64 - EAVT_ATTRIBUTE_BITS) != 0 => u64::MAX,
        Index::Eavt => row.e << EAVT_ATTRIBUTE_BITS | attribute.min((1 << EAVT_ATTRIBUTE_BITS) - 1),
        _ if attribute >> (64 - REST_BITS) != 0 => u64::MAX,
        Index::Aevt => attribute << REST_BITS | row.e.min((1 << REST_BITS) - 1),
        Index::Avet => attribute << REST_BITS | row.v.order_bits() >> (64 - REST_BITS),
    }
}

const EAVT_ATTRIBUTE_BITS: u32 = 24;
const REST_BITS: u32 = 42;

const LEAF_MAX: usize = 64;
const BRANCH_MAX: usize = 32;

#[derive(Clone, Debug)]
enum Node {
    Leaf(Vec<Entry>),
    Branch(Vec<Child>),
}

#[derive(Clone, Debug)]
struct Child {
    first: Entry,
    count: usize,
    node: Arc<Node>,
}

/// The tree of one index.
#[derive(Clone, Debug)]
pub(crate) struct TailTree {
    root: Arc<Node>,
    len: usize,
}

impl Default for TailTree {
    fn default() -> Self {
        Self { root: Arc::new(Node::Leaf(Vec::new())), len: 0 }
    }
}

impl TailTree {
    pub(crate) fn len(&self) -> usize {
        self.len
    }

    /// Adds ids of the arena; a datom that is there already is not added again.
    pub(crate) fn extend(&mut self, arena: &Arena, index: Index, ids: impl Iterator<Item = u32>) {
        let new: Vec<Entry> = ids.map(|id| Entry::new(arena, index, id)).collect();
        // Sorting everything anew costs about as much per entry as a few insertions.
        if new.len() > LEAF_MAX && new.len() > self.len / 4 {
            let mut all: Vec<Entry> = Vec::with_capacity(self.len + new.len());
            self.root.collect(&mut all);
            all.extend(new);
            all.sort_by(|a, b| a.cmp(*b, arena, index));
            all.dedup_by(|b, a| a.cmp(*b, arena, index).is_eq());
            *self = Self::from_sorted(&all);
            return;
        }
        for entry in new {
            self.insert(arena, index, entry);
        }
    }

    fn insert(&mut self, arena: &Arena, index: Index, entry: Entry) {
        let (added, split) = Arc::make_mut(&mut self.root).insert(arena, index, entry);
        self.len += usize::from(added);
        if let Some(right) = split {
            let left = Child::of(Arc::clone(&self.root));
            self.root = Arc::new(Node::Branch([left, right].into_iter().flatten().collect()));
        }
    }

    fn from_sorted(entries: &[Entry]) -> Self {
        let mut level: Vec<Child> = entries
            .chunks(LEAF_MAX * 3 / 4)
            .filter_map(|chunk| Child::of(Arc::new(Node::Leaf(chunk.to_vec()))))
            .collect();
        while level.len() > 1 {
            level = level
                .chunks(BRANCH_MAX * 3 / 4)
                .filter_map(|chunk| Child::of(Arc::new(Node::Branch(chunk.to_vec()))))
                .collect();
        }
        level.pop().map_or_else(Self::default, |root| Self { root: root.node, len: entries.len() })
    }

    /// How many entries come before the first for which `reached` holds; it must hold for all after.
    pub(crate) fn rank(&self, arena: &Arena, reached: impl Fn(&TailDatom) -> bool) -> usize {
        let (mut node, mut rank) = (&self.root, 0);
        loop {
            match &**node {
                Node::Leaf(entries) => {
                    return rank + entries.partition_point(|e| !reached(arena.get(e.id)));
                }
                Node::Branch(children) => {
                    let past = children.partition_point(|c| !reached(arena.get(c.first.id)));
                    let at = past.saturating_sub(1);
                    rank += children[..at].iter().map(|c| c.count).sum::<usize>();
                    node = &children[at].node;
                }
            }
        }
    }

    /// A cursor over the entries from rank `low` to `high` (exclusive).
    pub(crate) fn cursor(&self, low: usize, high: usize) -> TailCursor {
        TailCursor {
            tree: self.clone(),
            low,
            high,
            leaf: Arc::clone(&self.root),
            leaf_low: 0,
            leaf_len: 0,
        }
    }

    fn leaf_of(&self, rank: usize) -> (Arc<Node>, usize) {
        let (mut node, mut start) = (&self.root, 0);
        while let Node::Branch(children) = &**node {
            let mut at = 0;
            while at + 1 < children.len() && start + children[at].count <= rank {
                start += children[at].count;
                at += 1;
            }
            node = &children[at].node;
        }
        (Arc::clone(node), start)
    }
}

impl Child {
    fn of(node: Arc<Node>) -> Option<Self> {
        let (first, count) = match &*node {
            Node::Leaf(entries) => (*entries.first()?, entries.len()),
            Node::Branch(children) => {
                (children.first()?.first, children.iter().map(|c| c.count).sum())
            }
        };
        Some(Self { first, count, node })
    }
}

impl Node {
    fn collect(&self, into: &mut Vec<Entry>) {
        match self {
            Self::Leaf(entries) => into.extend(entries),
            Self::Branch(children) => children.iter().for_each(|c| c.node.collect(into)),
        }
    }

    /// Whether it was added, and what no longer fits into this node.
    fn insert(
        &mut self,
        arena: &Arena,
        index: Index,
        entry: Entry,
    ) -> (bool, Option<Option<Child>>) {
        match self {
            Self::Leaf(entries) => {
                let found = entries.binary_search_by(|e| e.cmp(entry, arena, index));
                let Err(at) = found else { return (false, None) };
                entries.insert(at, entry);
                let split = (entries.len() > LEAF_MAX).then(|| {
                    let right = entries.split_off(split_point(at, entries.len()));
                    Child::of(Arc::new(Self::Leaf(right)))
                });
                (true, split)
            }
            Self::Branch(children) => {
                let after = children.partition_point(|c| c.first.cmp(entry, arena, index).is_le());
                let at = after.saturating_sub(1);
                let child = &mut children[at];
                let (added, split) = Arc::make_mut(&mut child.node).insert(arena, index, entry);
                if let Some(updated) = Child::of(Arc::clone(&child.node)) {
                    *child = updated;
                }
                if let Some(right) = split.flatten() {
                    children.insert(at + 1, right);
                }
                let split = (children.len() > BRANCH_MAX).then(|| {
                    let right = children.split_off(split_point(at + 1, children.len()));
                    Child::of(Arc::new(Self::Branch(right)))
                });
                (added, split)
            }
        }
    }
}

/// In the middle; at the end where entries are being appended, so that full nodes stay behind.
fn split_point(inserted_at: usize, len: usize) -> usize {
    if inserted_at + 1 == len { len - 1 } else { len / 2 }
}

/// Walks a stretch of the tree from either end.
#[derive(Clone, Debug)]
pub(crate) struct TailCursor {
    tree: TailTree,
    low: usize,
    high: usize,
    leaf: Arc<Node>,
    leaf_low: usize,
    leaf_len: usize,
}

impl TailCursor {
    /// How many entries are left.
    pub(crate) fn len(&self) -> usize {
        self.high.saturating_sub(self.low)
    }

    /// The first entry that is left.
    pub(crate) fn first(&mut self) -> Option<Entry> {
        (self.low < self.high).then_some(self.low).and_then(|rank| self.at(rank))
    }

    /// The last entry that is left.
    pub(crate) fn last(&mut self) -> Option<Entry> {
        (self.low < self.high).then(|| self.high - 1).and_then(|rank| self.at(rank))
    }

    /// Drops the first entry.
    pub(crate) fn pop_first(&mut self) {
        self.low += 1;
    }

    /// Drops the last entry.
    pub(crate) fn pop_last(&mut self) {
        self.high -= 1;
    }

    fn at(&mut self, rank: usize) -> Option<Entry> {
        if rank < self.leaf_low || rank >= self.leaf_low + self.leaf_len {
            (self.leaf, self.leaf_low) = self.tree.leaf_of(rank);
            self.leaf_len = match &*self.leaf {
                Node::Leaf(entries) => entries.len(),
                Node::Branch(_) => 0,
            };
        }
        match &*self.leaf {
            Node::Leaf(entries) => entries.get(rank - self.leaf_low).copied(),
            Node::Branch(_) => None,
        }
    }
}
