//! The trait and the values that pass through it.

use std::fmt;
use std::ops::Range;

use async_trait::async_trait;
use bytes::Bytes;
use uuid::Uuid;

use crate::limits::{BLOCK_BYTES_MAX, BRANCH_BYTES_MAX, COMMIT_BYTES_MAX, RECORD_BYTES_MAX};
use crate::{Address, StoreError};

/// Blocks by address, a log and a head per branch.
///
/// All methods may be called from many tasks at once. A future that is dropped before it is ready
/// leaves the write either done or not done, never half done.
///
/// Implement it under `#[async_trait]`, and under `#[async_trait(?Send)]` where the target family
/// is wasm: futures of a browser do not cross threads, the store itself is `Send` everywhere.
#[cfg_attr(not(target_family = "wasm"), async_trait)]
#[cfg_attr(target_family = "wasm", async_trait(?Send))]
pub trait Store: fmt::Debug + Send + Sync {
    /// What this backend can do.
    fn capabilities(&self) -> Capabilities;

    /// A short text for people: kind and place, without secrets.
    fn describe(&self) -> String;

    /// Which store this is.
    fn identity(&self) -> StoreIdentity;

    /// The blocks at these addresses, in this order; `None` where there is none.
    async fn get(&self, addresses: &[Address]) -> Result<Vec<Option<Bytes>>, StoreError>;

    /// The block at this address without waiting for anything but a local medium, where the
    /// backend can; `None` where only [`get`](Self::get) can tell.
    fn get_now(&self, address: &Address) -> Option<Result<Option<Bytes>, StoreError>> {
        let _ = address;
        None
    }

    /// Which of these addresses have a block, in this order, without reading the blocks.
    async fn contains(&self, addresses: &[Address]) -> Result<Vec<bool>, StoreError>;

    /// Stores blocks, durable when it returns. A block that is there already is not written again.
    /// No head moves: this is for the progress of a mirror and for a flush in the background.
    async fn put(&self, blocks: Vec<(Address, Bytes)>) -> Result<(), StoreError>;

    /// The head of a branch. Cheap, and always current: a reader in another process than the
    /// writer sees a new head here.
    async fn head(&self, branch: &str) -> Result<Option<Head>, StoreError>;

    /// Makes the blocks durable, then entries and record together, if the head is as expected.
    /// Durable when it returns; returns the new head.
    ///
    /// # Errors
    /// [`StoreError::Conflict`] when the head is another one; then nothing but blocks was stored.
    async fn commit(&self, batch: Batch) -> Result<Head, StoreError>;

    /// [`commit`](Self::commit) on the calling thread, where the backend can: it saves the change
    /// of threads that an async commit to a local medium costs. `None` where it cannot.
    fn commit_now(&self, batch: &Batch) -> Option<Result<Head, StoreError>> {
        let _ = batch;
        None
    }

    /// Log entries from number `from`, in order: as many as fit into `max_bytes`, at least one if
    /// there is one. Empty at the end of the log. Their numbers are `from`, `from + 1`, …
    ///
    /// # Errors
    /// [`StoreError::LogGone`] when the log no longer has `from`; [`StoreError::NoBranch`].
    async fn log(
        &self,
        branch: &str,
        from: u64,
        max_bytes: usize,
    ) -> Result<Vec<Bytes>, StoreError>;

    /// Names of the branches, sorted.
    async fn branches(&self) -> Result<Vec<String>, StoreError>;

    /// Removes head and log of a branch, if its revision is this one. Its blocks stay until they
    /// are collected. A branch made later under the same name continues revisions and entry
    /// numbers, so that nobody who knew the old one takes the new one for it.
    ///
    /// # Errors
    /// [`StoreError::Conflict`] when the revision is another one or there is no such branch.
    async fn delete_branch(&self, branch: &str, revision: u64) -> Result<(), StoreError>;

    /// The moment from which [`collect`](Self::collect) spares what is put. Take it before looking
    /// for garbage.
    fn mark(&self) -> Mark;

    /// Blocks in order of address, starting after `after`, at most `limit`.
    async fn list(
        &self,
        after: Option<Address>,
        limit: usize,
    ) -> Result<Vec<BlockInfo>, StoreError>;

    /// Removes blocks and gives space back, including that of log entries already dropped. A block
    /// that was put after `since`, even if it was there before, stays: so a flush may run while
    /// garbage is looked for. A reader in another process that has the store open keeps what it
    /// knew when it last looked at a head.
    async fn collect(&self, garbage: &[Address], since: Mark) -> Result<Reclaimed, StoreError>;

    /// Counts and sizes.
    async fn stats(&self) -> Result<StoreStats, StoreError>;

    /// Ends use of the store and gives up its lock. Calls after it fail with
    /// [`StoreError::Closed`]. Closing twice is fine.
    async fn close(&self) -> Result<(), StoreError>;
}

/// Conveniences over [`Store`].
#[cfg_attr(not(target_family = "wasm"), async_trait)]
#[cfg_attr(target_family = "wasm", async_trait(?Send))]
pub trait StoreExt: Store {
    /// The block at one address.
    async fn get_one(&self, address: &Address) -> Result<Option<Bytes>, StoreError> {
        match self.get_now(address) {
            Some(now) => now,
            None => Ok(self.get(std::slice::from_ref(address)).await?.into_iter().next().flatten()),
        }
    }

    /// The addresses among these that have no block.
    async fn missing(&self, addresses: &[Address]) -> Result<Vec<Address>, StoreError> {
        let there = self.contains(addresses).await?;
        Ok(addresses.iter().zip(there).filter(|(_, there)| !there).map(|(a, _)| *a).collect())
    }
}

impl<S: Store + ?Sized> StoreExt for S {}

/// What a backend can do, asked once when a connection is made.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Capabilities {
    /// What is acknowledged survives the process.
    pub durable: bool,
    /// [`Store::get_now`] and [`Store::commit_now`] answer.
    pub synchronous: bool,
    /// Writes are possible; false for a read-only open.
    pub writable: bool,
    /// Other processes may read while this one writes.
    pub shared: bool,
}

impl Capabilities {
    /// All false, for a backend to build on.
    pub const NONE: Self =
        Self { durable: false, synchronous: false, writable: false, shared: false };
}

/// Which store, and which of its lives.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct StoreIdentity {
    /// Names the store, wherever it is kept.
    pub id: Uuid,
    /// Changes when the store is created anew or brought back to an older state: whoever knows
    /// another epoch may know commits that do not exist here.
    pub epoch: Uuid,
}

impl StoreIdentity {
    /// A new identity from the system's randomness.
    pub fn random() -> Self {
        Self { id: Uuid::new_v4(), epoch: Uuid::new_v4() }
    }
}

/// The mutable cell of a branch.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Head {
    /// Rises by one with each commit.
    pub revision: u64,
    /// The newest record, empty if none was ever given.
    pub record: Bytes,
    /// Numbers of the entries the log holds; the end counts all entries ever appended.
    pub log: Range<u64>,
}

/// What the head of a branch must be for a commit to happen.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Expect {
    /// There is no such branch; the commit creates it.
    Absent,
    /// The head has this revision.
    Revision(u64),
}

impl Expect {
    /// Whether a branch at `found` is as expected.
    pub fn holds(self, found: Option<u64>) -> bool {
        match self {
            Self::Absent => found.is_none(),
            Self::Revision(revision) => found == Some(revision),
        }
    }
}

impl From<&Head> for Expect {
    fn from(head: &Head) -> Self {
        Self::Revision(head.revision)
    }
}

impl fmt::Display for Expect {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Absent => f.write_str("no branch"),
            Self::Revision(revision) => write!(f, "revision {revision}"),
        }
    }
}

/// One atomic step of a branch.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Batch {
    /// The branch that steps.
    pub branch: String,
    /// What its head must be.
    pub expect: Expect,
    /// Blocks to be durable before the head moves.
    pub blocks: Vec<(Address, Bytes)>,
    /// Appended to the log, in order.
    pub entries: Vec<Bytes>,
    /// The new head record; `None` keeps the one there is.
    pub record: Option<Bytes>,
    /// Entries before this number may be dropped; `None` keeps the start there is, and so does a
    /// number below it. A number past the end of the log lets it skip on: the entries of this batch
    /// are then numbered from there, as a mirror needs that begins with a later snapshot.
    pub log_start: Option<u64>,
}

impl Batch {
    /// A step that changes nothing yet.
    pub fn new(branch: impl Into<String>, expect: Expect) -> Self {
        Self {
            branch: branch.into(),
            expect,
            blocks: Vec::new(),
            entries: Vec::new(),
            record: None,
            log_start: None,
        }
    }

    /// Checks name and sizes against [`limits`](crate::limits); backends call it first.
    ///
    /// # Errors
    /// [`StoreError::InvalidBranch`], [`StoreError::TooLarge`].
    pub fn check(&self) -> Result<(), StoreError> {
        check_branch(&self.branch)?;
        check_blocks(&self.blocks)?;
        let record = self.record.as_ref().map_or(0, Bytes::len);
        check_size("head record", record, RECORD_BYTES_MAX)?;
        // Four bytes an entry: empty entries must not make an unbounded frame either.
        let entries = self.entries.iter().fold(0usize, |n, e| n.saturating_add(e.len() + 4));
        check_size("commit", record.saturating_add(entries), COMMIT_BYTES_MAX)
    }

    /// The head this batch makes of `found`, which is `None` or the state that a deleted branch of
    /// the name left behind where `expect` is [`Expect::Absent`].
    pub fn step(&self, found: Option<&Head>) -> Head {
        let (revision, record, log) = match found {
            Some(head) => (head.revision, head.record.clone(), head.log.clone()),
            None => (0, Bytes::new(), 0..0),
        };
        let start = self.log_start.unwrap_or(0).max(log.start);
        let first = log.end.max(start);
        Head {
            revision: revision + 1,
            record: self.record.clone().unwrap_or(record),
            log: start..first.saturating_add(self.entries.len() as u64),
        }
    }
}

/// Checks a branch name: one to [`BRANCH_BYTES_MAX`] bytes, no control characters.
///
/// # Errors
/// [`StoreError::InvalidBranch`].
pub(crate) fn check_branch(branch: &str) -> Result<(), StoreError> {
    let reason = if branch.is_empty() {
        "it is empty"
    } else if branch.len() > BRANCH_BYTES_MAX {
        "it is longer than 64 bytes"
    } else if branch.chars().any(char::is_control) {
        "it has control characters"
    } else {
        return Ok(());
    };
    // A hostile name must not become a hostile message.
    Err(StoreError::InvalidBranch {
        branch: branch.chars().take(BRANCH_BYTES_MAX).collect(),
        reason,
    })
}

pub(crate) fn check_blocks(blocks: &[(Address, Bytes)]) -> Result<(), StoreError> {
    blocks.iter().try_for_each(|(_, block)| check_size("block", block.len(), BLOCK_BYTES_MAX))
}

fn check_size(what: &'static str, bytes: usize, limit: usize) -> Result<(), StoreError> {
    if bytes > limit { Err(StoreError::TooLarge { what, bytes, limit }) } else { Ok(()) }
}

/// A moment in the life of an open store; see [`Store::mark`]. It means nothing to another handle.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Mark(pub u64);

/// A block in a listing.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct BlockInfo {
    /// Its name.
    pub address: Address,
    /// Its size, uncompressed, in bytes.
    pub bytes: u64,
}

/// What [`Store::collect`] gave back.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Reclaimed {
    /// Blocks removed.
    pub blocks: u64,
    /// Bytes given back on the medium, less what was rewritten.
    pub bytes: u64,
}

/// Counts and sizes of a store.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct StoreStats {
    /// Blocks.
    pub blocks: u64,
    /// Their bytes, uncompressed.
    pub block_bytes: u64,
    /// Bytes that the blocks take on the medium, with their indexes.
    pub stored_bytes: u64,
    /// Bytes that the logs take on the medium, with room prepared for more.
    pub log_bytes: u64,
    /// Files, or the backend's counterpart; 0 for memory.
    pub files: u64,
    /// Branches.
    pub branches: u64,
}
