//! Checking a store: every address recomputed, back to the first commit.

use std::collections::HashSet;
use std::sync::Arc;

use datahike_core::block::{Address, children};
use datahike_core::commit::{
    CommitError, CommitId, FlushRecord, Position, Verified, open, replay, verify_indexes,
};
use datahike_core::index::Root;
use datahike_store::{Address as StoreAddress, StoreError};

use super::commits::{Anchor, Line, Lines};
use crate::blocks::Blocks;
use crate::connection::Connection;
use crate::error::Error;

/// Blocks asked of the store at once: about half a megabyte.
const AT_ONCE: usize = 256;

/// What [`verify`] went through and found in order.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Verification {
    /// The branches, by name, the connection's first.
    pub branches: Vec<VerifiedBranch>,
    /// Blocks of index trees whose address was recomputed.
    pub blocks: u64,
}

/// One branch that is in order.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct VerifiedBranch {
    /// Its name.
    pub name: String,
    /// Its newest commit.
    pub at: Position,
    /// From where on every commit id was recomputed: before the first commit, unless it was cut.
    pub since: Position,
    /// Why it does not reach back to the first commit.
    pub cut: Option<Cut>,
    /// Snapshots whose trees are there.
    pub flushes: u64,
    /// Of these, the ones whose trees were made again from the commits before, and came out the
    /// same; only if that was asked for.
    pub remade: u64,
    /// Datoms of the newest snapshot whose order and indexes were checked; only if that was asked
    /// for.
    pub datoms: Option<Verified>,
}

/// Why commits cannot be recomputed before some place.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Cut {
    /// A compaction gave the commits before back, or this copy of the database began here.
    Compacted,
    /// A purge removed the commits up to here: they told what was purged.
    Purged,
    /// The branch was forced to show a database value, after these commits.
    Forced(Vec<CommitId>),
}

/// Recomputes what is stored: the address of every block that a branch reaches, and the id of every
/// commit that the store still tells, back to the first. With `deep`, also makes the trees of each
/// snapshot again from the commits before it, and checks order, counts and agreement of the indexes
/// of the newest: that takes as long as all that was ever written took.
///
/// # Errors
/// The first thing that is wrong: [`Error::BlockLost`], [`Error::BlockDamaged`],
/// [`Error::Commit`], [`Error::OtherIndexes`], [`Error::Indexes`]; what the store fails with.
pub async fn verify(connection: &Connection, deep: bool) -> Result<Verification, Error> {
    let blocks = connection.branch().blocks();
    let lines = Lines::read(blocks, connection.branch().name()).await?;
    let mut seen = HashSet::new();
    let mut branches = Vec::with_capacity(lines.0.len());
    for line in &lines.0 {
        for anchor in &line.anchors {
            let record = FlushRecord::decode(&blocks.read(&anchor.address).await?)?;
            for root in record.roots.current.into_iter().chain(record.roots.history).flatten() {
                verify_tree(blocks, root, &mut seen).await?;
            }
        }
        branches.push(verify_line(blocks, &lines, line, deep).await?);
    }
    Ok(Verification { branches, blocks: seen.len() as u64 })
}

async fn verify_line(
    blocks: &Arc<Blocks>,
    lines: &Lines,
    line: &Line,
    deep: bool,
) -> Result<VerifiedBranch, Error> {
    let [newest, older @ ..] = &*line.anchors else {
        return Err(Error::BlockLost { address: line.head.flush_record });
    };
    if newest.at != line.head.flush {
        return Err(broken(newest.at.seq, line.head.flush.commit));
    }
    let (entries, at) = line.entries(blocks, newest, |_| false).await?;
    let mut verified = VerifiedBranch {
        name: line.name.clone(),
        at,
        since: newest.at,
        cut: None,
        flushes: line.anchors.len() as u64,
        remade: 0,
        datoms: None,
    };
    if deep {
        let record = FlushRecord::decode(&blocks.read(&newest.address).await?)?;
        let source: Arc<Blocks> = Arc::clone(blocks);
        let flushed = open(&record, source);
        let entries = entries.iter().map(|entry| &entry[..]);
        let (db, _) = replay(&flushed, newest.at, entries, |_| {})?;
        let check = || verify_indexes(db.indexes(), db.schema());
        verified.datoms = Some(blocks.settle(check).await?);
    }
    let mut newer = newest;
    let mut older = older.iter();
    verified.cut = loop {
        if newer.at == Position::START {
            break None;
        }
        if !newer.grafted.is_empty() {
            let record = FlushRecord::decode(&blocks.read(&newer.address).await?)?;
            if record.graft_id() != newer.at.commit {
                return Err(broken(newer.at.seq, newer.at.commit));
            }
            break Some(Cut::Forced(newer.grafted.clone()));
        }
        let Some(anchor) = older.next() else { break Some(Cut::Compacted) };
        if !leads_to(blocks, lines, anchor, newer, deep).await? {
            break Some(Cut::Purged);
        }
        verified.remade += u64::from(deep);
        verified.since = anchor.at;
        newer = anchor;
    };
    Ok(verified)
}

/// Recomputes the commits from one flush to the next, from the log of any branch that has them.
/// False if none has.
async fn leads_to(
    blocks: &Arc<Blocks>,
    lines: &Lines,
    from: &Anchor,
    to: &Anchor,
    deep: bool,
) -> Result<bool, Error> {
    let shares = |line: &&Line| {
        let has = |wanted: &Anchor| line.anchors.iter().any(|one| one.address == wanted.address);
        has(from) && has(to)
    };
    for line in lines.0.iter().filter(shares) {
        let entries = match line.entries(blocks, from, |_| false).await {
            Ok((entries, at)) if at == to.at => entries,
            Ok(_) => return Err(broken(to.at.seq, to.at.commit)),
            Err(Error::Store(StoreError::LogGone { .. })) => continue,
            Err(error) => return Err(error),
        };
        if deep {
            let record = FlushRecord::decode(&blocks.read(&from.address).await?)?;
            let source: Arc<Blocks> = Arc::clone(blocks);
            let flushed = open(&record, source);
            let entries = entries.iter().map(|entry| &entry[..]);
            let (db, _) = replay(&flushed, from.at, entries, |_| {})?;
            let made = blocks.settle(|| db.indexes().flush()).await?;
            let stored = FlushRecord::decode(&blocks.read(&to.address).await?)?;
            if *made.indexes.roots() != stored.roots {
                return Err(Error::OtherIndexes { seq: to.at.seq, commit: to.at.commit });
            }
        }
        return Ok(true);
    }
    Ok(false)
}

fn broken(seq: u64, parent: CommitId) -> Error {
    Error::Commit(CommitError::Parent { seq, parent })
}

async fn verify_tree(
    blocks: &Blocks,
    root: Root,
    seen: &mut HashSet<Address>,
) -> Result<(), Error> {
    let mut level = if seen.insert(root.address) { vec![root.address] } else { Vec::new() };
    for depth in (1..=root.depth).rev() {
        let mut below = Vec::new();
        for part in level.chunks(AT_ONCE) {
            let wanted: Vec<_> = part.iter().map(|address| StoreAddress(address.0)).collect();
            let found = blocks.store().get(&wanted).await?;
            for (address, bytes) in part.iter().zip(found) {
                let bytes = bytes.ok_or(Error::BlockLost { address: *address })?;
                Blocks::verify(address, &bytes)?;
                if depth > 1 {
                    let named = children(&bytes).map_err(|error| Error::BlockDamaged {
                        address: *address,
                        reason: error.to_string(),
                    })?;
                    // A subtree that another snapshot has too is verified already.
                    below.extend(named.into_iter().filter(|address| seen.insert(*address)));
                }
            }
        }
        level = below;
    }
    Ok(())
}
