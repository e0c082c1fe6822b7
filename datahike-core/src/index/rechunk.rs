//! One level of a tree after edits: only blocks that the edits reach are made anew, and the result is
//! the same as if the whole level had been.

use std::cmp::Ordering;
use std::ops::Range;
use std::sync::Arc;

use crate::block::{Address, BlockSource, Missing};
use crate::datom::Datom;
use crate::index::boundary::{Chunk, Chunker, Item, KeyHash, LOOK_BACK, Rule};
use crate::index::codec::{encode_branch, encode_leaf};
use crate::index::key::{DatomRef, Index};
use crate::index::node::{Branch, Child, Node};
use crate::index::{Params, Root};

/// Changes to a level, sorted, one per key.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Edits<'a> {
    /// Of leaves: puts assertions; a retraction removes what has its fact.
    Facts(&'a [&'a Datom]),
    /// Of leaves: puts all.
    Events(&'a [&'a Datom]),
    /// Of leaves: puts what is marked so, and removes the others. (What else is in the triple is the
    /// caller's.)
    Marked(&'a [(&'a Datom, bool, Option<usize>)]),
    /// Of branches: puts a child under its last key, or removes what has that key.
    Children(&'a [(Datom, Option<Child>)]),
}

impl<'a> Edits<'a> {
    pub(crate) fn len(&self) -> usize {
        match self {
            Self::Facts(datoms) | Self::Events(datoms) => datoms.len(),
            Self::Marked(datoms) => datoms.len(),
            Self::Children(children) => children.len(),
        }
    }

    fn row(&self, at: usize) -> DatomRef<'a> {
        match self {
            Self::Facts(datoms) | Self::Events(datoms) => datoms[at].into(),
            Self::Marked(datoms) => datoms[at].0.into(),
            Self::Children(children) => (&children[at].0).into(),
        }
    }

    fn puts(&self, at: usize) -> bool {
        match self {
            Self::Facts(datoms) => datoms[at].added,
            Self::Events(_) => true,
            Self::Marked(datoms) => datoms[at].1,
            Self::Children(children) => children[at].1.is_some(),
        }
    }

    fn child(&self, at: usize) -> Option<Child> {
        match self {
            Self::Facts(_) | Self::Events(_) | Self::Marked(_) => None,
            Self::Children(children) => children[at].1,
        }
    }
}

/// Which tree, and what does not change from level to level.
#[derive(Debug)]
pub(crate) struct Tree<'a> {
    pub(crate) source: &'a dyn BlockSource,
    pub(crate) index: Index,
    /// A tree of history, where one fact may occur with many transactions.
    pub(crate) history: bool,
    pub(crate) params: Params,
    pub(crate) root: Option<Root>,
}

/// What a level has become.
#[derive(Debug, Default)]
pub(crate) struct Rechunked {
    /// Last keys and addresses of the blocks that were made anew, in order.
    pub(crate) removed: Vec<(Datom, Address)>,
    /// What stands in their place.
    pub(crate) added: Vec<(Datom, Child)>,
    /// The bytes of those.
    pub(crate) blocks: Vec<(Address, Vec<u8>)>,
}

impl Tree<'_> {
    /// How many levels the tree has.
    pub(crate) fn depth(&self) -> u8 {
        self.root.map_or(0, |root| root.depth)
    }

    fn load(&self, address: &Address) -> Result<Arc<Node>, Missing> {
        self.source.node(address).ok_or_else(|| Missing { addresses: vec![*address] })
    }

    fn compare(&self, level: u8, a: &DatomRef<'_>, b: &DatomRef<'_>) -> Ordering {
        if level == 0 && !self.history {
            a.cmp_fact(b, self.index)
        } else {
            a.cmp_in(b, self.index)
        }
    }

    /// Checks that all the leaves that sorted edits reach can be read.
    ///
    /// # Errors
    /// Every block of the deepest level that can be told by now.
    pub(crate) fn require(&self, edits: Edits<'_>) -> Result<(), Missing> {
        let mut missing = Vec::new();
        if let Some(root) = self.root {
            self.collect_missing(root.address, edits, 0..edits.len(), &mut missing);
        }
        if missing.is_empty() { Ok(()) } else { Err(Missing::of(missing)) }
    }

    fn collect_missing(
        &self,
        address: Address,
        edits: Edits<'_>,
        mut which: Range<usize>,
        into: &mut Vec<Address>,
    ) {
        if which.is_empty() {
            return;
        }
        let Some(node) = self.source.node(&address) else {
            into.push(address);
            return;
        };
        let Node::Branch(branch) = &*node else { return };
        for (at, child) in branch.addresses.iter().enumerate() {
            let last = at + 1 == branch.addresses.len();
            let key = branch.keys.row(at);
            let (mut low, mut high) = (which.start, which.end);
            while low < high {
                let middle = low.midpoint(high);
                if last || self.compare(0, &edits.row(middle), &key).is_le() {
                    low = middle + 1;
                } else {
                    high = middle;
                }
            }
            self.collect_missing(*child, edits, which.start..low, into);
            which.start = low;
        }
    }

    /// Applies edits (sorted, one per key) to a level of the tree, or builds one above it.
    /// `replaced` is told of each datom that an edit of the leaves replaces or removes.
    ///
    /// # Errors
    /// A block next to those that the edits reach is needed and not there.
    pub(crate) fn rechunk(
        &self,
        level: u8,
        edits: Edits<'_>,
        replaced: &mut dyn FnMut(usize, &DatomRef<'_>),
    ) -> Result<Rechunked, Missing> {
        let mut work = Work::new(self, level, edits);
        let Some(root) = self.root.filter(|root| level < root.depth) else {
            for at in 0..edits.len() {
                work.push_edit(at);
            }
            work.finish();
            return Ok(work.out);
        };
        let mut next = 0;
        let mut here: Option<Position> = None;
        while next < edits.len() {
            let start = self.first_affected(root, level, &edits.row(next))?;
            let mut position = match here.take() {
                Some(here) if here.is_at_or_after(&start) => here,
                _ => start,
            };
            loop {
                let node = self.load(&position.address(root))?;
                let mut following = position.clone();
                let is_last = !following.advance(self)?;
                next = work.push_node(&node, position.address(root), next, is_last, replaced);
                if is_last {
                    work.finish();
                    return Ok(work.out);
                }
                position = following;
                if work.is_even() {
                    break;
                }
            }
            here = Some(position);
        }
        Ok(work.out)
    }

    /// The leaves of a tree with these rows of other leaves, given in the order of this tree.
    pub(crate) fn build(&self, nodes: &[Arc<Node>], rows: &[(u32, u32)]) -> Rechunked {
        let mut work = Work::new(self, 0, Edits::Events(&[]));
        work.nodes = nodes.to_vec();
        for (node, row) in rows {
            let key = nodes[*node as usize].rows().row(*row as usize);
            work.push(node + 1, *row, &key);
        }
        work.finish();
        work.out
    }

    /// The first block whose content or end may change by an edit with this key.
    fn first_affected(
        &self,
        root: Root,
        level: u8,
        key: &DatomRef<'_>,
    ) -> Result<Position, Missing> {
        let position = Position::seek(self, root, level, key)?;
        let (mut first, mut before) = (position.clone(), position);
        for _ in 0..LOOK_BACK {
            if !before.retreat(self)? {
                break;
            }
            if before.is_open() {
                first = before.clone();
            }
        }
        Ok(first)
    }
}

/// A block of one level, by the way to it from the root.
#[derive(Clone, Debug)]
struct Position {
    path: Vec<(Arc<Node>, usize)>,
}

impl Position {
    fn seek(tree: &Tree<'_>, root: Root, level: u8, key: &DatomRef<'_>) -> Result<Self, Missing> {
        let mut path = Vec::new();
        let mut address = root.address;
        for _ in level + 1..root.depth {
            let node = tree.load(&address)?;
            let Node::Branch(branch) = &*node else { break };
            let at = branch
                .keys
                .partition(|last| tree.compare(level, last, key).is_ge())
                .min(branch.addresses.len().saturating_sub(1));
            let Some(child) = branch.addresses.get(at) else { break };
            address = *child;
            path.push((node, at));
        }
        Ok(Self { path })
    }

    fn branch(&self) -> Option<(&Branch, usize)> {
        match self.path.last() {
            Some((node, at)) => match &**node {
                Node::Branch(branch) => Some((branch, *at)),
                Node::Leaf(_) => None,
            },
            None => None,
        }
    }

    fn address(&self, root: Root) -> Address {
        let child = self.branch().and_then(|(branch, at)| branch.addresses.get(at));
        child.copied().unwrap_or(root.address)
    }

    fn is_open(&self) -> bool {
        self.branch().is_some_and(|(branch, at)| branch.open.get(at).is_some_and(|open| *open))
    }

    fn is_at_or_after(&self, other: &Self) -> bool {
        let places = |p: &Self| p.path.iter().map(|(_, at)| *at).collect::<Vec<_>>();
        places(self) >= places(other)
    }

    /// To the next block of the level, if there is one.
    fn advance(&mut self, tree: &Tree<'_>) -> Result<bool, Missing> {
        self.step(tree, |at, len| (at + 1 < len).then_some(at + 1), |_| 0)
    }

    /// To the block before, if there is one.
    fn retreat(&mut self, tree: &Tree<'_>) -> Result<bool, Missing> {
        self.step(tree, |at, _| at.checked_sub(1), |len| len.saturating_sub(1))
    }

    fn step(
        &mut self,
        tree: &Tree<'_>,
        beside: impl Fn(usize, usize) -> Option<usize>,
        enter: impl Fn(usize) -> usize,
    ) -> Result<bool, Missing> {
        let turn =
            self.path.iter().rposition(|(node, at)| beside(*at, node.children().len()).is_some());
        let Some(turn) = turn else { return Ok(false) };
        let mut path = self.path[..=turn].to_vec();
        let depth = self.path.len();
        if let Some((node, at)) = path.last_mut() {
            *at = beside(*at, node.children().len()).unwrap_or(*at);
        }
        while path.len() < depth {
            let Some((node, at)) = path.last() else { break };
            let Some(address) = node.children().get(*at) else { return Ok(false) };
            let node = tree.load(address)?;
            let at = enter(node.children().len());
            path.push((node, at));
        }
        self.path = path;
        Ok(true)
    }
}

/// A level on its way through the chunker.
struct Work<'a> {
    tree: &'a Tree<'a>,
    level: u8,
    edits: Edits<'a>,
    /// The old blocks whose rows are in the chunker; number 0 stands for the edits.
    nodes: Vec<Arc<Node>>,
    chunker: Chunker,
    hash: KeyHash,
    out: Rechunked,
}

impl<'a> Work<'a> {
    fn new(tree: &'a Tree<'a>, level: u8, edits: Edits<'a>) -> Self {
        let rule = match level {
            0 => Rule::leaf(tree.params.leaf_target),
            _ => Rule::branch(tree.params.branch_target),
        };
        Self {
            tree,
            level,
            edits,
            nodes: Vec::new(),
            chunker: Chunker::new(rule),
            hash: KeyHash::new(tree.params.seed),
            out: Rechunked::default(),
        }
    }

    fn is_even(&self) -> bool {
        self.chunker.is_even()
    }

    fn finish(&mut self) {
        self.chunker.finish();
        self.emit_ready();
    }

    /// Feeds an old block merged with the edits from `next` on that fall into it; the edit after them.
    fn push_node(
        &mut self,
        node: &Arc<Node>,
        address: Address,
        mut next: usize,
        is_last: bool,
        replaced: &mut dyn FnMut(usize, &DatomRef<'_>),
    ) -> usize {
        if self.chunker.is_even() {
            self.nodes.clear();
        }
        self.nodes.push(Arc::clone(node));
        let source = self.nodes.len() as u32;
        let rows = node.rows();
        let mut last = None;
        for at in 0..rows.len() {
            let row = rows.row(at);
            let mut kept = true;
            while next < self.edits.len() {
                let edit = self.edits.row(next);
                match self.tree.compare(self.level, &edit, &row) {
                    Ordering::Greater => break,
                    Ordering::Less => {}
                    Ordering::Equal => {
                        // The very datom that is there already replaces nothing.
                        let same = self.edits.puts(next)
                            && self.level == 0
                            && edit.cmp_in(&row, self.tree.index).is_eq();
                        kept = same;
                        if same {
                            next += 1;
                            continue;
                        }
                        replaced(next, &row);
                    }
                }
                self.push_edit(next);
                next += 1;
            }
            if kept {
                self.push(source, at as u32, &row);
            }
            last = Some(row);
        }
        if is_last {
            while next < self.edits.len() {
                self.push_edit(next);
                next += 1;
            }
        }
        if let Some(last) = last {
            self.out.removed.push((last.to_datom(), address));
        }
        next
    }

    fn push_edit(&mut self, at: usize) {
        if self.edits.puts(at) {
            let row = self.edits.row(at);
            self.push(0, at as u32, &row);
        }
    }

    fn push(&mut self, source: u32, row: u32, key: &DatomRef<'_>) {
        let (hash, weight) = match self.level {
            0 => self.hash.measure(key, self.tree.history),
            level => self.hash.measure_child(key, self.tree.history, level),
        };
        self.chunker.push(Item { source, row, hash, weight });
        self.emit_ready();
    }

    fn emit_ready(&mut self) {
        for chunk in self.chunker.take_ready() {
            self.emit(&chunk);
        }
    }

    fn emit(&mut self, chunk: &Chunk) {
        let rows: Vec<DatomRef<'_>> = chunk
            .items
            .iter()
            .map(|item| match item.source.checked_sub(1) {
                None => self.edits.row(item.row as usize),
                Some(node) => self.nodes[node as usize].rows().row(item.row as usize),
            })
            .collect();
        let (bytes, count) = if self.level == 0 {
            (encode_leaf(&rows, self.tree.index), rows.len() as u64)
        } else {
            let children: Vec<Child> = chunk.items.iter().filter_map(|i| self.child(i)).collect();
            let count = children.iter().fold(0, |sum: u64, child| sum.saturating_add(child.count));
            (encode_branch(self.level, &rows, &children, self.tree.index), count)
        };
        let child = Child { address: Address::of(&bytes), count, open: chunk.open };
        if let Some(last) = rows.last() {
            self.out.added.push((last.to_datom(), child));
            self.out.blocks.push((child.address, bytes));
        }
    }

    fn child(&self, item: &Item) -> Option<Child> {
        match item.source.checked_sub(1) {
            None => self.edits.child(item.row as usize),
            Some(node) => match &*self.nodes[node as usize] {
                Node::Branch(branch) => branch.child(item.row as usize),
                Node::Leaf(_) => None,
            },
        }
    }
}
