//! Differential store synchronisation: a mirror of a database is kept up to date over a peer's
//! connections, and gets only what changed.
//!
//! What is synchronised is a branch: a log of entries numbered by commit, and snapshots of it that
//! were written out as content-addressed blocks (flushes). The crate knows no datoms and no store.
//! It asks a [`Source`] on the server and tells a [`Replica`] in the mirror; both are implemented
//! above it.
//!
//! - A new commit is one small message, encoded once for all subscribers. A flush is only named:
//!   a full mirror writes out its own indexes at the same commit and compares the result. Whoever
//!   cannot gets the changed blocks, as patches on their predecessors where that is shorter.
//! - After being away a mirror names the commit it has. It gets what it lacks from the log, as a
//!   difference where the log is gone, or walks down from the newest flush and fetches the blocks
//!   that it lacks. A first mirror gets the blocks that all others can be derived from; if that is
//!   interrupted it goes on where it was.
//! - Every block is checked against its address before it is stored, entries must follow from
//!   what is there, and the head moves last: at every moment a mirror is one complete snapshot
//!   that the server had. Where the histories differ, the mirror is reset by name, never mixed.
//! - Nothing is queued for a subscriber that does not keep up. It is behind, and gets what it
//!   lacks from the log when its window has room again.
//!
//! [`Provider`] and [`Subscriber`] are state machines without IO and clock; [`SyncLayer`] runs
//! them over a [`Peer`](datahike_peer::Peer), with a [`Publisher`] on the one side and a
//! [`Mirror`] on the other. All bounds are in [`limits`].
//!
//! ```
//! use std::sync::Arc;
//! use datahike_peer::{Anyone, LinkOptions, Peer, sim::{Network, World}};
//! use datahike_sync::{
//!     Database, Identity, Shape, StoreName, SubscriberOptions, SyncLayer,
//!     model::{ModelReplica, ModelSource},
//! };
//!
//! let world = World::new(1);
//! let network = Network::new(&world);
//!
//! // The server: a database of numbers, served by name.
//! let identity = Identity { store: uuid::Uuid::from_u128(1), epoch: 0 };
//! let source = ModelSource::new(identity, Shape(b"v1"[..].into()));
//! let sync = SyncLayer::new();
//! let server =
//!     Peer::builder(None, world.runtime()).authenticate(Anyone).layer(sync.clone()).build();
//! network.listen("server", &server);
//! let name = StoreName::Name("numbers".to_owned());
//! let publisher = sync.serve([name.clone()], "db", Arc::new(source.clone()));
//!
//! // The mirror.
//! let sync = SyncLayer::new();
//! let client = Peer::builder(None, world.runtime()).layer(sync.clone()).build();
//! let link = client.link(network.dial("server"), LinkOptions::default());
//! let replica = ModelReplica::new();
//! let options = SubscriberOptions::full(Database { store: name, branch: "db".to_owned() });
//! let mirror = sync.mirror(link, Arc::new(replica.clone()), options);
//!
//! // A commit: durable first, then announced.
//! let (at, entry) = source.commit(&[(7, 42)], 0);
//! publisher.committed(at, entry);
//! let head = world.block_on(async move { mirror.reached(1).await }).expect("arrives");
//! assert_eq!(head.at, at);
//! assert_eq!(replica.contents(), Some(source.contents()));
//! ```

pub mod envelope;
pub mod error;
mod layer;
pub mod limits;
pub mod message;
mod mirror;
#[cfg(feature = "model")]
pub mod model;
mod outbox;
pub mod patch;
pub mod point;
pub mod provider;
mod publisher;
pub mod replica;
pub mod source;
pub mod subscriber;
mod wire;

pub use self::{
    error::SyncError,
    layer::SyncLayer,
    message::{Cause, Reset},
    mirror::{Mirror, MirrorState},
    point::{
        Address, CommitId, Database, FlushPoint, Have, Head, Identity, Mode, Partial, Point, Shape,
        StoreName,
    },
    provider::{Provider, ProviderEffect, ProviderEvent},
    publisher::{Publisher, SubscriberStats},
    replica::{Derived, Fold, Replica, ReplicaError},
    source::{Batch, Change, Difference, Entries, Seeds, Source, SourceError, State},
    subscriber::{
        MirrorEvent, Progress, Subscriber, SubscriberEffect, SubscriberEvent, SubscriberOptions,
    },
};
