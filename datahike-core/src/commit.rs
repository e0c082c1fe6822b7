//! What a writer makes durable, as bytes: log entries, flush records, head records, and the table by
//! which a transaction happens once.
//!
//! A commit is a log [`Entry`]: one or more resolved transactions, and the private notes of the
//! writer. A flush is a [`FlushRecord`], a block that names the roots of the trees as of one commit.
//! The [`Head`] record of a branch names the newest flush; the commits after it are in the log.

mod batch;
mod dedup;
mod entry;
mod flush_record;
mod head;
mod id;
mod open;
mod scalar;
mod verify;

pub use self::batch::{BATCH_RAW_BYTES_MAX, BatchEntry, decode_batch, encode_batch};
pub use self::dedup::{
    CLIENTS_MAX, Dedup, DedupError, Outcome, REQUEST_BYTES_MAX, REQUESTS_PER_CLIENT_MAX,
    Remembered, RequestId,
};
pub use self::entry::{Entry, MERGED_MAX, Note, TxRecord, entry_of_public, public_part};
pub use self::flush_record::FlushRecord;
pub use self::head::Head;
pub use self::id::{CommitId, NoCommitId, Position};
pub use self::open::{OpenError, open, replay};
pub use self::verify::{Verified, VerifyError, verify_chain, verify_indexes};

use crate::index::DecodeError;
use crate::index::codec::Reader;

/// Why bytes are no commit data.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum CommitError {
    /// Not what the format says.
    #[error("{what} cannot be read: {source}")]
    Decode {
        /// What was being read.
        what: &'static str,
        /// Where it went wrong.
        source: DecodeError,
    },
    /// Written by a newer version of this program.
    #[error("{what} has format {found}, this program reads up to {supported}")]
    Version {
        /// What was being read.
        what: &'static str,
        /// Its first byte.
        found: u8,
        /// The newest format known here.
        supported: u8,
    },
    /// Something that cannot be.
    #[error("{what} is invalid: {reason}")]
    Invalid {
        /// What was being read.
        what: &'static str,
        /// What is wrong with it.
        reason: String,
    },
    /// The entry continues another commit than the one it was read after.
    #[error("log entry {seq} does not continue commit {parent}")]
    Parent {
        /// Number of the entry.
        seq: u64,
        /// The commit before it.
        parent: CommitId,
    },
}

impl CommitError {
    fn decode(what: &'static str) -> impl Fn(DecodeError) -> Self {
        move |source| Self::Decode { what, source }
    }

    fn invalid(what: &'static str, reason: impl ToString) -> Self {
        Self::Invalid { what, reason: reason.to_string() }
    }
}

/// Takes the first byte and checks that it is the format known here.
fn check_version(
    reader: &mut Reader<'_>,
    what: &'static str,
    supported: u8,
) -> Result<(), CommitError> {
    match reader.byte().map_err(CommitError::decode(what))? {
        found if found == supported => Ok(()),
        found => Err(CommitError::Version { what, found, supported }),
    }
}
