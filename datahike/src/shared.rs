//! File stores that are open in this process: connections to several branches of a store share it,
//! as its lock allows one process and not two openings.

use std::collections::{BTreeSet, HashMap};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, LazyLock, Weak};

use async_trait::async_trait;
use bytes::Bytes;
use datahike_store::{
    Address, Batch, BlockInfo, Capabilities, FileOptions, FileStore, Head, Mark, Reclaimed, Store,
    StoreError, StoreIdentity, StoreStats,
};
use parking_lot::Mutex;

static OPEN: LazyLock<Mutex<HashMap<PathBuf, Weak<Open>>>> = LazyLock::new(Mutex::default);

#[derive(Debug)]
struct Open {
    store: FileStore,
    /// The branches that somebody writes. None: it is closed, or about to be.
    branches: Mutex<BTreeSet<String>>,
}

/// A file store as the writer of one branch holds it. Closing it gives up the branch, and the store
/// with the last of its branches.
#[derive(Debug)]
pub(crate) struct SharedFile {
    open: Arc<Open>,
    branch: String,
    closed: AtomicBool,
}

/// Opens the store in a folder to write a branch, or shares it with whoever writes another one.
///
/// # Errors
/// As [`FileStore::open`]; [`StoreError::Locked`] also if this process writes the branch already.
pub(crate) fn open(path: &Path, branch: &str) -> Result<SharedFile, StoreError> {
    let place = std::fs::canonicalize(path).unwrap_or_else(|_| path.to_owned());
    let handle = |open| SharedFile { open, branch: branch.to_owned(), closed: false.into() };
    let mut all = OPEN.lock();
    if let Some(open) = all.get(&place).and_then(Weak::upgrade) {
        let mut branches = open.branches.lock();
        if !branches.is_empty() && branches.insert(branch.to_owned()) {
            drop(branches);
            return Ok(handle(open));
        }
    }
    let store = FileStore::open(path, FileOptions::default())?;
    let branches = Mutex::new(BTreeSet::from([branch.to_owned()]));
    let open = Arc::new(Open { store, branches });
    all.retain(|_, open| open.strong_count() > 0);
    all.insert(place, Arc::downgrade(&open));
    Ok(handle(open))
}

impl SharedFile {
    fn store(&self) -> Result<&FileStore, StoreError> {
        match self.closed.load(Ordering::Acquire) {
            true => Err(StoreError::Closed),
            false => Ok(&self.open.store),
        }
    }

    /// Whether that was the last branch.
    fn give_up(&self) -> bool {
        if self.closed.swap(true, Ordering::AcqRel) {
            return false;
        }
        let mut branches = self.open.branches.lock();
        branches.remove(&self.branch);
        branches.is_empty()
    }
}

impl Drop for SharedFile {
    fn drop(&mut self) {
        self.give_up();
    }
}

#[async_trait]
impl Store for SharedFile {
    fn capabilities(&self) -> Capabilities {
        self.open.store.capabilities()
    }

    fn describe(&self) -> String {
        self.open.store.describe()
    }

    fn identity(&self) -> StoreIdentity {
        self.open.store.identity()
    }

    async fn get(&self, addresses: &[Address]) -> Result<Vec<Option<Bytes>>, StoreError> {
        self.store()?.get(addresses).await
    }

    fn get_now(&self, address: &Address) -> Option<Result<Option<Bytes>, StoreError>> {
        match self.store() {
            Ok(store) => store.get_now(address),
            Err(error) => Some(Err(error)),
        }
    }

    async fn contains(&self, addresses: &[Address]) -> Result<Vec<bool>, StoreError> {
        self.store()?.contains(addresses).await
    }

    async fn put(&self, blocks: Vec<(Address, Bytes)>) -> Result<(), StoreError> {
        self.store()?.put(blocks).await
    }

    async fn head(&self, branch: &str) -> Result<Option<Head>, StoreError> {
        self.store()?.head(branch).await
    }

    async fn commit(&self, batch: Batch) -> Result<Head, StoreError> {
        self.store()?.commit(batch).await
    }

    fn commit_now(&self, batch: &Batch) -> Option<Result<Head, StoreError>> {
        match self.store() {
            Ok(store) => store.commit_now(batch),
            Err(error) => Some(Err(error)),
        }
    }

    async fn log(
        &self,
        branch: &str,
        from: u64,
        max_bytes: usize,
    ) -> Result<Vec<Bytes>, StoreError> {
        self.store()?.log(branch, from, max_bytes).await
    }

    async fn branches(&self) -> Result<Vec<String>, StoreError> {
        self.store()?.branches().await
    }

    async fn delete_branch(&self, branch: &str, revision: u64) -> Result<(), StoreError> {
        self.store()?.delete_branch(branch, revision).await
    }

    fn mark(&self) -> Mark {
        self.open.store.mark()
    }

    async fn list(
        &self,
        after: Option<Address>,
        limit: usize,
    ) -> Result<Vec<BlockInfo>, StoreError> {
        self.store()?.list(after, limit).await
    }

    async fn collect(&self, garbage: &[Address], since: Mark) -> Result<Reclaimed, StoreError> {
        self.store()?.collect(garbage, since).await
    }

    async fn stats(&self) -> Result<StoreStats, StoreError> {
        self.store()?.stats().await
    }

    async fn close(&self) -> Result<(), StoreError> {
        match self.give_up() {
            true => self.open.store.close().await,
            false => Ok(()),
        }
    }
}
