//! Finding commits: by the flush records of all branches, and the logs between them.

use std::collections::{BinaryHeap, HashMap, HashSet};
use std::sync::Arc;

use bytes::Bytes;
use datahike_core::block::Address;
use datahike_core::commit::{CommitId, Entry, FlushRecord, Head, Position, public_part};
use datahike_core::datom::TxId;
use datahike_core::schema::system;
use datahike_store::{Head as StoreHead, Store, StoreError};
use datahike_value::Value;

use super::{Revision, no_branch, present};
use crate::blocks::Blocks;
use crate::branch::MIRROR_NOTES;
use crate::error::Error;

/// Bytes of log read at once.
const LOG_BYTES_AT_ONCE: usize = 4 << 20;

/// A commit as the store tells of it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Commit {
    /// Its name.
    pub id: CommitId,
    /// Commits so far, this one included.
    pub seq: u64,
    /// The one that it continues, and those that it merges.
    pub parents: Vec<CommitId>,
    /// Its transactions, in order; none if a branch was forced to show a database value.
    pub transactions: Vec<TxId>,
    /// When the last of them happened, in milliseconds since the epoch.
    pub instant: Option<i64>,
}

/// A flush record that is there.
#[derive(Clone, Debug)]
pub(super) struct Anchor {
    pub(super) address: Address,
    pub(super) at: Position,
    pub(super) grafted: Vec<CommitId>,
    /// Whether it names one before it.
    pub(super) continues: bool,
    pub(super) instant: i64,
}

/// A branch, its flush records from the newest to the oldest that is there, and its log.
#[derive(Debug)]
pub(super) struct Line {
    pub(super) name: String,
    pub(super) head: Head,
    pub(super) stored: StoreHead,
    pub(super) anchors: Vec<Anchor>,
}

/// All branches of a store.
#[derive(Debug)]
pub(super) struct Lines(pub(super) Vec<Line>);

/// A commit that was found: a flush record, and the log entries from there up to the commit.
#[derive(Debug)]
pub(super) struct Found {
    pub(super) anchor: Anchor,
    pub(super) entries: Vec<Bytes>,
    pub(super) at: Position,
}

impl Lines {
    /// Names and heads of the branches, by name.
    pub(super) async fn names(store: &dyn Store) -> Result<Vec<(String, StoreHead)>, Error> {
        let mut found = Vec::new();
        for name in store.branches().await? {
            if name.ends_with(MIRROR_NOTES) {
                continue;
            }
            if let Some(head) = store.head(&name).await?.filter(|head| present(Some(head))) {
                found.push((name, head));
            }
        }
        Ok(found)
    }

    /// Reads the flush records of all branches, those of `first` first.
    pub(super) async fn read(blocks: &Arc<Blocks>, first: &str) -> Result<Self, Error> {
        let mut names = Self::names(blocks.store().as_ref()).await?;
        names.sort_by_key(|(name, _)| name != first);
        let mut lines = Vec::with_capacity(names.len());
        // Branches share flush records: each is read once.
        let mut known: HashMap<Address, Option<(Anchor, Option<Address>)>> = HashMap::new();
        for (name, stored) in names {
            let head = Head::decode(&stored.record)?;
            let mut anchors = Vec::new();
            let mut next = Some(head.flush_record);
            while let Some(address) = next {
                let read = match known.get(&address) {
                    Some(read) => read.clone(),
                    None => {
                        let read = match blocks.read(&address).await {
                            Ok(bytes) => Some(anchor(address, &FlushRecord::decode(&bytes)?)),
                            // Collected, or never mirrored.
                            Err(Error::BlockLost { .. }) if !anchors.is_empty() => None,
                            Err(error) => return Err(error),
                        };
                        known.insert(address, read.clone());
                        read
                    }
                };
                let Some((anchor, previous)) = read else { break };
                anchors.push(anchor);
                next = previous;
            }
            lines.push(Line { name, head, stored, anchors });
        }
        Ok(Self(lines))
    }

    pub(super) async fn locate(
        &self,
        blocks: &Arc<Blocks>,
        revision: &Revision,
    ) -> Result<Found, Error> {
        match revision {
            Revision::Branch(name) => {
                let Some(line) = self.0.iter().find(|line| line.name == *name) else {
                    return Err(no_branch(blocks.store().as_ref(), name).await?);
                };
                let Some(anchor) = line.anchors.first() else {
                    return Err(Error::BlockLost { address: line.head.flush_record });
                };
                let (entries, at) = line.entries(blocks, anchor, |_| false).await?;
                Ok(Found { anchor: anchor.clone(), entries, at })
            }
            Revision::Commit(commit) => self.find(blocks, *commit).await,
        }
    }

    async fn find(&self, blocks: &Arc<Blocks>, commit: CommitId) -> Result<Found, Error> {
        let anchors = self.0.iter().flat_map(|line| &line.anchors);
        if let Some(anchor) = anchors.into_iter().find(|anchor| anchor.at.commit == commit) {
            let (anchor, at) = (anchor.clone(), anchor.at);
            return Ok(Found { anchor, entries: Vec::new(), at });
        }
        for line in &self.0 {
            for anchor in &line.anchors {
                let looked = line.entries(blocks, anchor, |at| at.commit == commit).await;
                match looked {
                    Ok((entries, at)) if at.commit == commit => {
                        return Ok(Found { anchor: anchor.clone(), entries, at });
                    }
                    Ok(_) | Err(Error::Store(StoreError::LogGone { .. })) => {}
                    Err(error) => return Err(error),
                }
            }
        }
        Err(self.no_commit(commit))
    }

    /// The parents of a commit.
    pub(super) async fn parents_of(
        &self,
        blocks: &Arc<Blocks>,
        commit: CommitId,
    ) -> Result<Vec<CommitId>, Error> {
        let mut known = None;
        for line in &self.0 {
            for anchor in &line.anchors {
                if anchor.at.commit == commit {
                    known = Some(anchor);
                    if anchor.at == Position::START {
                        return Ok(Vec::new());
                    }
                    if !anchor.grafted.is_empty() {
                        return Ok(anchor.grafted.clone());
                    }
                }
            }
        }
        for line in &self.0 {
            for anchor in &line.anchors {
                match line.entries(blocks, anchor, |at| at.commit == commit).await {
                    Ok((entries, at)) if at.commit == commit && !entries.is_empty() => {
                        let parents = commits(anchor.at, &entries)?.pop().map(|last| last.parents);
                        return Ok(parents.unwrap_or_default());
                    }
                    Ok(_) | Err(Error::Store(StoreError::LogGone { .. })) => {}
                    Err(error) => return Err(error),
                }
            }
        }
        match known {
            None => Err(self.no_commit(commit)),
            Some(anchor) => Err(Error::NoCommit {
                commit,
                reason: format!(
                    ": its state is there, but the log with commit number {} was given back by a \
                     compaction or a purge",
                    anchor.at.seq
                ),
            }),
        }
    }

    /// The commits that lead to a revision, newest first.
    pub(super) async fn history(
        &self,
        blocks: &Arc<Blocks>,
        revision: &Revision,
        limit: usize,
    ) -> Result<Vec<Commit>, Error> {
        let end = self.locate(blocks, revision).await?.at;
        let mut all: HashMap<CommitId, Commit> = HashMap::new();
        let mut linear = 0;
        'lines: for line in &self.0 {
            for anchor in &line.anchors {
                let entries = match line.entries(blocks, anchor, |_| false).await {
                    Ok((entries, _)) => entries,
                    Err(Error::Store(StoreError::LogGone { .. })) => Vec::new(),
                    Err(error) => return Err(error),
                };
                for commit in commits(anchor.at, &entries)? {
                    linear += usize::from(commit.parents.len() < 2 && commit.seq <= end.seq);
                    all.insert(commit.id, commit);
                }
                if !anchor.grafted.is_empty() {
                    let graft = Commit {
                        id: anchor.at.commit,
                        seq: anchor.at.seq,
                        parents: anchor.grafted.clone(),
                        transactions: Vec::new(),
                        instant: Some(anchor.instant),
                    };
                    all.insert(graft.id, graft);
                }
                // Where nothing was merged, one log is enough, from its end.
                if linear >= limit && linear == all.len() && all.contains_key(&end.commit) {
                    break 'lines;
                }
            }
        }
        let mut history = Vec::new();
        let mut seen = HashSet::from([end.commit]);
        let mut next = BinaryHeap::from([(end.seq, end.commit)]);
        while let Some((_, id)) = next.pop() {
            let Some(commit) = all.remove(&id) else { continue };
            for parent in &commit.parents {
                if seen.insert(*parent) {
                    let seq = all.get(parent).map_or(0, |parent| parent.seq);
                    next.push((seq, *parent));
                }
            }
            history.push(commit);
            if history.len() >= limit {
                break;
            }
        }
        Ok(history)
    }

    fn no_commit(&self, commit: CommitId) -> Error {
        let cut = |line: &&Line| {
            let start = line.head.seq_at(line.stored.log.start);
            line.anchors.last().is_some_and(|oldest| oldest.continues) || {
                let oldest = line.anchors.last().map_or(0, |oldest| oldest.at.seq);
                start > oldest
            }
        };
        let reason = match self.0.iter().find(cut) {
            None => String::new(),
            Some(line) => {
                let first = line.head.seq_at(line.stored.log.start);
                format!(
                    "; commits of branch {} up to number {first} were given back by a compaction \
                     or a purge, it may have been one of them",
                    line.name
                )
            }
        };
        Error::NoCommit { commit, reason }
    }
}

impl Line {
    /// The entries after an anchor, up to the next one or to the one whose place is `wanted`, and
    /// the place of the last.
    ///
    /// # Errors
    /// [`StoreError::LogGone`] if the log does not reach back to the anchor.
    pub(super) async fn entries(
        &self,
        blocks: &Blocks,
        anchor: &Anchor,
        wanted: impl Fn(&Position) -> bool,
    ) -> Result<(Vec<Bytes>, Position), Error> {
        let newer = self.anchors.iter().rev().find(|newer| newer.at.seq > anchor.at.seq);
        let end = match newer {
            Some(newer) => self.head.log_number(newer.at.seq).min(self.stored.log.end),
            None => self.stored.log.end,
        };
        let mut number = self.head.log_number(anchor.at.seq);
        let start = self.stored.log.start;
        if number < start {
            let branch = self.name.clone();
            return Err(StoreError::LogGone { branch, from: number, start }.into());
        }
        let mut at = anchor.at;
        let mut found = Vec::new();
        while number < end {
            let entries = blocks.store().log(&self.name, number, LOG_BYTES_AT_ONCE).await?;
            if entries.is_empty() {
                break;
            }
            for entry in entries {
                if number == end {
                    break;
                }
                at = continued(&at, &entry)?;
                number += 1;
                found.push(entry);
                if wanted(&at) {
                    return Ok((found, at));
                }
            }
        }
        Ok((found, at))
    }
}

/// The place of an entry that must continue another one.
pub(super) fn continued(at: &Position, entry: &[u8]) -> Result<Position, Error> {
    let public = public_part(entry)?;
    if !at.is_continued_by(public) {
        let seq = at.seq.saturating_add(1);
        let error = datahike_core::commit::CommitError::Parent { seq, parent: at.commit };
        return Err(error.into());
    }
    Ok(at.after(public))
}

fn anchor(address: Address, record: &FlushRecord) -> (Anchor, Option<Address>) {
    let anchor = Anchor {
        address,
        at: record.at,
        grafted: record.grafted.clone(),
        continues: record.previous.is_some(),
        instant: record.counters.last_instant,
    };
    (anchor, record.previous)
}

fn commits(mut at: Position, entries: &[Bytes]) -> Result<Vec<Commit>, Error> {
    let mut commits = Vec::with_capacity(entries.len());
    for bytes in entries {
        let (entry, next) = Entry::from_public(public_part(bytes)?, &at)?;
        let before = Some(at.commit).filter(|parent| *parent != CommitId::ROOT);
        let instant = entry.transactions.last().and_then(|transaction| {
            transaction.datoms.iter().find_map(|datom| match datom.v {
                Value::Inst(ms) if datom.a == system::TX_INSTANT => Some(ms),
                _ => None,
            })
        });
        commits.push(Commit {
            id: next.commit,
            seq: next.seq,
            parents: before.into_iter().chain(entry.merged).collect(),
            transactions: entry.transactions.iter().map(|transaction| transaction.tx).collect(),
            instant,
        });
        at = next;
    }
    Ok(commits)
}
