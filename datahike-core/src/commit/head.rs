//! The head record: the mutable cell of a branch.

use super::{CommitError, CommitId, Position, check_version};
use crate::block::Address;
use crate::index::codec::{Reader, put_varint, put_zigzag};

const WHAT: &str = "head record";
const VERSION: u8 = 1;

/// What the head of a branch names. The commits after the flush are in the branch's log.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Head {
    /// The flush record's block.
    pub flush_record: Address,
    /// The commit as of which it is.
    pub flush: Position,
    /// How many commits there are more than entries that were ever appended to the branch's log: 0
    /// where the branch is written from its beginning. A mirror that began with a later snapshot has
    /// fewer; a branch that took the name of a deleted one goes on with the numbers of its log.
    pub log_base: i64,
    /// The table of remembered requests as of the flush, where the branch is written.
    pub dedup: Option<Address>,
}

impl Head {
    /// Number in the log of the entry that is commit `seq + 1`.
    pub fn log_number(&self, seq: u64) -> u64 {
        seq.saturating_add_signed(self.log_base.saturating_neg())
    }

    /// The commit before log entry `number`.
    pub fn seq_at(&self, number: u64) -> u64 {
        number.saturating_add_signed(self.log_base)
    }

    /// Its bytes.
    pub fn encode(&self) -> Vec<u8> {
        let mut out = vec![VERSION];
        out.extend_from_slice(&self.flush_record.0);
        put_varint(&mut out, self.flush.seq);
        out.extend_from_slice(&self.flush.commit.0);
        put_zigzag(&mut out, self.log_base);
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
        check_version(&mut reader, WHAT, VERSION)?;
        let mut read = || {
            let flush_record = Address(reader.array()?);
            let flush = Position { seq: reader.varint()?, commit: CommitId(reader.array()?) };
            let log_base = reader.zigzag()?;
            let dedup = match reader.remaining() {
                0 => None,
                _ => Some(Address(reader.array()?)),
            };
            reader.finish()?;
            Ok(Self { flush_record, flush, log_base, dedup })
        };
        read().map_err(CommitError::decode(WHAT))
    }
}
