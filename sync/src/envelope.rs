//! From updates to frame payloads and back: long updates are compressed and split into parts.
//!
//! A payload begins with a tag and the subscription's number, whichever kind it is, so that a
//! receiver can tell to which subscription it belongs without opening it. Compression comes first,
//! parts second; a part is never longer than [`PART_BYTES_MAX`].

use bytes::{BufMut, Bytes, BytesMut};

use crate::{
    limits::{COMPRESS_BYTES_MIN, MESSAGE_BYTES_MAX, PART_BYTES_MAX},
    message::{DecodeError, Topic, Update},
    wire::{Reader, Write},
};

const PACKED: u8 = 32;
const PART: u8 = 33;
const LAST_PART: u8 = 34;

/// LZ4 cannot do better than this many bytes for one; an announcement of more is a lie.
const EXPANSION_MAX: usize = 256;

/// Payloads, in order, that carry `update`; usually one.
///
/// # Errors
/// If the update is longer than [`MESSAGE_BYTES_MAX`], which no receiver would accept.
pub fn seal(topic: Topic, update: &Update) -> Result<Vec<Bytes>, DecodeError> {
    let plain = update.encode();
    if plain.len() > MESSAGE_BYTES_MAX {
        return Err(too_large(plain.len()));
    }
    let packed = if plain.len() < COMPRESS_BYTES_MIN { plain } else { pack(topic, plain) };
    if packed.len() <= PART_BYTES_MAX {
        return Ok(vec![packed]);
    }
    let count = packed.len().div_ceil(PART_BYTES_MAX);
    let part = |index: usize| {
        let start = index * PART_BYTES_MAX;
        let end = packed.len().min(start + PART_BYTES_MAX);
        let mut out = BytesMut::with_capacity(end - start + 6);
        out.put_u8(if index + 1 == count { LAST_PART } else { PART });
        out.varint(u64::from(topic));
        out.put_slice(&packed[start..end]);
        out.freeze()
    };
    Ok((0..count).map(part).collect())
}

/// Number in a payload's head: the subscription, or the request if there is none yet.
///
/// # Errors
/// If the payload is shorter than its head.
pub fn number_of(payload: &Bytes) -> Result<(bool, u32), DecodeError> {
    let mut reader = Reader(payload.clone());
    let tag = reader.u8("tag")?;
    Ok((crate::message::answers_subscribe(tag), reader.u32("subscription")?))
}

/// Joins parts and unpacks; one for each subscription.
#[derive(Debug, Default)]
pub struct Opener {
    parts: BytesMut,
}

impl Opener {
    /// Takes the next payload; gives the update that it completes, if it does.
    ///
    /// # Errors
    /// If the payload is no part of a well-formed update within the limits. The opener is of no
    /// use afterwards.
    pub fn open(&mut self, payload: Bytes) -> Result<Option<Update>, DecodeError> {
        let mut reader = Reader(payload.clone());
        let tag = reader.u8("tag")?;
        reader.u32("subscription")?;
        if tag != PART && tag != LAST_PART {
            if crate::message::ends(tag) {
                self.parts.clear();
            } else if !self.parts.is_empty() {
                return Err(DecodeError::Malformed("sequence of parts"));
            }
            return unpack(payload).map(Some);
        }
        let size = self.parts.len() + reader.0.len();
        if size > MESSAGE_BYTES_MAX {
            return Err(too_large(size));
        }
        self.parts.put_slice(&reader.0);
        if tag == PART {
            return Ok(None);
        }
        unpack(self.parts.split().freeze()).map(Some)
    }
}

fn pack(topic: Topic, plain: Bytes) -> Bytes {
    let packed = lz4_flex::block::compress(&plain);
    let mut out = BytesMut::with_capacity(packed.len() + 12);
    out.put_u8(PACKED);
    out.varint(u64::from(topic));
    out.varint(plain.len() as u64);
    out.put_slice(&packed);
    if out.len() < plain.len() { out.freeze() } else { plain }
}

fn unpack(bytes: Bytes) -> Result<Update, DecodeError> {
    if bytes.first() != Some(&PACKED) {
        return Update::decode(bytes);
    }
    let mut reader = Reader(bytes);
    reader.u8("tag")?;
    reader.u32("subscription")?;
    let size = usize::try_from(reader.varint("size")?).unwrap_or(usize::MAX);
    if size > MESSAGE_BYTES_MAX {
        return Err(too_large(size));
    }
    if size > reader.0.len().saturating_mul(EXPANSION_MAX) {
        return Err(DecodeError::Malformed("size of a packed message"));
    }
    let plain = lz4_flex::block::decompress(&reader.0, size)
        .map_err(|_| DecodeError::Malformed("packed message"))?;
    if plain.len() != size {
        return Err(DecodeError::Malformed("size of a packed message"));
    }
    Update::decode(plain.into())
}

fn too_large(size: usize) -> DecodeError {
    DecodeError::TooLarge { what: "message", found: size as u64, limit: MESSAGE_BYTES_MAX as u64 }
}
