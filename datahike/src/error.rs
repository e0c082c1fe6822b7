//! Everything that can go wrong with a database, with the stable codes that clients may depend on.

use std::sync::Arc;

use datahike_core::block::{Address, Missing};
use datahike_core::commit::{CommitError, CommitId, DedupError, VerifyError};
use datahike_core::datom::TxId;
use datahike_core::db::DbError;
use datahike_core::query::QueryError;
use datahike_core::tx::TxError;
use datahike_store::StoreError;
use datahike_sync::{Cause, ReplicaError, SyncError};
use datahike_value::Value;

use crate::blocks::Faulting;
use crate::config::ConfigError;

/// Why an operation on a database failed.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// The configuration is not one.
    #[error(transparent)]
    Config(#[from] ConfigError),
    /// The transaction was refused; nothing of it happened.
    #[error(transparent)]
    Tx(#[from] TxError),
    /// The snapshot could not answer.
    #[error(transparent)]
    Db(#[from] DbError),
    /// The query could not be read, or not be answered.
    #[error(transparent)]
    Query(#[from] QueryError),
    /// A request that was sent before.
    #[error(transparent)]
    Dedup(#[from] DedupError),
    /// The store failed or refused.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// What the store holds is not what a database writes.
    #[error(transparent)]
    Commit(#[from] CommitError),
    /// A block that a snapshot names is not in the store.
    #[error(
        "block {address} is not in the store: it was collected, or the store is damaged; mirror or restore it again"
    )]
    BlockLost {
        /// The block.
        address: Address,
    },
    /// A block is not what its address says.
    #[error("block {address} is damaged: {reason}; mirror or restore the store again")]
    BlockDamaged {
        /// The block.
        address: Address,
        /// What is wrong.
        reason: String,
    },
    /// A block must be fetched, and the caller cannot wait.
    #[error("block {address} must be fetched first: use the asynchronous form of this operation")]
    NotAtOnce {
        /// The block.
        address: Address,
    },
    /// An evaluation that never got all of its blocks.
    #[error("the evaluation still lacked blocks after {rounds} rounds of fetching")]
    FetchRounds {
        /// How often it was run.
        rounds: usize,
    },
    /// There is no such database.
    #[error("no database at {place}: create it first")]
    NoDatabase {
        /// Where it was looked for.
        place: String,
    },
    /// The store has no such branch.
    #[error("there is no branch {branch}, only {}", .known.join(", "))]
    NoBranch {
        /// The name.
        branch: String,
        /// The branches that there are.
        known: Vec<String>,
    },
    /// There is a branch already.
    #[error("branch {branch} exists: delete it first, or take another name")]
    BranchExists {
        /// Its name.
        branch: String,
    },
    /// The branch that every database has cannot be deleted.
    #[error("branch {branch} cannot be deleted: delete the database, or force the branch")]
    MainBranch {
        /// Its name.
        branch: String,
    },
    /// No branch of the store leads to this commit.
    #[error("no branch leads to commit {commit}{reason}")]
    NoCommit {
        /// The commit.
        commit: CommitId,
        /// Why it may have been there, as the rest of a sentence; empty if nothing was given back.
        reason: String,
    },
    /// A commit was to have more parents than it may.
    #[error("a commit cannot have {parents} parents, {max} are allowed: merge in steps")]
    TooManyParents {
        /// How many.
        parents: usize,
        /// The bound.
        max: usize,
    },
    /// The stored trees of a snapshot are not those that its commits make.
    #[error("the indexes stored for commit {commit}, number {seq}, are not those of its datoms")]
    OtherIndexes {
        /// Number of the commit.
        seq: u64,
        /// The commit.
        commit: CommitId,
    },
    /// The indexes of a snapshot do not hold what they should.
    #[error(transparent)]
    Indexes(#[from] VerifyError),
    /// There is a database already.
    #[error("a database exists at {place}: delete it first, or connect to it")]
    DatabaseExists {
        /// Where.
        place: String,
    },
    /// What the configuration asks for and what the store holds differ.
    #[error("{key} is {stored} in the stored database, the configuration says {given}")]
    Mismatch {
        /// The configuration key.
        key: &'static str,
        /// What the database was created with.
        stored: String,
        /// What was asked for.
        given: String,
    },
    /// This program cannot do what the configuration asks for.
    #[error("{what} is not available here: {hint}")]
    Unavailable {
        /// What.
        what: String,
        /// What to do instead.
        hint: &'static str,
    },
    /// The connection was opened for reading.
    #[error("the connection to {place} is read-only")]
    ReadOnly {
        /// The database.
        place: String,
    },
    /// Another writer took over the branch; this one has stopped and has overwritten nothing.
    #[error("another writer took over branch {branch:?}: connect again")]
    WriterLost {
        /// The branch.
        branch: String,
    },
    /// The connection was released.
    #[error("the connection was released")]
    Released,
    /// Something takes longer than was allowed for it. Whether it happened is not known.
    #[error("{what} took longer than {millis} ms")]
    Timeout {
        /// What was waited for.
        what: &'static str,
        /// How long.
        millis: u64,
    },
    /// A transaction is too large for one log entry.
    #[error("the transaction takes {bytes} bytes in the log, {max} are allowed: split it")]
    TransactionTooLarge {
        /// Its size.
        bytes: usize,
        /// The bound.
        max: usize,
    },
    /// The system gave no thread to work on.
    #[error("cannot start {what}")]
    Worker {
        /// What was to be started.
        what: &'static str,
        /// Why not.
        source: std::io::Error,
    },
    /// The transaction could not be made durable: it did not happen, unless the store says that its
    /// state is unknown until it is reopened.
    #[error("the transaction is not durable: {reason}")]
    NotDurable {
        /// Stable code of what failed.
        code: String,
        /// What failed.
        reason: String,
    },
    /// The other peer refused or failed; code and words are its own.
    #[error("{message}")]
    Remote {
        /// Its stable code, without the colon.
        code: String,
        /// Its words.
        message: String,
        /// What it said besides, as data.
        data: Value,
    },
    /// The connection to the other peer failed.
    #[error("{place}: {reason}")]
    Connection {
        /// The peer.
        place: String,
        /// What happened.
        reason: String,
    },
    /// The mirror of the other peer's database has stopped. What is in it can still be read.
    #[error("the mirror of {place} has stopped: {source}")]
    Mirror {
        /// The peer.
        place: String,
        /// Why.
        source: Arc<SyncError>,
    },
    /// A watched query could not be answered.
    #[error(transparent)]
    Watch {
        /// Why, for all who watch it.
        source: Arc<Self>,
    },
    /// An earlier transaction of a sequence was refused; this one was not looked at.
    #[error(
        "request {refused}, earlier in the sequence, was refused: this one was not carried out"
    )]
    AfterRefusal {
        /// Number of the refused request.
        refused: u64,
    },
    /// An operation was called with other arguments than it takes.
    #[error("{operation}: {reason}")]
    Arguments {
        /// The operation.
        operation: &'static str,
        /// What is wrong with them.
        reason: String,
    },
    /// A transaction that was stated before under this id is not in the log any more.
    #[error("transaction {tx} is no longer in the log")]
    LogGone {
        /// The transaction.
        tx: TxId,
    },
}

impl Error {
    /// The same for each of those whose transactions were to be committed together.
    pub(crate) fn not_durable(&self) -> Self {
        match self {
            Self::NotDurable { code, reason } => {
                Self::NotDurable { code: code.clone(), reason: reason.clone() }
            }
            Self::WriterLost { branch } => Self::WriterLost { branch: branch.clone() },
            error => Self::NotDurable { code: error.code().to_owned(), reason: error.to_string() },
        }
    }

    /// The stable code, without its colon: Datahike's where it has one.
    pub fn code(&self) -> &str {
        match self {
            Self::Config(_) => "config/invalid",
            Self::Tx(error) => error.code().unwrap_or("block/missing"),
            Self::Db(error) => error.code().unwrap_or("block/missing"),
            Self::Query(error) => error.code(),
            Self::Dedup(DedupError::OtherBody { .. }) => "transact/request-reused",
            Self::Dedup(_) => "transact/unknown-outcome",
            Self::Store(StoreError::Locked { .. }) => "store/locked",
            Self::Store(StoreError::NoSpace { .. }) => "store/no-space",
            Self::Store(StoreError::ReadOnly) | Self::ReadOnly { .. } => "connection/read-only",
            Self::Store(StoreError::Corrupt { .. }) => "store/corrupt",
            Self::Store(StoreError::InvalidBranch { .. }) => "branch/name",
            Self::Store(_) => "store/failed",
            Self::Commit(_) | Self::OtherIndexes { .. } | Self::Indexes(_) => "store/corrupt",
            Self::BlockLost { .. } => "block/lost",
            Self::BlockDamaged { .. } => "block/damaged",
            Self::NotAtOnce { .. } | Self::FetchRounds { .. } => "block/missing",
            Self::NoDatabase { .. } => "database/missing",
            Self::DatabaseExists { .. } => "database/exists",
            Self::NoBranch { .. } => "branch/missing",
            Self::BranchExists { .. } => "branch/exists",
            Self::MainBranch { .. } => "branch/main",
            Self::NoCommit { .. } => "commit/missing",
            Self::TooManyParents { .. } => "commit/too-many-parents",
            Self::Mismatch { .. } => "config/mismatch",
            Self::Unavailable { .. } => "config/unavailable",
            Self::WriterLost { .. } => "writer/lost",
            Self::Released => "connection/released",
            Self::Timeout { .. } => "timeout",
            Self::TransactionTooLarge { .. } => "transact/too-large",
            Self::Worker { .. } => "system/no-thread",
            Self::NotDurable { code, .. } | Self::Remote { code, .. } => code,
            Self::Connection { .. } => "connection/failed",
            Self::Mirror { source, .. } => mirror_code(source),
            Self::Watch { source } => source.code(),
            Self::LogGone { .. } => "log/gone",
            Self::AfterRefusal { .. } => "transact/after-refusal",
            Self::Arguments { .. } => "arguments/invalid",
        }
    }
}

fn mirror_code(error: &SyncError) -> &str {
    match error {
        SyncError::Refused { cause, .. } => match cause {
            Cause::UnknownDatabase => "database/missing",
            Cause::Deleted => "database/deleted",
            Cause::NotAllowed => "peer/forbidden",
            Cause::Shutdown => "peer/stopping",
            Cause::Damaged => "block/damaged",
            Cause::Reset(_) => "mirror/other-history",
            _ => "mirror/refused",
        },
        SyncError::Replica(ReplicaError::Corrupt { .. }) => "block/damaged",
        SyncError::Replica(ReplicaError::Refused(_)) => "mirror/other-history",
        SyncError::Replica(ReplicaError::Store { source, .. }) => {
            source.downcast_ref::<Error>().map_or("store/failed", Error::code)
        }
        SyncError::Unavailable { .. } | SyncError::Incomplete { .. } => "block/lost",
        SyncError::Timeout { .. } => "timeout",
        SyncError::Offline => "connection/failed",
        SyncError::Stopped => "connection/released",
        _ => "mirror/failed",
    }
}

impl From<Missing> for Error {
    fn from(missing: Missing) -> Self {
        Self::Db(missing.into())
    }
}

impl Faulting for VerifyError {
    fn missing(&self) -> Option<&Missing> {
        Self::missing(self)
    }
}

impl Faulting for DbError {
    fn missing(&self) -> Option<&Missing> {
        Self::missing(self)
    }
}

impl Faulting for TxError {
    fn missing(&self) -> Option<&Missing> {
        Self::missing(self)
    }
}

impl Faulting for QueryError {
    fn missing(&self) -> Option<&Missing> {
        Self::missing(self)
    }
}
