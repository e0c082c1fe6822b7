//! Every bound of the protocol in one place; units stand last in the name.

use std::time::Duration;

/// Longest payload of one frame. A longer message travels as several parts.
pub const PART_BYTES_MAX: usize = 256 << 10;
/// Longest message after its parts are joined and it is decompressed.
pub const MESSAGE_BYTES_MAX: usize = 64 << 20;
/// What a provider aims at for one message of blocks or entries, before compression.
pub const CHUNK_BYTES: usize = 192 << 10;
/// Shortest message for which compression is tried.
pub const COMPRESS_BYTES_MIN: usize = 192;
/// Bytes that may be under way to a subscriber, unless it asks for another window.
pub const WINDOW_BYTES_DEFAULT: u64 = 1 << 20;
/// Smallest window that is granted.
pub const WINDOW_BYTES_MIN: u64 = 4 << 10;
/// Largest window that is granted, whatever was asked for.
pub const WINDOW_BYTES_MAX: u64 = 8 << 20;
/// Addresses in one fetch.
pub const FETCH_ADDRESSES_MAX: usize = 1024;
/// Fetches of one subscription that may be unanswered.
pub const FETCHES_MAX: usize = 8;
/// Addresses in one message of a seed list.
pub const SEEDS_PER_MESSAGE_MAX: usize = 1024;
/// Entries in one message.
pub const ENTRIES_PER_MESSAGE_MAX: usize = 4096;
/// Blocks in one message.
pub const BLOCKS_PER_MESSAGE_MAX: usize = 1024;
/// Length of a database's or branch's name.
pub const NAME_BYTES_MAX: usize = 256;
/// Length of a shape (see [`Shape`](crate::Shape)).
pub const SHAPE_BYTES_MAX: usize = 64;
/// Length of the text in a refusal.
pub const TEXT_BYTES_MAX: usize = 1024;
/// Commits a subscriber lacks from which on a batch is tried before single entries. One may hold
/// many transactions: whether a batch is worth it the source knows best.
pub const BATCH_COMMITS_MIN: u64 = 1;
/// Blocks a mirror may still fetch for one snapshot after its seeds.
pub const SNAPSHOT_FETCHES_MAX: u64 = 1 << 22;
/// Subscriptions of one connection.
pub const SUBSCRIPTIONS_MAX: usize = 64;
/// Attempts in a row that made no progress, after which a mirror gives up.
pub const ATTEMPTS_MAX: u32 = 5;

/// A subscriber that takes nothing for so long, while something waits for it, is closed.
pub const STALL: Duration = Duration::from_secs(60);
/// How long a mirror waits for an answer before it asks anew.
pub const ANSWER: Duration = Duration::from_secs(30);
/// How long a mirror keeps an acknowledgement back to join it with later ones.
pub const ACK_DELAY: Duration = Duration::from_secs(2);
/// Pause before a mirror subscribes again after a fault; doubled with each that follows.
pub const RETRY: Duration = Duration::from_millis(250);
/// Longest such pause.
pub const RETRY_MAX: Duration = Duration::from_secs(30);
/// How long commits that a mirror shows may wait to become durable in its own store, so that one
/// sync of its disk serves many of them.
pub const SAVE_DELAY: Duration = Duration::from_millis(20);
