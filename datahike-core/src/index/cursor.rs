//! Walking a stretch of one tree from one end, loading leaves as it comes to them.

use std::sync::Arc;

use crate::block::{Address, BlockSource, Missing};
use crate::index::Root;
use crate::index::key::{DatomRef, Range};
use crate::index::leaf::Leaf;
use crate::index::node::{Branch, Node};

/// How many of the leaves that come next a fault names.
const READ_AHEAD: usize = 8;

/// Walks the rows of a tree that lie in a range, forward or in reverse. A fault leaves it where it
/// was, so that the walk goes on once the block is there.
#[derive(Clone, Debug)]
pub(crate) struct Cursor {
    source: Arc<dyn BlockSource>,
    root: Option<Root>,
    range: Arc<Range>,
    reverse: bool,
    path: Vec<Step>,
    at: At,
}

#[derive(Clone, Debug)]
struct Step {
    node: Arc<Node>,
    child: usize,
}

#[derive(Clone, Debug)]
enum At {
    Start,
    /// Rows `low..high` of this leaf are left; `last` if the range ends in it.
    Leaf { leaf: Arc<Leaf>, low: usize, high: usize, last: bool },
    End,
}

impl Step {
    fn branch(&self) -> Option<&Branch> {
        match &*self.node {
            Node::Branch(branch) => Some(branch),
            Node::Leaf(_) => None,
        }
    }
}

impl Cursor {
    pub(crate) fn new(
        source: Arc<dyn BlockSource>,
        root: Option<Root>,
        range: Arc<Range>,
        reverse: bool,
    ) -> Self {
        let at = if root.is_some() { At::Start } else { At::End };
        Self { source, root, range, reverse, path: Vec::new(), at }
    }

    /// Makes [`Self::peek`] see the next row.
    ///
    /// # Errors
    /// The blocks that it lacks.
    pub(crate) fn fill(&mut self) -> Result<(), Missing> {
        loop {
            match &self.at {
                At::Leaf { low, high, .. } if low < high => return Ok(()),
                At::End => return Ok(()),
                At::Leaf { last: true, .. } => self.at = At::End,
                At::Leaf { .. } => self.next_leaf()?,
                At::Start => {
                    let Some(root) = self.root else { return Ok(()) };
                    self.descend(Vec::new(), root.address, true)?;
                }
            }
        }
    }

    /// The next row. Call [`Self::fill`] first.
    pub(crate) fn peek(&self) -> Option<DatomRef<'_>> {
        match &self.at {
            At::Leaf { leaf, low, high, .. } if low < high => {
                Some(leaf.row(if self.reverse { high - 1 } else { *low }))
            }
            _ => None,
        }
    }

    /// Drops the next row.
    pub(crate) fn pop(&mut self) {
        if let At::Leaf { low, high, .. } = &mut self.at {
            if self.reverse {
                *high = high.saturating_sub(1);
            } else {
                *low += 1;
            }
        }
    }

    fn next_leaf(&mut self) -> Result<(), Missing> {
        let mut path = self.path.clone();
        while let Some(mut step) = path.pop() {
            let next = if self.reverse { step.child.checked_sub(1) } else { Some(step.child + 1) };
            let address = step.branch().zip(next).and_then(|(b, next)| b.addresses.get(next));
            if let (Some(address), Some(next)) = (address.copied(), next) {
                step.child = next;
                path.push(step);
                return self.descend(path, address, false);
            }
        }
        self.at = At::End;
        Ok(())
    }

    /// Goes down to the leaf where the range starts (`seek`) or to the nearest one.
    fn descend(
        &mut self,
        mut path: Vec<Step>,
        mut address: Address,
        seek: bool,
    ) -> Result<(), Missing> {
        loop {
            let Some(node) = self.source.node(&address) else {
                return Err(self.missing(&path, address));
            };
            let branch = match &*node {
                Node::Leaf(leaf) => {
                    let low = leaf.partition(|row| self.range.starts_by(row));
                    let high = leaf.partition(|row| !self.range.reaches(row)).max(low);
                    let last = if self.reverse { low > 0 } else { high < leaf.len() };
                    self.at = At::Leaf { leaf: Arc::clone(leaf), low, high, last };
                    self.path = path;
                    return Ok(());
                }
                Node::Branch(branch) => branch,
            };
            let end = branch.addresses.len().saturating_sub(1);
            let child = match (seek, self.reverse) {
                (true, false) => branch.keys.partition(|last| self.range.starts_by(last)).min(end),
                (true, true) => branch.keys.partition(|last| !self.range.reaches(last)).min(end),
                (false, false) => 0,
                (false, true) => end,
            };
            let Some(next) = branch.addresses.get(child).copied() else {
                self.at = At::End;
                return Ok(());
            };
            address = next;
            path.push(Step { node, child });
        }
    }

    /// `address` and what comes after it in the same branch and range.
    fn missing(&self, path: &[Step], address: Address) -> Missing {
        let mut addresses = vec![address];
        if let Some((branch, at)) = path.last().and_then(|s| s.branch().map(|b| (b, s.child))) {
            let siblings: Vec<usize> = if self.reverse {
                (0..at).rev().take_while(|i| self.range.starts_by(&branch.keys.row(*i))).collect()
            } else {
                (at + 1..branch.addresses.len())
                    .take_while(|i| self.range.reaches(&branch.keys.row(i - 1)))
                    .collect()
            };
            let siblings = siblings.into_iter().take(READ_AHEAD - 1).map(|i| branch.addresses[i]);
            addresses.extend(siblings.filter(|a| self.source.node(a).is_none()));
        }
        Missing::of(addresses)
    }
}
