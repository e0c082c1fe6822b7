//! The log of a mirror's copy: what comes is kept in memory first, and made durable together with
//! what came beside it.

use std::sync::Arc;

use bytes::Bytes;
use datahike_core::commit::Head;
use datahike_store::{Batch, Expect, Store};
use parking_lot::Mutex;

use crate::error::Error;

/// The log of one branch, which only this writes to.
#[derive(Debug)]
pub(super) struct Log {
    branch: String,
    store: Arc<dyn Store>,
    /// Entries that are not durable yet, in order.
    waiting: Mutex<Waiting>,
    /// Revision of the head in the store. Held while the store is written to.
    revision: tokio::sync::Mutex<u64>,
}

#[derive(Debug, Default)]
struct Waiting {
    entries: Vec<Bytes>,
    bytes: usize,
}

impl Log {
    pub(super) fn new(branch: &str, store: Arc<dyn Store>, revision: u64) -> Self {
        let branch = branch.to_owned();
        Self { branch, store, waiting: Mutex::default(), revision: revision.into() }
    }

    /// Takes entries that follow those before; whether so much waits that it should be saved first.
    pub(super) fn push(&self, entries: impl Iterator<Item = Bytes>) -> bool {
        let mut waiting = self.waiting.lock();
        for entry in entries {
            waiting.bytes += entry.len();
            waiting.entries.push(entry);
        }
        waiting.bytes > WAITING_BYTES_MAX
    }

    /// Whether everything that was taken is durable.
    pub(super) fn is_saved(&self) -> bool {
        self.waiting.lock().entries.is_empty()
    }

    /// Makes durable what was taken; gives the revision of the head. What could not be written
    /// waits on.
    pub(super) async fn save(&self) -> Result<u64, Error> {
        let mut revision = self.revision.lock().await;
        loop {
            let entries = some_of(&self.waiting.lock().entries);
            let count = entries.len();
            if count == 0 {
                return Ok(*revision);
            }
            let mut batch = Batch::new(&self.branch, Expect::Revision(*revision));
            batch.entries = entries;
            *revision = self.commit(batch).await?;
            let mut waiting = self.waiting.lock();
            let saved: usize = waiting.entries.drain(..count).map(|entry| entry.len()).sum();
            waiting.bytes -= saved;
        }
    }

    /// Writes a head record, and gives up the entries before number `start`.
    pub(super) async fn name(&self, head: &Head, start: u64) -> Result<u64, Error> {
        let mut revision = self.revision.lock().await;
        let mut batch = Batch::new(&self.branch, Expect::Revision(*revision));
        batch.record = Some(head.encode().into());
        batch.log_start = Some(start);
        *revision = self.commit(batch).await?;
        Ok(*revision)
    }

    /// Forgets what waits: the branch is another one now.
    pub(super) async fn restart(&self, revision: u64) {
        let mut known = self.revision.lock().await;
        *self.waiting.lock() = Waiting::default();
        *known = revision;
    }

    async fn commit(&self, batch: Batch) -> Result<u64, Error> {
        let committed = match self.store.commit_now(&batch) {
            Some(committed) => committed,
            None => self.store.commit(batch).await,
        };
        Ok(committed?.revision)
    }
}

/// Bytes of entries that may wait.
const WAITING_BYTES_MAX: usize = 4 << 20;

/// As many as make a commit of moderate size, and at least one.
fn some_of(waiting: &[Bytes]) -> Vec<Bytes> {
    let mut bytes = 0usize;
    let fits = |entry: &&Bytes| {
        let first = bytes == 0;
        bytes += entry.len() + 4;
        first || bytes <= WAITING_BYTES_MAX
    };
    waiting.iter().take_while(fits).cloned().collect()
}
