//! Writing the tail into the trees: one merge per tree, new blocks for what it touches.

use std::collections::{HashMap, HashSet};
use std::sync::Arc;

use crate::block::{Address, BlockSource, Missing};
use crate::datom::Datom;
use crate::index::key::{DatomRef, Index};
use crate::index::node::{Child, Node};
use crate::index::rechunk::{Edits, Rechunked, Tree};
use crate::index::tail::{Tail, TailDatom};
use crate::index::{AttrTraits, Indexes, Params, Root, Roots};

/// What a flush makes.
#[derive(Clone, Debug)]
pub struct Flushed {
    /// The same datoms with an empty tail. Reads through the source of the indexes that were flushed,
    /// so put the blocks there first.
    pub indexes: Indexes,
    /// Its roots.
    pub roots: Roots,
    /// The new blocks, children before the branches that name them.
    pub blocks: Vec<(Address, Vec<u8>)>,
    /// For a new block the old one that most of it probably comes from: the base of a patch.
    pub bases: HashMap<Address, Address>,
}

impl Indexes {
    /// Writes the tail into the trees. The result depends on the datoms alone, not on when or how
    /// often there was a flush before.
    ///
    /// # Errors
    /// Blocks that it must read and that are not in memory; all that can be told.
    pub fn flush(&self) -> Result<Flushed, Missing> {
        self.flush_by(self.tail_len() >= WORTH_A_THREAD)
    }

    /// [`Self::flush`] on this thread alone, however long the tail: beside other work that is in
    /// more of a hurry.
    ///
    /// # Errors
    /// As [`Self::flush`].
    pub fn flush_alone(&self) -> Result<Flushed, Missing> {
        self.flush_by(false)
    }

    fn flush_by(&self, threads: bool) -> Result<Flushed, Missing> {
        if self.uncovered.is_some() {
            return self.covered()?.flush_by(threads);
        }
        let mut out = Output::default();
        let mut roots = self.roots;
        let mut missing = Vec::new();
        let flushed = of_each_index(threads, |index| {
            let mut out = Output::default();
            self.flush_index(index, &mut out).map(|roots| (roots, out))
        });
        for (index, flushed) in Index::ALL.into_iter().zip(flushed) {
            match flushed {
                Ok(((current, history), made)) => {
                    roots.current[index.number()] = current;
                    roots.history[index.number()] = history;
                    out.blocks.extend(made.blocks);
                    out.bases.extend(made.bases);
                }
                Err(lacking) => missing.extend(lacking.addresses),
            }
        }
        if !missing.is_empty() {
            return Err(Missing::of(missing));
        }
        let indexes = Self::open(self.params, self.keep_history, roots, Arc::clone(&self.source));
        Ok(Flushed { indexes, roots, blocks: out.blocks, bases: out.bases })
    }

    /// Builds the trees of these datoms from nothing. `datoms` need no order, only the events of one
    /// fact the order of their transactions.
    ///
    /// # Errors
    /// None in practice: nothing is read.
    pub fn build(
        params: Params,
        keep_history: bool,
        datoms: &[Datom],
        traits: &dyn AttrTraits,
        source: Arc<dyn BlockSource>,
    ) -> Result<Flushed, Missing> {
        let mut indexes = Self::open(params, keep_history, Roots::default(), source);
        indexes.extend(datoms, traits);
        indexes.flush()
    }

    fn flush_index(
        &self,
        index: Index,
        out: &mut Output,
    ) -> Result<(Option<Root>, Option<Root>), Missing> {
        let chains = Chains::of(&self.tail, index);
        let tree = |history, root| Tree {
            source: &*self.source,
            index,
            history,
            params: self.params,
            root,
        };
        let current = tree(false, self.roots.current[index.number()]);
        if self.purged.is_some() {
            return self.flush_purged(&chains, &current, &tree, out);
        }
        let mut replaced: Vec<(usize, Datom)> = Vec::new();
        let edits = chains.current();
        let current = update(&current, Edits::Facts(&edits), out, &mut |edit, row| {
            replaced.push((edit, row.to_datom()));
        })?;
        let history = tree(true, self.roots.history[index.number()]);
        let edits = chains.history(&replaced);
        let history = update(&history, Edits::Events(&edits), out, &mut |_, _| {})?;
        Ok((current, history))
    }

    /// The same where datoms are to be removed from the trees besides.
    fn flush_purged<'t>(
        &self,
        chains: &Chains<'_>,
        current: &Tree<'t>,
        tree: &impl Fn(bool, Option<Root>) -> Tree<'t>,
        out: &mut Output,
    ) -> Result<(Option<Root>, Option<Root>), Missing> {
        let index = current.index;
        let purged = |row: &DatomRef<'_>| self.purged.as_ref().is_some_and(|p| p.has(index, row));
        let removals = self.removals_from_current(index, current.root)?;
        let edits = chains.current();
        let edits = removals.merge(&edits, |edit| edit.added, |a, b| a.cmp_fact(b, index));
        let mut replaced: Vec<(usize, Datom)> = Vec::new();
        let current = update(current, Edits::Marked(&edits), out, &mut |at, row| {
            if let Some((_, _, Some(chain))) = edits.get(at)
                && !purged(row)
            {
                replaced.push((*chain, row.to_datom()));
            }
        })?;
        let history = tree(true, self.roots.history[index.number()]);
        let removals = self.removals_from_history(index);
        let edits = chains.history(&replaced);
        let edits = removals.merge(&edits, |_| true, |a, b| a.cmp_in(b, index));
        let history = update(&history, Edits::Marked(&edits), out, &mut |_, _| {})?;
        Ok((current, history))
    }
}

/// Datoms from which on work on the three indexes is done side by side.
pub(crate) const WORTH_A_THREAD: usize = 4096;

/// Does something for each index, on a thread of its own if that is worth it and there are threads.
pub(crate) fn of_each_index<T: Send>(worth_it: bool, work: impl Fn(Index) -> T + Sync) -> [T; 3] {
    #[cfg(not(target_family = "wasm"))]
    if worth_it {
        return std::thread::scope(|scope| {
            let work = &work;
            // A thread that cannot be had leaves the work to this one.
            let beside = [Index::Aevt, Index::Avet].map(|index| {
                let thread = std::thread::Builder::new();
                (index, thread.spawn_scoped(scope, move || work(index)).ok())
            });
            let first = work(Index::Eavt);
            let [second, third] = beside.map(|(index, thread)| match thread.map(|t| t.join()) {
                Some(Ok(done)) => done,
                Some(Err(panic)) => std::panic::resume_unwind(panic),
                None => work(index),
            });
            [first, second, third]
        });
    }
    let _ = worth_it;
    Index::ALL.map(work)
}

/// What flushing makes besides roots.
#[derive(Debug, Default)]
pub(crate) struct Output {
    pub(crate) blocks: Vec<(Address, Vec<u8>)>,
    pub(crate) bases: HashMap<Address, Address>,
}

/// Applies sorted edits to a tree, level by level: the new root.
pub(crate) fn update(
    tree: &Tree<'_>,
    edits: Edits<'_>,
    out: &mut Output,
    replaced: &mut dyn FnMut(usize, &DatomRef<'_>),
) -> Result<Option<Root>, Missing> {
    if edits.len() == 0 {
        return Ok(tree.root);
    }
    tree.require(edits)?;
    let made = tree.rechunk(0, edits, replaced)?;
    rise(tree, made, out)
}

/// Makes the branches over new leaves: the new root.
pub(crate) fn rise(
    tree: &Tree<'_>,
    mut made: Rechunked,
    out: &mut Output,
) -> Result<Option<Root>, Missing> {
    let mut level = 0;
    let mut all: HashMap<Address, Vec<u8>> = HashMap::new();
    let mut order = Vec::new();
    loop {
        let changes = settle(tree.index, &mut made, &mut all, &mut order, &mut out.bases);
        if changes.is_empty() {
            return Ok(tree.root);
        }
        level += 1;
        if level >= tree.depth() && made.added.len() <= 1 {
            break;
        }
        // Above the old root nothing is there yet that could have stayed.
        let changes = match level < tree.depth() {
            true => changes,
            false => made.added.into_iter().map(|(key, child)| (key, Some(child))).collect(),
        };
        made = tree.rechunk(level, Edits::Children(&changes), &mut |_, _| {})?;
    }
    let Some((_, top)) = made.added.first() else { return Ok(None) };
    let root = shorten(tree, Root { address: top.address, depth: level, count: top.count }, &all)?;
    // Branches with a single child that were made on the way up are not part of the tree.
    let dropped = u32::from(level - root.depth);
    let mut unneeded = Vec::new();
    let mut address = top.address;
    for _ in 0..dropped {
        unneeded.push(address);
        match all.get(&address).map(|bytes| Node::decode(bytes)) {
            Some(Ok(node)) => match node.children() {
                [only] => address = *only,
                _ => break,
            },
            _ => break,
        }
    }
    for address in order {
        if unneeded.contains(&address) {
            continue;
        }
        if let Some(bytes) = all.remove(&address) {
            out.blocks.push((address, bytes));
        }
    }
    Ok(Some(root))
}

/// What has really changed of a level: `None` for keys that are gone. Keeps the new blocks and finds
/// for each the old one that holds its last key.
fn settle(
    index: Index,
    made: &mut Rechunked,
    all: &mut HashMap<Address, Vec<u8>>,
    order: &mut Vec<Address>,
    bases: &mut HashMap<Address, Address>,
) -> Vec<(Datom, Option<Child>)> {
    let mut changes = Vec::new();
    let mut unchanged = HashSet::new();
    let mut removed = made.removed.iter().peekable();
    let mut base = 0;
    for (key, child) in &made.added {
        let row = DatomRef::from(key);
        let mut same = false;
        while let Some((old, address)) = removed.peek() {
            let cmp = DatomRef::from(old).cmp_in(&row, index);
            if cmp.is_gt() {
                break;
            }
            removed.next();
            if cmp.is_eq() {
                same = *address == child.address;
            } else {
                changes.push((old.clone(), None));
            }
        }
        while base + 1 < made.removed.len()
            && DatomRef::from(&made.removed[base].0).cmp_in(&row, index).is_lt()
        {
            base += 1;
        }
        if same {
            unchanged.insert(child.address);
        } else {
            if let Some((_, old)) = made.removed.get(base) {
                bases.insert(child.address, *old);
            }
            changes.push((key.clone(), Some(*child)));
        }
    }
    changes.extend(removed.map(|(old, _)| (old.clone(), None)));
    for (address, bytes) in made.blocks.drain(..) {
        if !unchanged.contains(&address) && all.insert(address, bytes).is_none() {
            order.push(address);
        }
    }
    changes
}

/// Goes down from a root with a single child to the first level that has more.
fn shorten(
    tree: &Tree<'_>,
    mut root: Root,
    all: &HashMap<Address, Vec<u8>>,
) -> Result<Root, Missing> {
    while root.depth > 1 {
        let node = match all.get(&root.address).and_then(|bytes| Node::decode(bytes).ok()) {
            Some(node) => Arc::new(node),
            None => tree
                .source
                .node(&root.address)
                .ok_or_else(|| Missing { addresses: vec![root.address] })?,
        };
        match node.children() {
            [only] => root = Root { address: *only, depth: root.depth - 1, count: root.count },
            _ => break,
        }
    }
    Ok(root)
}

/// The events of the tail, fact by fact.
struct Chains<'a> {
    events: Vec<&'a TailDatom>,
    /// Where each chain ends.
    ends: Vec<usize>,
}

impl<'a> Chains<'a> {
    fn of(tail: &'a Tail, index: Index) -> Self {
        let tree = &tail.trees[index.number()];
        let mut cursor = tree.cursor(0, tree.len());
        let mut events: Vec<&TailDatom> = Vec::with_capacity(tree.len());
        let mut ends = Vec::new();
        while let Some(entry) = cursor.first() {
            cursor.pop_first();
            let event = tail.arena.get(entry.id);
            if let Some(before) = events.last()
                && !same_fact(&before.datom, &event.datom)
            {
                ends.push(events.len());
            }
            events.push(event);
        }
        if !events.is_empty() {
            ends.push(events.len());
        }
        Self { events, ends }
    }

    fn iter(&self) -> impl Iterator<Item = &[&'a TailDatom]> {
        let starts = std::iter::once(0).chain(self.ends.iter().copied());
        starts.zip(&self.ends).map(|(start, end)| &self.events[start..*end])
    }

    /// One edit per fact: what the last event says.
    fn current(&self) -> Vec<&'a Datom> {
        self.iter().filter_map(|chain| chain.last()).map(|last| &last.datom).collect()
    }

    /// What is to be remembered of each fact, given what the current tree had (by number of the
    /// chain, ascending).
    fn history<'b>(&'b self, replaced: &'b [(usize, Datom)]) -> Vec<&'b Datom> {
        let mut edits = Vec::new();
        let mut replaced = replaced.iter().peekable();
        for (number, chain) in self.iter().enumerate() {
            let before = replaced.next_if(|(edit, _)| *edit == number).map(|(_, datom)| datom);
            if let (Some(before), Some(first)) = (before, chain.first())
                && first.keep
            {
                edits.push(before);
            }
            for (at, event) in chain.iter().enumerate() {
                // A retraction is remembered as it says itself, an assertion as its end says.
                let decides = if event.datom.added { chain.get(at + 1) } else { Some(event) };
                if decides.is_some_and(|event| event.keep) {
                    edits.push(&event.datom);
                }
            }
        }
        edits
    }
}

fn same_fact(a: &Datom, b: &Datom) -> bool {
    a.e == b.e && a.a == b.a && a.v == b.v
}
