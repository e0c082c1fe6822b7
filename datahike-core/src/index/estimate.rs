//! About how many datoms a range has, from the counts in branches.

use crate::block::{Address, BlockSource};
use crate::index::key::Range;
use crate::index::node::{Branch, Node};
use crate::index::{Indexes, Root};

impl Indexes {
    /// About how many datoms of the current view are within `range`: exact where the blocks at its
    /// ends are in memory and the tail is empty. For planning; reads no block that is not in memory.
    pub fn estimate(&self, range: &Range) -> usize {
        if self.lacks(range.index)
            && let Some(covered) = self.uncovered.as_ref().and_then(|lack| lack.made())
        {
            return covered.estimate(range);
        }
        let base = self.roots.current[range.index.number()]
            .map_or(0, |Root { address, count, .. }| within(&*self.source, address, count, range));
        usize::try_from(base).unwrap_or(usize::MAX).saturating_add(self.tail.ranks(range).len())
    }
}

/// How many are in a subtree, where both ends of the range may lie in it.
fn within(source: &dyn BlockSource, address: Address, count: u64, range: &Range) -> u64 {
    let Some(node) = source.resident(&address) else { return count.div_ceil(4) };
    match &*node {
        Node::Leaf(leaf) => {
            let low = leaf.first_of(range);
            let high = leaf.end_of(range, low);
            high.saturating_sub(low) as u64
        }
        Node::Branch(branch) => {
            let end = branch.addresses.len().saturating_sub(1);
            let low = branch.keys.first_of(range).min(end);
            let high = branch.keys.end_of(range, 0).min(end);
            let at = |child: usize| branch_child(source, branch, child, range);
            match low {
                _ if low > high => 0,
                _ if low == high => at(low),
                _ => branch.counts[low + 1..high]
                    .iter()
                    .fold(at(low).saturating_add(at(high)), |sum, n| sum.saturating_add(*n)),
            }
        }
    }
}

fn branch_child(source: &dyn BlockSource, branch: &Branch, child: usize, range: &Range) -> u64 {
    branch.child(child).map_or(0, |c| within(source, c.address, c.count, range))
}
