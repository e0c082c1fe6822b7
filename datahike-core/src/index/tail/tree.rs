//! A persistent B+ tree of arena ids in the order of one index. Nodes are copied only where another
//! snapshot holds them.

use std::cmp::Ordering;
use std::ops::RangeInclusive;
use std::sync::Arc;

use super::arena::{Arena, TailDatom};
use crate::index::key::{DatomRef, Index, Prefix, ValueRef};

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

/// What [`prefix`] is for keys that start with some components.
fn prefixes(start: &Prefix, index: Index) -> RangeInclusive<u64> {
    let (e, a) = (start.e, start.a.map(|a| u64::from(a.0)));
    let (first, rest) = match index {
        Index::Eavt => (e, a.map(|a| a.min((1 << EAVT_ATTRIBUTE_BITS) - 1))),
        Index::Aevt => (a, e.map(|e| e.min((1 << REST_BITS) - 1))),
        Index::Avet => {
            let bits = |v| ValueRef::from(v).order_bits() >> (64 - REST_BITS);
            (a, start.v.as_ref().map(bits))
        }
    };
    let bits = if index == Index::Eavt { EAVT_ATTRIBUTE_BITS } else { REST_BITS };
    match first {
        None => 0..=u64::MAX,
        Some(first) if first >> (64 - bits) != 0 => u64::MAX..=u64::MAX,
        Some(first) => {
            let low = first << bits;
            rest.map_or(low..=low | ((1 << bits) - 1), |rest| low | rest..=low | rest)
        }
    }
}

const EAVT_ATTRIBUTE_BITS: u32 = 24;
const REST_BITS: u32 = 42;

const LEAF_MAX: usize = 32;
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
        let mut new: Vec<Entry> = ids.map(|id| Entry::new(arena, index, id)).collect();
        if new.len() <= LEAF_MAX {
            for entry in new {
                self.insert(arena, index, entry);
            }
            return;
        }
        new.sort_by(|a, b| a.cmp(*b, arena, index));
        new.dedup_by(|b, a| a.cmp(*b, arena, index).is_eq());
        let mut level = Vec::new();
        self.root.merge(arena, index, &new, &mut level);
        while level.len() > 1 {
            level = packed(&level, BRANCH_MAX, Node::Branch).collect();
        }
        if let Some(Child { node, count, .. }) = level.pop() {
            *self = Self { root: node, len: count };
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

    /// How many entries come before the first for which `reached` holds; it must hold for all after.
    /// Where that is among the keys that start with `near`, if that is given, few datoms are read.
    pub(crate) fn rank(
        &self,
        arena: &Arena,
        index: Index,
        near: Option<&Prefix>,
        reached: impl Fn(&TailDatom) -> bool,
    ) -> usize {
        let near = near.map_or(0..=u64::MAX, |near| prefixes(near, index));
        let reached = |entry: &Entry| {
            entry.prefix > *near.end()
                || entry.prefix >= *near.start() && reached(arena.get(entry.id))
        };
        let (mut node, mut rank) = (&self.root, 0);
        loop {
            match &**node {
                Node::Leaf(entries) => {
                    return rank + entries.partition_point(|e| !reached(e));
                }
                Node::Branch(children) => {
                    let past = children.partition_point(|c| !reached(&c.first));
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
    /// What takes the place of this node when sorted entries are added: nodes of its level.
    fn merge(self: &Arc<Self>, arena: &Arena, index: Index, new: &[Entry], into: &mut Vec<Child>) {
        match &**self {
            Self::Leaf(entries) => {
                let merged = merged(entries, new, |a, b| a.cmp(*b, arena, index));
                into.extend(packed(&merged, LEAF_MAX, Self::Leaf));
            }
            Self::Branch(children) => {
                let mut below = Vec::with_capacity(children.len());
                let mut rest = new;
                for (at, child) in children.iter().enumerate() {
                    let len = match children.get(at + 1) {
                        Some(next) if !rest.is_empty() => {
                            rest.partition_point(|e| e.cmp(next.first, arena, index).is_lt())
                        }
                        _ => rest.len(),
                    };
                    let (here, after) = rest.split_at(len);
                    rest = after;
                    if here.is_empty() {
                        below.push(child.clone());
                    } else {
                        child.node.merge(arena, index, here, &mut below);
                    }
                }
                into.extend(packed(&below, BRANCH_MAX, Self::Branch));
            }
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
                child.count += usize::from(added);
                if after == 0 && added {
                    child.first = entry;
                }
                if let Some(right) = split.flatten() {
                    child.count -= right.count;
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

/// One node if they fit, else several that are about three quarters full.
fn packed<'a, T: Clone>(
    items: &'a [T],
    max: usize,
    node: impl Fn(Vec<T>) -> Node + 'a,
) -> impl Iterator<Item = Child> + 'a {
    let pieces = if items.len() <= max { 1 } else { items.len().div_ceil(max * 3 / 4) };
    items
        .chunks(items.len().div_ceil(pieces).max(1))
        .filter_map(move |piece| Child::of(Arc::new(node(piece.to_vec()))))
}

/// Both in order; of equal entries the old one.
fn merged(old: &[Entry], new: &[Entry], cmp: impl Fn(&Entry, &Entry) -> Ordering) -> Vec<Entry> {
    let mut all = Vec::with_capacity(old.len() + new.len());
    let mut rest = old;
    for entry in new {
        let before = rest.partition_point(|e| cmp(e, entry).is_lt());
        all.extend(&rest[..before]);
        rest = &rest[before..];
        if rest.first().is_none_or(|next| cmp(next, entry).is_ne()) {
            all.push(*entry);
        }
    }
    all.extend(rest);
    all
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
