//! What can go wrong in a mirror.

use thiserror::Error;

use crate::{
    message::{Cause, DecodeError},
    point::Address,
    replica::ReplicaError,
};

/// Why a mirror could not go on. Most of these end one subscription, after which the mirror asks
/// anew; see [`MirrorEvent`](crate::MirrorEvent).
#[derive(Debug, Error)]
#[non_exhaustive]
pub enum SyncError {
    /// Bytes that are not a message.
    #[error("unreadable message: {0}")]
    Decode(#[from] DecodeError),
    /// The server refused or ended the subscription.
    #[error("the server ended the subscription ({cause:?}): {text}")]
    Refused {
        /// Why.
        cause: Cause,
        /// In its own words.
        text: String,
    },
    /// A message that may not come at this point.
    #[error("{message} out of turn: {detail}")]
    OutOfTurn {
        /// Which message.
        message: &'static str,
        /// What was due.
        detail: String,
    },
    /// More than was announced, asked for or allowed by the window.
    #[error("the server sent more {0} than it may")]
    TooMuch(&'static str),
    /// The server does not have blocks that belong to its own snapshot, or no longer.
    #[error("the server lacks block {address} and {more} more of its snapshot")]
    Unavailable {
        /// One of them.
        address: Address,
        /// How many others.
        more: usize,
    },
    /// All blocks that were asked for came, and the snapshot is still not complete.
    #[error("the snapshot stays incomplete: block {address} is needed and was sent")]
    Incomplete {
        /// One that is said to be needed.
        address: Address,
    },
    /// No answer came in time.
    #[error("the server did not answer in {seconds} s")]
    Timeout {
        /// How long it was waited for.
        seconds: u64,
    },
    /// The mirror itself could not.
    #[error(transparent)]
    Replica(#[from] ReplicaError),
    /// There is no connection.
    #[error("not connected to the server")]
    Offline,
    /// The mirror was stopped, or failed for good.
    #[error("the mirror has stopped")]
    Stopped,
}
