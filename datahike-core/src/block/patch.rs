//! Blocks as they travel: packed by themselves, or as a patch against a block that the receiver has.
//!
//! The packed bytes are never hashed or compared: an address is that of the plain bytes.

use lz4_flex::block;

/// What a block takes at most; one with a huge value is larger than usual, but bounded too.
pub const MAX_BLOCK: usize = 32 << 20;

/// Why packed bytes or a patch give no block.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum PatchError {
    /// The length that stands before the packed bytes is more than a block may have.
    #[error("packed block claims {len} bytes, a block has at most {MAX_BLOCK}")]
    TooLarge {
        /// The length it claims.
        len: u64,
    },
    /// The packed bytes are damaged, or made for another base.
    #[error("packed block cannot be unpacked: {what}")]
    Damaged {
        /// What is wrong.
        what: String,
    },
}

/// Packs a block by itself.
pub fn pack(block: &[u8]) -> Vec<u8> {
    with_len(block, block::compress(block))
}

/// Back from [`pack`].
///
/// # Errors
/// If the bytes are damaged.
pub fn unpack(packed: &[u8]) -> Result<Vec<u8>, PatchError> {
    unpack_with(packed, block::decompress_into)
}

/// Packs a block against one that resembles it.
pub fn make_patch(base: &[u8], block: &[u8]) -> Vec<u8> {
    with_len(block, block::compress_with_dict(block, base))
}

/// Back from [`make_patch`], with the same base.
///
/// # Errors
/// If the bytes are damaged. With a wrong base there may be an error or other bytes: compare the
/// address.
pub fn apply_patch(base: &[u8], patch: &[u8]) -> Result<Vec<u8>, PatchError> {
    unpack_with(patch, |packed, into| block::decompress_into_with_dict(packed, into, base))
}

fn with_len(block: &[u8], packed: Vec<u8>) -> Vec<u8> {
    let mut out = (block.len() as u64).to_le_bytes()[..4].to_vec();
    out.extend(packed);
    out
}

fn unpack_with(
    packed: &[u8],
    unpack: impl FnOnce(&[u8], &mut [u8]) -> Result<usize, block::DecompressError>,
) -> Result<Vec<u8>, PatchError> {
    let damaged = |what: &str| PatchError::Damaged { what: what.into() };
    let (len, packed) = packed.split_first_chunk::<4>().ok_or_else(|| damaged("too short"))?;
    let len = u32::from_le_bytes(*len) as usize;
    if len > MAX_BLOCK {
        return Err(PatchError::TooLarge { len: len as u64 });
    }
    // No byte of packed data stands for more than 255 bytes.
    if len / 256 > packed.len() {
        return Err(damaged("it is too short for its length"));
    }
    let mut block = vec![0; len];
    match unpack(packed, &mut block) {
        Ok(written) if written == len => Ok(block),
        Ok(_) => Err(damaged("it ends early")),
        Err(error) => Err(PatchError::Damaged { what: error.to_string() }),
    }
}
