//! Reading and writing the parts that messages are made of.

use bytes::{Buf, BufMut, Bytes, BytesMut};
use thiserror::Error;

use crate::{
    limits::{NAME_BYTES_MAX, SHAPE_BYTES_MAX, TEXT_BYTES_MAX},
    point::{Address, CommitId, FlushPoint, Head, Identity, Point, Shape},
};

/// Why bytes are not a message of this protocol.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
#[non_exhaustive]
pub enum DecodeError {
    /// The bytes end inside a field.
    #[error("message ends inside {0}")]
    Truncated(&'static str),
    /// A tag or code this version does not know.
    #[error("unknown {what} {found}")]
    Unknown {
        /// Which kind of tag.
        what: &'static str,
        /// Its value.
        found: u64,
    },
    /// A length or count beyond the limit of its field.
    #[error("{what} of {found} is over the limit of {limit}")]
    TooLarge {
        /// Which field.
        what: &'static str,
        /// Announced size.
        found: u64,
        /// What is allowed.
        limit: u64,
    },
    /// A field whose content is not what it must be.
    #[error("{0} is malformed")]
    Malformed(&'static str),
}

type Result<T> = std::result::Result<T, DecodeError>;

/// Takes fields off the front of a message without copying byte strings.
pub(crate) struct Reader(pub(crate) Bytes);

impl Reader {
    pub(crate) fn u8(&mut self, what: &'static str) -> Result<u8> {
        if self.0.is_empty() {
            return Err(DecodeError::Truncated(what));
        }
        Ok(self.0.get_u8())
    }

    pub(crate) fn varint(&mut self, what: &'static str) -> Result<u64> {
        let mut value = 0u64;
        for shift in (0..64).step_by(7) {
            let byte = self.u8(what)?;
            let bits = u64::from(byte & 0x7f);
            if shift == 63 && bits > 1 {
                return Err(DecodeError::Malformed(what));
            }
            value |= bits << shift;
            if byte & 0x80 == 0 {
                return Ok(value);
            }
        }
        Err(DecodeError::Malformed(what))
    }

    pub(crate) fn u32(&mut self, what: &'static str) -> Result<u32> {
        let found = self.varint(what)?;
        u32::try_from(found).map_err(|_| DecodeError::TooLarge {
            what,
            found,
            limit: u64::from(u32::MAX),
        })
    }

    /// A number of things of which each takes at least `each` bytes: so many must still be there.
    pub(crate) fn count(&mut self, what: &'static str, limit: usize, each: usize) -> Result<usize> {
        let found = self.varint(what)?;
        let count = usize::try_from(found).ok().filter(|n| *n <= limit);
        let Some(count) = count else {
            return Err(DecodeError::TooLarge { what, found, limit: limit as u64 });
        };
        if count.saturating_mul(each) > self.0.len() {
            return Err(DecodeError::Truncated(what));
        }
        Ok(count)
    }

    pub(crate) fn take(&mut self, what: &'static str, len: usize) -> Result<Bytes> {
        if self.0.len() < len {
            return Err(DecodeError::Truncated(what));
        }
        Ok(self.0.split_to(len))
    }

    pub(crate) fn bytes(&mut self, what: &'static str, limit: usize) -> Result<Bytes> {
        let len = self.count(what, limit, 1)?;
        self.take(what, len)
    }

    pub(crate) fn text(&mut self, what: &'static str, limit: usize) -> Result<String> {
        let bytes = self.bytes(what, limit)?;
        std::str::from_utf8(&bytes).map(str::to_owned).map_err(|_| DecodeError::Malformed(what))
    }

    pub(crate) fn name(&mut self, what: &'static str) -> Result<String> {
        self.text(what, NAME_BYTES_MAX)
    }

    pub(crate) fn array<const N: usize>(&mut self, what: &'static str) -> Result<[u8; N]> {
        if self.0.len() < N {
            return Err(DecodeError::Truncated(what));
        }
        let mut array = [0; N];
        self.0.copy_to_slice(&mut array);
        Ok(array)
    }

    pub(crate) fn bool(&mut self, what: &'static str) -> Result<bool> {
        match self.u8(what)? {
            0 => Ok(false),
            1 => Ok(true),
            _ => Err(DecodeError::Malformed(what)),
        }
    }

    pub(crate) fn option<T>(
        &mut self,
        what: &'static str,
        read: impl FnOnce(&mut Self) -> Result<T>,
    ) -> Result<Option<T>> {
        Ok(if self.bool(what)? { Some(read(self)?) } else { None })
    }

    pub(crate) fn address(&mut self) -> Result<Address> {
        self.array("address").map(Address)
    }

    pub(crate) fn addresses(&mut self, limit: usize) -> Result<Vec<Address>> {
        let count = self.count("addresses", limit, 32)?;
        (0..count).map(|_| self.address()).collect()
    }

    pub(crate) fn point(&mut self) -> Result<Point> {
        Ok(Point { seq: self.varint("seq")?, commit: CommitId(self.array("commit id")?) })
    }

    pub(crate) fn flush(&mut self) -> Result<FlushPoint> {
        Ok(FlushPoint { at: self.point()?, address: self.address()? })
    }

    pub(crate) fn head(&mut self) -> Result<Head> {
        let head = Head { at: self.point()?, flush: self.flush()? };
        if head.flush.at.seq > head.at.seq {
            return Err(DecodeError::Malformed("head"));
        }
        Ok(head)
    }

    pub(crate) fn identity(&mut self) -> Result<Identity> {
        let store = uuid::Uuid::from_bytes(self.array("store id")?);
        Ok(Identity { store, epoch: self.varint("epoch")? })
    }

    pub(crate) fn shape(&mut self) -> Result<Shape> {
        self.bytes("shape", SHAPE_BYTES_MAX).map(Shape)
    }

    pub(crate) fn end(&self) -> Result<()> {
        if self.0.is_empty() { Ok(()) } else { Err(DecodeError::Malformed("end of message")) }
    }

    pub(crate) fn rest(&mut self) -> Bytes {
        std::mem::take(&mut self.0)
    }
}

/// Appends fields; the counterpart of [`Reader`].
pub(crate) trait Write {
    fn varint(&mut self, value: u64);
    fn bytes(&mut self, bytes: &[u8]);
    fn text(&mut self, text: &str);
    fn address(&mut self, address: &Address);
    fn addresses(&mut self, addresses: &[Address]);
    fn point(&mut self, point: &Point);
    fn flush(&mut self, flush: &FlushPoint);
    fn head(&mut self, head: &Head);
    fn identity(&mut self, identity: &Identity);
    fn option<T>(&mut self, value: Option<&T>, write: impl FnOnce(&mut Self, &T));
}

impl Write for BytesMut {
    fn varint(&mut self, mut value: u64) {
        while value >= 0x80 {
            self.put_u8((value & 0x7f) as u8 | 0x80);
            value >>= 7;
        }
        self.put_u8(value as u8);
    }

    fn bytes(&mut self, bytes: &[u8]) {
        self.varint(bytes.len() as u64);
        self.put_slice(bytes);
    }

    fn text(&mut self, text: &str) {
        let mut end = text.len().min(TEXT_BYTES_MAX);
        while !text.is_char_boundary(end) {
            end -= 1;
        }
        self.bytes(&text.as_bytes()[..end]);
    }

    fn address(&mut self, address: &Address) {
        self.put_slice(&address.0);
    }

    fn addresses(&mut self, addresses: &[Address]) {
        self.varint(addresses.len() as u64);
        addresses.iter().for_each(|address| self.address(address));
    }

    fn point(&mut self, point: &Point) {
        self.varint(point.seq);
        self.put_slice(&point.commit.0);
    }

    fn flush(&mut self, flush: &FlushPoint) {
        self.point(&flush.at);
        self.address(&flush.address);
    }

    fn head(&mut self, head: &Head) {
        self.point(&head.at);
        self.flush(&head.flush);
    }

    fn identity(&mut self, identity: &Identity) {
        self.put_slice(identity.store.as_bytes());
        self.varint(identity.epoch);
    }

    fn option<T>(&mut self, value: Option<&T>, write: impl FnOnce(&mut Self, &T)) {
        self.put_u8(u8::from(value.is_some()));
        if let Some(value) = value {
            write(self, value);
        }
    }
}
