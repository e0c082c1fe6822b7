//! What a mirror must be able to do with what it receives.

use std::error::Error;

use async_trait::async_trait;
use bytes::Bytes;
use thiserror::Error;

use crate::{
    message::{Block, Body, Reset},
    patch,
    point::{Address, FlushPoint, Have, Head, Identity, Point, Shape},
};

/// The mirror's side of a branch: a store of its own that is at every moment one complete, older
/// snapshot of the server's, or empty.
///
/// Each method returns when its effect is durable, and either happens or does not: a crash between
/// two calls leaves a state that [`have`](Self::have) describes and from which the transfer goes
/// on. Only [`append`](Self::append) and [`apply_batch`](Self::apply_batch) may return when
/// their commits show, and leave it to [`save`](Self::save) to make them durable: what a crash takes
/// is durable at the server, and comes again. Calls come one at a time, except for
/// [`block`](Self::block) and [`save`](Self::save).
///
/// Implement it under `#[async_trait]`, and under `#[async_trait(?Send)]` where the target family
/// is `wasm`.
#[cfg_attr(not(target_family = "wasm"), async_trait)]
#[cfg_attr(target_family = "wasm", async_trait(?Send))]
pub trait Replica: Send + Sync {
    /// What is there.
    async fn have(&self) -> Result<Have, ReplicaError>;

    /// Applies log entries, the first of which has number `first`, that is one more than the
    /// commits that are there. Checks that they follow from the commit that is there.
    ///
    /// # Errors
    /// [`ReplicaError::Diverged`] if they do not.
    async fn append(&self, first: u64, entries: Vec<Bytes>) -> Result<Point, ReplicaError>;

    /// Applies what [`Source::batch`](crate::Source::batch) made, transaction by transaction, and
    /// checks that it ends in `to`.
    ///
    /// # Errors
    /// [`ReplicaError::Diverged`] if it does not follow from what is there or does not end in `to`.
    async fn apply_batch(&self, to: Point, bytes: Bytes) -> Result<(), ReplicaError>;

    /// Makes durable what [`append`](Self::append) and [`apply_batch`](Self::apply_batch) took in
    /// before this call. It comes a little after them, once for many commits, and before the mirror
    /// stops. Other methods must not leave anything durable that counts on commits which are not.
    async fn save(&self) -> Result<(), ReplicaError>;

    /// Applies what [`Source::difference`](crate::Source::difference) made, writes out the indexes
    /// and compares the flush record with `to`. If they are equal the head is moved there;
    /// otherwise nothing has changed.
    async fn apply_difference(&self, to: FlushPoint, bytes: Bytes) -> Result<Fold, ReplicaError>;

    /// Writes out the indexes as of the commit of `flush`, which is at or before the head, and
    /// compares the flush record. If they are equal the tail before it is dropped; otherwise
    /// nothing has changed.
    ///
    /// # Errors
    /// [`ReplicaError::Diverged`] if the commit of that number is another one here.
    async fn fold(&self, flush: FlushPoint) -> Result<Fold, ReplicaError>;

    /// Notes that a snapshot of this database and shape is being received. Whatever can be read
    /// now stays readable until [`adopt`](Self::adopt).
    async fn begin(
        &self,
        identity: Identity,
        shape: Shape,
        flush: FlushPoint,
    ) -> Result<(), ReplicaError>;

    /// Whether `bytes` are the block of this address.
    fn verify(&self, address: &Address, bytes: &[u8]) -> bool;

    /// A stored block; patches are made against it.
    async fn block(&self, address: &Address) -> Result<Option<Bytes>, ReplicaError>;

    /// Stores verified blocks; with `seeds`, also notes that so many seeds of the snapshot that
    /// was begun are there.
    async fn put(
        &self,
        blocks: Vec<(Address, Bytes)>,
        seeds: Option<u64>,
    ) -> Result<(), ReplicaError>;

    /// Those of `addresses` that are not stored.
    async fn lacks(&self, addresses: Vec<Address>) -> Result<Vec<Address>, ReplicaError>;

    /// Makes the blocks of a flush that can be made from those that are there and says which
    /// others are needed: all of them for a full mirror, for a lazy one those it wants to begin
    /// with. Nothing is read from the snapshot before [`adopt`](Self::adopt).
    async fn derive(&self, flush: FlushPoint) -> Result<Derived, ReplicaError>;

    /// Makes a complete snapshot the head, unless entries beyond its commit were applied on the
    /// same history: then these stay as the tail on top of it. Returns the head that is now.
    ///
    /// # Errors
    /// [`ReplicaError::Diverged`] if the commit of that number is another one here.
    async fn adopt(&self, flush: FlushPoint) -> Result<Head, ReplicaError>;

    /// Gives up what is there: nothing of it may be mixed with what comes. Afterwards
    /// [`have`](Self::have) names no identity, head or partial snapshot.
    ///
    /// # Errors
    /// [`ReplicaError::Refused`] if the owner wants to keep its copy; the mirror then stops.
    async fn reset(&self, reason: Reset) -> Result<(), ReplicaError>;
}

/// What came of writing out indexes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fold {
    /// The same flush record as the server's.
    Equal,
    /// Another one; the server's blocks are needed.
    Different,
}

/// What came of [`Replica::derive`].
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Derived {
    /// Complete and checked against the flush record.
    Complete,
    /// These blocks are needed.
    Missing(Vec<Address>),
}

/// Why a replica could not do what it was asked.
#[derive(Debug, Error)]
#[non_exhaustive]
pub enum ReplicaError {
    /// Bytes that are not the block of the address under which they came.
    #[error("block {address} does not match its address")]
    Corrupt {
        /// The address.
        address: Address,
    },
    /// Entries that do not follow from the commit that is there.
    #[error("commit {seq} does not follow from what the mirror holds")]
    Diverged {
        /// Number of the first that does not.
        seq: u64,
    },
    /// Bytes that the replica cannot read.
    #[error("cannot read {what}: {reason}")]
    Malformed {
        /// What they should have been.
        what: &'static str,
        /// What is wrong with them.
        reason: String,
    },
    /// The owner keeps what it has.
    #[error("the mirror's copy is kept although it does not go with the server: {0}")]
    Refused(Reset),
    /// The mirror's own store failed.
    #[error("the mirror cannot {action}: {source}")]
    Store {
        /// What it was about to do.
        action: &'static str,
        /// The reason.
        #[source]
        source: Box<dyn Error + Send + Sync>,
    },
}

/// Work that a [`Subscriber`](crate::Subscriber) wants done on its replica.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Task {
    /// [`Replica::have`].
    Load,
    /// [`Replica::append`].
    Append(u64, Vec<Bytes>),
    /// [`Replica::apply_batch`].
    Batch(Point, Bytes),
    /// [`Replica::apply_difference`].
    Difference(FlushPoint, Bytes),
    /// [`Replica::fold`].
    Fold(FlushPoint),
    /// [`Replica::begin`].
    Begin(Identity, Shape, FlushPoint),
    /// Unpack, verify and [`Replica::put`].
    Put(Vec<Block>, Option<u64>),
    /// [`Replica::lacks`].
    Lacks(Vec<Address>),
    /// [`Replica::derive`], and [`Replica::adopt`] if that makes it complete.
    Complete(FlushPoint),
    /// [`Replica::reset`].
    Reset(Reset),
}

/// What came of a [`Task`].
#[derive(Debug)]
pub enum Outcome {
    /// Of [`Task::Load`].
    Loaded(Have),
    /// Of [`Task::Append`] and [`Task::Batch`]: the newest commit.
    Applied(Point),
    /// Of [`Task::Difference`] and [`Task::Fold`].
    Folded(Fold),
    /// Of [`Task::Begin`].
    Begun,
    /// Of [`Task::Put`].
    Stored(Stored),
    /// Of [`Task::Lacks`].
    Lacking(Vec<Address>),
    /// Of [`Task::Complete`]: these blocks are needed.
    Missing(Vec<Address>),
    /// Of [`Task::Complete`]: the snapshot is the head now, or its base.
    Adopted(Head),
    /// Of [`Task::Reset`].
    Forgotten,
    /// It could not be done.
    Failed(ReplicaError),
}

/// What [`Task::Put`] did.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Stored {
    /// The blocks that are stored now.
    pub blocks: Vec<(Address, Bytes)>,
    /// Blocks that the server no longer has.
    pub absent: Vec<Address>,
    /// Blocks that came as patches on something that is not here.
    pub baseless: Vec<Address>,
}

/// Does a task on a replica. Blocks are checked against their addresses here, before the replica
/// is given any of them.
pub async fn perform(replica: &dyn Replica, task: Task) -> Outcome {
    match try_perform(replica, task).await {
        Ok(outcome) => outcome,
        Err(error) => Outcome::Failed(error),
    }
}

async fn try_perform(replica: &dyn Replica, task: Task) -> Result<Outcome, ReplicaError> {
    Ok(match task {
        Task::Load => Outcome::Loaded(replica.have().await?),
        Task::Append(first, entries) => Outcome::Applied(replica.append(first, entries).await?),
        Task::Batch(to, bytes) => {
            replica.apply_batch(to, bytes).await?;
            Outcome::Applied(to)
        }
        Task::Difference(to, bytes) => Outcome::Folded(replica.apply_difference(to, bytes).await?),
        Task::Fold(flush) => Outcome::Folded(replica.fold(flush).await?),
        Task::Begin(identity, shape, flush) => {
            replica.begin(identity, shape, flush).await?;
            Outcome::Begun
        }
        Task::Put(blocks, seeds) => {
            let stored = unpack(replica, blocks).await?;
            replica.put(stored.blocks.clone(), seeds).await?;
            Outcome::Stored(stored)
        }
        Task::Lacks(addresses) => Outcome::Lacking(replica.lacks(addresses).await?),
        Task::Complete(flush) => match replica.derive(flush).await? {
            Derived::Missing(addresses) => Outcome::Missing(addresses),
            Derived::Complete => Outcome::Adopted(replica.adopt(flush).await?),
        },
        Task::Reset(reason) => {
            replica.reset(reason).await?;
            Outcome::Forgotten
        }
    })
}

async fn unpack(replica: &dyn Replica, blocks: Vec<Block>) -> Result<Stored, ReplicaError> {
    let mut stored = Stored::default();
    for Block { address, body } in blocks {
        let bytes = match body {
            Body::Absent => {
                stored.absent.push(address);
                continue;
            }
            Body::Whole(bytes) => bytes,
            Body::Patch { base, patch } => {
                let Some(base) = replica.block(&base).await? else {
                    stored.baseless.push(address);
                    continue;
                };
                patch::apply(&base, &patch).map_err(|error| ReplicaError::Malformed {
                    what: "patch",
                    reason: error.to_string(),
                })?
            }
        };
        if !replica.verify(&address, &bytes) {
            return Err(ReplicaError::Corrupt { address });
        }
        stored.blocks.push((address, bytes));
    }
    Ok(stored)
}
