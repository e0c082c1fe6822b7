//! Blocks in memory.

use std::collections::HashMap;
use std::hash::{BuildHasherDefault, Hasher};
use std::sync::{Arc, PoisonError, RwLock};

use crate::block::{Address, BlockSource};
use crate::index::codec::DecodeError;
use crate::index::node::Node;

/// Decoded blocks that stay in memory until they are removed: for databases that live there, and for
/// whoever holds all blocks of a snapshot anyway.
#[derive(Debug, Default)]
pub struct MemoryBlocks {
    nodes: RwLock<HashMap<Address, Arc<Node>, BuildHasherDefault<FirstBytes>>>,
}

/// Addresses are hashes already: their first bytes will do.
#[derive(Debug, Default)]
struct FirstBytes(u64);

impl Hasher for FirstBytes {
    fn finish(&self) -> u64 {
        self.0
    }

    fn write(&mut self, bytes: &[u8]) {
        if let Some(first) = bytes.first_chunk() {
            self.0 = u64::from_le_bytes(*first);
        }
    }

    fn write_usize(&mut self, _: usize) {}
}

impl MemoryBlocks {
    /// Decodes and keeps blocks.
    ///
    /// # Errors
    /// If one cannot be decoded; those before it are kept.
    pub fn insert<'a>(
        &self,
        blocks: impl IntoIterator<Item = &'a (Address, Vec<u8>)>,
    ) -> Result<(), DecodeError> {
        for (address, bytes) in blocks {
            let node = Arc::new(Node::decode(bytes)?);
            self.nodes.write().unwrap_or_else(PoisonError::into_inner).insert(*address, node);
        }
        Ok(())
    }

    /// Forgets a block.
    pub fn remove(&self, address: &Address) {
        self.nodes.write().unwrap_or_else(PoisonError::into_inner).remove(address);
    }

    /// How many there are.
    pub fn len(&self) -> usize {
        self.nodes.read().unwrap_or_else(PoisonError::into_inner).len()
    }

    /// Whether there is none.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }
}

impl BlockSource for MemoryBlocks {
    fn node(&self, address: &Address) -> Option<Arc<Node>> {
        self.nodes.read().unwrap_or_else(PoisonError::into_inner).get(address).cloned()
    }
}
