//! From what is stored to a database value.

use std::sync::Arc;

use super::{CommitError, Entry, FlushRecord, Position};
use crate::block::BlockSource;
use crate::db::Db;
use crate::index::Indexes;

/// Why a stored database cannot be opened.
pub type OpenError = CommitError;

/// The snapshot of a flush record; its blocks are read through `source` when they are needed.
pub fn open(record: &FlushRecord, source: Arc<dyn BlockSource>) -> Db {
    let config = &record.config;
    let indexes = Indexes::open(config.params, config.keep_history, record.roots, source);
    let schema = Arc::new(record.schema.clone());
    Db::restore(config.clone(), schema, indexes, record.counters)
}

/// Lays log entries over a snapshot: `entries` are the encoded entries that follow `at`. Hands every
/// decoded entry to `see`.
///
/// # Errors
/// If one cannot be read or does not continue the one before.
pub fn replay<'a>(
    db: &Db,
    mut at: Position,
    entries: impl IntoIterator<Item = &'a [u8]>,
    mut see: impl FnMut(&Entry),
) -> Result<(Db, Position), OpenError> {
    let mut transactions = Vec::new();
    for bytes in entries {
        let (entry, next) = Entry::decode(bytes, &at)?;
        see(&entry);
        transactions.extend(entry.transactions);
        at = next;
    }
    Ok((db.apply_all(&transactions), at))
}
