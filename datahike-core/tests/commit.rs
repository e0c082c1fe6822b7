//! Commit records: log entries, batches, flush and head records, the table of requests.
#![expect(
    clippy::unwrap_used,
    reason = "clippy knows test functions, not the functions they share"
)]

#[path = "commit/dedup.rs"]
mod dedup;
#[path = "commit/entries.rs"]
mod entries;
#[path = "commit/frozen.rs"]
mod frozen;
#[path = "commit/made.rs"]
mod made;
#[path = "commit/snapshots.rs"]
mod snapshots;
