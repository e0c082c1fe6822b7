//! Blocks: immutable encoded index nodes, named by the hash of their bytes, and what happens when
//! one that is needed is not in memory.

mod patch;

use std::fmt;
use std::hash::{Hash, Hasher};
use std::sync::Arc;

pub use self::patch::{MAX_BLOCK, PatchError, apply_patch, make_patch, pack, unpack};

/// The address of a block: the BLAKE3 hash of its uncompressed bytes.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct Address(pub [u8; 32]);

impl Hash for Address {
    /// Any eight bytes of it are a hash already.
    fn hash<H: Hasher>(&self, state: &mut H) {
        let [a, b, c, d, e, f, g, h, ..] = self.0;
        state.write_u64(u64::from_le_bytes([a, b, c, d, e, f, g, h]));
    }
}

impl Address {
    /// The address of these bytes.
    pub fn of(bytes: &[u8]) -> Self {
        Self(*blake3::hash(bytes).as_bytes())
    }
}

impl fmt::Display for Address {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.iter().try_for_each(|byte| write!(f, "{byte:02x}"))
    }
}

impl fmt::Debug for Address {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Address({self})")
    }
}

/// The blocks without which an evaluation could not go on: all that it could already tell it will
/// need, never empty. Whoever called fetches them and calls again.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{} block(s) not in memory, the first is {}", .addresses.len(), .addresses[0])]
pub struct Missing {
    /// In no particular order, without duplicates.
    pub addresses: Vec<Address>,
}

impl Missing {
    /// These addresses, each once. There must be one at least.
    pub fn of(addresses: impl IntoIterator<Item = Address>) -> Self {
        let mut addresses: Vec<Address> = addresses.into_iter().collect();
        addresses.sort_unstable();
        addresses.dedup();
        Self { addresses }
    }
}

/// Where the engine finds blocks. Implementations answer from memory (or from a file that can be
/// read at once) and never wait; they hold *decoded* nodes so that a warm scan decodes nothing.
pub trait BlockSource: Send + Sync + fmt::Debug {
    /// The decoded node at `address`, or `None` if it must be fetched first.
    fn node(&self, address: &Address) -> Option<Arc<crate::index::Node>>;

    /// The same for who can do without: never reads a file.
    fn resident(&self, address: &Address) -> Option<Arc<crate::index::Node>> {
        self.node(address)
    }
}

/// The addresses that a block names: those of its children, none in a leaf.
///
/// # Errors
/// If the bytes are no block.
pub fn children(block: &[u8]) -> Result<Vec<Address>, crate::index::DecodeError> {
    Ok(crate::index::Node::decode(block)?.children().to_vec())
}
