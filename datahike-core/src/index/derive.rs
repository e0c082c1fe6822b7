//! AEVT and AVET from EAVT, and the proof that trees are what they must be.

use std::collections::BTreeMap;
use std::sync::Arc;

use crate::block::{Address, BlockSource, Missing};
use crate::datom::AttrId;
use crate::index::flush::{Output, WORTH_A_THREAD, of_each_index, rise};
use crate::index::key::Index;
use crate::index::node::Node;
use crate::index::rechunk::Tree;
use crate::index::{AttrTraits, Params, Root, Roots};

/// Why trees are not what they should be.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum DeriveError {
    /// Blocks must be fetched first.
    #[error(transparent)]
    Missing(#[from] Missing),
    /// The rows of EAVT are not in order.
    #[error("rows of {group} EAVT are out of order in block {address}")]
    Order {
        /// `current` or `history`.
        group: &'static str,
        /// Where.
        address: Address,
    },
    /// A tree made from the datoms of EAVT has another root than it should.
    #[error("{group} {index:?} made from EAVT has another root than its snapshot says")]
    Mismatch {
        /// `current` or `history`.
        group: &'static str,
        /// Which tree.
        index: Index,
    },
}

impl DeriveError {
    /// The blocks to fetch before another try, if that is what is wrong.
    pub fn missing(&self) -> Option<&Missing> {
        match self {
            Self::Missing(missing) => Some(missing),
            _ => None,
        }
    }
}

/// Makes AEVT and AVET of both groups from the EAVT trees of `roots`, and verifies all roots: those
/// of EAVT too, which proves that its blocks end where they must. Returns the new blocks, children
/// before the branches that name them.
///
/// A mirror starts so: it receives EAVT alone. For a store that has all blocks it is a check.
///
/// # Errors
/// Missing blocks of EAVT, all of one level at once; or whatever is not as it must be.
pub fn derive(
    params: Params,
    roots: &Roots,
    source: &dyn BlockSource,
    traits: &dyn AttrTraits,
) -> Result<Vec<(Address, Vec<u8>)>, DeriveError> {
    let mut leaves = [Vec::new(), Vec::new()];
    let mut missing = Vec::new();
    for (group, roots) in [&roots.current, &roots.history].into_iter().enumerate() {
        match load_leaves(source, roots[Index::Eavt.number()]) {
            Ok(loaded) => leaves[group] = loaded,
            Err(lacking) => missing.extend(lacking.addresses),
        }
    }
    if !missing.is_empty() {
        return Err(Missing::of(missing).into());
    }
    let mut blocks = Vec::new();
    for (history, leaves) in [false, true].into_iter().zip(leaves) {
        let (group, expected) =
            if history { ("history", &roots.history) } else { ("current", &roots.current) };
        let (addresses, nodes): (Vec<Address>, Vec<Arc<Node>>) = leaves.into_iter().unzip();
        if let Some(at) = out_of_order(&nodes, history) {
            return Err(DeriveError::Order { group, address: addresses[at] });
        }
        let by_attribute = by_attribute(&nodes);
        let in_avet: Vec<&Vec<Place>> =
            by_attribute.iter().filter(|(a, _)| traits.avet(**a)).map(|(_, rows)| rows).collect();
        let rows = nodes.iter().map(|node| node.rows().len()).sum::<usize>();
        let made = of_each_index(rows >= WORTH_A_THREAD, |index| {
            let tree = Tree { source, index, history, params, root: None };
            let order: Vec<Place> = match index {
                Index::Eavt => nodes
                    .iter()
                    .enumerate()
                    .flat_map(|(leaf, node)| {
                        (0..node.rows().len()).map(move |row| (leaf as u32, row as u32))
                    })
                    .collect(),
                Index::Aevt => by_attribute.values().flatten().copied().collect(),
                Index::Avet => in_avet.iter().flat_map(|places| by_value(&nodes, places)).collect(),
            };
            let mut out = Output::default();
            let root = rise(&tree, tree.build(&nodes, &order), &mut out);
            root.map(|root| (root, out.blocks))
        });
        for (index, made) in Index::ALL.into_iter().zip(made) {
            let (root, made) = made?;
            if root != expected[index.number()] {
                return Err(DeriveError::Mismatch { group, index });
            }
            if index != Index::Eavt {
                blocks.extend(made);
            }
        }
    }
    Ok(blocks)
}

/// Leaf and row.
type Place = (u32, u32);

/// The rows of each attribute, in order.
fn by_attribute(nodes: &[Arc<Node>]) -> BTreeMap<AttrId, Vec<Place>> {
    let mut slots: BTreeMap<AttrId, usize> = BTreeMap::new();
    let mut places: Vec<Vec<Place>> = Vec::new();
    for (leaf, node) in nodes.iter().enumerate() {
        let attributes = &node.rows().a;
        let of_leaf: Vec<usize> = attributes
            .table
            .iter()
            .map(|a| {
                *slots.entry(*a).or_insert_with(|| {
                    places.push(Vec::new());
                    places.len() - 1
                })
            })
            .collect();
        for row in 0..node.rows().len() {
            places[of_leaf[attributes.place(row)]].push((leaf as u32, row as u32));
        }
    }
    slots.into_iter().map(|(a, slot)| (a, std::mem::take(&mut places[slot]))).collect()
}

/// Rows of one attribute by value; equal values stay in the order of EAVT.
fn by_value(nodes: &[Arc<Node>], places: &[Place]) -> Vec<Place> {
    let value = |(leaf, row): Place| nodes[leaf as usize].rows().value(row as usize);
    let mut keyed: Vec<(u64, Place)> =
        places.iter().map(|place| (value(*place).order_bits(), *place)).collect();
    keyed.sort_by(|(a_bits, a), (b_bits, b)| {
        a_bits.cmp(b_bits).then_with(|| value(*a).cmp(&value(*b)))
    });
    keyed.into_iter().map(|(_, place)| place).collect()
}

/// All leaves of a tree with their addresses.
fn load_leaves(
    source: &dyn BlockSource,
    root: Option<Root>,
) -> Result<Vec<(Address, Arc<Node>)>, Missing> {
    let Some(root) = root else { return Ok(Vec::new()) };
    let mut level = vec![root.address];
    for height in (1..=root.depth).rev() {
        let mut nodes = Vec::with_capacity(level.len());
        let mut missing = Vec::new();
        for address in level {
            match source.node(&address) {
                Some(node) => nodes.push((address, node)),
                None => missing.push(address),
            }
        }
        if !missing.is_empty() {
            return Err(Missing::of(missing));
        }
        if height == 1 {
            return Ok(nodes);
        }
        level = nodes.iter().flat_map(|(_, node)| node.children().iter().copied()).collect();
    }
    Ok(Vec::new())
}

/// The first leaf with a row that does not come after the one before it.
fn out_of_order(nodes: &[Arc<Node>], history: bool) -> Option<usize> {
    let mut before = None;
    for (at, node) in nodes.iter().enumerate() {
        for row in node.rows().rows() {
            let ascends = before.is_none_or(|before| match history {
                true => row.cmp_in(&before, Index::Eavt).is_gt(),
                false => row.cmp_fact(&before, Index::Eavt).is_gt() && row.added,
            });
            if !ascends {
                return Some(at);
            }
            before = Some(row);
        }
    }
    None
}
