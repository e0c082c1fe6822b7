//! What can go wrong in a store, named by what the caller can do about it.

use std::io;
use std::path::PathBuf;

use crate::Expect;

/// Why a store refused or failed.
///
/// After [`Conflict`](Self::Conflict) nothing was written. After [`Io`](Self::Io) and
/// [`NoSpace`](Self::NoSpace) nothing was acknowledged and the call may be repeated. After
/// [`Poisoned`](Self::Poisoned) the outcome of the last write is unknown until the store is
/// reopened; reading goes on.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum StoreError {
    /// The head of the branch is not the one the batch was made for: another writer was first.
    #[error("branch {branch:?} moved: expected {expected}, found {}", Found(*found))]
    Conflict {
        /// The branch of the batch.
        branch: String,
        /// What the caller expected.
        expected: Expect,
        /// The revision found, `None` if there is no such branch.
        found: Option<u64>,
    },
    /// There is no such branch.
    #[error("no branch {branch:?}")]
    NoBranch {
        /// The name asked for.
        branch: String,
    },
    /// The log entries asked for were dropped by an earlier truncation.
    #[error("log of branch {branch:?} starts at entry {start}, entry {from} is gone")]
    LogGone {
        /// The branch whose log was read.
        branch: String,
        /// The first entry asked for.
        from: u64,
        /// The first entry the log still has.
        start: u64,
    },
    /// A branch name that no backend can keep.
    #[error("branch name {branch:?} is not usable: {reason}")]
    InvalidBranch {
        /// The name.
        branch: String,
        /// What is wrong with it.
        reason: &'static str,
    },
    /// A bound of [`limits`](crate::limits) was passed.
    #[error("{what} of {bytes} bytes passes the limit of {limit}")]
    TooLarge {
        /// What is too large.
        what: &'static str,
        /// Its size.
        bytes: usize,
        /// The bound.
        limit: usize,
    },
    /// Another process, or another handle in this one, has the store open for writing.
    #[error("store {} is open for writing by {}; only one writer is allowed", path.display(), Pid(*pid))]
    Locked {
        /// Folder of the store.
        path: PathBuf,
        /// Process id of the holder, if it could be read.
        pid: Option<u32>,
    },
    /// There is no store at this place.
    #[error("no store at {}", path.display())]
    NotFound {
        /// Where it was looked for.
        path: PathBuf,
    },
    /// There is a store already where one was to be created.
    #[error("a store exists at {}", path.display())]
    Exists {
        /// Folder of the store.
        path: PathBuf,
    },
    /// The store was written by a newer version of this program.
    #[error("{} has format {found}, this program reads up to {supported}", path.display())]
    Version {
        /// The file.
        path: PathBuf,
        /// Format found.
        found: u32,
        /// Newest format known here.
        supported: u32,
    },
    /// Stored bytes are not what was written: damaged medium, or changed by someone else.
    #[error("{} is corrupt at byte {offset}: {reason}", path.display())]
    Corrupt {
        /// The damaged file.
        path: PathBuf,
        /// Where in it.
        offset: u64,
        /// What does not fit.
        reason: &'static str,
    },
    /// The medium is full. Nothing was acknowledged; writing goes on once there is room.
    #[error("no space left to {op} {}", path.display())]
    NoSpace {
        /// What was being done.
        op: &'static str,
        /// To which file.
        path: PathBuf,
    },
    /// The backend failed.
    #[error("cannot {op} {}", path.display())]
    Io {
        /// What was being done.
        op: &'static str,
        /// To which file.
        path: PathBuf,
        /// The system's own words.
        source: io::Error,
    },
    /// An earlier write could not be made durable, so what is on the medium is unknown: the store
    /// refuses writes until it is reopened, which verifies what is there.
    #[error("store refuses writes until it is reopened: {cause}")]
    Poisoned {
        /// The first failure.
        cause: String,
    },
    /// The store was opened read-only.
    #[error("store is open read-only")]
    ReadOnly,
    /// The store was closed.
    #[error("store is closed")]
    Closed,
}

impl StoreError {
    /// Whether the outcome of the write is unknown: it may be found done after reopening.
    pub fn outcome_unknown(&self) -> bool {
        matches!(self, Self::Poisoned { .. })
    }
}

struct Found(Option<u64>);

impl std::fmt::Display for Found {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self.0 {
            Some(revision) => write!(f, "revision {revision}"),
            None => f.write_str("no branch"),
        }
    }
}

struct Pid(Option<u32>);

impl std::fmt::Display for Pid {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self.0 {
            Some(pid) => write!(f, "process {pid}"),
            None => f.write_str("another process"),
        }
    }
}
