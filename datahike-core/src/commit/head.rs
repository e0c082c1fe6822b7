//! The head record: the mutable cell of a branch.

use super::{CommitError, CommitId, Position};
use crate::block::Address;
use crate::index::codec::{Reader, put_varint};
use crate::index::DecodeError;

const WHAT: &str = "head record";
const VERSION: u8 = 1;

/// What the head of a branch names. The commits after the flush are in the branch's log: entry
/// number `flush.seq` of the log is the first of them.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Head {
    /// The flush record's block.
    pub flush_record: Address,
    /// The commit as of which it is.
    pub flush: Position,
    /// The table of remembered requests as of the flush, where the branch is written.
    pub dedup: Option<Address>,
}

impl Head {
    /// Its bytes.
    pub fn encode(&self) -> Vec<u8> {
        let mut out = vec![VERSION];
        out.extend_from_slice(&self.flush_record.0);
        put_varint(&mut out, self.flush.seq);
        out.extend_from_slice(&self.flush.commit.0);
        if let Some(dedup) = &self.dedup {
            out.extend_from_slice(&dedup.0);
        }
        out
    }

    /// From its bytes.
    ///
    /// # Errors
    /// If they are none, or of a newer format.
    pub fn decode(bytes: &[u8]) -> Result<Self, CommitError> {
        let mut reader = Reader::new(bytes);
        let mut read = || {
            let version = reader.byte()?;
            let flush_record = Address(reader.array()?);
            let flush = Position { seq: reader.varint()?, commit: CommitId(reader.array()?) };
            let dedup = match reader.remaining() {
                0 => None,
                _ => Some(Address(reader.array()?)),
            };
            Ok::<_, DecodeError>((version, flush_record, flush, dedup, reader.finish()))
        };
        match read() {
            Ok((VERSION, flush_record, flush, dedup, Ok(()))) => {
                Ok(Self { flush_record, flush, dedup })
            }
            Ok((VERSION, .., Err(error))) | Err(error) => Err(CommitError::decode(WHAT)(error)),
            Ok((found, ..)) => {
                Err(CommitError::Version { what: WHAT, found, supported: VERSION })
            }
        }
    }
}
