//! What differs between two snapshots: only subtrees with different addresses are looked at.

use std::cmp::Ordering;
use std::collections::{HashMap, HashSet};
use std::sync::Arc;

use crate::block::{Address, BlockSource, Missing};
use crate::datom::Datom;
use crate::index::key::{DatomRef, Index, Range};
use crate::index::leaf::Leaf;
use crate::index::node::Node;
use crate::index::{Indexes, Root, Roots};

impl Indexes {
    /// What `newer` asserts and this snapshot does not (as assertions), and what this one asserts and
    /// `newer` does not (as retractions, with the transaction that had asserted it), in the order of
    /// EAVT. A fact asserted anew by another transaction is both.
    ///
    /// # Errors
    /// Blocks that must be read, all of one level at once.
    pub fn diff(&self, newer: &Self) -> Result<Vec<Datom>, Missing> {
        let eavt = Index::Eavt.number();
        let (old, new) = (self.roots.current[eavt], newer.roots.current[eavt]);
        let mut changes = match Arc::ptr_eq(&self.source, &newer.source) {
            true => tree_diff(&*self.source, Index::Eavt, old, new)?,
            false => {
                let both = Both(Arc::clone(&self.source), Arc::clone(&newer.source));
                tree_diff(&both, Index::Eavt, old, new)?
            }
        };
        // Where a tail has a say, the trees do not.
        let mut facts: Vec<&Datom> =
            [self, newer].into_iter().flat_map(|side| side.tail().chain(side.purged())).collect();
        let fact =
            |a: &Datom, b: &Datom| DatomRef::from(a).cmp_fact(&DatomRef::from(b), Index::Eavt);
        facts.sort_by(|a, b| fact(a, b));
        facts.dedup_by(|a, b| fact(a, b).is_eq());
        changes.retain(|d| facts.binary_search_by(|f| fact(f, d)).is_err());
        for f in facts {
            let range = Range::eavt(f.e, f.a, f.v.clone());
            let before = self.current(&range).next().transpose()?;
            let after = newer.current(&range).next().transpose()?;
            if before != after {
                changes.extend(before.map(|d| Datom { added: false, ..d }));
                changes.extend(after);
            }
        }
        changes.sort_by(|a, b| fact(a, b).then(a.added.cmp(&b.added)));
        Ok(changes)
    }
}

/// The blocks that `new` has and `old` has not, branches before their children, each with the block
/// of `old` that held its last key: the base of a patch.
///
/// # Errors
/// Branches that must be read, all of one level at once. Leaves are not read.
pub fn changed_blocks(
    source: &dyn BlockSource,
    old: &Roots,
    new: &Roots,
) -> Result<Vec<(Address, Option<Address>)>, Missing> {
    let mut out = Vec::new();
    let mut seen = HashSet::new();
    let mut missing = Vec::new();
    for (old, new) in [(&old.current, &new.current), (&old.history, &new.history)] {
        for index in Index::ALL {
            let walked = walk(source, old[index.number()], new[index.number()]);
            let levels = match walked {
                Ok(levels) => levels,
                Err(lacking) => {
                    missing.extend(lacking.addresses);
                    continue;
                }
            };
            for level in levels {
                let mut base = 0;
                for (key, address) in &level.new {
                    while base + 1 < level.old.len() && key_is_after(key, &level.old[base].0, index)
                    {
                        base += 1;
                    }
                    if seen.insert(*address) {
                        out.push((*address, level.old.get(base).map(|(_, address)| *address)));
                    }
                }
            }
        }
    }
    if missing.is_empty() { Ok(out) } else { Err(Missing::of(missing)) }
}

/// Two sources as one.
#[derive(Debug)]
struct Both(Arc<dyn BlockSource>, Arc<dyn BlockSource>);

impl BlockSource for Both {
    fn node(&self, address: &Address) -> Option<Arc<Node>> {
        self.0.node(address).or_else(|| self.1.node(address))
    }
}

/// The datoms that only one of two trees has.
fn tree_diff(
    source: &dyn BlockSource,
    index: Index,
    old: Option<Root>,
    new: Option<Root>,
) -> Result<Vec<Datom>, Missing> {
    let levels = walk(source, old, new)?;
    let Some(leaves) = levels.last() else { return Ok(Vec::new()) };
    let mut loaded: HashMap<Address, Arc<Leaf>> = HashMap::new();
    let mut missing = Vec::new();
    for (_, address) in leaves.old.iter().chain(&leaves.new) {
        match source.node(address).as_deref() {
            Some(node) => {
                loaded.insert(*address, Arc::clone(node.rows()));
            }
            None => missing.push(*address),
        }
    }
    if !missing.is_empty() {
        return Err(Missing::of(missing));
    }
    let rows = |side: &'_ [(Option<Datom>, Address)]| -> Vec<Arc<Leaf>> {
        side.iter().filter_map(|(_, address)| loaded.get(address).cloned()).collect()
    };
    let (old, new) = (rows(&leaves.old), rows(&leaves.new));
    let mut old = old.iter().flat_map(|leaf| leaf.rows()).peekable();
    let mut new = new.iter().flat_map(|leaf| leaf.rows()).peekable();
    let mut out = Vec::new();
    loop {
        let order = match (old.peek(), new.peek()) {
            (None, None) => return Ok(out),
            (Some(_), None) => Ordering::Less,
            (None, Some(_)) => Ordering::Greater,
            (Some(old), Some(new)) => old.cmp_in(new, index),
        };
        let (gone, come) = (order.is_le().then(|| old.next()), order.is_ge().then(|| new.next()));
        if order.is_lt() {
            out.extend(gone.flatten().map(|row| Datom { added: false, ..row.to_datom() }));
        } else if order.is_gt() {
            out.extend(come.flatten().map(|row| row.to_datom()));
        }
    }
}

/// The blocks of one level that only one side has, with their last keys (`None` for a root).
#[derive(Debug, Default)]
struct Level {
    old: Vec<(Option<Datom>, Address)>,
    new: Vec<(Option<Datom>, Address)>,
}

/// From the highest level to the leaves.
fn walk(
    source: &dyn BlockSource,
    old: Option<Root>,
    new: Option<Root>,
) -> Result<Vec<Level>, Missing> {
    let depth = |root: Option<Root>| root.map_or(0, |root| root.depth);
    let mut levels: Vec<Level> = Vec::new();
    for height in (1..=depth(old).max(depth(new))).rev() {
        let mut missing = Vec::new();
        let mut side = |root: Option<Root>, above: Option<&[(Option<Datom>, Address)]>| {
            let root = root.filter(|root| root.depth == height);
            let mut all: Vec<_> = root.iter().map(|root| (None, root.address)).collect();
            for (_, address) in above.unwrap_or_default() {
                match source.node(address).as_deref() {
                    None => missing.push(*address),
                    Some(node) => all.extend(
                        node.children()
                            .iter()
                            .enumerate()
                            .map(|(at, child)| (Some(node.rows().row(at).to_datom()), *child)),
                    ),
                }
            }
            all
        };
        let above = levels.last();
        let mut level = Level {
            old: side(old, above.map(|level| &*level.old)),
            new: side(new, above.map(|level| &*level.new)),
        };
        if !missing.is_empty() {
            return Err(Missing::of(missing));
        }
        let addresses = |side: &[(Option<Datom>, Address)]| {
            side.iter().map(|(_, a)| *a).collect::<HashSet<_>>()
        };
        let (in_old, in_new) = (addresses(&level.old), addresses(&level.new));
        level.old.retain(|(_, address)| !in_new.contains(address));
        level.new.retain(|(_, address)| !in_old.contains(address));
        levels.push(level);
    }
    Ok(levels)
}

fn key_is_after(key: &Option<Datom>, other: &Option<Datom>, index: Index) -> bool {
    match (key, other) {
        (_, None) => false,
        (None, Some(_)) => true,
        (Some(key), Some(other)) => {
            DatomRef::from(key).cmp_in(&DatomRef::from(other), index).is_gt()
        }
    }
}
