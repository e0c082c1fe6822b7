//! Serializers: how a message becomes the payload of a frame. Another one is one file that
//! implements [`Serializer`] and is handed to [`PeerBuilder::serializer`](crate::PeerBuilder::serializer).

mod dictionary;
mod edn;
mod message_pack;

use std::fmt::Debug;

use datahike_value::Value;

pub use dictionary::DICTIONARY;
pub use edn::Edn;
pub use message_pack::MessagePack;

use crate::frame::SerializerId;
use crate::limits::Limits;
use crate::rt::{MaybeSend, MaybeSync};

/// Turns values into bytes and back.
pub trait Serializer: Debug + MaybeSend + MaybeSync {
    /// The id before the payload.
    fn id(&self) -> SerializerId;

    /// Appends the encoded value.
    ///
    /// # Errors
    /// If this serializer has no form for the value.
    fn encode(&self, value: &Value, out: &mut Vec<u8>) -> Result<(), EncodeError>;

    /// Reads one value that fills `bytes`. The bytes come from outside: no panic, no more memory than
    /// in proportion to them, no more depth and items than `limits` has.
    ///
    /// # Errors
    /// If the bytes are not exactly one value, or it passes a limit.
    fn decode(&self, bytes: &[u8], limits: &Limits) -> Result<Value, DecodeError>;
}

/// A value that a serializer has no form for.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub struct EncodeError(pub String);

/// Bytes that are no value, or one past a limit.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub struct DecodeError(pub String);
