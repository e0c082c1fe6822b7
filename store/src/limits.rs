//! Bounds that every backend keeps. Passing one is [`StoreError::TooLarge`](crate::StoreError::TooLarge).

/// Largest block, uncompressed, in bytes.
pub const BLOCK_BYTES_MAX: usize = 64 << 20;
/// Largest head record, in bytes.
pub const RECORD_BYTES_MAX: usize = 16 << 20;
/// Most bytes of entries and record in one commit.
pub const COMMIT_BYTES_MAX: usize = 128 << 20;
/// Longest branch name, in bytes of UTF-8.
pub const BRANCH_BYTES_MAX: usize = 64;
