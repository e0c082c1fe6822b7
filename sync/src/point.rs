//! What the two sides call things: databases, places in their history, snapshots, blocks.

use std::fmt;

use bytes::Bytes;
use serde::{Deserialize, Serialize};
use uuid::Uuid;

/// Content hash of a block. Which hash it is only the layer above knows.
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
pub struct Address(pub [u8; 32]);

/// Identity of a commit: a hash over its parents and its datoms.
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
pub struct CommitId(pub [u8; 32]);

fn hex(bytes: &[u8; 32], f: &mut fmt::Formatter<'_>) -> fmt::Result {
    bytes.iter().take(8).try_for_each(|byte| write!(f, "{byte:02x}"))
}

impl fmt::Display for Address {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        hex(&self.0, f)
    }
}

impl fmt::Debug for Address {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        hex(&self.0, f)
    }
}

impl fmt::Display for CommitId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        hex(&self.0, f)
    }
}

impl fmt::Debug for CommitId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        hex(&self.0, f)
    }
}

/// How a subscriber names a store.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub enum StoreName {
    /// By the uuid it was created with.
    Id(Uuid),
    /// By the name under which the server serves it.
    Name(String),
}

/// A database as a subscriber names it: a store and one of its branches.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct Database {
    /// The store.
    pub store: StoreName,
    /// The branch, for example `db`.
    pub branch: String,
}

impl fmt::Display for Database {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.store {
            StoreName::Id(id) => write!(f, "{id}/{}", self.branch),
            StoreName::Name(name) => write!(f, "{name}/{}", self.branch),
        }
    }
}

/// Which incarnation of which store: two databases are the same only if both parts are equal.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct Identity {
    /// The store's uuid.
    pub store: Uuid,
    /// Raised when a store is rebuilt under the same uuid, so that its mirrors start anew.
    pub epoch: u64,
}

/// A place in a branch's history.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct Point {
    /// Number of commits up to and including this one; 0 is the empty database.
    pub seq: u64,
    /// The commit that stands there.
    pub commit: CommitId,
}

/// A snapshot whose indexes are written out as blocks.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct FlushPoint {
    /// The commit at which the indexes were written out.
    pub at: Point,
    /// Address of the flush record.
    pub address: Address,
}

/// A branch head: the newest commit and the flush under its tail.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct Head {
    /// The newest commit.
    pub at: Point,
    /// The newest flush, at or before `at`.
    pub flush: FlushPoint,
}

/// Everything on which the blocks made from given datoms depend: format, boundary seed, sizes,
/// history kept. Opaque here, compared for equality; at most
/// [`SHAPE_BYTES_MAX`](crate::limits::SHAPE_BYTES_MAX) bytes.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct Shape(pub Bytes);

/// What a mirror holds when it subscribes.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Have {
    /// Of which database; `None` if it holds nothing at all.
    pub identity: Option<Identity>,
    /// In which shape it makes blocks; `None` if it will take the server's.
    pub shape: Option<Shape>,
    /// The complete snapshot it can answer queries from.
    pub head: Option<Head>,
    /// A snapshot that was being transferred when the mirror was last interrupted.
    pub partial: Option<Partial>,
}

/// How far the transfer of a snapshot has come.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Partial {
    /// The snapshot's flush record.
    pub flush: Address,
    /// How many of its seeds, in their order, are stored.
    pub seeds: u64,
}

/// What a mirror wants to keep.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub enum Mode {
    /// Everything; writes out its own blocks at the server's flushes and checks the root.
    Full,
    /// Everything, but takes changed blocks as patches instead of making them.
    Blocks,
    /// Only the blocks that queries asked for, and changes to them.
    Lazy,
}
