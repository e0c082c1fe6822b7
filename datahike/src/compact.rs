//! Giving back the space of what nobody can reach.

use std::collections::HashSet;
use std::sync::Arc;
use std::time::Duration;

use datahike_core::block::{Address, children};
use datahike_core::commit::{FlushRecord, Head};
use datahike_core::index::Root;
use datahike_store::{Address as StoreAddress, Reclaimed, Store};

use crate::blocks::Blocks;
use crate::branch::MIRROR_NOTES;
use crate::connection::Connection;
use crate::error::Error;
use crate::mirror::unfinished;
use crate::versioning::present;
use crate::worker::now_ms;

/// Addresses asked of the store at once.
const AT_ONCE: usize = 4_096;

/// What of the past to keep besides the heads of all branches. Facts that were retracted are no
/// part of it: they stay in any case, in the history of the database.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Keep {
    /// Commits younger than this stay reachable by themselves, and mirrors that stand at one of
    /// them catch up by the log.
    pub younger_than: Duration,
}

/// What was found and given back.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Compacted {
    /// Blocks that are reachable.
    pub kept_blocks: u64,
    /// What was removed.
    pub reclaimed: Reclaimed,
}

/// Writes out the tail, drops the log before the oldest commit to keep, and removes every block
/// that neither a head nor a kept commit reaches. What readers in other processes hold stays until
/// they look at a newer head; database values of this process that are older than what is kept may
/// lose their blocks.
///
/// # Errors
/// [`Error::ReadOnly`] unless the connection is the writer; what the store fails with. Nothing that
/// is reachable is ever removed.
pub async fn compact(connection: &Connection, keep: Keep) -> Result<Compacted, Error> {
    connection.flush().await?;
    let blocks = connection.branch().blocks();
    let store = blocks.store();
    let mark = store.mark();
    let age = i64::try_from(keep.younger_than.as_millis()).unwrap_or(i64::MAX);
    // Transactions that follow each other fast have instants ahead of the clock.
    let oldest = match age {
        0 => i64::MAX,
        age => now_ms().saturating_sub(age),
    };

    let mut live = HashSet::new();
    mark_branches(connection, oldest, &mut live).await?;
    // A branch may be made of an old commit meanwhile: what it needs must be known before anything
    // is removed.
    let garbage = loop {
        let garbage = unreachable(store, &live).await?;
        if !mark_branches(connection, oldest, &mut live).await? {
            break garbage;
        }
    };
    let reclaimed = store.collect(&garbage, mark).await?;
    Ok(Compacted { kept_blocks: live.len() as u64, reclaimed })
}

/// Marks what every branch needs that is not marked yet, and drops the log of the connection's own
/// as far as it goes. False if all was marked already.
async fn mark_branches(
    connection: &Connection,
    oldest: i64,
    live: &mut HashSet<Address>,
) -> Result<bool, Error> {
    let again = !live.is_empty();
    let blocks = connection.branch().blocks();
    let store = blocks.store();
    let mut found = false;
    for branch in store.branches().await? {
        let Some(head) = store.head(&branch).await? else { continue };
        if branch.ends_with(MIRROR_NOTES) {
            // Blocks of a snapshot that is still coming in are reachable from nowhere.
            if unfinished(&head.record) {
                return Err(Error::Unavailable {
                    what: format!(
                        "compacting {} while a copy of it is not complete",
                        store.describe()
                    ),
                    hint: "let the mirror catch up first",
                });
            }
            continue;
        }
        if !present(Some(&head)) {
            continue;
        }
        let head = Head::decode(&head.record)?;
        let known = [Some(head.flush_record), head.dedup];
        if again && known.into_iter().flatten().all(|address| live.contains(&address)) {
            continue;
        }
        found = true;
        let first = mark_branch(blocks, &head, oldest, live).await?;
        if branch == connection.branch().name() {
            connection.drop_log(head.log_number(first)).await?;
        }
    }
    Ok(found)
}

/// Marks what a head needs, and the flush records before it back to the first that is not younger
/// than `oldest`: from there on the log leads to every later commit. Returns its commit.
async fn mark_branch(
    blocks: &Arc<Blocks>,
    head: &Head,
    oldest: i64,
    live: &mut HashSet<Address>,
) -> Result<u64, Error> {
    live.extend(head.dedup);
    let mut address = head.flush_record;
    let mut first = head.flush.seq;
    loop {
        let record = match blocks.read(&address).await {
            Ok(bytes) => FlushRecord::decode(&bytes)?,
            // An earlier compaction ended the chain here.
            Err(Error::BlockLost { .. }) if address != head.flush_record => return Ok(first),
            Err(error) => return Err(error),
        };
        live.insert(address);
        first = record.at.seq;
        for root in record.roots.current.into_iter().chain(record.roots.history).flatten() {
            mark_tree(blocks, root, live).await?;
        }
        match record.previous {
            Some(previous) if record.counters.last_instant > oldest => address = previous,
            _ => return Ok(first),
        }
    }
}

async fn mark_tree(
    blocks: &Arc<Blocks>,
    root: Root,
    live: &mut HashSet<Address>,
) -> Result<(), Error> {
    let mut level = if live.insert(root.address) { vec![root.address] } else { Vec::new() };
    // Leaves name nothing: they need not be read.
    for _ in 1..root.depth {
        let mut below = Vec::new();
        for part in level.chunks(AT_ONCE) {
            let wanted: Vec<_> = part.iter().map(|address| StoreAddress(address.0)).collect();
            let found = blocks.store().get(&wanted).await?;
            for (address, bytes) in part.iter().zip(found) {
                let bytes = bytes.ok_or(Error::BlockLost { address: *address })?;
                let named = children(&bytes).map_err(|error| Error::BlockDamaged {
                    address: *address,
                    reason: error.to_string(),
                })?;
                // A subtree that another snapshot has too is marked already.
                below.extend(named.into_iter().filter(|address| live.insert(*address)));
            }
        }
        level = below;
    }
    Ok(())
}

async fn unreachable(
    store: &Arc<dyn Store>,
    live: &HashSet<Address>,
) -> Result<Vec<StoreAddress>, Error> {
    let mut garbage = Vec::new();
    let mut after = None;
    loop {
        let page = store.list(after, AT_ONCE).await?;
        let Some(last) = page.last() else { return Ok(garbage) };
        after = Some(last.address);
        let dead = page.iter().filter(|block| !live.contains(&Address(block.address.0)));
        garbage.extend(dead.map(|block| block.address));
    }
}
