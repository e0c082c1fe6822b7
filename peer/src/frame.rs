//! A frame: a 4-byte big-endian serializer id, then the payload to the end of the message. The same
//! framing that Kabel peers use, one frame per WebSocket binary message.

use bytes::{BufMut, Bytes, BytesMut};

/// Which serializer made a payload.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct SerializerId(pub u32);

impl SerializerId {
    /// Raw bytes (Kabel's table).
    pub const BINARY: Self = Self(0);
    /// A string; what a WebSocket text message counts as (Kabel's table).
    pub const STRING: Self = Self(1);
    /// EDN text (Kabel's table). The hello is always in it.
    pub const EDN: Self = Self(2);
    /// Transit JSON (Kabel's table).
    pub const TRANSIT_JSON: Self = Self(11);
    /// Transit MessagePack (Kabel's table).
    pub const TRANSIT_MSGPACK: Self = Self(12);
    /// Fressian (Kabel's table).
    pub const FRESSIAN: Self = Self(13);
    /// CBOR (Kabel's table).
    pub const CBOR: Self = Self(14);
    /// MessagePack with our dictionary: outside Kabel's table, agreed on in the hello.
    pub const MESSAGE_PACK: Self = Self(64);

    /// Every id that has a meaning here, with its name in the hello. Ids are forever.
    pub const TABLE: [(Self, &'static str); 8] = [
        (Self::BINARY, "binary"),
        (Self::STRING, "string"),
        (Self::EDN, "edn"),
        (Self::TRANSIT_JSON, "transit-json"),
        (Self::TRANSIT_MSGPACK, "transit-msgpack"),
        (Self::FRESSIAN, "fressian"),
        (Self::CBOR, "cbor"),
        (Self::MESSAGE_PACK, "msgpack"),
    ];
}

/// Bytes before the payload.
pub const HEADER_BYTES: usize = 4;

/// A message too short to be a frame.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error(
    "a message of {bytes} bytes is too short for a frame, which begins with a 4-byte serializer id"
)]
pub struct Truncated {
    /// How long it is.
    pub bytes: usize,
}

/// Puts the header before a payload.
pub fn encode(serializer: SerializerId, payload: &[u8]) -> Bytes {
    let mut frame = BytesMut::with_capacity(HEADER_BYTES + payload.len());
    frame.put_u32(serializer.0);
    frame.put_slice(payload);
    frame.freeze()
}

/// Splits a frame into serializer and payload, without copying.
///
/// # Errors
/// If it has no whole header. Whether the serializer is known is for the caller.
pub fn decode(frame: &Bytes) -> Result<(SerializerId, Bytes), Truncated> {
    let Some((header, _)) = frame.split_first_chunk::<HEADER_BYTES>() else {
        return Err(Truncated { bytes: frame.len() });
    };
    Ok((SerializerId(u32::from_be_bytes(*header)), frame.slice(HEADER_BYTES..)))
}
