//! Decoded blocks: leaves and branches.

use std::sync::Arc;

use crate::block::Address;
use crate::index::leaf::Leaf;

/// A decoded block.
#[derive(Clone, Debug)]
pub enum Node {
    /// Datoms.
    Leaf(Arc<Leaf>),
    /// Children of the level below.
    Branch(Branch),
}

/// What a branch says of one child.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Child {
    pub(crate) address: Address,
    /// Datoms under it.
    pub(crate) count: u64,
    /// Whether its end also depends on what comes after it.
    pub(crate) open: bool,
}

/// A decoded branch: for each child its last key, how many datoms are under it, and its address.
#[derive(Clone, Debug)]
pub struct Branch {
    pub(crate) level: u8,
    pub(crate) keys: Arc<Leaf>,
    pub(crate) counts: Box<[u64]>,
    pub(crate) addresses: Box<[Address]>,
    /// Whether the end of a child also depends on what comes after it.
    pub(crate) open: Box<[bool]>,
}

impl Branch {
    /// How many levels are below: 1 if the children are leaves.
    pub fn level(&self) -> u8 {
        self.level
    }

    /// The children, in order.
    pub fn children(&self) -> &[Address] {
        &self.addresses
    }

    pub(crate) fn child(&self, at: usize) -> Option<Child> {
        let address = *self.addresses.get(at)?;
        Some(Child { address, count: *self.counts.get(at)?, open: *self.open.get(at)? })
    }

    /// How many datoms are under it.
    pub fn count(&self) -> u64 {
        self.counts.iter().fold(0, |sum, n| sum.saturating_add(*n))
    }
}

impl Node {
    /// The datoms of a leaf, the last keys of the children of a branch.
    pub(crate) fn rows(&self) -> &Arc<Leaf> {
        match self {
            Self::Leaf(leaf) => leaf,
            Self::Branch(branch) => &branch.keys,
        }
    }

    /// The addresses that this block names: those of a branch's children.
    pub fn children(&self) -> &[Address] {
        match self {
            Self::Leaf(_) => &[],
            Self::Branch(branch) => &branch.addresses,
        }
    }

    /// About how many bytes it takes in memory, for caches.
    pub fn memory(&self) -> usize {
        match self {
            Self::Leaf(leaf) => leaf.memory(),
            Self::Branch(branch) => {
                branch.keys.memory() + branch.addresses.len() * (size_of::<Address>() + 9)
            }
        }
    }
}
