//! A store in the memory of this process: for tests, for caches, for a browser's session.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use async_trait::async_trait;
use bytes::Bytes;
use parking_lot::RwLock;

use crate::store::{check_blocks, check_branch};
use crate::{
    Address, Batch, BlockInfo, Capabilities, Head, Mark, Reclaimed, Store, StoreError,
    StoreIdentity, StoreStats,
};

/// Keeps everything in memory and nothing after the last handle is gone.
///
/// Share it as an `Arc`, or give everyone a [`handle`](Self::handle) to close.
#[derive(Debug)]
pub struct MemoryStore {
    identity: StoreIdentity,
    state: Arc<RwLock<State>>,
    closed: AtomicBool,
}

#[derive(Debug, Default)]
struct State {
    blocks: BTreeMap<Address, Block>,
    branches: BTreeMap<String, Branch>,
    clock: u64,
}

#[derive(Debug)]
struct Block {
    bytes: Bytes,
    put: u64,
}

#[derive(Debug)]
struct Branch {
    head: Head,
    deleted: bool,
    /// Entries of `head.log`.
    entries: std::collections::VecDeque<Bytes>,
}

impl MemoryStore {
    /// An empty store with a random identity.
    pub fn new() -> Self {
        Self::with_identity(StoreIdentity::random())
    }

    /// An empty store with this identity, for runs that must repeat exactly.
    pub fn with_identity(identity: StoreIdentity) -> Self {
        Self { identity, state: Arc::default(), closed: AtomicBool::new(false) }
    }

    /// Another handle to the same contents: closing one leaves the others open.
    #[must_use]
    pub fn handle(&self) -> Self {
        Self {
            identity: self.identity,
            state: Arc::clone(&self.state),
            closed: AtomicBool::new(false),
        }
    }

    fn check_open(&self) -> Result<(), StoreError> {
        if self.closed.load(Ordering::Acquire) { Err(StoreError::Closed) } else { Ok(()) }
    }

    fn read<T>(&self, read: impl FnOnce(&State) -> Result<T, StoreError>) -> Result<T, StoreError> {
        self.check_open()?;
        read(&self.state.read())
    }

    fn write<T>(
        &self,
        write: impl FnOnce(&mut State) -> Result<T, StoreError>,
    ) -> Result<T, StoreError> {
        self.check_open()?;
        write(&mut self.state.write())
    }
}

impl Default for MemoryStore {
    fn default() -> Self {
        Self::new()
    }
}

impl State {
    fn put(&mut self, blocks: &[(Address, Bytes)]) {
        self.clock += 1;
        for (address, bytes) in blocks {
            let block = self
                .blocks
                .entry(*address)
                .or_insert_with(|| Block { bytes: bytes.clone(), put: 0 });
            block.put = self.clock;
        }
    }

    fn branch(&self, name: &str) -> Option<&Branch> {
        self.branches.get(name).filter(|branch| !branch.deleted)
    }

    fn commit(&mut self, batch: &Batch) -> Result<Head, StoreError> {
        let found = self.branch(&batch.branch).map(|branch| branch.head.revision);
        if !batch.expect.holds(found) {
            return Err(StoreError::Conflict {
                branch: batch.branch.clone(),
                expected: batch.expect,
                found,
            });
        }
        self.put(&batch.blocks);
        let old = self.branches.remove(&batch.branch);
        let head = batch.step(old.as_ref().map(|branch| &branch.head));
        let mut entries = old.map(|branch| branch.entries).unwrap_or_default();
        entries.extend(batch.entries.iter().cloned());
        let held = (head.log.end - head.log.start) as usize;
        entries.drain(..entries.len().saturating_sub(held));
        let branch = Branch { head: head.clone(), deleted: false, entries };
        self.branches.insert(batch.branch.clone(), branch);
        Ok(head)
    }
}

#[cfg_attr(not(target_family = "wasm"), async_trait)]
#[cfg_attr(target_family = "wasm", async_trait(?Send))]
impl Store for MemoryStore {
    fn capabilities(&self) -> Capabilities {
        Capabilities { synchronous: true, writable: true, ..Capabilities::NONE }
    }

    fn describe(&self) -> String {
        format!("memory:{}", self.identity.id)
    }

    fn identity(&self) -> StoreIdentity {
        self.identity
    }

    async fn get(&self, addresses: &[Address]) -> Result<Vec<Option<Bytes>>, StoreError> {
        self.read(|state| {
            Ok(addresses.iter().map(|a| state.blocks.get(a).map(|b| b.bytes.clone())).collect())
        })
    }

    fn get_now(&self, address: &Address) -> Option<Result<Option<Bytes>, StoreError>> {
        Some(self.read(|state| Ok(state.blocks.get(address).map(|block| block.bytes.clone()))))
    }

    async fn contains(&self, addresses: &[Address]) -> Result<Vec<bool>, StoreError> {
        self.read(|state| Ok(addresses.iter().map(|a| state.blocks.contains_key(a)).collect()))
    }

    async fn put(&self, blocks: Vec<(Address, Bytes)>) -> Result<(), StoreError> {
        check_blocks(&blocks)?;
        self.write(|state| {
            state.put(&blocks);
            Ok(())
        })
    }

    async fn head(&self, branch: &str) -> Result<Option<Head>, StoreError> {
        check_branch(branch)?;
        self.read(|state| Ok(state.branch(branch).map(|branch| branch.head.clone())))
    }

    async fn commit(&self, batch: Batch) -> Result<Head, StoreError> {
        batch.check()?;
        self.write(|state| state.commit(&batch))
    }

    fn commit_now(&self, batch: &Batch) -> Option<Result<Head, StoreError>> {
        Some(batch.check().and_then(|()| self.write(|state| state.commit(batch))))
    }

    async fn log(
        &self,
        branch: &str,
        from: u64,
        max_bytes: usize,
    ) -> Result<Vec<Bytes>, StoreError> {
        check_branch(branch)?;
        self.read(|state| {
            let Some(found) = state.branch(branch) else {
                return Err(StoreError::NoBranch { branch: branch.to_owned() });
            };
            let start = found.head.log.start;
            let Some(skip) = from.checked_sub(start) else {
                return Err(StoreError::LogGone { branch: branch.to_owned(), from, start });
            };
            let skip = usize::try_from(skip).unwrap_or(usize::MAX);
            let mut room = max_bytes;
            let mut entries = Vec::new();
            for entry in found.entries.iter().skip(skip) {
                if !entries.is_empty() && entry.len() > room {
                    break;
                }
                room = room.saturating_sub(entry.len());
                entries.push(entry.clone());
            }
            Ok(entries)
        })
    }

    async fn branches(&self) -> Result<Vec<String>, StoreError> {
        self.read(|state| {
            let live = state.branches.iter().filter(|(_, branch)| !branch.deleted);
            Ok(live.map(|(name, _)| name.clone()).collect())
        })
    }

    async fn delete_branch(&self, branch: &str, revision: u64) -> Result<(), StoreError> {
        check_branch(branch)?;
        self.write(|state| {
            let found = state.branch(branch).map(|branch| branch.head.revision);
            let expected = crate::Expect::Revision(revision);
            if let Some(live) = state.branches.get_mut(branch)
                && expected.holds(found)
            {
                live.deleted = true;
                live.entries.clear();
                let end = live.head.log.end;
                live.head = Head { revision: revision + 1, record: Bytes::new(), log: end..end };
                return Ok(());
            }
            Err(StoreError::Conflict { branch: branch.to_owned(), expected, found })
        })
    }

    fn mark(&self) -> Mark {
        Mark(self.state.read().clock)
    }

    async fn list(
        &self,
        after: Option<Address>,
        limit: usize,
    ) -> Result<Vec<BlockInfo>, StoreError> {
        use std::ops::Bound;
        self.read(|state| {
            let lower = after.map_or(Bound::Unbounded, Bound::Excluded);
            let page = state.blocks.range((lower, Bound::Unbounded)).take(limit);
            Ok(page
                .map(|(address, block)| BlockInfo {
                    address: *address,
                    bytes: block.bytes.len() as u64,
                })
                .collect())
        })
    }

    async fn collect(&self, garbage: &[Address], since: Mark) -> Result<Reclaimed, StoreError> {
        self.write(|state| {
            let mut reclaimed = Reclaimed::default();
            for address in garbage {
                if state.blocks.get(address).is_some_and(|block| block.put <= since.0)
                    && let Some(block) = state.blocks.remove(address)
                {
                    reclaimed.blocks += 1;
                    reclaimed.bytes += block.bytes.len() as u64;
                }
            }
            Ok(reclaimed)
        })
    }

    async fn stats(&self) -> Result<StoreStats, StoreError> {
        self.read(|state| {
            let block_bytes = state.blocks.values().map(|block| block.bytes.len() as u64).sum();
            let live = state.branches.values().filter(|branch| !branch.deleted);
            let entries = live.clone().flat_map(|branch| &branch.entries);
            Ok(StoreStats {
                blocks: state.blocks.len() as u64,
                block_bytes,
                stored_bytes: block_bytes,
                log_bytes: entries.map(|entry| entry.len() as u64).sum(),
                files: 0,
                branches: live.count() as u64,
            })
        })
    }

    async fn close(&self) -> Result<(), StoreError> {
        self.closed.store(true, Ordering::Release);
        Ok(())
    }
}
