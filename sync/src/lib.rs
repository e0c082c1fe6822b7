//! Differential store synchronisation as a middleware on peer.

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
