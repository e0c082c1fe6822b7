//! Canonical B-tree indexes with the newest transactions laid over them.
//!
//! Datoms are kept in three orders ([`Index`]) and two groups: what is asserted now, and what was
//! retracted or superseded. On disk each is a tree of immutable blocks whose shape depends on nothing
//! but the datoms in it; what came since the last flush is the *tail*, a persistent tree in memory.

mod boundary;
pub(crate) mod codec;
mod cover;
mod cursor;
mod derive;
mod diff;
mod estimate;
mod flush;
mod iter;
mod key;
mod leaf;
mod load;
mod memory;
mod node;
mod purge;
mod rechunk;
mod scan;
mod tail;

use std::sync::Arc;

use crate::block::{Address, BlockSource};
use crate::datom::Datom;

pub use self::codec::{DecodeError, FORMAT_VERSION};
pub(crate) use self::cursor::Near;
pub use self::derive::{DeriveError, derive};
pub use self::diff::changed_blocks;
pub use self::flush::Flushed;
pub use self::iter::Iter;
pub use self::key::{DatomRef, Index, Prefix, Range, ValueRef};
pub use self::leaf::Leaf;
pub(crate) use self::leaf::{Column, Kind};
pub use self::memory::MemoryBlocks;
pub use self::node::{Branch, Node};
pub use self::scan::{Scan, Slice};
pub use self::tail::AttrTraits;

use self::cover::Uncovered;
use self::purge::Purged;
use self::scan::MergedLeaves;
use self::tail::Tail;

/// What decides where blocks end. Part of a database's configuration: trees with other parameters
/// have other roots.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Params {
    /// About how many datoms a leaf holds; between half and twice as many, where a datom with a long
    /// value counts for more.
    pub leaf_target: u32,
    /// About how many children a branch holds, likewise.
    pub branch_target: u32,
    /// Keys the hash that chooses the ends of blocks. Whoever may choose values must not know it.
    pub seed: [u64; 2],
}

impl Default for Params {
    fn default() -> Self {
        Self { leaf_target: 512, branch_target: 64, seed: [0, 0] }
    }
}

/// The root of one tree.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Root {
    /// Its block.
    pub address: Address,
    /// Levels, 1 if the root is a leaf.
    pub depth: u8,
    /// Datoms in the tree.
    pub count: u64,
}

/// The roots of all six trees, each group in the order of [`Index::ALL`]; `None` is an empty tree.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Roots {
    /// What is asserted now.
    pub current: [Option<Root>; 3],
    /// What was retracted or superseded.
    pub history: [Option<Root>; 3],
}

/// The six trees and the tail over them, as one immutable snapshot. Cheap to clone.
#[derive(Clone, Debug)]
pub struct Indexes {
    params: Params,
    keep_history: bool,
    roots: Roots,
    source: Arc<dyn BlockSource>,
    tail: Tail,
    /// What the next flush removes from the trees and no reader sees.
    purged: Option<Arc<Purged>>,
    /// What AVET lacks.
    uncovered: Option<Arc<Uncovered>>,
    merged: Arc<MergedLeaves>,
}

/// Has no block.
#[derive(Debug)]
struct Nowhere;

impl BlockSource for Nowhere {
    fn node(&self, _: &Address) -> Option<Arc<Node>> {
        None
    }
}

impl Indexes {
    /// No datoms.
    pub fn empty(params: Params, keep_history: bool) -> Self {
        Self::open(params, keep_history, Roots::default(), Arc::new(Nowhere))
    }

    /// The trees with these roots, whose blocks `source` knows.
    pub fn open(
        params: Params,
        keep_history: bool,
        roots: Roots,
        source: Arc<dyn BlockSource>,
    ) -> Self {
        Self {
            params,
            keep_history,
            roots,
            source,
            tail: Tail::default(),
            purged: None,
            uncovered: None,
            merged: Arc::default(),
        }
    }

    /// A new snapshot with these resolved datoms on top: retractions are explicit, and the events of
    /// one fact come in the order of their transactions. Reads nothing, so it cannot fault.
    #[must_use]
    pub fn apply(&self, datoms: &[Datom], traits: &dyn AttrTraits) -> Self {
        let mut next = self.clone();
        next.extend(datoms, traits);
        next
    }

    /// The same in place: cheaper where nobody holds the snapshot before.
    pub fn extend(&mut self, datoms: &[Datom], traits: &dyn AttrTraits) {
        self.change_tail(|tail, keep| tail.extend(datoms, keep, traits));
    }

    pub(crate) fn change_tail(&mut self, change: impl FnOnce(&mut Tail, bool)) {
        self.take_covered();
        let before = self.tail.arena.clone();
        change(&mut self.tail, self.keep_history);
        if !before.same_line(&self.tail.arena) {
            self.merged = Arc::default();
        }
    }

    /// What is asserted now within `range`, in index order.
    pub fn current(&self, range: &Range) -> Iter {
        Iter::new(self, range, false, false)
    }

    /// The same from the end.
    pub fn current_rev(&self, range: &Range) -> Iter {
        Iter::new(self, range, true, false)
    }

    /// Everything that is or was asserted within `range`, and every retraction, in index order.
    pub fn history(&self, range: &Range) -> Iter {
        Iter::new(self, range, false, true)
    }

    /// The same from the end.
    pub fn history_rev(&self, range: &Range) -> Iter {
        Iter::new(self, range, true, true)
    }

    /// The current view of `range` by column, leaf by leaf; names all missing blocks at once.
    pub fn scan(&self, range: &Range) -> Scan {
        Scan::current(self, range)
    }

    /// The same of everything that is or was asserted, and every retraction.
    pub fn scan_history(&self, range: &Range) -> Scan {
        Scan::history(self, range)
    }

    /// How many datoms wait to be written into the trees, or to be purged from them.
    pub fn tail_len(&self) -> usize {
        self.tail.arena.len() as usize + self.purged().len()
    }

    /// The datoms of the tail, in the order in which they were applied.
    pub fn tail(&self) -> impl Iterator<Item = &Datom> {
        self.tail.arena.iter().filter(|d| !d.repeated).map(|d| &d.datom)
    }

    /// The roots of the trees under the tail.
    pub fn roots(&self) -> &Roots {
        &self.roots
    }

    /// What decides where blocks end.
    pub fn params(&self) -> &Params {
        &self.params
    }
}
