//! Differential store synchronisation as a middleware on peer.

pub mod envelope;
pub mod error;
pub mod limits;
pub mod message;
pub mod patch;
pub mod point;
pub mod provider;
pub mod replica;
pub mod source;
pub mod subscriber;
mod wire;

pub use self::{
    error::SyncError,
    message::{Cause, Reset},
    point::{
        Address, CommitId, Database, FlushPoint, Have, Head, Identity, Mode, Partial, Point, Shape,
        StoreName,
    },
    provider::{Provider, ProviderEffect, ProviderEvent},
    replica::{Derived, Fold, Replica, ReplicaError},
    source::{Batch, Change, Difference, Entries, Seeds, Source, SourceError, State},
    subscriber::{
        MirrorEvent, Progress, Subscriber, SubscriberEffect, SubscriberEvent, SubscriberOptions,
    },
};
