//! The bytes of blocks: varints, integer columns, values, leaves and branches.
//!
//! Encoding is canonical (equal rows, equal bytes). Decoding accepts any bytes without panicking and
//! allocates in proportion to them.

mod block;
mod bytes;
mod ints;
mod strings;
mod value;
mod values;

pub(crate) use self::block::{encode_branch, encode_leaf};
pub(crate) use self::bytes::{Reader, put_varint, put_zigzag};
pub(crate) use self::value::{get_value, put_value};

/// The first byte of every block. A reader that meets another says so instead of guessing.
pub const FORMAT_VERSION: u8 = 1;

/// How many items a block may hold, whatever the parameters of a database.
pub(crate) const MAX_ITEMS: usize = 1 << 16;

/// Why bytes are not a block.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum DecodeError {
    /// Written by a newer version of this program, or no block at all.
    #[error("block format {found} is unknown, this program reads {FORMAT_VERSION}")]
    Version {
        /// Its first byte.
        found: u8,
    },
    /// The bytes end too early.
    #[error("block ends at byte {at}, in the middle of a field")]
    Truncated {
        /// Where.
        at: usize,
    },
    /// More bytes than the block accounts for.
    #[error("{count} byte(s) follow the end of the block")]
    Trailing {
        /// How many.
        count: usize,
    },
    /// A field that no writer makes.
    #[error("malformed block: {what}")]
    Malformed {
        /// Which rule it breaks.
        what: &'static str,
    },
}
