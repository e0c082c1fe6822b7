//! Blocks in memory: the cache between the engine, which never waits, and a store, which may.

use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use bytes::Bytes;
use datahike_core::block::{Address, BlockSource, Missing};
use datahike_core::index::Node;
use datahike_store::{Address as StoreAddress, Store, StoreExt};
use parking_lot::Mutex;
use quick_cache::sync::{Cache, DefaultLifecycle};
use quick_cache::{DefaultHashBuilder, OptionsBuilder, Weighter};

use crate::error::Error;

/// How often an evaluation may stop for missing blocks before it is given up. Each round fetches a
/// level of a tree or a clause of a query, so a real one ends far below.
const FETCH_ROUNDS_MAX: usize = 10_000;

/// Parts of a large cache that are locked apart. Said outright, for to ask the system how many
/// processors there are takes longer than to open a database.
const CACHE_SHARDS: usize = 16;

/// Decoded blocks of one store, bounded by bytes, shared by every snapshot that reads it.
#[derive(Debug)]
pub struct Blocks {
    store: Arc<dyn Store>,
    cache: Cache<Address, Arc<Node>, ByBytes>,
    /// What a running evaluation has fetched: must stay until it has run through, or a cache that
    /// is smaller than the evaluation's need would make it fault forever.
    pinned: Mutex<Pins>,
    /// A block that was there and could not be used; reported by the next [`Blocks::fetch`].
    damaged: Mutex<Option<Error>>,
    reads: AtomicU64,
}

#[derive(Debug, Default)]
struct Pins {
    evaluations: usize,
    nodes: HashMap<Address, Arc<Node>>,
}

#[derive(Clone, Debug)]
struct ByBytes;

impl Weighter<Address, Arc<Node>> for ByBytes {
    fn weight(&self, _: &Address, node: &Arc<Node>) -> u64 {
        node.memory() as u64
    }
}

impl Blocks {
    /// A cache of at most `capacity_bytes` over `store`.
    pub fn new(store: Arc<dyn Store>, capacity_bytes: u64) -> Self {
        // A decoded leaf of the usual size weighs about 10 KB.
        let expected = usize::try_from(capacity_bytes / 10_000).unwrap_or(usize::MAX).max(16);
        let mut options = OptionsBuilder::new();
        options.estimated_items_capacity(expected).weight_capacity(capacity_bytes);
        Self {
            store,
            cache: match options.shards(CACHE_SHARDS).build() {
                Ok(options) => Cache::with_options(
                    options,
                    ByBytes,
                    DefaultHashBuilder::default(),
                    DefaultLifecycle::default(),
                ),
                Err(_) => Cache::with_weighter(expected, capacity_bytes, ByBytes),
            },
            pinned: Mutex::default(),
            damaged: Mutex::default(),
            reads: AtomicU64::new(0),
        }
    }

    /// The store under the cache.
    pub fn store(&self) -> &Arc<dyn Store> {
        &self.store
    }

    /// Blocks read from the store since this was made.
    pub fn reads(&self) -> u64 {
        self.reads.load(Ordering::Relaxed)
    }

    /// Bytes of decoded blocks held.
    pub fn cached_bytes(&self) -> u64 {
        self.cache.weight()
    }

    /// Puts a block that was just made or received where the next read finds it.
    pub fn insert(&self, address: Address, node: Arc<Node>) {
        self.cache.insert(address, node);
    }

    /// Runs `evaluate` until it no longer faults, fetching what it lacks in between.
    ///
    /// # Errors
    /// What `evaluate` fails with for any other reason; [`Error::BlockLost`] when the store does
    /// not have a block that the snapshot names; what the store fails with.
    pub async fn settle<T, E>(&self, mut evaluate: impl FnMut() -> Result<T, E>) -> Result<T, Error>
    where
        E: Faulting + Into<Error>,
    {
        let mut evaluation = None;
        for _ in 0..FETCH_ROUNDS_MAX {
            match evaluate() {
                Ok(value) => return Ok(value),
                Err(error) => match error.missing() {
                    Some(missing) => {
                        evaluation.get_or_insert_with(|| Evaluation::begin(self));
                        self.fetch(missing).await?;
                    }
                    None => return Err(error.into()),
                },
            }
        }
        Err(Error::FetchRounds { rounds: FETCH_ROUNDS_MAX })
    }

    /// [`Blocks::settle`] where nothing may be awaited: reads only what the store can give at once.
    ///
    /// # Errors
    /// As [`Blocks::settle`]; [`Error::NotAtOnce`] when the store can only be read asynchronously.
    pub fn settle_now<T, E>(&self, mut evaluate: impl FnMut() -> Result<T, E>) -> Result<T, Error>
    where
        E: Faulting + Into<Error>,
    {
        match evaluate() {
            Ok(value) => Ok(value),
            Err(error) => match error.missing() {
                // `node` reads the store itself where it can, so what is missing here is damaged,
                // lost, or out of reach without waiting.
                Some(missing) => Err(self.damaged.lock().take().unwrap_or_else(|| {
                    let address = missing.addresses[0];
                    match self.store.get_now(&StoreAddress(address.0)) {
                        None => Error::NotAtOnce { address },
                        Some(_) => Error::BlockLost { address },
                    }
                })),
                None => Err(error.into()),
            },
        }
    }

    /// Fetches these blocks, verifies and decodes them.
    ///
    /// # Errors
    /// [`Error::BlockLost`], [`Error::BlockDamaged`], or what the store fails with.
    pub async fn fetch(&self, missing: &Missing) -> Result<(), Error> {
        if let Some(error) = self.damaged.lock().take() {
            return Err(error);
        }
        let wanted: Vec<_> = missing.addresses.iter().map(|a| StoreAddress(a.0)).collect();
        let found = self.store.get(&wanted).await?;
        for (address, bytes) in missing.addresses.iter().zip(found) {
            let bytes = bytes.ok_or(Error::BlockLost { address: *address })?;
            let node = self.decode(address, &bytes)?;
            let mut pinned = self.pinned.lock();
            if pinned.evaluations > 0 {
                pinned.nodes.insert(*address, node);
            }
        }
        Ok(())
    }

    /// The bytes of a block that is no index node, verified.
    ///
    /// # Errors
    /// [`Error::BlockLost`], [`Error::BlockDamaged`], or what the store fails with.
    pub async fn read(&self, address: &Address) -> Result<Bytes, Error> {
        let found = self.store.get_one(&StoreAddress(address.0)).await?;
        let bytes = found.ok_or(Error::BlockLost { address: *address })?;
        Self::verify(address, &bytes)?;
        Ok(bytes)
    }

    /// Recomputes the address of a block.
    pub(crate) fn verify(address: &Address, bytes: &Bytes) -> Result<(), Error> {
        let found = Address::of(bytes);
        if found == *address {
            return Ok(());
        }
        let reason = format!("its bytes hash to {found}");
        Err(Error::BlockDamaged { address: *address, reason })
    }

    fn decode(&self, address: &Address, bytes: &Bytes) -> Result<Arc<Node>, Error> {
        self.reads.fetch_add(1, Ordering::Relaxed);
        Self::verify(address, bytes)?;
        let node = Node::decode(bytes).map_err(|error| Error::BlockDamaged {
            address: *address,
            reason: error.to_string(),
        })?;
        let node = Arc::new(node);
        self.cache.insert(*address, node.clone());
        Ok(node)
    }
}

impl BlockSource for Blocks {
    fn node(&self, address: &Address) -> Option<Arc<Node>> {
        if let Some(node) = self.resident(address) {
            return Some(node);
        }
        let read = self.store.get_now(&StoreAddress(address.0))?;
        let decoded = read
            .map_err(Error::from)
            .and_then(|bytes| bytes.ok_or(Error::BlockLost { address: *address }))
            .and_then(|bytes| self.decode(address, &bytes));
        match decoded {
            Ok(node) => Some(node),
            Err(error) => {
                *self.damaged.lock() = Some(error);
                None
            }
        }
    }

    fn resident(&self, address: &Address) -> Option<Arc<Node>> {
        self.cache.get(address).or_else(|| self.pinned.lock().nodes.get(address).cloned())
    }
}

/// An error that may only mean "some blocks are not in memory".
pub trait Faulting {
    /// The blocks to fetch before running again, if that is all that is wrong.
    fn missing(&self) -> Option<&Missing>;
}

impl Faulting for Missing {
    fn missing(&self) -> Option<&Missing> {
        Some(self)
    }
}

/// While one of these lives, fetched blocks stay.
#[derive(Debug)]
struct Evaluation<'a>(&'a Blocks);

impl<'a> Evaluation<'a> {
    fn begin(blocks: &'a Blocks) -> Self {
        blocks.pinned.lock().evaluations += 1;
        Self(blocks)
    }
}

impl Drop for Evaluation<'_> {
    fn drop(&mut self) {
        let mut pinned = self.0.pinned.lock();
        pinned.evaluations -= 1;
        if pinned.evaluations == 0 {
            pinned.nodes.clear();
        }
    }
}
