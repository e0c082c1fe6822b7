//! Walking a stretch of one tree from one end, loading leaves as it comes to them.

use std::ops;
use std::sync::Arc;

use crate::block::{Address, BlockSource, Missing};
use crate::datom::Datom;
use crate::index::Root;
use crate::index::key::{DatomRef, Range};
use crate::index::leaf::Leaf;
use crate::index::node::{Branch, Node};
use crate::index::purge::Purged;

/// How many of the leaves that come next a fault names.
const READ_AHEAD: usize = 8;

/// How many blocks a scan asks for at once.
pub(crate) const MOST_AT_ONCE: usize = 4096;

/// Walks the rows of a tree that lie in a range, forward or in reverse. A fault leaves it where it
/// was, so that the walk goes on once the block is there.
#[derive(Clone, Debug)]
pub(crate) struct Cursor {
    source: Arc<dyn BlockSource>,
    root: Option<Root>,
    range: Arc<Range>,
    reverse: bool,
    purged: Option<Arc<Purged>>,
    path: Vec<Step>,
    at: At,
}

/// A leaf that was read: a read nearby need not look for it.
#[derive(Clone, Debug, Default)]
pub(crate) struct Near(Option<(Address, Arc<Leaf>)>);

#[derive(Clone, Debug)]
struct Step {
    node: Arc<Node>,
    child: usize,
}

#[derive(Clone, Debug)]
enum At {
    Start,
    /// Rows `low..high` of this leaf are left; `last` if the range ends in it.
    Leaf {
        leaf: Arc<Leaf>,
        low: usize,
        high: usize,
        last: bool,
    },
    /// The leaf was given out whole.
    Taken,
    End,
}

/// A stretch of a leaf, and which keys the leaf is in charge of.
#[derive(Clone, Debug)]
pub(crate) struct LeafSlice {
    pub(crate) leaf: Arc<Leaf>,
    pub(crate) rows: ops::Range<usize>,
    pub(crate) address: Address,
    /// The leaf is in charge of the keys after this one.
    pub(crate) after: Option<Datom>,
    /// And up to its last row, or of all keys if it is the last of the tree.
    pub(crate) is_last: bool,
}

impl Step {
    fn is_last(&self) -> bool {
        self.child + 1 >= self.node.children().len()
    }

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
        Self { source, root, range, reverse, purged: None, path: Vec::new(), at }
    }

    /// Row by row without what is purged; slices still have it.
    pub(crate) fn without(self, purged: Option<Arc<Purged>>) -> Self {
        Self { purged, ..self }
    }

    /// Begins in that leaf if the whole range lies in it.
    pub(crate) fn near(mut self, near: &Near) -> Self {
        let Some((root, leaf)) = &near.0 else { return self };
        let same_tree = self.root.is_some_and(|of| of.address == *root);
        if same_tree && matches!(self.at, At::Start) && leaf.surrounds(&self.range) {
            let low = leaf.first_of(&self.range);
            let high = leaf.end_of(&self.range, low);
            self.at = At::Leaf { leaf: Arc::clone(leaf), low, high, last: true };
        }
        self
    }

    /// Goes to where the range begins; the leaf there.
    ///
    /// # Errors
    /// The blocks that it lacks.
    pub(crate) fn begin(&mut self) -> Result<Near, Missing> {
        let Some(root) = self.root else { return Ok(Near(None)) };
        if matches!(self.at, At::Start) {
            self.descend(Vec::new(), root.address, true)?;
        }
        match &self.at {
            At::Leaf { leaf, .. } => Ok(Near(Some((root.address, Arc::clone(leaf))))),
            _ => Ok(Near(None)),
        }
    }

    fn is_purged(&self) -> bool {
        let purged = self.purged.as_ref().zip(self.peek());
        purged.is_some_and(|(purged, row)| purged.has(self.range.index, &row))
    }

    /// Makes [`Self::peek`] see the next row.
    ///
    /// # Errors
    /// The blocks that it lacks.
    pub(crate) fn fill(&mut self) -> Result<(), Missing> {
        loop {
            match &self.at {
                At::Leaf { low, high, .. } if low < high => match self.is_purged() {
                    true => self.pop(),
                    false => return Ok(()),
                },
                At::End => return Ok(()),
                At::Leaf { last: true, .. } => self.at = At::End,
                At::Leaf { .. } | At::Taken => self.next_leaf()?,
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

    /// The rest of the next leaf that has rows in the range, or that edits between its rows and those
    /// of the leaf before could fall to.
    pub(crate) fn next_slice(&mut self) -> Result<Option<LeafSlice>, Missing> {
        loop {
            match std::mem::replace(&mut self.at, At::End) {
                At::End => return Ok(None),
                At::Start => {
                    self.at = At::Start;
                    let Some(root) = self.root else { return Ok(None) };
                    self.descend(Vec::new(), root.address, true)?;
                }
                At::Taken => {
                    self.at = At::Taken;
                    self.next_leaf()?;
                }
                At::Leaf { leaf, low, high, last } => {
                    let slice = LeafSlice {
                        leaf,
                        rows: low..high,
                        address: self.leaf_address(),
                        after: self.key_before(),
                        is_last: self.path.iter().all(Step::is_last),
                    };
                    self.at = if last { At::End } else { At::Taken };
                    return Ok(Some(slice));
                }
            }
        }
    }

    /// Checks that all blocks of the range can be read.
    ///
    /// # Errors
    /// All of those of the highest level that lacks any.
    pub(crate) fn require_all(&self) -> Result<(), Missing> {
        let Some(root) = self.root else { return Ok(()) };
        let mut level = vec![root.address];
        while !level.is_empty() {
            let mut below = Vec::new();
            let mut missing = Vec::new();
            for address in &level {
                let Some(node) = self.source.node(address) else {
                    missing.push(*address);
                    continue;
                };
                let Node::Branch(branch) = &*node else { continue };
                let end = branch.addresses.len().saturating_sub(1);
                let low = branch.keys.first_of(&self.range).min(end);
                let high = branch.keys.end_of(&self.range, 0).min(end);
                below.extend(branch.addresses.get(low..=high).unwrap_or_default());
            }
            if !missing.is_empty() {
                missing.truncate(MOST_AT_ONCE);
                return Err(Missing::of(missing));
            }
            level = below;
        }
        Ok(())
    }

    fn leaf_address(&self) -> Address {
        let step = self.path.last().and_then(|step| step.branch()?.addresses.get(step.child));
        step.copied().or(self.root.map(|root| root.address)).unwrap_or(Address([0; 32]))
    }

    /// The last key before the leaf that the path leads to.
    fn key_before(&self) -> Option<Datom> {
        let step = self.path.iter().rev().find(|step| step.child > 0)?;
        Some(step.branch()?.keys.row(step.child - 1).to_datom())
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
                    let low = leaf.first_of(&self.range);
                    let high = leaf.end_of(&self.range, low);
                    let last = if self.reverse { low > 0 } else { high < leaf.len() };
                    self.at = At::Leaf { leaf: Arc::clone(leaf), low, high, last };
                    self.path = path;
                    return Ok(());
                }
                Node::Branch(branch) => branch,
            };
            let end = branch.addresses.len().saturating_sub(1);
            let child = match (seek, self.reverse) {
                (true, false) => branch.keys.first_of(&self.range).min(end),
                (true, true) => branch.keys.end_of(&self.range, 0).min(end),
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
