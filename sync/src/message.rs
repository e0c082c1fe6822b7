//! The messages of the protocol and their bytes.
//!
//! Every message is one tag byte, the number of the subscription (or of the request, before there
//! is a subscription) as a varint, and its fields. The format is the protocol's own: it needs no
//! names on the wire, and byte strings are read without being copied.

mod codec;

use bytes::Bytes;
use thiserror::Error;

pub(crate) use self::codec::{answers_subscribe, ends};

use crate::point::{Address, Database, FlushPoint, Have, Head, Identity, Mode, Point, Shape};
pub use crate::wire::DecodeError;

/// Number that a server gives to a database it serves; the same for all its subscribers, so that
/// one encoded frame serves them all.
pub type Topic = u32;

/// From the mirror to the server.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Request {
    /// Asks for a database; answered by [`Update::Plan`] or [`Update::Refused`].
    Subscribe {
        /// Repeated in the answer.
        request: u32,
        /// What to subscribe to and what is already there.
        subscribe: Box<Subscribe>,
    },
    /// Bytes of this subscription's messages that were taken in so far, all in all.
    Ack {
        /// The subscription.
        topic: Topic,
        /// Their sum since the subscription began.
        bytes: u64,
    },
    /// Asks for blocks; answered by [`Update::Blocks`] with the same number.
    Fetch {
        /// The subscription.
        topic: Topic,
        /// Repeated in the answer; never 0.
        request: u32,
        /// At most [`FETCH_ADDRESSES_MAX`](crate::limits::FETCH_ADDRESSES_MAX).
        addresses: Vec<Address>,
    },
    /// Asks for the blocks by which one flush differs from another, because the mirror cannot make
    /// them itself.
    Changes {
        /// The subscription.
        topic: Topic,
        /// Flush record of the snapshot that the mirror holds.
        base: Address,
        /// The flush it is to reach.
        to: FlushPoint,
    },
    /// The snapshot that was sent is complete and adopted; what follows it may come.
    Ready {
        /// The subscription.
        topic: Topic,
        /// The snapshot's flush record.
        flush: Address,
    },
    /// Ends the subscription.
    Unsubscribe {
        /// The subscription.
        topic: Topic,
    },
}

/// The body of [`Request::Subscribe`].
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Subscribe {
    /// Which database.
    pub database: Database,
    /// What the mirror keeps.
    pub mode: Mode,
    /// How many bytes may be under way to it; granted between
    /// [`WINDOW_BYTES_MIN`](crate::limits::WINDOW_BYTES_MIN) and
    /// [`WINDOW_BYTES_MAX`](crate::limits::WINDOW_BYTES_MAX).
    pub window: u64,
    /// What it holds.
    pub have: Have,
}

/// From the server to the mirror.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Update {
    /// The subscription exists; says how the mirror will be brought up to date.
    Plan {
        /// Of the [`Request::Subscribe`].
        request: u32,
        /// The subscription's number from here on.
        topic: Topic,
        /// Which database it is.
        identity: Identity,
        /// How the server's blocks are made.
        shape: Shape,
        /// The head when the plan was made.
        head: Head,
        /// Whether the mirror is to write out its own blocks at a flush.
        folds: bool,
        /// What comes first.
        plan: Plan,
    },
    /// There will be no subscription.
    Refused {
        /// Of the [`Request::Subscribe`].
        request: u32,
        /// Why.
        cause: Cause,
        /// The same for people.
        text: String,
    },
    /// One new commit.
    Commit {
        /// The subscription.
        topic: Topic,
        /// Its number.
        seq: u64,
        /// Its log entry.
        entry: Bytes,
    },
    /// Commits that the mirror lacks, one after the other.
    Entries {
        /// The subscription.
        topic: Topic,
        /// Number of the first.
        first: u64,
        /// Their log entries.
        entries: Vec<Bytes>,
    },
    /// Many commits that the mirror lacks in one coded piece.
    Batch {
        /// The subscription.
        topic: Topic,
        /// Number of the last commit before them.
        from: u64,
        /// The last of them.
        to: Point,
        /// Opaque here; the replica reads it.
        bytes: Bytes,
    },
    /// What the net effect of the commits up to a flush was, where the log no longer has them.
    Difference {
        /// The subscription.
        topic: Topic,
        /// The snapshot that results.
        to: FlushPoint,
        /// Opaque here; the replica reads it.
        bytes: Bytes,
    },
    /// A snapshot begins.
    Snapshot {
        /// The subscription.
        topic: Topic,
        /// Which, and how it is transferred.
        snapshot: Snapshot,
    },
    /// Seeds of the snapshot by address: the mirror fetches those it lacks.
    Seeds {
        /// The subscription.
        topic: Topic,
        /// Whether the list ends here.
        last: bool,
        /// At most [`SEEDS_PER_MESSAGE_MAX`](crate::limits::SEEDS_PER_MESSAGE_MAX).
        addresses: Vec<Address>,
    },
    /// Blocks, unasked or as an answer.
    Blocks {
        /// The subscription.
        topic: Topic,
        /// The fetch that is answered; 0 for what was not asked for.
        request: u32,
        /// Whether the answer (or the seeds) end here.
        last: bool,
        /// At most [`BLOCKS_PER_MESSAGE_MAX`](crate::limits::BLOCKS_PER_MESSAGE_MAX).
        blocks: Vec<Block>,
    },
    /// The server wrote out its indexes.
    Flush {
        /// The subscription.
        topic: Topic,
        /// Where, and what came of it.
        flush: FlushPoint,
        /// The changed blocks came before this message, and the mirror answers with
        /// [`Request::Ready`]; otherwise it makes them itself.
        sent: bool,
    },
    /// The subscription has ended.
    Closed {
        /// The subscription.
        topic: Topic,
        /// Why.
        cause: Cause,
        /// The same for people.
        text: String,
    },
}

/// What comes after [`Update::Plan`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Plan {
    /// Nothing: the mirror holds the head.
    Current,
    /// What it lacks, from the log or as a difference.
    Follow,
    /// A snapshot, announced by [`Update::Snapshot`].
    Snapshot,
}

/// A snapshot that is transferred.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Snapshot {
    /// Which.
    pub flush: FlushPoint,
    /// How many blocks everything else can be derived from.
    pub seeds: u64,
    /// Their size, as far as the server knows it; for progress only.
    pub bytes: u64,
    /// How they come.
    pub supply: Supply,
}

/// How the blocks of a snapshot reach the mirror.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Supply {
    /// All of them in order, without being asked for, beginning with this one.
    Push {
        /// Number of the first seed that comes.
        from: u64,
    },
    /// As a list of addresses of which the mirror fetches what it lacks.
    List,
    /// Not at all: the mirror asks for each block when it needs it.
    Fetch,
}

/// A block on its way.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Block {
    /// Hash of its content, checked before it is stored.
    pub address: Address,
    /// Its content.
    pub body: Body,
}

/// How a block's content travels.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Body {
    /// As it is.
    Whole(Bytes),
    /// As a patch on another block.
    Patch {
        /// The block it is made against.
        base: Address,
        /// See [`patch`](crate::patch).
        patch: Bytes,
    },
    /// The server no longer has it.
    Absent,
}

/// Why a subscription was refused or ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Cause {
    /// No such database here.
    UnknownDatabase,
    /// The principal may not read it.
    NotAllowed,
    /// This connection has a subscription to it.
    AlreadySubscribed,
    /// This connection has as many subscriptions as it may have.
    TooManySubscriptions,
    /// The mirror must give up what it holds first.
    Reset(Reset),
    /// The other side broke the protocol.
    Protocol,
    /// The mirror took nothing for too long.
    TooSlow,
    /// The server could not read its own store.
    Internal,
    /// The server is being stopped.
    Shutdown,
    /// The database was deleted.
    Deleted,
    /// The server's own store is damaged: asking again does not help before it is repaired.
    Damaged,
}

/// Why what a mirror holds does not go with what the server has. Nothing is ever mixed: the mirror
/// drops its copy and starts anew; writes not yet sent are the business of the layer above.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Error)]
#[non_exhaustive]
pub enum Reset {
    /// It is another store.
    #[error("the mirror holds another store")]
    OtherStore,
    /// It is another incarnation of the store.
    #[error("the store was created anew since")]
    OtherEpoch,
    /// The mirror has commits that the server does not have: the server's store was restored to
    /// an older state.
    #[error("the server's store was restored to an older state")]
    ServerOlder,
    /// Both have a commit of that number, and they differ.
    #[error("the histories of mirror and server have parted")]
    Diverged,
    /// The branch's head was set to something that does not follow from what was there.
    #[error("the branch was set to another history")]
    Replaced,
}
